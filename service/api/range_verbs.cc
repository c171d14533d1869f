#include <algorithm>
#include <chrono>
#include <cstddef>
#include <span>
#include <string>

#include "service/api/verbs.h"

namespace statehouse {
namespace {

// Bytes of a ReadAreaResponse around its data: one tag and the length as a varint.
constexpr uint64_t kReadFrameBytes = 1 + 10;

// Carries a range out in pieces of `atomic_range_bytes`, `piece(done, count)` each, from where the
// last turn ended. A range of one piece is one call. STALLED also means that the turn is over while
// the range goes on.
template <typename Piece>
Status InPieces(const VerbContext& context, const Area& area, uint64_t len,
                std::string_view what_was_done, const Piece& piece) {
  const uint64_t piece_bytes = area.geometry().atomic_range_bytes;
  if (len <= piece_bytes) return piece(0, len);
  if (context.fast) {
    return Status(Reason::kStalled, "area \"" + area.name() + "\": the range has several pieces");
  }
  uint64_t& done = context.turns->done;
  const auto turn_ends = std::chrono::steady_clock::now() + std::chrono::nanoseconds(kSlowSliceNs);
  const auto how_far = [&] {
    return "; the first " + std::to_string(done) + " of " + std::to_string(len) + " bytes were " +
           std::string(what_was_done);
  };
  while (done < len) {
    const uint64_t count = std::min(piece_bytes, len - done);
    const Status status = piece(done, count);
    if (!status.ok()) return Status(status.reason(), status.message() + how_far());
    done += count;
    if (done < len && std::chrono::steady_clock::now() >= turn_ends) {
      return Status(Reason::kStalled, "area \"" + area.name() + "\": the call goes on" + how_far());
    }
  }
  return Status();
}

StatusOr<std::shared_ptr<ServedArea>> AreaOf(const VerbContext& context, const std::string& name,
                                             Verb verb) {
  if (context.turns != nullptr && context.turns->area != nullptr) return context.turns->area;
  StatusOr<std::shared_ptr<ServedArea>> served = ResolveArea(context, name, verb);
  if (served.ok() && context.turns != nullptr) context.turns->area = *served;
  return served;
}

// `len` as sent, or to the end of the area.
uint64_t LengthOr(bool has_len, uint64_t len, const Area& area, uint64_t pos) {
  if (has_len) return len;
  return pos <= area.size() ? area.size() - pos : 0;
}

}  // namespace

Status ReadArea(const VerbContext& context, const v1::ReadAreaRequest& request,
                v1::ReadAreaResponse* response) {
  SH_ASSIGN_OR_RETURN(const auto served, AreaOf(context, request.name(), Verb::kRead));
  const Area& area = served->area();
  const uint64_t len = LengthOr(request.has_len(), request.len(), area, request.pos());
  SH_RETURN_IF_ERROR(CheckBounds(area, request.pos(), len));
  if (len + kReadFrameBytes > context.options->message_bytes_max) {
    return Status(Reason::kMessageTooLarge,
                  "area \"" + area.name() + "\": reading " + std::to_string(len) +
                      " bytes makes a message beyond the limit of " +
                      std::to_string(context.options->message_bytes_max) + "; read in parts");
  }
  std::string* data = response->mutable_data();
  const bool is_handed_over = context.fast && len > area.geometry().atomic_range_bytes;
  if (!is_handed_over && data->size() != len) data->resize(len);
  std::byte* const out = reinterpret_cast<std::byte*>(data->data());
  return InPieces(context, area, len, "read", [&](uint64_t done, uint64_t count) {
    return area.Read(request.pos() + done, std::span<std::byte>(out + done, count), &context.lane,
                     context.lane.operation_timeout_ns);
  });
}

Status WriteArea(const VerbContext& context, const v1::WriteAreaRequest& request,
                 v1::WriteAreaResponse* response) {
  SH_ASSIGN_OR_RETURN(const auto served, AreaOf(context, request.name(), Verb::kWrite));
  Area& area = served->area();
  const auto data = std::as_bytes(std::span(request.data()));
  SH_RETURN_IF_ERROR(CheckBounds(area, request.pos(), data.size()));
  return InPieces(context, area, data.size(), "written", [&](uint64_t done, uint64_t count) {
    return area.Write(context.lane, request.pos() + done, data.subspan(done, count),
                      request.fence());
  });
}

Status FillArea(const VerbContext& context, const v1::FillAreaRequest& request,
                v1::FillAreaResponse* response) {
  SH_ASSIGN_OR_RETURN(const auto served, AreaOf(context, request.name(), Verb::kWrite));
  Area& area = served->area();
  if (request.value() > 255) {
    return Status(Reason::kValueOutOfRange,
                  "field value: " + std::to_string(request.value()) + " is no byte; use 0 … 255");
  }
  const uint64_t len = LengthOr(request.has_len(), request.len(), area, request.pos());
  SH_RETURN_IF_ERROR(CheckBounds(area, request.pos(), len));
  const auto value = static_cast<std::byte>(request.value());
  return InPieces(context, area, len, "filled", [&](uint64_t done, uint64_t count) {
    return area.Fill(context.lane, request.pos() + done, count, value, request.fence());
  });
}

}  // namespace statehouse
