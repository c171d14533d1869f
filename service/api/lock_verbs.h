// The verbs of lock.proto and session.proto, in the manner of verbs.h. AcquireLock and HoldSession
// may wait for long: here stands what they ask for; the dispatcher parks them.
#pragma once

#include <string>
#include <string_view>

#include "service/api/verbs.h"
#include "service/lease/lock_service.h"
#include "service/session/session_table.h"
#include "statehouse/v1/lock.pb.h"
#include "statehouse/v1/session.pb.h"

namespace statehouse {

// OK, or PERMISSION_DENIED. A lock with a derived name, `dict/<dict>/<key>`, `area/<area>` or
// `area/<area>/<rest>`, may also be used with a grant for the dict or area. Where such a name can
// stand for several dicts or areas, because their names hold slashes, a grant for one of them is
// enough, unless another one of them exists and is not granted.
Status RequireLock(const Engine& engine, const Identity& identity, std::string_view name,
                   Verb verb);

// What AcquireLock asks for, checked.
StatusOr<LockAsk> PlanAcquire(const VerbContext& context, const v1::AcquireLockRequest& request);

Status RenewLock(const VerbContext& context, const v1::RenewLockRequest& request,
                 v1::RenewLockResponse* response);
Status ReleaseLock(const VerbContext& context, const v1::ReleaseLockRequest& request,
                   v1::ReleaseLockResponse* response);
Status DescribeLock(const VerbContext& context, const v1::DescribeLockRequest& request,
                    v1::DescribeLockResponse* response);
Status ListLocks(const VerbContext& context, const v1::ListLocksRequest& request,
                 v1::ListLocksResponse* response);
Status ForceReleaseLock(const VerbContext& context, const v1::ForceReleaseLockRequest& request,
                        v1::ForceReleaseLockResponse* response);

Status OpenSession(const VerbContext& context, const v1::OpenSessionRequest& request,
                   v1::OpenSessionResponse* response);
Status RenewSession(const VerbContext& context, const v1::RenewSessionRequest& request,
                    v1::RenewSessionResponse* response);
Status CloseSession(const VerbContext& context, const v1::CloseSessionRequest& request,
                    v1::CloseSessionResponse* response);
Status ListSessions(const VerbContext& context, const v1::ListSessionsRequest& request,
                    v1::ListSessionsResponse* response);

std::string EncodeAcquire(const LockAnswer& answer);
std::string EncodeHold(const HoldAnswer& answer);

}  // namespace statehouse
