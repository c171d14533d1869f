// WaitEntry as a verb: what is refused, and that a parked call ends once.
#include "service/api/dict_verbs_test_support.h"

namespace statehouse {
namespace {

constexpr char kWaitEntry[] = "/statehouse.v1.Dicts/WaitEntry";

class WaitEntryTest : public DictVerbsTest {
 protected:
  static v1::WaitEntryRequest Present(const std::string& key = "k") {
    auto request = For<v1::WaitEntryRequest>(key);
    request.set_present(true);
    return request;
  }
  Reason Refusal(const v1::WaitEntryRequest& request) {
    return SH_DICT_CALL(service_, WaitEntry, request).status().reason();
  }
  static v1::WaitEntryResponse ResponseOf(const Answer& answer) {
    v1::WaitEntryResponse response;
    const StatusOr<std::string> bytes = answer.Await();
    EXPECT_TRUE(bytes.ok()) << bytes.status().ToString();
    if (bytes.ok()) {
      EXPECT_TRUE(response.ParseFromString(*bytes));
    }
    return response;
  }
};

TEST_F(WaitEntryTest, BadInputIsRefused) {
  auto nothing = For<v1::WaitEntryRequest>("k");
  EXPECT_EQ(Refusal(nothing), Reason::kInvalidArgument);
  nothing.set_present(false);
  EXPECT_EQ(Refusal(nothing), Reason::kInvalidArgument);
  nothing.set_absent(false);
  EXPECT_EQ(Refusal(nothing), Reason::kInvalidArgument);
  nothing.mutable_value();
  EXPECT_EQ(Refusal(nothing), Reason::kValueInvalid);
  EXPECT_EQ(Refusal(Present("")), Reason::kKeyInvalid);
  auto versioned = Present();
  versioned.add_path_steps()->set_key("a");
  versioned.set_version_above(1);
  EXPECT_EQ(Refusal(versioned), Reason::kInvalidArgument);
  auto negative = Present();
  negative.mutable_timeout()->set_seconds(-1);
  EXPECT_EQ(Refusal(negative), Reason::kInvalidArgument);
  auto elsewhere = Present();
  elsewhere.set_name("none");
  EXPECT_EQ(Refusal(elsewhere), Reason::kDictNotFound);
}

TEST_F(WaitEntryTest, OnlyWhoMayReadMayWait) {
  Answer answer;
  service_.dispatcher().Dispatch(service_.Context(IdentityOf({"dict:other:read"})), kWaitEntry,
                                 Present().SerializeAsString(), answer.Callback());
  EXPECT_EQ(answer.Await().status().reason(), Reason::kPermissionDenied);
}

TEST_F(WaitEntryTest, AParkedCallEndsByAChangeOnce) {
  Answer answer;
  const auto pending = service_.Send(kWaitEntry, Present().SerializeAsString(), &answer);
  ASSERT_NE(pending, nullptr);
  EXPECT_EQ(service_.dispatcher().CallsInFlight(), 1u);
  ASSERT_TRUE(Set("k", Nested()).ok());
  const v1::WaitEntryResponse response = ResponseOf(answer);
  EXPECT_TRUE(response.met());
  EXPECT_EQ(response.entry().key(), "k");
  EXPECT_EQ(response.entry().value().SerializeAsString(), Nested().SerializeAsString());
  EXPECT_GT(response.entry().version(), 0u);
  pending->Cancel();  // Too late: nothing happens.
  EXPECT_EQ(answer.times(), 1);
  EXPECT_TRUE(Eventually([this] { return service_.dispatcher().CallsInFlight() == 0; }));
}

TEST_F(WaitEntryTest, ACancelledCallLeavesNothingBehind) {
  Answer answer;
  const auto pending = service_.Send(kWaitEntry, Present().SerializeAsString(), &answer);
  pending->Cancel();
  EXPECT_EQ(answer.Await().status().reason(), Reason::kCancelled);
  EXPECT_TRUE(Eventually([this] { return service_.dispatcher().CallsInFlight() == 0; }));
}

TEST_F(WaitEntryTest, TheDrainEndsIt) {
  Answer answer;
  service_.Send(kWaitEntry, Present().SerializeAsString(), &answer);
  service_.dispatcher().Shutdown();
  EXPECT_EQ(answer.Await().status().reason(), Reason::kDraining);
}

}  // namespace
}  // namespace statehouse
