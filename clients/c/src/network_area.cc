// The verbs of an area over the network door: build the request, call, take the result apart.
#include <algorithm>
#include <limits>
#include <utility>

#include "clients/c/src/client_handle.h"

namespace statehouse {
namespace {

using std::chrono::steady_clock;

// A range travels in pieces of this size at most; it divides by every atomic_range_bytes up to
// itself, so that pieces of the service and of the client end at the same places.
constexpr uint64_t kPieceBytes = 1 << 20;
// One call of a wait lasts this long at most; then it is asked again.
constexpr std::chrono::minutes kWaitSlice{1};

std::string Path(const char* verb) { return std::string("/statehouse.v1.Areas/") + verb; }

void SetNumber(WordType type, uint64_t bits, v1::WordValue* value) {
  if (IsSigned(type)) {
    value->set_signed_value(static_cast<int64_t>(bits));
  } else {
    value->set_unsigned_value(bits);
  }
}

uint64_t NumberOf(const v1::WordValue& value) {
  return value.kind_case() == v1::WordValue::kSignedValue
             ? static_cast<uint64_t>(value.signed_value())
             : value.unsigned_value();
}

template <typename Request>
Request WordRequest(const sh_area& area, WordType type, uint64_t pos) {
  Request request;
  request.set_name(area.name);
  request.set_pos(pos);
  request.set_type(static_cast<v1::WordType>(type));
  return request;
}

Status CheckBounds(const sh_area& area, uint64_t pos, uint64_t len) {
  if (len <= area.size && pos <= area.size - len) return Status();
  return Status(Reason::kOutOfBounds, "area \"" + area.name + "\": [" + std::to_string(pos) +
                                          ", +" + std::to_string(len) + ") is not inside its " +
                                          std::to_string(area.size) + " bytes");
}

}  // namespace

Status NetworkLoad(const sh_area& area, WordType type, uint64_t pos, uint64_t* bits) {
  v1::LoadWordResponse response;
  SH_RETURN_IF_ERROR(area.network->Call(Path("LoadWord"),
                                        WordRequest<v1::LoadWordRequest>(area, type, pos),
                                        &response, OptionsFor(area.timeout, true)));
  *bits = NumberOf(response.value());
  return Status();
}

Status NetworkStore(const sh_area& area, WordType type, uint64_t pos, uint64_t bits,
                    uint64_t fence) {
  auto request = WordRequest<v1::StoreWordRequest>(area, type, pos);
  SetNumber(type, bits, request.mutable_value());
  request.set_fence(fence);
  v1::StoreWordResponse response;
  return area.network->Call(Path("StoreWord"), request, &response, OptionsFor(area.timeout, false));
}

Status NetworkAdd(const sh_area& area, WordType type, uint64_t pos, int64_t delta, uint64_t fence,
                  uint64_t* bits) {
  auto request = WordRequest<v1::AddWordRequest>(area, type, pos);
  request.set_delta(delta);
  request.set_fence(fence);
  v1::AddWordResponse response;
  SH_RETURN_IF_ERROR(
      area.network->Call(Path("AddWord"), request, &response, OptionsFor(area.timeout, false)));
  *bits = NumberOf(response.value());
  return Status();
}

Status NetworkCompareExchange(const sh_area& area, WordType type, uint64_t pos, uint64_t expected,
                              uint64_t desired, uint64_t fence, CompareExchangeResult* result) {
  auto request = WordRequest<v1::CompareExchangeWordRequest>(area, type, pos);
  SetNumber(type, expected, request.mutable_expected());
  SetNumber(type, desired, request.mutable_desired());
  request.set_fence(fence);
  v1::CompareExchangeWordResponse response;
  SH_RETURN_IF_ERROR(area.network->Call(Path("CompareExchangeWord"), request, &response,
                                        OptionsFor(area.timeout, false)));
  result->exchanged = response.exchanged();
  result->found = NumberOf(response.found());
  return Status();
}

Status NetworkBitwise(const sh_area& area, BitwiseOperator op, WordType type, uint64_t pos,
                      uint64_t operand, uint64_t fence, uint64_t* bits) {
  auto request = WordRequest<v1::BitwiseWordRequest>(area, type, pos);
  request.set_operator_(static_cast<v1::BitwiseOperator>(op));
  SetNumber(type, operand, request.mutable_operand());
  request.set_fence(fence);
  v1::BitwiseWordResponse response;
  SH_RETURN_IF_ERROR(
      area.network->Call(Path("BitwiseWord"), request, &response, OptionsFor(area.timeout, false)));
  *bits = NumberOf(response.value());
  return Status();
}

Status NetworkRead(const sh_area& area, uint64_t pos, std::byte* out, uint64_t len) {
  SH_RETURN_IF_ERROR(CheckBounds(area, pos, len));
  v1::ReadAreaRequest request;
  request.set_name(area.name);
  for (uint64_t done = 0;;) {
    const uint64_t piece = std::min(kPieceBytes, len - done);
    request.set_pos(pos + done);
    request.set_len(piece);
    v1::ReadAreaResponse response;
    SH_RETURN_IF_ERROR(
        area.network->Call(Path("ReadArea"), request, &response, OptionsFor(area.timeout, true)));
    if (response.data().size() != piece) {
      return Status(Reason::kInternal, "area \"" + area.name + "\": the service sent " +
                                           std::to_string(response.data().size()) + " of " +
                                           std::to_string(piece) + " bytes");
    }
    std::copy_n(reinterpret_cast<const std::byte*>(response.data().data()), piece, out + done);
    done += piece;
    if (done == len) return Status();
  }
}

Status NetworkWrite(const sh_area& area, uint64_t pos, const std::byte* bytes, uint64_t len,
                    uint64_t fence) {
  SH_RETURN_IF_ERROR(CheckBounds(area, pos, len));
  v1::WriteAreaRequest request;
  request.set_name(area.name);
  request.set_fence(fence);
  for (uint64_t done = 0;;) {
    const uint64_t piece = std::min(kPieceBytes, len - done);
    request.set_pos(pos + done);
    request.set_data(bytes + done, piece);
    v1::WriteAreaResponse response;
    SH_RETURN_IF_ERROR(
        area.network->Call(Path("WriteArea"), request, &response, OptionsFor(area.timeout, false)));
    done += piece;
    if (done == len) return Status();
  }
}

Status NetworkFill(const sh_area& area, uint64_t pos, uint64_t len, uint8_t value, uint64_t fence) {
  v1::FillAreaRequest request;
  request.set_name(area.name);
  request.set_pos(pos);
  request.set_len(len);
  request.set_value(value);
  request.set_fence(fence);
  v1::FillAreaResponse response;
  return area.network->Call(Path("FillArea"), request, &response, OptionsFor(area.timeout, false));
}

StatusOr<uint64_t> NetworkUpdates(const sh_area& area) {
  v1::WaitAreaRequest request;  // Without `since` it answers at once.
  request.set_name(area.name);
  v1::WaitAreaResponse response;
  SH_RETURN_IF_ERROR(
      area.network->Call(Path("WaitArea"), request, &response, OptionsFor(area.timeout, true)));
  return response.updates();
}

StatusOr<WaitResult> NetworkWait(const sh_area& area, uint64_t since, Deadline deadline) {
  for (;;) {
    const auto left = std::max<std::chrono::nanoseconds>(deadline - steady_clock::now(),
                                                         std::chrono::nanoseconds(0));
    const auto slice = std::min<std::chrono::nanoseconds>(left, kWaitSlice);
    v1::WaitAreaRequest request;
    request.set_name(area.name);
    request.set_since(since);
    request.mutable_timeout()->set_seconds(slice / std::chrono::seconds(1));
    request.mutable_timeout()->set_nanos(
        static_cast<int32_t>((slice % std::chrono::seconds(1)).count()));
    v1::WaitAreaResponse response;
    CallOptions options = OptionsFor(slice + area.timeout, true);
    options.long_running = slice.count() > 0;
    SH_RETURN_IF_ERROR(area.network->Call(Path("WaitArea"), request, &response, options));
    if (response.changed() || steady_clock::now() >= deadline) {
      return WaitResult{response.changed(), response.updates()};
    }
  }
}

}  // namespace statehouse
