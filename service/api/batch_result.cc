#include "service/api/batch_result.h"

#include <bit>
#include <cstring>
#include <utility>

#include "engine/value/wire.h"
#include "service/api/error_detail.h"
#include "statehouse/v1/batch.pb.h"

namespace statehouse {
namespace {

using internal::AppendVarint;
using internal::PutVarint;
using internal::VarintBytes;

constexpr char kResultTag = 1 << 3 | 2;   // RunBatchResponse.
constexpr char kResultsTag = 1 << 3 | 2;  // BatchResult.
constexpr char kGetValueTag = 1 << 3 | 2;
constexpr char kGetVersionTag = 2 << 3;
constexpr char kSetVersionTag = 1 << 3;
constexpr char kNumberTag = 1 << 3;
constexpr char kIncrementVersionTag = 2 << 3;
constexpr char kFloatNumberTag = 3 << 3 | 1;
constexpr size_t kMessageTextBytesMax = 1024;
constexpr uint32_t kBytesType = 2;
// A number with its tag.
constexpr size_t kNumberBytesMax = 1 + internal::kVarintBytesMax;
constexpr size_t kFloatBytes = 1 + sizeof(double);
static_assert(std::endian::native == std::endian::little);

uint64_t ToZigZag(int64_t number) {
  return static_cast<uint64_t>(number) << 1 ^ static_cast<uint64_t>(number >> 63);
}

// A field that is left out where it is 0.
char* PutNumber(char* at, char tag, uint64_t number) {
  if (number == 0) return at;
  *at++ = tag;
  return PutVarint(at, number);
}

}  // namespace

bool BatchResultWriter::HasRoom(size_t message_bytes) const {
  constexpr size_t kHeadBytesMax = 16;
  return bytes_.size() + kHeadBytesMax + message_bytes + (left_ - 1) * kResultBytes <= bytes_max_;
}

void BatchResultWriter::AddNoRoom() {
  v1::OperationFailure failure;
  failure.mutable_detail()->set_reason(v1::ERROR_REASON_MESSAGE_TOO_LARGE);
  failure.set_message("done; no room for its answer");
  const std::string message = failure.SerializeAsString();
  Begin(v1::OperationResult::kFailure, message.size());
  bytes_.append(message);
}

// What goes in front of a message: that it is a result, and which.
void BatchResultWriter::Begin(uint32_t field, size_t message_bytes) {
  --left_;
  const uint64_t tag = uint64_t{field} << 3 | kBytesType;
  const size_t result_bytes = VarintBytes(tag) + VarintBytes(message_bytes) + message_bytes;
  char head[1 + 3 * internal::kVarintBytesMax];
  char* at = head;
  *at++ = kResultsTag;
  at = PutVarint(at, result_bytes);
  at = PutVarint(at, tag);
  at = PutVarint(at, message_bytes);
  bytes_.append(head, static_cast<size_t>(at - head));
}

void BatchResultWriter::Add(uint32_t field, std::string_view message) {
  if (!HasRoom(message.size())) return AddNoRoom();
  Begin(field, message.size());
  bytes_.append(message);
}

void BatchResultWriter::AddGet(std::string_view value, uint64_t version) {
  char tail[kNumberBytesMax];
  const size_t tail_bytes = static_cast<size_t>(PutNumber(tail, kGetVersionTag, version) - tail);
  const size_t message_bytes = 1 + VarintBytes(value.size()) + value.size() + tail_bytes;
  if (!HasRoom(message_bytes)) return AddNoRoom();
  Begin(v1::OperationResult::kGet, message_bytes);
  bytes_.push_back(kGetValueTag);
  AppendVarint(&bytes_, value.size());
  bytes_.append(value);
  bytes_.append(tail, tail_bytes);
}

void BatchResultWriter::AddSet(uint64_t version) {
  char message[kNumberBytesMax];
  char* const end = PutNumber(message, kSetVersionTag, version);
  Begin(v1::OperationResult::kSet, static_cast<size_t>(end - message));
  bytes_.append(message, static_cast<size_t>(end - message));
}

void BatchResultWriter::AddIncrement(DictKind kind, uint64_t bits, uint64_t version) {
  const bool is_float = kind == DictKind::kFloat64;
  char message[2 * kNumberBytesMax + kFloatBytes];
  char* end = PutNumber(message, kNumberTag, is_float ? 0 : ToZigZag(static_cast<int64_t>(bits)));
  end = PutNumber(end, kIncrementVersionTag, version);
  if (is_float) {
    *end++ = kFloatNumberTag;
    std::memcpy(end, &bits, sizeof bits);
    end += sizeof bits;
  }
  Begin(v1::OperationResult::kIncrement, static_cast<size_t>(end - message));
  bytes_.append(message, static_cast<size_t>(end - message));
}

void BatchResultWriter::AddFailure(const Status& refusal, std::string_view name) {
  v1::OperationFailure failure;
  FillErrorDetail(refusal, name, failure.mutable_detail());
  failure.set_message(PresentableText(refusal.message(), kMessageTextBytesMax));
  std::string message = failure.SerializeAsString();
  if (!HasRoom(message.size())) {
    failure.clear_message();
    failure.mutable_detail()->clear_name();
    message = failure.SerializeAsString();
  }
  Begin(v1::OperationResult::kFailure, message.size());
  bytes_.append(message);
}

std::string BatchResultWriter::Finish() {
  char head[kHeadBytes];
  const size_t body_bytes = bytes_.size() - kHeadBytes;
  head[0] = kResultTag;
  const size_t head_bytes = static_cast<size_t>(PutVarint(head + 1, body_bytes) - head);
  bytes_.replace(0, kHeadBytes, head, head_bytes);
  return std::move(bytes_);
}

}  // namespace statehouse
