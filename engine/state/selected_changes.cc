#include "engine/state/selected_changes.h"

#include <string_view>
#include <utility>

namespace statehouse {

bool SelectedChanges::Wants(const DictChange& change) const {
  if ((selection_.kinds >> static_cast<uint32_t>(change.operation) & 1) == 0) return false;
  return selection_.key.has_value() ? change.key == *selection_.key
                                    : std::string_view(change.key).starts_with(selection_.prefix);
}

FollowEvents SelectedChanges::events() const {
  FollowEvents events;
  events.Add(reader_.log()->event(), reader_.log());
  if (rings_ != nullptr) events.Add(rings_->event(), rings_->dict());
  return events;
}

bool SelectedChanges::ReadEarly(DictChange* change) {
  if (rings_ == nullptr) return false;
  if (rings_->Next(reader_.revision(), change) != RingFollower::Found::kChange) return false;
  early_ = Early{change->revision, change->version, change->operation, change->key};
  return true;
}

SelectedChanges::Found SelectedChanges::Compare(const DictChange& change) {
  const Early early = *std::exchange(early_, std::nullopt);
  // Its ring was lost before the daemon read it: a gap comes next.
  if (change.operation == FeedOperation::kMoved) return Found::kFallBack;
  if (change.version == early.version && change.operation == early.operation &&
      change.key == early.key) {
    return Found::kMore;
  }
  reader_.StepBack();  // What was given is not true.
  return Found::kBroken;
}

SelectedChanges::Found SelectedChanges::Next(int* reads_left, DictChange* change) {
  if (again_.has_value() && *reads_left > 0) {
    --*reads_left;
    *change = *std::exchange(again_, std::nullopt);
    return Found::kChange;
  }
  for (; *reads_left > 0; --*reads_left) {
    switch (reader_.Next(change)) {
      case FollowLogReader::Found::kOverrun: return Found::kFallBack;
      case FollowLogReader::Found::kDamaged: return Found::kBroken;
      case FollowLogReader::Found::kChange: break;
      case FollowLogReader::Found::kNothing:
        if (!ReadEarly(change)) return Found::kNothing;
        if (!Wants(*change)) continue;
        *reads_left = 0;  // To look for more takes time, and this one is new.
        return Found::kChange;
    }
    if (early_.has_value()) {
      const Found compared = Compare(*change);
      if (compared != Found::kMore) return compared;
      continue;
    }
    if (change->operation == FeedOperation::kGap) {
      reader_.StepBack();  // The stream tells why, and begins anew.
      return Found::kFallBack;
    }
    if (change->operation == FeedOperation::kMoved) {
      if (rings_ != nullptr) return Found::kFallBack;  // They are in another segment.
    } else if (Wants(*change)) {
      --*reads_left;
      return Found::kChange;
    }
  }
  return Found::kMore;
}

}  // namespace statehouse
