// Watch: every change of a dict, in order, from where one left off. Part of client.hpp.
//
//   auto watch = dict.Watch({.prefix = "web/"});
//   for (const WatchEvent& event : *watch) {                 // Until the watch ends.
//     if (event.kind == SH_WATCH_PUT) Reload(event.key, *event.value);
//   }
//   watch->Run([](const WatchEvent& event) { Show(event); }, stop_token);
//
// What it tells, how it goes on by itself, and what it does in a forked child is told in watch.h.
#pragma once

#include <statehouse/watch.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <statehouse/result.hpp>
#include <statehouse/value.hpp>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace statehouse::client {

// What to watch, and how. Without a word: every change of every entry.
struct WatchOptions {
  std::string prefix = {};                // Keys that begin with it.
  std::optional<std::string> key = {};    // One key; or neither of both.
  uint64_t from_revision = 0;             // Go on after it, from an earlier watch; 0: from now.
  std::vector<sh_watch_kind> kinds = {};  // Of the four changes; empty: all.
  sh_slow_policy slow = SH_SLOW_RESYNC;
  bool skip_snapshot = false;  // No entries, also after a resync.
  bool keys_only = false;      // No values.
  // When nothing was sent for so long SH_WATCH_PROGRESS is: 100 ms to 1 hour; without: never.
  std::optional<std::chrono::milliseconds> progress = {};

  // Points into this.
  sh_watch_options ToC() const {
    sh_watch_options options{};
    options.prefix = {prefix.data(), prefix.size()};
    if (key) options.key = {key->data(), key->size()};
    options.from_revision = from_revision;
    // 0 has a meaning of its own in the C interface; what makes no sense is refused there.
    if (progress)
      options.progress_ms = static_cast<uint64_t>(std::max<int64_t>(progress->count(), 1));
    for (const sh_watch_kind kind : kinds) {
      const bool known = kind > SH_WATCH_NONE && kind <= SH_WATCH_PROGRESS;
      options.kinds |= SH_WATCH_MASK(known ? kind : SH_WATCH_NONE);
    }
    options.slow = slow;
    options.skip_snapshot = skip_snapshot ? 1 : 0;
    options.keys_only = keys_only ? 1 : 0;
    return options;
  }
};

// What a watch tells: sh_watch_event.
struct WatchEvent {
  sh_watch_kind kind = SH_WATCH_NONE;
  sh_resync_reason reason = SH_RESYNC_UNSPECIFIED;
  std::string key;
  std::optional<Value> value;  // Of an entry and SH_WATCH_PUT, where it is known and asked for.
  uint64_t version = 0;
  uint64_t revision = 0;
  std::chrono::system_clock::time_point time;  // When the service saw the change.
  bool value_gone = false;  // The value is not known any more, or is none. Read the entry.
  bool coalesced = false;   // Older changes of the key were left out.

  static WatchEvent FromC(const sh_watch_event& from) {
    WatchEvent event;
    event.kind = from.kind;
    event.reason = from.reason;
    event.key = View(from.key);
    event.version = from.version;
    event.revision = from.revision;
    event.time = std::chrono::system_clock::time_point(
        std::chrono::duration_cast<std::chrono::system_clock::duration>(
            std::chrono::nanoseconds(from.time_ns)));
    event.value_gone = from.value_gone != 0;
    event.coalesced = from.coalesced != 0;
    if (from.value.data == nullptr) return event;
    Result<Value> value = Value::FromWire(View(from.value));
    event.value_gone = !value.ok();
    if (value.ok()) event.value = *std::move(value);
    return event;
  }

 private:
  static std::string_view View(sh_bytes bytes) {
    if (bytes.data == nullptr) return {};
    return {static_cast<const char*>(bytes.data), bytes.size};
  }
};

// A watch.
//
// Who owns it: whoever holds it; it is moved, not copied. Destroying it ends it. It may outlive its
// Dict, and its Client, whose end is its own. Threads: one at a time calls Next and Run or
// iterates; the other methods: any; moving and destroying need all of them to have returned. One
// that was moved from answers SH_CLIENT_CLOSED. Failure: as sh_watch_next; it ends the watch.
class Watch final {
 public:
  // The next event; empty where none came within `timeout` (zero: only looks; without: no limit).
  Result<std::optional<WatchEvent>> Next(
      std::optional<std::chrono::milliseconds> timeout = std::nullopt) {
    if (!watch_) return Error(SH_CLIENT_CLOSED, "this watch was moved away", "", false);
    const uint64_t timeout_ms =
        timeout ? static_cast<uint64_t>(std::max<int64_t>(timeout->count(), 0)) : SH_FOREVER;
    sh_watch_event event{};
    return internal::Finish<std::optional<WatchEvent>>(
        [&](sh_error** e) { return sh_watch_next(watch_.get(), timeout_ms, &event, e); },
        [&] {
          if (event.kind == SH_WATCH_NONE) return std::optional<WatchEvent>();
          return std::optional<WatchEvent>(WatchEvent::FromC(event));
        });
  }

  // The events from now on, one after the other, until the watch ends; error() says why then.
  // REQUIRES: the watch stays where it is, and one iterator at a time is used.
  class Iterator final {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = WatchEvent;
    using difference_type = std::ptrdiff_t;
    using pointer = const WatchEvent*;
    using reference = const WatchEvent&;

    reference operator*() const { return *event_; }
    pointer operator->() const { return &*event_; }
    Iterator& operator++() {
      Result<std::optional<WatchEvent>> next = watch_->Next();
      event_ = next.ok() ? *std::move(next) : std::nullopt;
      watch_->error_ = next.ok() ? std::nullopt : std::optional<Error>(next.error());
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& at, std::default_sentinel_t) { return !at.event_; }

   private:
    friend class Watch;
    explicit Iterator(Watch* watch) : watch_(watch) { ++*this; }
    Watch* watch_;
    std::optional<WatchEvent> event_;
  };
  Iterator begin() { return Iterator(this); }
  static std::default_sentinel_t end() { return {}; }
  // Why the last iteration came to its end; empty before that.
  const std::optional<Error>& error() const { return error_; }

  // Calls `take` with each event, on this thread, until a stop is requested, which ends the watch
  // (revision() is where another one goes on), or it ends by itself, which is an error.
  Result<Done> Run(const std::function<void(const WatchEvent&)>& take, std::stop_token stop) {
    const std::stop_callback cancels(stop, [this] { Cancel(); });
    for (;;) {
      const Result<std::optional<WatchEvent>> event = Next();
      if (!event.ok() && event.error().reason() == SH_CANCELLED && stop.stop_requested()) {
        return Done();
      }
      if (!event.ok()) return event.error();
      if (*event) take(**event);
    }
  }

  // Ends it: Next gives SH_CANCELLED, also where it waits.
  void Cancel() { sh_watch_cancel(watch_.get()); }
  // For `from_revision` of a later watch: sh_watch_revision.
  uint64_t revision() const { return sh_watch_revision(watch_.get()); }
  // For poll and its like, level-triggered: readable while Next has something to give. Call Next
  // with a timeout of zero until it is empty. The watch's; never read or close it.
  int fd() const { return sh_watch_fd(watch_.get()); }

 private:
  friend class Dict;
  struct Closer {
    void operator()(sh_watch* watch) const { sh_watch_close(watch); }
  };
  explicit Watch(sh_watch* watch) : watch_(watch) {}

  std::unique_ptr<sh_watch, Closer> watch_;
  std::optional<Error> error_;
};

}  // namespace statehouse::client
