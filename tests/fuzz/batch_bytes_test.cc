// Batches as clients write them, and the same with bytes changed, moved and left out.
#include "tests/fuzz/batch_bytes.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "statehouse/v1/batch.pb.h"

namespace statehouse::testing {
namespace {

constexpr int kBatches = 20'000;

class Source final {
 public:
  uint64_t Below(uint64_t bound) { return random_() % bound; }
  bool Chance() { return Below(2) == 0; }
  std::string Text() { return std::string(Below(40), static_cast<char>('a' + Below(26))); }
  int64_t Number() { return static_cast<int64_t>(random_() >> Below(64)) * (Chance() ? 1 : -1); }

  void Fill(v1::Operation* operation) {
    const auto dict = static_cast<uint32_t>(Below(3));
    switch (Below(7)) {
      case 0:
        operation->mutable_get()->set_dict(dict);
        operation->mutable_get()->set_key(Text());
        break;
      case 1:
        operation->mutable_set()->set_key(Text());
        if (Chance()) operation->mutable_set()->mutable_value()->set_int_value(Number());
        if (Chance()) operation->mutable_set()->mutable_value()->set_string_value(Text());
        if (Chance()) operation->mutable_set()->set_ttl_ms(static_cast<uint64_t>(Number()));
        break;
      case 2:
        operation->mutable_increment()->set_dict(dict);
        operation->mutable_increment()->set_key(Text());
        if (Chance()) operation->mutable_increment()->set_delta(Number());
        break;
      case 3:
        operation->mutable_add()->set_area(dict);
        operation->mutable_add()->set_pos(static_cast<uint64_t>(Number()));
        operation->mutable_add()->set_type(static_cast<v1::WordType>(Below(9)));
        if (Chance()) operation->mutable_add()->set_delta(Number());
        break;
      case 4:
        operation->mutable_add_word()->set_name(Text());
        operation->mutable_add_word()->set_pos(Below(100));
        break;
      case 5: operation->mutable_acquire_lock()->mutable_timeout(); break;
      default: break;  // No kind.
    }
  }
  std::string Batch() {
    v1::RunBatchRequest request;
    v1::Batch* const batch = request.mutable_batch();
    for (uint64_t i = Below(4); i > 0; --i) batch->add_names(Text());
    if (Below(4) == 0) batch->mutable_operation_id()->set_session(Below(3));
    batch->set_stop_at_failure(Chance());
    for (uint64_t i = Below(8); i > 0; --i) Fill(batch->add_operations());
    return request.SerializeAsString();
  }
  void Damage(std::string* bytes) {
    for (uint64_t i = Below(3); i > 0 && !bytes->empty(); --i) {
      const size_t at = Below(bytes->size());
      switch (Below(4)) {
        case 0: (*bytes)[at] = static_cast<char>(Below(256)); break;
        case 1: bytes->erase(at, 1 + Below(4)); break;
        case 2: bytes->insert(at, 1, static_cast<char>(Below(256))); break;
        default: bytes->append(bytes->substr(0, at)); break;
      }
    }
  }

 private:
  std::mt19937_64 random_{20261129};
};

TEST(BatchBytesTest, AreUnderstoodAsProtobufDoes) {
  Source source;
  for (int i = 0; i < kBatches; ++i) {
    std::string bytes = source.Batch();
    CheckBatchBytes(bytes);
    source.Damage(&bytes);
    CheckBatchBytes(bytes);
  }
}

}  // namespace
}  // namespace statehouse::testing
