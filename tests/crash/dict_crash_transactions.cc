// The transactions that the dict's crash test stops at every instruction.
#include "engine/state/test_dict.h"
#include "tests/crash/dict_crash_operations.h"

namespace statehouse {
namespace {

DictOperation SetStep(std::string_view key, const DictValue& value) {
  DictOperation step;
  step.kind = DictOperation::Kind::kSet;
  step.key = key;
  step.value = value;
  return step;
}
DictOperation DeleteStep(std::string_view key) {
  DictOperation step;
  step.kind = DictOperation::Kind::kDelete;
  step.key = key;
  return step;
}
DictOperation AddStep(std::string_view key, int64_t delta, uint64_t fence = 0) {
  DictOperation step;
  step.kind = DictOperation::Kind::kIncrement;
  step.key = key;
  step.increment.delta = DictValue::Int64(delta);
  step.increment.fence = fence;
  return step;
}
DictOperation GetStep(std::string_view key) {
  DictOperation step;
  step.key = key;
  return step;
}
DictCompare IsBytes(std::string_view key, std::string_view bytes) {
  DictCompare compare;
  compare.key = key;
  compare.condition.kind = DictCondition::Kind::kValue;
  compare.condition.value = DictValue::Bytes(bytes);
  return compare;
}

void FiveKeys(DictScene& scene) {
  scene.Put("overwritten", DictValue::Bytes("before"));
  scene.Put("deleted", DictValue::Bytes("before"));
  scene.Put("added", DictValue::Int64(40));
}

Status RunFive(Dict& dict, std::string_view compared, const std::string& longer) {
  const DictCompare compares[] = {IsBytes("overwritten", compared), IsBytes("deleted", "before")};
  const DictOperation then[] = {SetStep("inserted", DictValue::Bytes("after")),
                                SetStep("overwritten", DictValue::Bytes(longer)),
                                DeleteStep("deleted"), AddStep("added", 2), AddStep("absent", 7)};
  const DictOperation otherwise[] = {GetStep("overwritten"), AddStep("added", -1)};
  DictTransactionResult result;
  return dict.Transact(kVictim, compares, then, otherwise, &result);
}

CrashOperation Transaction(const char* name, std::function<void(DictScene&)> prepare,
                           std::function<Status(DictScene&, Dict&)> run,
                           std::vector<CrashOutcome> together) {
  CrashOperation operation;
  operation.name = name;
  operation.prepare = std::move(prepare);
  operation.run = std::move(run);
  operation.outcomes = Always(together.empty() ? std::vector<CrashOutcome>{}
                                               : std::vector<CrashOutcome>{Together(together)});
  operation.keys = {"inserted", "absent", "overwritten", "deleted", "added"};
  operation.marks = true;
  return operation;
}

void AddFives(std::vector<CrashOperation>* all) {
  const std::string longer = Text(200, 'A');
  all->push_back(Transaction(
      "transaction of five steps", FiveKeys,
      [longer](DictScene&, Dict& dict) { return RunFive(dict, "before", longer); },
      {Puts("inserted", BytesEntry("after")), Puts("overwritten", BytesEntry(longer)),
       Erases("deleted"), Puts("added", NumberEntry(42)), Puts("absent", NumberEntry(7))}));
  all->push_back(
      Transaction("transaction whose compare fails", FiveKeys,
                  [longer](DictScene&, Dict& dict) { return RunFive(dict, "otherwise", longer); },
                  {Puts("added", NumberEntry(39))}));
  CrashOperation refused =
      Transaction("transaction whose last step is refused", FiveKeys,
                  [](DictScene&, Dict& dict) {
                    const DictOperation then[] = {SetStep("inserted", DictValue::Bytes("after")),
                                                  DeleteStep("added"), AddStep("deleted", 1)};
                    DictTransactionResult result;
                    return dict.Transact(kVictim, {}, then, {}, &result);
                  },
                  {});
  refused.answer = Reason::kTypeMismatch;
  all->push_back(std::move(refused));
  SeenEntry fenced = NumberEntry(41);
  fenced.fence = 6;
  all->push_back(
      Transaction("transaction with fences", FiveKeys,
                  [](DictScene&, Dict& dict) {
                    const DictOperation then[] = {AddStep("added", 1, 6), AddStep("absent", 1, 6)};
                    DictTransactionResult result;
                    return dict.Transact(kVictim, {}, then, {}, &result);
                  },
                  {Puts("added", fenced), Puts("absent", [] {
                     SeenEntry entry = NumberEntry(1);
                     entry.fence = 6;
                     return entry;
                   }())}));
}

void AddSpecial(std::vector<CrashOperation>* all) {
  CrashOperation crowded;
  crowded.name = "transaction that hangs a line on a bucket";
  crowded.marks = true;
  crowded.prepare = [](DictScene& scene) {
    for (int i = 0; i < 8; ++i) scene.keys.push_back(scene.KeyIn(7, i));
    for (int i = 0; i < 5; ++i) scene.Put(scene.keys[i], DictValue::Int64(i));
  };
  crowded.run = [](DictScene& scene, Dict& dict) {
    const DictOperation then[] = {AddStep(scene.keys[5], 5), AddStep(scene.keys[6], 6),
                                  AddStep(scene.keys[7], 7)};
    DictTransactionResult result;
    return dict.Transact(kVictim, {}, then, {}, &result);
  };
  crowded.outcomes = [](const DictScene& scene) {
    return std::vector<CrashOutcome>{
        Together({Puts(scene.keys[5], NumberEntry(5)), Puts(scene.keys[6], NumberEntry(6)),
                  Puts(scene.keys[7], NumberEntry(7))})};
  };
  all->push_back(std::move(crowded));

  CrashOperation expired = Transaction(
      "transaction over what expired",
      [](DictScene& scene) { scene.PutExpired("deleted", DictValue::Int64(100)); },
      [](DictScene&, Dict& dict) {
        const DictOperation then[] = {AddStep("deleted", 1), AddStep("absent", 1)};
        DictTransactionResult result;
        return dict.Transact(kVictim, {}, then, {}, &result);
      },
      {Puts("deleted", NumberEntry(1)), Puts("absent", NumberEntry(1))});
  all->push_back(std::move(expired));

  constexpr size_t kLarge = 66'000;
  const std::string value = Text(kLarge, 'A');
  CrashOperation large = Transaction(
      "transaction of large values",
      [](DictScene& scene) { scene.Put("overwritten", DictValue::Bytes(Text(kLarge, 'a'))); },
      [value](DictScene&, Dict& dict) {
        const DictOperation then[] = {SetStep("overwritten", DictValue::Bytes(value)),
                                      SetStep("absent", DictValue::Bytes("small"))};
        DictTransactionResult result;
        return dict.Transact(kVictim, {}, then, {}, &result);
      },
      {Puts("overwritten", BytesEntry(value)), Puts("absent", BytesEntry("small"))});
  large.bulk = true;
  all->push_back(std::move(large));

  CrashOperation limit = Transaction(
      "transaction of one entry too many",
      [](DictScene& scene) {
        for (int i = 0; i < 6; ++i) scene.Put("full/" + std::to_string(i), DictValue::Int64(i));
      },
      [](DictScene&, Dict& dict) {
        const DictOperation then[] = {AddStep("inserted", 1), AddStep("absent", 1)};
        DictTransactionResult result;
        return dict.Transact(kVictim, {}, then, {}, &result);
      },
      {});
  limit.shape.entries_max = 8;
  limit.full = true;
  limit.answer = Reason::kLimitExceeded;
  all->push_back(std::move(limit));
}

}  // namespace

std::vector<CrashOperation> CrashTransactions() {
  std::vector<CrashOperation> all;
  AddFives(&all);
  AddSpecial(&all);
  return all;
}

}  // namespace statehouse
