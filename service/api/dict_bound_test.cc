// Entries that are bound to sessions, through the verbs.
#include "service/api/dict_verbs_test_support.h"
#include "service/api/lock_verbs_test_support.h"

namespace statehouse {
namespace {

class DictBoundVerbsTest : public DictVerbsTest {
 protected:
  uint64_t Open() {
    const auto opened = service_.Call<v1::OpenSessionResponse>(kOpen, v1::OpenSessionRequest());
    EXPECT_TRUE(opened.ok()) << opened.status().ToString();
    return opened.ok() ? opened->session_id() : 0;
  }
  void Close(uint64_t session) {
    v1::CloseSessionRequest request;
    request.set_session_id(session);
    EXPECT_TRUE(service_.Call<v1::CloseSessionResponse>(kClose, request).ok());
  }
  StatusOr<v1::SetEntryResponse> Bind(const std::string& key, const v1::Value& value,
                                      uint64_t session) {
    auto request = For<v1::SetEntryRequest>(key);
    *request.mutable_value() = value;
    request.set_bind_session(session);
    return SH_DICT_CALL(service_, SetEntry, request);
  }
  uint64_t BoundTo(const std::string& key) { return Get(key).entry().bound_session(); }
  bool Gone(const std::string& key) {
    return Eventually([&] { return !Get(key).has_entry(); });
  }
};

TEST_F(DictBoundVerbsTest, ABoundEntryTellsItsSessionAndEndsWithIt) {
  const uint64_t session = Open();
  ASSERT_TRUE(Bind("worker", Text("here"), session).ok());
  ASSERT_TRUE(Set("plain", Text("stays")).ok());

  EXPECT_EQ(BoundTo("worker"), session);
  EXPECT_EQ(BoundTo("plain"), 0u);
  v1::ScanEntriesRequest scan;
  scan.set_name("d");
  const auto scanned = SH_DICT_CALL(service_, ScanEntries, scan);
  for (const v1::Entry& entry : scanned->entries()) {
    EXPECT_EQ(entry.bound_session(), entry.key() == "worker" ? session : 0);
  }
  v1::DescribeDictRequest describe;
  describe.set_name("d");
  EXPECT_EQ(SH_DICT_CALL(service_, DescribeDict, describe)->dict().bound_entries(), 1u);

  Close(session);
  EXPECT_TRUE(Gone("worker"));
  EXPECT_TRUE(Get("plain").has_entry());
}

TEST_F(DictBoundVerbsTest, WhatChangesAPartKeepsTheBindingAndASetDecidesAnew) {
  const uint64_t first = Open();
  const uint64_t second = Open();
  ASSERT_TRUE(Bind("n", Int(1), first).ok());
  EXPECT_TRUE(SH_DICT_CALL(service_, IncrementEntry, For<v1::IncrementEntryRequest>("n")).ok());
  EXPECT_EQ(BoundTo("n"), first);
  auto touch = For<v1::TouchEntryRequest>("n");
  SetMs(60'000, touch.mutable_ttl()->mutable_duration());
  EXPECT_TRUE(SH_DICT_CALL(service_, TouchEntry, touch).ok());
  EXPECT_EQ(BoundTo("n"), first);
  ASSERT_TRUE(Bind("list", Nested(), first).ok());
  auto edit = For<v1::EditEntryRequest>("list");
  AddPath(&edit, {"web", "ports"});
  edit.mutable_edit()->mutable_append()->set_int_value(8080);
  EXPECT_TRUE(SH_DICT_CALL(service_, EditEntry, edit).ok());
  EXPECT_EQ(BoundTo("list"), first);

  ASSERT_TRUE(Bind("n", Int(2), second).ok());
  EXPECT_EQ(BoundTo("n"), second);
  ASSERT_TRUE(Set("list", Text("plain")).ok());
  EXPECT_EQ(BoundTo("list"), 0u);
  Close(first);
  Close(second);
  EXPECT_TRUE(Gone("n"));
  EXPECT_TRUE(Get("list").has_entry());
}

TEST_F(DictBoundVerbsTest, ASessionThatIsNotTheCallersIsRefusedAndNothingChanges) {
  ASSERT_TRUE(Set("k", Text("before")).ok());
  EXPECT_EQ(Bind("k", Text("x"), 12345).status().reason(), Reason::kSessionNotFound);
  const auto other = IdentityOf({"dict:*:read,write"}, "anothert");
  const auto opened =
      service_.CallAs<v1::OpenSessionResponse>(other, kOpen, v1::OpenSessionRequest());
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(Bind("k", Text("x"), opened->session_id()).status().reason(), Reason::kSessionNotFound);
  EXPECT_EQ(Get("k").entry().value().string_value(), "before");
}

TEST_F(DictBoundVerbsTest, AConditionThatDoesNotHoldBindsNothing) {
  const uint64_t session = Open();
  ASSERT_TRUE(Set("k", Text("there")).ok());
  auto request = For<v1::SetEntryRequest>("k");
  *request.mutable_value() = Text("x");
  request.mutable_condition()->set_absent(true);
  request.set_bind_session(session);
  const auto set = SH_DICT_CALL(service_, SetEntry, request);
  ASSERT_TRUE(set.ok());
  EXPECT_FALSE(set->applied());
  EXPECT_EQ(service_.bound().Totals().noted, 0u);
  Close(session);
  EXPECT_TRUE(Get("k").has_entry());
}

TEST_F(DictBoundVerbsTest, SetsOfManyAndTransactionsBind) {
  const uint64_t session = Open();
  v1::SetEntriesRequest many;
  many.set_name("d");
  for (const char* key : {"a", "b"}) {
    v1::Entry* const entry = many.add_entries();
    entry->set_key(key);
    *entry->mutable_value() = Int(1);
  }
  many.set_bind_session(session);
  ASSERT_TRUE(SH_DICT_CALL(service_, SetEntries, many).ok());
  v1::TransactDictRequest transact;
  transact.set_name("d");
  auto* const bound = transact.add_then_steps()->mutable_set();
  bound->set_key("c");
  *bound->mutable_value() = Int(2);
  bound->set_bind_session(session);
  auto* const plain = transact.add_then_steps()->mutable_set();
  plain->set_key("a");
  *plain->mutable_value() = Int(3);
  const auto done = SH_DICT_CALL(service_, TransactDict, transact);
  ASSERT_TRUE(done.ok()) << done.status().ToString();
  EXPECT_EQ(done->results(1).entry().bound_session(), session) << "as it was before";

  EXPECT_EQ(BoundTo("a"), 0u);
  EXPECT_EQ(BoundTo("b"), session);
  EXPECT_EQ(BoundTo("c"), session);
  bound->set_bind_session(999);
  EXPECT_EQ(SH_DICT_CALL(service_, TransactDict, transact).status().reason(),
            Reason::kSessionNotFound);
  Close(session);
  EXPECT_TRUE(Gone("b"));
  EXPECT_TRUE(Gone("c"));
  EXPECT_TRUE(Get("a").has_entry());
}

TEST_F(DictBoundVerbsTest, ARepeatedSetIsAnsweredAlsoWhenItsSessionIsOver) {
  const uint64_t session = Open();
  auto request = For<v1::SetEntryRequest>("k");
  *request.mutable_value() = Text("x");
  request.set_bind_session(session);
  request.mutable_operation_id()->set_session(5);
  request.mutable_operation_id()->set_sequence(1);
  const auto first = SH_DICT_CALL(service_, SetEntry, request);
  ASSERT_TRUE(first.ok());
  Close(session);
  ASSERT_TRUE(Gone("k"));
  const auto again = SH_DICT_CALL(service_, SetEntry, request);
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(again->version(), first->version());
  EXPECT_FALSE(Get("k").has_entry());
}

}  // namespace
}  // namespace statehouse
