// The operations on entries that are bound to sessions that the dict's crash test stops at every
// instruction.
#include "engine/state/dict_edit.h"
#include "engine/state/test_dict.h"
#include "engine/value/value_writer.h"
#include "tests/crash/dict_crash_operations.h"

namespace statehouse {
namespace {

constexpr uint64_t kSession = 0x1122334455667788;
constexpr uint64_t kOtherSession = 0x99aabbccddeeff00;

SeenEntry Bound(SeenEntry entry, uint64_t session = kSession) {
  entry.bound_session = session;
  return entry;
}

// "key" is there as `entry` says.
auto There(const SeenEntry& entry) {
  return [=](DictScene& scene) {
    DictSetOptions options;
    options.bind_session = entry.bound_session;
    scene.Put("key", ValueOf(entry), options);
  };
}
void Nothing(DictScene&) {}

CrashOperation On(const char* name, std::function<void(DictScene&)> prepare,
                  std::function<Status(Dict&)> run, std::vector<CrashOutcome> outcomes) {
  CrashOperation operation;
  operation.name = name;
  operation.prepare = std::move(prepare);
  operation.run = [run = std::move(run)](DictScene&, Dict& dict) { return run(dict); };
  operation.outcomes = Always(std::move(outcomes));
  operation.keys = {"key"};
  return operation;
}

CrashOperation Sets(const char* name, std::function<void(DictScene&)> prepare,
                    const SeenEntry& next) {
  return On(name, std::move(prepare),
            [=](Dict& dict) {
              DictSetOptions options;
              options.bind_session = next.bound_session;
              DictResult result;
              return dict.Set(kVictim, "key", ValueOf(next), options, &result);
            },
            {Puts("key", next)});
}

// Of an entry that is bound to `session`.
CrashOperation Removes(const char* name, const SeenEntry& there, bool holds) {
  return On(
      name, There(there),
      [](Dict& dict) {
        DictDeleteOptions options;
        options.bound_session = kSession;
        DictResult result;
        return dict.Delete(kVictim, "key", options, &result);
      },
      holds ? std::vector<CrashOutcome>{Erases("key")} : std::vector<CrashOutcome>{});
}

std::string ListOf(int count) {
  std::string wire;
  ValueWriter writer(&wire);
  writer.BeginList();
  for (int i = 0; i < count; ++i) writer.Int(i);
  writer.EndList();
  Must(writer.Finish().ok(), "a list");
  return wire;
}

CrashOperation EditsABoundList() {
  std::string number;
  ValueWriter(&number).Int(4);
  return On("append to a bound list", There(Bound(BytesEntry(ListOf(4)))),
            [number](Dict& dict) {
              EntryEdit edit;
              edit.edit.kind = EditKind::kAppend;
              edit.edit.value = number;
              EntryEditResult result;
              return EditDictEntry(dict, kVictim, "key", edit, &result);
            },
            {Puts("key", Bound(BytesEntry(ListOf(5))))});
}

CrashOperation Transacts() {
  CrashOperation operation = On(
      "transaction that binds, unbinds and deletes",
      [](DictScene& scene) {
        There(Bound(BytesEntry("before")))(scene);
        DictSetOptions options;
        options.bind_session = kSession;
        scene.Put("deleted", DictValue::Int64(1), options);
      },
      [](Dict& dict) {
        DictOperation steps[3];
        steps[0].kind = DictOperation::Kind::kSet;
        steps[0].key = "key";
        steps[0].value = DictValue::Bytes("after");
        steps[1].kind = DictOperation::Kind::kSet;
        steps[1].key = "bound";
        steps[1].value = DictValue::Int64(2);
        steps[1].set.bind_session = kOtherSession;
        steps[2].kind = DictOperation::Kind::kDelete;
        steps[2].key = "deleted";
        DictTransactionResult result;
        return dict.Transact(kVictim, {}, steps, {}, &result);
      },
      {Together({Puts("key", BytesEntry("after")),
                 Puts("bound", Bound(NumberEntry(2), kOtherSession)), Erases("deleted")})});
  operation.keys = {"key", "bound", "deleted"};
  operation.marks = true;
  return operation;
}

}  // namespace

std::vector<CrashOperation> CrashBindings() {
  const SeenEntry bound = Bound(BytesEntry(Text(60, 'a')));
  std::vector<CrashOperation> all;
  all.push_back(Sets("insert bound bytes", Nothing, bound));
  all.push_back(Sets("insert a bound number", Nothing, Bound(NumberEntry(7))));
  all.push_back(Sets("bind what is there", There(BytesEntry("there")), bound));
  all.push_back(Sets("bind to another session", There(bound), Bound(bound, kOtherSession)));
  all.push_back(Sets("set that unbinds", There(bound), BytesEntry("plain")));
  all.push_back(Removes("remove what is bound to a session", bound, true));
  all.push_back(Removes("remove a bound number", Bound(NumberEntry(7)), true));
  all.push_back(Removes("remove what was bound again", Bound(bound, kOtherSession), false));
  all.push_back(Removes("remove what was unbound", BytesEntry("plain"), false));
  all.push_back(On("increment of a bound number", There(Bound(NumberEntry(7))),
                   [](Dict& dict) {
                     DictIncrement five;
                     five.delta = DictValue::Int64(5);
                     DictResult result;
                     return dict.Increment(kVictim, "key", five, &result);
                   },
                   {Puts("key", Bound(NumberEntry(12)))}));
  all.push_back(EditsABoundList());
  all.push_back(Transacts());
  return all;
}

}  // namespace statehouse
