#include "watch_ops.h"

#include <algorithm>
#include <chrono>
#include <iostream>
#include <span>
#include <string_view>
#include <utility>

#include "answers.h"

namespace sh = statehouse::client;

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPatience{60'000};
constexpr milliseconds kQuiet{100};  // For what must not come.

constexpr std::string_view kOptionsOfAreas[] = {
    "op",          "name",      "pos",         "len",          "snapshot",
    "ranges_only", "window_ms", "progress_ms", "from_updates", "from_incarnation"};
constexpr std::string_view kOptionsOfDicts[] = {
    "op", "name", "prefix", "key", "snapshot", "keys_only", "slow", "previous", "window_ms"};

std::string Text(const flat_json& in, const char* name) { return flat_json_text(&in, name, ""); }
bool Has(const flat_json& in, const char* name) { return flat_json_find(&in, name) != nullptr; }
uint64_t Number(const flat_json& in, const char* name) { return flat_json_number(&in, name, 0); }
milliseconds Ms(const flat_json& in, const char* name) {
  return milliseconds(static_cast<int64_t>(Number(in, name)));
}
bool LeavesOut(const flat_json& in, const char* name) {
  return flat_json_number(&in, name, 1) == 0;
}

// Whether the operation has members that nobody looks at: a case is not to pass without them.
bool HasOthers(const flat_json& in, std::span<const std::string_view> known) {
  for (size_t i = 0; i < in.count; ++i) {
    if (std::find(known.begin(), known.end(), in.members[i].key) == known.end()) {
      std::cerr << "conformance: " << in.members[i].key << " is no option of this watch\n";
      return true;
    }
  }
  return false;
}
bool IsBeyondU64(const flat_json& in) {
  return std::any_of(in.members, in.members + in.count, [](const flat_json_member& member) {
    return member.is_number != 0 && (member.fits == 0 || member.text[0] == '-');
  });
}

sh::Result<sh::AreaWatch> WatchArea(sh::Client& client, const flat_json& in) {
  const sh::Result<sh::Area> area = client.Open(Text(in, "name"));
  if (!area.ok()) return area.error();
  sh::AreaWatchOptions options;
  options.pos = Number(in, "pos");
  if (Has(in, "len")) options.len = Number(in, "len");
  if (Has(in, "from_updates")) {
    options.from = {Number(in, "from_updates"), Number(in, "from_incarnation")};
  }
  options.skip_snapshot = LeavesOut(in, "snapshot");
  options.ranges_only = Number(in, "ranges_only") != 0;
  options.window = Ms(in, "window_ms");
  if (Has(in, "progress_ms")) options.progress = Ms(in, "progress_ms");
  return area->Watch(options);
}

sh::Result<sh::Watch> WatchDict(sh::Client& client, const flat_json& in) {
  const sh::Result<sh::Dict> dict = client.OpenDict(Text(in, "name"), std::nullopt);
  if (!dict.ok()) return dict.error();
  static constexpr std::string_view kPolicies[] = {"resync", "latest", "cancel"};
  sh::WatchOptions options;
  options.prefix = Text(in, "prefix");
  if (Has(in, "key")) options.key = Text(in, "key");
  if (Has(in, "slow")) {
    const auto* const policy =
        std::find(std::begin(kPolicies), std::end(kPolicies), Text(in, "slow"));
    options.slow = static_cast<sh_slow_policy>(policy - std::begin(kPolicies));
  }
  options.skip_snapshot = LeavesOut(in, "snapshot");
  options.keys_only = Number(in, "keys_only") != 0;
  options.previous = Number(in, "previous") != 0;
  options.window = Ms(in, "window_ms");
  return dict->Watch(options);
}

std::string ReasonOf(sh_resync_reason reason) {
  return R"(, "reason": )" + Quoted(sh_resync_reason_text(reason));
}

// Events without what differs between runs.
std::string Show(const sh::AreaEvent& event) {
  constexpr const char* kKinds[] = {"", "snapshot", "change", "synced", "resync", "progress"};
  std::string text = R"({"kind": )" + Quoted(kKinds[event.kind]);
  if (event.kind == SH_AREA_WATCH_SNAPSHOT || event.kind == SH_AREA_WATCH_CHANGE) {
    text += R"(, "pos": )" + std::to_string(event.pos) + R"(, "len": )" +
            std::to_string(event.len) + R"(, "more": )" + Boolean(event.more);
    if (!event.bytes.empty()) text += R"(, "data": )" + Quoted(Hex(event.bytes));
  }
  if (event.kind == SH_AREA_WATCH_RESYNC) text += ReasonOf(event.reason);
  return text + "}";
}
std::string Show(const sh::WatchEvent& event) {
  constexpr const char* kKinds[] = {"",      "put",    "delete", "expire",  "evict",
                                    "entry", "synced", "resync", "progress"};
  std::string text = R"({"kind": )" + Quoted(kKinds[event.kind]);
  if (!event.key.empty()) text += R"(, "key": )" + Quoted(event.key);
  if (event.value) text += R"(, "value": )" + JsonOf(*event.value);
  if (event.previous) text += R"(, "previous": )" + JsonOf(*event.previous);
  if (event.previous_gone) text += R"(, "previous_gone": true)";
  if (event.kind == SH_WATCH_RESYNC) text += ReasonOf(event.reason);
  return text + "}";
}

template <typename AnyWatch>
std::string Next(AnyWatch& watch, milliseconds timeout) {
  return Answer(watch.Next(timeout), [](const auto& event) {
    return event.has_value() ? Show(*event) : std::string("null");
  });
}

std::string PlaceOf(const sh::AreaWatch& watch, const flat_json& in) {
  const std::optional<sh::AreaPoint> point = watch.point();
  if (Text(in, "show") == "incarnation") return Ok(std::to_string(point ? point->incarnation : 0));
  return Ok(point ? std::to_string(point->updates) : "null");
}

}  // namespace

std::string WatchOps::Begin(sh::Client* client, const std::string& op, const flat_json& in) {
  const bool is_of_area = op == "watch_area";
  Clear();
  const bool has_others =
      is_of_area ? HasOthers(in, kOptionsOfAreas) : HasOthers(in, kOptionsOfDicts);
  if (has_others) return Malformed();
  if (client == nullptr || IsBeyondU64(in)) return Inexpressible();
  const auto keep = [this](auto begun) {
    if (begun.ok()) {
      watch_ = *std::move(begun);
    } else {
      watch_ = begun.error();
    }
  };
  is_of_area ? keep(WatchArea(*client, in)) : keep(WatchDict(*client, in));
  return Ok("null");
}

std::optional<std::string> WatchOps::Do(sh::Client* client, const flat_json& in) {
  const std::string op = Text(in, "op");
  if (op == "watch_area" || op == "watch_dict") return Begin(client, op, in);
  if (op == "close_watch") {
    Clear();
    return Ok("null");
  }
  if (op != "next_event" && op != "no_event" && op != "watch_place") return std::nullopt;
  if (const auto* const error = std::get_if<sh::Error>(&watch_)) return Refused(*error);
  const milliseconds timeout = op == "no_event" ? kQuiet : kPatience;
  if (auto* const of_dict = std::get_if<sh::Watch>(&watch_)) {
    return op == "watch_place" ? Inexpressible() : Next(*of_dict, timeout);
  }
  if (auto* const of_area = std::get_if<sh::AreaWatch>(&watch_)) {
    return op == "watch_place" ? PlaceOf(*of_area, in) : Next(*of_area, timeout);
  }
  return Inexpressible();  // There is no object to call.
}
