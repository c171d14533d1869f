// LocalDict: waiting until an entry is as asked.
#include <algorithm>
#include <chrono>

#include "clients/c/src/local_dict.h"
#include "clients/c/src/wait_message.h"

namespace statehouse {
namespace {

using std::chrono::steady_clock;

// How long one sleep lasts while somebody wants to be asked about interrupts, or while the client
// may be closed meanwhile.
constexpr std::chrono::milliseconds kSlice{100};
// How long one call lasts where the daemon waits in our stead, and how late it may answer.
constexpr std::chrono::minutes kCallSlice{1};
constexpr std::chrono::seconds kAnswerGrace{5};

uint64_t SliceNs(Deadline deadline, std::chrono::nanoseconds slice) {
  const auto left = std::max<std::chrono::nanoseconds>(deadline - steady_clock::now(),
                                                       std::chrono::nanoseconds(0));
  return static_cast<uint64_t>(std::min<std::chrono::nanoseconds>(left, slice).count());
}

}  // namespace

Status LocalDict::Wait(std::string_view key, const EntryWait& wait, Deadline deadline, bool* met,
                       LocalValue* value) {
  SH_RETURN_IF_ERROR(CheckKey(key));
  SH_RETURN_IF_ERROR(CheckEntryWait(wait));
  const Interrupt& interrupted = session_->options().interrupted;
  std::optional<Deadline> follow_deadline;
  EntryLook look;
  for (;;) {
    if (!usable()) return Unusable();
    uint32_t generation = 0;
    Status status;
    {
      const Use<Mapping> use(current_);
      generation = use->generation;
      status = writable() ? WaitForEntry(*use->dict, key, wait, SliceNs(deadline, kSlice), &look)
                          : LookAtEntry(*use->dict, key, wait, &look);
    }
    if (!status.ok()) {
      SH_RETURN_IF_ERROR(Follow(generation, key, status, &follow_deadline));
      continue;
    }
    follow_deadline.reset();
    if (look.met || steady_clock::now() >= deadline) break;
    if (interrupted && interrupted()) {
      return Status(Reason::kCancelled, "the caller gave up waiting for key \"" + std::string(key) +
                                            "\" of dict \"" + name() + "\"");
    }
    if (!writable()) SH_RETURN_IF_ERROR(WaitThroughDaemon(key, wait, deadline));
  }
  *met = look.met;
  value->found = look.found;
  value->entry = std::move(look.entry);
  value->wire = value->found ? WireOf(value->entry, &value->storage) : std::string_view();
  return Status();
}

// Who may not write cannot say that he sleeps. Returns when it is worth to look again.
Status LocalDict::WaitThroughDaemon(std::string_view key, const EntryWait& wait,
                                    Deadline deadline) {
  const uint64_t slice_ns = SliceNs(deadline, kCallSlice);
  CallOptions options;
  options.deadline = steady_clock::now() + std::chrono::nanoseconds(slice_ns) + kAnswerGrace;
  options.idempotent = true;
  options.long_running = true;
  return session_
      ->Call("/statehouse.v1.Dicts/WaitEntry",
             EncodeWaitEntryRequest("#" + std::to_string(facts_.index), key, wait, slice_ns),
             options)
      .status();
}

}  // namespace statehouse
