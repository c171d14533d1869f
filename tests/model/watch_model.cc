// Relacy models of how who follows a dict is woken: a writer stores its record, looks whether
// somebody sleeps, and wakes; who follows arms, makes the barrier, looks, and sleeps on the event
// word. The models follow the engine's code (state/dict_watch.cc, TellWatchers of
// state/dict_internal.h, WaitForEntry of state/entry_wait.cc, WatchHub::ServeDrained and Sleep)
// with Relacy's atomics. Every rule has a mutant that drops it and must fail, in both models.
//
// What stands for the barrier: Relacy has no membarrier. The kernel's makes every thread that runs
// go through a full fence at one moment between the call and its return, and a thread that does not
// run went through one when it stopped. So BarrierEverywhere is modelled as a handshake: the waiter
// makes a fence, asks, and goes on when every writer has made a fence after the question. A writer
// makes it at any of the points between its steps, or at its end, where it has nothing to reorder
// any more. A writer's own steps are relaxed otherwise: that its record and its look at the flag
// may be swapped is what the barrier is for. Sleepers have no end of their own: nobody is saved by
// looking again by time.
//
//   watch_model [iterations]      default 200,000 schedules for each model
#include "tests/model/expect.h"

namespace {

using namespace statehouse::model;  // NOLINT: a program of its own.

enum Mutant {
  kNone,
  kNoBarrier,        // Who arms makes no barrier.
  kClearedAfter,     // The flag is cleared after the event word was changed.
  kLookBeforeArmed,  // Who follows looks before it arms, and not after that.
  kEventReadLate,    // … or reads the event word after its look.
  kNoEvent,          // The writer wakes without changing the event word.
  kNotTold,          // The writer does not look at the flag.
};

// Compares and sleeps in one step; a sleeper that nobody wakes is a deadlock, which Relacy reports.
struct Futex {
  rl::mutex mutex;
  rl::condition_variable sleepers;

  void Wait(rl::atomic<unsigned>& word, unsigned expected) {
    mutex.lock($);
    if (word($).load(kSeqCst) == expected) sleepers.wait(mutex, $);
    mutex.unlock($);
  }
  void WakeAll() {
    mutex.lock($);
    sleepers.notify_all($);
    mutex.unlock($);
  }
};

// The barrier of one who waits, against `kWriters` writers.
template <int kWriters>
struct Barrier {
  rl::atomic<unsigned> asked;           // How often.
  rl::atomic<unsigned> made[kWriters];  // The question that the writer has answered.
  rl::atomic<unsigned> gone[kWriters];  // It runs no more.

  void Init() {
    asked($).store(0, kRelaxed);
    for (auto& word : made) word($).store(0, kRelaxed);
    for (auto& word : gone) word($).store(0, kRelaxed);
  }
  // The interrupt that may come here.
  void Point(unsigned writer) {
    const unsigned question = asked($).load(kAcquire);
    if (question == made[writer]($).load(kRelaxed)) return;
    rl::atomic_thread_fence(kSeqCst, $);
    made[writer]($).store(question, kRelease);
  }
  void End(unsigned writer) {
    rl::atomic_thread_fence(kSeqCst, $);
    gone[writer]($).store(1, kRelease);
  }
  void Everywhere() {
    rl::atomic_thread_fence(kSeqCst, $);
    const unsigned question = asked($).load(kRelaxed) + 1;
    asked($).store(question, kRelease);
    for (int writer = 0; writer < kWriters; ++writer) {
      while (made[writer]($).load(kAcquire) != question && gone[writer]($).load(kAcquire) == 0) {
        rl::yield(1, $);
      }
    }
    rl::atomic_thread_fence(kSeqCst, $);
  }
};

// The words of a dict that a sleeper and its writers share. Each writer has a record of its own:
// its ring's head, or the entry that it alone changes.
template <int kMutant, int kWriters, int kWaiters>
struct Words {
  rl::atomic<unsigned> record[kWriters];
  rl::atomic<unsigned> armed;
  rl::atomic<unsigned> event;
  Futex futex;
  Barrier<kWriters> barriers[kWaiters];

  void Init() {
    for (auto& word : record) word($).store(0, kRelaxed);
    armed($).store(0, kRelaxed);
    event($).store(0, kRelaxed);
    for (auto& barrier : barriers) barrier.Init();
  }
  void Points(unsigned writer) {
    for (auto& barrier : barriers) barrier.Point(writer);
  }
  void Change(unsigned writer, unsigned number) {
    Points(writer);
    record[writer]($).store(number, kRelease);
    Points(writer);
    if (kMutant == kNotTold || armed($).load(kRelaxed) == 0) return;
    Points(writer);
    if (kMutant == kClearedAfter) {
      event($).fetch_add(1, kSeqCst);
      futex.WakeAll();
      Points(writer);
      armed($).store(0, kSeqCst);
      return;
    }
    if (armed($).exchange(0, kSeqCst) == 0) return;
    if (kMutant != kNoEvent) event($).fetch_add(1, kSeqCst);
    futex.WakeAll();
  }
  void EndWriter(unsigned writer) {
    for (auto& barrier : barriers) barrier.End(writer);
  }
  void Arm(unsigned waiter) {
    armed($).store(1, kSeqCst);
    if (kMutant != kNoBarrier) barriers[waiter].Everywhere();
  }
  // Sleeps until `is_met` says so.
  template <typename IsMet>
  void WaitUntil(unsigned waiter, const IsMet& is_met) {
    for (;;) {
      unsigned seen = event($).load(kSeqCst);
      bool met = false;
      if (kMutant == kLookBeforeArmed) met = is_met();
      Arm(waiter);
      if (kMutant != kLookBeforeArmed) met = is_met();
      if (met) return;
      if (kMutant == kEventReadLate) seen = event($).load(kSeqCst);
      futex.Wait(event, seen);
    }
  }
};

// The daemon follows the rings of two writers, of which the first makes two changes: it sleeps
// while their heads are what it read last, and has seen all in the end.
template <int kMutant>
struct HubModel : rl::test_suite<HubModel<kMutant>, 3> {
  Words<kMutant, 2, 1> words;

  void before() { words.Init(); }
  void Follow() {
    unsigned cursors[2] = {0, 0};
    const auto has_news = [&] {
      return words.record[0]($).load(kAcquire) != cursors[0] ||
             words.record[1]($).load(kAcquire) != cursors[1];
    };
    while (cursors[0] < 2 || cursors[1] < 1) {
      words.WaitUntil(0, has_news);
      for (int i = 0; i < 2; ++i) cursors[i] = words.record[i]($).load(kAcquire);
    }
  }
  void thread(unsigned index) {
    if (index == 2) return Follow();
    words.Change(index, 1);
    if (index == 0) words.Change(index, 2);
    words.EndWriter(index);
  }
};

// WaitForEntry: two who wait for an entry each, of two writers, the second of which makes two
// changes and is waited for until the second one. They share one flag and one word.
template <int kMutant>
struct EntryModel : rl::test_suite<EntryModel<kMutant>, 4> {
  Words<kMutant, 2, 2> words;

  void before() { words.Init(); }
  void thread(unsigned index) {
    if (index < 2) {
      words.Change(index, 1);
      if (index == 1) words.Change(index, 2);
      words.EndWriter(index);
      return;
    }
    const unsigned waiter = index - 2;
    const auto is_met = [&] { return words.record[waiter]($).load(kAcquire) == waiter + 1; };
    if (!is_met()) words.WaitUntil(waiter, is_met);
  }
};

}  // namespace

int main(int argc, char** argv) {
  TakeIterations(argc, argv);
  Expect<HubModel<kNone>>("daemon", true);
  Expect<EntryModel<kNone>>("two waits", true);
  Expect<HubModel<kNoBarrier>>("daemon, no barrier", false);
  Expect<HubModel<kClearedAfter>>("daemon, flag cleared after the event", false);
  Expect<HubModel<kLookBeforeArmed>>("daemon, look before arming", false);
  Expect<HubModel<kEventReadLate>>("daemon, event read after the look", false);
  Expect<HubModel<kNoEvent>>("daemon, woken without an event", false);
  Expect<HubModel<kNotTold>>("daemon, not told", false);
  Expect<EntryModel<kNoBarrier>>("two waits, no barrier", false);
  Expect<EntryModel<kClearedAfter>>("two waits, flag cleared after the event", false);
  Expect<EntryModel<kLookBeforeArmed>>("two waits, look before arming", false);
  Expect<EntryModel<kEventReadLate>>("two waits, event read after the look", false);
  Expect<EntryModel<kNoEvent>>("two waits, woken without an event", false);
  Expect<EntryModel<kNotTold>>("two waits, not told", false);
  return Summary();
}
