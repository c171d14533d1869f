#include "tests/bench/batch_messages.h"

#include <cstdio>
#include <cstdlib>

#include "statehouse/v1/batch.pb.h"

namespace statehouse::bench {
namespace {

constexpr size_t kKeyDigits = 12;
constexpr size_t kDrawnDigits = 5;  // The others are 0.
static_assert(kBatchKeys <= 100'000);
constexpr char kKeyHead[] = "key:";
// Tags: field number << 3 | wire type.
constexpr char kResultTag = 1 << 3 | 2;    // RunBatchesResponse.
constexpr char kResultsTag = 1 << 3 | 2;   // BatchResult.
constexpr char kGetValueTag = 1 << 3 | 2;  // EntryGetResult.

// Takes protobuf's bytes apart. What is cut short leaves nothing.
class Reader final {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  bool at_end() const { return rest_.empty(); }
  bool Tag(char tag) {
    if (rest_.empty() || rest_.front() != tag) return false;
    rest_.remove_prefix(1);
    return true;
  }
  // Of a length that stands in front of them.
  bool Bytes(std::string_view* bytes) {
    size_t length = 0;
    for (int shift = 0; !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      length |= static_cast<size_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    if (length > rest_.size()) return false;
    *bytes = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return true;
  }

 private:
  std::string_view rest_;
};

std::string ValueBytes() {
  v1::Value value;
  value.set_string_value(kBatchValue);
  return value.SerializeAsString();
}

// The field of Operation and of OperationResult.
int FieldOf(BatchKind kind) {
  switch (kind) {
    case BatchKind::kIncrement: return v1::OperationResult::kIncrement;
    case BatchKind::kSet: return v1::OperationResult::kSet;
    case BatchKind::kGet: return v1::OperationResult::kGet;
  }
  return 0;
}

}  // namespace

std::string BatchKeyOf(uint32_t number) {
  const std::string digits = std::to_string(number);
  return kKeyHead + std::string(kKeyDigits - digits.size(), '0') + digits;
}

BatchMessage::BatchMessage(BatchKind kind, int depth) : kind_(kind) {
  v1::RunBatchesRequest request;
  request.mutable_batch()->add_names(kind == BatchKind::kIncrement ? "numbers" : "texts");
  const std::string key = BatchKeyOf(0);
  for (int i = 0; i < depth; ++i) {
    v1::Operation* const operation = request.mutable_batch()->add_operations();
    switch (kind) {
      case BatchKind::kIncrement: operation->mutable_increment()->set_key(key); break;
      case BatchKind::kGet: operation->mutable_get()->set_key(key); break;
      case BatchKind::kSet:
        operation->mutable_set()->set_key(key);
        operation->mutable_set()->mutable_value()->set_string_value(kBatchValue);
        break;
    }
  }
  bytes_ = request.SerializeAsString();
  for (size_t at = bytes_.find(kKeyHead); at != std::string::npos;
       at = bytes_.find(kKeyHead, at + 1)) {
    digits_.push_back(at + sizeof(kKeyHead) - 1);
  }
  if (digits_.size() == static_cast<size_t>(depth)) return;
  std::fprintf(stderr, "batch_bench: a message without its keys\n");
  std::exit(2);
}

void BatchMessage::DrawKeys(std::minstd_rand* random) {
  for (const size_t at : digits_) {
    auto number = static_cast<uint32_t>((*random)() % kBatchKeys);
    for (size_t digit = kKeyDigits; digit > kKeyDigits - kDrawnDigits; number /= 10) {
      bytes_[at + --digit] = static_cast<char>('0' + number % 10);
    }
  }
}

size_t BatchMessage::Check(std::string_view answer, const char** why) const {
  static const std::string kGotten = ValueBytes();
  const char result_tag = static_cast<char>(FieldOf(kind_) << 3 | 2);
  *why = nullptr;
  size_t done = 0;
  Reader outer(answer);
  std::string_view batch;
  if (!outer.Tag(kResultTag) || !outer.Bytes(&batch) || !outer.at_end()) {
    *why = "a batch was refused, or its answer is cut short";
    return done;
  }
  for (Reader results(batch); !results.at_end(); ++done) {
    std::string_view result;
    std::string_view of_kind;
    std::string_view value;
    if (!results.Tag(kResultsTag) || !results.Bytes(&result)) {
      *why = "an answer has something else than results";
      return done;
    }
    Reader reader(result);
    if (!reader.Tag(result_tag) || !reader.Bytes(&of_kind) || !reader.at_end() || of_kind.empty()) {
      *why = "an operation was refused";
      return done;
    }
    if (kind_ != BatchKind::kGet) continue;
    Reader get(of_kind);
    if (!get.Tag(kGetValueTag) || !get.Bytes(&value) || value != kGotten) {
      *why = "a get has another value than was set";
      return done;
    }
  }
  if (done != digits_.size()) *why = "an answer lacks results";
  return done;
}

}  // namespace statehouse::bench
