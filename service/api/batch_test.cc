// Batches against a real engine: what each operation gives, in which order, what is refused and
// what that leaves alone, and what happens when an operation cannot end on the door's thread.
#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>

#include <set>
#include <thread>

#include "service/api/dict_verbs_test_support.h"
#include "service/api/short_operations.h"
#include "statehouse/v1/batch.pb.h"
#include "statehouse/v1/session.pb.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;

constexpr char kRunBatch[] = "/statehouse.v1.Batches/RunBatch";

class BatchTest : public DictVerbsTest {
 protected:
  static v1::RunBatchRequest Batch(const std::string& text) {
    v1::RunBatchRequest request;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, request.mutable_batch()));
    return request;
  }
  StatusOr<v1::RunBatchResponse> Send(const v1::RunBatchRequest& request) {
    return service_.Call<v1::RunBatchResponse>(kRunBatch, request);
  }
  v1::BatchResult Run(const v1::RunBatchRequest& request) {
    const auto response = Send(request);
    EXPECT_TRUE(response.ok()) << response.status().ToString();
    if (!response.ok()) return {};
    EXPECT_EQ(response->result().results_size(), request.batch().operations_size());
    return response->result();
  }
  v1::BatchResult Run(const std::string& text) { return Run(Batch(text)); }
  static Reason ReasonOf(const v1::OperationResult& result) {
    return static_cast<Reason>(result.failure().detail().reason());
  }
  void MakeArea() { service_.MakeArea("a", 64); }
};

TEST_F(BatchTest, EachOperationHasItsVerbAndItsAnswer) {
  const auto* const operation = v1::Operation::descriptor();
  const auto* const result = v1::OperationResult::descriptor();
  std::set<std::string> methods;
  for (const std::string& method : service_.dispatcher().Methods()) {
    methods.insert(method.substr(method.rfind('/') + 1));
  }
  for (int i = 0; i < operation->field_count(); ++i) {
    const auto* const field = operation->field(i);
    const auto* const answer = result->FindFieldByNumber(field->number());
    ASSERT_NE(answer, nullptr) << field->name();
    EXPECT_EQ(answer->name(), field->name());
    const std::string& request = field->message_type()->name();
    if (ShortOperations::IsShort(static_cast<uint32_t>(field->number()))) continue;
    const std::string verb = request.substr(0, request.find("Request"));
    EXPECT_EQ(methods.count(verb), 1u) << verb;
    EXPECT_EQ(answer->message_type()->name(), verb + "Response");
  }
  EXPECT_EQ(operation->field_count() + 1, result->field_count());
}

TEST_F(BatchTest, ShortOperationsDoWhatTheirVerbsDo) {
  MakeArea();
  const v1::BatchResult result = Run(R"(
    names: "d" names: "a"
    operations { get { key: "k" } }
    operations { set { key: "k" value { string_value: "v" } } }
    operations { get { key: "k" } }
    operations { increment { key: "n" } }
    operations { increment { key: "n" delta: -5 } }
    operations { get { key: "n" } }
    operations { add { area: 1 pos: 8 type: WORD_TYPE_I16 delta: -2 } }
    operations { add { area: 1 pos: 8 type: WORD_TYPE_U16 } }
    operations { set { key: "t" value { int_value: 7 } ttl_ms: 60000 } })");
  ASSERT_EQ(result.results_size(), 9);
  EXPECT_TRUE(result.results(0).has_get());
  EXPECT_FALSE(result.results(0).get().has_value());
  EXPECT_EQ(result.results(0).get().version(), 0u);
  const uint64_t version = result.results(1).set().version();
  EXPECT_GT(version, 0u);
  EXPECT_EQ(result.results(2).get().value().string_value(), "v");
  EXPECT_EQ(result.results(2).get().version(), version);
  EXPECT_EQ(result.results(3).increment().number(), 1);
  EXPECT_EQ(result.results(4).increment().number(), -4);
  EXPECT_GT(result.results(4).increment().version(), result.results(3).increment().version());
  EXPECT_EQ(result.results(5).get().value().int_value(), -4);
  EXPECT_EQ(result.results(6).add().value().signed_value(), -2);
  EXPECT_EQ(result.results(7).add().value().unsigned_value(), 65'535u);
  const v1::Entry timed = Get("t").entry();
  EXPECT_GT(timed.ttl().seconds(), 50);
  EXPECT_LE(timed.ttl().seconds(), 60);
}

TEST_F(BatchTest, AFloatThatIsAddedToStaysOne) {
  Run(R"(names: "d" operations { set { key: "f" value { float_value: 0.5 } } })");
  const v1::RunBatchRequest request = Batch(R"(
    names: "d" operation_id { session: 7 sequence: 1 }
    operations { increment { key: "f" delta: -2 } } operations { get { key: "f" } })");
  for (int i = 0; i < 2; ++i) {  // The second time from what is remembered.
    const v1::BatchResult result = Run(request);
    EXPECT_EQ(result.results(0).increment().float_number(), -1.5);
    EXPECT_EQ(result.results(0).increment().number(), 0);
    EXPECT_EQ(result.results(1).get().value().float_value(), -1.5);
  }
  // By its verb, because its form has to be mended first: the delta stands before the key.
  const std::string batch =
      std::string("\x0a\x01") + "d" + "\x22\x07\x1a\x05\x18\x02\x12\x01" + "f";
  Answer answer;
  service_.Send(kRunBatch, "\x0a" + std::string(1, static_cast<char>(batch.size())) + batch,
                &answer);
  v1::RunBatchResponse mended;
  ASSERT_TRUE(mended.ParseFromString(*answer.Await()));
  EXPECT_EQ(mended.result().results(0).increment().float_number(), -0.5);
  EXPECT_FALSE(Run("names: \"d\" operations { increment { key: \"n\" } }")
                   .results(0)
                   .increment()
                   .has_float_number());
}

TEST_F(BatchTest, ShortOperationsCountAsCallsOfTheirVerbs) {
  Run(R"(names: "d"
         operations { increment { key: "n" } } operations { increment { key: "n" } }
         operations { get { key: "n" } } operations { get { key: "" } })");
  const CountingObserver& seen = service_.observer();
  EXPECT_EQ(seen.count("/statehouse.v1.Dicts/IncrementEntry", Reason::kOk), 2u);
  EXPECT_EQ(seen.count("/statehouse.v1.Dicts/GetEntry", Reason::kOk), 1u);
  EXPECT_EQ(seen.count("/statehouse.v1.Dicts/GetEntry", Reason::kKeyInvalid), 1u);
  EXPECT_EQ(seen.count(kRunBatch, Reason::kOk), 1u);
  EXPECT_EQ(service_.dispatcher().CallsInFlight(), 0u);
}

TEST_F(BatchTest, ARefusedOperationLeavesTheOthersAlone) {
  MakeArea();
  const v1::BatchResult result = Run(R"(
    names: "d" names: "gone" names: "a" names: "bad name"
    operations { increment { key: "n" } }
    operations { set { key: "" value { int_value: 1 } } }
    operations { set { key: "k" } }
    operations { get { dict: 1 key: "k" } }
    operations { get { dict: 9 key: "k" } }
    operations { add { area: 2 pos: 60 type: WORD_TYPE_U64 } }
    operations { add { area: 2 } }
    operations { get { dict: 3 key: "k" } }
    operations { }
    operations { load_word { name: "gone" type: WORD_TYPE_U8 } }
    operations { increment { key: "n" } })");
  const Reason refused[] = {
      Reason::kKeyInvalid,      Reason::kValueInvalid,    Reason::kDictNotFound,
      Reason::kInvalidArgument, Reason::kOutOfBounds,     Reason::kWidthInvalid,
      Reason::kNameInvalid,     Reason::kInvalidArgument, Reason::kAreaNotFound};
  ASSERT_EQ(result.results_size(), 11);
  for (int i = 0; i < 9; ++i) {
    EXPECT_EQ(ReasonOf(result.results(i + 1)), refused[i]) << i;
    EXPECT_NE(result.results(i + 1).failure().message(), "") << i;
  }
  EXPECT_EQ(result.results(3).failure().detail().name(), "gone");
  EXPECT_EQ(result.results(9).failure().detail().name(), "gone");
  EXPECT_EQ(result.results(0).increment().number(), 1);
  EXPECT_EQ(result.results(10).increment().number(), 2);
}

TEST_F(BatchTest, StopsAtTheFirstFailureWhereAsked) {
  const v1::BatchResult result = Run(R"(
    names: "d" stop_at_failure: true
    operations { increment { key: "n" } }
    operations { increment { key: "" } }
    operations { increment { key: "n" } }
    operations { get_entry { name: "d" key: "n" } })");
  EXPECT_EQ(result.results(0).increment().number(), 1);
  EXPECT_EQ(ReasonOf(result.results(1)), Reason::kKeyInvalid);
  EXPECT_EQ(ReasonOf(result.results(2)), Reason::kCancelled);
  EXPECT_THAT(result.results(3).failure().message(), HasSubstr("operation 1 was refused"));
  EXPECT_EQ(Get("n").entry().value().int_value(), 1);
}

TEST_F(BatchTest, EachOperationIsAuthorizedByItself) {
  MakeArea();
  const auto request = Batch(R"(
    names: "d" names: "a"
    operations { get { key: "k" } }
    operations { set { key: "k" value { int_value: 1 } } }
    operations { increment { key: "k" } }
    operations { add { area: 1 type: WORD_TYPE_U8 } }
    operations { load_word { name: "a" type: WORD_TYPE_U8 } }
    operations { set_entry { name: "d" key: "k" value { int_value: 1 } } }
    operations { create_dict { name: "e" } }
    operations { list_locks { } })");
  const auto response =
      service_.CallAs<v1::RunBatchResponse>(IdentityOf({"dict:d:read"}), kRunBatch, request);
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  const v1::BatchResult& result = response->result();
  EXPECT_TRUE(result.results(0).has_get());
  for (int i = 1; i < 7; ++i) {
    EXPECT_EQ(ReasonOf(result.results(i)), Reason::kPermissionDenied) << i;
  }
  EXPECT_TRUE(result.results(7).has_list_locks());
  EXPECT_FALSE(Get("k").has_entry());
}

TEST_F(BatchTest, OperationsRunInTheirOrderAlsoThoseThatGoElsewhere) {
  const v1::BatchResult result = Run(R"(
    names: "new"
    operations { get { key: "k" } }
    operations { create_dict { name: "new" } }
    operations { increment { key: "k" } }
    operations { describe_dict { name: "new" } }
    operations { clear_dict { name: "new" } }
    operations { increment { key: "k" } }
    operations { delete_dict { name: "new" } }
    operations { get { key: "k" } })");
  EXPECT_EQ(ReasonOf(result.results(0)), Reason::kDictNotFound);
  EXPECT_TRUE(result.results(1).create_dict().created());
  EXPECT_EQ(result.results(2).increment().number(), 1);
  EXPECT_EQ(result.results(3).describe_dict().dict().entries(), 1u);
  EXPECT_EQ(result.results(4).clear_dict().deleted(), 1u);
  EXPECT_EQ(result.results(5).increment().number(), 1);
  EXPECT_TRUE(result.results(6).has_delete_dict());
  EXPECT_EQ(ReasonOf(result.results(7)), Reason::kDictNotFound);
}

TEST_F(BatchTest, ARepeatedBatchWithAnOperationIdCountsOnce) {
  const auto request = Batch(R"(
    names: "d" operation_id { session: 7 sequence: 100 }
    operations { increment { key: "n" } }
    operations { get { key: "n" } }
    operations { increment { key: "n" } }
    operations { set { key: "k" value { string_value: "v" } } })");
  const v1::BatchResult first = Run(request);
  const v1::BatchResult again = Run(request);
  EXPECT_EQ(first.results(2).increment().number(), 2);
  EXPECT_EQ(again.results(0).increment().number(), 1);
  EXPECT_EQ(again.results(1).get().value().int_value(), 2);
  EXPECT_EQ(again.results(2).increment().number(), 2);
  EXPECT_EQ(again.results(3).set().version(), first.results(3).set().version());
  EXPECT_EQ(Get("n").entry().value().int_value(), 2);

  MakeArea();
  const v1::BatchResult word = Run(R"(names: "a" operation_id { session: 7 sequence: 200 }
                                      operations { add { type: WORD_TYPE_U8 } })");
  EXPECT_EQ(ReasonOf(word.results(0)), Reason::kInvalidArgument);
  EXPECT_EQ(Send(Batch("operation_id { }")).status().reason(), Reason::kInvalidArgument);
}

TEST_F(BatchTest, LocksAreTriedForAndGivenBack) {
  v1::OpenSessionRequest open;
  const auto session =
      service_.Call<v1::OpenSessionResponse>("/statehouse.v1.Sessions/OpenSession", open);
  ASSERT_TRUE(session.ok());
  v1::RunBatchRequest request;
  const auto try_lock = [&](uint64_t request_id) {
    auto* const acquire = request.mutable_batch()->add_operations()->mutable_acquire_lock();
    acquire->set_name("l");
    acquire->set_session_id(session->session_id());
    acquire->set_request_id(request_id);
    acquire->set_mode(v1::LOCK_MODE_EXCLUSIVE);
    acquire->mutable_timeout();
    return acquire;
  };
  try_lock(1);
  try_lock(2);
  try_lock(3)->clear_timeout();
  try_lock(4)->mutable_timeout()->set_nanos(1);
  const v1::BatchResult tried = Run(request);
  EXPECT_TRUE(tried.results(0).acquire_lock().acquired());
  EXPECT_TRUE(tried.results(1).has_acquire_lock());
  EXPECT_FALSE(tried.results(1).acquire_lock().acquired());
  EXPECT_EQ(ReasonOf(tried.results(2)), Reason::kInvalidArgument);
  EXPECT_EQ(ReasonOf(tried.results(3)), Reason::kInvalidArgument);

  request.Clear();
  auto* const release = request.mutable_batch()->add_operations()->mutable_release_lock();
  release->set_name("l");
  release->set_session_id(session->session_id());
  release->set_token(tried.results(0).acquire_lock().token());
  try_lock(5);
  const v1::BatchResult released = Run(request);
  EXPECT_TRUE(released.results(0).release_lock().held());
  EXPECT_TRUE(released.results(1).acquire_lock().acquired());
}

TEST_F(BatchTest, LimitsHoldAtTheLimitAndBeyond) {
  v1::RunBatchRequest request;
  request.mutable_batch()->add_names("d");
  for (size_t i = 0; i < kBatchOperationsMax; ++i) {
    request.mutable_batch()->add_operations()->mutable_increment()->set_key("n");
  }
  EXPECT_EQ(Run(request).results(kBatchOperationsMax - 1).increment().number(),
            int64_t{kBatchOperationsMax});
  request.mutable_batch()->add_operations()->mutable_increment()->set_key("n");
  EXPECT_EQ(Send(request).status().reason(), Reason::kLimitExceeded);
  EXPECT_EQ(Get("n").entry().value().int_value(), int64_t{kBatchOperationsMax});

  request.Clear();
  for (size_t i = 0; i < kBatchNamesMax; ++i) request.mutable_batch()->add_names("d");
  auto* const last = request.mutable_batch()->add_operations()->mutable_increment();
  last->set_dict(kBatchNamesMax - 1);
  last->set_key("m");
  EXPECT_EQ(Run(request).results(0).increment().number(), 1);
  request.mutable_batch()->add_names("d");
  EXPECT_EQ(Send(request).status().reason(), Reason::kInvalidArgument);

  request.Clear();
  request.mutable_batch()->add_names("d");
  request.mutable_batch()->mutable_operation_id()->set_session(9);
  for (size_t i = 0; i < kBatchNamedOperationsMax; ++i) {
    request.mutable_batch()->add_operations()->mutable_increment()->set_key("o");
  }
  Run(request);
  EXPECT_EQ(Run(request).results(0).increment().number(), 1);
  request.mutable_batch()->add_operations()->mutable_increment()->set_key("o");
  EXPECT_EQ(Send(request).status().reason(), Reason::kInvalidArgument);
  EXPECT_EQ(Get("o").entry().value().int_value(), int64_t{kBatchNamedOperationsMax});
}

TEST_F(BatchTest, AnAnswerWithoutRoomIsAFailureOfItsOwn) {
  const std::string large(1 << 20, 'x');
  v1::Value value = Text(large.substr(0, (1 << 20) - 16));
  ASSERT_TRUE(Set("large", value).ok());
  v1::RunBatchRequest request;
  request.mutable_batch()->add_names("d");
  for (int i = 0; i < 20; ++i) {
    request.mutable_batch()->add_operations()->mutable_get()->set_key("large");
  }
  request.mutable_batch()->add_operations()->mutable_increment()->set_key("n");
  const v1::BatchResult result = Run(request);
  EXPECT_EQ(result.results(0).get().value().string_value().size(), value.string_value().size());
  EXPECT_EQ(ReasonOf(result.results(19)), Reason::kMessageTooLarge);
  EXPECT_EQ(result.results(20).increment().number(), 1);
}

// As through the attach socket for a worker that takes no parts.
TEST_F(BatchTest, ADoorThatCarriesLessIsHeardBeforeAnythingIsDone) {
  constexpr uint64_t kDoorBytes = 4096;
  const auto send = [&](const v1::RunBatchRequest& request) {
    Answer answer;
    CallContext context;
    context.identity = IdentityOf({"dict:*:read,write"});
    context.lane = service_.engine().DaemonLane(0);
    context.response_bytes_max = kDoorBytes;
    service_.dispatcher().Dispatch(context, kRunBatch, request.SerializeAsString(),
                                   answer.Callback());
    return answer.Await();
  };
  v1::RunBatchRequest request;
  request.mutable_batch()->add_names("d");
  const int room = static_cast<int>(kDoorBytes / BatchResultWriter::kResultBytes);
  for (int i = 0; i < room; ++i) {
    request.mutable_batch()->add_operations()->mutable_increment()->set_key("n");
  }
  EXPECT_EQ(send(request).status().reason(), Reason::kMessageTooLarge);
  EXPECT_FALSE(Get("n").has_entry());

  request.mutable_batch()->mutable_operations()->RemoveLast();
  const StatusOr<std::string> fits = send(request);
  ASSERT_TRUE(fits.ok()) << fits.status().ToString();
  EXPECT_LE(fits->size(), kDoorBytes);
  EXPECT_EQ(Get("n").entry().value().int_value(), room - 1);
}

// What was carried out is never answered as a whole that was refused.
TEST_F(BatchTest, EveryResultHasRoomWhateverThoseBeforeItTake) {
  DispatcherOptions options;
  options.message_bytes_max = 64 << 10;
  TestService small(options);
  v1::CreateDictRequest create;
  create.set_name("d");
  ASSERT_TRUE(small.Call<v1::CreateDictResponse>("/statehouse.v1.Dicts/CreateDict", create).ok());
  v1::RunBatchRequest request;
  request.mutable_batch()->add_names("d");
  auto* const set = request.mutable_batch()->add_operations()->mutable_set();
  set->set_key("large");
  set->mutable_value()->set_string_value(std::string(7000, 'x'));
  const int count = (64 << 10) / static_cast<int>(BatchResultWriter::kResultBytes) - 2;
  for (int i = 2; i < count; ++i) {
    // Gets that fill it, failures with long texts, and increments.
    v1::Operation* const operation = request.mutable_batch()->add_operations();
    if (i % 3 == 0) operation->mutable_get()->set_key("large");
    if (i % 3 == 1) operation->mutable_increment()->set_key("n");
    if (i % 3 == 2) operation->mutable_get_entry()->set_name(std::string(60, 'g'));
  }
  request.mutable_batch()->add_operations()->mutable_increment()->set_key("last");
  const auto response = small.Call<v1::RunBatchResponse>(kRunBatch, request);
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  EXPECT_LE(response->ByteSizeLong(), 64u << 10);
  const v1::BatchResult& result = response->result();
  ASSERT_EQ(result.results_size(), count);
  EXPECT_EQ(result.results(count - 1).increment().number(), 1);
  int64_t counted = 0;
  for (int i = 2; i < count; ++i) {
    if (i % 3 != 1) continue;
    EXPECT_EQ(result.results(i - 1).increment().number(), ++counted);
  }
  for (int i = 0; i < 3; ++i) request.mutable_batch()->add_operations()->mutable_get();
  EXPECT_EQ(small.Call<v1::RunBatchResponse>(kRunBatch, request).status().reason(),
            Reason::kLimitExceeded);
}

TEST_F(BatchTest, NothingIsCarriedOutAfterItsDeadline) {
  CallContext context = service_.Context(IdentityOf({"dict:*:read,write,create"}));
  // It passes while the batch waits for the slow thread's turn, or before.
  context.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(1);
  v1::RunBatchRequest request;
  request.mutable_batch()->add_names("d");
  for (int i = 0; i < 2000; ++i) {
    request.mutable_batch()->add_operations()->mutable_list_dicts();
    request.mutable_batch()->add_operations()->mutable_increment()->set_key("n");
  }
  Answer answer;
  service_.dispatcher().Dispatch(context, kRunBatch, request.SerializeAsString(),
                                 answer.Callback());
  const StatusOr<std::string> bytes = answer.Await();
  if (!bytes.ok()) {
    EXPECT_EQ(bytes.status().reason(), Reason::kTimeout);
    return;
  }
  v1::RunBatchResponse response;
  ASSERT_TRUE(response.ParseFromString(*bytes));
  EXPECT_EQ(ReasonOf(response.result().results(3999)), Reason::kTimeout);
}

TEST_F(BatchTest, AnyValidMessageIsUnderstood) {
  // Fields out of order, one twice, one that nobody knows.
  const std::string increment_of_k("\x1a\x03\x12\x01k", 5);  // Operation.increment.
  const std::string name_d(
      "\x0a\x01"
      "d",
      3);                                        // Batch.names.
  const std::string unknown("\xf8\x07\x01", 3);  // Field 127.
  const auto field = [](char tag, const std::string& bytes) {
    return std::string(1, tag) + static_cast<char>(bytes.size()) + bytes;
  };
  // The key again and the dict behind it; and an operation that is set twice: the last one counts.
  const std::string reordered = field(0x1a, std::string("\x12\x01"
                                                        "x\x12\x01"
                                                        "k\x08\x00",
                                                        8));
  const std::string twice = field(0x0a, std::string("\x12\x01"
                                                    "x",
                                                    3)) +
                            increment_of_k;
  const std::string batch = field(0x22, increment_of_k + unknown) + field(0x22, reordered) +
                            name_d + unknown + field(0x22, twice);
  Answer answer;
  service_.Send(kRunBatch, field(0x0a, batch), &answer);
  const StatusOr<std::string> bytes = answer.Await();
  ASSERT_TRUE(bytes.ok()) << bytes.status().ToString();
  v1::RunBatchResponse response;
  ASSERT_TRUE(response.ParseFromString(*bytes));
  ASSERT_EQ(response.result().results_size(), 3) << response.DebugString();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(response.result().results(i).increment().number(), i + 1);
}

TEST_F(BatchTest, WhatIsNoMessageIsRefusedAsAWhole) {
  for (const char* bytes : {"\xff", "\x0a\x05", "\x0a\x02\x22\x05", "\x0a\x03\x22\x01\xff"}) {
    Answer answer;
    service_.Send(kRunBatch, bytes, &answer);
    EXPECT_EQ(answer.Await().status().reason(), Reason::kInvalidArgument);
  }
  EXPECT_EQ(Run(v1::RunBatchRequest()).results_size(), 0);
  // The bytes of one operation are its own affair.
  Answer answer;
  service_.Send(kRunBatch,
                std::string("\x0a\x09\x0a\x01"
                            "d\x22\x04\x1a\x02\x12\x05",
                            11),
                &answer);
  v1::RunBatchResponse response;
  ASSERT_TRUE(response.ParseFromString(answer.Await().value()));
  ASSERT_EQ(response.result().results_size(), 1);
  EXPECT_EQ(ReasonOf(response.result().results(0)), Reason::kInvalidArgument);
}

TEST_F(BatchTest, ADrainRefusesALockAndNothingElse) {
  service_.control().set_draining(true);
  v1::RunBatchRequest request = Batch(R"(names: "d" operations { increment { key: "n" } }
                   operations { acquire_lock { name: "l" } }
                   operations { increment { key: "n" } }
                   operations { acquire_lock { name: "l" timeout {} } }
                   operations { describe_lock { name: "l" } }
                   operations { list_dicts {} }
                   operations { increment_entry { name: "d" key: "n" } })");
  const v1::BatchResult result = Run(request);
  ASSERT_EQ(result.results_size(), 7);
  for (const int refused : {1, 3}) {
    EXPECT_EQ(ReasonOf(result.results(refused)), Reason::kDraining);
    EXPECT_EQ(result.results(refused).failure().detail().name(), "l");
  }
  EXPECT_EQ(result.results(0).increment().number(), 1);
  EXPECT_EQ(result.results(2).increment().number(), 2);
  EXPECT_TRUE(result.results(4).has_describe_lock()) << result.results(4).DebugString();
  EXPECT_TRUE(result.results(5).has_list_dicts()) << result.results(5).DebugString();
  EXPECT_EQ(result.results(6).increment_entry().value().int_value(), 3);

  request.mutable_batch()->set_stop_at_failure(true);
  const v1::BatchResult stopped = Run(request);
  EXPECT_EQ(stopped.results(0).increment().number(), 4);
  for (int i = 1; i < 7; ++i) EXPECT_EQ(ReasonOf(stopped.results(i)), Reason::kDraining);
}

TEST_F(BatchTest, AfterShutdownItIsRefusedAsAWhole) {
  service_.dispatcher().Shutdown();
  EXPECT_EQ(Send(Batch(R"(names: "d" operations { increment { key: "n" } })")).status().reason(),
            Reason::kDraining);
}

TEST_F(BatchTest, ADictThatGrowsInTheMiddleTakesEverything) {
  v1::RunBatchRequest request;
  request.mutable_batch()->add_names("d");
  // Far more than the first segment takes, so that several of them have to move.
  for (int round = 0; round < 10; ++round) {
    request.mutable_batch()->clear_operations();
    for (int i = 0; i < 4000; ++i) {
      auto* const set = request.mutable_batch()->add_operations()->mutable_set();
      set->set_key("k" + std::to_string(round * 4000 + i));
      set->mutable_value()->set_int_value(i);
    }
    const v1::BatchResult results = Run(request);
    for (const v1::OperationResult& result : results.results()) {
      ASSERT_TRUE(result.has_set()) << result.DebugString();
    }
  }
  v1::DescribeDictRequest describe;
  describe.set_name("d");
  const auto described = SH_DICT_CALL(service_, DescribeDict, describe);
  ASSERT_TRUE(described.ok());
  EXPECT_EQ(described->dict().entries(), 40'000u);
  EXPECT_GT(described->dict().moves(), 0u);
}

TEST_F(BatchTest, ShutdownInTheMiddleAnswersEveryOperation) {
  v1::RunBatchRequest request;
  request.mutable_batch()->add_names("d");
  for (int i = 0; i < 1000; ++i) {
    request.mutable_batch()->add_operations()->mutable_increment()->set_key("n");
    request.mutable_batch()->add_operations()->mutable_list_dicts();
  }
  Answer answer;
  service_.Send(kRunBatch, request.SerializeAsString(), &answer);
  service_.dispatcher().Shutdown();
  const StatusOr<std::string> bytes = answer.Await();
  ASSERT_TRUE(bytes.ok()) << bytes.status().ToString();
  v1::RunBatchResponse response;
  ASSERT_TRUE(response.ParseFromString(*bytes));
  ASSERT_EQ(response.result().results_size(), 2000);
  int64_t counted = 0;
  bool is_over = false;
  for (const v1::OperationResult& result : response.result().results()) {
    if (result.has_increment()) counted = result.increment().number();
    if (result.has_failure()) {
      EXPECT_EQ(ReasonOf(result), Reason::kDraining);
      is_over = true;
    } else {
      EXPECT_FALSE(is_over);
    }
  }
  DictEntry entry;
  bool found = false;
  const auto served = service_.engine().dicts().Find("d");
  ASSERT_TRUE(served.ok() && (*served)->dict().Get("n", &entry, &found).ok() && found);
  EXPECT_EQ(static_cast<int64_t>(entry.bits), counted);
}

}  // namespace
}  // namespace statehouse
