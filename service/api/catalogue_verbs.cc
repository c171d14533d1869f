#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "service/api/area_file.h"
#include "service/api/paging.h"
#include "service/api/verbs.h"

namespace statehouse {
namespace {

constexpr std::string_view kPageTokenPrefix = "areas1.";

// Fills what is known of a served area. False when it was deleted meanwhile.
bool FillArea(const VerbContext& context, ServedArea& served, v1::Area* area) {
  // By index, because a deleted name may already belong to another area.
  const auto info = context.engine->DescribeArea("#" + std::to_string(served.info().index));
  if (!info.ok()) return false;
  area->set_name(info->name);
  area->set_index(info->index);
  area->set_size(info->geometry.size);
  area->set_updates(served.area().Updates());
  area->set_atomic_range_bytes(info->geometry.atomic_range_bytes);
  area->set_backing(static_cast<v1::AreaBacking>(info->backing));
  area->set_file(info->file);
  area->set_offset(info->offset);
  SetTimestamp(info->create_time_ns, area->mutable_create_time());
  area->set_attached_processes(info->attached_processes);
  area->set_memory_bytes(info->memory_bytes);
  return true;
}

Status DeletedMeanwhile(std::string_view name) {
  return Status(Reason::kAreaNotFound,
                "area \"" + std::string(name) + "\" was deleted during the call");
}

// The size in bytes that `size` and `pages` ask for.
StatusOr<uint64_t> SizeOf(const v1::CreateAreaRequest& request) {
  const auto refuse = [&request](const std::string& why) {
    return Status(Reason::kSizeInvalid, "creating area \"" + request.name() + "\": " + why);
  };
  if (request.size() == 0 && request.pages() == 0) {
    return refuse("set size (bytes) or pages (of 4096 bytes) to at least 1");
  }
  if (request.pages() > UINT64_MAX / kPageBytes) return refuse("pages is beyond every limit");
  const uint64_t by_pages = request.pages() * kPageBytes;
  if (request.size() != 0 && request.pages() != 0 && request.size() != by_pages) {
    return refuse("size " + std::to_string(request.size()) + " contradicts " +
                  std::to_string(request.pages()) + " pages of 4096 bytes");
  }
  return request.size() != 0 ? request.size() : by_pages;
}

}  // namespace

Status CreateArea(const VerbContext& context, const v1::CreateAreaRequest& request,
                  v1::CreateAreaResponse* response) {
  SH_RETURN_IF_ERROR(CheckName(request.name()));
  if (request.name().front() == '#') {
    return Status(Reason::kNameInvalid,
                  "field name: \"" + request.name() + "\" is an index; a new area needs a name");
  }
  SH_RETURN_IF_ERROR(context.identity->Require(ObjectKind::kArea, request.name(), Verb::kCreate));
  AreaSpec spec;
  spec.name = request.name();
  SH_ASSIGN_OR_RETURN(spec.size, SizeOf(request));
  spec.exclusive = request.exclusive();
  if (!request.file().empty()) {
    SH_RETURN_IF_ERROR(context.identity->Require(ObjectKind::kArea, request.name(), Verb::kAdmin));
    spec.backing = AreaBacking::kFile;
    SH_ASSIGN_OR_RETURN(spec.file,
                        ResolveAreaFile(context.options->areas_file_root, request.file()));
  }
  if (request.offset() != 0 && request.file().empty()) {
    return Status(Reason::kInvalidArgument, "field offset: it needs a file");
  }
  if (request.offset() % kPageBytes != 0) {
    return Status(Reason::kInvalidArgument,
                  "field offset: " + std::to_string(request.offset()) + " is no multiple of 4096");
  }
  spec.offset = request.offset();
  SH_ASSIGN_OR_RETURN(const Engine::Created created, context.engine->CreateArea(std::move(spec)));
  response->set_created(created.created);
  if (!FillArea(context, *created.area, response->mutable_area())) {
    return DeletedMeanwhile(request.name());
  }
  return Status();
}

Status DescribeArea(const VerbContext& context, const v1::DescribeAreaRequest& request,
                    v1::DescribeAreaResponse* response) {
  SH_ASSIGN_OR_RETURN(const auto served, ResolveArea(context, request.name(), Verb::kRead));
  if (!FillArea(context, *served, response->mutable_area())) {
    return DeletedMeanwhile(request.name());
  }
  return Status();
}

Status ListAreas(const VerbContext& context, const v1::ListAreasRequest& request,
                 v1::ListAreasResponse* response) {
  SH_ASSIGN_OR_RETURN(uint32_t next,
                      ParsePageToken(kPageTokenPrefix, request.page_token(), request.prefix()));
  const uint32_t wanted = PageSize(request.page_size());
  for (;;) {
    const auto batch = context.engine->ListAreas(request.prefix(), next, kPageSizeMax);
    if (batch.empty()) return Status();
    for (const std::shared_ptr<ServedArea>& served : batch) {
      const AreaInfo& info = served->info();
      if (!context.identity->Allows(ObjectKind::kArea, info.name, Verb::kRead)) continue;
      if (static_cast<uint32_t>(response->areas_size()) == wanted) {
        response->set_next_page_token(PageToken(kPageTokenPrefix, info.index, request.prefix()));
        return Status();
      }
      if (!FillArea(context, *served, response->add_areas())) {
        response->mutable_areas()->RemoveLast();
      }
    }
    const uint32_t last = batch.back()->info().index;
    if (last == UINT32_MAX) return Status();
    next = last + 1;
  }
}

Status DeleteArea(const VerbContext& context, const v1::DeleteAreaRequest& request,
                  v1::DeleteAreaResponse* response) {
  SH_ASSIGN_OR_RETURN(const auto served, ResolveArea(context, request.name(), Verb::kCreate));
  // By index: an area of the same name that was made meanwhile is another one.
  const Status deleted = context.engine->DeleteArea("#" + std::to_string(served->info().index));
  if (deleted.reason() == Reason::kAreaNotFound) return DeletedMeanwhile(request.name());
  return deleted;
}

}  // namespace statehouse
