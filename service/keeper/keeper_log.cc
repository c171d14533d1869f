#include "service/keeper/keeper_log.h"

#include <unistd.h>

#include <cstdio>
#include <ctime>

namespace statehouse {

std::string JsonEscape(std::string_view text) {
  std::string escaped;
  escaped.reserve(text.size() + 8);
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      escaped += '\\';
      escaped += c;
    } else if (c == '\n') {
      escaped += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char number[8];
      snprintf(number, sizeof(number), "\\u%04x",
               static_cast<unsigned>(static_cast<unsigned char>(c)));
      escaped += number;
    } else {
      escaped += c;
    }
  }
  return escaped;
}

void KeeperLog(const char* level, const std::string& message) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc{};
  gmtime_r(&now.tv_sec, &utc);
  char time[40];
  const size_t used = strftime(time, sizeof(time), "%Y-%m-%dT%H:%M:%S", &utc);
  snprintf(time + used, sizeof(time) - used, ".%03ldZ", now.tv_nsec / 1'000'000);
  std::string line;
  if (isatty(STDERR_FILENO) != 0) {
    line = std::string(time) + " " + level + " keeper " + std::to_string(getpid()) + ": " +
           message + "\n";
  } else {
    line = std::string("{\"time\":\"") + time + "\",\"level\":\"" + level +
           "\",\"process\":\"keeper\",\"pid\":" + std::to_string(getpid()) + ",\"message\":\"" +
           JsonEscape(message) + "\"}\n";
  }
  // Where stderr is gone there is nobody left to tell.
  if (write(STDERR_FILENO, line.data(), line.size()) < 0) return;
}

}  // namespace statehouse
