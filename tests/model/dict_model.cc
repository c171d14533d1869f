// Relacy models of the dict's protocol: readers that pass held buckets while blocks are used again,
// numbers that change in place, transactions under a mark, rings of changes that are written over,
// and the move to another segment. Each model follows the engine's code line by line
// (state/dict_internal.h, dict_read.cc, dict_write.cc, dict_transact.cc, dict_blocks.cc,
// dict_recovery.cc) with Relacy's atomics, which explore the orders that the C++ memory model
// allows, on any hardware. Every memory-order rule has a mutant that drops it and must fail.
//
//   dict_model [iterations]      default 200,000 schedules for each model
#include "tests/model/expect.h"

namespace {

using namespace statehouse::model;  // NOLINT: a program of its own.

constexpr unsigned kOwnerMask = 15;
constexpr unsigned kSequenceOne = 16;
constexpr unsigned kMark = 1u << 31;

enum Mutant {
  kNone,
  // Readers and blocks.
  kNoFenceBeforeFill,     // A block is filled without a release fence.
  kNoFenceBeforeGive,     // A block goes to the free list without a release fence.
  kNoFenceBeforeRecheck,  // No acquire fence between what was copied and the second look.
  kNoRecheck,             // The reader does not look at the control word again.
  kSlotRelaxed,           // The slot is published with a relaxed store.
  // Numbers.
  kVersionRelaxed,      // The cell's version is published with a relaxed store.
  kVersionLoadRelaxed,  // … or read with a relaxed load.
  kNewerCell,           // The number is changed in the cell that readers look at.
  kBitsRelaxed,         // The number is stored without any release.
  // Transactions.
  kNoMark,            // The buckets are not marked.
  kMarkRelaxed,       // The mark may become visible after the change.
  kMarkClearedEarly,  // One bucket's mark goes before the other bucket changes.
  kMarkLoadRelaxed,   // Who sees that the mark is gone need not see the whole transaction.
  // Rings.
  kNoReserve,             // The reservation is stored after the bytes.
  kNoFenceAfterReserve,   // … or without a release fence behind it.
  kHeadRelaxed,           // The head is published with a relaxed store.
  kReserveLookedAtFirst,  // The reader looks at the reservation before it copies.
  kNoFenceBeforeReserve,  // … or without an acquire fence in between.
  // Moves.
  kStateLoadRelaxed,   // A writer's look at the state is relaxed.
  kStateStoreRelaxed,  // The mover's change of the state is relaxed.
  kIdleNotAwaited,     // The mover does not wait for who is inside.
};

template <int kMutant, int kThis>
constexpr bool Is() {
  return kMutant == kThis;
}

struct Lockable {
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
  void Unlock(unsigned locked) {
    control($).store((locked & ~kOwnerMask) + kSequenceOne, kRelease);
  }
};

// A writer that sets one key several times with two blocks, each of two words; what it replaces it
// uses for the next value, or gives to the free list, which stores a link into it. A reader copies.
template <int kMutant, bool kGives = false>
struct ReuseModel : rl::test_suite<ReuseModel<kMutant, kGives>, 2> {
  Lockable bucket;
  Lockable allocator;
  rl::atomic<unsigned> slot;
  rl::atomic<unsigned> block[2][2];

  void before() {
    bucket.Init();
    allocator.Init();
    slot($).store(0, kRelaxed);
    for (auto& words : block) {
      words[0]($).store(0, kRelaxed);
      words[1]($).store(0, kRelaxed);
    }
  }
  void Fill(unsigned ref, unsigned value) {
    if (!Is<kMutant, kNoFenceBeforeFill>()) rl::atomic_thread_fence(kRelease, $);
    block[ref][0]($).store(value, kRelaxed);
    block[ref][1]($).store(value, kRelaxed);
  }
  void Set(unsigned ref, unsigned value) {
    Fill(ref, value);
    const unsigned locked = bucket.Lock(1);
    slot($).store(ref, Is<kMutant, kSlotRelaxed>() ? kRelaxed : kRelease);
    bucket.Unlock(locked);
  }
  void Give(unsigned ref) {
    const unsigned locked = allocator.Lock(1);
    if (!Is<kMutant, kNoFenceBeforeGive>()) rl::atomic_thread_fence(kRelease, $);
    block[ref][0]($).store(99, kRelaxed);  // The link to the next free block.
    allocator.Unlock(locked);
  }
  void Read() {
    for (;;) {
      const unsigned word = bucket.control($).load(kAcquire);
      const unsigned ref = slot($).load(kAcquire);
      const unsigned first = block[ref][0]($).load(kRelaxed);
      const unsigned second = block[ref][1]($).load(kRelaxed);
      if (!Is<kMutant, kNoFenceBeforeRecheck>()) rl::atomic_thread_fence(kAcquire, $);
      if (Is<kMutant, kNoRecheck>() || bucket.control($).load(kRelaxed) == word) {
        RL_ASSERT(first == second);
        RL_ASSERT(first % 2 == ref);
        return;
      }
      rl::yield(1, $);
    }
  }
  void thread(unsigned index) {
    if (index == 1) {
      Read();
      return;
    }
    Set(1, 1);
    if (kGives) {
      Give(0);
    } else {
      Set(0, 2);
      Set(1, 3);
    }
  }
};

// A number in two cells; cell versions say which counts. The value is ten times its version.
template <int kMutant>
struct NumberModel : rl::test_suite<NumberModel<kMutant>, 2> {
  Lockable bucket;
  rl::atomic<unsigned> bits[2];
  rl::atomic<unsigned> version[2];

  void before() {
    bucket.Init();
    bits[0]($).store(10, kRelaxed);
    version[0]($).store(1, kRelaxed);
    bits[1]($).store(0, kRelaxed);
    version[1]($).store(0, kRelaxed);
  }
  void Add() {
    const unsigned locked = bucket.Lock(1);
    const unsigned first = version[0]($).load(kRelaxed);
    const unsigned second = version[1]($).load(kRelaxed);
    const unsigned newer = second > first ? 1 : 0;
    const unsigned next = (newer == 1 ? second : first) + 1;
    const unsigned cell = Is<kMutant, kNewerCell>() ? newer : 1 - newer;
    if (!Is<kMutant, kBitsRelaxed>()) rl::atomic_thread_fence(kRelease, $);
    bits[cell]($).store(10 * next, Is<kMutant, kBitsRelaxed>() ? kRelaxed : kRelease);
    version[cell]($).store(next, Is<kMutant, kVersionRelaxed>() ? kRelaxed : kRelease);
    bucket.Unlock(locked);
  }
  void Read() {
    constexpr auto kOrder = Is<kMutant, kVersionLoadRelaxed>() ? kRelaxed : kAcquire;
    for (;;) {
      const unsigned word = bucket.control($).load(kAcquire);
      const unsigned first = version[0]($).load(kOrder);
      const unsigned second = version[1]($).load(kOrder);
      const unsigned newer = second > first ? 1 : 0;
      const unsigned number = bits[newer]($).load(kRelaxed);
      if (!Is<kMutant, kNoFenceBeforeRecheck>()) rl::atomic_thread_fence(kAcquire, $);
      if (bucket.control($).load(kRelaxed) == word) {
        RL_ASSERT(number == 10 * (newer == 1 ? second : first));
        return;
      }
      rl::yield(1, $);
    }
  }
  void thread(unsigned index) {
    if (index == 1) {
      Read();
      return;
    }
    for (int i = 0; i < 3; ++i) Add();
  }
};

// A transaction changes the keys of two buckets from 0 to 1. Each reader looks at one key and then
// at the other one.
template <int kMutant>
struct TransactionModel : rl::test_suite<TransactionModel<kMutant>, 3> {
  struct Bucket : Lockable {
    rl::atomic<unsigned> slot;
    rl::atomic<unsigned> link;
  };
  Bucket buckets[2];

  void before() {
    for (Bucket& bucket : buckets) {
      bucket.Init();
      bucket.slot($).store(0, kRelaxed);
      bucket.link($).store(0, kRelaxed);
    }
  }
  void Mark(int bucket, bool on) {
    if (Is<kMutant, kNoMark>()) return;
    buckets[bucket].link($).store(on ? kMark : 0,
                                  Is<kMutant, kMarkRelaxed>() ? kRelaxed : kRelease);
  }
  void Transact() {
    const unsigned first = buckets[0].Lock(1);
    const unsigned second = buckets[1].Lock(1);
    Mark(0, true);
    Mark(1, true);
    constexpr auto kOrder = Is<kMutant, kMarkRelaxed>() ? kRelaxed : kRelease;
    if (!Is<kMutant, kMarkRelaxed>()) rl::atomic_thread_fence(kRelease, $);
    buckets[0].slot($).store(1, kOrder);
    if (Is<kMutant, kMarkClearedEarly>()) Mark(0, false);
    buckets[1].slot($).store(1, kOrder);
    if (!Is<kMutant, kMarkClearedEarly>()) Mark(0, false);
    Mark(1, false);
    buckets[1].Unlock(second);
    buckets[0].Unlock(first);
  }
  unsigned Get(int key) {
    Bucket& bucket = buckets[key];
    constexpr auto kOrder = Is<kMutant, kMarkLoadRelaxed>() ? kRelaxed : kAcquire;
    for (;;) {
      const unsigned word = bucket.control($).load(kAcquire);
      const unsigned value = bucket.slot($).load(kAcquire);
      rl::atomic_thread_fence(kAcquire, $);
      const unsigned link = bucket.link($).load(kOrder);
      if ((link & kMark) == 0 && bucket.control($).load(kRelaxed) == word) return value;
      rl::yield(1, $);
    }
  }
  void thread(unsigned index) {
    if (index == 0) {
      Transact();
      return;
    }
    const int key = static_cast<int>(index) - 1;
    const unsigned earlier = Get(key);
    const unsigned later = Get(1 - key);
    RL_ASSERT(later >= earlier);
  }
};

// A ring of two records that a writer fills four times; record n holds n + 1. The reader takes one
// record that the head covers, and must know when it was written over meanwhile.
template <int kMutant>
struct RingModel : rl::test_suite<RingModel<kMutant>, 2> {
  static constexpr unsigned kRecords = 2;
  rl::atomic<unsigned> reserve;
  rl::atomic<unsigned> head;
  rl::atomic<unsigned> record[kRecords];

  void before() {
    reserve($).store(0, kRelaxed);
    head($).store(0, kRelaxed);
    for (auto& word : record) word($).store(0, kRelaxed);
  }
  void Append(unsigned at) {
    if (!Is<kMutant, kNoReserve>()) reserve($).store(at + 1, kRelaxed);
    if (!Is<kMutant, kNoFenceAfterReserve>()) rl::atomic_thread_fence(kRelease, $);
    record[at % kRecords]($).store(at + 1, kRelaxed);
    if (Is<kMutant, kNoReserve>()) reserve($).store(at + 1, kRelaxed);
    head($).store(at + 1, Is<kMutant, kHeadRelaxed>() ? kRelaxed : kRelease);
  }
  void Take() {
    const unsigned end = head($).load(kAcquire);
    if (end == 0) return;
    const unsigned at = end - 1;
    unsigned reserved = 0;
    if (Is<kMutant, kReserveLookedAtFirst>()) reserved = reserve($).load(kRelaxed);
    const unsigned value = record[at % kRecords]($).load(kRelaxed);
    if (!Is<kMutant, kNoFenceBeforeReserve>()) rl::atomic_thread_fence(kAcquire, $);
    if (!Is<kMutant, kReserveLookedAtFirst>()) reserved = reserve($).load(kRelaxed);
    if (reserved > at + kRecords) return;  // Written over: the reader begins again.
    RL_ASSERT(value == at + 1);
  }
  void thread(unsigned index) {
    if (index == 1) {
      Take();
      return;
    }
    for (unsigned at = 0; at < 4; ++at) Append(at);
  }
};

// A writer and the daemon that moves the dict: what the writer is told to have written is in the
// copy.
template <int kMutant>
struct MoveModel : rl::test_suite<MoveModel<kMutant>, 2> {
  Lockable bucket;
  rl::atomic<unsigned> state;
  rl::atomic<unsigned> slot;
  rl::var<unsigned> acknowledged;
  rl::var<unsigned> copied;

  void before() {
    bucket.Init();
    state($).store(0, kRelaxed);
    slot($).store(0, kRelaxed);
    acknowledged($) = 0;
    copied($) = 0;
  }
  void Write(unsigned value) {
    const unsigned locked = bucket.Lock(1);
    const bool live = state($).load(Is<kMutant, kStateLoadRelaxed>() ? kRelaxed : kSeqCst) == 0;
    if (live) {
      slot($).store(value, kRelease);
      acknowledged($) = value;
    }
    bucket.Unlock(locked);
  }
  void Move() {
    state($).store(1, Is<kMutant, kStateStoreRelaxed>() ? kRelaxed : kSeqCst);
    while (!Is<kMutant, kIdleNotAwaited>() && (bucket.control($).load(kSeqCst) & kOwnerMask) != 0) {
      rl::yield(1, $);
    }
    copied($) = slot($).load(kAcquire);
  }
  void thread(unsigned index) {
    if (index == 1) {
      Move();
      return;
    }
    Write(1);
    Write(2);
  }
  void after() { RL_ASSERT(copied($) == acknowledged($)); }
};

}  // namespace

int main(int argc, char** argv) {
  TakeIterations(argc, argv);
  Expect<ReuseModel<kNone>>("reader and reuse", true);
  Expect<ReuseModel<kNone, true>>("reader and free list", true);
  Expect<NumberModel<kNone>>("number", true);
  Expect<TransactionModel<kNone>>("transaction", true);
  Expect<RingModel<kNone>>("ring", true);
  Expect<MoveModel<kNone>>("move", true);
  Expect<ReuseModel<kNoFenceBeforeFill>>("reader and reuse, no fence before a fill", false);
  Expect<ReuseModel<kNoFenceBeforeGive, true>>("reader and free list, no fence", false);
  Expect<ReuseModel<kNoFenceBeforeRecheck>>("reader and reuse, no fence before recheck", false);
  Expect<ReuseModel<kNoRecheck>>("reader and reuse, no recheck", false);
  Expect<ReuseModel<kSlotRelaxed>>("reader and reuse, relaxed slot", false);
  Expect<NumberModel<kVersionRelaxed>>("number, relaxed version", false);
  Expect<NumberModel<kVersionLoadRelaxed>>("number, relaxed look at the version", false);
  Expect<NumberModel<kNewerCell>>("number, the newer cell changed", false);
  Expect<NumberModel<kBitsRelaxed>>("number, no release before the number", false);
  Expect<NumberModel<kNoFenceBeforeRecheck>>("number, no fence before recheck", false);
  Expect<TransactionModel<kNoMark>>("transaction, no mark", false);
  Expect<TransactionModel<kMarkRelaxed>>("transaction, relaxed mark", false);
  Expect<TransactionModel<kMarkClearedEarly>>("transaction, mark cleared early", false);
  Expect<TransactionModel<kMarkLoadRelaxed>>("transaction, relaxed look at the mark", false);
  Expect<RingModel<kNoReserve>>("ring, reserved afterwards", false);
  Expect<RingModel<kNoFenceAfterReserve>>("ring, no fence after the reservation", false);
  Expect<RingModel<kHeadRelaxed>>("ring, relaxed head", false);
  Expect<RingModel<kReserveLookedAtFirst>>("ring, reservation looked at first", false);
  Expect<RingModel<kNoFenceBeforeReserve>>("ring, no fence before the reservation", false);
  Expect<MoveModel<kStateLoadRelaxed>>("move, relaxed look at the state", false);
  Expect<MoveModel<kStateStoreRelaxed>>("move, relaxed state", false);
  Expect<MoveModel<kIdleNotAwaited>>("move, who is inside is not awaited", false);
  return Summary();
}
