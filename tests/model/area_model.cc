// Relacy models of the area's protocol: the owned lock, the mix of word and range operations, and
// waiting. Each model follows the engine's code line by line (shm/owned_lock.h,
// state/area_inline.h, area_ranges.cc, area_wait.cc) with Relacy's atomics, which explore the
// orders that the C++ memory model allows, on any hardware. Every memory-order rule has a mutant
// that drops it and must fail.
//
//   area_model [iterations]      default 200,000 schedules for each model
#include "tests/model/expect.h"

namespace {

using namespace statehouse::model;  // NOLINT: a program of its own.

constexpr unsigned kOwnerMask = 15;
constexpr unsigned kSequenceOne = 16;

enum Mutant {
  kNone,
  kUnlockRelaxed,         // The release of a stripe is relaxed.
  kLockRelaxed,           // The exchange that takes a stripe is relaxed.
  kNoFenceAfterOdd,       // No release fence between odd counters and data.
  kNoFenceBeforeRecheck,  // No acquire fence between data and the second look.
  kWordNotValidated,   // The inline word path trusts a value that it read before the lock and does
                       // not compare the word.
  kCheckBeforeArming,  // A waiter looks first and arms then.
  kBumpBeforeClear,    // A waker bumps the event before it clears the flag.
  kArmedLoadRelaxed,   // The writer's look at the flag is relaxed, and so is its lock.
  kEventReadLate,      // A waiter reads the event after it has looked.
  kOwnedIgnored,       // A waiter sleeps although a writer is inside.
};

// One stripe with two words.
struct Stripe {
  rl::atomic<unsigned> control;
  rl::atomic<unsigned> counter;
  rl::atomic<unsigned> word[2];

  void Init() {
    control($).store(0, kRelaxed);
    counter($).store(0, kRelaxed);
    word[0]($).store(0, kRelaxed);
    word[1]($).store(0, kRelaxed);
  }

  template <int kMutant>
  unsigned Lock(unsigned lane) {
    for (;;) {
      unsigned seen = control($).load(kRelaxed);
      if ((seen & kOwnerMask) == 0) {
        const auto order =
            kMutant == kLockRelaxed || kMutant == kArmedLoadRelaxed ? kRelaxed : kSeqCst;
        if (control($).compare_exchange_strong(seen, seen | lane, order, kRelaxed))
          return seen | lane;
      }
      rl::yield(1, $);
    }
  }

  template <int kMutant>
  void Unlock(unsigned locked) {
    control($).store((locked & ~kOwnerMask) + kSequenceOne,
                     kMutant == kUnlockRelaxed ? kRelaxed : kRelease);
  }

  // area_ranges.cc, CommitRange: both words take one value.
  template <int kMutant>
  void WriteRange(unsigned lane, unsigned value) {
    const unsigned locked = Lock<kMutant>(lane);
    counter($).store(counter($).load(kRelaxed) + 1, kRelaxed);
    if (kMutant != kNoFenceAfterOdd) rl::atomic_thread_fence(kRelease, $);
    word[0]($).store(value, kRelaxed);
    word[1]($).store(value, kRelaxed);
    counter($).store(counter($).load(kRelaxed) + 1, kRelease);
    Unlock<kMutant>(locked);
  }

  // area_inline.h, TryMutateInline in a loop.
  template <int kMutant>
  void AddWord(unsigned lane, int index) {
    for (;;) {
      unsigned seen = control($).load(kAcquire);
      unsigned value = word[index]($).load(kRelaxed);
      if ((seen & kOwnerMask) == 0) {
        if (kMutant == kWordNotValidated) seen = control($).load(kRelaxed) & ~kOwnerMask;
        if (control($).compare_exchange_strong(seen, seen | lane, kSeqCst, kRelaxed)) {
          rl::atomic_thread_fence(kRelease, $);
          word[index]($).store(value + 1, kRelease);
          control($).store((seen & ~kOwnerMask) + kSequenceOne, kRelease);
          return;
        }
      }
      rl::yield(1, $);
    }
  }

  // area_inline.h, TryLoadInline in a loop.
  template <int kMutant>
  unsigned LoadWord(int index) {
    for (;;) {
      const unsigned before = counter($).load(kAcquire);
      if ((before & 1) == 0) {
        const unsigned value = word[index]($).load(kAcquire);
        if (kMutant != kNoFenceBeforeRecheck) rl::atomic_thread_fence(kAcquire, $);
        if (counter($).load(kRelaxed) == before) return value;
      }
      rl::yield(1, $);
    }
  }

  // area_ranges.cc, TryReadPiece in a loop.
  template <int kMutant>
  void ReadRange(unsigned* first, unsigned* second) {
    for (;;) {
      const unsigned before = control($).load(kAcquire);
      if ((before & kOwnerMask) == 0) {
        *first = word[0]($).load(kRelaxed);
        *second = word[1]($).load(kRelaxed);
        if (kMutant != kNoFenceBeforeRecheck) rl::atomic_thread_fence(kAcquire, $);
        if (control($).load(kRelaxed) == before) return;
      }
      rl::yield(1, $);
    }
  }
};

// Two holders change a plain variable: Relacy reports any race on it.
template <int kMutant>
struct LockModel : rl::test_suite<LockModel<kMutant>, 2> {
  Stripe stripe;
  rl::var<unsigned> guarded;

  void before() {
    stripe.Init();
    guarded($) = 0;
  }
  void thread(unsigned index) {
    for (int i = 0; i < 2; ++i) {
      const unsigned locked = stripe.Lock<kMutant>(index + 1);
      guarded($) = guarded($) + 1;
      stripe.Unlock<kMutant>(locked);
    }
  }
  void after() { RL_ASSERT(guarded($) == 4); }
};

// A range writer, a range reader, and a word reader that looks at one word and then at the other.
template <int kMutant>
struct RangeModel : rl::test_suite<RangeModel<kMutant>, 3> {
  Stripe stripe;

  void before() { stripe.Init(); }
  void thread(unsigned index) {
    if (index == 0) {
      stripe.WriteRange<kMutant>(1, 1);
      stripe.WriteRange<kMutant>(1, 2);
    } else if (index == 1) {
      unsigned first = 0;
      unsigned second = 0;
      stripe.ReadRange<kMutant>(&first, &second);
      RL_ASSERT(first == second);
    } else {
      const unsigned later = stripe.LoadWord<kMutant>(1);
      const unsigned again = stripe.LoadWord<kMutant>(0);
      RL_ASSERT(again >= later);
    }
  }
};

// Two inline adders and a range writer on the same words: no add is lost that was not overwritten.
template <int kMutant>
struct AddModel : rl::test_suite<AddModel<kMutant>, 3> {
  Stripe stripe;

  void before() { stripe.Init(); }
  void thread(unsigned index) {
    if (index < 2) {
      stripe.AddWord<kMutant>(index + 1, 0);
    } else {
      stripe.WriteRange<kMutant>(3, 10);
    }
  }
  void after() {
    const unsigned value = stripe.word[0]($).load(kRelaxed);
    RL_ASSERT(value >= 10 && value <= 12);
    RL_ASSERT(stripe.word[1]($).load(kRelaxed) == 10);
    RL_ASSERT(stripe.control($).load(kRelaxed) == 3 * kSequenceOne);
  }
};

// Two adders alone must both count.
template <int kMutant>
struct CountModel : rl::test_suite<CountModel<kMutant>, 2> {
  Stripe stripe;

  void before() { stripe.Init(); }
  void thread(unsigned index) {
    stripe.AddWord<kMutant>(index + 1, 0);
    stripe.AddWord<kMutant>(index + 1, 0);
  }
  void after() { RL_ASSERT(stripe.word[0]($).load(kRelaxed) == 4); }
};

// A futex: compare and sleep in one step; a sleeper that nobody wakes is a deadlock, which Relacy
// reports.
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

// Two writers make one update each; a waiter waits for both, one after the other.
template <int kMutant>
struct WaitModel : rl::test_suite<WaitModel<kMutant>, 3> {
  Stripe stripe;
  rl::atomic<unsigned> armed;
  rl::atomic<unsigned> event;
  Futex futex;

  void before() {
    stripe.Init();
    armed($).store(0, kRelaxed);
    event($).store(0, kRelaxed);
  }
  void Update(unsigned lane) {
    const unsigned locked = stripe.Lock<kMutant>(lane);
    const bool wake = armed($).load(kMutant == kArmedLoadRelaxed ? kRelaxed : kSeqCst) != 0;
    stripe.Unlock<kMutant>(locked);
    if (!wake) return;
    if (kMutant == kBumpBeforeClear) {
      event($).fetch_add(1, kSeqCst);
      futex.WakeAll();
      armed($).store(0, kSeqCst);
    } else {
      armed($).store(0, kSeqCst);
      event($).fetch_add(1, kSeqCst);
      futex.WakeAll();
    }
  }
  void WaitFor(unsigned since) {
    for (;;) {
      unsigned seen = event($).load(kSeqCst);
      if (kMutant == kCheckBeforeArming) {
        if (stripe.control($).load(kSeqCst) / kSequenceOne != since) return;
      }
      armed($).exchange(1, kSeqCst);
      const unsigned control = stripe.control($).load(kSeqCst);
      if (kMutant != kCheckBeforeArming && control / kSequenceOne != since) return;
      if ((control & kOwnerMask) != 0 && kMutant != kOwnedIgnored) {
        rl::yield(1, $);
        continue;
      }
      if (kMutant == kEventReadLate) seen = event($).load(kSeqCst);
      futex.Wait(event, seen);
    }
  }
  void thread(unsigned index) {
    if (index < 2) {
      Update(index + 1);
    } else {
      WaitFor(0);
      WaitFor(1);
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  TakeIterations(argc, argv);
  Expect<LockModel<kNone>>("lock", true);
  Expect<RangeModel<kNone>>("word and range", true);
  Expect<AddModel<kNone>>("inline add and range", true);
  Expect<CountModel<kNone>>("inline add", true);
  Expect<WaitModel<kNone>>("wait", true);
  Expect<LockModel<kUnlockRelaxed>>("lock, relaxed release", false);
  Expect<LockModel<kLockRelaxed>>("lock, relaxed acquire", false);
  Expect<RangeModel<kNoFenceAfterOdd>>("word and range, no fence after odd", false);
  Expect<RangeModel<kNoFenceBeforeRecheck>>("word and range, no fence before recheck", false);
  Expect<CountModel<kWordNotValidated>>("inline add, word not validated", false);
  Expect<WaitModel<kCheckBeforeArming>>("wait, check before arming", false);
  Expect<WaitModel<kBumpBeforeClear>>("wait, bump before clear", false);
  Expect<WaitModel<kArmedLoadRelaxed>>("wait, relaxed look at the flag", false);
  Expect<WaitModel<kEventReadLate>>("wait, event read late", false);
  Expect<WaitModel<kOwnedIgnored>>("wait, sleeps over a held stripe", false);
  return Summary();
}
