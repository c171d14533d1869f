// WatchFollow: how a watch goes on by itself after its stream has handed over.
//
// Who owns it: WatchStream. Threads: Open alone, before the others; those one at a time.
// Always true: messages are those that the stream would have brought.
#pragma once

#include <google/protobuf/message_lite.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "engine/base/status.h"
#include "engine/state/follow_events.h"

namespace statehouse {

// What a request says of it; as v1::LocalFollow.
enum class LocalFollow : uint8_t { kNone, kOffered, kReturned, kDeclined };

// What is handed over may be no more when it is opened: another service has taken over, or it was
// cut off for a new one. A stream that finds it so often in a row is not handed over again.
inline constexpr int kFollowOpensMax = 3;

class WatchReader;  // watch_subject.h

class WatchFollow {
 public:
  enum class Found : uint8_t {
    kMessage,   // Given, or taken by the reader.
    kNothing,   // Yet: sleep on events().
    kMore,      // Nothing for the watcher so far; there is more to read.
    kFallBack,  // The stream has to go on, for a while …
    kBroken,    // … or for good.
  };

  virtual ~WatchFollow() = default;
  // Maps what is followed; waits for the daemon, about a second at most. TIMEOUT where it does not
  // answer, UNAVAILABLE where it is not there or has it no more.
  virtual Status Open() = 0;
  // What grows with what is followed. Ask before Read, to sleep until it differs. REQUIRES: open.
  virtual FollowEvents events() const = 0;
  virtual Found Read(uint64_t now_ns, std::unique_ptr<google::protobuf::MessageLite>* message) = 0;
  // The same for a reader of this kind of object, which takes one event at most. Without a message:
  // whoever waits is told in less time.
  virtual Found ReadInto(uint64_t now_ns, WatchReader* reader) = 0;
  // Read gives what is there by now, and then kNothing for ever. REQUIRES: open.
  virtual void EndHere() = 0;
  // When Read has something to say although nothing happens: monotonic; UINT64_MAX never.
  virtual uint64_t due_ns() const = 0;
  // Read has put something off until due_ns(), and nobody wakes whoever sleeps longer.
  virtual bool is_pausing() const = 0;
  // Up to where everything was read; as WatchPoint::counter.
  virtual uint64_t counter() const = 0;
};

}  // namespace statehouse
