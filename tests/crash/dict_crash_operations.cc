#include "tests/crash/dict_crash_operations.h"

#include <bit>

#include "engine/state/dict_edit.h"
#include "engine/state/test_dict.h"
#include "engine/value/value_writer.h"

namespace statehouse {

std::string Text(size_t bytes, char seed) {
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(seed + static_cast<char>(i % 23));
  return text;
}

SeenEntry BytesEntry(std::string bytes) {
  SeenEntry entry;
  entry.bytes = std::move(bytes);
  return entry;
}
SeenEntry NumberEntry(int64_t number) {
  SeenEntry entry;
  entry.kind = DictKind::kInt64;
  entry.bits = static_cast<uint64_t>(number);
  return entry;
}
DictValue ValueOf(const SeenEntry& entry) { return {entry.kind, entry.bytes, entry.bits}; }

CrashOutcome Puts(const std::string& key, const SeenEntry& entry) {
  return {[=](SeenDict& dict) {
            SeenEntry next = entry;
            if (const auto old = dict.find(key); old != dict.end()) {
              next.ordinal = old->second.ordinal;
              next.fence = std::max(next.fence, old->second.fence);
            }
            dict[key] = next;
          },
          {{ChangeOperation::kPut, key}}};
}
CrashOutcome Erases(const std::string& key, ChangeOperation why) {
  return {[=](SeenDict& dict) { dict.erase(key); }, {{why, key}}};
}
CrashOutcome Together(const std::vector<CrashOutcome>& parts) {
  CrashOutcome all;
  for (const CrashOutcome& part : parts) {
    all.changes.insert(all.changes.end(), part.changes.begin(), part.changes.end());
  }
  all.edit = [parts](SeenDict& dict) {
    for (const CrashOutcome& part : parts) part.edit(dict);
  };
  return all;
}
std::function<std::vector<CrashOutcome>(const DictScene&)> Always(
    std::vector<CrashOutcome> outcomes) {
  return [outcomes = std::move(outcomes)](const DictScene&) { return outcomes; };
}

namespace {

Status SetAs(Dict& dict, std::string_view key, const DictValue& value,
             const DictSetOptions& options = {}) {
  DictResult result;
  return dict.Set(kVictim, key, value, options, &result);
}

// Sets "key".
CrashOperation SetOf(const char* name, std::function<void(DictScene&)> prepare, SeenEntry next,
                     DictSetOptions options = {}) {
  CrashOperation operation;
  operation.name = name;
  operation.prepare = std::move(prepare);
  operation.run = [=](DictScene&, Dict& dict) {
    return SetAs(dict, "key", ValueOf(next), options);
  };
  next.fence = options.fence;
  operation.outcomes = Always({Puts("key", next)});
  operation.keys = {"key"};
  return operation;
}

auto With(const SeenEntry& entry, const DictSetOptions& options = {}) {
  return [=](DictScene& scene) { scene.Put("key", ValueOf(entry), options); };
}
void Nothing(DictScene&) {}

constexpr size_t kLarge = 70'000;  // Two slabs.

void AddSets(std::vector<CrashOperation>* all) {
  all->push_back(SetOf("insert", Nothing, BytesEntry(Text(90, 'A'))));
  all->push_back(SetOf("insert a number", Nothing, NumberEntry(7)));
  all->push_back(SetOf("insert what needs a look-up", Nothing, BytesEntry(Text(300, 'B'))));
  all->push_back(
      SetOf("overwrite in one class", With(BytesEntry(Text(80, 'a'))), BytesEntry(Text(90, 'A'))));
  all->push_back(SetOf("overwrite in another class", With(BytesEntry(Text(20, 'a'))),
                       BytesEntry(Text(900, 'A'))));
  all->push_back(
      SetOf("overwrite a number with bytes", With(NumberEntry(5)), BytesEntry(Text(200, 'A'))));
  all->push_back(
      SetOf("overwrite bytes with a number", With(BytesEntry(Text(500, 'a'))), NumberEntry(-1)));
  DictSetOptions fenced;
  fenced.fence = 9;
  DictSetOptions fenced_before;
  fenced_before.fence = 4;
  all->push_back(SetOf("overwrite with a fence", With(BytesEntry("a"), fenced_before),
                       BytesEntry("b"), fenced));
  // Blocks of more than a slab.
  std::vector<CrashOperation> large;
  large.push_back(SetOf("insert a large value", Nothing, BytesEntry(Text(kLarge, 'A'))));
  large.push_back(SetOf("overwrite a small value with a large one", With(BytesEntry("small")),
                        BytesEntry(Text(kLarge, 'A'))));
  large.push_back(SetOf("overwrite a large value", With(BytesEntry(Text(kLarge, 'a'))),
                        BytesEntry(Text(2 * kLarge, 'A'))));
  for (CrashOperation& operation : large) {
    operation.bulk = true;
    all->push_back(std::move(operation));
  }
  all->push_back(SetOf("overwrite a large value with a small one",
                       With(BytesEntry(Text(kLarge, 'a'))), BytesEntry("small")));
}

void AddRefused(std::vector<CrashOperation>* all) {
  DictSetOptions absent;
  absent.condition.kind = DictCondition::Kind::kAbsent;
  CrashOperation refused = SetOf("a condition that does not hold", With(BytesEntry("there")),
                                 BytesEntry(Text(90, 'A')), absent);
  refused.outcomes = Always({});
  all->push_back(std::move(refused));
  DictSetOptions fenced;
  fenced.fence = 9;
  DictSetOptions late;
  late.fence = 8;
  CrashOperation fence =
      SetOf("a fence that is too old", With(BytesEntry("there"), fenced), BytesEntry("late"), late);
  fence.outcomes = Always({});
  fence.answer = Reason::kFenced;
  all->push_back(std::move(fence));
}

// Compare and set by version and by value, and the edits that are made of them.
void AddEdits(std::vector<CrashOperation>* all) {
  const std::string there = Text(90, 'a');
  DictSetOptions by_value;
  by_value.condition.kind = DictCondition::Kind::kValue;
  by_value.condition.value = DictValue::Bytes("there");
  all->push_back(SetOf("set if the value holds", With(BytesEntry("there")),
                       BytesEntry(Text(90, 'A')), by_value));
  CrashOperation by_version =
      SetOf("set if the version holds", With(BytesEntry(there)), BytesEntry(Text(80, 'A')));
  by_version.run = [](DictScene& scene, Dict& dict) {
    DictSetOptions options;
    options.condition.kind = DictCondition::Kind::kVersion;
    options.condition.version = scene.before.at("key").version;
    return SetAs(dict, "key", DictValue::Bytes(Text(80, 'A')), options);
  };
  all->push_back(std::move(by_version));

  const auto edit = [all](const char* name, std::string before, EditKind kind, DictTtl ttl,
                          std::string value, const SeenEntry& after) {
    CrashOperation operation = SetOf(name, With(BytesEntry(std::move(before))), after);
    operation.run = [kind, ttl, value = std::move(value)](DictScene&, Dict& dict) {
      EntryEdit entry_edit;
      entry_edit.edit.kind = kind;
      entry_edit.edit.value = value;
      entry_edit.ttl = ttl;
      EntryEditResult result;
      return EditDictEntry(dict, kVictim, "key", entry_edit, &result);
    };
    all->push_back(std::move(operation));
  };
  const auto list = [](int count) {
    std::string wire;
    ValueWriter writer(&wire);
    writer.BeginList();
    for (int i = 0; i < count; ++i) writer.Int(i);
    writer.EndList();
    Must(writer.Finish().ok(), "a list");
    return wire;
  };
  std::string number;
  ValueWriter(&number).Int(20);
  edit("append to a list", list(20), EditKind::kAppend, DictTtl{DictTtl::Kind::kKeep, 0}, number,
       BytesEntry(list(21)));
}

void AddDeletes(std::vector<CrashOperation>* all) {
  const auto erase = [](DictScene&, Dict& dict) {
    DictResult result;
    return dict.Delete(kVictim, "key", {}, &result);
  };
  const auto add = [&](const char* name, const SeenEntry& entry) {
    CrashOperation operation;
    operation.name = name;
    operation.prepare = With(entry);
    operation.run = erase;
    operation.outcomes = Always({Erases("key")});
    operation.keys = {"key"};
    all->push_back(std::move(operation));
  };
  add("delete", BytesEntry(Text(90, 'a')));
  add("delete a number", NumberEntry(3));
  add("delete a large value", BytesEntry(Text(kLarge, 'a')));
  CrashOperation nothing;
  nothing.name = "delete what is not there";
  nothing.prepare = Nothing;
  nothing.run = erase;
  nothing.outcomes = Always({});
  nothing.keys = {"key"};
  all->push_back(std::move(nothing));
}

CrashOperation AddOf(const char* name, std::function<void(DictScene&)> prepare, SeenEntry next,
                     DictIncrement increment) {
  CrashOperation operation;
  operation.name = name;
  operation.prepare = std::move(prepare);
  operation.run = [=](DictScene&, Dict& dict) {
    DictResult result;
    return dict.Increment(kVictim, "key", increment, &result);
  };
  next.fence = increment.fence;
  operation.outcomes = Always({Puts("key", next)});
  operation.keys = {"key"};
  return operation;
}

void AddIncrements(std::vector<CrashOperation>* all) {
  DictIncrement five;
  five.delta = DictValue::Int64(5);
  all->push_back(AddOf("increment in place", With(NumberEntry(1)), NumberEntry(6), five));
  all->push_back(AddOf(
      "increment in the second cell",
      [=](DictScene& scene) {
        With(NumberEntry(1))(scene);
        DictResult result;
        Must(scene.dict().Increment(kVictim, "key", five, &result).ok(), "an increment");
      },
      NumberEntry(11), five));
  DictIncrement half;
  half.delta = DictValue::Float64(0.5);
  SeenEntry before;
  before.kind = DictKind::kFloat64;
  before.bits = std::bit_cast<uint64_t>(1.0);
  SeenEntry after = before;
  after.bits = std::bit_cast<uint64_t>(1.5);
  all->push_back(AddOf("increment a float", With(before), after, half));
  all->push_back(AddOf("increment that inserts", Nothing, NumberEntry(5), five));
  DictIncrement fenced = five;
  fenced.fence = 9;
  CrashOperation raised =
      AddOf("increment with a fence", With(NumberEntry(1)), NumberEntry(6), fenced);
  raised.marks = true;
  all->push_back(std::move(raised));
  CrashOperation wrong =
      AddOf("increment of bytes", With(BytesEntry("text")), NumberEntry(0), five);
  wrong.outcomes = Always({});
  wrong.answer = Reason::kTypeMismatch;
  all->push_back(std::move(wrong));
}

void AddExpiries(std::vector<CrashOperation>* all) {
  const auto expired = [](DictScene& scene) { scene.PutExpired("key", DictValue::Bytes("over")); };
  all->push_back(SetOf("set over what expired", expired, BytesEntry(Text(30, 'A'))));
  DictIncrement five;
  five.delta = DictValue::Int64(5);
  all->push_back(AddOf(
      "increment of what expired",
      [](DictScene& scene) { scene.PutExpired("key", DictValue::Int64(100)); }, NumberEntry(5),
      five));
  CrashOperation operation;
  operation.name = "expire two";
  operation.prepare = [](DictScene& scene) {
    scene.PutExpired(scene.KeyIn(1, 0), DictValue::Bytes("over"));
    scene.PutExpired(scene.KeyIn(5, 0), DictValue::Int64(1));
  };
  operation.run = [](DictScene&, Dict& dict) {
    uint32_t bucket = 0;
    return dict.Expire(kVictim, &bucket, 8).status();
  };
  operation.outcomes = [](const DictScene& scene) {
    return std::vector<CrashOutcome>{Erases(scene.KeyIn(1, 0), ChangeOperation::kExpire),
                                     Erases(scene.KeyIn(5, 0), ChangeOperation::kExpire)};
  };
  all->push_back(std::move(operation));
}

// A scene of `count` small entries beside the one that each scene has.
auto Filled(int count) {
  return [count](DictScene& scene) {
    for (int i = 0; i < count; ++i) scene.Put("full/" + std::to_string(i), DictValue::Bytes("f"));
  };
}

void AddLimits(std::vector<CrashOperation>* all) {
  CrashOperation last = SetOf("insert of the last entry that may be", Filled(6), BytesEntry("l"));
  last.shape.entries_max = 8;
  last.full = true;
  all->push_back(std::move(last));
  CrashOperation refused = SetOf("insert of one too many", Filled(7), BytesEntry("r"));
  refused.shape.entries_max = 8;
  refused.full = true;
  refused.outcomes = Always({});
  refused.answer = Reason::kLimitExceeded;
  all->push_back(std::move(refused));
  CrashOperation evict = SetOf("insert that evicts for an entry", Filled(5), BytesEntry("e"));
  evict.shape.entries_max = 6;
  evict.shape.evict = true;
  evict.full = true;
  evict.outcomes = Always({Erases("old", ChangeOperation::kEvict), Puts("key", BytesEntry("e"))});
  all->push_back(std::move(evict));
  // Three slabs: one of lines, one of what is small, and one block.
  constexpr size_t kSlabValue = 60'000;
  CrashOperation memory = SetOf(
      "insert that evicts for memory",
      [](DictScene& scene) { scene.Put("big", DictValue::Bytes(Text(kSlabValue, 'a'))); },
      BytesEntry(Text(kSlabValue, 'A')));
  memory.shape.data_bytes = 3 << 16;
  memory.shape.evict = true;
  memory.full = true;
  memory.bulk = true;
  memory.outcomes = Always(
      {Erases("big", ChangeOperation::kEvict), Puts("key", BytesEntry(Text(kSlabValue, 'A')))});
  all->push_back(std::move(memory));
  CrashOperation ample = SetOf("insert that gets a budget", Nothing, BytesEntry("b"));
  ample.shape.entries_max = 2000;
  all->push_back(std::move(ample));
}

// `there` keys of one bucket, and one more that is inserted.
CrashOperation Crowded(const char* name, int there) {
  CrashOperation operation;
  operation.name = name;
  operation.prepare = [there](DictScene& scene) {
    for (int i = 0; i <= there; ++i) scene.keys.push_back(scene.KeyIn(7, i));
    for (int i = 0; i < there; ++i) scene.Put(scene.keys[i], DictValue::Int64(i));
  };
  operation.run = [](DictScene& scene, Dict& dict) {
    return SetAs(dict, scene.keys.back(), DictValue::Int64(99));
  };
  operation.outcomes = [](const DictScene& scene) {
    return std::vector<CrashOutcome>{Puts(scene.keys.back(), NumberEntry(99))};
  };
  return operation;
}

void AddAllocations(std::vector<CrashOperation>* all) {
  all->push_back(Crowded("insert that hangs a line on a bucket", kBucketSlots));
  all->push_back(Crowded("insert that hangs a second line", kBucketSlots + kOverflowSlots));
  all->push_back(Crowded("insert in a line's slot", kBucketSlots + 3));
  // Blocks of 1,792 bytes: nine in a magazine.
  const SeenEntry entry = BytesEntry(Text(1600, 'A'));
  all->push_back(SetOf(
      "insert that refills a magazine from a free list",
      [=](DictScene& scene) {
        const auto key = [](int i) { return "past/" + std::to_string(i); };
        for (int i = 0; i < 20; ++i) scene.Put(key(i), ValueOf(entry));
        for (int i = 0; i < 20; ++i) scene.DeleteBy(kOther, key(i));
      },
      entry));
  CrashOperation flush;
  flush.name = "delete that flushes a magazine";
  flush.prepare = [=](DictScene& scene) {
    const auto key = [](int i) { return "past/" + std::to_string(i); };
    for (int i = 0; i < 8; ++i) scene.Put(key(i), ValueOf(entry));
    scene.Put("key", ValueOf(entry));
    for (int i = 0; i < 8; ++i) scene.DeleteBy(kVictim, key(i));
  };
  flush.run = [](DictScene&, Dict& dict) {
    DictResult result;
    return dict.Delete(kVictim, "key", {}, &result);
  };
  flush.outcomes = Always({Erases("key")});
  all->push_back(std::move(flush));
  all->push_back(SetOf(
      "insert whose change record wraps",
      [](DictScene& scene) {
        // After the last operation of the victim's past, which takes 40 bytes.
        DictLaneRecord& record = DictInternals::Record(scene.dict(), kVictimLane);
        record.ring_head = 3 * kChangeRingBytes - 48 - 40;
        record.ring_reserve = record.ring_head.load();
      },
      BytesEntry(Text(90, 'A'))));
}

// "key" was set twice, the second time by name, so that the record that comes next gives a block
// back.
void NamedBefore(DictScene& scene) {
  scene.Put("key", DictValue::Bytes(Text(300, 'b')));
  DictSetOptions options;
  options.operation = kNamedBefore;
  scene.Put("key", DictValue::Int64(40), options);
}

void AddNamed(std::vector<CrashOperation>* all) {
  const auto add = [all](CrashOperation operation) {
    operation.id = kNamed;
    all->push_back(std::move(operation));
  };
  DictSetOptions set;
  set.operation = kNamed;
  add(SetOf("named set", NamedBefore, BytesEntry(Text(90, 'A')), set));
  DictIncrement five;
  five.delta = DictValue::Int64(5);
  five.operation = kNamed;
  add(AddOf("named increment", NamedBefore, NumberEntry(45), five));
  CrashOperation inserts = AddOf(
      "named increment that inserts",
      [](DictScene& scene) {
        NamedBefore(scene);
        scene.DeleteBy(kOther, "key");
      },
      NumberEntry(5), five);
  add(std::move(inserts));
  CrashOperation erase;
  erase.name = "named delete";
  erase.prepare = NamedBefore;
  erase.run = [](DictScene&, Dict& dict) {
    DictDeleteOptions options;
    options.operation = kNamed;
    DictResult result;
    return dict.Delete(kVictim, "key", options, &result);
  };
  erase.outcomes = Always({Erases("key")});
  erase.keys = {"key"};
  add(std::move(erase));
  CrashOperation transaction = AddOf("named transaction", NamedBefore, NumberEntry(45), five);
  transaction.run = [](DictScene&, Dict& dict) {
    DictOperation step;
    step.kind = DictOperation::Kind::kIncrement;
    step.key = "key";
    step.increment.delta = DictValue::Int64(5);
    DictTransactionResult result;
    DictTransactOptions options;
    options.operation = kNamed;
    return dict.Transact(kVictim, {}, {&step, 1}, {}, &result, options);
  };
  transaction.marks = true;
  add(std::move(transaction));
  // Its results need a larger block than is tried first, and are remembered with their entries.
  CrashOperation telling = AddOf(
      "named transaction that tells entries",
      [](DictScene& scene) {
        NamedBefore(scene);
        scene.Put("read", DictValue::Bytes(Text(700, 'r')));
      },
      NumberEntry(45), five);
  telling.run = [](DictScene&, Dict& dict) {
    DictOperation steps[3];
    steps[0].kind = DictOperation::Kind::kIncrement;
    steps[0].key = "key";
    steps[0].increment.delta = DictValue::Int64(5);
    steps[1].key = "read";
    steps[2].key = "absent";
    DictTransactionResult result;
    DictTransactOptions options;
    options.operation = kNamed;
    return dict.Transact(kVictim, {}, steps, {}, &result, options);
  };
  telling.marks = true;
  telling.told = Text(700, 'r');
  add(std::move(telling));
}

}  // namespace

std::vector<CrashOperation> CrashOperations() {
  std::vector<CrashOperation> all;
  AddSets(&all);
  AddRefused(&all);
  AddEdits(&all);
  AddDeletes(&all);
  AddIncrements(&all);
  AddExpiries(&all);
  AddLimits(&all);
  AddAllocations(&all);
  AddNamed(&all);
  for (CrashOperation& operation : CrashTransactions()) all.push_back(std::move(operation));
  for (CrashOperation& operation : CrashBindings()) all.push_back(std::move(operation));
  return all;
}

}  // namespace statehouse
