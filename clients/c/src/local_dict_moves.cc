// How a LocalDict follows its dict from one segment to the next.
#include <sys/stat.h>

#include <ctime>
#include <utility>

#include "clients/c/src/clock_offset.h"
#include "clients/c/src/dict_message.h"
#include "clients/c/src/local_dict.h"
#include "engine/os/futex.h"

namespace statehouse {
namespace {

using std::chrono::steady_clock;

constexpr uint64_t kMovingLookNs = 200'000;
}  // namespace

StatusOr<std::unique_ptr<LocalDict::Mapping>> LocalDict::Map(
    const AttachDictOpened& opened, const std::vector<UniqueFd>& descriptors) {
  struct stat facts {};
  if (descriptors.size() != 1 || ::fstat(descriptors[0].get(), &facts) != 0) {
    return Status(Reason::kInternal,
                  "the daemon answered OpenDict without the dict's descriptor; check that client "
                  "and service are of the same release");
  }
  DictGeometry geometry;
  geometry.data_bytes = opened.data_bytes;
  geometry.entries_max = opened.entries_max;
  geometry.seed = {opened.seed_a, opened.seed_b};
  geometry.default_ttl_ms = opened.default_ttl_ms;
  geometry.bucket_count = opened.bucket_count;
  geometry.lane_count = opened.lane_count;
  geometry.evict = opened.evict;
  auto mapping = std::make_unique<Mapping>();
  mapping->generation = opened.generation;
  mapping->device = facts.st_dev;
  mapping->inode = facts.st_ino;
  SH_ASSIGN_OR_RETURN(mapping->dict,
                      Dict::Map(opened.name, geometry, descriptors[0].get(),
                                opened.writable ? Access::kReadWrite : Access::kReadOnly,
                                ClockOffset(opened.clock_ns)));
  return mapping;
}

Status LocalDict::Adopt(const AttachDictOpened& opened, const std::vector<UniqueFd>& descriptors) {
  Mapping* const current = current_.load();
  struct stat facts {};
  const bool same = !descriptors.empty() && ::fstat(descriptors[0].get(), &facts) == 0 &&
                    facts.st_dev == current->device && facts.st_ino == current->inode;
  if (same && opened.writable == current->dict->writable()) return Status();
  // A dict that moved left its segment behind as such. One that lives in another segment while this
  // one counts as served is a dict of another service that has the same name.
  const bool moved =
      current->dict->state() != DictState::kLive && opened.generation > current->generation;
  if (opened.dict_id != facts_.id || opened.name != facts_.name || (!same && !moved)) {
    usable_.store(kReplaced, std::memory_order_relaxed);
    return Unusable();
  }
  SH_ASSIGN_OR_RETURN(std::unique_ptr<Mapping> mapping, Map(opened, descriptors));
  SH_RETURN_IF_ERROR(PrepareLanesOf(mapping.get(), session_->CurrentAttachment()));
  writable_.store(opened.writable, std::memory_order_relaxed);
  std::unique_ptr<Mapping> before(current_.exchange(mapping.release()));
  {
    const std::lock_guard<std::mutex> lock(session_->mutex_);
    retired_.push_back(std::move(before));
  }
  Reap();
  return Status();
}

void LocalDict::Reap() {
  std::vector<std::unique_ptr<Mapping>> retired;
  {
    const std::lock_guard<std::mutex> lock(session_->mutex_);
    retired.swap(retired_);
    has_retired_.store(false, std::memory_order_relaxed);
  }
  std::erase_if(retired,
                [](const std::unique_ptr<Mapping>& mapping) { return !IsInUse(mapping.get()); });
  if (retired.empty()) return;
  const std::lock_guard<std::mutex> lock(session_->mutex_);
  for (std::unique_ptr<Mapping>& mapping : retired) retired_.push_back(std::move(mapping));
  has_retired_.store(true, std::memory_order_relaxed);
}

Status LocalDict::PrepareLanesOf(Mapping* mapping, const std::shared_ptr<Attachment>& attachment) {
  if (attachment == nullptr || !mapping->dict->writable()) return Status();
  std::vector<uint64_t>& prepared = mapping->prepared_ids;
  if (std::find(prepared.begin(), prepared.end(), attachment->id()) == prepared.end()) {
    SH_RETURN_IF_ERROR(
        mapping->dict->PrepareLanes(attachment->first_lane(), attachment->lane_count()));
    prepared.push_back(attachment->id());
  }
  // SYNC: local_dict.prepared — pairs with WriteOnce.
  mapping->prepared_id.store(attachment->id(), std::memory_order_release);
  return Status();
}

Status LocalDict::PrepareLanes() {
  LocalSession::Turn turn;
  SH_RETURN_IF_ERROR(session_->TakeTurn(session_->DefaultDeadline(), &turn));
  Mapping* const mapping = current_.load();
  const std::shared_ptr<Attachment> attachment = session_->CurrentAttachment();
  // Else the session has newer lanes, and the thread takes one of them before it comes back.
  if (attachment == nullptr || attachment->id() != thread_lane.attachment_id) return Status();
  return PrepareLanesOf(mapping, attachment);
}

std::optional<AttachDictNeed> LocalDict::NeedAfter(const Status& failure) const {
  const Use<Mapping> use(current_);
  const bool can_grow = use->dict->geometry().entries_max < facts_.max_entries;
  const DictState state = use->dict->state();
  switch (failure.reason()) {
    case Reason::kDictMoved: return AttachDictNeed::kNothing;
    case Reason::kStalled:  // A move that takes longer than an operation may.
      if (state == DictState::kMoving || state == DictState::kMoved) {
        return AttachDictNeed::kNothing;
      }
      return std::nullopt;
    case Reason::kLimitExceeded:
      if (can_grow) return AttachDictNeed::kRoomForEntries;
      return std::nullopt;
    case Reason::kMemoryExhausted:
      if (can_grow || use->dict->AwaitsBacking()) return AttachDictNeed::kRoomForBytes;
      return std::nullopt;
    case Reason::kDataLoss: return AttachDictNeed::kRepair;
    default: return std::nullopt;
  }
}

// Of a segment that is still the current one.
std::optional<uint64_t> LocalDict::BackedOf(uint32_t generation) const {
  const Use<Mapping> use(current_);
  if (use->generation != generation) return std::nullopt;
  return use->dict->slabs_backed();
}

void LocalDict::WaitWhileMoving(uint32_t generation, Deadline deadline) const {
  while (steady_clock::now() < deadline) {
    {
      const Use<Mapping> use(current_);
      if (use->generation != generation || use->dict->state() != DictState::kMoving) return;
    }
    SleepNs(kMovingLookNs);
  }
}

// The daemon reads the entry, meets the damage itself, and leaves it behind. Whether that helped
// shows when the dict is opened again, so the answer is of no interest.
void LocalDict::LetDaemonLook(std::string_view key, Deadline deadline) const {
  CallOptions options;
  options.deadline = deadline;
  options.idempotent = true;
  const std::string name = "#" + std::to_string(facts_.index);
  (void)session_->Call("/statehouse.v1.Dicts/GetEntry", EncodeEntryName(name, key), options);
}

Status LocalDict::Follow(uint32_t generation, std::string_view key, const Status& failure,
                         std::optional<Deadline>* deadline) {
  if (has_retired_.load(std::memory_order_relaxed)) Reap();
  if (!NeedAfter(failure).has_value()) return failure;
  if (!deadline->has_value()) *deadline = session_->DefaultDeadline();
  if (steady_clock::now() >= **deadline) return failure;
  return FollowUntil(generation, key, failure, **deadline);
}

Status LocalDict::FollowUntil(uint32_t generation, std::string_view key, const Status& failure,
                              Deadline deadline) {
  const std::optional<AttachDictNeed> need = NeedAfter(failure);
  const std::optional<uint64_t> backed = BackedOf(generation);
  if (need == AttachDictNeed::kNothing) WaitWhileMoving(generation, deadline);
  if (need == AttachDictNeed::kRepair && !writable()) {
    if (key.empty()) return failure;
    LetDaemonLook(key, deadline);
  }
  LocalSession::Turn turn;
  SH_RETURN_IF_ERROR(session_->TakeTurn(deadline, &turn));
  // Only who has the turn replaces the segment, so it stays while this looks at it.
  if (!usable()) return Unusable();
  const Mapping& current = *current_.load();
  if (current.generation != generation) return Status();  // Another thread was first.
  if (need == AttachDictNeed::kNothing && current.dict->state() == DictState::kLive) {
    return Status();  // The move was given up.
  }
  const bool awaits =
      need == AttachDictNeed::kRoomForBytes && backed.has_value() && current.dict->AwaitsBacking();
  if (awaits && current.dict->slabs_backed() != *backed) return Status();  // As above.
  AttachOpenDict open;
  open.name = "#" + std::to_string(facts_.index);
  open.generation = generation;
  open.need = need.value_or(AttachDictNeed::kNothing);
  const auto received = session_->ExchangeOpenDict(turn.get(), open, deadline);
  if (!received.ok()) {
    const Status& refused = received.status();
    // The daemon may have answered another worker after this one was refused.
    if (awaits && refused.reason() == Reason::kMemoryExhausted &&
        current.dict->BackingIsNews(thread_lane.lane)) {
      return Status();
    }
    if (refused.reason() == Reason::kDictNotFound) {
      usable_.store(kReplaced, std::memory_order_relaxed);
    }
    // The same reason: the daemon cannot help, and this side knows more of what happened. Only the
    // daemon knows of the memory of all.
    return refused.reason() == failure.reason() && !awaits ? failure : refused;
  }
  const auto& opened = std::get<AttachDictOpened>(received->packet.message);
  SH_RETURN_IF_ERROR(Adopt(opened, received->descriptors));
  const bool helped =
      opened.generation != generation || need == AttachDictNeed::kNothing || awaits;
  return helped ? Status() : failure;
}

}  // namespace statehouse
