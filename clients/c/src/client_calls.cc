// The part of the C interface that concerns clients: connecting, errors, and the control calls.
#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "clients/c/src/client_handle.h"
#include "clients/c/src/endpoint.h"
#include "statehouse/v1/admin.pb.h"

namespace statehouse {
namespace {

std::string Areas(const char* verb) { return std::string("/statehouse.v1.Areas/") + verb; }

int64_t UnixNs(const google::protobuf::Timestamp& time) {
  return time.seconds() * 1'000'000'000 + time.nanos();
}

sh_area_info InfoOf(const v1::Area& area) {
  sh_area_info info{};
  CopyText(area.name(), info.name);
  info.index = area.index();
  info.attached_processes = area.attached_processes();
  info.size = area.size();
  info.updates = area.updates();
  info.atomic_range_bytes = area.atomic_range_bytes();
  info.memory_bytes = area.memory_bytes();
  info.offset = area.offset();
  info.create_time_ns = UnixNs(area.create_time());
  info.backing = static_cast<sh_backing>(area.backing());
  return info;
}

StatusOr<ConnectArguments> ArgumentsOf(const char* url, const sh_options* options) {
  ConnectArguments arguments;
  if (url != nullptr) arguments.url = url;
  if (options == nullptr) return arguments;
  if (options->token != nullptr) arguments.token = options->token;
  if (options->token_file != nullptr) arguments.token_file = options->token_file;
  if (options->transport < SH_TRANSPORT_AUTO || options->transport > SH_TRANSPORT_SOCKET) {
    return Status(Reason::kInvalidArgument, "sh_options.transport is none of SH_TRANSPORT_*");
  }
  arguments.transport = static_cast<TransportChoice>(options->transport);
  if (options->timeout_ms > 24ull * 60 * 60 * 1000) {
    return Status(Reason::kInvalidArgument, "sh_options.timeout_ms must be at most 24 hours");
  }
  if (options->timeout_ms != 0) {
    arguments.timeout = std::chrono::milliseconds(options->timeout_ms);
  }
  return arguments;
}

Status OpenDoor(const Endpoint& endpoint, const std::string& client_name, sh_client* client) {
  LocalSessionOptions options;
  options.runtime_dir = endpoint.runtime_dir;
  options.token = endpoint.token;
  options.client_name = client_name;
  options.timeout = endpoint.timeout;
  if (endpoint.local) {
    StatusOr<std::shared_ptr<LocalSession>> attached = LocalSession::Attach(options);
    if (attached.ok()) {
      client->local = *std::move(attached);
      client->local_caller = std::make_unique<LocalCaller>(client->local);
      return Status();
    }
    // What calls need not. Whatever else is wrong with the local door is wrong for the socket, too.
    const bool lanes_alone = attached.status().reason() == Reason::kLanesExhausted;
    if (endpoint.chosen || !lanes_alone) return attached.status();
  }
  if (endpoint.local || endpoint.socket) {
    SH_ASSIGN_OR_RETURN(std::shared_ptr<LocalSession> session,
                        LocalSession::Connect(std::move(options)));
    client->socket = std::make_shared<SocketCaller>(std::move(session), client->streams);
    client->network = client->socket;
  } else {
    client->network = client->streams;
  }
  return Status();
}

Status Connect(const char* url, const sh_options* options, sh_client** client) {
  SH_ASSIGN_OR_RETURN(const ConnectArguments arguments, ArgumentsOf(url, options));
  SH_ASSIGN_OR_RETURN(const Endpoint endpoint, ResolveEndpoint(arguments, ProcessEnvironment()));
  const bool named = options != nullptr && options->client_name != nullptr;
  const std::string client_name = named ? options->client_name : "c/0.1.0";
  auto handle = std::make_unique<sh_client>();
  handle->timeout = endpoint.timeout;
  handle->streams = std::make_shared<NetworkSession>(endpoint.grpc_target, endpoint.tls,
                                                     endpoint.token, client_name);
  SH_RETURN_IF_ERROR(OpenDoor(endpoint, client_name, handle.get()));
  handle->locks = std::make_shared<ClientLocks>(handle->local, &handle->caller(), client_name,
                                                endpoint.timeout);
  handle->watches = std::make_shared<ClientWatches>(handle->streams);
  *client = handle.release();
  return Status();
}

StatusOr<v1::CreateAreaResponse> Create(const sh_client& client, const char* name,
                                        const sh_area_spec& spec) {
  v1::CreateAreaRequest request;
  SH_ASSIGN_OR_RETURN(*request.mutable_name(), NameOf(name));
  request.set_size(spec.size);
  request.set_pages(spec.pages);
  if (spec.file != nullptr) request.set_file(spec.file);
  request.set_offset(spec.offset);
  request.set_exclusive(spec.exclusive != 0);
  v1::CreateAreaResponse response;
  SH_RETURN_IF_ERROR(client.caller().Call(Areas("CreateArea"), request, &response,
                                          OptionsFor(client.timeout, spec.exclusive == 0)));
  return response;
}

StatusOr<v1::Area> Describe(const sh_client& client, const char* name) {
  v1::DescribeAreaRequest request;
  SH_ASSIGN_OR_RETURN(*request.mutable_name(), NameOf(name));
  v1::DescribeAreaResponse response;
  SH_RETURN_IF_ERROR(client.caller().Call(Areas("DescribeArea"), request, &response,
                                          OptionsFor(client.timeout, true)));
  return response.area();
}

Status Delete(const sh_client& client, const char* name) {
  v1::DeleteAreaRequest request;
  SH_ASSIGN_OR_RETURN(*request.mutable_name(), NameOf(name));
  v1::DeleteAreaResponse response;
  return client.caller().Call(Areas("DeleteArea"), request, &response,
                              OptionsFor(client.timeout, false));
}

Status List(const sh_client& client, const char* prefix, std::vector<sh_area_info>* infos) {
  v1::ListAreasRequest request;
  if (prefix != nullptr) request.set_prefix(prefix);
  for (;;) {
    v1::ListAreasResponse response;
    SH_RETURN_IF_ERROR(client.caller().Call(Areas("ListAreas"), request, &response,
                                            OptionsFor(client.timeout, true)));
    for (const v1::Area& area : response.areas()) infos->push_back(InfoOf(area));
    if (response.next_page_token().empty()) return Status();
    request.set_page_token(response.next_page_token());
  }
}

Status Open(const sh_client& client, const char* name, uint64_t size, sh_area** area) {
  auto handle = std::make_unique<sh_area>();
  handle->timeout = client.timeout;
  handle->watches = client.watches;
  if (size > 0) {
    sh_area_spec spec{};
    spec.size = size;
    SH_ASSIGN_OR_RETURN(const v1::CreateAreaResponse created, Create(client, name, spec));
    handle->name = created.area().name();
    handle->size = created.area().size();
  }
  if (client.local != nullptr) {
    SH_ASSIGN_OR_RETURN(const std::string wanted, NameOf(name));
    SH_ASSIGN_OR_RETURN(handle->local, client.local->Open(wanted));
    handle->name = handle->local->name();
    handle->size = handle->local->size();
  } else {
    if (size == 0) {
      SH_ASSIGN_OR_RETURN(const v1::Area found, Describe(client, name));
      handle->name = found.name();
      handle->size = found.size();
    }
    handle->network = client.network;
  }
  *area = handle.release();
  return Status();
}

}  // namespace

sh_reason Finish(const Status& status, const char* name, sh_error** error) {
  const auto reason = static_cast<sh_reason>(status.reason());
  if (!status.ok() && error != nullptr) {
    *error = new sh_error{reason, status.message(), name == nullptr ? "" : name,
                          status.retry_after_ms()};
  }
  return reason;
}

StatusOr<std::string> NameOf(const char* name) {
  if (name != nullptr) return std::string(name);
  return Status(Reason::kInvalidArgument, "the name is NULL");
}

}  // namespace statehouse

using statehouse::Finish;
using statehouse::Reason;
using statehouse::Status;

const char* sh_reason_name(sh_reason reason) {
  const unsigned number = static_cast<unsigned>(reason);
  if (number >= statehouse::kReasonCount) return "UNKNOWN";
  return statehouse::ReasonName(static_cast<Reason>(number)).data();  // A literal.
}

sh_reason sh_error_reason(const sh_error* error) {
  return error == nullptr ? SH_OK : error->reason;
}
const char* sh_error_message(const sh_error* error) {
  return error == nullptr ? "" : error->message.c_str();
}
const char* sh_error_name(const sh_error* error) {
  return error == nullptr ? "" : error->name.c_str();
}
int sh_error_retryable(const sh_error* error) {
  return error != nullptr && statehouse::ReasonIsRetryable(static_cast<Reason>(error->reason));
}
uint32_t sh_error_retry_after_ms(const sh_error* error) {
  return error == nullptr ? 0 : error->retry_after_ms;
}
void sh_error_free(sh_error* error) { delete error; }

sh_reason sh_connect(const char* url, const sh_options* options, sh_client** client,
                     sh_error** error) {
  if (client == nullptr) {
    return Finish(Status(Reason::kInvalidArgument, "sh_connect: client is NULL"), nullptr, error);
  }
  return Finish(statehouse::Connect(url, options, client), nullptr, error);
}

void sh_close(sh_client* client) {
  if (client == nullptr) return;
  client->locks->Close();
  if (client->local != nullptr) client->local->Close();
  client->watches->Close();
  client->streams->Close();
  if (client->socket != nullptr) client->socket->Close();
  delete client;
}

sh_transport sh_transport_of(const sh_client* client) {
  if (client->socket != nullptr) return SH_TRANSPORT_SOCKET;
  return client->local != nullptr ? SH_TRANSPORT_LOCAL : SH_TRANSPORT_NETWORK;
}

sh_reason sh_area_create(sh_client* client, const char* name, const sh_area_spec* spec,
                         sh_area_info* info, int* created, sh_error** error) {
  auto response = statehouse::Create(*client, name, spec == nullptr ? sh_area_spec{} : *spec);
  if (!response.ok()) return Finish(response.status(), name, error);
  if (info != nullptr) *info = statehouse::InfoOf(response->area());
  if (created != nullptr) *created = response->created();
  return SH_OK;
}

sh_reason sh_area_describe(sh_client* client, const char* name, sh_area_info* info,
                           sh_error** error) {
  auto area = statehouse::Describe(*client, name);
  if (!area.ok()) return Finish(area.status(), name, error);
  if (info != nullptr) *info = statehouse::InfoOf(*area);
  return SH_OK;
}

sh_reason sh_area_delete(sh_client* client, const char* name, sh_error** error) {
  return Finish(statehouse::Delete(*client, name), name, error);
}

sh_reason sh_area_list(sh_client* client, const char* prefix, sh_area_info** infos, size_t* count,
                       sh_error** error) {
  std::vector<sh_area_info> found;
  const Status status = statehouse::List(*client, prefix, &found);
  if (!status.ok()) return Finish(status, nullptr, error);
  *count = found.size();
  *infos = new sh_area_info[std::max<size_t>(found.size(), 1)];
  std::copy(found.begin(), found.end(), *infos);
  return SH_OK;
}

void sh_area_list_free(sh_area_info* infos) { delete[] infos; }

sh_reason sh_area_open(sh_client* client, const char* name, uint64_t size, sh_area** area,
                       sh_error** error) {
  return Finish(statehouse::Open(*client, name, size, area), name, error);
}

void sh_area_close(sh_area* area) { delete area; }
const char* sh_area_name(const sh_area* area) { return area->name.c_str(); }
uint64_t sh_area_size(const sh_area* area) { return area->size; }

sh_reason sh_get_status(sh_client* client, sh_status* status, sh_error** error) {
  statehouse::v1::GetStatusResponse response;
  const Status called =
      client->caller().Call("/statehouse.v1.Admin/GetStatus", statehouse::v1::GetStatusRequest(),
                            &response, statehouse::OptionsFor(client->timeout, true));
  if (!called.ok()) return Finish(called, nullptr, error);
  *status = sh_status{};
  statehouse::CopyText(response.version(), status->version);
  status->draining = response.state() == statehouse::v1::SERVING_STATE_DRAINING;
  status->areas = response.areas();
  status->generation = response.generation();
  status->daemon_pid = response.daemon_pid();
  status->attached_processes = response.attached_processes();
  status->memory_bytes = response.memory_bytes();
  status->memory_limit_bytes = response.memory_limit_bytes();
  status->recoveries = response.recoveries();
  status->start_time_ns = statehouse::UnixNs(response.start_time());
  status->locks_held = response.locks_held();
  status->lock_waiters = response.lock_waiters();
  status->sessions = response.sessions();
  return SH_OK;
}
