#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "service/api/api_test_support.h"
#include "statehouse/v1/admin.pb.h"
#include "statehouse/v1/area.pb.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;

#define SH_CALL(service, name, request) \
  service.Call<v1::name##Response>("/statehouse.v1.Areas/" #name, request)

class VerbsTest : public ::testing::Test {
 protected:
  template <typename Request>
  static Request For(const std::string& name, uint64_t pos = 0) {
    Request request;
    request.set_name(name);
    request.set_pos(pos);
    return request;
  }
  StatusOr<std::string> Read(const std::string& name, uint64_t pos, uint64_t len) {
    auto request = For<v1::ReadAreaRequest>(name, pos);
    request.set_len(len);
    auto response = SH_CALL(service_, ReadArea, request);
    if (!response.ok()) return response.status();
    return response->data();
  }

  TestService service_;
};

TEST_F(VerbsTest, CreatedAreaIsDescribedListedAndDeleted) {
  v1::CreateAreaRequest create;
  create.set_name("web/a");
  create.set_pages(2);
  const auto created = SH_CALL(service_, CreateArea, create);
  ASSERT_TRUE(created.ok()) << created.status().ToString();
  EXPECT_TRUE(created->created());
  EXPECT_EQ(created->area().size(), 8192u);
  EXPECT_EQ(created->area().backing(), v1::AREA_BACKING_MEMORY);

  const auto again = SH_CALL(service_, CreateArea, create);
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE(again->created());
  EXPECT_EQ(again->area().index(), created->area().index());
  create.set_exclusive(true);
  EXPECT_EQ(SH_CALL(service_, CreateArea, create).status().reason(), Reason::kAreaExists);

  v1::DescribeAreaRequest describe;
  describe.set_name("#" + std::to_string(created->area().index()));
  const auto described = SH_CALL(service_, DescribeArea, describe);
  ASSERT_TRUE(described.ok()) << described.status().ToString();
  EXPECT_EQ(described->area().name(), "web/a");
  EXPECT_GT(described->area().create_time().seconds(), 1'600'000'000);
  EXPECT_EQ(described->area().atomic_range_bytes(), kAtomicRangeBytesDefault);

  v1::DeleteAreaRequest remove;
  remove.set_name("web/a");
  EXPECT_TRUE(SH_CALL(service_, DeleteArea, remove).ok());
  EXPECT_EQ(SH_CALL(service_, DeleteArea, remove).status().reason(), Reason::kAreaNotFound);
  EXPECT_EQ(SH_CALL(service_, DescribeArea, describe).status().reason(), Reason::kAreaNotFound);
}

struct CreateRow {
  const char* name;
  uint64_t size;
  uint64_t pages;
  const char* file;
  uint64_t offset;
  Reason reason;
};

TEST_F(VerbsTest, CreateChecksEveryField) {
  const CreateRow rows[] = {
      {"", 1, 0, "", 0, Reason::kNameInvalid},
      {"#1", 1, 0, "", 0, Reason::kNameInvalid},
      {"a b", 1, 0, "", 0, Reason::kNameInvalid},
      {"a", 0, 0, "", 0, Reason::kSizeInvalid},
      {"a", 4096, 2, "", 0, Reason::kSizeInvalid},
      {"a", kAreaBytesMax + 1, 0, "", 0, Reason::kSizeInvalid},
      {"a", 0, UINT64_MAX, "", 0, Reason::kSizeInvalid},
      {"a", 1, 0, "", 4096, Reason::kInvalidArgument},
      {"a", 1, 0, "x", 1, Reason::kBackingInvalid},
      {"a", 4096, 1, "", 0, Reason::kOk},
  };
  for (const CreateRow& row : rows) {
    v1::CreateAreaRequest request;
    request.set_name(row.name);
    request.set_size(row.size);
    request.set_pages(row.pages);
    request.set_file(row.file);
    request.set_offset(row.offset);
    const auto created = SH_CALL(service_, CreateArea, request);
    EXPECT_EQ(created.status().reason(), row.reason)
        << row.name << " " << row.size << " " << row.pages << ": " << created.status().ToString();
  }
}

TEST_F(VerbsTest, RangesAreWrittenReadAndFilled) {
  service_.MakeArea("a", 100);
  auto write = For<v1::WriteAreaRequest>("a", 10);
  write.set_data("hello");
  ASSERT_TRUE(SH_CALL(service_, WriteArea, write).ok());
  EXPECT_EQ(*Read("a", 9, 7), std::string("\0hello\0", 7));

  auto fill = For<v1::FillAreaRequest>("a", 98);
  fill.set_value(0x41);
  ASSERT_TRUE(SH_CALL(service_, FillArea, fill).ok());
  EXPECT_EQ(*Read("a", 97, 3), std::string("\0AA", 3));
  EXPECT_EQ(*Read("a", 100, 0), "");
  const auto whole = SH_CALL(service_, ReadArea, For<v1::ReadAreaRequest>("a", 90));
  EXPECT_EQ(whole->data().size(), 10u);

  fill.set_value(256);
  EXPECT_EQ(SH_CALL(service_, FillArea, fill).status().reason(), Reason::kValueOutOfRange);
  EXPECT_EQ(Read("a", 96, 5).status().reason(), Reason::kOutOfBounds);
  EXPECT_EQ(Read("a", UINT64_MAX, 1).status().reason(), Reason::kOutOfBounds);
  EXPECT_EQ(Read("a", 1, UINT64_MAX).status().reason(), Reason::kOutOfBounds);
  EXPECT_EQ(SH_CALL(service_, ReadArea, For<v1::ReadAreaRequest>("a", 101)).status().reason(),
            Reason::kOutOfBounds);
  write.set_pos(96);
  EXPECT_EQ(SH_CALL(service_, WriteArea, write).status().reason(), Reason::kOutOfBounds);
}

TEST_F(VerbsTest, RangeOfManyPiecesGoesThroughWhole) {
  const uint64_t size = 5 * kAtomicRangeBytesDefault + 77;
  service_.MakeArea("big", size);
  std::string data(size, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 + i / 4096);
  auto write = For<v1::WriteAreaRequest>("big");
  write.set_data(data);

  ASSERT_TRUE(SH_CALL(service_, WriteArea, write).ok());

  EXPECT_EQ(*Read("big", 0, size), data);
  auto fill = For<v1::FillAreaRequest>("big", 1);
  fill.set_len(size - 2);
  fill.set_value('z');
  ASSERT_TRUE(SH_CALL(service_, FillArea, fill).ok());
  const std::string filled = *Read("big", 0, size);
  EXPECT_EQ(filled, data.substr(0, 1) + std::string(size - 2, 'z') + data.substr(size - 1));
}

TEST_F(VerbsTest, ReadBeyondTheMessageLimitIsRefused) {
  DispatcherOptions options;
  options.message_bytes_max = 100'000;
  TestService service(options);
  service.MakeArea("a", 200'000);
  auto read = For<v1::ReadAreaRequest>("a");
  read.set_len(100'000);
  EXPECT_EQ(SH_CALL(service, ReadArea, read).status().reason(), Reason::kMessageTooLarge);
  read.set_len(99'000);
  EXPECT_TRUE(SH_CALL(service, ReadArea, read).ok());
  auto write = For<v1::WriteAreaRequest>("a");
  write.set_data(std::string(100'000, 'x'));
  EXPECT_EQ(SH_CALL(service, WriteArea, write).status().reason(), Reason::kMessageTooLarge);
}

TEST_F(VerbsTest, WordsAreStoredLoadedAddedExchangedAndCombined) {
  service_.MakeArea("a", 64);
  auto store = For<v1::StoreWordRequest>("a", 3);
  store.set_type(v1::WORD_TYPE_I16);
  store.mutable_value()->set_signed_value(-2);
  ASSERT_TRUE(SH_CALL(service_, StoreWord, store).ok());
  auto load = For<v1::LoadWordRequest>("a", 3);
  load.set_type(v1::WORD_TYPE_I16);
  EXPECT_EQ(SH_CALL(service_, LoadWord, load)->value().signed_value(), -2);
  load.set_type(v1::WORD_TYPE_U16);
  EXPECT_EQ(SH_CALL(service_, LoadWord, load)->value().unsigned_value(), 65'534u);

  auto add = For<v1::AddWordRequest>("a", 3);
  add.set_type(v1::WORD_TYPE_I16);
  EXPECT_EQ(SH_CALL(service_, AddWord, add)->value().signed_value(), -1);
  add.set_delta(-32'768);
  EXPECT_EQ(SH_CALL(service_, AddWord, add)->value().signed_value(), 32'767);
  add.set_delta(INT64_MIN);
  EXPECT_EQ(SH_CALL(service_, AddWord, add)->value().signed_value(), 32'767);
  add.set_delta(0);
  EXPECT_EQ(SH_CALL(service_, AddWord, add)->value().signed_value(), 32'767);

  auto exchange = For<v1::CompareExchangeWordRequest>("a", 3);
  exchange.set_type(v1::WORD_TYPE_I16);
  exchange.mutable_expected()->set_signed_value(5);
  exchange.mutable_desired()->set_signed_value(6);
  auto exchanged = SH_CALL(service_, CompareExchangeWord, exchange);
  EXPECT_FALSE(exchanged->exchanged());
  EXPECT_EQ(exchanged->found().signed_value(), 32'767);
  exchange.mutable_expected()->set_signed_value(32'767);
  EXPECT_TRUE(SH_CALL(service_, CompareExchangeWord, exchange)->exchanged());

  auto combine = For<v1::BitwiseWordRequest>("a", 3);
  combine.set_type(v1::WORD_TYPE_U8);
  combine.mutable_operand()->set_unsigned_value(0x0c);
  EXPECT_EQ(SH_CALL(service_, BitwiseWord, combine).status().reason(), Reason::kInvalidArgument);
  combine.set_operator_(v1::BITWISE_OPERATOR_AND);
  EXPECT_EQ(SH_CALL(service_, BitwiseWord, combine)->value().unsigned_value(), 4u);
  combine.set_operator_(v1::BITWISE_OPERATOR_OR);
  EXPECT_EQ(SH_CALL(service_, BitwiseWord, combine)->value().unsigned_value(), 12u);
  combine.set_operator_(v1::BITWISE_OPERATOR_XOR);
  EXPECT_EQ(SH_CALL(service_, BitwiseWord, combine)->value().unsigned_value(), 0u);
  combine.set_operator_(static_cast<v1::BitwiseOperator>(77));
  EXPECT_EQ(SH_CALL(service_, BitwiseWord, combine).status().reason(), Reason::kInvalidArgument);
}

TEST_F(VerbsTest, WordFieldsAreChecked) {
  service_.MakeArea("a", 64);
  auto store = For<v1::StoreWordRequest>("a", 0);
  EXPECT_EQ(SH_CALL(service_, StoreWord, store).status().reason(), Reason::kWidthInvalid);
  store.set_type(v1::WORD_TYPE_U8);
  EXPECT_EQ(SH_CALL(service_, StoreWord, store).status().reason(), Reason::kInvalidArgument);
  store.mutable_value()->set_unsigned_value(300);
  EXPECT_EQ(SH_CALL(service_, StoreWord, store).status().reason(), Reason::kValueOutOfRange);
  store.mutable_value()->set_unsigned_value(1);
  store.set_pos(64);
  EXPECT_EQ(SH_CALL(service_, StoreWord, store).status().reason(), Reason::kOutOfBounds);
  auto load = For<v1::LoadWordRequest>("b", 0);
  load.set_type(v1::WORD_TYPE_U8);
  EXPECT_EQ(SH_CALL(service_, LoadWord, load).status().reason(), Reason::kAreaNotFound);
}

TEST_F(VerbsTest, WhoMayNotReadCannotTellWhatExists) {
  service_.MakeArea("secret", 8);
  const auto nobody = IdentityOf({"area:web/*:read,write"});
  const auto ask = [&](const std::string& name) {
    auto load = For<v1::LoadWordRequest>(name);
    load.set_type(v1::WORD_TYPE_U8);
    Status status =
        service_.CallAs<v1::LoadWordResponse>(nobody, "/statehouse.v1.Areas/LoadWord", load)
            .status();
    std::string text = status.ToString();
    for (size_t at; (at = text.find(name)) != std::string::npos;) text.erase(at, name.size());
    return text;
  };

  EXPECT_EQ(ask("secret"), ask("absent"));
  EXPECT_EQ(ask("#0"), ask("#7"));
  EXPECT_THAT(ask("secret"), HasSubstr("PERMISSION_DENIED"));
  EXPECT_THAT(ask("#0"), HasSubstr("AREA_NOT_FOUND"));
}

TEST_F(VerbsTest, EachVerbNeedsItsGrant) {
  service_.MakeArea("a", 64);
  const auto reader = IdentityOf({"area:*:read"});
  const auto writer = IdentityOf({"area:*:write"});
  auto store = For<v1::StoreWordRequest>("a");
  store.set_type(v1::WORD_TYPE_U8);
  store.mutable_value()->set_unsigned_value(1);
  const char* method = "/statehouse.v1.Areas/StoreWord";
  EXPECT_EQ(service_.CallAs<v1::StoreWordResponse>(reader, method, store).status().reason(),
            Reason::kPermissionDenied);
  EXPECT_TRUE(service_.CallAs<v1::StoreWordResponse>(writer, method, store).ok());
  store.set_name("#0");
  EXPECT_EQ(service_.CallAs<v1::StoreWordResponse>(reader, method, store).status().reason(),
            Reason::kPermissionDenied);
  EXPECT_TRUE(service_.CallAs<v1::StoreWordResponse>(writer, method, store).ok());

  v1::CreateAreaRequest create;
  create.set_name("b");
  create.set_size(1);
  EXPECT_EQ(
      service_.CallAs<v1::CreateAreaResponse>(writer, "/statehouse.v1.Areas/CreateArea", create)
          .status()
          .reason(),
      Reason::kPermissionDenied);
  create.set_file("x");
  const auto creator = IdentityOf({"area:*:create"});
  EXPECT_EQ(
      service_.CallAs<v1::CreateAreaResponse>(creator, "/statehouse.v1.Areas/CreateArea", create)
          .status()
          .reason(),
      Reason::kPermissionDenied);
  EXPECT_EQ(
      service_.CallAs<v1::DrainResponse>(creator, "/statehouse.v1.Admin/Drain", v1::DrainRequest())
          .status()
          .reason(),
      Reason::kPermissionDenied);
}

TEST_F(VerbsTest, ListShowsReadableNamesPageByPage) {
  for (int i = 0; i < 25; ++i) {
    service_.MakeArea((i % 2 == 0 ? "even/" : "odd/") + std::to_string(i), 8);
  }
  const auto reader = IdentityOf({"area:even/*:read", "area:odd/7:read"});
  std::vector<std::string> names;
  v1::ListAreasRequest request;
  request.set_page_size(4);
  int pages = 0;
  do {
    const auto page =
        service_.CallAs<v1::ListAreasResponse>(reader, "/statehouse.v1.Areas/ListAreas", request);
    ASSERT_TRUE(page.ok()) << page.status().ToString();
    EXPECT_LE(page->areas_size(), 4);
    for (const v1::Area& area : page->areas()) names.push_back(area.name());
    request.set_page_token(page->next_page_token());
    ++pages;
  } while (!request.page_token().empty());

  EXPECT_EQ(names.size(), 14u);
  EXPECT_EQ(pages, 4);
  EXPECT_EQ(names[0], "even/0");
  EXPECT_EQ(names[4], "odd/7");
  for (const char* token :
       {"x", "areas1.", "areas1.3.other", "areas1.03.", "areas1.-1.", "areas1.99999999999."}) {
    request.set_page_token(token);
    EXPECT_EQ(SH_CALL(service_, ListAreas, request).status().reason(), Reason::kInvalidArgument);
  }
}

TEST_F(VerbsTest, FileBackedAreaHoldsTheFilesBytes) {
  char pattern[] = "/tmp/sh_verbs_XXXXXX";
  const std::string folder = ::mkdtemp(pattern);
  std::ofstream(folder + "/data") << std::string(4096, 'a') << std::string(4096, 'b');
  {
    DispatcherOptions options;
    options.areas_file_root = folder;
    TestService service(options);
    v1::CreateAreaRequest create;
    create.set_name("f");
    create.set_size(4096);
    create.set_file("data");
    create.set_offset(4096);
    const auto created = SH_CALL(service, CreateArea, create);
    ASSERT_TRUE(created.ok()) << created.status().ToString();
    EXPECT_EQ(created->area().backing(), v1::AREA_BACKING_FILE);
    EXPECT_EQ(created->area().file(), folder + "/data");
    auto read = For<v1::ReadAreaRequest>("f", 4095);
    EXPECT_EQ(SH_CALL(service, ReadArea, read)->data(), "b");
    create.set_name("g");
    create.set_size(8192);
    EXPECT_EQ(SH_CALL(service, CreateArea, create).status().reason(), Reason::kBackingInvalid);
  }
  std::filesystem::remove_all(folder);
}

TEST_F(VerbsTest, StatusTellsWhatTheControlAndTheEngineKnow) {
  service_.MakeArea("a", 8);
  const auto status = service_.Call<v1::GetStatusResponse>("/statehouse.v1.Admin/GetStatus",
                                                           v1::GetStatusRequest());
  ASSERT_TRUE(status.ok()) << status.status().ToString();
  EXPECT_EQ(status->state(), v1::SERVING_STATE_SERVING);
  EXPECT_EQ(status->areas(), 1u);
  EXPECT_EQ(status->daemon_pid(), 11u);
  EXPECT_EQ(status->start_time().nanos(), 500'000'000);
  EXPECT_EQ(status->generation(), 1u);
  EXPECT_FALSE(status->version().empty());
}

TEST_F(VerbsTest, DrainRefusesWhatWouldOutliveItsCallAndServesTheRest) {
  service_.MakeArea("a", 8);
  v1::DrainRequest drain;
  drain.mutable_grace()->set_seconds(-1);
  EXPECT_EQ(service_.Call<v1::DrainResponse>("/statehouse.v1.Admin/Drain", drain).status().reason(),
            Reason::kInvalidArgument);
  drain.mutable_grace()->set_seconds(2);
  const auto drained = service_.Call<v1::DrainResponse>("/statehouse.v1.Admin/Drain", drain);
  ASSERT_TRUE(drained.ok());
  EXPECT_EQ(drained->calls_in_flight(), RememberingControl::kInFlight - 1);
  EXPECT_EQ(service_.control().grace(), std::chrono::milliseconds(2000));

  for (const std::string& method : service_.dispatcher().Methods()) {
    const bool lasts = method.ends_with("/AcquireLock") || method.ends_with("/OpenSession") ||
                       method.ends_with("/WatchDict") || method.ends_with("/WatchArea");
    Reason reason = Reason::kOk;
    if (service_.dispatcher().Streams(method)) {
      const auto stream = service_.dispatcher().OpenStream(
          service_.Context(IdentityOf({"dict:*:read"})), method, "\xff\xff\xff", [] {});
      reason = stream.status().reason();
    } else {
      Answer answer;
      service_.Send(method, "\xff\xff\xff", &answer);
      reason = answer.Await().status().reason();
    }
    EXPECT_EQ(reason, lasts ? Reason::kDraining : Reason::kInvalidArgument) << method;
  }
  EXPECT_TRUE(Read("a", 0, 1).ok());
  const auto status = service_.Call<v1::GetStatusResponse>("/statehouse.v1.Admin/GetStatus",
                                                           v1::GetStatusRequest());
  EXPECT_EQ(status->state(), v1::SERVING_STATE_DRAINING);
}

TEST_F(VerbsTest, PassedDeadlineIsTimeoutAndChangesNothing) {
  service_.MakeArea("a", 8);
  auto write = For<v1::WriteAreaRequest>("a");
  write.set_data("x");
  CallContext context = service_.Context(IdentityOf({"area:*:write"}));
  context.deadline = std::chrono::steady_clock::now();
  Answer answer;
  service_.dispatcher().Dispatch(context, "/statehouse.v1.Areas/WriteArea",
                                 write.SerializeAsString(), answer.Callback());

  EXPECT_EQ(answer.Await().status().reason(), Reason::kTimeout);
  EXPECT_EQ(*Read("a", 0, 1), std::string(1, '\0'));
}

TEST_F(VerbsTest, UnknownMethodsAndDamagedRequestsAreCountedAndRefused) {
  Answer unknown;
  service_.Send("/statehouse.v1.Areas/Fly", "", &unknown);
  EXPECT_EQ(unknown.Await().status().reason(), Reason::kUnimplemented);
  EXPECT_EQ(service_.observer().count("unknown", Reason::kUnimplemented), 1u);
  for (const std::string& method : service_.dispatcher().Methods()) {
    if (service_.dispatcher().Streams(method)) {
      const auto stream = service_.dispatcher().OpenStream(
          service_.Context(IdentityOf({"dict:*:read"})), method, "\xff\xff\xff", [] {});
      EXPECT_EQ(stream.status().reason(), Reason::kInvalidArgument) << method;
      Answer unary;
      service_.Send(method, "", &unary);
      EXPECT_EQ(unary.Await().status().reason(), Reason::kUnimplemented) << method;
    } else {
      Answer damaged;
      service_.Send(method, "\xff\xff\xff", &damaged);
      EXPECT_EQ(damaged.Await().status().reason(), Reason::kInvalidArgument) << method;
      EXPECT_EQ(damaged.times(), 1);
    }
    EXPECT_EQ(service_.observer().count(method, Reason::kInvalidArgument), 1u) << method;
  }
  EXPECT_EQ(service_.dispatcher().Methods().size(), 47u);
  EXPECT_EQ(service_.dispatcher().CallsInFlight(), 0u);
}

TEST_F(VerbsTest, AfterShutdownCallsAreRefusedWithDraining) {
  service_.MakeArea("a", 8);
  service_.dispatcher().Shutdown();

  EXPECT_EQ(Read("a", 0, 1).status().reason(), Reason::kDraining);
}

TEST(ObjectNameTest, IsFoundInWholeAndDamagedRequests) {
  v1::LoadWordRequest request;
  request.set_name("web/a");
  request.set_pos(5);
  const std::string bytes = request.SerializeAsString();
  EXPECT_EQ(ObjectNameOf("/statehouse.v1.Areas/LoadWord", bytes), "web/a");
  EXPECT_EQ(ObjectNameOf("/statehouse.v1.Areas/LoadWord", bytes.substr(0, 4)), "");
  EXPECT_EQ(ObjectNameOf("/statehouse.v1.Areas/LoadWord", ""), "");
  EXPECT_EQ(ObjectNameOf("/statehouse.v1.Areas/ListAreas", bytes), "");
  EXPECT_EQ(ObjectNameOf("/statehouse.v1.Admin/Drain", bytes), "");
  EXPECT_EQ(ObjectNameOf("/statehouse.v1.Locks/AcquireLock", bytes), "web/a");
  EXPECT_EQ(ObjectNameOf("/statehouse.v1.Locks/ListLocks", bytes), "");
  EXPECT_EQ(ObjectNameOf("/statehouse.v1.Sessions/HoldSession", bytes), "");
}

}  // namespace
}  // namespace statehouse
