// statehouse big: what takes the most memory, by a scan; statehouse hot: what changes the most, by
// a watch.
#include <cinttypes>
#include <iostream>
#include <nlohmann/json.hpp>

#include "clients/cli/commands.h"
#include "clients/cli/dict_call.h"
#include "clients/cli/hot_counter.h"
#include "clients/cli/progress.h"
#include "clients/cli/quantity.h"
#include "clients/cli/ranking.h"
#include "clients/cli/terminal_text.h"

namespace statehouse::cli {
namespace {

struct Arguments {
  std::string dict;
  std::string duration = "5s";
  size_t top = 10;
};

std::vector<v1::Dict> DictsOf(sh_client* client, const std::string& only) {
  std::vector<v1::Dict> dicts;
  if (!only.empty()) {
    v1::DescribeDictRequest request;
    request.set_name(only);
    dicts.push_back(CallDicts<v1::DescribeDictResponse>(client, "DescribeDict", request).dict());
    return dicts;
  }
  v1::ListDictsRequest request;
  do {
    const auto page = CallDicts<v1::ListDictsResponse>(client, "ListDicts", request);
    dicts.insert(dicts.end(), page.dicts().begin(), page.dicts().end());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return dicts;
}

// One dict's entries into the ranking. A scan without values does not tell how long they are.
uint64_t Scan(sh_client* client, const v1::Dict& dict, Ranking* largest, Progress* progress) {
  uint64_t scanned = 0;
  v1::ScanEntriesRequest request;
  request.set_name("#" + std::to_string(dict.index()));
  do {
    const auto page = CallDicts<v1::ScanEntriesResponse>(client, "ScanEntries", request);
    for (const v1::Entry& entry : page.entries()) {
      largest->Offer({dict.name(), entry.key()}, entry.key().size() + entry.value().ByteSizeLong());
    }
    scanned += static_cast<uint64_t>(page.entries_size());
    progress->Tell("dict \"" + Visible(dict.name()) + "\": " + std::to_string(scanned) +
                   " of about " + std::to_string(dict.entries()) + " entries");
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return scanned;
}

void PrintBig(const std::vector<v1::Dict>& dicts, size_t dicts_max,
              const std::vector<Ranked>& entries, bool json) {
  const size_t shown = std::min(dicts.size(), dicts_max);
  if (json) {
    nlohmann::ordered_json all = {{"dicts", nlohmann::json::array()},
                                  {"entries", nlohmann::json::array()}};
    for (size_t i = 0; i < shown; ++i) {
      all["dicts"].push_back({{"name", dicts[i].name()},
                              {"entries", dicts[i].entries()},
                              {"entry_bytes", dicts[i].entry_bytes()},
                              {"memory_bytes", dicts[i].memory_bytes()}});
    }
    for (const Ranked& entry : entries) {
      all["entries"].push_back(
          {{"dict", entry.what.dict}, {"key", entry.what.key}, {"bytes", entry.number}});
    }
    std::cout << all.dump(2) << "\n";
    return;
  }
  std::printf("%-32s %12s %14s %14s\n", "DICT", "ENTRIES", "ENTRY BYTES", "MEMORY");
  for (size_t i = 0; i < shown; ++i) {
    std::printf("%-32s %12" PRIu64 " %14" PRIu64 " %14" PRIu64 "\n",
                Visible(dicts[i].name()).c_str(), dicts[i].entries(), dicts[i].entry_bytes(),
                dicts[i].memory_bytes());
  }
  std::printf("\n%14s  %-32s %s\n", "KEY + VALUE", "DICT", "KEY");
  for (const Ranked& entry : entries) {
    std::printf("%14" PRIu64 "  %-32s %s\n", entry.number, Visible(entry.what.dict).c_str(),
                Visible(entry.what.key).c_str());
  }
}

void Big(const Globals& globals, const Arguments& arguments) {
  const Client client = ConnectForEntries(globals);
  std::vector<v1::Dict> dicts = DictsOf(client.get(), arguments.dict);
  std::stable_sort(dicts.begin(), dicts.end(), [](const v1::Dict& a, const v1::Dict& b) {
    return a.memory_bytes() > b.memory_bytes();
  });
  Ranking largest(arguments.top);
  Progress progress;
  uint64_t scanned = 0;
  for (const v1::Dict& dict : dicts) {
    try {
      scanned += Scan(client.get(), dict, &largest, &progress);
    } catch (const Failed& failed) {
      // Others go on when one was deleted meanwhile.
      if (failed.reason != SH_DICT_NOT_FOUND || !arguments.dict.empty()) throw;
    }
  }
  progress.End("scanned " + std::to_string(scanned) + " entries of " +
               std::to_string(dicts.size()) + (dicts.size() == 1 ? " dict" : " dicts"));
  PrintBig(dicts, arguments.top, largest.Sorted(), globals.json);
}

void PrintHot(const std::vector<Ranked>& hottest, const HotCounter& counter, double seconds,
              bool json) {
  if (json) {
    nlohmann::ordered_json all = {{"seconds", seconds},
                                  {"changes", counter.counts().total()},
                                  {"keys", counter.counts().keys()},
                                  {"uncounted", counter.counts().uncounted()},
                                  {"resyncs", counter.resyncs()},
                                  {"hottest", nlohmann::json::array()}};
    for (const Ranked& key : hottest) {
      all["hottest"].push_back(
          {{"dict", key.what.dict}, {"key", key.what.key}, {"changes", key.number}});
    }
    std::cout << all.dump(2) << "\n";
    return;
  }
  std::printf("%12s %12s  %-32s %s\n", "CHANGES", "CHANGES/S", "DICT", "KEY");
  for (const Ranked& key : hottest) {
    std::printf("%12" PRIu64 " %12.1f  %-32s %s\n", key.number,
                static_cast<double>(key.number) / seconds, Visible(key.what.dict).c_str(),
                Visible(key.what.key).c_str());
  }
}

void Hot(const Globals& globals, const Arguments& arguments) {
  const std::optional<uint64_t> ms = ParseMilliseconds(arguments.duration);
  if (!ms.has_value()) {
    throw Failed{kExitUsage, "--for: '" + arguments.duration + "' is no time; use 5s or 1m"};
  }
  HotCounter counter;
  FollowOptions options;
  options.keys_only = true;
  if (!arguments.dict.empty()) options.only = arguments.dict;
  const double seconds =
      Follower(globals, options, &counter).Run(std::chrono::milliseconds(*ms)).count();
  const KeyCounts& counts = counter.counts();
  counter.progress().End(std::to_string(counts.total()) + " changes of " +
                         std::to_string(counts.keys()) + " keys");
  if (counter.resyncs() != 0) {
    std::fprintf(stderr, "changes were missed: %" PRIu64 " times a watch had to begin anew\n",
                 counter.resyncs());
  }
  if (counts.uncounted() != 0) {
    std::fprintf(stderr, "%" PRIu64 " changes are of keys beyond the first %zu, not counted\n",
                 counts.uncounted(), kCountedKeysMax);
  }
  PrintHot(counts.Hottest(arguments.top), counter, seconds, globals.json);
}

}  // namespace

void AddBigCommands(CLI::App* app, const Globals* globals) {
  const auto big = std::make_shared<Arguments>();
  CLI::App* command = app->add_subcommand("big", "Finds the largest dicts and entries by a scan");
  command->footer(
      "An entry's bytes are those of its key and of its value's message, without its header and "
      "without\n"
      "what its block has left. Every value is read, a page at a time: this is no command for "
      "every\n"
      "minute. How far it has come is said on standard error.\n"
      "\n"
      "Examples:\n"
      "  statehouse big\n"
      "  statehouse -o json big sessions --top 100");
  command->add_option("DICT", big->dict, "Only this dict, or \"#<index>\"");
  command->add_option("--top", big->top, "So many dicts and entries (10)")
      ->check(CLI::Range(size_t{1}, kRankedMax));
  command->callback([globals, big] { Big(*globals, *big); });

  const auto hot = std::make_shared<Arguments>();
  command = app->add_subcommand("hot", "Finds the keys that change the most by a watch");
  command->footer(
      "Changes are counted once every dict is followed, and rates are of the time that passed "
      "since: "
      "less\n"
      "than --for where DICT is deleted before. Reads are not seen: work on mapped dicts is told "
      "to "
      "nobody.\n"
      "\n"
      "Examples:\n"
      "  statehouse hot --for 30s\n"
      "  statehouse -o json hot sessions");
  command->add_option("DICT", hot->dict, "Only this dict, or \"#<index>\"");
  command->add_option("--for", hot->duration, "How long to watch (5s)");
  command->add_option("--top", hot->top, "So many keys (10)")
      ->check(CLI::Range(size_t{1}, kRankedMax));
  command->callback([globals, hot] { Hot(*globals, *hot); });
}

}  // namespace statehouse::cli
