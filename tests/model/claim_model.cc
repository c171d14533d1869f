// Relacy model of how a follower takes a change of a dict before the daemon has drained its ring:
// two writers, each with a ring of its own, change one bucket or one each; the follower looks at
// the rings and claims the next revision; the daemon closes the claims, drains, and opens them
// again. Afterwards the log has what the follower took at that revision, and what one bucket got in
// order. The model follows the engine's code (state/ring_follower.cc, DictFeed::Drain, CloseClaims
// and OpenClaims of state/dict_feed.cc, FollowLogWriter::ShowCursors) with Relacy's atomics. Every
// rule has a mutant that drops it and must fail.
//
//   claim_model [iterations]      default 200,000 schedules for each model
#include <algorithm>

#include "tests/model/expect.h"

namespace {

using namespace statehouse::model;  // NOLINT: a program of its own.

enum Mutant {
  kNone,
  kIgnored,        // The daemon drains as if nobody had claimed.
  kNotClosed,      // … or lets others claim while it does.
  kOpenedOver,     // It opens the claims where one stands.
  kOneLook,        // The follower looks once …
  kFoundLate,      // … or takes what only its second look finds.
  kHeadAfterLock,  // A writer lets its bucket go before its ring has the record.
};

constexpr unsigned kLanes = 2;
constexpr unsigned kChanges[kLanes] = {2, 1};
constexpr unsigned kAll = 3;
// The claim's field: 0 open, 1 + lane.
constexpr unsigned kClosed = 3;
constexpr unsigned Word(unsigned revision, unsigned field) { return revision * 4 + field; }

template <int kMutant, unsigned kBuckets>
struct ClaimModel : rl::test_suite<ClaimModel<kMutant, kBuckets>, kLanes + 2> {
  rl::atomic<unsigned> lock;
  rl::var<unsigned> version;
  rl::atomic<unsigned> ring[kLanes][2];
  rl::atomic<unsigned> head[kLanes];
  rl::atomic<unsigned> claim;
  unsigned log[kAll + 2];  // Nobody reads it before the end.
  rl::atomic<unsigned> log_head;
  rl::atomic<unsigned> cursors[kLanes];
  rl::atomic<unsigned> cursors_next;
  unsigned early[kAll + 2];  // By revision; 0: not taken early.

  void before() {
    lock($).store(0, kRelaxed);
    version($) = 0;
    for (auto& lane : ring) {
      for (auto& record : lane) record($).store(0, kRelaxed);
    }
    for (auto& each : head) each($).store(0, kRelaxed);
    claim($).store(Word(0, kClosed), kRelaxed);
    std::fill(std::begin(log), std::end(log), 0);
    log_head($).store(0, kRelaxed);
    for (auto& each : cursors) each($).store(0, kRelaxed);
    cursors_next($).store(0, kRelaxed);
    std::fill(std::begin(early), std::end(early), 0);
  }

  static unsigned NumberOf(unsigned lane, unsigned n) { return lane * 8 + n + 1; }
  void Write(unsigned lane) {
    for (unsigned n = 0; n < kChanges[lane]; ++n) {
      if (kBuckets == kLanes) {  // Nobody else changes it.
        ring[lane][n]($).store(NumberOf(lane, n), kRelaxed);
        head[lane]($).store(n + 1, kRelease);
        continue;
      }
      for (unsigned free = 0; !lock($).compare_exchange_strong(free, 1, kSeqCst); free = 0) {
        rl::yield(1, $);
      }
      const unsigned mine = version($) + 1;
      version($) = mine;
      if (kMutant == kHeadAfterLock) lock($).store(0, kRelease);
      ring[lane][n]($).store(mine, kRelaxed);
      head[lane]($).store(n + 1, kRelease);
      if (kMutant != kHeadAfterLock) lock($).store(0, kRelease);
    }
  }

  // The follower.
  void Take(unsigned revision) {
    if (cursors_next($).load(kAcquire) != revision + 1) return;
    int found = -1;
    unsigned begin = 0;
    for (int looks = kMutant == kOneLook ? 1 : 2; looks > 0; --looks) {
      for (unsigned lane = 0; lane < kLanes; ++lane) {
        const unsigned cursor = cursors[lane]($).load(kRelaxed);
        if (head[lane]($).load(kAcquire) == cursor || found == static_cast<int>(lane)) continue;
        if (found >= 0) return;
        found = static_cast<int>(lane);
        begin = cursor;
      }
      // What only a later look finds would have no look behind it.
      if (found < 0 && kMutant != kFoundLate) break;
    }
    rl::atomic_thread_fence(kAcquire, $);
    if (cursors_next($).load(kAcquire) != revision + 1 || found < 0) return;
    const unsigned taken = ring[found][begin]($).load(kRelaxed);
    unsigned word = Word(revision, 0);
    if (!claim($).compare_exchange_strong(word, Word(revision, 1 + found), kSeqCst)) return;
    early[revision + 1] = taken;
  }
  void Follow() {
    for (int tries = 0; tries < 4; ++tries) {
      const unsigned revision = log_head($).load(kAcquire);
      if (early[revision + 1] == 0) Take(revision);
      rl::yield(1, $);
    }
  }

  // The daemon.
  int Close(unsigned revision) {
    unsigned word = Word(revision, 0);
    if (kMutant == kNotClosed) {
      word = claim($).load(kSeqCst);
    } else if (claim($).compare_exchange_strong(word, Word(revision, kClosed), kSeqCst)) {
      return -1;
    }
    if (kMutant == kIgnored || word <= Word(revision, 0) || word >= Word(revision, kClosed)) {
      return -1;
    }
    return static_cast<int>(word - Word(revision, 1));
  }
  void Open(unsigned revision) {
    unsigned word = claim($).load(kRelaxed);
    if (kMutant == kOpenedOver) return claim($).store(Word(revision, 0), kSeqCst);
    while (word <= Word(revision, 0) || word >= Word(revision, kClosed)) {
      if (claim($).compare_exchange_weak(word, Word(revision, 0), kSeqCst)) return;
    }
  }
  void Show(const unsigned* shown, unsigned revision) {
    cursors_next($).store(0, kRelaxed);
    rl::atomic_thread_fence(kRelease, $);
    for (unsigned lane = 0; lane < kLanes; ++lane) cursors[lane]($).store(shown[lane], kRelaxed);
    cursors_next($).store(revision + 1, kRelease);
  }
  unsigned Drain(unsigned revision, unsigned* mine) {
    const int claimed = Close(revision);
    unsigned sure[kLanes];
    unsigned ends[kLanes];
    for (unsigned lane = 0; lane < kLanes; ++lane) sure[lane] = head[lane]($).load(kAcquire);
    for (unsigned lane = 0; lane < kLanes; ++lane) ends[lane] = head[lane]($).load(kAcquire);
    revision = kBuckets == 1 ? MergeOne(claimed, sure, ends, revision, mine)
                             : MergeEach(claimed, sure, ends, revision, mine);
    log_head($).store(revision, kRelease);
    Show(mine, revision);
    return revision;
  }
  // Of one bucket: what is sure or claimed, after everything that came before it.
  unsigned MergeOne(int claimed, const unsigned* sure, const unsigned* ends, unsigned revision,
                    unsigned* mine) {
    unsigned last = 0;
    unsigned versions[kAll + 1] = {};
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      for (unsigned at = mine[lane]; at < ends[lane]; ++at) {
        const unsigned each = ring[lane][at]($).load(kRelaxed);
        versions[each] = lane + 1;
        const bool is_first = claimed == static_cast<int>(lane) && at == mine[lane];
        if (at < sure[lane] || is_first) last = std::max(last, each);
      }
    }
    for (unsigned each = 1; each <= last; ++each) {
      if (versions[each] == 0) continue;
      log[++revision] = each;
      ++mine[versions[each] - 1];
    }
    return revision;
  }
  // Of a bucket for each lane: what is claimed, and then one lane after the other.
  unsigned MergeEach(int claimed, const unsigned* sure, const unsigned* ends, unsigned revision,
                     unsigned* mine) {
    const auto take = [&](unsigned lane) {
      log[++revision] = ring[lane][mine[lane]++]($).load(kRelaxed);
    };
    if (claimed >= 0 && mine[claimed] < ends[claimed]) take(claimed);
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      while (mine[lane] < sure[lane]) take(lane);
    }
    return revision;
  }
  void Serve() {
    unsigned mine[kLanes] = {};
    unsigned revision = 0;
    Show(mine, revision);
    while (revision < kAll) {
      Open(revision);
      rl::yield(1, $);
      // Looks that find nothing drain nothing, and open the claims as well.
      const bool has_news =
          head[0]($).load(kAcquire) != mine[0] || head[1]($).load(kAcquire) != mine[1];
      if (has_news) revision = Drain(revision, mine);
    }
  }

  void thread(unsigned index) {
    if (index < kLanes) return Write(index);
    index == kLanes ? Follow() : Serve();
  }
  void after() {
    for (unsigned revision = 1; revision <= kAll; ++revision) {
      RL_ASSERT(kBuckets > 1 || log[revision] == revision);
      RL_ASSERT(early[revision] == 0 || early[revision] == log[revision]);
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  TakeIterations(argc, argv);
  Expect<ClaimModel<kNone, 1>>("claims, one bucket", true);
  Expect<ClaimModel<kNone, 2>>("claims, two buckets", true);
  Expect<ClaimModel<kIgnored, 2>>("claims, ignored by the daemon", false);
  Expect<ClaimModel<kNotClosed, 2>>("claims, open while the daemon drains", false);
  Expect<ClaimModel<kOpenedOver, 2>>("claims, opened where one stands", false);
  Expect<ClaimModel<kOneLook, 1>>("claims, one look", false);
  Expect<ClaimModel<kFoundLate, 1>>("claims, found by the second look", false);
  Expect<ClaimModel<kHeadAfterLock, 1>>("claims, a record after its bucket's lock", false);
  return Summary();
}
