#include "engine/attach/protocol.h"

#include <bit>
#include <cstddef>
#include <cstring>
#include <utility>

namespace statehouse {
namespace {

constexpr uint16_t kMustUnderstandBit = 0x8000;
constexpr size_t kFieldHeaderBytes = 8;

// The field tags of each kind. A number is never reused for another meaning.
enum HelloTag : uint16_t { kHelloToken = 1, kHelloClientName = 2, kHelloWantLanes = 3 };
enum WelcomeTag : uint16_t {
  kWelcomeFirstLane = 1,
  kWelcomeLaneCount = 2,
  kWelcomeOperationTimeout = 3,
  kWelcomeGeneration = 4,
  kWelcomeVersion = 5,
};
enum OpenAreaTag : uint16_t { kOpenAreaName = 1 };
enum AreaOpenedTag : uint16_t {
  kOpenedId = 1,
  kOpenedName = 2,
  kOpenedIndex = 3,
  kOpenedWritable = 4,
  kOpenedDataIsSeparate = 5,
  kOpenedSize = 6,
  kOpenedControlBytes = 7,
  kOpenedDataOffset = 8,
  kOpenedAtomicRangeBytes = 9,
  kOpenedStripeShift = 10,
  kOpenedStripeCount = 11,
  kOpenedLaneCount = 12,
};
enum CallTag : uint16_t {
  kCallMethod = 1,
  kCallDeadline = 2,
  kCallRequest = 3,
  kCallTakesParts = 4
};
enum CallReplyTag : uint16_t { kReplyResponse = 1 };
enum CallPartTag : uint16_t { kPartBytes = 1 };
enum ErrorTag : uint16_t { kErrorReason = 1, kErrorRetryAfter = 2, kErrorMessage = 3 };
enum OpenDictTag : uint16_t { kOpenDictName = 1, kOpenDictGeneration = 2, kOpenDictNeed = 3 };
enum DictOpenedTag : uint16_t {
  kDictId = 1,
  kDictName = 2,
  kDictIndex = 3,
  kDictGeneration = 4,
  kDictWritable = 5,
  kDictDataBytes = 6,
  kDictEntriesMax = 7,
  kDictSeedA = 8,
  kDictSeedB = 9,
  kDictDefaultTtl = 10,
  kDictBucketCount = 11,
  kDictLaneCount = 12,
  kDictEvict = 13,
  kDictMaxEntries = 14,
  kDictMaxBytes = 15,
  kDictClock = 16,
};
enum OpenLocksTag : uint16_t { kOpenLocksNothing = 0 };
enum LocksOpenedTag : uint16_t {
  kLocksSeedA = 1,
  kLocksSeedB = 2,
  kLocksBucketCount = 3,
  kLocksMax = 4,
  kLocksRequestsMax = 5,
  kLocksLaneCount = 6,
  kLocksClock = 7,
};

enum OpenFollowLogTag : uint16_t { kOpenFollowLogName = 1, kOpenFollowLogId = 2 };
enum FollowLogOpenedTag : uint16_t { kFollowLogDictId = 1 };

static_assert(std::endian::native == std::endian::little);

template <typename T>
T LittleEndian(const std::byte* at) {
  T number = 0;
  std::memcpy(&number, at, sizeof number);
  return number;
}

// Header of a packet. The kind, the request and the length of the body follow when they are known.
struct Head {
  uint32_t magic = kAttachMagic;
  uint16_t kind = 0;
  uint16_t version = kAttachVersion;
  uint64_t request_id = 0;
  uint64_t body_bytes = 0;
};
static_assert(sizeof(Head) == kAttachHeaderBytes);

// Visits the fields of a message in one direction or the other, so that each message lists its
// fields once (VisitFields). This one writes them; the first text beyond its bound is remembered.
class FieldWriter final {
 public:
  // A packet without long texts has room in this.
  static constexpr size_t kPacketBytesMostly = 256;

  // Writes into *packet, in place of what is there.
  explicit FieldWriter(std::string* packet) : packet_(*packet) {
    packet_.reserve(kPacketBytesMostly);
    packet_.resize(sizeof(Head));
  }
  void Number(uint16_t tag, const uint64_t& value) { Fixed(tag, value, 8); }
  void Number(uint16_t tag, const uint32_t& value) { Fixed(tag, value, 4); }
  void Flag(uint16_t tag, const bool& value) { Fixed(tag, value ? 1 : 0, 1); }
  // Left out where it is not set.
  void OptionalFlag(uint16_t tag, const bool& value) {
    if (value) Flag(tag, value);
  }
  void Text(uint16_t tag, const char* name, size_t bytes_max, std::string_view value) {
    if (value.size() > bytes_max) {
      if (too_long_.empty()) {
        too_long_ = std::string(name) + " has " + std::to_string(value.size()) +
                    " bytes, the limit is " + std::to_string(bytes_max);
      }
      return;  // It is not sent, nor kept in memory that is used again.
    }
    Header(tag, value.size());
    packet_ += value;
  }
  void ReasonNumber(uint16_t tag, const Reason& value) {
    Fixed(tag, static_cast<uint16_t>(value), 2);
  }
  void Need(uint16_t tag, const AttachDictNeed& value) {
    Fixed(tag, static_cast<uint32_t>(value), 4);
  }

  const std::string& too_long() const { return too_long_; }
  size_t body_bytes() const { return packet_.size() - sizeof(Head); }
  void WriteHead(AttachKind kind, uint64_t request_id) {
    Head head;
    head.kind = static_cast<uint16_t>(kind);
    head.request_id = request_id;
    head.body_bytes = body_bytes();
    std::memcpy(packet_.data(), &head, sizeof head);
  }

 private:
  void Header(uint16_t tag, size_t length) {
    const uint64_t header = uint64_t{tag} | static_cast<uint64_t>(length) << 32;
    static_assert(sizeof header == kFieldHeaderBytes);
    packet_.append(reinterpret_cast<const char*>(&header), sizeof header);
  }
  void Fixed(uint16_t tag, uint64_t value, size_t bytes) {
    Header(tag, bytes);
    packet_.append(reinterpret_cast<const char*>(&value), bytes);
  }

  std::string& packet_;
  std::string too_long_;
};

// Reads them out of a body that Scan has split. Every field that this version knows is required;
// the first fault is remembered.
class FieldReader final {
 public:
  // Splits the body into fields. `tag_max` is the highest tag that the kind knows.
  Status Scan(std::span<const std::byte> body, uint16_t tag_max);

  void Number(uint16_t tag, uint64_t& value) { value = Fixed(tag, 8); }
  void Number(uint16_t tag, uint32_t& value) { value = static_cast<uint32_t>(Fixed(tag, 4)); }
  void Flag(uint16_t tag, bool& value) {
    const uint64_t number = Fixed(tag, 1);
    if (number > 1) Fail(tag, "is neither 0 nor 1");
    value = number == 1;
  }
  // Not set where it is missing: releases before it did not send it.
  void OptionalFlag(uint16_t tag, bool& value) {
    value = false;
    if (present_[tag]) Flag(tag, value);
  }
  template <typename Value>  // std::string, or a view into the body.
  void Text(uint16_t tag, const char* name, size_t bytes_max, Value& value) {
    const auto* field = Find(tag);
    if (field == nullptr) return;
    if (field->size() > bytes_max) {
      return Fail(tag, std::string("(") + name + ") has " + std::to_string(field->size()) +
                           " bytes, the limit is " + std::to_string(bytes_max));
    }
    value = Value(reinterpret_cast<const char*>(field->data()), field->size());
  }
  void ReasonNumber(uint16_t tag, Reason& value) {
    const uint64_t number = Fixed(tag, 2);
    if (number == 0) return Fail(tag, "is OK, which is no reason for an error");
    // A reason that a later daemon added is told as INTERNAL; its text is kept.
    value = number < kReasonCount ? static_cast<Reason>(number) : Reason::kInternal;
  }
  void Need(uint16_t tag, AttachDictNeed& value) {
    const uint64_t number = Fixed(tag, 4);
    if (number >= kAttachDictNeeds) return Fail(tag, "names no need");
    value = static_cast<AttachDictNeed>(number);
  }

  const std::string& fault() const { return fault_; }

 private:
  static constexpr size_t kTagsMax = kDictClock + 1;  // No kind knows a higher tag.

  static uint64_t NumberIn(std::span<const std::byte> field) {
    uint64_t number = 0;
    std::memcpy(&number, field.data(), field.size());
    return number;
  }
  const std::span<const std::byte>* Find(uint16_t tag) {
    if (!present_[tag]) {
      Fail(tag, "is missing");
      return nullptr;
    }
    return &fields_[tag];
  }
  uint64_t Fixed(uint16_t tag, size_t bytes) {
    const auto* field = Find(tag);
    if (field == nullptr) return 0;
    if (field->size() != bytes) {
      Fail(tag,
           "has " + std::to_string(field->size()) + " bytes instead of " + std::to_string(bytes));
      return 0;
    }
    return NumberIn(*field);
  }
  void Fail(uint16_t tag, const std::string& what) {
    if (fault_.empty()) fault_ = "field " + std::to_string(tag) + " " + what;
  }

  std::array<std::span<const std::byte>, kTagsMax> fields_;
  std::array<bool, kTagsMax> present_ = {};
  std::string fault_;
};

Status Malformed(const std::string& what) {
  return Status(Reason::kInvalidArgument, "attach packet: " + what);
}

Status FieldReader::Scan(std::span<const std::byte> body, uint16_t tag_max) {
  while (!body.empty()) {
    if (body.size() < kFieldHeaderBytes) return Malformed("a field's header is cut off");
    const auto tag = LittleEndian<uint16_t>(body.data());
    const auto zero = LittleEndian<uint16_t>(body.data() + 2);
    const auto length = LittleEndian<uint32_t>(body.data() + 4);
    body = body.subspan(kFieldHeaderBytes);
    if (zero != 0)
      return Malformed("the reserved bytes of field " + std::to_string(tag) + " are not zero");
    if (length > body.size()) {
      return Malformed("field " + std::to_string(tag) + " claims " + std::to_string(length) +
                       " bytes, " + std::to_string(body.size()) + " are left");
    }
    if (tag >= 1 && tag <= tag_max) {
      if (present_[tag]) return Malformed("field " + std::to_string(tag) + " is there twice");
      present_[tag] = true;
      fields_[tag] = body.subspan(0, length);
    } else if ((tag & kMustUnderstandBit) != 0) {
      return Malformed(
          "field " + std::to_string(tag) +
          " must be understood and is not known; the sender is newer, update this side");
    }
    body = body.subspan(length);
  }
  return Status();
}

template <typename Visitor, typename Message>
void VisitLocksOpened(Visitor& v, Message& m) {
  v.Number(kLocksSeedA, m.seed_a);
  v.Number(kLocksSeedB, m.seed_b);
  v.Number(kLocksBucketCount, m.bucket_count);
  v.Number(kLocksMax, m.locks_max);
  v.Number(kLocksRequestsMax, m.requests_max);
  v.Number(kLocksLaneCount, m.lane_count);
  v.Number(kLocksClock, m.clock_ns);
}

template <typename Visitor, typename Message>
void VisitDictOpened(Visitor& v, Message& m) {
  v.Number(kDictId, m.dict_id);
  v.Text(kDictName, "name", kNameBytesMax, m.name);
  v.Number(kDictIndex, m.index);
  v.Number(kDictGeneration, m.generation);
  v.Flag(kDictWritable, m.writable);
  v.Number(kDictDataBytes, m.data_bytes);
  v.Number(kDictEntriesMax, m.entries_max);
  v.Number(kDictSeedA, m.seed_a);
  v.Number(kDictSeedB, m.seed_b);
  v.Number(kDictDefaultTtl, m.default_ttl_ms);
  v.Number(kDictBucketCount, m.bucket_count);
  v.Number(kDictLaneCount, m.lane_count);
  v.Flag(kDictEvict, m.evict);
  v.Number(kDictMaxEntries, m.max_entries);
  v.Number(kDictMaxBytes, m.max_bytes);
  v.Number(kDictClock, m.clock_ns);
}

// What each message holds. `Visitor` is FieldWriter (with const messages) or FieldReader.
template <typename Visitor, typename Message>
void VisitFields(Visitor& v, Message& m) {
  using T = std::remove_const_t<Message>;
  if constexpr (std::is_same_v<T, AttachHello>) {
    v.Text(kHelloToken, "token", kTokenBytesMax, m.token);
    v.Text(kHelloClientName, "client name", kAttachClientNameBytesMax, m.client_name);
    v.Flag(kHelloWantLanes, m.want_lanes);
  } else if constexpr (std::is_same_v<T, AttachWelcome>) {
    v.Number(kWelcomeFirstLane, m.first_lane);
    v.Number(kWelcomeLaneCount, m.lane_count);
    v.Number(kWelcomeOperationTimeout, m.operation_timeout_ns);
    v.Number(kWelcomeGeneration, m.daemon_generation);
    v.Text(kWelcomeVersion, "server version", kAttachVersionBytesMax, m.server_version);
  } else if constexpr (std::is_same_v<T, AttachOpenArea>) {
    v.Text(kOpenAreaName, "name", kNameBytesMax, m.name);
  } else if constexpr (std::is_same_v<T, AttachAreaOpened>) {
    v.Number(kOpenedId, m.area_id);
    v.Text(kOpenedName, "name", kNameBytesMax, m.name);
    v.Number(kOpenedIndex, m.index);
    v.Flag(kOpenedWritable, m.writable);
    v.Flag(kOpenedDataIsSeparate, m.data_is_separate);
    v.Number(kOpenedSize, m.size);
    v.Number(kOpenedControlBytes, m.control_bytes);
    v.Number(kOpenedDataOffset, m.data_offset);
    v.Number(kOpenedAtomicRangeBytes, m.atomic_range_bytes);
    v.Number(kOpenedStripeShift, m.stripe_shift);
    v.Number(kOpenedStripeCount, m.stripe_count);
    v.Number(kOpenedLaneCount, m.lane_count);
  } else if constexpr (std::is_same_v<T, AttachCall> || std::is_same_v<T, AttachCallView>) {
    v.Text(kCallMethod, "method", kAttachMethodBytesMax, m.method);
    v.Number(kCallDeadline, m.deadline_ns);
    v.Text(kCallRequest, "request", kAttachBodyBytesMax, m.request);
    v.OptionalFlag(kCallTakesParts, m.takes_parts);
  } else if constexpr (std::is_same_v<T, AttachCallReply> ||
                       std::is_same_v<T, AttachCallReplyView>) {
    v.Text(kReplyResponse, "response", kAttachBodyBytesMax, m.response);
  } else if constexpr (std::is_same_v<T, AttachCallPart>) {
    v.Text(kPartBytes, "bytes", kAttachPartBytesMax, m.bytes);
  } else if constexpr (std::is_same_v<T, AttachError>) {
    v.ReasonNumber(kErrorReason, m.reason);
    v.Number(kErrorRetryAfter, m.retry_after_ms);
    v.Text(kErrorMessage, "message", kAttachErrorBytesMax, m.message);
  } else if constexpr (std::is_same_v<T, AttachOpenDict>) {
    v.Text(kOpenDictName, "name", kNameBytesMax, m.name);
    v.Number(kOpenDictGeneration, m.generation);
    v.Need(kOpenDictNeed, m.need);
  } else if constexpr (std::is_same_v<T, AttachLocksOpened>) {
    VisitLocksOpened(v, m);
  } else if constexpr (std::is_same_v<T, AttachDictOpened>) {
    VisitDictOpened(v, m);
  } else if constexpr (std::is_same_v<T, AttachOpenFollowLog>) {
    v.Text(kOpenFollowLogName, "name", kNameBytesMax, m.name);
    v.Number(kOpenFollowLogId, m.log_id);
  } else if constexpr (std::is_same_v<T, AttachFollowLogOpened>) {
    v.Number(kFollowLogDictId, m.dict_id);
  } else {
    static_assert(std::is_same_v<T, AttachOpenLocks>);  // It says nothing more.
  }
}

template <typename Message>
Status DecodeFields(std::span<const std::byte> body, uint16_t tag_max, Message* message) {
  FieldReader reader;
  SH_RETURN_IF_ERROR(reader.Scan(body, tag_max));
  VisitFields(reader, *message);
  return reader.fault().empty() ? Status() : Malformed(reader.fault());
}

template <typename Message>
Status DecodeBody(std::span<const std::byte> body, uint16_t tag_max, AttachMessage* message) {
  return DecodeFields(body, tag_max, &message->emplace<Message>());
}

Status DecodeKind(uint16_t kind, std::span<const std::byte> body, AttachMessage* message) {
  switch (static_cast<AttachKind>(kind)) {
    case AttachKind::kHello: return DecodeBody<AttachHello>(body, kHelloWantLanes, message);
    case AttachKind::kWelcome: return DecodeBody<AttachWelcome>(body, kWelcomeVersion, message);
    case AttachKind::kOpenArea: return DecodeBody<AttachOpenArea>(body, kOpenAreaName, message);
    case AttachKind::kAreaOpened:
      return DecodeBody<AttachAreaOpened>(body, kOpenedLaneCount, message);
    case AttachKind::kCall: return DecodeBody<AttachCall>(body, kCallTakesParts, message);
    case AttachKind::kCallReply: return DecodeBody<AttachCallReply>(body, kReplyResponse, message);
    case AttachKind::kError: return DecodeBody<AttachError>(body, kErrorMessage, message);
    case AttachKind::kOpenDict: return DecodeBody<AttachOpenDict>(body, kOpenDictNeed, message);
    case AttachKind::kDictOpened: return DecodeBody<AttachDictOpened>(body, kDictClock, message);
    case AttachKind::kOpenLocks:
      return DecodeBody<AttachOpenLocks>(body, kOpenLocksNothing, message);
    case AttachKind::kLocksOpened: return DecodeBody<AttachLocksOpened>(body, kLocksClock, message);
    case AttachKind::kCallPart: return DecodeBody<AttachCallPart>(body, kPartBytes, message);
    case AttachKind::kOpenFollowLog:
      return DecodeBody<AttachOpenFollowLog>(body, kOpenFollowLogId, message);
    case AttachKind::kFollowLogOpened:
      return DecodeBody<AttachFollowLogOpened>(body, kFollowLogDictId, message);
  }
  return Malformed("kind " + std::to_string(kind) + " is unknown");
}

// The variant lists the messages in the order of their kinds.
AttachKind KindOf(const AttachMessage& message) {
  return static_cast<AttachKind>(message.index() + 1);
}
static_assert(std::is_same_v<std::variant_alternative_t<static_cast<size_t>(AttachKind::kHello) - 1,
                                                        AttachMessage>,
                             AttachHello>);
static_assert(std::is_same_v<std::variant_alternative_t<static_cast<size_t>(AttachKind::kError) - 1,
                                                        AttachMessage>,
                             AttachError>);
static_assert(
    std::is_same_v<
        std::variant_alternative_t<static_cast<size_t>(AttachKind::kDictOpened) - 1, AttachMessage>,
        AttachDictOpened>);
static_assert(std::is_same_v<std::variant_alternative_t<
                                 static_cast<size_t>(AttachKind::kLocksOpened) - 1, AttachMessage>,
                             AttachLocksOpened>);
static_assert(
    std::is_same_v<std::variant_alternative_t<static_cast<size_t>(AttachKind::kFollowLogOpened) - 1,
                                              AttachMessage>,
                   AttachFollowLogOpened>);

template <typename Message>
Status EncodeInto(AttachKind kind, uint64_t request_id, const Message& message,
                  std::string* bytes) {
  FieldWriter writer(bytes);
  VisitFields(writer, message);
  if (!writer.too_long().empty()) {
    return Status(Reason::kMessageTooLarge, "attach packet: " + writer.too_long());
  }
  if (writer.body_bytes() > kAttachBodyBytesMax) {
    return Status(Reason::kMessageTooLarge,
                  "attach packet: the body has " + std::to_string(writer.body_bytes()) +
                      " bytes, the limit is " + std::to_string(kAttachBodyBytesMax) +
                      "; use smaller pieces or the network door");
  }
  writer.WriteHead(kind, request_id);
  return Status();
}

// The head of a packet, and that its body is as long as that says.
Status ReadHead(std::span<const std::byte> bytes, Head* head) {
  if (bytes.size() < sizeof *head) {
    return Malformed(std::to_string(bytes.size()) + " bytes are shorter than a header");
  }
  std::memcpy(head, bytes.data(), sizeof *head);
  if (head->magic != kAttachMagic) {
    return Malformed("the magic number is wrong; the peer does not speak this protocol");
  }
  if (head->version != kAttachVersion) {
    return Status(Reason::kVersionMismatch,
                  "attach packet: the peer speaks version " + std::to_string(head->version) +
                      ", this side version " + std::to_string(kAttachVersion) +
                      "; update the older of the two");
  }
  const size_t body_bytes = bytes.size() - sizeof *head;
  if (head->body_bytes == body_bytes && body_bytes <= kAttachBodyBytesMax) return Status();
  return Malformed("the header claims a body of " + std::to_string(head->body_bytes) + " bytes, " +
                   std::to_string(body_bytes) + " came; the limit is " +
                   std::to_string(kAttachBodyBytesMax));
}

// False: it is not a sound packet of this kind.
template <typename Message>
bool DecodeOnly(AttachKind kind, uint16_t tag_max, std::span<const std::byte> bytes,
                uint64_t* request_id, Message* message) {
  constexpr size_t kKindAt = offsetof(Head, kind);
  if (bytes.size() < sizeof(Head) ||
      LittleEndian<uint16_t>(bytes.data() + kKindAt) != static_cast<uint16_t>(kind)) {
    return false;
  }
  Head head;
  if (!ReadHead(bytes, &head).ok()) return false;
  *request_id = head.request_id;
  return DecodeFields(bytes.subspan(sizeof head), tag_max, message).ok();
}

}  // namespace

StatusOr<std::string> EncodeAttachPacket(const AttachPacket& packet) {
  const auto* error = std::get_if<AttachError>(&packet.message);
  if (error != nullptr && error->reason == Reason::kOk) {
    return Malformed("an error packet needs a reason other than OK");
  }
  std::string bytes;
  SH_RETURN_IF_ERROR(std::visit(
      [&](const auto& message) {
        return EncodeInto(KindOf(packet.message), packet.request_id, message, &bytes);
      },
      packet.message));
  return bytes;
}

StatusOr<AttachPacket> DecodeAttachPacket(std::span<const std::byte> bytes) {
  Head head;
  SH_RETURN_IF_ERROR(ReadHead(bytes, &head));
  StatusOr<AttachPacket> packet(AttachPacket{});
  packet->request_id = head.request_id;
  Status decoded = DecodeKind(head.kind, bytes.subspan(sizeof head), &packet->message);
  if (!decoded.ok()) packet = std::move(decoded);
  return packet;
}

Status EncodeAttachCall(uint64_t request_id, const AttachCallView& call, std::string* bytes) {
  return EncodeInto(AttachKind::kCall, request_id, call, bytes);
}

Status EncodeAttachCallReply(uint64_t request_id, std::string_view response, std::string* bytes) {
  return EncodeInto(AttachKind::kCallReply, request_id, AttachCallReplyView{response}, bytes);
}

bool DecodeAttachCall(std::span<const std::byte> bytes, uint64_t* request_id,
                      AttachCallView* call) {
  return DecodeOnly(AttachKind::kCall, kCallTakesParts, bytes, request_id, call);
}

bool DecodeAttachCallReply(std::span<const std::byte> bytes, uint64_t* request_id,
                           AttachCallReplyView* reply) {
  return DecodeOnly(AttachKind::kCallReply, kReplyResponse, bytes, request_id, reply);
}

}  // namespace statehouse
