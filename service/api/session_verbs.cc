#include <charconv>

#include "service/api/durations.h"
#include "service/api/lock_verbs.h"
#include "service/api/paging.h"

namespace statehouse {
namespace {

constexpr DurationBounds kTtlBounds{kSessionTtlNsMin, kSessionTtlNsMax, "1 s to 1 day"};

}  // namespace

Status OpenSession(const VerbContext& context, const v1::OpenSessionRequest& request,
                   v1::OpenSessionResponse* response) {
  SessionSpec spec;
  spec.token_id = context.identity->token_id();
  spec.client_name = CutText(ShownText(request.client_name()), kSessionNameBytesMax);
  SH_ASSIGN_OR_RETURN(spec.ttl_ns, ToBounded(request.has_ttl(), request.ttl(), "ttl",
                                             kSessionTtlNsDefault, kTtlBounds));
  SH_ASSIGN_OR_RETURN(spec.linger_ns, ToBounded(request.has_linger(), request.linger(), "linger", 0,
                                                {0, spec.ttl_ns, "0 up to the session's ttl"}));
  const uint64_t ttl = spec.ttl_ns;
  SH_ASSIGN_OR_RETURN(const uint64_t session, context.sessions->Open(std::move(spec)));
  response->set_session_id(session);
  SetDuration(ttl, response->mutable_ttl());
  return Status();
}

Status RenewSession(const VerbContext& context, const v1::RenewSessionRequest& request,
                    v1::RenewSessionResponse* response) {
  SH_ASSIGN_OR_RETURN(const SessionRenewal renewed,
                      context.sessions->Renew(request.session_id(), context.identity->token_id()));
  SetDuration(renewed.expires_in_ns, response->mutable_expires_in());
  response->set_held(renewed.held);
  return Status();
}

Status CloseSession(const VerbContext& context, const v1::CloseSessionRequest& request,
                    v1::CloseSessionResponse* response) {
  response->set_released_locks(
      context.sessions->Close(request.session_id(), context.identity->token_id()));
  return Status();
}

Status ListSessions(const VerbContext& context, const v1::ListSessionsRequest& request,
                    v1::ListSessionsResponse* response) {
  SH_RETURN_IF_ERROR(context.identity->Require(ObjectKind::kService, kServiceName, Verb::kAdmin));
  uint64_t after = 0;
  const std::string& token = request.page_token();
  const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), after);
  if (!token.empty() && (error != std::errc() || end != token.data() + token.size())) {
    return Status(Reason::kInvalidArgument,
                  "field page_token: it does not come from this call; begin without one");
  }
  const size_t page = PageSize(request.page_size());
  std::vector<SessionInfo> sessions = context.sessions->List(after, page + 1);
  const bool has_more = sessions.size() > page;
  if (has_more) sessions.pop_back();
  for (const SessionInfo& session : sessions) {
    v1::Session* const to = response->add_sessions();
    to->set_session_id(session.id);
    to->set_client_name(session.client_name);
    to->set_token_id(session.token_id);
    SetDuration(session.ttl_ns, to->mutable_ttl());
    SetDuration(session.expires_in_ns, to->mutable_expires_in());
    to->set_held(session.held);
    to->set_lock_count(context.locks->HeldBy(session.id));
  }
  if (has_more) response->set_next_page_token(std::to_string(sessions.back().id));
  return Status();
}

std::string EncodeHold(const HoldAnswer& answer) {
  v1::HoldSessionResponse response;
  response.set_ended(answer.ended);
  for (const LostLock& lost : answer.lost) {
    v1::LostLock* const to = response.add_lost_locks();
    to->set_name(ShownText(lost.name));
    to->set_token(lost.token);
  }
  return response.SerializeAsString();
}

}  // namespace statehouse
