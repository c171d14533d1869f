// WatchSubject and WatchReader: what differs between watches of different kinds of objects. A
// watch is a request message, a rule from where a later stream goes on, and a reader of response
// messages; all else (watch_stream.h, watch_calls.cc) is the same for every kind.
#pragma once

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/message_lite.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "clients/c/include/statehouse/statehouse.h"
#include "clients/c/src/watch_follow.h"
#include "engine/base/status.h"
#include "statehouse/v1/watch.pb.h"

namespace statehouse {

// Where a stream goes on. Equal ones are the same place.
struct WatchPoint {
  bool is_known = false;     // False: it begins with what is there.
  uint64_t counter = 0;      // A dict's revision; an area's updates.
  uint64_t incarnation = 0;  // Of an area; 0: not known yet, or not compared.

  friend bool operator==(const WatchPoint&, const WatchPoint&) = default;
};

// What is asked for. Immutable; any thread.
class WatchSubject {
 public:
  using Message = google::protobuf::MessageLite;

  virtual ~WatchSubject() = default;
  virtual const std::string& name() const = 0;
  virtual const std::string& method() const = 0;
  // From where the first stream goes on.
  virtual const WatchPoint& from() const = 0;
  // How many messages are read before they are taken.
  virtual size_t read_ahead() const = 0;
  // `follow`: kNone unless may_follow().
  virtual std::unique_ptr<Message> MakeRequest(const WatchPoint& from,
                                               LocalFollow follow) const = 0;
  virtual std::unique_ptr<Message> MakeResponse() const = 0;
  // Where a stream goes on that begins after `response`, of one that came to `point` before.
  virtual WatchPoint PointAfter(const Message& response, const WatchPoint& point) const = 0;

  // Whether the service may hand over.
  virtual bool may_follow() const { return false; }
  enum class Sign : uint8_t {
    kOther,
    kSynced,
    kResync,
    kHandedOver,
    kPointAlone,  // Says from where to go on, and nothing that was asked for.
  };
  virtual Sign SignOf(const Message&) const { return Sign::kOther; }
  // How to go on after a message of kHandedOver.
  virtual std::shared_ptr<WatchFollow> Follow(const Message&) const { return nullptr; }
};

// Takes messages apart into events. One thread at a time; point(): any.
class WatchReader {
 public:
  virtual ~WatchReader() = default;
  // The events of a message, after those of the last one. REQUIRES: Next gave all of them; the
  // message is one of MakeResponse.
  virtual void Take(std::unique_ptr<WatchSubject::Message> response) = 0;
  // The stream broke and another one goes on after the last message's point. REQUIRES: as Take.
  virtual void TakeBreak() = 0;
  // Of the last event that was given.
  virtual WatchPoint point() const = 0;
};

// A reader whose events have this type of the C interface.
template <typename Event>
class WatchReaderOf : public WatchReader {
 public:
  // Gives the next event, which points into this; false: there is none. INTERNAL for what a service
  // of this release does not send.
  virtual StatusOr<bool> Next(Event* event) = 0;
};

// What requests and responses of every kind have.

// progress_ms as a request has it; INVALID_ARGUMENT, which begins with `what`, for what no service
// takes. REQUIRES: it is not 0, which is none.
StatusOr<google::protobuf::Duration> ProgressInterval(const std::string& what,
                                                      uint64_t progress_ms);
// The same for window_us.
StatusOr<google::protobuf::Duration> WindowOf(const std::string& what, uint64_t window_us);
// SH_RESYNC_UNSPECIFIED for one that this library does not know.
sh_resync_reason ReasonOf(const v1::WatchResync& resync);

}  // namespace statehouse
