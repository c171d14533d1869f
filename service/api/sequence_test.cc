// Sequences of valid requests, at random, against a whole service core: after each one the dict is
// sound and the answer is what a model says; now and then the lock space, which is large, is looked
// through too, and every entry is compared with the model's. The seed is printed;
// STATEHOUSE_SEQUENCE_SEED=<seed> gives the same requests again.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <random>

#include "service/api/dict_verbs_test_support.h"
#include "statehouse/v1/batch.pb.h"
#include "statehouse/v1/lock.pb.h"
#include "statehouse/v1/session.pb.h"

namespace statehouse {
namespace {

constexpr int kWords = 16;
constexpr int kKeys = 40;
constexpr int kLocks = 4;

int Steps() { return std::getenv("STATEHOUSE_LONG") != nullptr ? 100'000 : 3'000; }

class SequenceTest : public DictVerbsTest {
 protected:
  void SetUp() override {
    DictVerbsTest::SetUp();
    area_ = service_.MakeArea("a", kWords * 8);
    const char* const given = std::getenv("STATEHOUSE_SEQUENCE_SEED");
    seed_ = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
    random_.seed(seed_);
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed_));
  }

  uint64_t Below(uint64_t bound) { return random_() % bound; }
  std::string Key() { return "k" + std::to_string(Below(kKeys)); }

  void Step() {
    switch (Below(8)) {
      case 0: return SetOne();
      case 1: return DeleteOne();
      case 2: return IncrementOne();
      case 3: return Transact();
      case 4: return Batch();
      case 5: return AddToWord();
      case 6: return DeletePrefix();
      default: return LockOrUnlock();
    }
  }

  void SetOne() {
    const std::string key = Key();
    auto request = For<v1::SetEntryRequest>(key);
    request.mutable_value()->set_int_value(static_cast<int64_t>(Below(1000)));
    const bool must_be_absent = Below(3) == 0;
    if (must_be_absent) request.mutable_condition()->set_absent(true);
    const auto response = SH_DICT_CALL(service_, SetEntry, request);
    ASSERT_TRUE(response.ok()) << response.status().ToString();
    ASSERT_EQ(response->applied(), !must_be_absent || model_.count(key) == 0);
    if (response->applied()) model_[key] = request.value().int_value();
  }
  void DeleteOne() {
    const std::string key = Key();
    const auto response = SH_DICT_CALL(service_, DeleteEntry, For<v1::DeleteEntryRequest>(key));
    ASSERT_TRUE(response.ok()) << response.status().ToString();
    ASSERT_EQ(response->applied(), model_.erase(key) == 1);
  }
  // Under an operation id, and sometimes twice.
  void IncrementOne() {
    const std::string key = Key();
    auto request = For<v1::IncrementEntryRequest>(key);
    request.mutable_delta()->set_int_value(static_cast<int64_t>(Below(9)) - 4);
    request.mutable_operation_id()->set_session(77);
    request.mutable_operation_id()->set_sequence(++sequence_);
    model_[key] += request.delta().int_value();
    const int times = Below(3) == 0 ? 2 : 1;
    for (int i = 0; i < times; ++i) {
      const auto response = SH_DICT_CALL(service_, IncrementEntry, request);
      ASSERT_TRUE(response.ok()) << response.status().ToString();
      ASSERT_EQ(response->value().int_value(), model_[key]);
    }
  }
  // Moves what one key holds to another, or nothing.
  void Transact() {
    const std::string from = Key();
    const std::string to = Key();
    if (from == to) return;
    v1::TransactDictRequest request;
    request.set_name("d");
    v1::Compare* const compare = request.add_compares();
    compare->set_key(from);
    compare->mutable_condition()->set_present(true);
    v1::Step::Set* const set = request.add_then_steps()->mutable_set();
    set->set_key(to);
    set->mutable_value()->set_int_value(model_.count(from) == 1 ? model_[from] : 0);
    request.add_then_steps()->mutable_delete_()->set_key(from);
    const auto response = SH_DICT_CALL(service_, TransactDict, request);
    ASSERT_TRUE(response.ok()) << response.status().ToString();
    ASSERT_EQ(response->compared(), model_.count(from) == 1);
    if (!response->compared()) return;
    model_[to] = model_[from];
    model_.erase(from);
  }
  void Batch() {
    v1::RunBatchRequest request;
    request.mutable_batch()->add_names("d");
    std::vector<std::optional<int64_t>> expected;  // Of increments.
    for (uint64_t i = 0, count = 1 + Below(20); i < count; ++i) {
      const std::string key = Key();
      v1::Operation* const operation = request.mutable_batch()->add_operations();
      if (Below(2) == 0) {
        operation->mutable_increment()->set_key(key);
        expected.push_back(++model_[key]);
      } else {
        operation->mutable_set()->set_key(key);
        model_[key] = static_cast<int64_t>(Below(1000));
        operation->mutable_set()->mutable_value()->set_int_value(model_[key]);
        expected.push_back(std::nullopt);
      }
    }
    const auto response =
        service_.Call<v1::RunBatchResponse>("/statehouse.v1.Batches/RunBatch", request);
    ASSERT_TRUE(response.ok()) << response.status().ToString();
    ASSERT_EQ(response->result().results_size(), static_cast<int>(expected.size()));
    for (size_t i = 0; i < expected.size(); ++i) {
      const v1::OperationResult& result = response->result().results(static_cast<int>(i));
      ASSERT_FALSE(result.has_failure()) << result.failure().message();
      ASSERT_EQ(result.has_increment(), expected[i].has_value()) << "result " << i;
      if (expected[i].has_value()) {
        ASSERT_EQ(result.increment().number(), *expected[i]);
      }
    }
  }
  void AddToWord() {
    const uint64_t word = Below(kWords);
    v1::AddWordRequest request;
    request.set_name("a");
    request.set_pos(word * 8);
    request.set_type(v1::WORD_TYPE_U64);
    request.set_delta(static_cast<int64_t>(Below(100)));
    const auto response =
        service_.Call<v1::AddWordResponse>("/statehouse.v1.Areas/AddWord", request);
    ASSERT_TRUE(response.ok()) << response.status().ToString();
    words_[word] += static_cast<uint64_t>(request.delta());
    ASSERT_EQ(response->value().unsigned_value(), words_[word]);
    ++additions_;
    ASSERT_GE(area_->area().Updates(), additions_);
  }
  void DeletePrefix() {
    if (Below(10) != 0) return;
    v1::DeletePrefixRequest request;
    request.set_name("d");
    request.set_prefix("k" + std::to_string(Below(4)));
    const auto response = SH_DICT_CALL(service_, DeletePrefix, request);
    ASSERT_TRUE(response.ok()) << response.status().ToString();
    const size_t removed = std::erase_if(
        model_, [&](const auto& entry) { return entry.first.starts_with(request.prefix()); });
    ASSERT_EQ(response->deleted(), removed);
  }
  void LockOrUnlock() {
    if (session_ == 0) {
      v1::OpenSessionRequest open;
      open.mutable_ttl()->set_seconds(3600);
      const auto opened =
          service_.Call<v1::OpenSessionResponse>("/statehouse.v1.Sessions/OpenSession", open);
      ASSERT_TRUE(opened.ok()) << opened.status().ToString();
      session_ = opened->session_id();
    }
    const std::string name = "l" + std::to_string(Below(kLocks));
    const auto held = tokens_.find(name);
    if (held == tokens_.end()) {
      v1::AcquireLockRequest request;
      request.set_name(name);
      request.set_session_id(session_);
      request.set_request_id(++requests_);
      request.set_mode(v1::LOCK_MODE_EXCLUSIVE);
      request.mutable_ttl()->set_seconds(3600);
      request.mutable_timeout();  // It only tries.
      const auto response =
          service_.Call<v1::AcquireLockResponse>("/statehouse.v1.Locks/AcquireLock", request);
      ASSERT_TRUE(response.ok()) << response.status().ToString();
      ASSERT_TRUE(response->acquired());
      ASSERT_GT(response->token(), last_tokens_[name]);
      tokens_[name] = last_tokens_[name] = response->token();
      return;
    }
    v1::ReleaseLockRequest request;
    request.set_name(name);
    request.set_session_id(session_);
    request.set_token(held->second);
    const auto response =
        service_.Call<v1::ReleaseLockResponse>("/statehouse.v1.Locks/ReleaseLock", request);
    ASSERT_TRUE(response.ok()) << response.status().ToString();
    tokens_.erase(held);
  }

  void CheckAll(bool thoroughly) {
    const auto dict = service_.engine().dicts().Find("d");
    ASSERT_TRUE(dict.ok()) << dict.status().ToString();
    const DictCheck check = (*dict)->dict().Check(/*quiet=*/true);
    ASSERT_TRUE(check.faults.empty()) << check.faults.front();
    ASSERT_EQ(check.entries, model_.size());
    v1::DescribeDictRequest describe;
    describe.set_name("d");
    const auto described = SH_DICT_CALL(service_, DescribeDict, describe);
    ASSERT_TRUE(described.ok());
    ASSERT_EQ(described->dict().entries(), model_.size());
    if (!thoroughly) return;
    const std::vector<std::string> locks = service_.engine().locks().Check();
    ASSERT_TRUE(locks.empty()) << locks.front();
    for (int i = 0; i < kKeys; ++i) {
      const std::string key = "k" + std::to_string(i);
      const v1::GetEntryResponse got = Get(key);
      ASSERT_EQ(got.has_entry(), model_.count(key) == 1) << key;
      if (got.has_entry()) {
        ASSERT_EQ(got.entry().value().int_value(), model_[key]) << key;
      }
    }
  }

  uint64_t seed_ = 0;
  std::mt19937_64 random_;
  std::shared_ptr<ServedArea> area_;
  std::map<std::string, int64_t> model_;
  std::map<uint64_t, uint64_t> words_;
  std::map<std::string, uint64_t> tokens_;
  std::map<std::string, uint64_t> last_tokens_;
  uint64_t session_ = 0;
  uint64_t requests_ = 0;
  uint64_t sequence_ = 0;
  uint64_t additions_ = 0;
};

TEST_F(SequenceTest, EveryRequestLeavesASoundStateThatHoldsWhatTheModelHolds) {
  for (int i = 0; i < Steps(); ++i) {
    Step();
    CheckAll(i % 100 == 99);
    ASSERT_FALSE(HasFatalFailure()) << "step " << i << ", seed " << seed_;
  }
}

}  // namespace
}  // namespace statehouse
