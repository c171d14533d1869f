// statehouse watch area: what a range of an area is, whenever it changed, a line for each part.
#include <array>
#include <nlohmann/json.hpp>
#include <optional>

#include "clients/cli/area_until.h"
#include "clients/cli/dict_call.h"
#include "clients/cli/hex_dump.h"
#include "clients/cli/watch_arguments.h"
#include "statehouse/v1/watch.pb.h"

namespace statehouse::cli {
namespace {

constexpr std::array<const char*, 7> kReasons = {
    "", "history gone", "revision unknown", "slow watcher", "overrun", "replaced", "damaged"};
// The bytes of a longer part are not given to a command: its environment has no room for them.
constexpr size_t kExecBytesMax = 32 << 10;

// One event, for people, for programs and for the command.
struct Told {
  std::string kind;
  const v1::AreaRange* range = nullptr;
  std::string reason;
  std::optional<uint64_t> updates;
  bool more = false;
};

std::string LineOf(const Told& told, bool with_data, bool as_json) {
  if (as_json) {
    nlohmann::ordered_json line;
    line["kind"] = told.kind;
    if (told.range != nullptr) {
      line["pos"] = told.range->pos();
      line["len"] = told.range->len();
      if (with_data) line["hex"] = ToHex(told.range->data());
    }
    if (told.more) line["more"] = true;
    if (told.updates) line["updates"] = *told.updates;
    if (!told.reason.empty()) line["reason"] = told.reason;
    return line.dump();
  }
  std::string line = told.kind;
  if (told.range != nullptr) {
    line += "\t" + std::to_string(told.range->pos()) + "\t" + std::to_string(told.range->len());
    if (with_data) line += "\t" + ToHex(told.range->data());
  }
  if (!told.reason.empty()) line += "\t" + told.reason;
  if (told.updates) line += "\t(updates " + std::to_string(*told.updates) + ")";
  return line;
}

class AreaWatching final {
 public:
  AreaWatching(const Globals& globals, const WatchArguments& arguments)
      : globals_(globals), arguments_(arguments) {
    request_.set_name(arguments.name);
    request_.set_pos(arguments.pos);
    if (arguments.len_option->count() > 0) request_.set_len(arguments.len);
    if (arguments.from_updates_option->count() > 0) {
      request_.set_from_updates(arguments.from_updates);
    }
    request_.set_skip_snapshot(arguments.no_snapshot);
    request_.set_ranges_only(arguments.ranges_only);
    if (!arguments.window.empty()) SetTtl(arguments.window, request_.mutable_window());
    if (!arguments.progress.empty()) {
      SetTtl(arguments.progress, request_.mutable_progress_interval());
    }
    if (arguments.until.empty()) return;
    if (arguments.ranges_only) {
      throw Failed{kExitUsage, "--until looks at bytes, which --ranges-only leaves out"};
    }
    StatusOr<AreaUntil> until = AreaUntil::Parse(arguments.until);
    if (!until.ok()) throw Failed{kExitUsage, until.status().message()};
    until_ = *until;
  }

  std::string Request() const { return request_.SerializeAsString(); }
  void Reconnect() const {}  // What comes then stands over what was told.

  bool Take(const v1::WatchAreaResponse& message) {
    std::optional<uint64_t> updates;
    if (message.has_updates()) updates = message.updates();
    bool done = false;
    switch (message.event_case()) {
      case v1::WatchAreaResponse::kSnapshot:
        done =
            Tell({"snapshot", &message.snapshot().range(), "", updates, message.snapshot().more()});
        break;
      case v1::WatchAreaResponse::kChanges: done = TakeChanges(message, updates); break;
      case v1::WatchAreaResponse::kSynced:
        request_.set_from_incarnation(message.synced().incarnation());
        done = Tell({"synced", nullptr, "", updates, false});
        break;
      case v1::WatchAreaResponse::kResync:
        request_.clear_from_updates();
        request_.clear_from_incarnation();
        Tell({"resync", nullptr,
              kReasons[static_cast<size_t>(message.resync().reason()) % kReasons.size()], updates,
              false});
        break;
      case v1::WatchAreaResponse::kProgress: Tell({"progress", nullptr, "", updates, false}); break;
      case v1::WatchAreaResponse::EVENT_NOT_SET: break;
    }
    if (updates) request_.set_from_updates(*updates);
    return done;
  }

 private:
  bool TakeChanges(const v1::WatchAreaResponse& message, const std::optional<uint64_t>& updates) {
    const v1::AreaChanges& changes = message.changes();
    bool done = false;
    for (int i = 0; i < changes.ranges_size() && !done; ++i) {
      const bool is_last = i + 1 == changes.ranges_size();
      done = Tell({"change", &changes.ranges(i), "", is_last ? updates : std::nullopt,
                   changes.more() || !is_last});
    }
    return done;
  }

  // Whether this was the last event that was asked for.
  bool Tell(const Told& told) {
    PrintLine(LineOf(told, !arguments_.ranges_only, globals_.json));
    if (told.range != nullptr && until_) until_->Take(told.range->pos(), told.range->data());
    if (told.kind == "change") {
      if (!arguments_.command.empty()) RunCommand(told);
      if (!told.more && ++changes_ == arguments_.count) return true;
    }
    return until_ && told.range != nullptr && !told.more && until_->IsMet();
  }

  void RunCommand(const Told& told) const {
    Environment variables = {{"STATEHOUSE_EVENT", told.kind},
                             {"STATEHOUSE_POS", std::to_string(told.range->pos())},
                             {"STATEHOUSE_LEN", std::to_string(told.range->len())}};
    if (told.updates) variables.emplace_back("STATEHOUSE_UPDATES", std::to_string(*told.updates));
    if (!arguments_.ranges_only && told.range->len() <= kExecBytesMax) {
      variables.emplace_back("STATEHOUSE_HEX", ToHex(told.range->data()));
    }
    Execute(arguments_.command, variables, "pos " + std::to_string(told.range->pos()));
  }

  const Globals& globals_;
  const WatchArguments& arguments_;
  v1::WatchAreaRequest request_;
  std::optional<AreaUntil> until_;
  uint64_t changes_ = 0;
};

}  // namespace

void WatchArea(const Globals& globals, const WatchArguments& arguments) {
  AreaWatching watching(globals, arguments);
  Streams<v1::WatchAreaResponse, AreaWatching>(globals, "/statehouse.v1.Areas/WatchArea", watching)
      .Run();
}

}  // namespace statehouse::cli
