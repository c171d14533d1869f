// statehouse dict export|import: newline-delimited JSON, an entry on each line.
#include <unistd.h>

#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "clients/cli/dict_call.h"
#include "clients/cli/import_line.h"

namespace statehouse::cli {
namespace {

constexpr int kBatchEntries = 256;
constexpr size_t kBatchBytes = 4 << 20;

// How far it is, on a terminal's standard error: at most ten times in a second.
class Progress final {
 public:
  // `total` 0: not known.
  Progress(const char* verb, uint64_t total)
      : verb_(verb), total_(total), visible_(isatty(STDERR_FILENO) == 1) {}

  void Show(uint64_t done, uint64_t entries) {
    const auto now = std::chrono::steady_clock::now();
    if (!visible_ || now < next_) return;
    next_ = now + std::chrono::milliseconds(100);
    Print(done, entries);
  }
  void End(uint64_t entries) {
    if (visible_) {
      Print(total_, entries);
      std::fputc('\n', stderr);
    } else {
      std::fprintf(stderr, "%s %" PRIu64 " entries\n", verb_, entries);
    }
  }

 private:
  void Print(uint64_t done, uint64_t entries) const {
    constexpr int kBar = 30;
    if (total_ == 0) {
      std::fprintf(stderr, "\r%s %" PRIu64 " entries", verb_, entries);
      return;
    }
    const int filled = static_cast<int>(std::min(done, total_) * kBar / total_);
    std::fprintf(stderr, "\r%s [%.*s%*s] %3" PRIu64 "%%  %" PRIu64 " entries", verb_, filled,
                 "##############################", kBar - filled, "",
                 std::min(done, total_) * 100 / total_, entries);
  }

  const char* const verb_;
  const uint64_t total_;
  const bool visible_;
  std::chrono::steady_clock::time_point next_{};
};

void Export(const Globals& globals, const DictArguments& arguments) {
  const Client client = Connect(globals);
  v1::DescribeDictRequest describe;
  describe.set_name(arguments.name);
  const uint64_t total =
      CallDicts<v1::DescribeDictResponse>(client.get(), "DescribeDict", describe).dict().entries();
  std::ofstream file;
  if (arguments.file != "-") {
    file.open(arguments.file, std::ios::binary | std::ios::trunc);
    if (!file) throw Failed{kExitError, "cannot write \"" + arguments.file + "\""};
  }
  std::ostream& out = arguments.file == "-" ? std::cout : file;
  Progress progress("exported", total);
  uint64_t entries = 0;
  v1::ScanEntriesRequest request;
  request.set_name(arguments.name);
  request.set_prefix(arguments.prefix);
  std::string text;
  do {
    const auto page = CallDicts<v1::ScanEntriesResponse>(client.get(), "ScanEntries", request);
    for (const v1::Entry& entry : page.entries()) {
      ImportLine line;
      line.key = entry.key();
      line.value = entry.value().SerializeAsString();
      if (entry.has_ttl()) {
        line.ttl_ms = static_cast<uint64_t>(
            std::max<int64_t>(1, entry.ttl().seconds() * 1000 + entry.ttl().nanos() / 1'000'000));
      }
      if (const Status written = FormatImportLine(line, &text); !written.ok()) {
        throw Failed{kExitError, "key \"" + entry.key() + "\": " + written.message()};
      }
      out << text << "\n";
      ++entries;
      progress.Show(entries, entries);
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  out.flush();
  if (!out) throw Failed{kExitError, "cannot write \"" + arguments.file + "\""};
  progress.End(entries);
}

// Entries that are set together.
class Batch final {
 public:
  Batch(sh_client* client, const DictArguments& arguments) : client_(client) {
    request_.set_name(arguments.name);
  }

  void Add(const ImportLine& line, uint64_t number) {
    if (line.ttl_ms.has_value()) return SetAlone(line, number);
    for (const v1::Entry& entry : request_.entries()) {
      if (entry.key() == line.key) {  // Twice in the file: the later one counts.
        Flush();
        break;
      }
    }
    v1::Entry* const entry = request_.add_entries();
    entry->set_key(line.key);
    Decode(line, number, entry->mutable_value());
    if (request_.entries_size() == 1) first_line_ = number;
    bytes_ += line.key.size() + line.value.size();
    if (request_.entries_size() == kBatchEntries || bytes_ > kBatchBytes) Flush();
  }

  void Flush() {
    if (request_.entries_size() == 0) return;
    Guard(first_line_, [&] { CallDicts<v1::SetEntriesResponse>(client_, "SetEntries", request_); });
    request_.clear_entries();
    bytes_ = 0;
  }

 private:
  static void Decode(const ImportLine& line, uint64_t number, v1::Value* value) {
    if (value->ParseFromString(line.value)) return;
    throw Failed{kExitError, "line " + std::to_string(number) + ": the value cannot be encoded"};
  }

  // A refusal says from which line on.
  template <typename Run>
  static void Guard(uint64_t number, const Run& run) {
    try {
      run();
    } catch (Failed& failed) {
      failed.message = "from line " + std::to_string(number) + " on: " + failed.message;
      throw;
    }
  }

  void SetAlone(const ImportLine& line, uint64_t number) {
    Flush();
    v1::SetEntryRequest request;
    request.set_name(request_.name());
    request.set_key(line.key);
    Decode(line, number, request.mutable_value());
    auto* duration = request.mutable_ttl()->mutable_duration();
    duration->set_seconds(static_cast<int64_t>(*line.ttl_ms / 1000));
    duration->set_nanos(static_cast<int32_t>(*line.ttl_ms % 1000 * 1'000'000));
    Guard(number, [&] { CallDicts<v1::SetEntryResponse>(client_, "SetEntry", request); });
  }

  sh_client* const client_;
  v1::SetEntriesRequest request_;
  uint64_t first_line_ = 0;
  size_t bytes_ = 0;
};

void Import(const Globals& globals, const DictArguments& arguments) {
  std::ifstream file;
  uint64_t total = 0;
  if (arguments.file != "-") {
    file.open(arguments.file, std::ios::binary | std::ios::ate);
    if (!file) throw Failed{kExitError, "cannot read \"" + arguments.file + "\""};
    total = static_cast<uint64_t>(file.tellg());
    file.seekg(0);
  }
  std::istream& in = arguments.file == "-" ? std::cin : file;
  const Client client = Connect(globals);
  Batch batch(client.get(), arguments);
  Progress progress("imported", total);
  uint64_t number = 0;
  uint64_t bytes = 0;
  uint64_t entries = 0;
  for (std::string text; std::getline(in, text);) {
    ++number;
    bytes += text.size() + 1;
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    ImportLine line;
    if (const Status parsed = ParseImportLine(text, &line); !parsed.ok()) {
      batch.Flush();
      throw Failed{kExitError, "line " + std::to_string(number) + ": " + parsed.message() +
                                   "\nThe lines before it were imported."};
    }
    batch.Add(line, number);
    progress.Show(bytes, ++entries);
  }
  batch.Flush();
  progress.End(entries);
}

}  // namespace

void AddDictFileCommands(CLI::App* group, const Globals* globals) {
  auto arguments = std::make_shared<DictArguments>();
  CLI::App* command = AddDictCommand(group, "export", "Writes every entry as a line of JSON",
                                     globals, arguments, Export);
  command->add_option("NAME", arguments->name, "The dict, or \"#<index>\"")->required();
  command->add_option("FILE", arguments->file, "The file (default: standard output)");
  command->add_option("--prefix", arguments->prefix, "Only keys that begin with it");
  arguments = std::make_shared<DictArguments>();
  command = AddDictCommand(group, "import",
                           "Sets an entry for each line {\"key\":…,\"value\":…,\"ttl_ms\":…}",
                           globals, arguments, Import);
  command->add_option("NAME", arguments->name, "The dict, or \"#<index>\"")->required();
  command->add_option("FILE", arguments->file, "The file (default: standard input)");
}

}  // namespace statehouse::cli
