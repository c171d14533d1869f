// WatchSubject and WatchReader: what differs between watches of different kinds of objects. A
// watch is a request message, a rule from where a later stream goes on, and a reader of response
// messages; all else (watch_stream.h, watch_calls.cc) is the same for every kind.
#pragma once

#include <google/protobuf/message_lite.h>

#include <cstdint>
#include <memory>
#include <string>

#include "clients/c/include/statehouse/statehouse.h"
#include "engine/base/status.h"

namespace statehouse {

// What is asked for. Immutable; any thread.
class WatchSubject {
 public:
  using Message = google::protobuf::MessageLite;

  virtual ~WatchSubject() = default;
  virtual const std::string& name() const = 0;
  virtual const std::string& method() const = 0;
  // From where the first stream goes on; 0: it begins with what is there.
  virtual uint64_t from_revision() const = 0;
  virtual std::unique_ptr<Message> MakeRequest(uint64_t from_revision) const = 0;
  virtual std::unique_ptr<Message> MakeResponse() const = 0;
  // Where a stream goes on that begins after `response`, of one that came to `revision` before.
  virtual uint64_t RevisionAfter(const Message& response, uint64_t revision) const = 0;
};

// Takes messages apart into events. One thread at a time; revision(): any.
class WatchReader {
 public:
  virtual ~WatchReader() = default;
  // The events of a message, after those of the last one. REQUIRES: Next gave all of them; the
  // message is one of MakeResponse.
  virtual void Take(std::unique_ptr<WatchSubject::Message> response) = 0;
  // The stream broke and another one goes on after the last message's revision. REQUIRES: as Take.
  virtual void TakeBreak() = 0;
  // Gives the next event, which points into this; false: there is none. INTERNAL for what a service
  // of this release does not send.
  virtual StatusOr<bool> Next(sh_watch_event* event) = 0;
  // Of the last event that was given.
  virtual uint64_t revision() const = 0;
};

}  // namespace statehouse
