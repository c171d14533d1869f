#include "engine/state/follow_log.h"

#include <sys/random.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/base/watch_mutant.h"
#include "engine/os/errno_status.h"
#include "engine/os/futex.h"
#include "engine/os/memory.h"
#include "engine/state/copy.h"
#include "engine/state/feed_record.h"

namespace statehouse {
namespace {

// What a record says by itself; `left` bytes of the log are behind its beginning.
bool MakesSense(const FeedRecord& record, uint64_t left) {
  const auto operation = static_cast<FeedOperation>(record.operation);
  const bool is_change = operation >= FeedOperation::kPut && operation <= FeedOperation::kEvict;
  const bool is_mark = operation == FeedOperation::kGap || operation == FeedOperation::kMoved;
  return (is_change || is_mark) && record.record_bytes <= left &&
         record.record_bytes == FeedRecordBytes(record.key_bytes, record.value_bytes) &&
         record.kind <= static_cast<uint8_t>(DictKind::kFloat64) &&
         record.key_bytes <= kDictKeyBytesMax;
}

}  // namespace

StatusOr<std::unique_ptr<FollowLogWriter>> FollowLogWriter::Create(uint64_t dict_id,
                                                                   uint64_t log_bytes) {
  FollowLogFacts facts{dict_id, 0};
  if (::getrandom(&facts.log_id, sizeof facts.log_id, 0) != sizeof facts.log_id) {
    return ErrnoStatus("naming a follow log: reading random bytes");
  }
  std::unique_ptr<FollowLogWriter> writer(new FollowLogWriter(facts, log_bytes));
  SH_ASSIGN_OR_RETURN(PublishedMemory memory,
                      CreatePublishedMemory("statehouse-follow", kFollowLogOffset + log_bytes));
  writer->fd_ = std::move(memory.fd);
  writer->base_ = memory.base;
  FollowLogHead& head = writer->head();
  head.version = kFollowLogVersion;
  head.log_bytes = log_bytes;
  head.dict_id = facts.dict_id;
  head.log_id = facts.log_id;
  head.magic = kFollowLogMagic;
  return writer;
}

uint64_t FollowLogWriter::RecordBytesOf(const DictChange& change) const {
  const uint64_t bytes = FeedRecordBytes(change.key.size(), change.bytes.size());
  return bytes <= log_bytes_ ? bytes : FeedRecordBytes(change.key.size(), 0);
}

FollowLogWriter::~FollowLogWriter() { Unmap(base_, kFollowLogOffset + log_bytes_); }

// Gives up the oldest records until `bytes` fit.
void FollowLogWriter::MakeRoom(uint64_t bytes) {
  const uint64_t tail = tail_;
  while (position_ - tail_ + bytes > log_bytes_) {
    // Nobody else can have written it; a record never wraps within its first 8 bytes.
    uint32_t record_bytes = 0;
    std::memcpy(&record_bytes, base_ + kFollowLogOffset + tail_ % log_bytes_, sizeof record_bytes);
    tail_ += record_bytes;
  }
  if (tail == tail_ || WatchMutantIs(WatchMutant::kFollowTailNotMoved)) return;
  // SYNC: follow.tail — before the bytes are written over.
  head().tail_position.store(tail_, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
}

void FollowLogWriter::Put(uint64_t position, const void* from, size_t bytes) {
  std::byte* const log = base_ + kFollowLogOffset;
  const auto* const source = static_cast<const std::byte*>(from);
  const uint64_t at = position % log_bytes_;
  const size_t first = std::min<uint64_t>(bytes, log_bytes_ - at);
  CopyShared(log + at, source, first);
  CopyShared(log, source + first, bytes - first);
}

void FollowLogWriter::Append(const DictChange& change) {
  const bool fits = FeedRecordBytes(change.key.size(), change.bytes.size()) <= log_bytes_;
  FeedRecord record{};
  record.operation = static_cast<uint8_t>(change.operation);
  record.kind = static_cast<uint8_t>(change.kind);
  record.key_bytes = static_cast<uint16_t>(change.key.size());
  record.value_bytes = fits ? static_cast<uint32_t>(change.bytes.size()) : 0;
  record.record_bytes =
      static_cast<uint32_t>(FeedRecordBytes(record.key_bytes, record.value_bytes));
  record.flags = change.value_gone || !fits ? kFeedValueGone : 0;
  record.revision = change.revision;
  record.version = change.version;
  record.bits = change.bits;
  record.time_ms = change.time_ms;
  MakeRoom(record.record_bytes);
  Put(position_, &record, sizeof record);
  Put(position_ + sizeof record, change.key.data(), change.key.size());
  Put(position_ + sizeof record + record.key_bytes, change.bytes.data(), record.value_bytes);
  position_ += record.record_bytes;
}

void FollowLogWriter::Commit() {
  // SYNC: follow.head — the records come before.
  head().head_position.store(position_, std::memory_order_release);
  // SYNC: follow.event — the head comes before.
  head().event.fetch_add(1, std::memory_order_release);
}

void FollowLogWriter::ShowCursors(std::span<const uint64_t> shown, uint32_t lanes, uint64_t next) {
  // SYNC: follow.cursors — none of them counts while some are new.
  head().cursors_next.store(0, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  // Those of the segment before too.
  const uint32_t end = std::max(lanes, std::exchange(shown_lanes_, lanes));
  for (uint32_t lane = 0; lane < end; ++lane) {
    std::atomic<uint64_t>& cursor = cursors()[lane];
    if (cursor.load(std::memory_order_relaxed) == shown[lane]) continue;
    cursor.store(shown[lane], std::memory_order_relaxed);
  }
  head().cursors_next.store(next, std::memory_order_release);
}

void FollowLogWriter::Wake() { FutexWakeAll(head().event); }

StatusOr<std::shared_ptr<const FollowLog>> FollowLog::Map(const FollowLogFacts& facts, int fd) {
  const auto refuse = [](const char* what) {
    return Status(Reason::kDataLoss, std::string("a follow log of the service: ") + what);
  };
  // The seals first: after that neither size nor mapping can be taken away.
  if (!ContentIsSealed(fd)) return refuse("somebody could write it");
  SH_ASSIGN_OR_RETURN(const uint64_t bytes, FileBytes(fd));
  if (bytes < kFollowLogOffset + kFeedLogBytesMin || bytes > kFollowLogOffset + kFeedLogBytesMax ||
      bytes % kPageBytes != 0) {
    return refuse("its size makes no sense");
  }
  std::shared_ptr<FollowLog> log(new FollowLog(facts));
  SH_ASSIGN_OR_RETURN(log->base_, MapShared(fd, 0, bytes, false));
  log->log_bytes_ = bytes - kFollowLogOffset;
  const FollowLogHead& head = log->head();
  if (head.magic != kFollowLogMagic || head.version != kFollowLogVersion ||
      head.log_bytes != log->log_bytes_) {
    return refuse("its head is none");
  }
  if (head.dict_id != facts.dict_id || head.log_id != facts.log_id) {
    return refuse("it is another one");
  }
  return std::shared_ptr<const FollowLog>(std::move(log));
}

FollowLog::~FollowLog() { Unmap(base_, kFollowLogOffset + log_bytes_); }

void FollowLog::Get(uint64_t position, void* to, size_t bytes) const {
  const std::byte* const log = base_ + kFollowLogOffset;
  auto* const target = static_cast<std::byte*>(to);
  const uint64_t at = position % log_bytes_;
  const size_t first = std::min<uint64_t>(bytes, log_bytes_ - at);
  CopyShared(target, log + at, first);
  CopyShared(target + first, log, bytes - first);
}

// SYNC: follow.tail — whatever was copied before stood there when the tail was not past it.
bool FollowLogReader::IsOverrun() const {
  if (WatchMutantIs(WatchMutant::kFollowOverrunHidden)) return false;
  std::atomic_thread_fence(std::memory_order_acquire);
  return log_->head().tail_position.load(std::memory_order_relaxed) > position_;
}

void FollowLogReader::EndHere() {
  // SYNC: follow.head
  end_ = log_->head().head_position.load(std::memory_order_acquire);
}

FollowLogReader::Found FollowLogReader::Next(DictChange* change) {
  // SYNC: follow.head
  const uint64_t end =
      end_.has_value() ? *end_ : log_->head().head_position.load(std::memory_order_acquire);
  if (end == position_) return Found::kNothing;
  if (IsOverrun()) return Found::kOverrun;
  const uint64_t left = end - position_;
  if (left > log_->log_bytes_ || left < sizeof(FeedRecord)) return Found::kDamaged;
  FeedRecord record;
  log_->Get(position_, &record, sizeof record);
  if (IsOverrun()) return Found::kOverrun;
  if (!MakesSense(record, left) || record.revision != revision_ + 1) return Found::kDamaged;
  TakeFeedRecord(record, change);
  log_->Get(position_ + sizeof record, change->key.data(), change->key.size());
  log_->Get(position_ + sizeof record + record.key_bytes, change->bytes.data(),
            change->bytes.size());
  if (IsOverrun()) return Found::kOverrun;
  before_ = position_;
  position_ += record.record_bytes;
  revision_ = record.revision;
  return Found::kChange;
}

}  // namespace statehouse
