// The part of the C interface that notes operations on areas in a batch.
#include <string>
#include <utility>

#include "clients/c/src/batch_handle.h"
#include "engine/value/wire.h"
#include "statehouse/v1/batch.pb.h"

namespace statehouse {
namespace {

using internal::AppendVarint;

// Fields of WordAdd, behind the area's place.
constexpr char kPosTag = 2 << 3;
constexpr char kTypeTag = 3 << 3;
constexpr char kDeltaTag = 4 << 3;

Status CheckRange(uint64_t len) {
  if (len <= SH_BATCH_RANGE_BYTES_MAX) return Status();
  return Status(Reason::kLimitExceeded,
                "batch: " + std::to_string(len) + " bytes of an area in one operation; at most " +
                    std::to_string(SH_BATCH_RANGE_BYTES_MAX) + " are allowed, note several");
}

// `call` is one of the calls of statehouse.h, with the area and the place for its result first.
template <typename CallOfArea>
sh_reason NoteCall(sh_batch* batch, sh_area* area, uint16_t shows, uint64_t range_bytes,
                   const CallOfArea& call, size_t* index, sh_error** error) {
  const auto note = [&]() -> Status {
    if (batch == nullptr) return Status(Reason::kInvalidArgument, "the batch is NULL");
    SH_ASSIGN_OR_RETURN(NotedBatch::AreasOf* const areas, batch->Use(area));
    SH_RETURN_IF_ERROR(CheckRange(range_bytes));
    const auto action = [areas, call](BatchTarget target, BatchResult* r, sh_error** e) {
      return call(areas->at(target), r, e);
    };
    return batch->Note(shows, action, index);
  };
  return Finish(note(), area == nullptr ? nullptr : area->name.c_str(), error);
}

Status NoteAdd(sh_batch* batch, sh_area* area, sh_word_type type, uint64_t pos, int64_t delta,
               size_t* index) {
  if (batch == nullptr) return Status(Reason::kInvalidArgument, "the batch is NULL");
  SH_RETURN_IF_ERROR(batch->CheckOwn(area));
  if (!IsWordType(static_cast<unsigned>(type))) {
    return Status(Reason::kWidthInvalid, "word type " + std::to_string(static_cast<int>(type)) +
                                             " is none of SH_U8 … SH_I64");
  }
  std::string tail;
  if (pos != 0) {
    tail.push_back(kPosTag);
    AppendVarint(&tail, pos);
  }
  tail.push_back(kTypeTag);
  tail.push_back(static_cast<char>(type));
  if (delta != 1) {
    tail.push_back(kDeltaTag);
    AppendVarint(&tail, static_cast<uint64_t>(delta) << 1 ^ static_cast<uint64_t>(delta >> 63));
  }
  const auto action = [&]() -> BatchAction {
    return [areas = *batch->Use(area), type, pos, delta](BatchTarget target, BatchResult* r,
                                                         sh_error** e) {
      return sh_add(areas->at(target), type, pos, delta, &r->count, e);
    };
  };
  return batch->NoteShort(kShowsWord, v1::Operation::kAdd, area->name, tail, action, index);
}

}  // namespace
}  // namespace statehouse

using statehouse::BatchResult;
using statehouse::NoteCall;

sh_reason sh_batch_area_load(sh_batch* batch, sh_area* area, sh_word_type type, uint64_t pos,
                             size_t* index, sh_error** error) {
  const auto call = [type, pos](sh_area* at, BatchResult* r, sh_error** e) {
    return sh_load(at, type, pos, &r->count, e);
  };
  return NoteCall(batch, area, statehouse::kShowsWord, 0, call, index, error);
}

sh_reason sh_batch_area_store(sh_batch* batch, sh_area* area, sh_word_type type, uint64_t pos,
                              uint64_t value, uint64_t fence, size_t* index, sh_error** error) {
  const auto call = [type, pos, value, fence](sh_area* at, BatchResult*, sh_error** e) {
    return sh_store_fenced(at, type, pos, value, fence, e);
  };
  return NoteCall(batch, area, statehouse::kShowsNothing, 0, call, index, error);
}

sh_reason sh_batch_area_add(sh_batch* batch, sh_area* area, sh_word_type type, uint64_t pos,
                            int64_t delta, uint64_t fence, size_t* index, sh_error** error) {
  if (fence == 0) {
    return statehouse::Finish(statehouse::NoteAdd(batch, area, type, pos, delta, index),
                              area == nullptr ? nullptr : area->name.c_str(), error);
  }
  const auto call = [type, pos, delta, fence](sh_area* at, BatchResult* r, sh_error** e) {
    return sh_add_fenced(at, type, pos, delta, fence, &r->count, e);
  };
  return NoteCall(batch, area, statehouse::kShowsWord, 0, call, index, error);
}

sh_reason sh_batch_area_compare_exchange(sh_batch* batch, sh_area* area, sh_word_type type,
                                         uint64_t pos, uint64_t expected, uint64_t desired,
                                         uint64_t fence, size_t* index, sh_error** error) {
  const auto call = [type, pos, expected, desired, fence](sh_area* at, BatchResult* r,
                                                          sh_error** e) {
    return sh_compare_exchange_fenced(at, type, pos, expected, desired, fence, &r->flag, &r->count,
                                      e);
  };
  return NoteCall(batch, area, statehouse::kShowsExchange, 0, call, index, error);
}

sh_reason sh_batch_area_bitwise(sh_batch* batch, sh_area* area, sh_bitwise_operator op,
                                sh_word_type type, uint64_t pos, uint64_t operand, uint64_t fence,
                                size_t* index, sh_error** error) {
  const auto call = [op, type, pos, operand, fence](sh_area* at, BatchResult* r, sh_error** e) {
    return sh_bitwise_fenced(at, op, type, pos, operand, fence, &r->count, e);
  };
  return NoteCall(batch, area, statehouse::kShowsWord, 0, call, index, error);
}

sh_reason sh_batch_area_read(sh_batch* batch, sh_area* area, uint64_t pos, uint64_t len,
                             size_t* index, sh_error** error) {
  const auto call = [pos, len](sh_area* at, BatchResult* r, sh_error** e) {
    std::string& bytes = r->Room().bytes;
    bytes.resize(len);
    return sh_read(at, pos, bytes.data(), len, e);
  };
  return NoteCall(batch, area, statehouse::kShowsBytes, len, call, index, error);
}

sh_reason sh_batch_area_write(sh_batch* batch, sh_area* area, uint64_t pos, const void* bytes,
                              uint64_t len, uint64_t fence, size_t* index, sh_error** error) {
  std::string copy;
  if (bytes != nullptr && len <= SH_BATCH_RANGE_BYTES_MAX) {
    copy.assign(static_cast<const char*>(bytes), len);
  }
  const bool has_bytes = bytes != nullptr;
  const auto call = [pos, len, fence, has_bytes, copy = std::move(copy)](sh_area* at, BatchResult*,
                                                                         sh_error** e) {
    return sh_write_fenced(at, pos, has_bytes ? copy.data() : nullptr, len, fence, e);
  };
  return NoteCall(batch, area, statehouse::kShowsNothing, len, call, index, error);
}

sh_reason sh_batch_area_fill(sh_batch* batch, sh_area* area, uint64_t pos, uint64_t len,
                             uint8_t value, uint64_t fence, size_t* index, sh_error** error) {
  const auto call = [pos, len, value, fence](sh_area* at, BatchResult*, sh_error** e) {
    return sh_fill_fenced(at, pos, len, value, fence, e);
  };
  return NoteCall(batch, area, statehouse::kShowsNothing, len, call, index, error);
}
