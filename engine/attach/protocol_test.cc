#include "engine/attach/protocol.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace statehouse {
namespace {

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string MustEncode(const AttachPacket& packet) {
  StatusOr<std::string> bytes = EncodeAttachPacket(packet);
  EXPECT_TRUE(bytes.ok()) << bytes.status().ToString();
  return bytes.ok() ? *bytes : std::string();
}

// That the views of a Call and a CallReply see what the message has, of no other packet anything,
// and are written as the message is, into memory that holds something else.
void ExpectViewsAgree(const std::string& bytes, const StatusOr<AttachPacket>& decoded) {
  const auto* const call = decoded.ok() ? std::get_if<AttachCall>(&decoded->message) : nullptr;
  const auto* const reply =
      decoded.ok() ? std::get_if<AttachCallReply>(&decoded->message) : nullptr;
  uint64_t id = 0;
  AttachCallView call_view;
  AttachCallReplyView reply_view;
  std::string written(1000, 'x');
  ASSERT_EQ(DecodeAttachCall(Bytes(bytes), &id, &call_view), call != nullptr);
  if (call != nullptr) {
    EXPECT_EQ(id, decoded->request_id);
    EXPECT_EQ(call_view.method, call->method);
    EXPECT_EQ(call_view.deadline_ns, call->deadline_ns);
    EXPECT_EQ(call_view.request, call->request);
    EXPECT_EQ(call_view.takes_parts, call->takes_parts);
    ASSERT_TRUE(EncodeAttachCall(id, call_view, &written).ok());
    EXPECT_EQ(written, MustEncode(*decoded));
  }
  ASSERT_EQ(DecodeAttachCallReply(Bytes(bytes), &id, &reply_view), reply != nullptr);
  if (reply != nullptr) {
    EXPECT_EQ(id, decoded->request_id);
    EXPECT_EQ(reply_view.response, reply->response);
    ASSERT_TRUE(EncodeAttachCallReply(id, reply_view.response, &written).ok());
    EXPECT_EQ(written, MustEncode(*decoded));
  }
}

AttachAreaOpened SampleOpened() {
  AttachAreaOpened opened;
  opened.area_id = 0x1122334455667788;
  opened.name = "web/counters";
  opened.index = 7;
  opened.writable = true;
  opened.data_is_separate = true;
  opened.size = 1 << 20;
  opened.control_bytes = 2 << 20;
  opened.data_offset = 4096;
  opened.atomic_range_bytes = 65536;
  opened.stripe_shift = 12;
  opened.stripe_count = 256;
  opened.lane_count = 4096;
  return opened;
}

AttachDictOpened SampleDict() {
  AttachDictOpened opened;
  opened.dict_id = 0x1122334455667788;
  opened.name = "web/sessions";
  opened.index = 7;
  opened.generation = 3;
  opened.writable = true;
  opened.data_bytes = (uint64_t{1} << 30) + (1 << 16);
  opened.entries_max = 65536;
  opened.seed_a = 0xfedcba9876543210;
  opened.seed_b = 0x0123456789abcdef;
  opened.default_ttl_ms = 60'000;
  opened.bucket_count = 16384;
  opened.lane_count = 4096;
  opened.evict = true;
  opened.max_entries = 16 << 20;
  opened.max_bytes = uint64_t{1} << 30;
  opened.clock_ns = 123'456'789'012;
  return opened;
}

std::vector<AttachPacket> Samples() {
  return {
      {1, AttachHello{"sh1_abcdefgh_secret", "python/0.1.0 pid 4711", true}},
      {2, AttachHello{"", "", false}},
      {3, AttachWelcome{8, 8, 1'000'000'000, 3, "0.1.0"}},
      {4, AttachOpenArea{"#3"}},
      {5, SampleOpened()},
      {6,
       AttachCall{"/statehouse.v1.Areas/CreateArea", 5'000'000'000, std::string("\0\x01\xff", 3)}},
      {~uint64_t{0}, AttachCallReply{std::string(1000, '\xee')}},
      {0, AttachError{Reason::kRateLimited, 250, "too many failures"}},
      {13, AttachCall{"/statehouse.v1.Dicts/GetEntry", 0, "x", /*takes_parts=*/true}},
      {13, AttachCallPart{std::string(1000, '\xdd')}},
      {11, AttachOpenLocks{}},
      {12, AttachLocksOpened{1, 2, 64, 128, 512, 4096, 99}},
      {13, AttachOpenFollowLog{"dict", 77}},
      {14, AttachFollowLogOpened{5}},
      {7, AttachOpenDict{"sessions", 3, AttachDictNeed::kRoomForEntries}},
      {8, AttachOpenDict{"#0", 1, AttachDictNeed::kRepair}},
      {9, AttachOpenDict{"#0", 1, AttachDictNeed::kRoomForBytes}},
      {10, SampleDict()},
  };
}

// Puts the true body length into a hand-made packet.
std::string WithBody(AttachKind kind, const std::string& body) {
  std::string bytes = MustEncode({9, AttachOpenArea{"x"}}).substr(0, kAttachHeaderBytes);
  bytes[4] = static_cast<char>(kind);
  for (size_t i = 0; i < 8; ++i) bytes[16 + i] = static_cast<char>(body.size() >> (8 * i));
  return bytes + body;
}

std::string Field(uint16_t tag, const std::string& value, uint16_t reserved = 0) {
  std::string field;
  for (int i = 0; i < 2; ++i) field.push_back(static_cast<char>(tag >> (8 * i)));
  for (int i = 0; i < 2; ++i) field.push_back(static_cast<char>(reserved >> (8 * i)));
  for (int i = 0; i < 4; ++i) field.push_back(static_cast<char>(value.size() >> (8 * i)));
  return field + value;
}

TEST(AttachProtocolTest, EveryMessageComesBackAsItWasSent) {
  for (const AttachPacket& packet : Samples()) {
    const std::string bytes = MustEncode(packet);

    StatusOr<AttachPacket> decoded = DecodeAttachPacket(Bytes(bytes));

    ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
    EXPECT_EQ(decoded->request_id, packet.request_id);
    EXPECT_EQ(decoded->message.index(), packet.message.index());
    EXPECT_EQ(MustEncode(*decoded), bytes);
    ExpectViewsAgree(bytes, decoded);
  }
}

TEST(AttachProtocolTest, FieldsKeepTheirValues) {
  StatusOr<AttachPacket> decoded = DecodeAttachPacket(Bytes(MustEncode({5, SampleOpened()})));
  ASSERT_TRUE(decoded.ok());

  const auto& opened = std::get<AttachAreaOpened>(decoded->message);

  EXPECT_EQ(opened.area_id, 0x1122334455667788u);
  EXPECT_EQ(opened.name, "web/counters");
  EXPECT_EQ(opened.index, 7u);
  EXPECT_TRUE(opened.writable);
  EXPECT_TRUE(opened.data_is_separate);
  EXPECT_EQ(opened.size, 1u << 20);
  EXPECT_EQ(opened.control_bytes, 2u << 20);
  EXPECT_EQ(opened.data_offset, 4096u);
  EXPECT_EQ(opened.atomic_range_bytes, 65536u);
  EXPECT_EQ(opened.stripe_shift, 12u);
  EXPECT_EQ(opened.stripe_count, 256u);
  EXPECT_EQ(opened.lane_count, 4096u);
}

TEST(AttachProtocolTest, FieldsOfADictKeepTheirValues) {
  StatusOr<AttachPacket> decoded = DecodeAttachPacket(Bytes(MustEncode({5, SampleDict()})));
  ASSERT_TRUE(decoded.ok());

  const auto& opened = std::get<AttachDictOpened>(decoded->message);

  EXPECT_EQ(opened.dict_id, 0x1122334455667788u);
  EXPECT_EQ(opened.name, "web/sessions");
  EXPECT_EQ(opened.index, 7u);
  EXPECT_EQ(opened.generation, 3u);
  EXPECT_TRUE(opened.writable);
  EXPECT_EQ(opened.data_bytes, (uint64_t{1} << 30) + (1 << 16));
  EXPECT_EQ(opened.entries_max, 65536u);
  EXPECT_EQ(opened.seed_a, 0xfedcba9876543210u);
  EXPECT_EQ(opened.seed_b, 0x0123456789abcdefu);
  EXPECT_EQ(opened.default_ttl_ms, 60'000u);
  EXPECT_EQ(opened.bucket_count, 16384u);
  EXPECT_EQ(opened.lane_count, 4096u);
  EXPECT_TRUE(opened.evict);
  EXPECT_EQ(opened.max_entries, uint64_t{16} << 20);
  EXPECT_EQ(opened.max_bytes, uint64_t{1} << 30);
  EXPECT_EQ(opened.clock_ns, 123'456'789'012u);
}

// The bytes that docs/formats/attach.md shows: another build must read them as they stand.
TEST(AttachProtocolTest, BytesOnTheWireNeverChange) {
  const std::string expected(
      "STA1\x03\x00\x01\x00"              // magic, kind, version
      "\x2a\x00\x00\x00\x00\x00\x00\x00"  // request id 42
      "\x0c\x00\x00\x00\x00\x00\x00\x00"  // body bytes
      "\x01\x00\x00\x00\x04\x00\x00\x00hits",
      36);

  EXPECT_EQ(MustEncode({42, AttachOpenArea{"hits"}}), expected);
}

TEST(AttachProtocolTest, EveryTruncationIsRefused) {
  for (const AttachPacket& packet : Samples()) {
    const std::string bytes = MustEncode(packet);
    for (size_t size = 0; size < bytes.size(); ++size) {
      const std::string cut = bytes.substr(0, size);
      EXPECT_EQ(DecodeAttachPacket(Bytes(cut)).status().reason(), Reason::kInvalidArgument) << size;
      if (size < kAttachHeaderBytes) continue;
      // The same with a header that tells the shorter length: a field is cut off or missing.
      std::string told = cut;
      const size_t body = size - kAttachHeaderBytes;
      for (size_t i = 0; i < 8; ++i) told[16 + i] = static_cast<char>(body >> (8 * i));
      const auto decoded = DecodeAttachPacket(Bytes(told));
      if (!decoded.ok()) continue;
      // Only a Call may do without its last field.
      const auto* const call = std::get_if<AttachCall>(&decoded->message);
      ASSERT_NE(call, nullptr) << size;
      EXPECT_TRUE(std::get<AttachCall>(packet.message).takes_parts && !call->takes_parts) << size;
    }
  }
}

TEST(AttachProtocolTest, TrailingBytesAreRefused) {
  const std::string bytes = MustEncode({1, AttachOpenArea{"x"}}) + "y";

  EXPECT_EQ(DecodeAttachPacket(Bytes(bytes)).status().reason(), Reason::kInvalidArgument);
}

TEST(AttachProtocolTest, AnotherVersionIsAMismatchAndNotJunk) {
  std::string bytes = MustEncode({1, AttachOpenArea{"x"}});
  bytes[6] = 2;

  EXPECT_EQ(DecodeAttachPacket(Bytes(bytes)).status().reason(), Reason::kVersionMismatch);
}

TEST(AttachProtocolTest, WrongMagicAndUnknownKindsAreRefused) {
  std::string bytes = MustEncode({1, AttachOpenArea{"x"}});
  bytes[0] = 'X';
  EXPECT_EQ(DecodeAttachPacket(Bytes(bytes)).status().reason(), Reason::kInvalidArgument);

  for (const int kind : {0, 12, 255}) {
    const std::string unknown = WithBody(static_cast<AttachKind>(kind), "");
    EXPECT_EQ(DecodeAttachPacket(Bytes(unknown)).status().reason(), Reason::kInvalidArgument)
        << kind;
  }
}

TEST(AttachProtocolTest, UnknownFieldsAreSkippedUnlessTheyMustBeUnderstood) {
  const std::string known = Field(1, "hits");

  StatusOr<AttachPacket> skipped =
      DecodeAttachPacket(Bytes(WithBody(AttachKind::kOpenArea, Field(0x7fff, "new") + known)));
  StatusOr<AttachPacket> refused =
      DecodeAttachPacket(Bytes(WithBody(AttachKind::kOpenArea, known + Field(0x8002, "new"))));

  ASSERT_TRUE(skipped.ok()) << skipped.status().ToString();
  EXPECT_EQ(std::get<AttachOpenArea>(skipped->message).name, "hits");
  EXPECT_EQ(refused.status().reason(), Reason::kInvalidArgument);
}

TEST(AttachProtocolTest, ACallOfAnEarlierReleaseTakesNoParts) {
  const std::string body = Field(1, "/x") + Field(2, std::string(8, '\0')) + Field(3, "r");
  const auto earlier = DecodeAttachPacket(Bytes(WithBody(AttachKind::kCall, body)));
  const auto later =
      DecodeAttachPacket(Bytes(WithBody(AttachKind::kCall, body + Field(4, std::string(1, '\1')))));
  const auto neither =
      DecodeAttachPacket(Bytes(WithBody(AttachKind::kCall, body + Field(4, std::string(1, '\2')))));

  ASSERT_TRUE(earlier.ok()) << earlier.status().ToString();
  EXPECT_FALSE(std::get<AttachCall>(earlier->message).takes_parts);
  ASSERT_TRUE(later.ok()) << later.status().ToString();
  EXPECT_TRUE(std::get<AttachCall>(later->message).takes_parts);
  EXPECT_EQ(neither.status().reason(), Reason::kInvalidArgument);
}

TEST(AttachProtocolTest, MalformedFieldsAreRefused) {
  struct Case {
    const char* what;
    AttachKind kind;
    std::string body;
  };
  const Case cases[] = {
      {"missing", AttachKind::kOpenArea, ""},
      {"twice", AttachKind::kOpenArea, Field(1, "a") + Field(1, "b")},
      {"reserved", AttachKind::kOpenArea, Field(1, "a", 1)},
      {"claims too much", AttachKind::kOpenArea,
       std::string("\x01\x00\x00\x00\xff\xff\xff\xff"
                   "a",
                   9)},
      {"number too short", AttachKind::kError, Field(1, "\x01") + Field(2, "1234") + Field(3, "")},
      {"reason OK", AttachKind::kError,
       Field(1, std::string(2, '\0')) + Field(2, "1234") + Field(3, "")},
      {"need of 4", AttachKind::kOpenDict,
       Field(1, "a") + Field(2, std::string(4, '\0')) + Field(3, std::string("\x04\0\0\0", 4))},
      {"need of 2 bytes", AttachKind::kOpenDict,
       Field(1, "a") + Field(2, std::string(4, '\0')) + Field(3, std::string(2, '\0'))},
      {"no generation", AttachKind::kOpenDict, Field(1, "a") + Field(3, std::string(4, '\0'))},
      {"flag of 2", AttachKind::kHello, Field(1, "t") + Field(2, "c") + Field(3, "\x02")},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(DecodeAttachPacket(Bytes(WithBody(c.kind, c.body))).status().reason(),
              Reason::kInvalidArgument)
        << c.what;
  }
}

TEST(AttachProtocolTest, AReasonOfALaterReleaseReadsAsInternalAndKeepsItsText) {
  const std::string body =
      Field(1, "\xff\x7f") + Field(2, std::string(4, '\0')) + Field(3, "because");

  StatusOr<AttachPacket> decoded = DecodeAttachPacket(Bytes(WithBody(AttachKind::kError, body)));

  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  EXPECT_EQ(std::get<AttachError>(decoded->message).reason, Reason::kInternal);
  EXPECT_EQ(std::get<AttachError>(decoded->message).message, "because");
}

TEST(AttachProtocolTest, EveryTextIsTakenAtItsLimitAndRefusedOnePast) {
  struct Case {
    const char* what;
    size_t limit;
    AttachMessage (*make)(std::string);
  };
  const Case cases[] = {
      {"token", kTokenBytesMax,
       [](std::string s) -> AttachMessage {
         return AttachHello{s, "", true};
       }},
      {"client", kAttachClientNameBytesMax,
       [](std::string s) -> AttachMessage {
         return AttachHello{"", s, true};
       }},
      {"version", kAttachVersionBytesMax,
       [](std::string s) -> AttachMessage {
         return AttachWelcome{1, 8, 1, 1, s};
       }},
      {"name", kNameBytesMax, [](std::string s) -> AttachMessage { return AttachOpenArea{s}; }},
      {"dict name", kNameBytesMax,
       [](std::string s) -> AttachMessage {
         return AttachOpenDict{s, 0, AttachDictNeed::kNothing};
       }},
      {"method", kAttachMethodBytesMax,
       [](std::string s) -> AttachMessage {
         return AttachCall{s, 0, ""};
       }},
      {"error", kAttachErrorBytesMax,
       [](std::string s) -> AttachMessage {
         return AttachError{Reason::kInternal, 0, s};
       }},
      // A field header of 8 bytes stands before the response.
      {"response", kAttachBodyBytesMax - 8,
       [](std::string s) -> AttachMessage { return AttachCallReply{s}; }},
      {"part", kAttachPartBytesMax,
       [](std::string s) -> AttachMessage { return AttachCallPart{s}; }},
  };
  for (const Case& c : cases) {
    StatusOr<std::string> at_limit = EncodeAttachPacket({1, c.make(std::string(c.limit, 'x'))});
    StatusOr<std::string> one_past = EncodeAttachPacket({1, c.make(std::string(c.limit + 1, 'x'))});

    ASSERT_TRUE(at_limit.ok()) << c.what << ": " << at_limit.status().ToString();
    EXPECT_TRUE(DecodeAttachPacket(Bytes(*at_limit)).ok()) << c.what;
    EXPECT_EQ(one_past.status().reason(), Reason::kMessageTooLarge) << c.what;
  }
}

TEST(AttachProtocolTest, DecodingRefusesWhatEncodingWouldNotSend) {
  const std::string long_name =
      WithBody(AttachKind::kOpenArea, Field(1, std::string(kNameBytesMax + 1, 'x')));
  const std::string long_body =
      WithBody(AttachKind::kCallReply, Field(1, std::string(kAttachBodyBytesMax, 'x')));

  EXPECT_EQ(DecodeAttachPacket(Bytes(long_name)).status().reason(), Reason::kInvalidArgument);
  EXPECT_EQ(DecodeAttachPacket(Bytes(long_body)).status().reason(), Reason::kInvalidArgument);
}

TEST(AttachProtocolTest, AnErrorWithoutAReasonIsNotSent) {
  EXPECT_EQ(EncodeAttachPacket({1, AttachError{Reason::kOk, 0, "fine"}}).status().reason(),
            Reason::kInvalidArgument);
}

// What the fuzz target checks, on a seeded corpus: mutated packets never crash the decoder, and
// what it takes it gives back.
TEST(AttachProtocolTest, RandomBytesNeverBreakTheDecoderAndWhatItTakesIsStable) {
  constexpr uint64_t kSeed = 20261121;
  constexpr int kInputs = 250'000;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  std::mt19937_64 random(kSeed);
  std::vector<std::string> seeds;
  for (const AttachPacket& packet : Samples()) seeds.push_back(MustEncode(packet));
  int taken = 0;

  for (int i = 0; i < kInputs; ++i) {
    std::string input = seeds[random() % seeds.size()];
    const uint64_t edits = random() % 4;
    for (uint64_t e = 0; e < edits; ++e) {
      const size_t at = random() % input.size();
      switch (random() % 4) {
        case 0: input[at] = static_cast<char>(random()); break;
        case 1: input[at] = static_cast<char>(input[at] ^ (1 << (random() % 8))); break;
        case 2: input.resize(at + 1); break;
        default: input.insert(at, 1, static_cast<char>(random())); break;
      }
    }
    if (input.size() >= kAttachHeaderBytes && random() % 2 == 0) {  // Get past the length check.
      const size_t body = input.size() - kAttachHeaderBytes;
      for (size_t b = 0; b < 8; ++b) input[16 + b] = static_cast<char>(body >> (8 * b));
    }
    StatusOr<AttachPacket> decoded = DecodeAttachPacket(Bytes(input));
    ASSERT_NO_FATAL_FAILURE(ExpectViewsAgree(input, decoded));
    if (!decoded.ok()) continue;
    ++taken;
    StatusOr<std::string> encoded = EncodeAttachPacket(*decoded);
    ASSERT_TRUE(encoded.ok()) << encoded.status().ToString();
    StatusOr<AttachPacket> again = DecodeAttachPacket(Bytes(*encoded));
    ASSERT_TRUE(again.ok()) << again.status().ToString();
    ASSERT_EQ(MustEncode(*again), *encoded);
  }

  EXPECT_GT(taken, kInputs / 100);
  EXPECT_LT(taken, kInputs);
}

}  // namespace
}  // namespace statehouse
