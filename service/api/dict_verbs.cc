// Dicts as objects: made, described, listed, cleared and deleted.
#include "service/api/dict_verbs.h"

#include <algorithm>
#include <string>

#include "service/api/dict_fields.h"
#include "service/api/paging.h"

namespace statehouse {
namespace {

constexpr std::string_view kPageTokenPrefix = "dicts1.";

Status NotFound(std::string_view name) {
  return Status(Reason::kDictNotFound,
                "dict \"" + std::string(name) + "\" does not exist; create it, or list the dicts");
}

Status FillDict(const VerbContext& context, const ServedDict& served, v1::Dict* dict) {
  const DictRecord& record = served.record();
  const DictStats stats = served.Stats();
  SH_ASSIGN_OR_RETURN(const uint64_t memory_bytes, served.MemoryBytes());
  dict->set_name(record.name);
  dict->set_index(record.index);
  dict->set_entries(stats.entries);
  dict->set_revision(stats.revision);
  dict->set_max_entries(record.max_entries);
  dict->set_max_bytes(record.max_bytes);
  dict->set_entry_bytes(stats.entry_bytes);
  dict->set_memory_bytes(memory_bytes);
  const uint64_t ttl = record.geometry.default_ttl_ms;
  if (ttl != 0) {
    dict->mutable_default_ttl()->set_seconds(static_cast<int64_t>(ttl / 1000));
    dict->mutable_default_ttl()->set_nanos(static_cast<int32_t>(ttl % 1000 * 1'000'000));
  }
  dict->set_full_policy(record.evict ? v1::FULL_POLICY_EVICT : v1::FULL_POLICY_ERROR);
  dict->set_evictions(stats.evictions);
  dict->set_expirations(stats.expirations);
  SetTimestamp(record.create_time_ns, dict->mutable_create_time());
  dict->set_attached_processes(context.engine->dicts().AttachedProcesses(record.id));
  dict->set_moves(record.generation - 1);
  dict->set_bound_entries(stats.bound_entries);
  return Status();
}

}  // namespace

StatusOr<std::shared_ptr<ServedDict>> ResolveDict(const VerbContext& context, std::string_view name,
                                                  Verb verb) {
  SH_RETURN_IF_ERROR(CheckName(name));
  const bool by_index = name.front() == '#';
  // As ResolveArea: the answer does not depend on what exists, unless the caller may read it.
  if (!by_index) SH_RETURN_IF_ERROR(context.identity->Require(ObjectKind::kDict, name, verb));
  StatusOr<std::shared_ptr<ServedDict>> found = context.engine->dicts().Find(name);
  if (!found.ok() || !by_index) return found;
  const std::string& real = (*found)->record().name;
  if (context.identity->Allows(ObjectKind::kDict, real, verb)) return found;
  if (!context.identity->Allows(ObjectKind::kDict, real, Verb::kRead)) return NotFound(name);
  return context.identity->Require(ObjectKind::kDict, real, verb);
}

Status CreateDict(const VerbContext& context, const v1::CreateDictRequest& request,
                  v1::CreateDictResponse* response) {
  SH_RETURN_IF_ERROR(CheckName(request.name()));
  if (request.name().front() == '#') {
    return Status(Reason::kNameInvalid,
                  "field name: \"" + request.name() + "\" is an index; a new dict needs a name");
  }
  SH_RETURN_IF_ERROR(context.identity->Require(ObjectKind::kDict, request.name(), Verb::kCreate));
  DictSpec spec;
  spec.name = request.name();
  if (request.max_entries() != 0) spec.max_entries = request.max_entries();
  if (request.max_bytes() != 0) spec.max_bytes = request.max_bytes();
  if (request.has_default_ttl()) {
    SH_ASSIGN_OR_RETURN(spec.default_ttl_ms, ToMilliseconds(request.default_ttl(), "default_ttl"));
  }
  if (!v1::FullPolicy_IsValid(request.full_policy())) {
    return Status(Reason::kInvalidArgument,
                  "field full_policy: " + std::to_string(static_cast<int>(request.full_policy())) +
                      " is no policy; use ERROR or EVICT");
  }
  if (request.full_policy() != v1::FULL_POLICY_UNSPECIFIED) {
    spec.evict = request.full_policy() == v1::FULL_POLICY_EVICT;
  }
  spec.exclusive = request.exclusive();
  SH_ASSIGN_OR_RETURN(const DictStore::Created created, context.engine->dicts().Create(spec));
  response->set_created(created.created);
  return FillDict(context, *created.dict, response->mutable_dict());
}

Status DescribeDict(const VerbContext& context, const v1::DescribeDictRequest& request,
                    v1::DescribeDictResponse* response) {
  SH_ASSIGN_OR_RETURN(const auto served, ResolveDict(context, request.name(), Verb::kRead));
  return FillDict(context, *served, response->mutable_dict());
}

Status ListDicts(const VerbContext& context, const v1::ListDictsRequest& request,
                 v1::ListDictsResponse* response) {
  SH_ASSIGN_OR_RETURN(uint32_t next,
                      ParsePageToken(kPageTokenPrefix, request.page_token(), request.prefix()));
  const uint32_t wanted = PageSize(request.page_size());
  for (;;) {
    const auto batch = context.engine->dicts().List(request.prefix(), next, kPageSizeMax);
    if (batch.empty()) return Status();
    for (const std::shared_ptr<ServedDict>& served : batch) {
      const DictRecord& record = served->record();
      if (!context.identity->Allows(ObjectKind::kDict, record.name, Verb::kRead)) continue;
      if (static_cast<uint32_t>(response->dicts_size()) == wanted) {
        response->set_next_page_token(PageToken(kPageTokenPrefix, record.index, request.prefix()));
        return Status();
      }
      SH_RETURN_IF_ERROR(FillDict(context, *served, response->add_dicts()));
    }
    const uint32_t last = batch.back()->record().index;
    if (last == UINT32_MAX) return Status();
    next = last + 1;
  }
}

Status DeleteDict(const VerbContext& context, const v1::DeleteDictRequest& request,
                  v1::DeleteDictResponse*) {
  SH_ASSIGN_OR_RETURN(const auto served, ResolveDict(context, request.name(), Verb::kCreate));
  // By index: a dict of the same name that was made meanwhile is another one.
  return context.engine->dicts().Delete("#" + std::to_string(served->record().index));
}

Status ClearDict(const VerbContext& context, const v1::ClearDictRequest& request,
                 v1::ClearDictResponse* response) {
  for (int round = 0; round < kDictMovesMax; ++round) {
    SH_ASSIGN_OR_RETURN(const auto served, ResolveDict(context, request.name(), Verb::kWrite));
    uint64_t entries = 0;
    bool cleared = false;
    SH_RETURN_IF_ERROR(context.engine->dicts().ClearDict(context.lane, served, &entries, &cleared));
    if (!cleared) continue;  // It moved meanwhile: clear what it is now.
    response->set_deleted(entries);
    return Status();
  }
  return Status(Reason::kDictMoved, "dict \"" + request.name() + "\" moves all the time");
}

}  // namespace statehouse
