// Dispatcher: every verb by its method path, for all doors: serialized request in, serialized
// response out, or a stream of them. It authorises, decodes, calls the engine and encodes. It knows
// nothing of gRPC.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/limits.h"
#include "engine/base/status.h"
#include "engine/state/engine.h"
#include "service/auth/authenticator.h"

namespace statehouse {

class AreaHub;
class BoundEntries;
class CallLog;
class LockService;
class SessionTable;
class WatchHub;

// The way in. The local door's operations never reach the daemon, so its calls are those over the
// attach socket.
enum class Door : uint8_t { kLocal, kNetwork };
constexpr std::string_view DoorName(Door door) {
  return door == Door::kLocal ? "local" : "network";
}

struct CallContext {
  Door door = Door::kNetwork;
  std::shared_ptr<const Identity> identity;  // Authenticated by the door; never null.
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
  Lane lane;                                 // The calling thread's daemon lane.
  uint64_t response_bytes_max = UINT64_MAX;  // What the door can carry.
  bool is_same_host = false;                 // The caller came by a unix socket.
  // Who calls, for the log: "10.0.0.7:51234", "unix:uid=1000,pid=4711". Asked on any thread and
  // before the call is done, if at all. Empty: nobody knows.
  std::function<std::string()> peer = {};
};

// A call that was parked (a wait). Destroying it does not cancel it.
class PendingCall {
 public:
  virtual ~PendingCall() = default;
  // The caller is gone: the call ends soon with CANCELLED, unless it has ended already. Any thread.
  virtual void Cancel() = 0;
};

// Told of every call when it ends. Implemented by Metrics.
class CallObserver {
 public:
  virtual ~CallObserver() = default;
  // `method` is a path from Dispatcher::Methods(), or "unknown".
  virtual void OnCall(Door door, std::string_view method, Reason reason,
                      std::chrono::nanoseconds took) = 0;
  // So many of them, each with this time.
  virtual void OnCalls(Door door, std::string_view method, Reason reason, uint64_t count,
                       std::chrono::nanoseconds took) {
    for (uint64_t i = 0; i < count; ++i) OnCall(door, method, reason, took);
  }
};

// What the operator's verbs need from the composition root.
class ServiceControl {
 public:
  virtual ~ServiceControl() = default;
  struct Facts {
    int64_t start_unix_ns = 0;
    uint32_t daemon_pid = 0;
    uint32_t keeper_pid = 0;
    std::string runtime_dir;
    std::vector<std::string> listen_addresses;
    std::string http_address;
  };
  virtual Facts GetFacts() const = 0;
  virtual bool draining() const = 0;
  // Returns at once with the calls in flight, that of Drain included where one asks; the drain goes
  // on in the background.
  virtual uint32_t BeginDrain(std::chrono::milliseconds grace) = 0;
};

// The responses of a streaming call. The door polls it on one thread; destroying it ends the call.
class ServedStream {
 public:
  enum class Found : uint8_t { kMessage, kLastMessage, kNothing, kEnd };
  virtual ~ServedStream() = default;
  // The next serialized response; the same, of which is known that it is the last one for now, as
  // if it had been asked again and found nothing; nothing yet, and the `notify` that it was opened
  // with is called when there is; or the end, with *status why (never OK).
  virtual Found Poll(std::string* message, Status* status) = 0;
};

// Answers: a serialized response, or why not.
using DoneCallback = std::function<void(StatusOr<std::string>)>;

// Threads: Dispatch from any thread; it never blocks on shared memory for longer than a few
// microseconds (an operation that meets a held stripe moves to the dispatcher's own slow thread).
// `done` runs exactly once, before Dispatch returns or later on a thread of the dispatcher.
class Dispatcher {
 public:
  virtual ~Dispatcher() = default;
  // Non-null when the call was parked and can be cancelled. REQUIRES: `request` outlives the call
  // to Dispatch only.
  virtual std::shared_ptr<PendingCall> Dispatch(const CallContext& context, std::string_view method,
                                                std::string_view request, DoneCallback done) = 0;
  // Of every method but the streaming ones.
  virtual bool Knows(std::string_view method) const = 0;
  virtual bool Streams(std::string_view method) const = 0;
  // Of a method that takes messages one after another, each dispatched as a call of its own.
  virtual bool Converses(std::string_view method) const = 0;
  // Begins a streaming call. `notify` may be called at once and from any thread, never after the
  // stream was destroyed. REQUIRES: as Dispatch; the stream is destroyed before the dispatcher.
  virtual StatusOr<std::unique_ptr<ServedStream>> OpenStream(const CallContext& context,
                                                             std::string_view method,
                                                             std::string_view request,
                                                             std::function<void()> notify) = 0;
  virtual std::vector<std::string> Methods() const = 0;
  virtual uint32_t CallsInFlight() const = 0;
  // The access tokens have changed: ends each parked call whose token was revoked or may not read
  // its area any more, with the reason. The authenticator outlives this object. Any thread.
  virtual void RecheckIdentities(Authenticator* authenticator) = 0;
  // Ends every parked call with DRAINING and stops the dispatcher's threads.
  virtual void Shutdown() = 0;
};

struct DispatcherOptions {
  std::string areas_file_root;
  uint64_t message_bytes_max = kMessageBytesMax;
  std::chrono::milliseconds drain_grace{10'000};
  uint32_t waiters_max = kWaitersMax;
};

// The object that a serialized request names, for an ErrorDetail: empty where the method names none
// or the bytes are damaged.
std::string_view ObjectNameOf(std::string_view method, std::string_view request);
// The same of a request that is known to name one.
std::string_view NameIn(std::string_view request);

// What the verbs work on. Everything outlives the dispatcher.
struct DispatcherParts {
  Engine* engine = nullptr;
  std::shared_ptr<LockService> locks;
  std::shared_ptr<SessionTable> sessions;
  std::shared_ptr<BoundEntries> bound;
  std::shared_ptr<WatchHub> watches;
  std::shared_ptr<AreaHub> area_watches;
  ServiceControl* control = nullptr;
  CallObserver* observer = nullptr;
  std::shared_ptr<CallLog> log = nullptr;  // Null: one with the defaults.
};

// `slow_lane` belongs to the dispatcher's slow thread. Shutdown shuts watches, locks,
// sessions and bound entries down too.
std::unique_ptr<Dispatcher> NewDispatcher(DispatcherOptions options, DispatcherParts parts,
                                          Lane slow_lane);

}  // namespace statehouse
