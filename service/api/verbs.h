// The verbs: one plain function for each call of area.proto and admin.proto. A verb authorises,
// checks every field, calls the engine and fills the response, in this order. The response is
// passed in so that hot calls reuse one message.
//
// Threads: verbs keep no state; any thread that owns the context's lane may run them.
// Failure: a refused verb changed nothing, except a range beyond `atomic_range_bytes`, whose
// message says how far it came.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "engine/base/status.h"
#include "engine/state/engine.h"
#include "service/api/dispatcher.h"
#include "service/auth/authenticator.h"
#include "statehouse/v1/admin.pb.h"
#include "statehouse/v1/area.pb.h"

namespace statehouse {

class BoundEntries;
class LockService;
class SessionTable;

// How long a verb may try a held stripe on a door's own thread, before it moves to the slow thread.
inline constexpr uint64_t kFastTimeoutNs = 100'000;
// How long the slow thread stays with one call before the next one has its turn.
inline constexpr uint64_t kSlowSliceNs = 2'000'000;

// What grants of kind "service" match.
inline constexpr std::string_view kServiceName = "statehoused";

// How far a range of several pieces has come over the slow thread's turns.
struct RangeTurns {
  std::shared_ptr<ServedArea>
      area;           // Of the first turn: a new area of the same name is another one.
  uint64_t done = 0;  // Bytes.
};

struct VerbContext {
  Engine* engine = nullptr;
  const Identity* identity = nullptr;
  const DispatcherOptions* options = nullptr;
  ServiceControl* control = nullptr;
  LockService* locks = nullptr;
  SessionTable* sessions = nullptr;
  BoundEntries* bound = nullptr;
  Lane lane;
  DaemonLanes::Use lane_use;  // Of `lane`, for as long as the verb runs.
  // On a door's thread: a range of several pieces is not begun, STALLED hands it to the slow
  // thread.
  bool fast = true;
  RangeTurns* turns = nullptr;  // Null where `fast`.
};

// OK, or NAME_INVALID. Names are checked before grants, so that no pattern is matched against
// megabytes.
Status CheckName(std::string_view name);

// A lock's name for the log: of the lock of an entry, `dict/<dict>/<key>`, without the key. Where
// the name can stand for entries of several dicts, no more is shown than could be a dict's name.
std::string LoggedLockName(const Engine& engine, std::string_view name);

// The area that `name` or "#<index>" stands for, if the caller may do `verb` to it. A caller who
// may neither `verb` nor read a name gets the same answer whether or not it exists.
StatusOr<std::shared_ptr<ServedArea>> ResolveArea(const VerbContext& context, std::string_view name,
                                                  Verb verb);

// OK when [pos, pos + len) lies in the area, else OUT_OF_BOUNDS.
Status CheckBounds(const Area& area, uint64_t pos, uint64_t len);

Status CreateArea(const VerbContext& context, const v1::CreateAreaRequest& request,
                  v1::CreateAreaResponse* response);
Status DescribeArea(const VerbContext& context, const v1::DescribeAreaRequest& request,
                    v1::DescribeAreaResponse* response);
Status ListAreas(const VerbContext& context, const v1::ListAreasRequest& request,
                 v1::ListAreasResponse* response);
Status DeleteArea(const VerbContext& context, const v1::DeleteAreaRequest& request,
                  v1::DeleteAreaResponse* response);

Status ReadArea(const VerbContext& context, const v1::ReadAreaRequest& request,
                v1::ReadAreaResponse* response);
Status WriteArea(const VerbContext& context, const v1::WriteAreaRequest& request,
                 v1::WriteAreaResponse* response);
Status FillArea(const VerbContext& context, const v1::FillAreaRequest& request,
                v1::FillAreaResponse* response);

Status LoadWord(const VerbContext& context, const v1::LoadWordRequest& request,
                v1::LoadWordResponse* response);
Status StoreWord(const VerbContext& context, const v1::StoreWordRequest& request,
                 v1::StoreWordResponse* response);
Status AddWord(const VerbContext& context, const v1::AddWordRequest& request,
               v1::AddWordResponse* response);
Status CompareExchangeWord(const VerbContext& context,
                           const v1::CompareExchangeWordRequest& request,
                           v1::CompareExchangeWordResponse* response);
Status BitwiseWord(const VerbContext& context, const v1::BitwiseWordRequest& request,
                   v1::BitwiseWordResponse* response);

// What WaitArea asks for, checked. `since` unset: answer at once.
struct WaitPlan {
  std::shared_ptr<ServedArea> area;
  std::optional<uint64_t> since;
  std::optional<uint64_t> timeout_ns;
  uint64_t pos = 0;
  uint64_t len = 0;  // 0 with pos 0: the whole area.
};
StatusOr<WaitPlan> PlanWait(const VerbContext& context, const v1::WaitAreaRequest& request);
// Nanoseconds; none where it was not given or is as good as never. INVALID_ARGUMENT.
StatusOr<std::optional<uint64_t>> ToWaitTimeout(bool given,
                                                const google::protobuf::Duration& timeout);

Status GetStatus(const VerbContext& context, const v1::GetStatusRequest& request,
                 v1::GetStatusResponse* response);
Status Drain(const VerbContext& context, const v1::DrainRequest& request,
             v1::DrainResponse* response);

}  // namespace statehouse
