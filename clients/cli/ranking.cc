#include "clients/cli/ranking.h"

#include <algorithm>

namespace statehouse::cli {

void Ranking::Offer(const EntryName& what, uint64_t number) {
  const Place place{number, what};
  if (places_.size() >= kept_ && !Before()(place, *places_.rbegin())) return;
  const auto same = std::find_if(places_.begin(), places_.end(),
                                 [&what](const Place& kept) { return kept.second == what; });
  if (same != places_.end()) {
    if (same->first >= number) return;
    places_.erase(same);
  }
  places_.insert(place);
  if (places_.size() > kept_) places_.erase(std::prev(places_.end()));
}

std::vector<Ranked> Ranking::Sorted() const {
  std::vector<Ranked> sorted;
  for (const auto& [number, what] : places_) sorted.push_back({what, number});
  return sorted;
}

void KeyCounts::Count(EntryName what) {
  ++total_;
  const auto known = counts_.find(what);
  if (known != counts_.end()) {
    ++known->second;
  } else if (counts_.size() < keys_max_) {
    counts_.emplace(std::move(what), 1);
  } else {
    ++uncounted_;
  }
}

std::vector<Ranked> KeyCounts::Hottest(size_t count) const {
  Ranking ranking(count);
  for (const auto& [what, number] : counts_) ranking.Offer(what, number);
  return ranking.Sorted();
}

}  // namespace statehouse::cli
