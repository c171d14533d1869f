// statehouse monitor: every change of every dict, as `watch` prints those of one.
#include <iostream>

#include "clients/cli/commands.h"
#include "clients/cli/exit_codes.h"
#include "clients/cli/follow.h"
#include "clients/cli/watch_line.h"

namespace statehouse::cli {
namespace {

struct Arguments {
  std::string prefix;
  std::vector<std::string> kinds;
  uint64_t count = 0;
  bool keys_only = false;
};

class Printer final : public FollowSink {
 public:
  Printer(bool as_json, uint64_t count) : as_json_(as_json), count_(count) {}

  void Joined(const std::string& dict) override { Print({.dict = dict, .kind = "joined"}); }
  void Left(const std::string& dict, const std::string& why) override {
    Print({.dict = dict, .kind = "left", .reason = why});
  }
  bool Take(const std::string& dict, const sh_watch_event& event) override {
    Told told = ToldOf(event);
    told.dict = dict;
    Print(told);
    if (!told.is_change() || ++changes_ != count_) return false;
    Rest();
    return true;
  }
  void Rest() override {
    std::cout.flush();
    if (!std::cout) throw Failed{kExitError, "cannot write to standard output"};
  }

 private:
  void Print(const Told& told) { std::cout << LineOf(told, as_json_) << "\n"; }

  const bool as_json_;
  const uint64_t count_;
  uint64_t changes_ = 0;
};

constexpr const char* kFooter =
    "A line for each event, with the dict's name in front: what `watch` prints, and `joined` and "
    "`left`\n"
    "of dicts that are created and deleted meanwhile. Of one that joins, what it has by then comes "
    "as\n"
    "`entry`; of those that are there at the beginning only changes come, after `synced`. "
    "`resync`: "
    "some\n"
    "changes of this dict were missed. Control characters of keys and values are shown as \\u001b; "
    "for "
    "programs\n"
    "there is -o ndjson.\n"
    "\n"
    "Examples:\n"
    "  statehouse monitor\n"
    "  statehouse -o ndjson monitor web/ --kinds delete,expire,evict | jq .key";

}  // namespace

void AddMonitorCommand(CLI::App* app, const Globals* globals) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* const command =
      app->add_subcommand("monitor", "Tells every change of every dict that the token may read");
  command->footer(kFooter);
  command->add_option("PREFIX", arguments->prefix, "Only dicts whose names begin with it");
  command
      ->add_option("--kinds", arguments->kinds,
                   "Only these changes, with commas between: put, delete, expire, evict")
      ->delimiter(',')
      ->check(CLI::IsMember({"put", "delete", "expire", "evict"}));
  command->add_flag("--keys-only", arguments->keys_only, "Without values");
  command->add_option("--count", arguments->count, "End after so many changes")
      ->check(CLI::PositiveNumber);
  command->callback([globals, arguments] {
    Printer printer(globals->json, arguments->count);
    Follower(*globals,
             {.prefix = arguments->prefix,
              .only = std::nullopt,
              .kinds = KindsOf(arguments->kinds),
              .keys_only = arguments->keys_only},
             &printer)
        .Run(std::nullopt);
  });
}

}  // namespace statehouse::cli
