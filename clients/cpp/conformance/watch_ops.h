// The operations on watches of the C++ client's conformance program.
#pragma once

#include <optional>
#include <statehouse/client.hpp>
#include <string>
#include <variant>

#include "flat_json.h"

// One watch at a time; what is wrong with it is told by next_event. Owned by the program. One
// thread.
class WatchOps final {
 public:
  // The answer as a line, or nothing for an operation that is none of these. `client` is the
  // program's own; null when there is none.
  std::optional<std::string> Do(statehouse::client::Client* client, const flat_json& in);
  void Clear() { watch_ = std::monostate(); }

 private:
  std::string Begin(statehouse::client::Client* client, const std::string& op, const flat_json& in);

  std::variant<std::monostate, statehouse::client::Watch, statehouse::client::AreaWatch,
               statehouse::client::Error>
      watch_;
};
