#include <algorithm>
#include <chrono>
#include <string>

#include "service/api/verbs.h"
#include "service/lease/lock_service.h"
#include "service/session/session_table.h"

namespace statehouse {
namespace {

constexpr std::chrono::milliseconds kGraceMax{3'600'000};

}  // namespace

Status GetStatus(const VerbContext& context, const v1::GetStatusRequest& request,
                 v1::GetStatusResponse* response) {
  const ServiceControl::Facts facts = context.control->GetFacts();
  const EngineTotals totals = context.engine->Totals();
  response->set_version(STATEHOUSE_VERSION);
  response->set_state(context.control->draining() ? v1::SERVING_STATE_DRAINING
                                                  : v1::SERVING_STATE_SERVING);
  response->mutable_start_time()->set_seconds(facts.start_unix_ns / 1'000'000'000);
  response->mutable_start_time()->set_nanos(
      static_cast<int32_t>(facts.start_unix_ns % 1'000'000'000));
  response->set_generation(totals.generation);
  response->set_daemon_pid(facts.daemon_pid);
  response->set_keeper_pid(facts.keeper_pid);
  response->set_areas(totals.areas);
  response->set_memory_bytes(totals.memory_bytes);
  response->set_memory_limit_bytes(context.engine->options().memory_bytes_max);
  response->set_attached_processes(totals.attached_processes);
  response->set_recoveries(totals.recoveries);
  const DictTotals dicts = context.engine->dicts().Totals();
  response->set_dicts(dicts.dicts);
  response->set_dict_entries(dicts.entries);
  const LockServiceTotals locks = context.locks->Totals();
  response->set_locks_held(locks.holding);
  response->set_lock_waiters(locks.waiting);
  response->set_sessions(context.sessions->Totals().open);
  response->set_runtime_dir(facts.runtime_dir);
  for (const std::string& address : facts.listen_addresses) {
    response->add_listen_addresses(address);
  }
  response->set_http_address(facts.http_address);
  return Status();
}

Status Drain(const VerbContext& context, const v1::DrainRequest& request,
             v1::DrainResponse* response) {
  SH_RETURN_IF_ERROR(context.identity->Require(ObjectKind::kService, kServiceName, Verb::kAdmin));
  std::chrono::milliseconds grace = context.options->drain_grace;
  if (request.has_grace()) {
    const google::protobuf::Duration& asked = request.grace();
    if (asked.seconds() < 0 || asked.nanos() < 0 || asked.nanos() > 999'999'999) {
      return Status(Reason::kInvalidArgument,
                    "field grace: it is negative or malformed; zero stops at once");
    }
    const int64_t seconds = std::min<int64_t>(asked.seconds(), kGraceMax.count());
    grace =
        std::min(kGraceMax, std::chrono::milliseconds(seconds * 1000 + asked.nanos() / 1'000'000));
  }
  // This call is one of them.
  const uint32_t in_flight = context.control->BeginDrain(grace);
  response->set_calls_in_flight(in_flight - std::min(in_flight, uint32_t{1}));
  return Status();
}

}  // namespace statehouse
