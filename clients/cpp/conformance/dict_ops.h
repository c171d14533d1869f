// The operations on dicts of the C++ client's conformance program.
#pragma once

#include <map>
#include <optional>
#include <statehouse/client.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "flat_json.h"

// Owned by the program. One thread.
class DictOps final {
 public:
  // The answer as a line, or nothing for an operation that is none of these.
  std::optional<std::string> Do(statehouse::client::Client* client, const flat_json& in);
  void Clear() { dicts_.clear(); }

 private:
  std::optional<std::string> DoCatalogue(statehouse::client::Client& client,
                                         const std::string& name, const flat_json& in);
  std::optional<std::string> DoDict(statehouse::client::Dict& dict, const flat_json& in);

  std::map<std::string, statehouse::client::Dict> dicts_;
};
