#include "service/api/call_log.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <string>

#include "service/api/log_fields.h"
#include "service/log.h"

namespace statehouse {
namespace {

constexpr size_t kNameShownMax = 600;
constexpr std::string_view kPrefix = "/statehouse.v1.";

// A caller chooses the name: it may hold nothing that a terminal obeys, and not end its quotes. An
// object's name is ASCII; of what is none, no more is shown.
std::string Shown(std::string_view name) {
  std::string text(name.substr(0, kNameShownMax));
  for (char& c : text) {
    if (c < 0x20 || c == 0x7f || c == '"' || c == '\\') c = '?';
  }
  return text;
}

std::string_view ShortMethod(std::string_view method) {
  if (method.starts_with(kPrefix)) method.remove_prefix(kPrefix.size());
  return method;
}

std::string Described(const LoggedCall& call) {
  std::string text(ShortMethod(call.method));
  if (!call.name.empty()) text += " \"" + Shown(call.name) + "\"";
  text.append(" by token ").append(call.token_id);
  text.append(" at the ").append(DoorName(call.door)).append(" door");
  if (!call.peer.empty()) text.append(" from ").append(Shown(call.peer));
  return text;
}

LogFields FieldsOf(std::string_view kind, const LoggedCall& call) {
  LogFields fields;
  fields.Text("kind", kind)
      .Text("method", ShortMethod(call.method))
      .Text("object", Shown(call.name))
      .Text("token_id", call.token_id)
      .Text("door", DoorName(call.door))
      .Text("peer", Shown(call.peer))
      .Text("reason", ReasonName(call.reason))
      .Milliseconds("ms", std::chrono::duration<double, std::milli>(call.took).count());
  return fields;
}

template <size_t n>
bool IsOneOf(std::string_view method, const std::string_view (&known)[n]) {
  if (!method.starts_with(kPrefix)) return false;
  method.remove_prefix(kPrefix.size());
  return std::find(std::begin(known), std::end(known), method) != std::end(known);
}

}  // namespace

bool CallLog::IsAudited(std::string_view method) {
  static constexpr std::string_view kAudited[] = {
      "Admin/Drain",      "Areas/CreateArea", "Areas/DeleteArea",   "Dicts/ClearDict",
      "Dicts/CreateDict", "Dicts/DeleteDict", "Dicts/DeletePrefix", "Locks/ForceReleaseLock",
  };
  return IsOneOf(method, kAudited);
}

bool CallLog::Waits(std::string_view method) {
  static constexpr std::string_view kWaiting[] = {
      "Areas/WaitArea",
      "Dicts/WaitEntry",
      "Locks/AcquireLock",
      "Sessions/HoldSession",
  };
  return IsOneOf(method, kWaiting);
}

bool CallLog::Lines::Take(int64_t now_s, uint32_t* missed) {
  *missed = 0;
  int64_t second = second_.load(std::memory_order_relaxed);
  if (second != now_s && second_.compare_exchange_strong(second, now_s)) {
    const uint32_t count = count_.exchange(0, std::memory_order_relaxed);
    if (count > kCallLinesMax) *missed = count - kCallLinesMax;
  }
  return count_.fetch_add(1, std::memory_order_relaxed) < kCallLinesMax;
}

void CallLog::Audit(const LoggedCall& call, int64_t now_s) {
  // A level of the log that leaves out what goes well must not leave out who did what.
  const std::shared_ptr<spdlog::logger> log = spdlog::default_logger()->clone("");
  log->set_level(spdlog::level::info);
  if (call.reason != Reason::kOk) {
    uint32_t missed = 0;
    const bool is_let_in = refused_lines_.Take(now_s, &missed);
    if (missed > 0) log->info("audit: {} more refused calls were not logged one by one", missed);
    if (!is_let_in) return;
  }
  FieldsOf("audit", call)
      .Log(*log, spdlog::level::info,
           fmt::format("audit: {}: {}", Described(call), ReasonName(call.reason)));
}

void CallLog::Slow(const LoggedCall& call, int64_t now_s) {
  uint32_t missed = 0;
  const bool is_let_in = slow_lines_.Take(now_s, &missed);
  if (missed > 0) spdlog::warn("{} more slow calls were not logged one by one", missed);
  if (!is_let_in) return;
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(call.took).count();
  FieldsOf("slow", call)
      .Log(*spdlog::default_logger(), spdlog::level::warn,
           fmt::format("slow call: {} took {} ms: {}", Described(call), ms,
                       ReasonName(call.reason)));
}

}  // namespace statehouse
