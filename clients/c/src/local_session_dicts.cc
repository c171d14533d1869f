// What a session does for its dicts.
#include <utility>

#include "clients/c/src/local_dict.h"
#include "clients/c/src/local_session.h"

namespace statehouse {

std::vector<std::shared_ptr<LocalDict>> LocalSession::LivingDicts() {
  std::vector<std::shared_ptr<LocalDict>> living;
  const std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(dicts_, [](const std::weak_ptr<LocalDict>& dict) { return dict.expired(); });
  for (const std::weak_ptr<LocalDict>& weak : dicts_) {
    if (std::shared_ptr<LocalDict> dict = weak.lock()) living.push_back(std::move(dict));
  }
  return living;
}

void LocalSession::CloseDicts() {
  for (const std::shared_ptr<LocalDict>& dict : LivingDicts()) {
    dict->usable_.store(LocalDict::kSessionClosed, std::memory_order_relaxed);
  }
}

std::shared_ptr<Attachment> LocalSession::CurrentAttachment() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return attachment_;
}

StatusOr<AttachConnection::Received> LocalSession::ExchangeOpenDict(Control* control,
                                                                    const AttachOpenDict& open,
                                                                    Deadline deadline) {
  CallOptions options;
  options.deadline = deadline;
  options.idempotent = true;
  SH_ASSIGN_OR_RETURN(AttachConnection::Received received, Exchange(control, true, open, options));
  if (std::holds_alternative<AttachDictOpened>(received.packet.message)) return received;
  return Status(Reason::kInternal,
                "the daemon answered OpenDict with a packet of another kind; check that client and "
                "service are of the same release");
}

StatusOr<std::shared_ptr<LocalDict>> LocalSession::OpenDict(const std::string& name) {
  const Deadline deadline = DefaultDeadline();
  Turn turn;
  SH_RETURN_IF_ERROR(TakeTurn(deadline, &turn));
  SH_ASSIGN_OR_RETURN(const AttachConnection::Received received,
                      ExchangeOpenDict(turn.get(), AttachOpenDict{name}, deadline));
  const auto& opened = std::get<AttachDictOpened>(received.packet.message);
  for (std::shared_ptr<LocalDict>& known : LivingDicts()) {
    if (!known->usable() || known->facts().id != opened.dict_id) continue;
    const Status adopted = known->Adopt(opened, received.descriptors);
    if (adopted.ok()) return std::move(known);
    if (adopted.reason() != Reason::kDictNotFound) return adopted;
  }
  SH_ASSIGN_OR_RETURN(std::unique_ptr<LocalDict::Mapping> mapping,
                      LocalDict::Map(opened, received.descriptors));
  LocalDictFacts facts;
  facts.id = opened.dict_id;
  facts.name = opened.name;
  facts.index = opened.index;
  facts.max_entries = opened.max_entries;
  facts.max_bytes = opened.max_bytes;
  facts.default_ttl_ms = opened.default_ttl_ms;
  const auto dict =
      std::make_shared<LocalDict>(shared_from_this(), std::move(facts), std::move(mapping));
  SH_RETURN_IF_ERROR(dict->PrepareLanesOf(dict->current_.load(), CurrentAttachment()));
  const std::lock_guard<std::mutex> lock(mutex_);
  dicts_.push_back(dict);
  return dict;
}

StatusOr<UniqueFd> LocalSession::OpenFollowLog(uint32_t dict_index, uint64_t log_id,
                                               Deadline deadline) {
  SH_ASSIGN_OR_RETURN(AttachConnection connection, ConnectOnce(false, deadline, Interrupt()));
  const auto ask = [&]() -> StatusOr<UniqueFd> {
    const AttachOpenFollowLog open{"#" + std::to_string(dict_index), log_id};
    SH_RETURN_IF_ERROR(connection.Send(AttachPacket{1, open}, -1, deadline));
    SH_ASSIGN_OR_RETURN(AttachConnection::Received received,
                        connection.Receive(deadline, Interrupt()));
    if (const auto* error = std::get_if<AttachError>(&received.packet.message)) {
      return Status(error->reason, error->message).WithRetryAfter(error->retry_after_ms);
    }
    const bool opened = std::holds_alternative<AttachFollowLogOpened>(received.packet.message);
    if (!opened || received.descriptors.size() != 1) {
      return Status(Reason::kInternal,
                    "the daemon answered OpenFollowLog with a packet of another kind; check that "
                    "client and service are of the same release");
    }
    return std::move(received.descriptors[0]);
  };
  StatusOr<UniqueFd> log = ask();
  CloseTracked(&connection);
  return log;
}

void LocalSession::ReopenDicts(Control* control, Deadline deadline) {
  for (const std::shared_ptr<LocalDict>& dict : LivingDicts()) {
    if (!dict->usable()) continue;
    bool sent = false;
    const AttachOpenDict request{"#" + std::to_string(dict->facts().index)};
    const StatusOr<AttachConnection::Received> received =
        ExchangeOnce(control, request, deadline, &sent);
    // As for areas: whoever needs the daemon next meets the trouble and reports it.
    if (!received.ok()) return;
    const auto* error = std::get_if<AttachError>(&received->packet.message);
    if (error != nullptr && error->reason == Reason::kDictNotFound) {
      dict->usable_.store(LocalDict::kReplaced, std::memory_order_relaxed);
    }
    if (const auto* opened = std::get_if<AttachDictOpened>(&received->packet.message)) {
      // What cannot be mapped is as good as before. Another dict retires the handle.
      (void)dict->Adopt(*opened, received->descriptors);
    }
  }
}

}  // namespace statehouse
