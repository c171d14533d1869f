// Calls of the Dicts service from commands: messages in, messages out, Failed on refusal.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "clients/cli/connection.h"
#include "clients/cli/exit_codes.h"
#include "clients/cli/service_call.h"
#include "statehouse/v1/dict.pb.h"

namespace statehouse::cli {

// Names a mutation, so that it is carried out once also where its answer is lost and it is sent
// again.
void NameOperation(v1::OperationId* operation);

template <typename Response, typename Request>
Response CallDicts(sh_client* client, const char* method, const Request& request,
                   bool idempotent = true) {
  if constexpr (requires(Request mutation) { mutation.mutable_operation_id(); }) {
    if (!request.has_operation_id()) {
      Request named = request;
      NameOperation(named.mutable_operation_id());
      return CallDicts<Response>(client, method, named, true);
    }
  }
  return CallService<Response>(client, std::string("/statehouse.v1.Dicts/") + method, request,
                               idempotent);
}

// JSON text to a value and back. Throw Failed.
v1::Value ValueOfJson(const std::string& json);
std::string JsonOfValue(const v1::Value& value);

// What the flags of one dict command hold; shared by its options and its callback.
struct DictArguments {
  std::string name;
  std::string key;
  std::string path;
  std::string value;
  std::string prefix;
  std::string ttl;
  std::string initial;
  std::string min;
  std::string max;
  std::string max_bytes;
  std::string default_ttl;
  std::string file = "-";
  std::string delta = "1";
  uint64_t max_entries = 0;
  uint64_t limit = 0;
  uint64_t if_version = 0;
  uint64_t fence = 0;
  bool evict = false;
  bool exclusive = false;
  bool yes = false;
  bool as_text = false;
  bool keys_only = false;
  bool unordered = false;
  bool if_absent = false;
  bool if_present = false;
  bool absent = false;
  std::string timeout;
  CLI::Option* if_version_option = nullptr;
  CLI::Option* above_option = nullptr;
  CLI::Option* differs_option = nullptr;
  CLI::Option* value_option = nullptr;
};

CLI::App* AddDictCommand(CLI::App* group, const std::string& name, const std::string& help,
                         const Globals* globals, const std::shared_ptr<DictArguments>& arguments,
                         void (*run)(const Globals&, const DictArguments&));

void AddDictEntryCommands(CLI::App* group, const Globals* globals);
void AddDictFileCommands(CLI::App* group, const Globals* globals);

// Sets the ttl from a text such as "30s"; throws Failed for another one.
void SetTtl(const std::string& text, google::protobuf::Duration* duration);

}  // namespace statehouse::cli
