#include "service/rpc/read_gate.h"

#include <errno.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <utility>

#include "engine/os/futex.h"
#include "service/rpc/kernel_calls.h"

namespace statehouse {
namespace {

constexpr size_t kPageSlots = 256;
constexpr size_t kPages = kGatedDescriptorsMax / kPageSlots;
constexpr size_t kPartsMax = 64;  // Of a message's space; gRPC offers no more.

}  // namespace

struct ReadGate::Slot {
  // SYNC: gate.admit. False: none of the rest counts.
  std::atomic<bool> is_gated{false};
  // Of whoever reads the connection: gRPC sees to it that this is one thread at a time.
  std::atomic<uint64_t> round{0};  // Of the turn that the next two are of.
  std::atomic<uint32_t> used{0};   // Bytes.
  std::atomic<bool> was_cut{false};
  std::atomic<uint32_t> share{kStrangerShareMax};
  std::atomic<uint32_t> share_max{kStrangerShareMax};
  std::atomic<bool> is_paused{false};  // Or ended: the lock is to be taken to learn more.

  // Under the table's lock.
  ReadGate* gate = nullptr;
  uint64_t generation = 0;  // Of the descriptor's number.
  std::optional<TcpPeer> peer;
  int epoll = -1;  // That it is registered in; -1: none yet.
  epoll_event interest{};
  uint64_t until_ns = 0;    // Of its pause.
  bool is_waiting = false;  // For RearmDue; its epoll does not report bytes meanwhile.
  Standing standing = Standing::kStranger;
  bool was_useful = false;
  bool was_paused = false;
  uint32_t stranger_turns = 0;  // That were cut off.
  bool is_wasteful = false;     // Since it was of use last.
  uint64_t wasteful_bytes = 0;  // Of turns that were cut off since then and not paid for.
  uint32_t pauses = 0;          // That it waited for since it was of use last.
  bool owes_turn = false;       // It waits for one that is to be paid for.
  bool is_ended = false;

  bool OwesPause();
  uint32_t Room() const {
    const uint32_t limit = share.load(std::memory_order_relaxed);
    const uint32_t now = used.load(std::memory_order_relaxed);
    return limit > now ? limit - now : 0;
  }
  // Has its epoll report it from now on. False: there is none, or it refuses.
  bool Report(int fd, uint32_t without = 0) const {
    if (epoll < 0) return false;
    epoll_event event = interest;
    event.events &= ~without;
    return NextKernelCalls().epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) == 0;
  }
};

// Of the process, as descriptors are.
struct ReadGate::Table {
  using Page = std::array<Slot, kPageSlots>;
  static inline std::mutex mutex;
  static inline std::array<std::atomic<Page*>, kPages> pages{};  // Made once, and kept.
  static inline std::atomic<uint64_t> round{1};  // Grows with each return of gRPC's epoll_wait.
  static inline std::atomic<int> epoll{-1};      // gRPC's.
  static inline std::atomic<bool> is_idle{true};

  static Slot* Find(int fd) {
    if (fd < 0 || static_cast<size_t>(fd) >= kGatedDescriptorsMax) return nullptr;
    const auto number = static_cast<size_t>(fd);
    // SYNC: gate.page.
    Page* const page = pages[number / kPageSlots].load(std::memory_order_acquire);
    return page == nullptr ? nullptr : &(*page)[number % kPageSlots];
  }
  static Slot* FindGated(int fd) {
    Slot* const slot = Find(fd);
    // SYNC: gate.admit.
    return slot != nullptr && slot->is_gated.load(std::memory_order_acquire) ? slot : nullptr;
  }
  // REQUIRES: mutex held.
  static Slot* Make(int fd) {
    if (fd < 0 || static_cast<size_t>(fd) >= kGatedDescriptorsMax) return nullptr;
    std::atomic<Page*>& page = pages[static_cast<size_t>(fd) / kPageSlots];
    if (page.load(std::memory_order_relaxed) == nullptr) {
      page.store(new Page(), std::memory_order_release);  // SYNC: gate.page.
    }
    return Find(fd);
  }
};

namespace {

// Bytes that a turn of so many may have next time.
uint32_t NextShare(uint32_t share, uint32_t share_max, uint64_t took_ns) {
  const uint64_t turn_ns = share_max == kShareMax ? kTurnNs : kStrangerTurnNs;
  if (took_ns > turn_ns) return std::max(share / 2, kShareMin);
  if (took_ns < turn_ns / 2) return std::min(share * 2, share_max);
  return std::min(share, share_max);
}

// The kernel's recvmsg with room for so many bytes at most.
ssize_t ReceiveAtMost(int fd, msghdr* message, uint32_t bytes_max) {
  std::array<iovec, kPartsMax> parts;
  size_t count = 0;
  size_t left = bytes_max;
  for (size_t i = 0; i < message->msg_iovlen && count < parts.size() && left > 0; ++i) {
    parts[count] = message->msg_iov[i];
    parts[count].iov_len = std::min(parts[count].iov_len, left);
    left -= parts[count++].iov_len;
  }
  iovec* const whole = std::exchange(message->msg_iov, parts.data());
  const size_t whole_count = std::exchange(message->msg_iovlen, count);
  const ssize_t got = NextKernelCalls().recvmsg(fd, message, 0);
  message->msg_iov = whole;
  message->msg_iovlen = whole_count;
  return got;
}

// The turn that this thread is in: from its first read to that of another, or to the next sleep.
struct Turn {
  std::atomic<bool>* was_cut = nullptr;  // Null: none.
  std::atomic<uint32_t>* share = nullptr;
  const std::atomic<uint32_t>* share_max = nullptr;
  uint64_t began_ns = 0;

  void End() {
    if (was_cut != nullptr && was_cut->load(std::memory_order_relaxed)) {
      was_cut->store(false, std::memory_order_relaxed);
      share->store(NextShare(share->load(std::memory_order_relaxed),
                             share_max->load(std::memory_order_relaxed), MonotonicNs() - began_ns),
                   std::memory_order_relaxed);
    }
    was_cut = nullptr;
  }
};
thread_local Turn this_turn;

}  // namespace

ReadGate::ReadGate(std::function<void()> wake, std::function<void(int)> on_open)
    : wake_(std::move(wake)), on_open_(std::move(on_open)) {}

ReadGate::~ReadGate() {
  EndPauses();
  const std::lock_guard<std::mutex> lock(Table::mutex);
  for (size_t page = 0; page < kPages; ++page) {
    if (Table::pages[page].load(std::memory_order_relaxed) == nullptr) continue;
    for (size_t i = 0; i < kPageSlots; ++i) {
      const int fd = static_cast<int>(page * kPageSlots + i);
      Slot* const slot = Table::Find(fd);
      if (slot->gate == this) Detach(fd, slot);
    }
  }
}

void ReadGate::Admit(int fd, const std::optional<TcpPeer>& peer) {
  const std::lock_guard<std::mutex> lock(Table::mutex);
  Slot* const slot = Table::Make(fd);
  if (slot == nullptr) return;
  if (slot->gate != nullptr) slot->gate->Detach(fd, slot);
  slot->gate = this;
  ++slot->generation;
  slot->peer = peer;
  slot->epoll = -1;
  slot->until_ns = 0;
  slot->is_waiting = slot->was_useful = slot->was_paused = slot->is_ended = false;
  slot->stranger_turns = 0;
  slot->wasteful_bytes = 0;
  slot->pauses = 0;
  slot->is_wasteful = false;
  slot->owes_turn = false;
  slot->is_paused.store(false, std::memory_order_relaxed);
  slot->used.store(0, std::memory_order_relaxed);
  slot->round.store(0, std::memory_order_relaxed);
  slot->was_cut.store(false, std::memory_order_relaxed);
  slot->share.store(kStrangerShareMax, std::memory_order_relaxed);
  // Unix sockets are trusted, so all they need is turns.
  slot->standing = peer.has_value() ? Standing::kStranger : Standing::kUseful;
  slot->share_max.store(peer.has_value() ? kStrangerShareMax : kShareMax,
                        std::memory_order_relaxed);
  open_.fetch_add(1, std::memory_order_relaxed);
  if (on_open_) on_open_(+1);
  if (peer.has_value()) {
    by_peer_.emplace(*peer, fd);
    to_raise_.fetch_add(1, std::memory_order_relaxed);
  }
  slot->is_gated.store(true, std::memory_order_release);  // SYNC: gate.admit.
}

void ReadGate::Detach(int fd, Slot* slot) {
  slot->is_gated.store(false, std::memory_order_release);  // SYNC: gate.admit.
  slot->gate = nullptr;
  slot->epoll = -1;
  open_.fetch_sub(1, std::memory_order_relaxed);
  if (on_open_) on_open_(-1);
  if (slot->standing != Standing::kUseful) to_raise_.fetch_sub(1, std::memory_order_relaxed);
  if (!slot->peer.has_value()) return;
  const auto [first, last] = by_peer_.equal_range(*slot->peer);
  const auto own = std::find_if(first, last, [fd](const auto& one) { return one.second == fd; });
  if (own != last) by_peer_.erase(own);
}

void ReadGate::SetStanding(Slot* slot, Standing standing) {
  const bool was_useful = slot->standing == Standing::kUseful;
  slot->standing = standing;
  slot->share_max.store(standing == Standing::kStranger ? kStrangerShareMax : kShareMax,
                        std::memory_order_relaxed);
  const bool is_useful = standing == Standing::kUseful;
  if (is_useful && !was_useful) to_raise_.fetch_sub(1, std::memory_order_relaxed);
  if (!is_useful && was_useful) to_raise_.fetch_add(1, std::memory_order_relaxed);
}

bool ReadGate::Raise(const TcpPeer& peer, Standing standing) {
  const std::lock_guard<std::mutex> lock(Table::mutex);
  bool is_first = false;
  const auto [first, last] = by_peer_.equal_range(peer);
  for (auto one = first; one != last; ++one) {
    Slot* const slot = Table::Find(one->second);
    SetStanding(slot, std::max(slot->standing, standing));
    const bool is_useful = standing == Standing::kUseful;
    if (is_useful) slot->is_wasteful = false;
    if (is_useful) slot->pauses = 0;
    if (is_useful && !std::exchange(slot->was_useful, true)) is_first = true;
  }
  return is_first;
}

bool ReadGate::Pause(const TcpPeer& peer, uint64_t until_ns) {
  const std::lock_guard<std::mutex> lock(Table::mutex);
  bool is_first = false;
  const auto [first, last] = by_peer_.equal_range(peer);
  for (auto one = first; one != last; ++one) {
    if (PauseOne(Table::Find(one->second), until_ns)) is_first = true;
  }
  return is_first;
}

bool ReadGate::PauseOne(Slot* slot, uint64_t until_ns) {
  slot->is_wasteful = true;
  slot->share.store(std::min(slot->share.load(std::memory_order_relaxed), kStrangerShareMax),
                    std::memory_order_relaxed);
  if (until_ns == 0 || pauses_are_over_) return false;
  SetStanding(slot, Standing::kStranger);
  slot->until_ns = std::max(slot->until_ns, until_ns);
  slot->is_paused.store(true, std::memory_order_relaxed);
  return !std::exchange(slot->was_paused, true);
}

void ReadGate::AddWait(int fd, Slot* slot) {
  const bool is_next = waits_.empty() || slot->until_ns < waits_.top().until_ns;
  waits_.push({slot->until_ns, fd, slot->generation});
  slot->is_waiting = true;
  if (is_next) wake_();
}

bool ReadGate::RefusePaused(int fd, Slot* slot) {
  if (slot->is_waiting) return true;
  if (pauses_are_over_ || slot->until_ns <= MonotonicNs()) {
    slot->is_paused.store(false, std::memory_order_relaxed);
    return false;
  }
  if (waits_.size() >= kPausedMax) {
    slot->is_ended = true;
    ended_.fetch_add(1, std::memory_order_relaxed);
    wake_();
    return true;
  }
  // What else arrives wakes nobody: RearmDue asks for it again.
  if (!slot->Report(fd, EPOLLIN)) return false;
  AddWait(fd, slot);
  return true;
}

// Of a turn that is cut off: whether the next one is not to follow at once.
bool ReadGate::Slot::OwesPause() {
  if (standing == Standing::kStranger) return ++stranger_turns > kStrangerTurns;
  if (!is_wasteful) return false;
  wasteful_bytes += used.load(std::memory_order_relaxed);
  if (wasteful_bytes < kWastefulBytes) return false;
  wasteful_bytes = 0;
  return true;
}

bool ReadGate::Refuse(int fd, Slot* slot) {
  if (slot->is_paused.load(std::memory_order_relaxed) && RefusePaused(fd, slot)) return true;
  if (slot->Room() > 0) return false;
  const bool was_cut = slot->was_cut.load(std::memory_order_relaxed);
  if (!was_cut && !pauses_are_over_ && slot->OwesPause()) {
    slot->until_ns = std::max(slot->until_ns, MonotonicNs() + kTurnPauseNs);
    slot->is_paused.store(true, std::memory_order_relaxed);
    slot->owes_turn = true;
    if (RefusePaused(fd, slot)) return true;
  }
  if (!slot->Report(fd)) return false;
  slot->was_cut.store(true, std::memory_order_relaxed);
  return true;
}

ssize_t ReadGate::Receive(int fd, msghdr* message, int flags) {
  Slot* const slot = Table::FindGated(fd);
  if (slot == nullptr || flags != 0) return NextKernelCalls().recvmsg(fd, message, flags);
  const uint64_t round = Table::round.load(std::memory_order_relaxed);
  const bool is_new = slot->round.load(std::memory_order_relaxed) != round;
  if (is_new || this_turn.was_cut != &slot->was_cut) {
    this_turn.End();
    if (is_new) {
      slot->round.store(round, std::memory_order_relaxed);
      slot->used.store(0, std::memory_order_relaxed);
    }
    this_turn = {&slot->was_cut, &slot->share, &slot->share_max, MonotonicNs()};
  }
  if (slot->is_paused.load(std::memory_order_relaxed) || slot->Room() == 0) {
    const std::lock_guard<std::mutex> lock(Table::mutex);
    if (slot->is_ended || (slot->gate != nullptr && slot->gate->Refuse(fd, slot))) {
      errno = slot->is_ended ? ECONNRESET : EAGAIN;
      return -1;
    }
  }
  // Without room and not refused: nobody would report it again.
  const uint32_t room = slot->Room() > 0 ? slot->Room() : kShareMax;
  const ssize_t got = ReceiveAtMost(fd, message, room);
  if (got > 0) slot->used.fetch_add(static_cast<uint32_t>(got), std::memory_order_relaxed);
  return got;
}

std::optional<uint64_t> ReadGate::RearmDue(uint64_t now_ns, const Charge& charge) {
  const std::lock_guard<std::mutex> lock(Table::mutex);
  while (!waits_.empty() && waits_.top().until_ns <= now_ns) {
    const Wait wait = waits_.top();
    waits_.pop();
    Slot* const slot = Table::Find(wait.fd);
    if (slot->gate != this || slot->generation != wait.generation) continue;
    EndPause(wait.fd, slot, now_ns, charge);
  }
  if (waits_.empty()) return std::nullopt;
  return waits_.top().until_ns - now_ns;
}

void ReadGate::EndPause(int fd, Slot* slot, uint64_t now_ns, const Charge& charge) {
  slot->is_waiting = false;
  // What its client has sent and left is nobody's any more.
  if (HasLeft(fd)) {
    slot->is_ended = true;
  } else if (slot->until_ns <= now_ns && ++slot->pauses > kPausesMax) {
    slot->is_ended = true;
    ended_.fetch_add(1, std::memory_order_relaxed);
  } else {
    if (std::exchange(slot->owes_turn, false)) {
      slot->until_ns = std::max(
          slot->until_ns, now_ns + charge(*slot->peer, !std::exchange(slot->was_paused, true)));
    }
    if (slot->until_ns > now_ns) return AddWait(fd, slot);
    slot->is_paused.store(false, std::memory_order_relaxed);
  }
  (void)slot->Report(fd);
}

void ReadGate::EndPauses() {
  const std::lock_guard<std::mutex> lock(Table::mutex);
  pauses_are_over_ = true;
  for (; !waits_.empty(); waits_.pop()) {
    Slot* const slot = Table::Find(waits_.top().fd);
    if (slot->gate != this || slot->generation != waits_.top().generation) continue;
    slot->is_waiting = false;
    (void)slot->Report(waits_.top().fd);
  }
}

bool ReadGate::Reports(int fd) {
  if (Table::FindGated(fd) == nullptr) return false;
  const std::lock_guard<std::mutex> lock(Table::mutex);
  const Slot* const slot = Table::FindGated(fd);
  return slot != nullptr && slot->epoll >= 0;
}

void ReadGate::ReportNow(int fd) {
  const std::lock_guard<std::mutex> lock(Table::mutex);
  const Slot* const slot = Table::FindGated(fd);
  if (slot != nullptr) (void)slot->Report(fd, slot->is_waiting ? uint32_t{EPOLLIN} : 0);
}

void ReadGate::OnEpollControl(int epoll, int operation, int fd, const epoll_event* event) {
  if (Table::FindGated(fd) == nullptr) return;
  const std::lock_guard<std::mutex> lock(Table::mutex);
  Slot* const slot = Table::FindGated(fd);
  if (slot == nullptr) return;
  if (operation == EPOLL_CTL_DEL) {
    slot->epoll = -1;
    return;
  }
  slot->epoll = epoll;
  slot->interest = *event;
  Table::epoll.store(epoll, std::memory_order_relaxed);
}

void ReadGate::BeforeEpollWait(int epoll) {
  if (epoll == Table::epoll.load(std::memory_order_relaxed)) this_turn.End();
}

void ReadGate::AfterEpollWait(int epoll, int count) {
  if (epoll != Table::epoll.load(std::memory_order_relaxed)) return;
  Table::round.fetch_add(1, std::memory_order_relaxed);
  Table::is_idle.store(count <= 0, std::memory_order_relaxed);
}

uint64_t ReadGate::round() { return Table::round.load(std::memory_order_relaxed); }

bool ReadGate::IsIdle() { return Table::is_idle.load(std::memory_order_relaxed); }

void ReadGate::BeforeClose(int fd) {
  if (Table::FindGated(fd) == nullptr) return;
  const std::lock_guard<std::mutex> lock(Table::mutex);
  Slot* const slot = Table::FindGated(fd);
  if (slot != nullptr) slot->gate->Detach(fd, slot);
}

}  // namespace statehouse
