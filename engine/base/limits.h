// Every bound of the engine, with its unit in its name, and the relations between them checked at
// compile time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace statehouse {

inline constexpr uint64_t kPageBytes = 4096;
inline constexpr uint64_t kCacheLineBytes = 64;

inline constexpr size_t kNameBytesMax = 255;                   // An object's name.
inline constexpr uint64_t kAreaBytesMax = uint64_t{16} << 30;  // One area.
inline constexpr uint32_t kAreasMax = 4096;                    // Areas of one service.
inline constexpr uint64_t kStripeBytesMin = 4096;  // One lock covers at least this much.
inline constexpr uint32_t kStripesMax = 1024;      // Stripes of one area.
inline constexpr uint64_t kAtomicRangeBytesDefault =
    64 << 10;  // Largest range that is written atomically.
inline constexpr uint64_t kAtomicRangeBytesMax = 1 << 20;  // What it can be configured to.

inline constexpr uint32_t kDictsMax = 1024;                    // Dicts of one service.
inline constexpr uint64_t kDictBytesMax = uint64_t{64} << 30;  // Blocks of one dict.
inline constexpr uint64_t kDictEntriesMax = uint64_t{1} << 30;
inline constexpr uint64_t kDictBytesDefault = uint64_t{1} << 30;
inline constexpr uint64_t kDictEntriesDefault = 16 << 20;
inline constexpr size_t kDictKeyBytesMax = 1024;
inline constexpr size_t kDictValueBytesMax = 1 << 20;

// Locks. Sparse: only what is used costs memory.
inline constexpr uint32_t kLocksMaxDefault = 1 << 18;   // Names of one service at once.
inline constexpr uint32_t kLocksMaxLimit = 1 << 24;     // What it can be configured to.
inline constexpr uint32_t kLockRequestsPerLock = 4;     // Holders and waiters: this times as many.
inline constexpr uint64_t kLockTtlNsMin = 100'000'000;  // A lease ends at the earliest then,
inline constexpr uint64_t kLockTtlNsMax = uint64_t{7} * 86'400 * 1'000'000'000;  // and the latest.
inline constexpr uint64_t kLockTtlNsDefault = 10'000'000'000;
inline constexpr uint32_t kLockHoldersMax = 1 << 20;  // Of a semaphore.

// Lanes. Lane 0 means "free", so block 0 (the daemon's) has seven usable lanes.
inline constexpr uint32_t kLaneBits = 12;
inline constexpr uint32_t kLanesMax = 1u << kLaneBits;  // 4,096, with the unused lane 0.
inline constexpr uint32_t kLanesPerBlock = 8;           // Leased to one process at a time.
inline constexpr uint32_t kLaneBlocksMax = kLanesMax / kLanesPerBlock;

inline constexpr uint64_t kOperationTimeoutNsDefault = 1'000'000'000;  // Then STALLED.

inline constexpr size_t kTokenBytesMax = 4096;        // An access token as it travels.
inline constexpr size_t kMessageBytesMax = 16 << 20;  // One request or response.
inline constexpr uint32_t kWaitersMax = 65'536;       // Parked waits of one service.

// Watches.
inline constexpr uint32_t kCallsPerSecondMax = 100'000'000;  // Of one token, as its limit.
inline constexpr uint32_t kCallsAtOnceMax = 1'000'000;       // The same.
inline constexpr uint32_t kWatchesMax = 65'536;              // Open at once.
inline constexpr uint64_t kFeedLogBytesMin = 64 << 10;       // History of one dict.
inline constexpr uint64_t kFeedLogBytesDefault = 8 << 20;
inline constexpr uint64_t kFeedLogBytesMax = uint64_t{1} << 30;
inline constexpr uint64_t kAreaCopyRangeBytesMax = 4 << 20;  // A watched range that is copied.
inline constexpr uint64_t kAreaCopyBytesDefault = 64 << 20;  // Copies of all watched ranges.
inline constexpr uint64_t kAreaCopyBytesMax = uint64_t{64} << 30;

// Sessions of clients of the network door.
inline constexpr uint32_t kSessionsMax = 65'536;
inline constexpr size_t kSessionNameBytesMax = 128;  // Of the text that says who the client is.
inline constexpr uint64_t kSessionTtlNsMin = 1'000'000'000;
inline constexpr uint64_t kSessionTtlNsMax = uint64_t{86'400} * 1'000'000'000;
inline constexpr uint64_t kSessionTtlNsDefault = 10'000'000'000;
inline constexpr uint64_t kSessionGraceNs = 5'000'000'000;  // After a restart, at least.
inline constexpr uint32_t kSessionLocksMax = 1 << 17;       // Held and waited for.
inline constexpr uint32_t kSessionHoldsMax = 8;             // Calls that hold one session.
inline constexpr uint32_t kSessionEntriesMax = 1 << 14;  // Entries of dicts that are bound to it.
inline constexpr uint32_t kBoundEntriesMax = 1 << 22;    // The same of all sessions.
inline constexpr size_t kSessionLostMax = 1024;          // Remembered for its next call.

static_assert(kStripeBytesMin % kPageBytes == 0);
static_assert(kLanesMax % kLanesPerBlock == 0);
static_assert(kAtomicRangeBytesDefault <= kAtomicRangeBytesMax);

}  // namespace statehouse
