// For tests of the dict verbs: a service with a dict "d", and calls and values in few words.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "service/api/api_test_support.h"
#include "service/api/dict_verbs.h"

namespace statehouse {

#define SH_DICT_CALL(service, name, request) \
  service.Call<v1::name##Response>("/statehouse.v1.Dicts/" #name, request)

class DictVerbsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    v1::CreateDictRequest create;
    create.set_name("d");
    ASSERT_TRUE(SH_DICT_CALL(service_, CreateDict, create).ok());
  }
  template <typename Request>
  static Request For(const std::string& key) {
    Request request;
    request.set_name("d");
    request.set_key(key);
    return request;
  }
  StatusOr<v1::SetEntryResponse> Set(const std::string& key, const v1::Value& value) {
    auto request = For<v1::SetEntryRequest>(key);
    *request.mutable_value() = value;
    return SH_DICT_CALL(service_, SetEntry, request);
  }
  v1::GetEntryResponse Get(const std::string& key) {
    auto response = SH_DICT_CALL(service_, GetEntry, For<v1::GetEntryRequest>(key));
    EXPECT_TRUE(response.ok()) << response.status().ToString();
    return response.ok() ? *response : v1::GetEntryResponse();
  }
  static v1::Value Text(const std::string& text) {
    v1::Value value;
    value.set_string_value(text);
    return value;
  }
  static v1::Value Int(int64_t number) {
    v1::Value value;
    value.set_int_value(number);
    return value;
  }
  // {"web": {"ports": [80, 443]}}
  static v1::Value Nested() {
    v1::Value value;
    v1::MapEntry* web = value.mutable_map_value()->add_entries();
    web->set_key("web");
    v1::MapEntry* ports = web->mutable_value()->mutable_map_value()->add_entries();
    ports->set_key("ports");
    ports->mutable_value()->mutable_list_value()->add_values()->set_int_value(80);
    ports->mutable_value()->mutable_list_value()->add_values()->set_int_value(443);
    return value;
  }
  template <typename Request>
  static void AddPath(Request* request, std::initializer_list<const char*> keys) {
    for (const char* key : keys) request->add_path_steps()->set_key(key);
  }

  TestService service_;
};

}  // namespace statehouse
