#include "service/api/request_sequence.h"

#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "statehouse/v1/batch.pb.h"
#include "statehouse/v1/lock.pb.h"
#include "statehouse/v1/session.pb.h"

namespace statehouse {
namespace {

template <typename Request>
Request For(const std::string& key) {
  Request request;
  request.set_name("d");
  request.set_key(key);
  return request;
}

}  // namespace

#define SH_AREA_CALL(name, request) \
  service_.Call<v1::name##Response>("/statehouse.v1.Areas/" #name, request)

uint64_t RequestSequence::WordAt(uint64_t pos) const {
  uint64_t word = 0;
  std::memcpy(&word, bytes_.data() + pos, sizeof word);
  return word;
}

void RequestSequence::SetWord(uint64_t pos, uint64_t word) {
  std::memcpy(bytes_.data() + pos, &word, sizeof word);
}

RequestSequence::RequestSequence(TestService* service, std::function<uint64_t(uint64_t)> below)
    : service_(*service), below_(std::move(below)) {
  v1::CreateDictRequest create;
  create.set_name("d");
  create.set_max_entries(kEntriesMax);
  EXPECT_TRUE(SH_DICT_CALL(service_, CreateDict, create).ok());
  area_ = service_.MakeArea("a", kAreaBytes);
}

RequestSequence::~RequestSequence() {
  if (session_ != 0) {
    v1::CloseSessionRequest close;
    close.set_session_id(session_);
    EXPECT_TRUE(
        service_.Call<v1::CloseSessionResponse>("/statehouse.v1.Sessions/CloseSession", close)
            .ok());
  }
  v1::DeleteDictRequest dict;
  dict.set_name("d");
  EXPECT_TRUE(SH_DICT_CALL(service_, DeleteDict, dict).ok());
  v1::DeleteAreaRequest area;
  area.set_name("a");
  EXPECT_TRUE(SH_AREA_CALL(DeleteArea, area).ok());
}

void RequestSequence::Step() {
  switch (below_(12)) {
    case 0: return SetOne();
    case 1: return DeleteOne();
    case 2: return IncrementOne();
    case 3: return Transact();
    case 4: return Batch();
    case 5: return AddToWord();
    case 6: return DeletePrefix();
    case 7: return ExchangeWord();
    case 8: return WriteBytes();
    case 9: return FillBytes();
    case 10: return ClearDict();
    default: return LockOrUnlock();
  }
}

void RequestSequence::SetOne() {
  const std::string key = Key();
  auto request = For<v1::SetEntryRequest>(key);
  request.mutable_value()->set_int_value(static_cast<int64_t>(below_(1000)));
  const bool must_be_absent = below_(3) == 0;
  if (must_be_absent) request.mutable_condition()->set_absent(true);
  const auto response = SH_DICT_CALL(service_, SetEntry, request);
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  ASSERT_EQ(response->applied(), !must_be_absent || model_.count(key) == 0);
  if (response->applied()) model_[key] = request.value().int_value();
}

void RequestSequence::DeleteOne() {
  const std::string key = Key();
  const auto response = SH_DICT_CALL(service_, DeleteEntry, For<v1::DeleteEntryRequest>(key));
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  ASSERT_EQ(response->applied(), model_.erase(key) == 1);
}

// Under an operation id, and sometimes twice.
void RequestSequence::IncrementOne() {
  const std::string key = Key();
  auto request = For<v1::IncrementEntryRequest>(key);
  request.mutable_delta()->set_int_value(static_cast<int64_t>(below_(9)) - 4);
  request.mutable_operation_id()->set_session(77);
  request.mutable_operation_id()->set_sequence(++sequence_);
  model_[key] += request.delta().int_value();
  const int times = below_(3) == 0 ? 2 : 1;
  for (int i = 0; i < times; ++i) {
    const auto response = SH_DICT_CALL(service_, IncrementEntry, request);
    ASSERT_TRUE(response.ok()) << response.status().ToString();
    ASSERT_EQ(response->value().int_value(), model_[key]);
  }
}

// Moves what one key holds to another, or nothing.
void RequestSequence::Transact() {
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

void RequestSequence::Batch() {
  v1::RunBatchRequest request;
  request.mutable_batch()->add_names("d");
  std::vector<std::optional<int64_t>> expected;  // Of increments.
  for (uint64_t i = 0, count = 1 + below_(20); i < count; ++i) {
    const std::string key = Key();
    v1::Operation* const operation = request.mutable_batch()->add_operations();
    if (below_(2) == 0) {
      operation->mutable_increment()->set_key(key);
      expected.push_back(++model_[key]);
    } else {
      operation->mutable_set()->set_key(key);
      model_[key] = static_cast<int64_t>(below_(1000));
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

// At any alignment.
void RequestSequence::AddToWord() {
  v1::AddWordRequest request;
  request.set_name("a");
  request.set_pos(below_(kAreaBytes - 7));
  request.set_type(v1::WORD_TYPE_U64);
  request.set_delta(static_cast<int64_t>(below_(100)));
  const auto response = SH_AREA_CALL(AddWord, request);
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  SetWord(request.pos(), WordAt(request.pos()) + static_cast<uint64_t>(request.delta()));
  ASSERT_EQ(response->value().unsigned_value(), WordAt(request.pos()));
  ++updates_;
}

void RequestSequence::ExchangeWord() {
  v1::CompareExchangeWordRequest request;
  request.set_name("a");
  request.set_pos(below_(kAreaBytes - 7));
  request.set_type(v1::WORD_TYPE_U64);
  const uint64_t found = WordAt(request.pos());
  const bool fits = below_(2) == 0;
  request.mutable_expected()->set_unsigned_value(fits ? found : found + 1);
  request.mutable_desired()->set_unsigned_value(below_(1000));
  const auto response = SH_AREA_CALL(CompareExchangeWord, request);
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  ASSERT_EQ(response->exchanged(), fits);
  ASSERT_EQ(response->found().unsigned_value(), found);
  if (!fits) return;
  SetWord(request.pos(), request.desired().unsigned_value());
  ++updates_;
}

void RequestSequence::WriteBytes() {
  v1::WriteAreaRequest request;
  request.set_name("a");
  request.set_pos(below_(kAreaBytes));
  const uint64_t length = below_(kAreaBytes - request.pos() + 1);
  request.set_data(std::string(length, static_cast<char>(below_(256))));
  const auto response = SH_AREA_CALL(WriteArea, request);
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  bytes_.replace(request.pos(), length, request.data());
  ++updates_;
}

void RequestSequence::FillBytes() {
  v1::FillAreaRequest request;
  request.set_name("a");
  request.set_pos(below_(kAreaBytes));
  request.set_value(static_cast<uint32_t>(below_(256)));
  const auto response = SH_AREA_CALL(FillArea, request);
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  const uint64_t length = kAreaBytes - request.pos();
  bytes_.replace(request.pos(), length, length, static_cast<char>(request.value()));
  ++updates_;
}

void RequestSequence::DeletePrefix() {
  if (below_(10) != 0) return;
  v1::DeletePrefixRequest request;
  request.set_name("d");
  request.set_prefix("k" + std::to_string(below_(4)));
  const auto response = SH_DICT_CALL(service_, DeletePrefix, request);
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  const size_t removed = std::erase_if(
      model_, [&](const auto& entry) { return entry.first.starts_with(request.prefix()); });
  ASSERT_EQ(response->deleted(), removed);
}

void RequestSequence::ClearDict() {
  if (below_(30) != 0) return;
  v1::ClearDictRequest request;
  request.set_name("d");
  const auto response = SH_DICT_CALL(service_, ClearDict, request);
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  ASSERT_EQ(response->deleted(), model_.size());
  model_.clear();
}

void RequestSequence::LockOrUnlock() {
  if (session_ == 0) {
    v1::OpenSessionRequest open;
    open.mutable_ttl()->set_seconds(3600);
    const auto opened =
        service_.Call<v1::OpenSessionResponse>("/statehouse.v1.Sessions/OpenSession", open);
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    session_ = opened->session_id();
  }
  const std::string name = "l" + std::to_string(below_(kLocks));
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

void RequestSequence::CheckAll(bool thoroughly) {
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
  CheckArea();
  if (!thoroughly) return;
  const std::vector<std::string> locks = service_.engine().locks().Check();
  ASSERT_TRUE(locks.empty()) << locks.front();
  CheckEntries();
}

void RequestSequence::CheckEntries() {
  for (int i = 0; i < kKeys; ++i) {
    const std::string key = "k" + std::to_string(i);
    const auto got = SH_DICT_CALL(service_, GetEntry, For<v1::GetEntryRequest>(key));
    ASSERT_TRUE(got.ok()) << got.status().ToString();
    ASSERT_EQ(got->has_entry(), model_.count(key) == 1) << key;
    if (got->has_entry()) {
      ASSERT_EQ(got->entry().value().int_value(), model_[key]) << key;
    }
  }
}

// A stripe that a request had left held would refuse the read.
void RequestSequence::CheckArea() {
  v1::ReadAreaRequest request;
  request.set_name("a");
  const auto read = SH_AREA_CALL(ReadArea, request);
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  ASSERT_EQ(read->data(), bytes_);
  ASSERT_GE(area_->area().Updates(), updates_);
}

}  // namespace statehouse
