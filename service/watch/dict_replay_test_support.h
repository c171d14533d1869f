// For tests that prove watches of dicts: followers that watch one and go on where they ended, and
// the end, at which all of them must have been told what was done.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/os/futex.h"
#include "engine/state/selected_changes.h"
#include "service/watch/dict_story_test_support.h"
#include "service/watch/watch_hub_test_support.h"

namespace statehouse {

// Watches a dict, with one watch after another; where one hands over, in the follow log as a client
// does. One thread.
class Follower {
 public:
  using Fault = Replayer::Fault;
  static constexpr uint32_t kPuts = 1u << static_cast<uint32_t>(FeedOperation::kPut);

  Follower(const Ledger* ledger, WatchAsk ask, Fault fault)
      : ledger_(*ledger), ask_(std::move(ask)), fault_(std::move(fault)), replayer_(fault_) {
    ask_.served = nullptr;
    replayer_.is_partial = !ask_.snapshot || ask_.kinds != ~0u;
    replayer_.has_previous = ask_.previous;
    replayer_.on_expired = [this](const std::string& key, const std::string& value) {
      expired_.emplace_back(key, value);
    };
    stories_.emplace_back();
  }

  // Goes on where the last watch ended, or begins anew where that cannot be gone on from.
  void Open(WatchHub& hub, const std::shared_ptr<ServedDict>& served, bool is_lost = false) {
    WatchAsk ask = ask_;
    ask.served = served;
    ask.has_followed = std::exchange(falls_back_, false) && ask.hand_over && !is_lost;
    hub_ = &hub;
    served_ = served;
    id_ = served->record().id;
    reader_.reset();
    expects_resync_ = is_lost;
    if (can_go_on_ || is_lost) {
      constexpr uint64_t kNobodyKnows = uint64_t{1} << 60;
      ask.from_revision = is_lost ? kNobodyKnows : replayer_.revision;
    } else {
      stories_.emplace_back();
      replayer_.Forget();
    }
    replayer_.synced = false;
    noted_ = ledger_.LastVersions();
    watcher_ = std::make_unique<Watcher>(hub, ask);
    if (!watcher_->is_open()) watcher_.reset();
  }
  void Close() {
    watcher_.reset();
    reader_.reset();
  }
  bool is_open() const { return watcher_ != nullptr; }
  bool is_synced() const { return replayer_.synced; }

  // What comes next, if it is there; with patience also later.
  Watch::Found Take(milliseconds patience = milliseconds(0)) {
    WatchEvent event;
    const Watch::Found found =
        patience.count() == 0 ? watcher_->TryNext(&event) : watcher_->Next(&event, patience);
    if (found == Watch::Found::kEvent) {
      event.kind == WatchEvent::Kind::kHandedOver ? BeginFollow(event) : Apply(event);
    }
    if (found == Watch::Found::kNothing && reader_.has_value()) return TakeFollowed();
    if (found == Watch::Found::kEnd) {
      const Reason why = watcher_->status().reason();
      const bool is_slow = why == Reason::kLimitExceeded && ask_.slow_policy == SlowPolicy::kCancel;
      if (why != Reason::kDraining && !is_slow) fault_(watcher_->status().ToString());
      Close();
    }
    return found;
  }

  void Complete() { stories_.back().Complete(); }
  void CheckStories(const Ledger::Items& all) const {
    for (const auto& [key, items] : all) {
      if (!Wants(key)) continue;
      std::vector<Ledger::Item> wanted = items;
      for (Ledger::Item& item : wanted) {
        const bool is_asked =
            (ask_.kinds & kPuts) == 0 ? !item.is_put : ask_.kinds != kPuts || item.is_put;
        item.may_be_untold = item.may_be_untold || !is_asked;
      }
      for (const Story& story : stories_) story.Check(key, wanted, fault_);
    }
    for (const auto& [key, value] : expired_) {
      if (!ledger_.WasBrief(key, value)) {
        fault_(key + " was there before, or was not, and is told otherwise");
      }
    }
  }
  // REQUIRES: it is synced, and nobody changes the dict.
  void CheckContent(const std::map<std::string, std::pair<uint64_t, std::string>>& now) const {
    if (replayer_.is_partial) return;
    std::map<std::string, std::pair<uint64_t, std::string>> wanted = now;
    std::erase_if(wanted, [this](const auto& entry) { return !Wants(entry.first); });
    for (const auto& [key, value] : wanted) {
      const auto at = replayer_.entries.find(key);
      if (at == replayer_.entries.end()) {
        fault_(key + ": it does not know what the dict has");
      } else if (at->second.first != value.first ||
                 (!ask_.keys_only && at->second.second != value.second &&
                  at->second.second != Replayer::kValueGone)) {
        // A value that it was not told it reads from the dict, as every client does.
        fault_(key + ": it knows another value than the dict has");
      }
    }
    for (const auto& [key, value] : replayer_.entries) {
      if (!wanted.contains(key)) fault_(key + ": it knows what the dict does not have");
    }
  }

  uint64_t changes() const { return replayer_.changes; }
  uint64_t followed() const { return followed_; }
  uint64_t fallbacks() const { return fallbacks_; }
  uint64_t resyncs(ResyncReason reason) const { return resyncs_[static_cast<size_t>(reason)]; }
  uint64_t coalesced() const { return coalesced_; }
  uint64_t previous_values() const { return replayer_.previous_values; }
  uint64_t previous_gone() const { return replayer_.previous_gone; }

 private:
  void BeginFollow(const WatchEvent& event) {
    if (event.revision < replayer_.revision) {
      fault_("it is handed over at a place before what it was told");
    }
    const FollowLogFacts facts{id_, event.log_id};
    StatusOr<UniqueFd> fd = hub_->OpenFollowLog(facts);
    if (!fd.ok()) return fault_("opening a follow log: " + fd.status().ToString());
    auto log = FollowLog::Map(facts, fd->get());
    if (!log.ok()) return fault_("mapping a follow log: " + log.status().ToString());
    std::unique_ptr<RingFollower> rings;
    if (ask_.follows_rings) {
      rings =
          std::make_unique<RingFollower>(std::shared_ptr<Dict>(served_, &served_->dict()), *log);
    }
    ChangeSelection selection;
    selection.key = ask_.key;
    selection.prefix = ask_.prefix;
    selection.kinds = ask_.kinds;
    reader_.emplace(*std::move(log), event.position, event.revision, std::move(selection),
                    std::move(rings));
  }
  // As DictFollow in clients/c, one change after another.
  Watch::Found TakeFollowed() {
    auto next = std::make_shared<WatchedChange>();
    const uint64_t before = reader_->revision();
    int reads_left = 64;
    switch (reader_->Next(&reads_left, &next->change)) {
      case SelectedChanges::Found::kNothing:
        if (reader_->revision() == before) return Watch::Found::kNothing;
        return ApplyFollowed(nullptr);
      case SelectedChanges::Found::kMore: return ApplyFollowed(nullptr);
      case SelectedChanges::Found::kChange: return ApplyFollowed(std::move(next));
      case SelectedChanges::Found::kBroken: fault_("the follow log makes no sense"); break;
      case SelectedChanges::Found::kFallBack: break;
    }
    ++fallbacks_;
    falls_back_ = true;
    can_go_on_ = true;
    replayer_.revision = std::max(replayer_.revision, reader_->revision());
    Close();  // Whoever takes opens it again.
    return Watch::Found::kEvent;
  }
  // Null: what was read is none of its business.
  Watch::Found ApplyFollowed(std::shared_ptr<WatchedChange> next) {
    WatchEvent event;
    event.revision = reader_->revision();
    ++followed_;
    if (next != nullptr) event.changes.push_back({std::move(next), false, {}});
    Apply(event);
    return Watch::Found::kEvent;
  }
  bool Wants(std::string_view key) const {
    return ask_.key ? key == *ask_.key : key.starts_with(ask_.prefix);
  }
  void Apply(const WatchEvent& event) {
    const bool is_resync = event.kind == WatchEvent::Kind::kResync;
    if (std::exchange(expects_resync_, false) &&
        (!is_resync || event.reason != ResyncReason::kRevisionUnknown)) {
      fault_("it goes on from a revision that nobody knows");
    }
    Story& story = stories_.back();
    for (const DictEntry& entry : event.entries) {
      if (!Wants(entry.key)) fault_(entry.key + " is none of its business");
      if (entry.version < LastVersionBefore(entry.key)) fault_(entry.key + " went backward");
      story.Begin(entry);
    }
    for (const WatchEvent::Told& told : event.changes) {
      const DictChange& change = told.change->change;
      const bool is_asked = (ask_.kinds >> static_cast<uint32_t>(change.operation) & 1) != 0;
      if (!Wants(change.key) || !is_asked) fault_(change.key + " is none of its business");
      story.Tell(told);
      coalesced_ += told.coalesced ? 1 : 0;
    }
    if (event.kind == WatchEvent::Kind::kSynced) {
      story.Sync(ledger_.ticks());
      CheckSynced(story);
    }
    if (is_resync) {
      ++resyncs_[static_cast<size_t>(event.reason)];
      stories_.emplace_back();
    }
    replayer_.Apply(event);
    can_go_on_ = event.revision != 0;
  }
  // What the last story ended with.
  uint64_t LastVersionBefore(const std::string& key) const {
    return stories_.size() < 2 ? 0 : stories_[stories_.size() - 2].LastVersion(key);
  }
  // What was noted before the watch was opened is told before `synced`.
  void CheckSynced(const Story& story) const {
    if (ask_.kinds != ~0u) return;
    for (const auto& [key, version] : noted_) {
      const uint64_t last = Wants(key) ? story.LastVersion(key) : 0;
      if (last != 0 && last < version) fault_(key + ": `synced` comes too early");
    }
  }

  const Ledger& ledger_;
  WatchAsk ask_;
  const Fault fault_;
  Replayer replayer_;
  std::vector<Story> stories_;
  std::unique_ptr<Watcher> watcher_;
  WatchHub* hub_ = nullptr;
  uint64_t id_ = 0;  // The dict's.
  std::shared_ptr<ServedDict> served_;
  std::optional<SelectedChanges> reader_;
  bool falls_back_ = false;
  uint64_t followed_ = 0;
  uint64_t fallbacks_ = 0;
  bool can_go_on_ = false;
  bool expects_resync_ = false;
  std::map<std::string, uint64_t> noted_;  // Before the watch was opened.
  std::array<uint64_t, kResyncReasons> resyncs_{};
  uint64_t coalesced_ = 0;
  std::vector<std::pair<std::string, std::string>> expired_;  // Key and value.
};

class DictReplayTest : public WatchHubTest {
 protected:
  static constexpr uint32_t kMoverLane = 1;
  static constexpr uint32_t kClosingLane = 2;
  // Of a writer of the service; or of the worker of the host, with a block of its own.
  static constexpr uint32_t LaneOf(uint32_t writer, bool is_worker) {
    return is_worker ? (2 + writer) * kLanesPerBlock : 3 + writer;
  }

  WatchAsk AnyAsk(std::mt19937_64& random) const {
    WatchAsk ask;
    const uint64_t scope = random() % 4;
    if (scope == 0) ask.key = random() % 2 == 0 ? "a/1" : "b/n1";
    if (scope == 1) ask.prefix = "a/";
    ask.snapshot = random() % 3 != 0;
    ask.slow_policy = static_cast<SlowPolicy>(random() % 3);
    ask.keys_only = random() % 6 == 0;
    ask.previous = !ask.keys_only && random() % 3 != 0;
    if (random() % 4 == 0) ask.window_ns = random() % 2'000'000;
    ask.hand_over = random() % 4 != 0 && !ask.previous && ask.window_ns == 0 &&
                    ask.slow_policy != SlowPolicy::kLatest;
    ask.follows_rings = ask.hand_over && random() % 3 != 0;
    const uint64_t kinds = random() % 6;
    if (kinds == 0) ask.kinds = Follower::kPuts;
    if (kinds == 1) ask.kinds = kRemovals;
    return ask;
  }
  // The dict in a larger segment, or empty in a new one.
  Status Move(bool clears) {
    const auto from = *store->Find("d");
    uint64_t entries = 0;
    bool cleared = false;
    return clears ? store->ClearDict(At(kMoverLane), from, &entries, &cleared)
                  : store->MoveDict(At(kMoverLane), from, DictStore::Move::kGrow);
  }
  void Expire() {
    uint32_t bucket = 0;
    const auto removed = served->dict().Expire(At(kMoverLane), &bucket, UINT32_MAX);
    EXPECT_TRUE(removed.ok()) << removed.status().ToString();
  }
  // Nobody changes the dict any more, and the hub has no thread: all followers end with the dict,
  // and what each was told is what was done.
  void Finish(std::vector<std::unique_ptr<Follower>>& followers, const Replayer::Fault& fault) {
    for (bool has_brief = true; has_brief;) {
      has_brief = HasBrief();
      Expire();
    }
    if (!Settle(followers)) return fault("a watch is never told all");
    for (const auto& follower : followers) follower->CheckContent(Now());
    // Every key is put and deleted once more, so that no story may end before.
    NotingWriter writer(&ledger, kClosingLane, 0);
    for (const bool deletes : {false, true}) {
      for (const std::string& key : ReplayedKeys()) {
        const Status closed = writer.Close(served->dict(), key, deletes);
        EXPECT_TRUE(closed.ok()) << closed.ToString();
      }
      if (!Settle(followers)) return fault("a watch is never told the end");
    }
    EXPECT_TRUE(Now().empty());
    const Ledger::Items all = ledger.All();
    for (const auto& follower : followers) {
      follower->CheckContent({});
      follower->Complete();
      follower->CheckStories(all);
    }
  }

  Ledger ledger;
  milliseconds patience{10'000};

 private:
  static constexpr uint64_t kSoonNs = 50'000'000;
  static constexpr uint32_t kRemovals = 1u << static_cast<uint32_t>(FeedOperation::kDelete) |
                                        1u << static_cast<uint32_t>(FeedOperation::kExpire) |
                                        1u << static_cast<uint32_t>(FeedOperation::kEvict);

  // Whether something is left that expires; what has, is not seen.
  bool HasBrief() {
    bool has = false;
    uint32_t bucket = 0;
    const Status status = served->dict().Scan(
        &bucket, SIZE_MAX, "", [&](DictEntry& entry) { has = has || entry.expires_ms != 0; });
    EXPECT_TRUE(status.ok()) << status.ToString();
    return has;
  }
  // Until everybody is synced and has nothing more to be told. False: that did not come.
  bool Settle(std::vector<std::unique_ptr<Follower>>& followers) {
    const auto until = std::chrono::steady_clock::now() + patience;
    for (bool more = true; more;) {
      const uint64_t next_ns = hub->Turn();
      more = next_ns == 0;
      // Of a watch that comes back to a bucket by time, or whose window is to be over.
      bool waits = next_ns < MonotonicNs() + kSoonNs;
      for (const auto& follower : followers) {
        if (!follower->is_open()) follower->Open(*hub, served);
        more = follower->Take() != Watch::Found::kNothing || more;
        waits = waits || !follower->is_synced();
      }
      if (!more && waits) SleepNs(100'000);
      more = more || waits;
      if (more && std::chrono::steady_clock::now() > until) return false;
    }
    return true;
  }
};

}  // namespace statehouse
