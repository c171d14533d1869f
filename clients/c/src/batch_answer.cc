#include "clients/c/src/batch_answer.h"

#include "engine/value/wire.h"

namespace statehouse {
namespace {

using internal::WireReader;

constexpr char kResultTag = 1 << 3 | 2;   // RunBatchResponse.
constexpr char kResultsTag = 1 << 3 | 2;  // BatchResult.
constexpr uint32_t kBytesType = 2;

// A number that is left out where it is 0.
bool TakeNumber(WireReader* in, char tag, uint64_t* number) {
  return !in->Take(tag) || in->Varint(number);
}

bool ReadIncrement(WireReader* in, ShortResult* result) {
  uint64_t zigzag = 0;
  if (!TakeNumber(in, 1 << 3, &zigzag) || !TakeNumber(in, 2 << 3, &result->version)) return false;
  result->bits = zigzag >> 1 ^ (~(zigzag & 1) + 1);
  if (!in->Take(3 << 3 | 1)) return true;
  result->is_float = true;
  return in->Fixed64(&result->bits);
}

// The number of a WordValue, unsigned or signed.
bool ReadWord(WireReader* in, ShortResult* result) {
  std::string_view word;
  if (!in->Field(1 << 3 | 2, &word)) return false;
  WireReader inner(word);
  return (inner.Take(1 << 3) || inner.Take(2 << 3)) && inner.Varint(&result->bits) && inner.AtEnd();
}

}  // namespace

bool ReadBatchAnswer(std::string_view answer, std::vector<BatchAnswered>* answered) {
  WireReader outer(answer);
  std::string_view result;
  if (!outer.AtEnd() && !outer.Field(kResultTag, &result)) return false;
  if (!outer.AtEnd()) return false;
  WireReader results(result);
  while (!results.AtEnd()) {
    std::string_view one;
    if (!results.Field(kResultsTag, &one)) return false;
    BatchAnswered& next = answered->emplace_back();
    WireReader inner(one);
    uint64_t tag = 0;
    if (!inner.Varint(&tag) || (tag & 7) != kBytesType || tag >> 3 > UINT32_MAX) return false;
    if (!inner.Bytes(&next.message) || !inner.AtEnd()) return false;
    next.field = static_cast<uint32_t>(tag >> 3);
  }
  return true;
}

bool ReadShortResult(uint32_t field, std::string_view message, ShortResult* result) {
  WireReader in(message);
  switch (field) {
    case kShortGet:
      result->has_value = in.Field(1 << 3 | 2, &result->value);
      if (!TakeNumber(&in, 2 << 3, &result->version)) return false;
      break;
    case kShortSet:
      if (!TakeNumber(&in, 1 << 3, &result->version)) return false;
      break;
    case kShortIncrement:
      if (!ReadIncrement(&in, result)) return false;
      break;
    case kShortAdd:
      if (!ReadWord(&in, result)) return false;
      break;
    default: return false;
  }
  return in.AtEnd();
}

}  // namespace statehouse
