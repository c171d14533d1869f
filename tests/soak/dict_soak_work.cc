#include "tests/soak/dict_soak_work.h"

#include <cstring>
#include <vector>

#include "engine/base/hash.h"

namespace statehouse {
namespace {

std::string KeyOf(uint64_t i) { return "key" + std::to_string(i); }
std::string OwnOf(int index) { return "own" + std::to_string(index); }

uint64_t SumOf(std::string_view key, std::string_view content) {
  return HashKey({1, 2}, key) ^ HashKey({3, 4}, content);
}

// Mostly short, some of them too large for a slab.
std::string TellingOfAnySize(std::string_view key, uint64_t number) {
  return Telling(key, number, number % 997 == 0 ? 70'000 + number % 1000 : number % 400);
}

}  // namespace

void Acknowledged::Fail(const std::string& what) {
  if (failures++ == 0) std::strncpy(failure, what.c_str(), sizeof failure - 1);
}

std::string SoakAccount(uint64_t i) { return "account" + std::to_string(i); }

std::string Telling(std::string_view key, uint64_t number, size_t bytes) {
  std::string content(bytes, static_cast<char>('a' + number % 26));
  content += std::to_string(number);
  const uint64_t sum = SumOf(key, content);
  return std::string(reinterpret_cast<const char*>(&sum), sizeof sum) + content;
}

bool IsTelling(std::string_view key, std::string_view value) {
  uint64_t sum = 0;
  if (value.size() < sizeof sum) return false;
  std::memcpy(&sum, value.data(), sizeof sum);
  return sum == SumOf(key, value.substr(sizeof sum));
}

void DictSoakWork::ForEver() {
  Expect(dict_.PrepareLanes(lane_.id, 1), "preparing the lane");
  CheckOwn();
  for (;;) {
    for (int i = 0; i < 16; ++i) Count();
    for (int i = 0; i < 4; ++i) WriteOwn();
    for (int i = 0; i < 4; ++i) Transfer();
    Churn();
    InsertFresh();
    Look();
    if (options_.more) options_.more();
  }
}

bool DictSoakWork::Expect(const Status& status, const char* what) {
  if (!status.ok()) seen_.Fail(std::string(what) + ": " + status.ToString());
  return status.ok();
}

bool DictSoakWork::Change(const char* what, const std::function<Status()>& change, bool* refused) {
  const Status status = options_.with_help ? options_.with_help(change) : change();
  const bool may_be = options_.may_be_refused && status.reason() == Reason::kMemoryExhausted;
  if (refused != nullptr) *refused = may_be;
  if (!may_be) return Expect(status, what);
  ++seen_.refusals;
  return false;
}

void DictSoakWork::Count() {
  DictIncrement one;
  one.delta = DictValue::Int64(1);
  DictResult result;
  if (Change("adding", [&] { return dict_.Increment(lane_, "counter", one, &result); }))
    ++seen_.counter;
}

// The predecessor's last write is there; the one that it was about to make may be.
void DictSoakWork::CheckOwn() {
  DictEntry entry;
  bool found = false;
  if (!Expect(dict_.Get(OwnOf(index_), &entry, &found, kSoakPatienceNs), "reading")) return;
  const uint64_t number = found ? entry.bits : 0;
  if (number != seen_.own && number != seen_.own_next) {
    seen_.Fail("own key holds " + std::to_string(number) + ", acknowledged was " +
               std::to_string(seen_.own));
  }
  seen_.own = number;
  seen_.own_next = number;
}

void DictSoakWork::WriteOwn() {
  ++seen_.own_next;
  const auto number = static_cast<int64_t>(seen_.own_next.load());
  DictResult result;
  bool refused = false;
  const auto set = [&] {
    return dict_.Set(lane_, OwnOf(index_), DictValue::Int64(number), {}, &result);
  };
  if (Change("setting", set, &refused)) seen_.own.store(static_cast<uint64_t>(number));
  if (refused) seen_.own_next.store(seen_.own);
  CheckOwn();
}

void DictSoakWork::Churn() {
  const std::string key = KeyOf(random_() % kSoakKeys);
  DictResult result;
  if (random_() % 3 == 0) {
    if (!Expect(dict_.Delete(lane_, key, {}, &result), "deleting")) return;
  } else {
    const std::string value = TellingOfAnySize(key, random_() % 100'000);
    const auto set = [&] { return dict_.Set(lane_, key, DictValue::Bytes(value), {}, &result); };
    if (!Change("setting", set)) return;
  }
  ++seen_.changes;
}

void DictSoakWork::Transfer() {
  const auto amount = static_cast<int64_t>(random_() % 9) - 4;
  const uint64_t from = random_() % kSoakAccounts;
  const uint64_t to = (from + 1 + random_() % (kSoakAccounts - 1)) % kSoakAccounts;
  const std::string names[] = {SoakAccount(from), SoakAccount(to), KeyOf(random_() % kSoakKeys)};
  const std::string value = TellingOfAnySize(names[2], random_() % 1000);
  DictOperation steps[3];
  for (int i = 0; i < 2; ++i) {
    steps[i].kind = DictOperation::Kind::kIncrement;
    steps[i].key = names[i];
    steps[i].increment.delta = DictValue::Int64(i == 0 ? -amount : amount);
  }
  steps[2].kind = DictOperation::Kind::kSet;
  steps[2].key = names[2];
  steps[2].value = DictValue::Bytes(value);
  DictTransactionResult result;
  Change("a transaction", [&] { return dict_.Transact(lane_, {}, steps, {}, &result); });
}

// Keys that come and stay, so that lines are hung on buckets and slabs are cut.
void DictSoakWork::InsertFresh() {
  if (random_() % 8 != 0) return;
  const std::string key = "fresh" + std::to_string(random_() % 2000);
  DictSetOptions absent;
  absent.condition.kind = DictCondition::Kind::kAbsent;
  DictResult result;
  const std::string value = Telling(key, 7, 7);
  const auto set = [&] { return dict_.Set(lane_, key, DictValue::Bytes(value), absent, &result); };
  if (Change("inserting", set) && result.applied) ++seen_.inserts;
}

void DictSoakWork::Look() {
  DictEntry entry;
  bool found = false;
  const std::string key = KeyOf(random_() % kSoakKeys);
  if (Expect(dict_.Get(key, &entry, &found, kSoakPatienceNs), "reading") && found &&
      !IsTelling(key, entry.bytes)) {
    seen_.Fail("the value of " + key + " is torn");
  }
  if (random_() % 1024 == 0) LookAtAll();
  if (random_() % 16 == 0) LookAtAccounts();
}

void DictSoakWork::LookAtAll() {
  uint32_t bucket = 0;
  const auto take = [this](DictEntry& entry) {
    const bool tells = entry.key.starts_with("key") || entry.key.starts_with("fresh");
    if (tells && !IsTelling(entry.key, entry.bytes)) seen_.Fail("a scan sees a torn value");
  };
  Expect(dict_.Scan(&bucket, SIZE_MAX, "", take, kSoakPatienceNs), "scanning");
}

void DictSoakWork::LookAtAccounts() {
  std::vector<std::string> names;
  for (uint64_t i = 0; i < kSoakAccounts; ++i) names.push_back(SoakAccount(i));
  std::vector<DictOperation> reads(kSoakAccounts);
  for (size_t i = 0; i < kSoakAccounts; ++i) reads[i].key = names[i];
  DictTransactionResult result;
  if (!Expect(dict_.Transact(lane_, {}, reads, {}, &result), "reading accounts")) return;
  int64_t sum = 0;
  for (const auto& read : result.results) sum += static_cast<int64_t>(read.entry.bits);
  if (sum != kSoakAccounts * kSoakAccountStart)
    seen_.Fail("the accounts hold " + std::to_string(sum));
}

}  // namespace statehouse
