#include "engine/state/dict_feed.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/base/watch_mutant.h"
#include "engine/os/memory.h"
#include "engine/state/change_claim.h"
#include "engine/state/copy.h"
#include "engine/state/feed_record.h"
#include "engine/state/ring_record.h"

namespace statehouse {
namespace {

// A batch takes at most about this part of the log, and a value that is larger is left out: a
// reader takes it from the entry.
constexpr uint64_t kLogShare = 4;

}  // namespace

// A change as it was read from a ring.
struct DictFeed::Read {
  DictChange change;
  uint32_t lane = 0;
  uint32_t bucket = 0;
  uint64_t end = 0;      // In the lane's ring.
  bool is_sure = false;  // It is in the first of the two looks, so all that came before it is read.
  bool large_value = false;
};

// Puts what several lanes did into one order.
//
// Of two looks at the heads of all rings, one after the other, the second one shows everything that
// happened before anything that the first one shows: whoever changed a bucket took its lock after
// the one before had stored its ring's head and let the lock go. So what is below the first look is
// given, after what comes before it in its lane and in its bucket; what else the second look shows
// waits for the next time.
class DictFeed::Merge final {
 public:
  explicit Merge(std::vector<Read>* reads) : reads_(*reads), before_(reads->size(), kNone) {}

  // Calls take(index) for each read that is due, in order. `first`: one that comes before all
  // others, if there is one.
  template <typename Take>
  void Run(std::optional<uint32_t> first, Take take) {
    FindBucketOrder();
    if (first.has_value()) Emit(*first, take);
    for (uint32_t i = 0; i < reads_.size(); ++i) {
      if (reads_[i].is_sure) Emit(i, take);
    }
  }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  enum class Mark : uint8_t { kOpen, kOnStack, kDone };

  // before_[i]: the read of the same bucket with the next lower version.
  void FindBucketOrder() {
    std::vector<uint32_t> order(reads_.size());
    for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [this](uint32_t a, uint32_t b) {
      if (reads_[a].bucket != reads_[b].bucket) return reads_[a].bucket < reads_[b].bucket;
      return reads_[a].change.version < reads_[b].change.version;
    });
    for (size_t i = 1; i < order.size(); ++i) {
      if (reads_[order[i]].bucket == reads_[order[i - 1]].bucket) before_[order[i]] = order[i - 1];
    }
    marks_.assign(reads_.size(), Mark::kOpen);
  }

  template <typename Take>
  void Emit(uint32_t last, Take& take) {
    stack_.push_back(last);
    while (!stack_.empty()) {
      const uint32_t i = stack_.back();
      if (marks_[i] == Mark::kDone) {
        stack_.pop_back();
        continue;
      }
      marks_[i] = Mark::kOnStack;
      // Reads of one lane stand side by side. A circle is the work of a writer that forges its
      // records: it is cut anywhere.
      const bool has_earlier = i > 0 && reads_[i - 1].lane == reads_[i].lane;
      if (has_earlier && marks_[i - 1] == Mark::kOpen) {
        stack_.push_back(i - 1);
      } else if (before_[i] != kNone && marks_[before_[i]] == Mark::kOpen &&
                 !WatchMutantIs(WatchMutant::kFeedBucketOrderLost)) {
        stack_.push_back(before_[i]);
      } else {
        marks_[i] = Mark::kDone;
        stack_.pop_back();
        take(i);
      }
    }
  }

  std::vector<Read>& reads_;
  std::vector<uint32_t> before_;
  std::vector<Mark> marks_;
  std::vector<uint32_t> stack_;
};

StatusOr<std::unique_ptr<DictFeed>> DictFeed::Create(const DictFeedOptions& options,
                                                     std::shared_ptr<ServedDict> served,
                                                     uint64_t first_revision) {
  SH_ASSIGN_OR_RETURN(UniqueFd fd,
                      CreateSealedMemory("statehouse-feed", kFeedLogOffset + options.log_bytes));
  std::unique_ptr<DictFeed> feed(new DictFeed(options, std::move(fd), std::move(served)));
  feed->log_bytes_ = options.log_bytes;
  SH_RETURN_IF_ERROR(feed->MapAll());
  feed->head_revision_ = first_revision - 1;
  feed->tail_revision_ = first_revision;
  Dict& dict = feed->served_->dict();
  const uint32_t lanes = std::min(dict.lane_high(), dict.geometry().lane_count);
  for (uint32_t lane = 0; lane < lanes; ++lane) {
    feed->cursors_[lane] = feed->HeadOf(lane);
    for (auto& slot : feed->CursorAt(lane).slots) {
      slot.position.store(feed->cursors_[lane], std::memory_order_relaxed);
    }
  }
  feed->saved_generation_ = feed->served_->record().generation;
  feed->SaveMarks();
  FeedHead& head = feed->head();
  head.version = kFeedVersion;
  head.log_bytes = options.log_bytes;
  head.dict_id = feed->served_->record().id;
  head.magic = kFeedMagic;
  return feed;
}

StatusOr<std::unique_ptr<DictFeed>> DictFeed::Adopt(const DictFeedOptions& options, UniqueFd fd,
                                                    std::shared_ptr<ServedDict> served,
                                                    std::vector<DictChange>* history) {
  const auto damaged = [&](const char* what) {
    return Status(Reason::kDataLoss, "the feed of dict \"" + served->record().name + "\": " + what);
  };
  SH_ASSIGN_OR_RETURN(const uint64_t bytes, FileBytes(fd.get()));
  if (bytes < kFeedLogOffset + kFeedLogBytesMin || bytes > kFeedLogOffset + kFeedLogBytesMax) {
    return damaged("its size makes no sense");
  }
  std::unique_ptr<DictFeed> feed(new DictFeed(options, std::move(fd), served));
  feed->log_bytes_ = bytes - kFeedLogOffset;
  SH_RETURN_IF_ERROR(feed->MapAll());
  const FeedHead& head = feed->head();
  if (head.magic != kFeedMagic || head.version != kFeedVersion ||
      head.log_bytes != feed->log_bytes_ || head.dict_id != served->record().id) {
    return damaged("its head makes no sense");
  }
  if (const Status loaded = feed->LoadMarks(history); !loaded.ok()) {
    return damaged(loaded.message().c_str());
  }
  return feed;
}

DictFeed::~DictFeed() {
  if (base_ != nullptr) Unmap(base_, kFeedLogOffset + log_bytes_);
}

Status DictFeed::MapAll() {
  SH_ASSIGN_OR_RETURN(base_, MapShared(fd_.get(), 0, kFeedLogOffset + log_bytes_, true));
  cursors_.assign(kLanesMax, 0);
  has_moved_.assign(kLanesMax, false);
  return Status();
}

uint64_t DictFeed::HeadOf(uint32_t lane) const { return RingHead(served_->dict(), lane); }

void DictFeed::MoveCursor(uint32_t lane, uint64_t position) {
  cursors_[lane] = position;
  if (has_moved_[lane]) return;
  has_moved_[lane] = true;
  moved_lanes_.push_back(lane);
}

void DictFeed::ForgetCursors() {
  for (uint32_t lane = 0; lane < kLanesMax; ++lane) MoveCursor(lane, 0);
}

Status DictFeed::LoadMarks(std::vector<DictChange>* history) {
  const uint64_t active = head().active.load(std::memory_order_acquire);
  const auto refuse = [](const char* why) { return Status(Reason::kDataLoss, why); };
  if (active > 1) return refuse("its marks make no sense");
  const FeedMarks& marks = head().marks[active];
  head_position_ = marks.head_position.load(std::memory_order_relaxed);
  head_revision_ = marks.head_revision.load(std::memory_order_relaxed);
  tail_position_ = marks.tail_position.load(std::memory_order_relaxed);
  tail_revision_ = marks.tail_revision.load(std::memory_order_relaxed);
  if (tail_position_ > head_position_ || head_position_ - tail_position_ > log_bytes_) {
    return refuse("its marks make no sense");
  }
  uint64_t revision = tail_revision_;
  for (uint64_t at = tail_position_; at < head_position_; ++revision) {
    DictChange change;
    uint64_t record_bytes = 0;
    if (!LoadRecord(at, &change, &record_bytes) || change.revision != revision) {
      return refuse("a record makes no sense");
    }
    at += record_bytes;
    history->push_back(std::move(change));
  }
  if (revision != head_revision_ + 1) return refuse("its revisions do not follow one another");
  LoadCursors();
  saved_generation_ = marks.generation.load(std::memory_order_relaxed);
  if (saved_generation_ != served_->record().generation) {
    // The daemon died between the dict's move and the last look at the segment before.
    ForgetCursors();
    // Somebody may have claimed the next revision in that segment.
    std::vector<DictChange> gap{Nothing(), Gap(FeedGap::kReplaced)};
    Append(&gap, history);
  }
  return Status();
}

void DictFeed::LoadCursors() {
  for (uint32_t lane = 0; lane < kLanesMax; ++lane) {
    auto& slots = CursorAt(lane).slots;
    // Where both are of one revision, the second: SaveCursors fills the first then.
    int newest = slots[0].revision.load(std::memory_order_relaxed) >
                         slots[1].revision.load(std::memory_order_relaxed)
                     ? 0
                     : 1;
    if (slots[newest].revision.load(std::memory_order_relaxed) > head_revision_) {
      // Of a batch that does not stand. It becomes as the other one, for the daemon after this one.
      auto& ahead = slots[newest];
      newest = 1 - newest;
      AtWatchPoint(WatchPoint::kFeedBeforeStore);
      ahead.position.store(slots[newest].position.load(std::memory_order_relaxed),
                           std::memory_order_relaxed);
      AtWatchPoint(WatchPoint::kFeedBeforeStore);
      ahead.revision.store(0, std::memory_order_release);
    }
    if (WatchMutantIs(WatchMutant::kFeedOldCursors)) newest = 1 - newest;
    cursors_[lane] = slots[newest].position.load(std::memory_order_relaxed);
    if (WatchMutantIs(WatchMutant::kFeedCursorsAtHeads)) cursors_[lane] = HeadOf(lane);
  }
}

bool DictFeed::LoadRecord(uint64_t position, DictChange* change, uint64_t* record_bytes) const {
  if (head_position_ - position < sizeof(FeedRecord)) return false;
  FeedRecord record;
  GetLog(position, &record, sizeof record);
  *record_bytes = record.record_bytes;
  const bool is_change = IsChangeOperation(record.operation) ||
                         record.operation == static_cast<uint8_t>(FeedOperation::kGap) ||
                         record.operation == static_cast<uint8_t>(FeedOperation::kMoved);
  if (record.record_bytes > head_position_ - position ||
      record.record_bytes != FeedRecordBytes(record.key_bytes, record.value_bytes) || !is_change ||
      record.kind > static_cast<uint8_t>(DictKind::kFloat64)) {
    return false;
  }
  TakeFeedRecord(record, change);
  GetLog(position + sizeof record, change->key.data(), change->key.size());
  GetLog(position + sizeof record + change->key.size(), change->bytes.data(), change->bytes.size());
  return true;
}

bool DictFeed::HasNews() const {
  const Dict& dict = served_->dict();
  const uint32_t lanes = std::min(dict.lane_high(), dict.geometry().lane_count);
  for (uint32_t lane = 0; lane < lanes; ++lane) {
    if (HeadOf(lane) != cursors_[lane]) return true;
  }
  return false;
}

bool DictFeed::ReadLane(uint32_t lane, uint64_t sure, uint64_t end, std::vector<Read>* reads,
                        FeedGap* why) const {
  const Dict& dict = served_->dict();
  const uint64_t begin = cursors_[lane];
  *why = FeedGap::kDamaged;
  if (end < begin || sure < begin) return false;
  *why = FeedGap::kOverrun;
  if (end - begin > kChangeRingBytes) return false;
  std::string bytes;
  if (!CopyRing(dict, lane, begin, end, &bytes)) return false;
  *why = FeedGap::kDamaged;
  RingRecord record;
  for (uint64_t from = 0; from < bytes.size();) {
    if (!TakeRingRecord(std::string_view(bytes).substr(from), &record)) return false;
    Read& read = reads->emplace_back();
    read.change = std::move(record.change);
    read.large_value = !record.is_inline;
    read.lane = lane;
    read.bucket = dict.BucketOfKey(read.change.key);
    from += record.bytes;
    read.end = begin + from;
    read.is_sure = read.end <= sure;
  }
  return true;
}

void DictFeed::FillLargeValue(DictChange* change) const {
  DictEntry entry;
  bool found = false;
  const Status status = served_->dict().Get(change->key, &entry, &found, 0);
  const bool fits =
      FeedRecordBytes(change->key.size(), entry.bytes.size()) <= log_bytes_ / kLogShare;
  change->value_gone = !status.ok() || !found || entry.version != change->version || !fits;
  if (!change->value_gone) change->bytes = std::move(entry.bytes);
}

std::optional<uint32_t> DictFeed::CloseClaims() {
  std::atomic<uint64_t>& claim = served_->dict().claim();
  uint64_t word = ChangeClaim::Open(head_revision_);
  AtWatchPoint(WatchPoint::kFeedBeforeStore);
  // SYNC: dict.claim — what the claimant saw in the rings is seen after this.
  if (claim.compare_exchange_strong(word, ChangeClaim::Closed(head_revision_))) return std::nullopt;
  if (WatchMutantIs(WatchMutant::kClaimIgnored)) return std::nullopt;
  return ChangeClaim::LaneAfter(head_revision_, word);
}

void DictFeed::OpenClaims() {
  std::atomic<uint64_t>& claim = served_->dict().claim();
  uint64_t word = claim.load(std::memory_order_relaxed);
  if (word == ChangeClaim::Open(head_revision_)) return;
  AtWatchPoint(WatchPoint::kFeedBeforeStore);
  // One that stands is the next Drain's.
  while (!ChangeClaim::LaneAfter(head_revision_, word).has_value() &&
         !claim.compare_exchange_weak(word, ChangeClaim::Open(head_revision_))) {
  }
}

void DictFeed::Look(std::vector<uint64_t>* heads) const {
  const Dict& dict = served_->dict();
  // The lanes first: one that comes later has nothing below this look.
  heads->resize(std::min(dict.lane_high(), dict.geometry().lane_count));
  for (uint32_t lane = 0; lane < heads->size(); ++lane) {
    (*heads)[lane] = HeadOf(lane);
    AtWatchPoint(WatchPoint::kFeedBetweenLanes);
  }
}

void DictFeed::Drain(std::vector<DictChange>* fresh) {
  const std::optional<uint32_t> claimed = CloseClaims();
  std::vector<uint64_t> sure;
  std::vector<uint64_t> ends;
  Look(&sure);
  Look(&ends);
  if (WatchMutantIs(WatchMutant::kFeedOneLook)) sure = ends;
  sure.resize(ends.size(), 0);
  std::vector<Read> reads;
  std::vector<DictChange> changes;
  std::vector<DictChange> gaps;
  std::optional<uint32_t> first;
  for (uint32_t lane = 0; lane < ends.size(); ++lane) {
    if (ends[lane] == cursors_[lane]) continue;
    const size_t before = reads.size();
    FeedGap why = FeedGap::kOverrun;
    // A lane that the first look did not have yet has nothing that is sure.
    if (ReadLane(lane, std::max(sure[lane], cursors_[lane]), ends[lane], &reads, &why)) {
      if (lane == claimed) first = static_cast<uint32_t>(before);
      continue;
    }
    reads.resize(before);
    if (!WatchMutantIs(WatchMutant::kFeedGapNotTold)) gaps.push_back(Gap(why));
    MoveCursor(lane, ends[lane]);
  }
  // What was claimed is lost: it has its revision all the same, so that whoever was told of it is
  // told of the gap.
  if (claimed.has_value() && !first.has_value() && !gaps.empty() &&
      !WatchMutantIs(WatchMutant::kClaimGivenToGap)) {
    changes.push_back(Nothing());
  }
  has_claimed_ = first.has_value();
  uint64_t bytes = 0;
  const auto take_gaps = [&] {
    changes.insert(changes.end(), std::make_move_iterator(gaps.begin()),
                   std::make_move_iterator(gaps.end()));
    gaps.clear();
  };
  if (!first.has_value()) take_gaps();
  Merge(&reads).Run(first, [&](uint32_t i) {
    Read& read = reads[i];
    MoveCursor(read.lane, read.end);
    if (read.large_value) FillLargeValue(&read.change);
    bytes += FeedRecordBytes(read.change.key.size(), read.change.bytes.size());
    changes.push_back(std::move(read.change));
    if (!gaps.empty()) take_gaps();
    // A batch never fills the log, so what was given a moment ago stays in it for a while.
    if (bytes < log_bytes_ / kLogShare) return;
    if (WatchMutantIs(WatchMutant::kFeedBatchEndLost)) changes.pop_back();
    Append(&changes, fresh);
    bytes = 0;
  });
  Append(&changes, fresh);
}

void DictFeed::Follow(std::shared_ptr<ServedDict> next, std::vector<DictChange>* fresh) {
  // Only a dict that grew keeps its seed, and nothing but its entries went along otherwise.
  const bool grew = next->record().generation == served_->record().generation + 1 &&
                    next->record().geometry.seed == served_->record().geometry.seed;
  served_ = std::move(next);
  has_claimed_ = false;
  ForgetCursors();
  if (WatchMutantIs(WatchMutant::kFeedSegmentBeginLost)) {
    for (uint32_t lane = 0; lane < kLanesMax; ++lane) cursors_[lane] = HeadOf(lane);
  }
  std::vector<DictChange> changes{Nothing()};
  if (!grew && !WatchMutantIs(WatchMutant::kFeedReplacedAsMoved)) {
    changes[0] = Gap(FeedGap::kReplaced);
  }
  Append(&changes, fresh);
}

DictChange DictFeed::Nothing() {
  DictChange nothing;
  nothing.operation = FeedOperation::kMoved;
  return nothing;
}

DictChange DictFeed::Gap(FeedGap why) {
  ++gaps_;
  DictChange gap;
  gap.operation = FeedOperation::kGap;
  gap.bits = static_cast<uint64_t>(why);
  return gap;
}

void DictFeed::PutLog(uint64_t position, const void* from, size_t bytes) {
  std::byte* const log = base_ + kFeedLogOffset;
  const uint64_t at = position % log_bytes_;
  const size_t first = std::min<uint64_t>(bytes, log_bytes_ - at);
  std::memcpy(log + at, from, first);
  std::memcpy(log, static_cast<const std::byte*>(from) + first, bytes - first);
}

void DictFeed::GetLog(uint64_t position, void* to, size_t bytes) const {
  const std::byte* const log = base_ + kFeedLogOffset;
  const uint64_t at = position % log_bytes_;
  const size_t first = std::min<uint64_t>(bytes, log_bytes_ - at);
  std::memcpy(to, log + at, first);
  std::memcpy(static_cast<std::byte*>(to) + first, log, bytes - first);
}

// Gives up the oldest changes until `bytes` fit, and those that are too old.
void DictFeed::MakeRoom(uint64_t bytes, uint64_t now_ms) {
  const uint64_t tail = tail_position_;
  while (tail_position_ < head_position_) {
    FeedRecord record;
    GetLog(tail_position_, &record, sizeof record);
    const bool fits = head_position_ - tail_position_ + bytes <= log_bytes_;
    if (fits && record.time_ms + options_.history_ms >= now_ms) break;
    tail_position_ += record.record_bytes;
    ++tail_revision_;
  }
  // Before its bytes are written over.
  if (tail != tail_position_) SaveMarks();
}

// Gives the changes their revisions, makes them stand with the cursors that moved, and hands them
// over.
void DictFeed::Append(std::vector<DictChange>* changes, std::vector<DictChange>* fresh) {
  if (changes->empty()) return;
  const uint64_t now_ms = ChangeTimeMs();
  uint64_t bytes = 0;
  for (const DictChange& change : *changes) {
    bytes += FeedRecordBytes(change.key.size(), change.bytes.size());
  }
  MakeRoom(bytes, now_ms);
  uint64_t position = head_position_;
  uint64_t revision = head_revision_;
  for (DictChange& change : *changes) {
    change.revision = ++revision;
    change.time_ms = now_ms;
    FeedRecord record{};
    record.record_bytes =
        static_cast<uint32_t>(FeedRecordBytes(change.key.size(), change.bytes.size()));
    record.operation = static_cast<uint8_t>(change.operation);
    record.kind = static_cast<uint8_t>(change.kind);
    record.key_bytes = static_cast<uint16_t>(change.key.size());
    record.value_bytes = static_cast<uint32_t>(change.bytes.size());
    record.flags = change.value_gone ? kFeedValueGone : 0;
    record.revision = change.revision;
    record.version = change.version;
    record.bits = change.bits;
    record.time_ms = now_ms;
    AtWatchPoint(WatchPoint::kFeedBeforeStore);
    PutLog(position, &record, sizeof record);
    PutLog(position + sizeof record, change.key.data(), change.key.size());
    PutLog(position + sizeof record + change.key.size(), change.bytes.data(), change.bytes.size());
    position += record.record_bytes;
  }
  head_position_ = position;
  head_revision_ = revision;
  SaveCursors();
  SaveMarks();
  fresh->insert(fresh->end(), std::make_move_iterator(changes->begin()),
                std::make_move_iterator(changes->end()));
  changes->clear();
}

void DictFeed::SaveCursors() {
  for (const uint32_t lane : moved_lanes_) {
    auto& slots = CursorAt(lane).slots;
    const bool first_is_older = slots[0].revision.load(std::memory_order_relaxed) <=
                                slots[1].revision.load(std::memory_order_relaxed);
    auto& slot = slots[first_is_older ? 0 : 1];
    AtWatchPoint(WatchPoint::kFeedBeforeStore);
    slot.position.store(cursors_[lane], std::memory_order_relaxed);
    AtWatchPoint(WatchPoint::kFeedBeforeStore);
    slot.revision.store(head_revision_, std::memory_order_release);
    has_moved_[lane] = false;
  }
  moved_lanes_.clear();
  saved_generation_ = served_->record().generation;
}

void DictFeed::SaveMarks() {
  const uint64_t next = 1 - (head().active.load(std::memory_order_relaxed) & 1);
  FeedMarks& marks = head().marks[next];
  AtWatchPoint(WatchPoint::kFeedBeforeStore);
  marks.generation.store(WatchMutantIs(WatchMutant::kFeedNextGenerationEarly)
                             ? served_->record().generation
                             : saved_generation_,
                         std::memory_order_relaxed);
  marks.head_position.store(head_position_, std::memory_order_relaxed);
  marks.head_revision.store(head_revision_, std::memory_order_relaxed);
  marks.tail_position.store(tail_position_, std::memory_order_relaxed);
  marks.tail_revision.store(tail_revision_, std::memory_order_relaxed);
  AtWatchPoint(WatchPoint::kFeedBeforeStore);
  head().active.store(next, std::memory_order_release);
}

}  // namespace statehouse
