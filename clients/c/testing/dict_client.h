// For tests of dicts through the C library: a service, a client through the door under test, and
// calls as text.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>

#include <memory>
#include <string>
#include <vector>

#include "service/auth/token_file.h"
#include "statehouse/statehouse.h"
#include "tests/support/daemon.h"

namespace statehouse {

inline constexpr uint64_t kPatienceMs = 60'000;  // Of calls that succeed.

struct ClientCloser {
  void operator()(sh_client* client) const { sh_close(client); }
};
struct DictCloser {
  void operator()(sh_dict* dict) const { sh_dict_close(dict); }
};
using ClientPtr = std::unique_ptr<sh_client, ClientCloser>;
using DictPtr = std::unique_ptr<sh_dict, DictCloser>;

inline std::string Text(sh_bytes bytes) {
  return bytes.data == nullptr ? "" : std::string(static_cast<const char*>(bytes.data), bytes.size);
}
inline sh_bytes Bytes(const std::string& text) { return {text.data(), text.size()}; }

inline std::string Wire(const std::string& json) {
  sh_buffer buffer{};
  EXPECT_EQ(sh_value_from_json(Bytes(json), &buffer, nullptr), SH_OK) << json;
  std::string wire(buffer.data != nullptr ? buffer.data : "", buffer.size);
  sh_buffer_free(&buffer);
  return wire;
}
inline std::string Json(sh_bytes wire) {
  sh_buffer buffer{};
  if (sh_value_to_json(wire, &buffer, nullptr) != SH_OK) return "no value";
  std::string json(buffer.data, buffer.size);
  sh_buffer_free(&buffer);
  return json;
}

// "web.ports[1]" would need a parser; tests give steps.
struct Step {
  Step(const char* text) : key(text) {}        // NOLINT: implicit
  Step(int at) : is_index(true), index(at) {}  // NOLINT: implicit
  std::string key;
  bool is_index = false;
  int64_t index = 0;
};
struct Path {
  Path(std::initializer_list<Step> from) : steps(from) {
    for (const Step& step : steps) {
      c_steps.push_back({step.is_index ? 1 : 0, Bytes(step.key), step.index});
    }
  }
  std::vector<Step> steps;
  std::vector<sh_path_step> c_steps;
};

// Calls as text: what a call gives, or its reason.
inline std::string Get(sh_dict* dict, const std::string& key, const Path& path = {}) {
  sh_entry entry{};
  const sh_reason reason =
      sh_dict_get(dict, Bytes(key), path.c_steps.data(), path.c_steps.size(), &entry, nullptr);
  std::string answer = reason != SH_OK ? sh_reason_name(reason)
                       : entry.found   ? Json(entry.value)
                                       : "absent";
  sh_entry_free(&entry);
  return answer;
}

inline sh_reason Set(sh_dict* dict, const std::string& key, const std::string& json,
                     const sh_write_options* options = nullptr, sh_outcome* outcome = nullptr,
                     sh_entry* previous = nullptr) {
  const std::string wire = Wire(json);
  return sh_dict_set(dict, Bytes(key), Bytes(wire), options, outcome, previous, nullptr);
}

inline std::string Edit(sh_dict* dict, const std::string& key, sh_edit edit, const Path& path = {},
                        const std::string& json = "") {
  const std::string wire = json.empty() ? "" : Wire(json);
  if (!json.empty()) edit.value = Bytes(wire);
  edit.path = path.c_steps.data();
  edit.steps = path.c_steps.size();
  sh_entry result{};
  uint64_t length = 0;
  uint64_t version = 0;
  const sh_reason reason =
      sh_dict_edit(dict, Bytes(key), &edit, &result, &length, &version, nullptr);
  std::string answer = reason != SH_OK ? sh_reason_name(reason)
                       : result.found  ? Json(result.value)
                                       : "done " + std::to_string(length);
  EXPECT_TRUE(reason != SH_OK || result.version == version);
  sh_entry_free(&result);
  return answer;
}

inline sh_edit EditOf(sh_edit_kind kind) {
  sh_edit edit{};
  edit.kind = kind;
  return edit;
}

class DictClientTest : public ::testing::TestWithParam<sh_transport> {
 protected:
  void SetUp() override {
    auto started = testing::Daemon::Start();
    ASSERT_TRUE(started.ok()) << started.status().message();
    daemon_ = std::move(started).value();
    client_ = Connect(daemon_->token());
  }
  bool local() const { return GetParam() == SH_TRANSPORT_LOCAL; }
  bool survives_fork() const { return GetParam() != SH_TRANSPORT_NETWORK; }
  ClientPtr Connect(const std::string& token, uint64_t timeout_ms = kPatienceMs) {
    sh_options options{};
    options.token = token.c_str();
    options.timeout_ms = timeout_ms;
    options.transport = GetParam();
    sh_client* client = nullptr;
    const std::string url = "statehouse+unix://" + daemon_->runtime_dir();
    EXPECT_EQ(sh_connect(url.c_str(), &options, &client, nullptr), SH_OK);
    return ClientPtr(client);
  }
  DictPtr Open(const char* name, const sh_dict_spec& spec = {}) {
    return Open(client_.get(), name, &spec);
  }
  static DictPtr Open(sh_client* client, const char* name, const sh_dict_spec* spec) {
    sh_dict* dict = nullptr;
    sh_error* error = nullptr;
    EXPECT_EQ(sh_dict_open(client, name, spec, &dict, &error), SH_OK) << sh_error_message(error);
    sh_error_free(error);
    return DictPtr(dict);
  }
  std::string AddToken(const std::string& grant) {
    TokenSpec spec;
    spec.description = "dict_client_test";
    auto parsed = ParseGrant(grant);
    EXPECT_TRUE(parsed.ok()) << parsed.status().message();
    spec.grants.push_back(std::move(parsed).value());
    auto token = CreateToken(daemon_->tokens_file(), spec);
    EXPECT_TRUE(token.ok()) << token.status().message();
    EXPECT_EQ(kill(daemon_->daemon_pid(), SIGHUP), 0);  // It reads the file again.
    sh_options options{};
    options.token = token->c_str();
    options.transport = SH_TRANSPORT_LOCAL;
    const std::string url = "statehouse+unix://" + daemon_->runtime_dir();
    EXPECT_TRUE(testing::Eventually([&] {
      sh_client* client = nullptr;
      const sh_reason reason = sh_connect(url.c_str(), &options, &client, nullptr);
      sh_close(client);
      return reason == SH_OK;
    }));
    return *token;
  }

  std::unique_ptr<testing::Daemon> daemon_;
  ClientPtr client_;
};

inline std::string DoorName(const ::testing::TestParamInfo<sh_transport>& door) {
  return door.param == SH_TRANSPORT_LOCAL    ? "local"
         : door.param == SH_TRANSPORT_SOCKET ? "socket"
                                             : "network";
}

}  // namespace statehouse
