// Watch: every change of a dict, in order, from where one left off. AreaWatch: what the bytes of an
// area are, whenever they changed. Part of client.hpp.
//
//   auto watch = dict.Watch({.prefix = "web/"});
//   for (const WatchEvent& event : *watch) {                 // Until the watch ends.
//     if (event.kind == SH_WATCH_PUT) Reload(event.key, *event.value);
//   }
//   watch->Run([](const WatchEvent& event) { Show(event); }, stop_token);
//
//   auto watch = area.Watch({.pos = 0, .len = 64});
//   for (const AreaEvent& event : *watch) {
//     std::copy(event.bytes.begin(), event.bytes.end(), copy.begin() + event.pos);
//   }
//
// What they tell, how they go on by themselves, and what they do in a forked child: see watch.h.
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
  bool skip_snapshot = false;           // No entries, also after a resync.
  bool keys_only = false;               // No values.
  bool previous = false;                // Each change with the value before it; not with keys_only.
  std::chrono::microseconds window{0};  // As of AreaWatchOptions.
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
    options.previous = previous ? 1 : 0;
    options.window_us = static_cast<uint64_t>(window.count());
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
  // Of a change, where it is asked for: the key's value before it, and before those that were left
  // out; empty: there was none, or it is not known.
  std::optional<Value> previous;
  bool previous_gone = false;  // It is not known, or was none.

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
    event.previous_gone = from.previous_gone != 0;
    TakeValue(from.value, &event.value, &event.value_gone);
    TakeValue(from.previous, &event.previous, &event.previous_gone);
    return event;
  }

 private:
  static void TakeValue(sh_bytes bytes, std::optional<Value>* value, bool* is_gone) {
    if (bytes.data == nullptr) return;
    Result<Value> taken = Value::FromWire(View(bytes));
    *is_gone = !taken.ok();
    if (taken.ok()) *value = *std::move(taken);
  }
  static std::string_view View(sh_bytes bytes) {
    if (bytes.data == nullptr) return {};
    return {static_cast<const char*>(bytes.data), bytes.size};
  }
};

// Where another watch of the same range of an area goes on: sh_area_point.
struct AreaPoint {
  uint64_t updates = 0;      // The range's update counter; everything up to it was told.
  uint64_t incarnation = 0;  // Which area it is; 0: not compared.
};

// What to watch of an area, and how. Without a word: every change of all of it.
struct AreaWatchOptions {
  uint64_t pos = 0;                     // The first byte;
  std::optional<uint64_t> len = {};     // and how many; without: up to its end.
  std::optional<AreaPoint> from = {};   // Go on from it; without: from now.
  bool skip_snapshot = false;           // No snapshot, also after a resync.
  bool ranges_only = false;             // No bytes, and no snapshot.
  std::chrono::microseconds window{0};  // After changes the next ones are not told for
                                        // so long, and then together: 0 to 10 ms.
  std::optional<std::chrono::milliseconds> progress = {};  // As of WatchOptions.

  // For sh_area_watch, which has pos and len beside the others.
  uint64_t CLength() const { return len ? std::min<uint64_t>(*len, SH_TO_END - 1) : SH_TO_END; }
  sh_area_watch_options ToC() const {
    sh_area_watch_options options{};
    if (from) options.from = {from->updates, from->incarnation, 1};
    // One below zero becomes one that is refused.
    options.window_us = static_cast<uint64_t>(window.count());
    if (progress)
      options.progress_ms = static_cast<uint64_t>(std::max<int64_t>(progress->count(), 1));
    options.skip_snapshot = skip_snapshot ? 1 : 0;
    options.ranges_only = ranges_only ? 1 : 0;
    return options;
  }
};

// What a watch of an area tells: sh_area_watch_event.
struct AreaEvent {
  sh_area_watch_kind kind = SH_AREA_WATCH_NONE;
  sh_resync_reason reason = SH_RESYNC_UNSPECIFIED;
  uint64_t pos = 0;  // Of a snapshot, a change and "synced": the first byte, from the area's
  uint64_t len = 0;  // beginning, and how many.
  std::vector<std::byte> bytes;     // Of a snapshot and a change, unless ranges only are asked for.
  std::optional<uint64_t> updates;  // Up to which everything was told; empty: more is to come.
  bool more = false;                // The next event belongs to the same moment.

  static AreaEvent FromC(const sh_area_watch_event& from) {
    AreaEvent event;
    event.kind = from.kind;
    event.reason = from.reason;
    event.pos = from.pos;
    event.len = from.len;
    const auto* const bytes = static_cast<const std::byte*>(from.bytes.data);
    if (bytes != nullptr) event.bytes.assign(bytes, bytes + from.bytes.size);
    if (from.has_updates != 0) event.updates = from.updates;
    event.more = from.more != 0;
    return event;
  }
};

namespace internal {

// The calls of the C library that give the events of each type.
template <typename Event>
struct WatchCalls;
template <>
struct WatchCalls<WatchEvent> {
  using CEvent = sh_watch_event;
  static constexpr auto kNext = &sh_watch_next;
};
template <>
struct WatchCalls<AreaEvent> {
  using CEvent = sh_area_watch_event;
  static constexpr auto kNext = &sh_area_watch_next;
};

// What watches of every kind do; see Watch.
template <typename EventType>
class Watching {
 public:
  using Event = EventType;

  // The next event; empty where none came within `timeout` (zero: only looks; without: no limit).
  Result<std::optional<Event>> Next(
      std::optional<std::chrono::milliseconds> timeout = std::nullopt) {
    if (!watch_) return Error(SH_CLIENT_CLOSED, "this watch was moved away", "", false);
    const uint64_t timeout_ms =
        timeout ? static_cast<uint64_t>(std::max<int64_t>(timeout->count(), 0)) : SH_FOREVER;
    typename WatchCalls<Event>::CEvent event{};
    return Finish<std::optional<Event>>(
        [&](sh_error** e) { return WatchCalls<Event>::kNext(watch_.get(), timeout_ms, &event, e); },
        [&] {
          if (event.kind == 0) return std::optional<Event>();
          return std::optional<Event>(Event::FromC(event));
        });
  }

  // The events from now on, one after the other, until the watch ends; error() says why then.
  // REQUIRES: the watch stays where it is, and one iterator at a time is used.
  class Iterator final {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = Event;
    using difference_type = std::ptrdiff_t;
    using pointer = const Event*;
    using reference = const Event&;

    reference operator*() const { return *event_; }
    pointer operator->() const { return &*event_; }
    Iterator& operator++() {
      Result<std::optional<Event>> next = watch_->Next();
      event_ = next.ok() ? *std::move(next) : std::nullopt;
      watch_->error_ = next.ok() ? std::nullopt : std::optional<Error>(next.error());
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& at, std::default_sentinel_t) { return !at.event_; }

   private:
    friend class Watching;
    explicit Iterator(Watching* watch) : watch_(watch) { ++*this; }
    Watching* watch_;
    std::optional<Event> event_;
  };
  Iterator begin() { return Iterator(this); }
  static std::default_sentinel_t end() { return {}; }
  // Why the last iteration came to its end; empty before that.
  const std::optional<Error>& error() const { return error_; }

  // Calls `take` with each event, on this thread, until a stop is requested, which ends the watch
  // (another one goes on from its revision() or point()), or it ends by itself, which is an error.
  Result<Done> Run(const std::function<void(const Event&)>& take, std::stop_token stop) {
    const std::stop_callback cancels(stop, [this] { Cancel(); });
    for (;;) {
      const Result<std::optional<Event>> event = Next();
      if (!event.ok() && event.error().reason() == SH_CANCELLED && stop.stop_requested()) {
        return Done();
      }
      if (!event.ok()) return event.error();
      if (*event) take(**event);
    }
  }

  // Ends it: Next gives SH_CANCELLED, also where it waits.
  void Cancel() { sh_watch_cancel(watch_.get()); }
  // For poll and its like, level-triggered: readable while Next has something to give. Call Next
  // with a timeout of zero until it is empty. The watch's; never read or close it.
  int fd() const { return sh_watch_fd(watch_.get()); }

 protected:
  explicit Watching(sh_watch* watch) : watch_(watch) {}
  ~Watching() = default;
  Watching(Watching&&) = default;
  Watching& operator=(Watching&&) = default;
  const sh_watch* handle() const { return watch_.get(); }

 private:
  struct Closer {
    void operator()(sh_watch* watch) const { sh_watch_close(watch); }
  };

  std::unique_ptr<sh_watch, Closer> watch_;
  std::optional<Error> error_;
};

}  // namespace internal

// A watch of a dict.
//
// Who owns it: whoever holds it; it is moved, not copied. Destroying it ends it. It may outlive its
// Dict, and its Client, whose end is its own. Threads: one at a time calls Next and Run or
// iterates; the other methods: any; moving and destroying need all of them to have returned. One
// that was moved from answers SH_CLIENT_CLOSED. Failure: as sh_watch_next; it ends the watch.
class Watch final : public internal::Watching<WatchEvent> {
 public:
  // For `from_revision` of a later watch: sh_watch_revision.
  uint64_t revision() const { return sh_watch_revision(handle()); }

 private:
  friend class Dict;
  explicit Watch(sh_watch* watch) : Watching(watch) {}
};

// A watch of a range of an area. As Watch; failure: as sh_area_watch_next.
class AreaWatch final : public internal::Watching<AreaEvent> {
 public:
  // For `from` of a later watch of the range; empty before "synced", and from a resync to the next
  // one: sh_area_watch_point.
  std::optional<AreaPoint> point() const {
    const sh_area_point point = sh_area_watch_point(handle());
    if (point.is_set == 0) return std::nullopt;
    return AreaPoint{point.updates, point.incarnation};
  }

 private:
  friend class Area;
  explicit AreaWatch(sh_watch* watch) : Watching(watch) {}
};

}  // namespace statehouse::client
