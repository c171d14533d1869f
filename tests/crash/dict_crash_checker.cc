#include "tests/crash/dict_crash_checker.h"

#include <algorithm>
#include <set>

#include "engine/shm/owned_lock.h"
#include "engine/state/test_dict.h"

namespace statehouse {
namespace {

std::string Describe(const SeenEntry& entry) {
  return std::to_string(static_cast<int>(entry.kind)) + ":" +
         (entry.kind == DictKind::kBytes ? entry.bytes.substr(0, 12) : std::to_string(entry.bits)) +
         " version " + std::to_string(entry.version) + " fence " + std::to_string(entry.fence);
}

uint64_t HighestOrdinal(const SeenDict& dict) {
  uint64_t highest = 0;
  for (const auto& [key, entry] : dict) highest = std::max(highest, entry.ordinal);
  return highest;
}

}  // namespace

DictCrashChecker::DictCrashChecker(const CrashOperation& operation, DictScene& scene)
    : operation_(operation),
      scene_(scene),
      outcomes_(operation.outcomes(scene)),
      states_{scene.before},
      keys_(operation.keys) {
  for (const CrashOutcome& outcome : outcomes_) {
    states_.push_back(states_.back());
    outcome.edit(states_.back());
  }
  std::set<std::string> all(keys_.begin(), keys_.end());
  for (const SeenDict& state : states_) {
    for (const auto& [key, entry] : state) all.insert(key);
  }
  keys_.assign(all.begin(), all.end());
}

std::string DictCrashChecker::Check(const DictSegment& image, bool finished) {
  if (std::string wrong = WriteUnrecovered(image); !wrong.empty()) return wrong;
  scene_.Copy(image, scene_.clone);
  if (std::string wrong = ReadUnrecovered(); !wrong.empty()) return wrong;
  if (std::string wrong = Recover(*scene_.clone.dict); !wrong.empty()) return wrong;
  if (std::string wrong = Entries(finished); !wrong.empty()) return wrong;
  if (std::string wrong = Changes(); !wrong.empty()) return wrong;
  if (std::string wrong = Told(); !wrong.empty()) return wrong;
  if (std::string wrong = Remembered(); !wrong.empty()) return wrong;
  return FollowUp();
}

bool DictCrashChecker::Fits(const SeenEntry& expected, const std::string& key,
                            const SeenEntry& seen) const {
  const bool version = expected.version != 0 ? seen.version == expected.version
                                             : seen.version > scene_.VersionBefore(key);
  const bool ordinal = expected.ordinal != 0 ? seen.ordinal == expected.ordinal
                                             : seen.ordinal > HighestOrdinal(scene_.before);
  return version && ordinal && seen.kind == expected.kind && seen.bits == expected.bits &&
         seen.bytes == expected.bytes && seen.fence == expected.fence &&
         seen.expires_ms == expected.expires_ms && seen.bound_session == expected.bound_session;
}

bool DictCrashChecker::FitsState(size_t state, const SeenDict& seen) const {
  return std::equal(states_[state].begin(), states_[state].end(), seen.begin(), seen.end(),
                    [this](const auto& expected, const auto& there) {
                      return expected.first == there.first &&
                             Fits(expected.second, there.first, there.second);
                    });
}

std::string DictCrashChecker::ReadUnrecovered() {
  for (const std::string& key : keys_) {
    DictEntry entry;
    bool found = false;
    const Status status = scene_.clone.dict->Get(key, &entry, &found, 1);
    if (status.reason() == Reason::kStalled && operation_.marks) continue;
    if (!status.ok()) return "a reader is refused: " + status.ToString();
    const SeenEntry seen{entry.kind,       entry.bits,    entry.bytes,   entry.fence,
                         entry.expires_ms, entry.ordinal, entry.version, entry.bound_session};
    size_t first = 0;  // The first state that explains what was read.
    for (; first < states_.size(); ++first) {
      const auto at = states_[first].find(key);
      const bool there = at != states_[first].end();
      if (there == found && (!found || Fits(at->second, key, seen))) break;
    }
    if (first == states_.size()) {
      return "a reader is given what nobody wrote at \"" + key +
             "\": " + (found ? Describe(seen) : "nothing");
    }
    accepted_ = std::max(accepted_, first);
  }
  return "";
}

bool DictCrashChecker::MayRefuse(const Status& status) const {
  return status.reason() == Reason::kStalled ||
         (operation_.full && (status.reason() == Reason::kLimitExceeded ||
                              status.reason() == Reason::kMemoryExhausted));
}

std::string DictCrashChecker::WriteUnrecovered(const DictSegment& image) {
  scene_.Copy(image, scene_.between);
  Dict& dict = *scene_.between.dict;
  std::vector<std::string> keys = keys_;
  keys.push_back("another");
  std::vector<std::pair<std::string, uint64_t>> written;
  for (const std::string& key : keys) {
    const uint32_t bucket = DictInternals::BucketOf(dict, key);
    const bool held = OwnerOf(DictInternals::Bucket(dict, bucket).control.load()) != 0;
    DictResult result;
    const Status status = dict.Set(kSurvivor, key, DictValue::Bytes("survivor"), {}, &result);
    if (status.ok() && held) return "a bucket that the dead lane holds takes a write";
    if (!status.ok() && !MayRefuse(status)) return "others are refused: " + status.ToString();
    if (!status.ok()) continue;
    if (result.version <= scene_.VersionBefore(key)) return "a version was used again";
    written.emplace_back(key, result.version);
  }
  if (std::string wrong = Recover(dict); !wrong.empty()) {
    return "when others write before the recovery: " + wrong;
  }
  // With eviction, what was written may be what made room for the next.
  for (const auto& [key, version] : written) {
    DictEntry entry;
    bool found = false;
    if (!dict.Get(key, &entry, &found, 1).ok()) return "a reader is refused after the recovery";
    if (!found && operation_.shape.evict) continue;
    if (!found || entry.bytes != "survivor" || entry.version != version) {
      return "recovery undid what another lane wrote at \"" + key + "\"";
    }
  }
  return "";
}

std::string DictCrashChecker::Sound(const Dict& dict) const {
  const DictCheck check = dict.Check(true);
  return check.faults.empty() ? "" : check.faults[0];
}

// As the daemon does, twice, and as the next process that gets the lane does.
std::string DictCrashChecker::Recover(Dict& dict) const {
  (void)dict.RecoverLane(kVictimLane);
  const RecoveryReport again = dict.RecoverLane(kVictimLane);
  if (again.stripes_released != 0 || again.redo_applied || again.repaired) {
    return "a second recovery found work";
  }
  for (uint32_t i = 0; i < dict.geometry().bucket_count; ++i) {
    const BucketLine& bucket = DictInternals::Bucket(dict, i);
    if (OwnerOf(bucket.control.load()) != 0) return "a bucket is still held";
    if ((bucket.link.load() & kLinkTransaction) != 0) return "a bucket is still marked";
  }
  if (OwnerOf(DictInternals::Allocator(dict).control.load()) != 0)
    return "the allocator is still held";
  const std::byte* const base = DictInternals::Base(dict);
  const auto* admission = reinterpret_cast<const AdmissionLine*>(base + kAdmissionLineOffset);
  if (OwnerOf(admission->control.load()) != 0) return "the admission is still held";
  if (const Status ready = dict.PrepareLanes(kVictimLane, 1); !ready.ok()) {
    return "the lane cannot be used again: " + ready.ToString();
  }
  const DictLaneRecord& record = DictInternals::Record(dict, kVictimLane);
  if (record.staged_count.load() != 0 || record.extent.load() != 0)
    return "a new lease of the lane begins with blocks in its hands";
  for (uint32_t code = 1; code < kSizeClasses; ++code) {
    if (record.magazines[code].count.load() >= MagazineBlocks(code))
      return "a new lease of the lane begins with a full magazine";
  }
  return Sound(dict);
}

std::vector<SeenChange> DictCrashChecker::Records(bool* sound) const {
  const DictLaneRecord& record = DictInternals::Record(*scene_.clone.dict, kVictimLane);
  return ReadRing(*scene_.clone.dict, kVictimLane, scene_.ring_head_before, record.ring_head.load(),
                  sound);
}

std::string DictCrashChecker::Entries(bool finished) {
  seen_ = scene_.clone.Read();
  // Entries that look the same belong to several states where nothing is to be seen of a change,
  // such as the end of an entry that expired; then its record tells.
  size_t state = states_.size();
  bool sound = false;
  const size_t records = Records(&sound).size();
  size_t records_expected = 0;
  for (size_t i = 0; i < states_.size(); ++i) {
    if (i > 0) records_expected += outcomes_[i - 1].changes.size();
    if (FitsState(i, seen_) && (state == states_.size() || records_expected == records)) state = i;
  }
  if (state == states_.size()) return "the entries are neither those before nor those after";
  if (state < state_) return "an outcome was taken back";
  if (state < accepted_) return "a reader was given what recovery takes back";
  if (finished && state + 1 != states_.size()) return "a finished operation is lost";
  state_ = state;
  return "";
}

// Whoever slept when the operation began was woken, by the victim or by its recovery.
std::string DictCrashChecker::Told() const {
  bool sound = false;
  if (Records(&sound).empty() || DictInternals::Line(*scene_.clone.dict).armed.load() == 0) {
    return "";
  }
  return "a watcher that sleeps is not told of a change";
}

std::string DictCrashChecker::Changes() const {
  Dict& dict = *scene_.clone.dict;
  const DictLaneRecord& record = DictInternals::Record(dict, kVictimLane);
  if (record.ring_reserve.load() < record.ring_head.load())
    return "change records stand above what is reserved";
  bool sound = false;
  const std::vector<SeenChange> changes = Records(&sound);
  if (!sound) return "the ring holds what is no change record";
  std::vector<std::pair<ChangeOperation, std::string>> expected;
  for (size_t i = 0; i < state_; ++i) {
    expected.insert(expected.end(), outcomes_[i].changes.begin(), outcomes_[i].changes.end());
  }
  if (changes.size() != expected.size()) return "changes and their records differ in number";
  uint64_t expired = 0;
  uint64_t evicted = 0;
  for (size_t i = 0; i < changes.size(); ++i) {
    const SeenChange& change = changes[i];
    if (change.operation != expected[i].first || change.key != expected[i].second)
      return "a change record tells another change";
    if (change.version <= scene_.VersionBefore(change.key))
      return "a change record has an old version";
    expired += change.operation == ChangeOperation::kExpire ? 1 : 0;
    evicted += change.operation == ChangeOperation::kEvict ? 1 : 0;
    const auto at = seen_.find(change.key);
    if ((at != seen_.end()) != (change.operation == ChangeOperation::kPut))
      return "a change record does not tell what became of its key";
    if (at == seen_.end()) continue;
    const SeenEntry& entry = at->second;
    if (change.version != entry.version || change.kind != entry.kind || change.bits != entry.bits)
      return "a change record tells another value";
    if (change.is_inline != (entry.bytes.size() <= kInlineValueBytesMax) ||
        (change.is_inline && change.bytes != entry.bytes))
      return "a change record holds other bytes";
  }
  const DictStats stats = dict.Stats();
  if (stats.revision - scene_.stats_before.revision != changes.size())
    return "the revision does not count the changes";
  if (stats.expirations - scene_.stats_before.expirations != expired ||
      stats.evictions - scene_.stats_before.evictions != evicted)
    return "what expired or was evicted is not counted";
  return "";
}

// A named operation is remembered if it happened, with what it gave.
std::string DictCrashChecker::Remembered() const {
  if (!operation_.id.valid()) return "";
  DictRemembered remembered;
  bool found = false;
  const Dict& dict = *scene_.clone.dict;
  const Status status = dict.Recall(operation_.id, &remembered, &found);
  if (!status.ok()) return "recalling a named operation: " + status.ToString();
  const bool happened = state_ + 1 == states_.size();
  if (found != happened) {
    return happened ? "a named operation that happened is forgotten"
                    : "a named operation is remembered that did not happen";
  }
  const DictOperationId id = happened ? operation_.id : kNamedBefore;
  remembered = DictRemembered();
  if (!dict.Recall(id, &remembered, &found).ok() || !found) return "the record names no operation";
  const auto at = seen_.find("key");
  const DictResult& result =
      remembered.steps.empty() ? remembered.result : remembered.steps.front().result;
  const bool erased = happened && at == seen_.end();
  if (!erased && happened && (result.version != at->second.version || !result.applied))
    return "another result is remembered";
  if (happened && at != seen_.end() && at->second.kind != DictKind::kBytes &&
      result.bits != at->second.bits)
    return "another number is remembered";
  if (happened && !operation_.told.empty() &&
      (remembered.steps.size() != 3 || remembered.steps[1].entry.bytes != operation_.told ||
       remembered.steps[1].entry.version != scene_.before.at("read").version ||
       remembered.steps[2].result.existed))
    return "other entries are remembered";
  if (!happened && remembered.previous.bytes != Text(300, 'b'))
    return "the entry before is not what is remembered";
  return "";
}

std::string DictCrashChecker::FollowUpOn(const Lane& lane, const std::string& key, bool present) {
  Dict& dict = *scene_.clone.dict;
  const auto wrong = [&](const char* what, const Status& status) {
    return std::string(what) + " \"" + key + "\" by lane " + std::to_string(lane.id) +
           " is wrong afterwards: " + status.ToString();
  };
  DictEntry entry;
  bool found = false;
  DictResult result;
  Status status = dict.Get(key, &entry, &found, 1);
  // An entry may have been evicted for one that came before.
  if (operation_.shape.evict) present = present && found;
  if (!status.ok() || found != present) return wrong("reading", status);
  uint64_t version = std::max(scene_.VersionBefore(key), present ? seen_[key].version : 0);
  status = dict.Set(lane, key, DictValue::Int64(10), {}, &result);
  if (MayRefuse(status) && operation_.full) return "";
  if (!status.ok() || result.existed != present || result.version <= version)
    return wrong("setting", status);
  version = result.version;
  DictIncrement increment;
  increment.delta = DictValue::Int64(1);
  status = dict.Increment(lane, key, increment, &result);
  if (!status.ok() || result.bits != 11 || result.version <= version)
    return wrong("adding to", status);
  version = result.version;
  DictOperation step;
  step.kind = DictOperation::Kind::kSet;
  step.key = key;
  step.value = DictValue::Bytes("follow-up");
  DictTransactionResult results;
  status = dict.Transact(lane, {}, {&step, 1}, {}, &results);
  if (!status.ok() || results.results[0].result.version <= version)
    return wrong("a transaction at", status);
  status = dict.Get(key, &entry, &found, 1);
  if (!status.ok() || !found || entry.bytes != "follow-up") return wrong("reading", status);
  if (present) return "";
  status = dict.Delete(lane, key, {}, &result);
  if (!status.ok() || !result.applied) return wrong("deleting", status);
  return "";
}

std::string DictCrashChecker::FollowUp() {
  Dict& dict = *scene_.clone.dict;
  const Lane heir{kVictimLane, kSurvivor.operation_timeout_ns};
  int turn = 0;
  for (const std::string& key : keys_) {
    const bool present = seen_.count(key) > 0;
    const Lane& lane = turn++ % 2 == 0 ? heir : kSurvivor;
    if (std::string wrong = FollowUpOn(lane, key, present); !wrong.empty()) return wrong;
  }
  for (const Lane& lane : {heir, kSurvivor}) {
    const std::string key = "inserted by " + std::to_string(lane.id);
    if (std::string wrong = FollowUpOn(lane, key, false); !wrong.empty()) return wrong;
  }
  const std::string fault = Sound(dict);
  return fault.empty() ? "" : "after more operations: " + fault;
}

}  // namespace statehouse
