// The part of the C interface that concerns dicts as objects: made, found, opened, emptied.
#include <string>
#include <utility>
#include <vector>

#include "clients/c/src/dict_handle.h"

namespace statehouse {
namespace {

std::string Dicts(const char* verb) { return std::string("/statehouse.v1.Dicts/") + verb; }

sh_dict_info InfoOf(const v1::Dict& dict) {
  sh_dict_info info{};
  CopyText(dict.name(), info.name);
  info.index = dict.index();
  info.attached_processes = dict.attached_processes();
  info.entries = dict.entries();
  info.revision = dict.revision();
  info.max_entries = dict.max_entries();
  info.max_bytes = dict.max_bytes();
  info.entry_bytes = dict.entry_bytes();
  info.bound_entries = dict.bound_entries();
  info.memory_bytes = dict.memory_bytes();
  info.default_ttl_ms = static_cast<uint64_t>(dict.default_ttl().seconds()) * 1000 +
                        static_cast<uint64_t>(dict.default_ttl().nanos()) / 1'000'000;
  info.evictions = dict.evictions();
  info.expirations = dict.expirations();
  info.create_time_ns = dict.create_time().seconds() * 1'000'000'000 + dict.create_time().nanos();
  info.moves = dict.moves();
  info.evict = dict.full_policy() == v1::FULL_POLICY_EVICT;
  return info;
}

Status CheckClient(const sh_client* client) {
  if (client != nullptr) return Status();
  return Status(Reason::kInvalidArgument, "the client is NULL");
}

StatusOr<v1::CreateDictResponse> Create(const sh_client* client, const char* name,
                                        const sh_dict_spec& spec) {
  SH_RETURN_IF_ERROR(CheckClient(client));
  v1::CreateDictRequest request;
  SH_ASSIGN_OR_RETURN(*request.mutable_name(), NameOf(name));
  request.set_max_entries(spec.max_entries);
  request.set_max_bytes(spec.max_bytes);
  if (spec.default_ttl_ms != 0) {
    const uint64_t ms = spec.default_ttl_ms;
    request.mutable_default_ttl()->set_seconds(static_cast<int64_t>(ms / 1000));
    request.mutable_default_ttl()->set_nanos(static_cast<int32_t>(ms % 1000 * 1'000'000));
  }
  if (spec.evict != 0) request.set_full_policy(v1::FULL_POLICY_EVICT);
  request.set_exclusive(spec.exclusive != 0);
  v1::CreateDictResponse response;
  SH_RETURN_IF_ERROR(client->caller().Call(Dicts("CreateDict"), request, &response,
                                           OptionsFor(client->timeout, spec.exclusive == 0)));
  return response;
}

StatusOr<v1::Dict> Describe(const sh_client* client, const char* name) {
  SH_RETURN_IF_ERROR(CheckClient(client));
  v1::DescribeDictRequest request;
  SH_ASSIGN_OR_RETURN(*request.mutable_name(), NameOf(name));
  v1::DescribeDictResponse response;
  SH_RETURN_IF_ERROR(client->caller().Call(Dicts("DescribeDict"), request, &response,
                                           OptionsFor(client->timeout, true)));
  return response.dict();
}

Status Delete(const sh_client* client, const char* name) {
  SH_RETURN_IF_ERROR(CheckClient(client));
  v1::DeleteDictRequest request;
  SH_ASSIGN_OR_RETURN(*request.mutable_name(), NameOf(name));
  v1::DeleteDictResponse response;
  return client->caller().Call(Dicts("DeleteDict"), request, &response,
                               OptionsFor(client->timeout, false));
}

Status List(const sh_client* client, const char* prefix, std::vector<sh_dict_info>* infos) {
  SH_RETURN_IF_ERROR(CheckClient(client));
  v1::ListDictsRequest request;
  if (prefix != nullptr) request.set_prefix(prefix);
  for (;;) {
    v1::ListDictsResponse response;
    SH_RETURN_IF_ERROR(client->caller().Call(Dicts("ListDicts"), request, &response,
                                             OptionsFor(client->timeout, true)));
    for (const v1::Dict& dict : response.dicts()) infos->push_back(InfoOf(dict));
    if (response.next_page_token().empty()) return Status();
    request.set_page_token(response.next_page_token());
  }
}

Status Open(const sh_client* client, const char* name, const sh_dict_spec* spec, sh_dict** dict) {
  SH_RETURN_IF_ERROR(CheckClient(client));
  if (dict == nullptr) return Status(Reason::kInvalidArgument, "sh_dict_open: dict is NULL");
  auto handle = std::make_unique<sh_dict>();
  handle->watches = client->watches;
  SH_ASSIGN_OR_RETURN(handle->name, NameOf(name));
  if (spec != nullptr) {
    SH_ASSIGN_OR_RETURN(const v1::CreateDictResponse created, Create(client, name, *spec));
    handle->name = created.dict().name();
  }
  if (client->local != nullptr) {
    SH_ASSIGN_OR_RETURN(handle->local, client->local->OpenDict(handle->name));
    handle->name = handle->local->name();
    handle->network = std::make_unique<NetworkDict>(
        "#" + std::to_string(handle->local->facts().index),
        std::make_shared<LocalCaller>(client->local), client->timeout);
  } else {
    if (spec == nullptr) {
      SH_ASSIGN_OR_RETURN(const v1::Dict found, Describe(client, name));
      handle->name = found.name();
    }
    handle->network = std::make_unique<NetworkDict>(handle->name, client->network, client->timeout);
  }
  handle->locks = client->locks;
  *dict = handle.release();
  return Status();
}

StatusOr<uint64_t> Length(sh_dict* dict) {
  SH_RETURN_IF_ERROR(CheckDict(dict));
  return dict->local != nullptr ? dict->local->Length() : dict->network->Length();
}

Status Clear(sh_dict* dict, uint64_t* deleted) {
  SH_RETURN_IF_ERROR(CheckDict(dict));
  return dict->local != nullptr ? dict->local->Clear(deleted) : dict->network->Clear(deleted);
}

Status DeletePrefix(sh_dict* dict, sh_bytes prefix, uint64_t* deleted) {
  SH_RETURN_IF_ERROR(CheckDict(dict));
  SH_ASSIGN_OR_RETURN(const std::string_view bytes, ToBytes(prefix, "prefix"));
  return dict->local != nullptr ? dict->local->DeletePrefix(bytes, deleted)
                                : dict->network->DeletePrefix(bytes, deleted);
}

}  // namespace
}  // namespace statehouse

using statehouse::Finish;

sh_reason sh_dict_create(sh_client* client, const char* name, const sh_dict_spec* spec,
                         sh_dict_info* info, int* created, sh_error** error) {
  const auto response = statehouse::Create(client, name, spec == nullptr ? sh_dict_spec{} : *spec);
  if (!response.ok()) return Finish(response.status(), name, error);
  if (info != nullptr) *info = statehouse::InfoOf(response->dict());
  if (created != nullptr) *created = response->created();
  return SH_OK;
}

sh_reason sh_dict_describe(sh_client* client, const char* name, sh_dict_info* info,
                           sh_error** error) {
  const auto dict = statehouse::Describe(client, name);
  if (!dict.ok()) return Finish(dict.status(), name, error);
  if (info != nullptr) *info = statehouse::InfoOf(*dict);
  return SH_OK;
}

sh_reason sh_dict_delete(sh_client* client, const char* name, sh_error** error) {
  return Finish(statehouse::Delete(client, name), name, error);
}

sh_reason sh_dict_list(sh_client* client, const char* prefix, sh_dict_info** infos, size_t* count,
                       sh_error** error) {
  std::vector<sh_dict_info> found;
  const statehouse::Status status = statehouse::List(client, prefix, &found);
  if (!status.ok()) return Finish(status, nullptr, error);
  *count = found.size();
  *infos = new sh_dict_info[std::max<size_t>(found.size(), 1)];
  std::copy(found.begin(), found.end(), *infos);
  return SH_OK;
}

void sh_dict_list_free(sh_dict_info* infos) { delete[] infos; }

sh_reason sh_dict_open(sh_client* client, const char* name, const sh_dict_spec* spec,
                       sh_dict** dict, sh_error** error) {
  return Finish(statehouse::Open(client, name, spec, dict), name, error);
}

void sh_dict_close(sh_dict* dict) { delete dict; }
const char* sh_dict_name(const sh_dict* dict) { return statehouse::NameOf(dict); }

sh_reason sh_dict_length(sh_dict* dict, uint64_t* length, sh_error** error) {
  const auto result = statehouse::Length(dict);
  if (result.ok() && length != nullptr) *length = *result;
  return Finish(result.status(), statehouse::NameOf(dict), error);
}

sh_reason sh_dict_clear(sh_dict* dict, uint64_t* deleted, sh_error** error) {
  uint64_t count = 0;
  const statehouse::Status status = statehouse::Clear(dict, &count);
  if (status.ok() && deleted != nullptr) *deleted = count;
  return Finish(status, statehouse::NameOf(dict), error);
}

sh_reason sh_dict_delete_prefix(sh_dict* dict, sh_bytes prefix, uint64_t* deleted,
                                sh_error** error) {
  uint64_t count = 0;
  const statehouse::Status status = statehouse::DeletePrefix(dict, prefix, &count);
  if (status.ok() && deleted != nullptr) *deleted = count;
  return Finish(status, statehouse::NameOf(dict), error);
}
