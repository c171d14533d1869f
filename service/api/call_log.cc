#include "service/api/call_log.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>
#include <string>

#include "service/api/error_detail.h"

namespace statehouse {
namespace {

constexpr size_t kNameShownMax = 255;
constexpr std::string_view kPrefix = "/statehouse.v1.";

// A caller chooses the name: nothing that a terminal obeys may stand in it.
std::string Shown(std::string_view name) {
  std::string text = PresentableText(name, kNameShownMax);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text;
}

std::string Described(const LoggedCall& call) {
  std::string_view method = call.method;
  if (method.starts_with(kPrefix)) method.remove_prefix(kPrefix.size());
  std::string text(method);
  if (!call.name.empty()) text += " \"" + Shown(call.name) + "\"";
  return text + " by token " + std::string(call.token_id);
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

void CallLog::Audit(const LoggedCall& call) const {
  spdlog::info("audit: {}: {}", Described(call), ReasonName(call.reason));
}

void CallLog::Slow(const LoggedCall& call, int64_t now_s) {
  int64_t second = second_.load(std::memory_order_relaxed);
  if (second != now_s && second_.compare_exchange_strong(second, now_s)) {
    const uint32_t lines = lines_.exchange(0, std::memory_order_relaxed);
    if (lines > kSlowCallLinesMax) {
      spdlog::warn("{} more slow calls were not logged one by one", lines - kSlowCallLinesMax);
    }
  }
  if (lines_.fetch_add(1, std::memory_order_relaxed) >= kSlowCallLinesMax) return;
  spdlog::warn("slow call: {} took {} ms: {}", Described(call),
               std::chrono::duration_cast<std::chrono::milliseconds>(call.took).count(),
               ReasonName(call.reason));
}

}  // namespace statehouse
