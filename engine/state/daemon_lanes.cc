#include "engine/state/daemon_lanes.h"

namespace statehouse {

void ForeignWords::BeginLook() {
  before_.swap(now_);
  now_.clear();
}

bool ForeignWords::Saw(Place place, uint64_t word) {
  const auto known = before_.find(place);
  const bool same = known != before_.end() && known->second.word == word;
  const uint32_t looks = same ? known->second.looks + 1 : 1;
  if (now_.size() < kForeignWordsMax) now_[place] = Word{word, looks};
  return looks >= kForeignWordLooks;
}

}  // namespace statehouse
