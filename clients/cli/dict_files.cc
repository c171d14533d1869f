// statehouse dict export|import: newline-delimited JSON, an entry on each line.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <unordered_set>
#include <vector>

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

// Writes entries as lines of a file, or of standard output.
class Lines final {
 public:
  Lines(const DictArguments& arguments, Progress* progress)
      : name_(arguments.file), progress_(progress) {
    if (name_ == "-") return;
    file_.open(name_, std::ios::binary | std::ios::trunc);
    if (!file_) throw CannotWrite();
  }

  void Write(const v1::Entry& entry) {
    ImportLine line;
    line.key = entry.key();
    line.value = entry.value().SerializeAsString();
    line.fence = entry.fence();
    line.for_ever = !entry.has_ttl();
    if (entry.has_ttl()) {
      line.ttl_ms = static_cast<uint64_t>(
          std::max<int64_t>(1, entry.ttl().seconds() * 1000 + entry.ttl().nanos() / 1'000'000));
    }
    if (const Status written = FormatImportLine(line, &text_); !written.ok()) {
      throw Failed{kExitError, "key \"" + entry.key() + "\": " + written.message()};
    }
    out() << text_ << "\n";
    ++entries_;
    progress_->Show(entries_, entries_);
  }
  void End() {
    out().flush();
    if (!out()) throw CannotWrite();
    progress_->End(entries_);
  }

 private:
  std::ostream& out() { return name_ == "-" ? std::cout : file_; }
  Failed CannotWrite() const { return Failed{kExitError, "cannot write \"" + name_ + "\""}; }

  const std::string& name_;
  Progress* const progress_;
  std::ofstream file_;
  std::string text_;
  uint64_t entries_ = 0;
};

template <typename Take>
void ScanPages(sh_client* client, const DictArguments& arguments, bool keys_only,
               const Take& take) {
  v1::ScanEntriesRequest request;
  request.set_name(arguments.name);
  request.set_prefix(arguments.prefix);
  request.set_keys_only(keys_only);
  do {
    auto page = CallDicts<v1::ScanEntriesResponse>(client, "ScanEntries", request);
    for (v1::Entry& entry : *page.mutable_entries()) take(entry);
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
}

// Entries in the order in which they were inserted. All keys are held in memory, and the values of
// a batch; a batch becomes smaller where its values do not fit in one message.
void ExportInOrder(sh_client* client, const DictArguments& arguments, Lines* lines) {
  std::vector<std::pair<uint64_t, std::string>> keys;
  ScanPages(client, arguments, true, [&](v1::Entry& entry) {
    keys.emplace_back(entry.ordinal(), std::move(*entry.mutable_key()));
  });
  std::sort(keys.begin(), keys.end());
  // Where the dict moved meanwhile, a key may have come twice.
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  size_t count = kBatchEntries;
  for (size_t at = 0; at < keys.size();) {
    count = std::min(count, keys.size() - at);
    v1::GetEntriesRequest request;
    request.set_name(arguments.name);
    for (size_t i = at; i < at + count; ++i) request.add_keys(keys[i].second);
    try {
      const auto page = CallDicts<v1::GetEntriesResponse>(client, "GetEntries", request);
      for (const v1::Entry& entry : page.entries()) lines->Write(entry);
      at += count;
    } catch (const Failed& failed) {
      if (failed.reason != SH_MESSAGE_TOO_LARGE || count == 1) throw;
      count /= 2;
    }
  }
}

void Export(const Globals& globals, const DictArguments& arguments) {
  const Client client = ConnectForEntries(globals);
  v1::DescribeDictRequest describe;
  describe.set_name(arguments.name);
  const uint64_t total =
      CallDicts<v1::DescribeDictResponse>(client.get(), "DescribeDict", describe).dict().entries();
  Progress progress("exported", total);
  Lines lines(arguments, &progress);
  if (arguments.unordered) {
    ScanPages(client.get(), arguments, false, [&](v1::Entry& entry) { lines.Write(entry); });
  } else {
    ExportInOrder(client.get(), arguments, &lines);
  }
  lines.End();
}

// Entries that are set together.
class Batch final {
 public:
  Batch(sh_client* client, const DictArguments& arguments) : client_(client) {
    request_.set_name(arguments.name);
  }

  // Entries of one call live as long as each other and have one fence.
  void Add(const ImportLine& line, uint64_t number) {
    const bool alike =
        line.ttl_ms == like_.ttl_ms && line.for_ever == like_.for_ever && line.fence == like_.fence;
    // Twice in the file: the later one counts.
    if (!alike || !keys_.insert(line.key).second) {
      Flush();
      keys_.insert(line.key);
    }
    if (request_.entries_size() == 0) {
      first_line_ = number;
      like_.ttl_ms = line.ttl_ms;
      like_.for_ever = line.for_ever;
      like_.fence = line.fence;
    }
    v1::Entry* const entry = request_.add_entries();
    entry->set_key(line.key);
    if (!entry->mutable_value()->ParseFromString(line.value)) {
      throw Failed{kExitError, "line " + std::to_string(number) + ": the value cannot be encoded"};
    }
    bytes_ += line.key.size() + line.value.size();
    if (request_.entries_size() == kBatchEntries || bytes_ > kBatchBytes) Flush();
  }

  void Flush() {
    keys_.clear();
    if (request_.entries_size() == 0) return;
    request_.set_fence(like_.fence);
    request_.clear_ttl();
    if (like_.for_ever) request_.mutable_ttl()->set_none(true);
    if (like_.ttl_ms.has_value()) {
      auto* const duration = request_.mutable_ttl()->mutable_duration();
      duration->set_seconds(static_cast<int64_t>(*like_.ttl_ms / 1000));
      duration->set_nanos(static_cast<int32_t>(*like_.ttl_ms % 1000 * 1'000'000));
    }
    try {
      CallDicts<v1::SetEntriesResponse>(client_, "SetEntries", request_);
    } catch (Failed& failed) {  // A refusal says from which line on.
      failed.message = "from line " + std::to_string(first_line_) + " on: " + failed.message;
      throw;
    }
    request_.clear_entries();
    bytes_ = 0;
  }

 private:
  sh_client* const client_;
  v1::SetEntriesRequest request_;
  std::unordered_set<std::string> keys_;
  ImportLine like_;  // Ttl and fence of the entries that are in the request.
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
  const Client client = ConnectForEntries(globals);
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
  command->footer(
      "An import of the lines makes the same entries, in the same order: with their values, "
      "fences\n"
      "and the time they had left to live. Versions are new.");
  command->add_option("NAME", arguments->name, "The dict, or \"#<index>\"")->required();
  command->add_option("FILE", arguments->file, "The file (default: standard output)");
  command->add_option("--prefix", arguments->prefix, "Only keys that begin with it");
  command->add_flag("--unordered", arguments->unordered,
                    "In no order; for dicts whose keys do not fit in this program's memory");
  arguments = std::make_shared<DictArguments>();
  command = AddDictCommand(group, "import", "Sets an entry for each line of JSON", globals,
                           arguments, Import);
  command->footer(
      "A line is {\"key\":…,\"value\":…} and may have \"ttl_ms\": how many milliseconds it lives, "
      "null:\n"
      "for ever, absent: the dict's default; and \"fence\".");
  command->add_option("NAME", arguments->name, "The dict, or \"#<index>\"")->required();
  command->add_option("FILE", arguments->file, "The file (default: standard input)");
}

}  // namespace statehouse::cli
