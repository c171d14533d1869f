// The attach protocol: what a worker on the same host and the daemon say to each other over the
// unix socket `attach.sock` (SOCK_STREAM would need framing of its own; this is SOCK_SEQPACKET, so
// one packet is one message). docs/formats/attach.md is the drawing. Both sides use this codec;
// neither trusts the other's bytes.
//
// A packet is a header of 24 bytes and a body:
//
//   0        4      6      8               16              24
//   | magic  | kind | ver  | request id    | body bytes    | body …
//
// Integers are little-endian. A body is a run of fields: u16 tag, u16 zero, u32 length, then
// `length` bytes. An unknown tag with its top bit set is an error ("must be understood"); other
// unknown tags are skipped. Descriptors travel beside the packet as SCM_RIGHTS, at most
// kAttachDescriptorsMax.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/base/limits.h"
#include "engine/base/status.h"

namespace statehouse {

inline constexpr uint32_t kAttachMagic = 0x31415453;  // "STA1"
inline constexpr uint16_t kAttachVersion = 1;
inline constexpr size_t kAttachHeaderBytes = 24;
inline constexpr size_t kAttachDescriptorsMax = 3;
// A packet holds at most this many bytes of body; a larger Call or CallReply is refused with
// MESSAGE_TOO_LARGE.
inline constexpr size_t kAttachBodyBytesMax = 128 << 10;
// Of a response in one packet, and of each part of a longer one.
inline constexpr size_t kAttachPartBytesMax = kAttachBodyBytesMax - 64;
// Bounds of the texts inside; a longer one is refused by both sides.
inline constexpr size_t kAttachClientNameBytesMax = 128;
inline constexpr size_t kAttachVersionBytesMax = 64;
inline constexpr size_t kAttachMethodBytesMax = 256;
inline constexpr size_t kAttachErrorBytesMax = 4096;

enum class AttachKind : uint16_t {
  kHello = 1,     // worker -> daemon, first packet. Descriptor: the worker's own pidfd.
  kWelcome = 2,   // daemon -> worker. Descriptor: the liveness description (keep it open; close it
                  // in a forked child).
  kOpenArea = 3,  // worker -> daemon
  kAreaOpened =
      4,  // daemon -> worker. Descriptors: control segment; then the data file for a backed area.
  kCall =
      5,  // worker -> daemon: one unary call by method path with a serialized request, answered by:
  kCallReply = 6,  // daemon -> worker: the serialized response.
  kError = 7,  // daemon -> worker: the call, or the connection where it answers Hello, was refused.
  kOpenDict = 8,      // worker -> daemon
  kDictOpened = 9,    // daemon -> worker. Descriptor: the segment.
  kOpenLocks = 10,    // worker -> daemon
  kLocksOpened = 11,  // daemon -> worker. Descriptor: the segment, writable.
  kCallPart = 12,     // daemon -> worker: the next bytes of a response that one packet has no room
                      // for; its last ones are a CallReply.
  kOpenFollowLog = 13,    // worker -> daemon
  kFollowLogOpened = 14,  // daemon -> worker. Descriptor: the log, which nobody else can write.
};

// First packet of a connection. A connection without lanes (`want_lanes` false) can only Call; it
// needs no pidfd.
struct AttachHello {
  std::string token;        // Access token; at most kTokenBytesMax bytes.
  std::string client_name;  // "python/0.1.0 pid 4711": shown to operators; at most 128 bytes.
  bool want_lanes = true;
};

struct AttachWelcome {
  uint32_t first_lane = 0;  // Lanes [first_lane, first_lane + lane_count) are the worker's.
  uint32_t lane_count = 0;  // 0 when it wanted none.
  uint64_t operation_timeout_ns = 0;
  uint64_t daemon_generation = 0;
  std::string server_version;
};

struct AttachOpenArea {
  std::string name;  // Or "#<index>".
};

// The geometry is the daemon's private copy: a worker takes it from here and never from shared
// memory.
struct AttachAreaOpened {
  uint64_t area_id = 0;
  std::string name;
  uint32_t index = 0;
  bool writable = false;
  bool data_is_separate = false;  // Two descriptors: control, data.
  uint64_t size = 0;
  uint64_t control_bytes = 0;  // Length of the control part (header … journals).
  uint64_t data_offset = 0;    // Where the data begins in the segment, or in the data descriptor.
  uint64_t atomic_range_bytes = 0;
  uint32_t stripe_shift = 0;  // A stripe is 1 << stripe_shift bytes.
  uint32_t stripe_count = 0;
  uint32_t lane_count = 0;  // Lane records in the segment.
};

struct AttachCall {
  std::string method;        // "/statehouse.v1.Areas/CreateArea"
  uint64_t deadline_ns = 0;  // From now; 0 means none.
  std::string request;       // Serialized.
  bool takes_parts = false;  // The worker reads a response that comes in parts.
};

struct AttachCallReply {
  std::string response;  // Serialized.
};

struct AttachCallPart {
  std::string bytes;  // At most kAttachPartBytesMax.
};

struct AttachError {
  Reason reason = Reason::kInternal;
  uint32_t retry_after_ms = 0;
  std::string message;
};

// What a worker needs of a dict whose segment it has mapped. The daemon moves the dict where that
// helps, if it is still in that segment.
enum class AttachDictNeed : uint32_t {
  kNothing = 0,
  kRoomForEntries = 1,  // An insert was refused with LIMIT_EXCEEDED.
  kRoomForBytes = 2,    // An operation was refused with MEMORY_EXHAUSTED.
  kRepair = 3,          // Something in the segment is damaged: DATA_LOSS.
};
inline constexpr uint32_t kAttachDictNeeds = 4;

struct AttachOpenDict {
  std::string name;                                // Or "#<index>".
  uint32_t generation = 0;                         // Of the segment that the worker has; 0: none.
  AttachDictNeed need = AttachDictNeed::kNothing;  // Of that segment.
};

// As AttachAreaOpened: what the daemon knows, and never read from shared memory.
struct AttachDictOpened {
  uint64_t dict_id = 0;
  std::string name;
  uint32_t index = 0;
  uint32_t generation = 0;  // Of the segment; grows when the dict moves to another one.
  bool writable = false;
  // The segment's geometry.
  uint64_t data_bytes = 0;
  uint64_t entries_max = 0;
  uint64_t seed_a = 0;
  uint64_t seed_b = 0;
  uint64_t default_ttl_ms = 0;
  uint32_t bucket_count = 0;
  uint32_t lane_count = 0;
  bool evict = false;
  // The dict's limits. A segment for fewer entries is followed by a larger one.
  uint64_t max_entries = 0;
  uint64_t max_bytes = 0;
  uint64_t clock_ns = 0;  // The daemon's CLOCK_MONOTONIC when it answered.
};

// Asks for the service's locks. Only a worker with lanes whose token may lock every name gets them:
// whoever maps the segment can store anything into it. Others lock by Call.
struct AttachOpenLocks {};

// As AttachAreaOpened.
struct AttachLocksOpened {
  uint64_t seed_a = 0;
  uint64_t seed_b = 0;
  uint32_t bucket_count = 0;
  uint32_t locks_max = 0;
  uint32_t requests_max = 0;
  uint32_t lane_count = 0;
  uint64_t clock_ns = 0;  // The daemon's CLOCK_MONOTONIC when it answered.
};

// Asks for the log that a watch of the dict was handed over to. Who may read the dict gets it, with
// or without lanes.
struct AttachOpenFollowLog {
  std::string name;  // The dict's, or "#<index>".
  uint64_t log_id = 0;
};

struct AttachFollowLogOpened {
  uint64_t dict_id = 0;
};

using AttachMessage =
    std::variant<AttachHello, AttachWelcome, AttachOpenArea, AttachAreaOpened, AttachCall,
                 AttachCallReply, AttachError, AttachOpenDict, AttachDictOpened, AttachOpenLocks,
                 AttachLocksOpened, AttachCallPart, AttachOpenFollowLog, AttachFollowLogOpened>;

struct AttachPacket {
  uint64_t request_id = 0;  // An answer repeats its request's id.
  AttachMessage message;
};

// What travels most, as views into the bytes of a packet, so that nothing is copied.
struct AttachCallView {
  std::string_view method;
  uint64_t deadline_ns = 0;
  std::string_view request;
  bool takes_parts = false;
};
struct AttachCallReplyView {
  std::string_view response;
};

// The bytes of a Call and of a CallReply, as EncodeAttachPacket has them, in place of what is in
// *bytes, which keeps its memory. MESSAGE_TOO_LARGE.
Status EncodeAttachCall(uint64_t request_id, const AttachCallView& call, std::string* bytes);
Status EncodeAttachCallReply(uint64_t request_id, std::string_view response, std::string* bytes);
// What the bytes of a Call or CallReply say. False for those of any other packet, and for those
// that DecodeAttachPacket refuses; what is pointed to means nothing then.
bool DecodeAttachCall(std::span<const std::byte> bytes, uint64_t* request_id, AttachCallView* call);
bool DecodeAttachCallReply(std::span<const std::byte> bytes, uint64_t* request_id,
                           AttachCallReplyView* reply);

// The bytes of a packet. A message beyond the limits is MESSAGE_TOO_LARGE.
StatusOr<std::string> EncodeAttachPacket(const AttachPacket& packet);

// What the bytes say, or INVALID_ARGUMENT (malformed, unknown kind, a field missing or too long) or
// VERSION_MISMATCH.
StatusOr<AttachPacket> DecodeAttachPacket(std::span<const std::byte> bytes);

}  // namespace statehouse
