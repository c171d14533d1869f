#include "service/keeper/notify.h"

#include <algorithm>
#include <charconv>

namespace statehouse {
namespace {

Status Malformed(const std::string& what) {
  return Status(Reason::kInvalidArgument, "notify message: " + what);
}

Status ApplyLine(std::string_view line, NotifyMessage* message) {
  const size_t equals = line.find('=');
  if (equals == std::string_view::npos) return Status();
  const std::string_view name = line.substr(0, equals);
  const std::string_view value = line.substr(equals + 1);
  const bool on = value == "1";
  if (name == "FDSTORE") message->store = on;
  if (name == "FDSTOREREMOVE") message->remove = on;
  if (name == "READY") message->ready = on;
  if (name == "STOPPING") message->stopping = on;
  if (name == "BARRIER") message->barrier = on;
  if (name == "X_STATEHOUSE_COMPLETE") message->complete = on;
  if (name == "FDNAME") message->name = std::string(value);
  if (name == "EXIT_STATUS") {
    int code = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), code);
    if (error != std::errc() || end != value.data() + value.size() || code < 0 || code > 255) {
      return Malformed("EXIT_STATUS is not a number from 0 to 255");
    }
    message->exit_status = code;
  }
  return Status();
}

}  // namespace

bool IsDescriptorName(std::string_view name) {
  return !name.empty() && name.size() <= kDescriptorNameBytesMax &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return c > ' ' && c < '\x7f' && c != ':'; });
}

StatusOr<NotifyMessage> ParseNotify(std::string_view text) {
  if (text.size() > kNotifyBytesMax) {
    return Malformed(std::to_string(text.size()) + " bytes are more than " +
                     std::to_string(kNotifyBytesMax));
  }
  NotifyMessage message;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    SH_RETURN_IF_ERROR(ApplyLine(text.substr(0, end), &message));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  if (message.store && message.remove) return Malformed("it stores and removes at once");
  if ((message.store || message.remove) && !IsDescriptorName(message.name)) {
    return Malformed("FDNAME is missing or holds a forbidden character");
  }
  return message;
}

// FDPOLL=0: systemd would otherwise drop a stored descriptor that signals an error or a hang-up,
// such as a dead worker's pidfd.
std::string StoreText(const std::string& name) { return "FDSTORE=1\nFDPOLL=0\nFDNAME=" + name; }
std::string CompleteText() { return "X_STATEHOUSE_COMPLETE=1"; }
std::string RemoveText(const std::string& name) { return "FDSTOREREMOVE=1\nFDNAME=" + name; }

}  // namespace statehouse
