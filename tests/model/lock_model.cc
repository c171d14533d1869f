// Relacy models of how a lock changes hands: a release that grants the next waiter against that
// waiter's falling asleep, the grant's fields against its holder's look at them, a waiter that
// leaves against the grant, and the daemon's sleep against a waiter that needs it. Each model
// follows the engine's code line by line (state/lock_section.cc, lock_requests.cc,
// lock_recovery.cc) with Relacy's atomics, which explore the orders that the C++ memory model
// allows, on any hardware. Every memory-order rule has a mutant that drops it and must fail.
//
//   lock_model [iterations]      default 200,000 schedules for each model
#include "tests/model/expect.h"

namespace {

using namespace statehouse::model;  // NOLINT: a program of its own.

constexpr unsigned kOwnerMask = 15;
constexpr unsigned kSequenceOne = 16;
constexpr unsigned kClaimed = 1;
constexpr unsigned kWaiting = 2;
constexpr unsigned kHolding = 3;

enum Mutant {
  kNone,
  kNoFenceInPayWakes,    // `sleeping` is looked at without a fence after the state's store.
  kStateBeforeSleeping,  // The waiter looks at its state before it says that it sleeps.
  kEventAfterState,      // … and at the event only after its state.
  kNoFenceInWait,        // … or without a fence before it looks at its state.
  kStateRelaxed,         // The grant is published with a relaxed store.
  kLookRelaxed,          // The holder looks at its state with a relaxed load.
  kUnlockBeforeState,    // The bucket is free before the grant stands.
  kUnlockRelaxed,        // The bucket is released with a relaxed store.
  kWakeWithoutEvent,     // The waker wakes without changing the event.
  kEventNotAlways,       // The daemon is told only while it says that it sleeps.
  kNoFenceInTell,        // … or without a fence after what it has to see.
  kLooksAfterArmed,      // It says when it will look by itself after it says that it sleeps.
  kNoFenceAfterSleep,    // It looks at the locks without a fence after its sleep.
};

template <int kMutant, int kThis>
constexpr bool Is() {
  return kMutant == kThis;
}

struct Bucket {
  rl::atomic<unsigned> control;

  void Init() { control($).store(0, kRelaxed); }
  unsigned Lock(unsigned lane) {
    for (;;) {
      unsigned seen = control($).load(kRelaxed);
      if ((seen & kOwnerMask) == 0 &&
          control($).compare_exchange_strong(seen, seen | lane, kSeqCst, kRelaxed)) {
        return seen | lane;
      }
      rl::yield(1, $);
    }
  }
  void Unlock(unsigned locked, bool relaxed = false) {
    control($).store((locked & ~kOwnerMask) + kSequenceOne, relaxed ? kRelaxed : kRelease);
  }
};

// A futex: sleeping is waiting for another value, and waking lets everybody look. Nobody who slept
// through the last wake-up ever looks again.
struct Futex {
  rl::atomic<unsigned> word;
  rl::mutex mutex;
  rl::condition_variable woken;

  void Init() { word($).store(0, kRelaxed); }
  void Wait(unsigned expected) {
    mutex.lock($);
    // As the kernel does: the word is looked at with the queue's lock held.
    if (word($).load(kSeqCst) == expected) woken.wait(mutex, $);
    mutex.unlock($);
  }
  void Wake() {
    mutex.lock($);
    woken.notify_all($);
    mutex.unlock($);
  }
};

// One process releases, one waits: the engine's Wait against Release, Serve and PayWakes.
template <int kMutant>
struct HandoverModel : rl::test_suite<HandoverModel<kMutant>, 2> {
  Bucket bucket;
  rl::atomic<unsigned> state;
  rl::atomic<unsigned> token;
  rl::atomic<unsigned> sleeping;
  Futex event;
  rl::var<unsigned> resource;  // What the lock protects.

  void before() {
    bucket.Init();
    event.Init();
    state($).store(kWaiting, kRelaxed);
    token($).store(0, kRelaxed);
    sleeping($).store(0, kRelaxed);
    resource($) = 1;
  }
  void Grant() {
    token($).store(7, kRelaxed);
    if (!Is<kMutant, kStateRelaxed>()) rl::atomic_thread_fence(kRelease, $);
    state($).store(kHolding, Is<kMutant, kStateRelaxed>() ? kRelaxed : kRelease);
  }
  void Release() {
    resource($) = 2;
    const unsigned locked = bucket.Lock(1);
    if (Is<kMutant, kUnlockBeforeState>()) bucket.Unlock(locked);
    if (state($).load(kRelaxed) != kWaiting) return bucket.Unlock(locked);
    Grant();
    if (!Is<kMutant, kUnlockBeforeState>()) bucket.Unlock(locked);
    if (!Is<kMutant, kNoFenceInPayWakes>()) rl::atomic_thread_fence(kSeqCst, $);
    if (sleeping($).load(Is<kMutant, kNoFenceInPayWakes>() ? kRelaxed : kSeqCst) == 0) return;
    if (!Is<kMutant, kWakeWithoutEvent>()) event.word($).fetch_add(1, kSeqCst);
    event.Wake();
  }
  void Wait() {
    constexpr auto kLook = Is<kMutant, kLookRelaxed>() ? kRelaxed : kAcquire;
    for (;;) {
      unsigned seen = 0;
      unsigned now = 0;
      if (Is<kMutant, kStateBeforeSleeping>()) now = state($).load(kAcquire);
      if (!Is<kMutant, kEventAfterState>()) seen = event.word($).load(kAcquire);
      sleeping($).store(1, kRelaxed);
      if (!Is<kMutant, kNoFenceInWait>()) rl::atomic_thread_fence(kSeqCst, $);
      if (!Is<kMutant, kStateBeforeSleeping>()) {
        now = state($).load(kLook);
      }
      if (Is<kMutant, kEventAfterState>()) seen = event.word($).load(kSeqCst);
      if (now != kWaiting) break;
      event.Wait(seen);
    }
    sleeping($).store(0, kRelaxed);
    RL_ASSERT(state($).load(kLook) == kHolding);
    RL_ASSERT(token($).load(kRelaxed) == 7);
    RL_ASSERT(resource($) == 2);
    resource($) = 3;
  }
  void thread(unsigned index) {
    if (index == 0) {
      Release();
    } else {
      Wait();
    }
  }
};

// A waiter that gives up against the grant: it has left or it holds, and never both or neither.
template <int kMutant>
struct CancelModel : rl::test_suite<CancelModel<kMutant>, 2> {
  Bucket bucket;
  rl::atomic<unsigned> state;
  rl::var<unsigned> queued;  // Under the bucket, as the lists are.
  rl::var<unsigned> holding;

  void before() {
    bucket.Init();
    state($).store(kWaiting, kRelaxed);
    queued($) = 1;
    holding($) = 0;
  }
  void Grant() {
    const unsigned locked = bucket.Lock(1);
    if (Is<kMutant, kUnlockBeforeState>()) bucket.Unlock(locked);
    if (queued($) == 1) {
      queued($) = 0;
      holding($) = 1;
      state($).store(kHolding, kRelease);
    }
    if (!Is<kMutant, kUnlockBeforeState>()) {
      bucket.Unlock(locked, Is<kMutant, kUnlockRelaxed>());
    }
  }
  void Leave() {
    const unsigned seen = state($).load(kAcquire);
    RL_ASSERT(seen == kWaiting || seen == kHolding);
    const unsigned locked = bucket.Lock(2);
    const unsigned now = state($).load(kRelaxed);
    RL_ASSERT((now == kHolding) == (holding($) == 1));
    RL_ASSERT((now == kWaiting) == (queued($) == 1));
    queued($) = 0;
    holding($) = 0;
    state($).store(kClaimed, kRelease);
    bucket.Unlock(locked, Is<kMutant, kUnlockRelaxed>());
  }
  void thread(unsigned index) {
    if (index == 0) {
      Grant();
    } else {
      Leave();
    }
  }
  void after() { RL_ASSERT(holding($) == 0 && queued($) == 0); }
};

// The daemon looks at the locks and sleeps; meanwhile two things happen, each of which needs a look
// before a given time. It sleeps with no end of its own, or until a time that is early enough.
template <int kMutant>
struct DaemonModel : rl::test_suite<DaemonModel<kMutant>, 2> {
  static constexpr unsigned kNever = 100;
  rl::atomic<unsigned> armed;
  rl::atomic<unsigned> looks;  // When it looks by itself.
  rl::atomic<unsigned> due;    // When the next lease ends that somebody waits for.
  Futex event;
  rl::var<unsigned> early;  // The sleep ended by itself, in time.

  void before() {
    event.Init();
    armed($).store(0, kRelaxed);
    looks($).store(0, kRelaxed);
    due($).store(kNever, kRelaxed);
    early($) = 0;
  }
  void Tell(unsigned look) {
    if (!Is<kMutant, kNoFenceInTell>()) rl::atomic_thread_fence(kSeqCst, $);
    const bool sleeps = armed($).load(Is<kMutant, kNoFenceInTell>() ? kRelaxed : kSeqCst) != 0;
    if (sleeps && looks($).load(kRelaxed) <= look) return;
    if (Is<kMutant, kEventNotAlways>() && !sleeps) return;
    event.word($).fetch_add(1, kSeqCst);
    if (armed($).load(kSeqCst) != 0) event.Wake();
  }
  // One round of the daemon's loop: what it saw last, and until when it need not look.
  unsigned SleepOnce(unsigned seen, unsigned until) {
    if (!Is<kMutant, kLooksAfterArmed>()) looks($).store(until, kRelaxed);
    armed($).store(1, kSeqCst);
    const unsigned now = event.word($).load(kSeqCst);
    if (Is<kMutant, kLooksAfterArmed>()) looks($).store(until, kRelaxed);
    // A sleep that ends by itself is long over for whoever relies on it.
    if (now == seen && until == kNever) event.Wait(now);
    armed($).store(0, kSeqCst);
    if (!Is<kMutant, kNoFenceAfterSleep>()) rl::atomic_thread_fence(kSeqCst, $);
    return event.word($).load(kSeqCst);
  }
  void thread(unsigned index) {
    if (index == 0) {
      due($).store(5, kRelaxed);
      Tell(5);
      return;
    }
    // First a short sleep, whose mark must not be taken for the long one's.
    unsigned seen = event.word($).load(kSeqCst);
    seen = SleepOnce(seen, 3);
    while (due($).load(kRelaxed) == kNever) seen = SleepOnce(seen, kNever);
  }
};

}  // namespace

int main(int argc, char** argv) {
  TakeIterations(argc, argv);
  Expect<HandoverModel<kNone>>("handover", true);
  Expect<CancelModel<kNone>>("giving up", true);
  Expect<DaemonModel<kNone>>("daemon", true);
  Expect<HandoverModel<kNoFenceInPayWakes>>("handover, no fence before the wake-up", false);
  Expect<HandoverModel<kStateBeforeSleeping>>("handover, state looked at first", false);
  Expect<HandoverModel<kEventAfterState>>("handover, event looked at last", false);
  Expect<HandoverModel<kNoFenceInWait>>("handover, no fence before the look", false);
  Expect<HandoverModel<kStateRelaxed>>("handover, relaxed state", false);
  Expect<HandoverModel<kLookRelaxed>>("handover, relaxed look", false);
  Expect<HandoverModel<kWakeWithoutEvent>>("handover, event not changed", false);
  Expect<CancelModel<kUnlockBeforeState>>("giving up, bucket free too early", false);
  Expect<CancelModel<kUnlockRelaxed>>("giving up, relaxed unlock", false);
  Expect<DaemonModel<kEventNotAlways>>("daemon, told only while it sleeps", false);
  Expect<DaemonModel<kNoFenceInTell>>("daemon, no fence before telling", false);
  Expect<DaemonModel<kLooksAfterArmed>>("daemon, its next look told last", false);
  Expect<DaemonModel<kNoFenceAfterSleep>>("daemon, no fence after its sleep", false);
  return Summary();
}
