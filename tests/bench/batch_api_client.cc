// One client with one connection that runs batches of the C++ client one after another, in place of
// redis-benchmark: prints what one operation took, in ns, results read included.
//   batch_api_client URL TOKEN network|socket|local incr|set|get DEPTH OPERATIONS KEYS
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "statehouse/client.hpp"

namespace statehouse::bench {
namespace {

namespace sc = statehouse::client;

constexpr size_t kKeyDigits = 12;

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "batch_api_client: %s\n", what.c_str());
  std::exit(2);
}

// "key:000000000042", as redis-benchmark's.
void SetDigits(uint32_t number, std::string* key) {
  for (size_t digit = kKeyDigits; digit > 0; number /= 10) {
    (*key)[4 + --digit] = static_cast<char>('0' + number % 10);
  }
}

struct Job {
  std::string kind;
  uint64_t depth = 0;
  uint64_t operations = 0;
  uint32_t keys = 0;
};

template <typename T>
void Check(const std::vector<sc::Noted<T>>& noted) {
  for (const sc::Noted<T>& each : noted) {
    const sc::Result<T> result = each.result();
    if (!result.ok()) Die(result.error().message());
  }
}

// Notes, runs and reads batches of `note`'s operations.
template <typename T, typename Note>
double Measure(sc::Client& client, const Job& job, const Note& note) {
  std::minstd_rand random{7};
  std::string key = "key:" + std::string(kKeyDigits, '0');
  sc::Batch batch = client.NewBatch();
  std::vector<sc::Noted<T>> noted;
  const auto begin = std::chrono::steady_clock::now();
  for (uint64_t done = 0; done < job.operations; done += job.depth) {
    noted.clear();
    for (uint64_t i = 0; i < job.depth; ++i) {
      SetDigits(static_cast<uint32_t>(random()) % job.keys, &key);
      noted.push_back(note(batch, key));
    }
    const sc::Result<sc::Done> ran = batch.Run();
    if (!ran.ok()) Die(ran.error().message());
    Check(noted);
  }
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
  return took.count() / static_cast<double>(job.operations);
}

double Run(sc::Client& client, const Job& job) {
  sc::Dict dict = client.OpenDict(job.kind == "incr" ? "numbers" : "texts").value();
  if (job.kind == "incr") {
    return Measure<int64_t>(client, job, [&](sc::Batch& batch, const std::string& key) {
      return batch.Increment(dict, key);
    });
  }
  if (job.kind == "set") {
    return Measure<sc::Outcome>(client, job, [&](sc::Batch& batch, const std::string& key) {
      return batch.Set(dict, key, "xxx");
    });
  }
  return Measure<std::optional<std::string>>(
      client, job,
      [&](sc::Batch& batch, const std::string& key) { return batch.Get<std::string>(dict, key); });
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  using namespace statehouse::bench;
  if (argc != 8) Die("usage: batch_api_client URL TOKEN DOOR KIND DEPTH OPERATIONS KEYS");
  sc::Options options;
  options.token = argv[2];
  const std::string door = argv[3];
  options.transport = door == "local"    ? SH_TRANSPORT_LOCAL
                      : door == "socket" ? SH_TRANSPORT_SOCKET
                                         : SH_TRANSPORT_NETWORK;
  auto client = sc::Client::Connect(argv[1], options);
  if (!client.ok()) Die(client.error().message());
  Job job;
  job.kind = argv[4];
  job.depth = std::strtoull(argv[5], nullptr, 10);
  job.keys = static_cast<uint32_t>(std::strtoul(argv[7], nullptr, 10));
  job.operations = 64 * job.depth;
  (void)Run(*client, job);  // The connection, and its stream.
  job.operations = std::strtoull(argv[6], nullptr, 10);
  std::printf("%.1f\n", Run(*client, job));
  return 0;
}
