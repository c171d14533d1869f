// What the workers of a dict's soak do, one process each: they change it in every way there is, and
// look whether what they see is right.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <utility>

#include "engine/state/dict.h"

namespace statehouse {

inline constexpr int kSoakKeys = 48;
inline constexpr int kSoakAccounts = 8;
inline constexpr int64_t kSoakAccountStart = 1000;
inline constexpr uint64_t kSoakPatienceNs = uint64_t{30} * 1'000'000'000;

// What one worker has seen acknowledged; it outlives the worker.
struct alignas(64) Acknowledged {
  std::atomic<uint64_t> counter{0};
  std::atomic<uint64_t> inserts{0};   // Of keys that nobody had before.
  std::atomic<uint64_t> own{0};       // What it wrote last to its own key …
  std::atomic<uint64_t> own_next{0};  // … and what it was about to write.
  std::atomic<uint64_t> changes{0};
  std::atomic<uint64_t> refusals{0};  // For lack of memory.
  std::atomic<uint64_t> failures{0};
  char failure[256] = {};  // The first one.

  void Fail(const std::string& what);
};

std::string SoakAccount(uint64_t i);

// A value that tells what it has to be: a sum over its key and its content, then the content:
// `bytes`, and the number.
std::string Telling(std::string_view key, uint64_t number, size_t bytes);
bool IsTelling(std::string_view key, std::string_view value);

struct DictSoakOptions {
  // Carries a change out, and asks for what the dict needs where it is refused.
  std::function<Status(const std::function<Status()>& change)> with_help;
  // Whether a change may be refused for lack of memory; it then has changed nothing.
  bool may_be_refused = false;
  // In every round.
  std::function<void()> more;
};

// A worker's life.
class DictSoakWork final {
 public:
  DictSoakWork(Dict& dict, uint32_t lane, int index, Acknowledged* seen,
               DictSoakOptions options = {})
      : dict_(dict),
        lane_{lane, kSoakPatienceNs},
        index_(index),
        seen_(*seen),
        options_(std::move(options)),
        random_(std::random_device{}()) {}

  [[noreturn]] void ForEver();

 private:
  bool Expect(const Status& status, const char* what);
  // A change that may need memory. *refused: it did not get it, as it may.
  bool Change(const char* what, const std::function<Status()>& change, bool* refused = nullptr);
  void Count();
  void CheckOwn();
  void WriteOwn();
  void Churn();
  void Transfer();
  void InsertFresh();
  void Look();
  void LookAtAll();
  void LookAtAccounts();

  Dict& dict_;
  const Lane lane_;
  const int index_;
  Acknowledged& seen_;
  const DictSoakOptions options_;
  std::mt19937_64 random_;
};

}  // namespace statehouse
