// Who may call what: every method against every grant there is, each alone, and against all of them
// but those that allow it; as a call, as a stream and as an operation of a batch. The table below
// says what is right; a method that it lacks fails the test.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <set>

#include "service/api/api_test_support.h"
#include "service/api/short_operations.h"
#include "statehouse/v1/admin.pb.h"
#include "statehouse/v1/area.pb.h"
#include "statehouse/v1/batch.pb.h"
#include "statehouse/v1/dict.pb.h"
#include "statehouse/v1/lock.pb.h"
#include "statehouse/v1/session.pb.h"

namespace statehouse {
namespace {

using google::protobuf::Message;
using Grants = std::set<std::string>;

// Objects that exist and that a grant below is for: area "one", dict "one", lock "one".
struct Case {
  const char* method;     // Without "/statehouse.v1.".
  const char* request;    // As text.
  const char* grants;     // All of them are needed; empty: every token may.
  const char* also = "";  // This one is enough as well.
};

constexpr Case kCases[] = {
    {"Areas/CreateArea", "name: 'one' size: 64", "area:create"},
    {"Areas/CreateArea", "name: 'one' file: '/x' size: 4096", "area:create area:admin"},
    {"Areas/DescribeArea", "name: 'one'", "area:read"},
    {"Areas/ListAreas", "", ""},
    {"Areas/DeleteArea", "name: 'one'", "area:create"},
    {"Areas/ReadArea", "name: 'one' len: 8", "area:read"},
    {"Areas/WriteArea", "name: 'one' data: 'x'", "area:write"},
    {"Areas/FillArea", "name: 'one' len: 8", "area:write"},
    {"Areas/LoadWord", "name: 'one' type: WORD_TYPE_I64", "area:read"},
    {"Areas/StoreWord", "name: 'one' type: WORD_TYPE_I64", "area:write"},
    {"Areas/AddWord", "name: 'one' type: WORD_TYPE_I64", "area:write"},
    {"Areas/CompareExchangeWord", "name: 'one' type: WORD_TYPE_I64", "area:write"},
    {"Areas/BitwiseWord", "name: 'one' type: WORD_TYPE_I64", "area:write"},
    {"Areas/WaitArea", "name: 'one' timeout {}", "area:read"},
    {"Areas/WatchArea", "name: 'one'", "area:read"},
    {"Dicts/CreateDict", "name: 'one'", "dict:create"},
    {"Dicts/DescribeDict", "name: 'one'", "dict:read"},
    {"Dicts/ListDicts", "", ""},
    {"Dicts/DeleteDict", "name: 'one'", "dict:create"},
    {"Dicts/ClearDict", "name: 'one'", "dict:write"},
    {"Dicts/GetEntry", "name: 'one' key: 'k'", "dict:read"},
    {"Dicts/GetEntries", "name: 'one' keys: 'k'", "dict:read"},
    {"Dicts/GetEntries", "name: 'one' keys: 'k' consistent: true", "dict:write"},
    {"Dicts/SetEntry", "name: 'one' key: 'k' value { int_value: 1 }", "dict:write"},
    {"Dicts/SetEntries", "name: 'one' entries { key: 'k' value { int_value: 1 } }", "dict:write"},
    {"Dicts/DeleteEntry", "name: 'one' key: 'k'", "dict:write"},
    {"Dicts/DeletePrefix", "name: 'one' prefix: 'k'", "dict:write"},
    {"Dicts/IncrementEntry", "name: 'one' key: 'n' delta { int_value: 1 }", "dict:write"},
    {"Dicts/EditEntry", "name: 'one' key: 'k' edit { clear: true }", "dict:write"},
    {"Dicts/TouchEntry", "name: 'one' key: 'k' ttl { none: true }", "dict:write"},
    {"Dicts/ScanEntries", "name: 'one'", "dict:read"},
    {"Dicts/TransactDict", "name: 'one'", "dict:write"},
    {"Dicts/WaitEntry", "name: 'one' key: 'none' absent: true", "dict:read"},
    {"Dicts/WatchDict", "name: 'one'", "dict:read"},
    {"Locks/AcquireLock", "name: 'one' session_id: 1 request_id: 1 timeout {}", "lock:lock"},
    {"Locks/RenewLock", "name: 'one' session_id: 1 token: 1", "lock:lock"},
    {"Locks/ReleaseLock", "name: 'one' session_id: 1 token: 1", "lock:lock"},
    {"Locks/DescribeLock", "name: 'one'", "lock:read", "lock:lock"},
    {"Locks/ListLocks", "", ""},
    {"Locks/ForceReleaseLock", "name: 'one'", "lock:admin"},
    {"Sessions/OpenSession", "", ""},
    {"Sessions/RenewSession", "session_id: 1", ""},
    {"Sessions/HoldSession", "session_id: 1", ""},
    {"Sessions/CloseSession", "session_id: 1", ""},
    {"Sessions/ListSessions", "", "service:admin"},
    {"Batches/RunBatch", "", ""},
    {"Batches/RunBatches", "", ""},
    {"Admin/GetStatus", "", ""},
    {"Admin/Drain", "", "service:admin"},
};

constexpr std::string_view kPackage = "statehouse.v1.";

Grants Words(std::string_view text) {
  Grants words;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    words.emplace(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

// "area:read" and so on: each kind with each verb.
Grants AllGrants() {
  Grants all;
  for (const char* const kind : {"area", "dict", "lock", "service"}) {
    for (const char* const verb : {"read", "write", "create", "watch", "lock", "admin"}) {
      all.insert(std::string(kind) + ":" + verb);
    }
  }
  return all;
}

// A caller with these on every name that matches.
std::shared_ptr<const Identity> CallerWith(const Grants& grants, const std::string& pattern) {
  std::vector<std::string> texts;
  for (const std::string& grant : grants) {
    texts.push_back(grant.substr(0, grant.find(':')) + ":" + pattern +
                    grant.substr(grant.find(':')));
  }
  return IdentityOf(std::move(texts));
}

bool IsEnough(const Case& one, const Grants& has) {
  const Grants all = Words(one.grants);
  return std::includes(has.begin(), has.end(), all.begin(), all.end()) || has.contains(one.also);
}

std::unique_ptr<Message> RequestOf(const Case& one) {
  std::string path(kPackage);
  path += one.method;
  std::replace(path.begin(), path.end(), '/', '.');
  const auto* const pool = google::protobuf::DescriptorPool::generated_pool();
  const auto* const method = pool->FindMethodByName(path);
  if (method == nullptr) return nullptr;
  auto* const factory = google::protobuf::MessageFactory::generated_factory();
  std::unique_ptr<Message> request(factory->GetPrototype(method->input_type())->New());
  if (!google::protobuf::TextFormat::ParseFromString(one.request, request.get())) return nullptr;
  return request;
}

class GrantsTest : public testing::Test {
 protected:
  GrantsTest() { MakeObjects(); }

  void MakeObjects() {
    service_.MakeArea("one", 64);
    DictSpec spec;
    spec.name = "one";
    EXPECT_TRUE(service_.engine().dicts().Create(spec).ok());
    service_.control().set_draining(false);
  }
  // Why the call was refused, or kOk.
  Reason CallAs(const std::shared_ptr<const Identity>& caller, const Case& one,
                const std::string& request) {
    const std::string path = "/" + std::string(kPackage) + one.method;
    Dispatcher& dispatcher = service_.dispatcher();
    if (dispatcher.Streams(path)) {
      return dispatcher.OpenStream(service_.Context(caller), path, request, [] {})
          .status()
          .reason();
    }
    Answer answer;
    dispatcher.Dispatch(service_.Context(caller), path, request, answer.Callback());
    const Reason reason = answer.Await().status().reason();
    MakeObjects();
    return reason;
  }
  // The same as the only operation of a batch.
  Reason RunAs(const std::shared_ptr<const Identity>& caller,
               const google::protobuf::FieldDescriptor* field, const Message& request) {
    v1::RunBatchRequest batch;
    batch.mutable_batch()->add_names("one");
    v1::Operation* const operation = batch.mutable_batch()->add_operations();
    operation->GetReflection()->MutableMessage(operation, field)->CopyFrom(request);
    const auto done =
        service_.CallAs<v1::RunBatchResponse>(caller, "/statehouse.v1.Batches/RunBatch", batch);
    EXPECT_TRUE(done.ok()) << done.status().ToString();
    MakeObjects();
    if (!done.ok() || !done->result().results(0).has_failure()) return Reason::kOk;
    return static_cast<Reason>(done->result().results(0).failure().detail().reason());
  }
  // Calls with each grant alone, with all but those that allow it, with just those, and with all of
  // them for another name.
  template <typename Call>
  void Check(const Case& one, const Call& call) {
    SCOPED_TRACE(std::string(one.method) + " " + one.request);
    const auto expect = [&](const Grants& has, bool allowed, const std::string& pattern) {
      const Reason reason = call(CallerWith(has, pattern));
      EXPECT_EQ(reason != Reason::kPermissionDenied, allowed)
          << testing::PrintToString(has) << " on " << pattern << " gives " << ReasonName(reason);
    };
    const Grants all = AllGrants();
    for (const std::string& grant : all) expect({grant}, IsEnough(one, {grant}), "*");
    Grants needed = Words(one.grants);
    expect(needed, true, "*");
    expect(all, true, "*");
    expect({}, needed.empty(), "*");
    expect(all, needed.empty(), "other");
    needed.insert(one.also);
    for (const std::string& grant : Words(one.grants)) {
      Grants others = all;
      others.erase(grant);
      others.erase(one.also);
      expect(others, false, "*");
    }
  }

  TestService service_;
};

TEST_F(GrantsTest, TheTableHasEveryMethod) {
  std::set<std::string> wanted;
  const auto* const pool = google::protobuf::DescriptorPool::generated_pool();
  for (const char* const name : {"Admin", "Areas", "Batches", "Dicts", "Locks", "Sessions"}) {
    const auto* const service = pool->FindServiceByName(std::string(kPackage) + name);
    ASSERT_NE(service, nullptr) << name;
    for (int i = 0; i < service->method_count(); ++i) {
      wanted.insert(std::string(name) + "/" + service->method(i)->name());
    }
  }
  std::set<std::string> served;
  for (const std::string& method : service_.dispatcher().Methods()) {
    served.insert(method.substr(1 + kPackage.size()));
  }
  std::set<std::string> known;
  for (const Case& one : kCases) known.insert(one.method);
  EXPECT_EQ(known, wanted);
  EXPECT_EQ(served, wanted);
}

TEST_F(GrantsTest, EveryMethodAsksForItsGrantAndForNoOther) {
  for (const Case& one : kCases) {
    const std::unique_ptr<Message> request = RequestOf(one);
    ASSERT_NE(request, nullptr) << one.method;
    const std::string bytes = request->SerializeAsString();
    Check(one, [&](const std::shared_ptr<const Identity>& caller) {
      return CallAs(caller, one, bytes);
    });
  }
}

TEST_F(GrantsTest, AnOperationOfABatchAsksForWhatItsMethodAsksFor) {
  const auto* const operation = v1::Operation::descriptor();
  size_t checked = 0;
  for (const Case& one : kCases) {
    const std::unique_ptr<Message> request = RequestOf(one);
    ASSERT_NE(request, nullptr) << one.method;
    for (int i = 0; i < operation->field_count(); ++i) {
      if (operation->field(i)->message_type() != request->GetDescriptor()) continue;
      ++checked;
      Check(one, [&](const std::shared_ptr<const Identity>& caller) {
        return RunAs(caller, operation->field(i), *request);
      });
    }
  }
  constexpr std::pair<const char*, Case> kShort[] = {
      {"get", {"Dicts/GetEntry", "key: 'k'", "dict:read"}},
      {"set", {"Dicts/SetEntry", "key: 'k' value { int_value: 1 }", "dict:write"}},
      {"increment", {"Dicts/IncrementEntry", "key: 'n' delta: 1", "dict:write"}},
      {"add", {"Areas/AddWord", "type: WORD_TYPE_I64", "area:write"}},
  };
  for (const auto& [name, one] : kShort) {
    const auto* const field = operation->FindFieldByName(name);
    ASSERT_NE(field, nullptr) << name;
    const std::unique_ptr<Message> request(google::protobuf::MessageFactory::generated_factory()
                                               ->GetPrototype(field->message_type())
                                               ->New());
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(one.request, request.get())) << name;
    ++checked;
    Check(one, [&, field = field](const std::shared_ptr<const Identity>& caller) {
      return RunAs(caller, field, *request);
    });
  }
  // Two methods stand twice in the table: GetEntries and CreateArea.
  EXPECT_EQ(checked, static_cast<size_t>(operation->field_count()) + 2);
}

// Whoever may not read an object learns nothing of it by its index.
TEST_F(GrantsTest, AnIndexTellsNothingToWhoMayNotRead) {
  for (const Case& one : kCases) {
    std::unique_ptr<Message> request = RequestOf(one);
    const std::string method = one.method;
    const bool is_object = method.starts_with("Areas/") || method.starts_with("Dicts/");
    const auto* const name = request->GetDescriptor()->FindFieldByName("name");
    if (!is_object || name == nullptr || method.find("/Create") != std::string::npos) continue;
    const auto call = [&](const char* index) {
      request->GetReflection()->SetString(request.get(), name, index);
      return CallAs(IdentityOf({"area:other:read,write,create", "dict:other:read,write,create"}),
                    one, request->SerializeAsString());
    };
    EXPECT_EQ(call("#0"), call("#999")) << method;
    EXPECT_NE(call("#0"), Reason::kOk) << method;
  }
}

TEST_F(GrantsTest, ListsShowWhatTheTokenMaySee) {
  const auto areas = [&](const Grants& grants) {
    return service_
        .CallAs<v1::ListAreasResponse>(CallerWith(grants, "o*"), "/statehouse.v1.Areas/ListAreas",
                                       v1::ListAreasRequest())
        ->areas_size();
  };
  const auto dicts = [&](const Grants& grants) {
    return service_
        .CallAs<v1::ListDictsResponse>(CallerWith(grants, "o*"), "/statehouse.v1.Dicts/ListDicts",
                                       v1::ListDictsRequest())
        ->dicts_size();
  };
  for (const std::string& grant : AllGrants()) {
    EXPECT_EQ(areas({grant}), grant == "area:read" ? 1 : 0) << grant;
    EXPECT_EQ(dicts({grant}), grant == "dict:read" ? 1 : 0) << grant;
  }
}

}  // namespace
}  // namespace statehouse
