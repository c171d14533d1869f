// Random edits, done on bytes and on a plain tree that knows nothing of bytes: both must agree on
// the outcome, also on the refusals.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "engine/value/edit.h"
#include "engine/value/json.h"
#include "engine/value/testing/value_tree.h"
#include "engine/value/value.h"

namespace statehouse {
namespace {

using testing::DecodeTree;
using testing::EncodeTree;
using testing::TreesEqual;
using testing::ValueTree;

// An edit with its operand as a tree, or as text for the two kinds that append text and bytes.
struct ModelEdit {
  Edit edit;
  ValueTree operand;
  std::string text;
  std::vector<std::string> keys;  // What the steps of the path borrow.
  std::vector<PathStep> path;
};

bool IsContainer(const ValueTree& tree) {
  return tree.kind == ValueKind::kList || tree.kind == ValueKind::kMap;
}

int64_t Clamped(int64_t position, size_t count) {
  const auto size = static_cast<int64_t>(count);
  if (position < 0) position += size;
  return std::clamp(position, int64_t{0}, size);
}

// Follows one step. kOk, kPathNotFound or kTypeMismatch.
Reason Follow(ValueTree* tree, const PathStep& step, ValueTree** child) {
  const bool is_key = step.kind == PathStep::Kind::kKey;
  if (tree->kind != (is_key ? ValueKind::kMap : ValueKind::kList)) return Reason::kTypeMismatch;
  if (is_key) {
    *child = tree->Find(step.key);
  } else {
    const auto count = static_cast<int64_t>(tree->items.size());
    const int64_t at = step.index < 0 ? step.index + count : step.index;
    *child = at >= 0 && at < count ? &tree->items[static_cast<size_t>(at)] : nullptr;
  }
  return *child == nullptr ? Reason::kPathNotFound : Reason::kOk;
}

void Put(ValueTree* map, std::string_view key, ValueTree value) {
  if (ValueTree* const present = map->Find(key)) {
    *present = std::move(value);
    return;
  }
  map->keys.emplace_back(key);
  map->items.push_back(std::move(value));
}

void Erase(ValueTree* tree, size_t at) {
  tree->items.erase(tree->items.begin() + static_cast<std::ptrdiff_t>(at));
  if (tree->kind == ValueKind::kMap) {
    tree->keys.erase(tree->keys.begin() + static_cast<std::ptrdiff_t>(at));
  }
}

Reason ApplyToList(const ModelEdit& model, ValueTree* tree) {
  const Edit& edit = model.edit;
  auto& items = tree->items;
  if (tree->kind != ValueKind::kList) return Reason::kTypeMismatch;
  int64_t start = static_cast<int64_t>(items.size());
  int64_t stop = start;
  if (edit.kind == EditKind::kRemoveValue) {
    const auto found = std::find_if(items.begin(), items.end(), [&](const ValueTree& item) {
      return TreesEqual(item, model.operand);
    });
    if (found == items.end()) return Reason::kPathNotFound;
    items.erase(found);
    return Reason::kOk;
  }
  if (edit.kind == EditKind::kInsert || edit.kind == EditKind::kSetSlice) {
    start = stop = Clamped(edit.start, items.size());
  }
  if (edit.kind == EditKind::kSetSlice) stop = std::max(start, Clamped(edit.stop, items.size()));
  std::vector<ValueTree> added = {model.operand};
  if (edit.kind == EditKind::kExtend || edit.kind == EditKind::kSetSlice) {
    added = model.operand.items;
  }
  items.erase(items.begin() + start, items.begin() + stop);
  items.insert(items.begin() + start, added.begin(), added.end());
  return Reason::kOk;
}

Reason Pop(const Edit& edit, ValueTree* tree) {
  if (!IsContainer(*tree)) return Reason::kTypeMismatch;
  if (tree->items.empty()) return Reason::kPathNotFound;
  ValueTree* item = &tree->items.back();
  if (edit.item) {
    if (const Reason reason = Follow(tree, *edit.item, &item); reason != Reason::kOk) return reason;
  }
  Erase(tree, static_cast<size_t>(item - tree->items.data()));
  return Reason::kOk;
}

Reason Add(const Edit& edit, ValueTree* tree) {
  if (tree->kind == ValueKind::kFloat) {
    const double sum =
        std::bit_cast<double>(tree->bits) +
        (edit.delta.is_float ? edit.delta.real : static_cast<double>(edit.delta.integer));
    tree->bits = std::bit_cast<uint64_t>(sum);
    return Reason::kOk;
  }
  if (tree->kind != ValueKind::kInt || edit.delta.is_float) return Reason::kTypeMismatch;
  const __int128 sum = static_cast<__int128>(static_cast<int64_t>(tree->bits)) + edit.delta.integer;
  if (sum != static_cast<int64_t>(sum)) return Reason::kValueOutOfRange;
  tree->bits = static_cast<uint64_t>(sum);
  return Reason::kOk;
}

// The edit of a value that is there.
Reason ApplyHere(const ModelEdit& model, ValueTree* tree) {
  switch (model.edit.kind) {
    case EditKind::kSet: *tree = model.operand; return Reason::kOk;
    case EditKind::kSetDefault: return Reason::kOk;
    case EditKind::kIncrement: return Add(model.edit, tree);
    case EditKind::kPop: return Pop(model.edit, tree);
    case EditKind::kClear:
      if (!IsContainer(*tree)) return Reason::kTypeMismatch;
      tree->items.clear();
      tree->keys.clear();
      return Reason::kOk;
    case EditKind::kMergeMap:
      if (tree->kind != ValueKind::kMap) return Reason::kTypeMismatch;
      for (size_t i = 0; i < model.operand.items.size(); ++i) {
        Put(tree, model.operand.keys[i], model.operand.items[i]);
      }
      return Reason::kOk;
    case EditKind::kStringAppend:
    case EditKind::kBytesAppend:
      if (tree->kind !=
          (model.edit.kind == EditKind::kStringAppend ? ValueKind::kString : ValueKind::kBytes)) {
        return Reason::kTypeMismatch;
      }
      tree->bytes += model.text;
      return Reason::kOk;
    default: return ApplyToList(model, tree);
  }
}

// What a missing key counts as. False when the edit has nothing to begin with.
bool BeginMissing(const ModelEdit& model, ValueTree* tree) {
  const Edit& edit = model.edit;
  *tree = ValueTree::List();
  switch (edit.kind) {
    case EditKind::kSet:
    case EditKind::kSetDefault: *tree = model.operand; return true;
    case EditKind::kIncrement:
      if (!edit.initial) return false;
      *tree = edit.initial->is_float ? ValueTree::Float(edit.initial->real)
                                     : ValueTree::Int(edit.initial->integer);
      return true;
    case EditKind::kMergeMap: tree->kind = ValueKind::kMap; return edit.create_missing;
    case EditKind::kStringAppend: tree->kind = ValueKind::kString; return edit.create_missing;
    case EditKind::kBytesAppend: tree->kind = ValueKind::kBytes; return edit.create_missing;
    case EditKind::kAppend:
    case EditKind::kExtend:
    case EditKind::kInsert:
    case EditKind::kSetSlice: return edit.create_missing;
    default: return false;
  }
}

Reason MakeMissing(const ModelEdit& model, ValueTree* map, size_t at) {
  ValueTree made;
  if (!BeginMissing(model, &made)) return Reason::kPathNotFound;
  if (const Reason reason = ApplyHere(model, &made); reason != Reason::kOk) return reason;
  if (at + 1 < model.path.size() && !model.edit.create_parents) return Reason::kPathNotFound;
  for (size_t i = model.path.size(); i-- > at + 1;) {
    if (model.path[i].kind != PathStep::Kind::kKey) return Reason::kPathNotFound;
    ValueTree outer = ValueTree::Map();
    Put(&outer, model.path[i].key, std::move(made));
    made = std::move(outer);
  }
  Put(map, model.path[at].key, std::move(made));
  return Reason::kOk;
}

// What EditValue must do. Leaves the tree as it was when the answer is not kOk.
Reason Apply(const ModelEdit& model, ValueTree* root) {
  ValueTree copy = *root;
  ValueTree* here = &copy;
  const bool deletes = model.edit.kind == EditKind::kDelete;
  if (deletes && model.path.empty()) return Reason::kInvalidArgument;
  Reason reason = Reason::kOk;
  for (size_t i = 0; i < model.path.size(); ++i) {
    ValueTree* child = nullptr;
    reason = Follow(here, model.path[i], &child);
    if (reason == Reason::kOk && deletes && i + 1 == model.path.size()) {
      Erase(here, static_cast<size_t>(child - here->items.data()));
      *root = copy;
      return Reason::kOk;
    }
    if (reason == Reason::kPathNotFound && here->kind == ValueKind::kMap && !deletes) {
      reason = MakeMissing(model, here, i);
      if (reason == Reason::kOk) *root = copy;
      return reason;
    }
    if (reason != Reason::kOk) return reason;
    here = child;
  }
  reason = ApplyHere(model, here);
  if (reason == Reason::kOk) *root = copy;
  return reason;
}

PathStep RandomStep(std::mt19937_64& random, ValueTree* tree, std::vector<std::string>* keys) {
  if (tree != nullptr && !tree->items.empty() && random() % 8 != 0) {
    if (tree->kind == ValueKind::kMap) {
      keys->push_back(tree->keys[random() % tree->keys.size()]);
      return PathStep::Key(keys->back());
    }
    const auto count = static_cast<int64_t>(tree->items.size());
    return PathStep::Index(static_cast<int64_t>(random() % (2 * count)) - count);
  }
  if (random() % 3 == 0) return PathStep::Index(static_cast<int64_t>(random() % 5) - 2);
  keys->push_back(testing::RandomText(random));
  return PathStep::Key(keys->back());
}

// Mostly a kind of edit that what is there allows.
EditKind RandomKind(std::mt19937_64& random, const ValueTree* here) {
  const auto any_of = [&](std::initializer_list<EditKind> kinds) {
    return kinds.begin()[random() % kinds.size()];
  };
  const auto any = static_cast<EditKind>(1 + random() % 14);
  if (here == nullptr || random() % 4 == 0) return any;
  switch (here->kind) {
    case ValueKind::kInt:
    case ValueKind::kFloat: return EditKind::kIncrement;
    case ValueKind::kString: return EditKind::kStringAppend;
    case ValueKind::kBytes: return EditKind::kBytesAppend;
    case ValueKind::kMap:
      return any_of({EditKind::kPop, EditKind::kMergeMap, EditKind::kMergeMap, EditKind::kClear});
    case ValueKind::kList:
      return any_of({EditKind::kAppend, EditKind::kExtend, EditKind::kInsert, EditKind::kPop,
                     EditKind::kRemoveValue, EditKind::kSetSlice, EditKind::kClear});
    default: return any_of({EditKind::kSet, EditKind::kSetDefault, EditKind::kDelete});
  }
}

ModelEdit RandomEdit(std::mt19937_64& random, ValueTree* root) {
  ModelEdit model;
  model.keys.reserve(8);
  Edit& edit = model.edit;
  ValueTree* here = root;
  for (size_t steps = random() % 5; steps > 0; --steps) {
    model.path.push_back(RandomStep(random, here, &model.keys));
    if (here != nullptr && Follow(here, model.path.back(), &here) != Reason::kOk) here = nullptr;
    if (here != nullptr && !IsContainer(*here) && random() % 4 != 0) break;
  }
  edit.kind = RandomKind(random, here);
  do {
    model.operand = testing::RandomTree(random, 3);
  } while (edit.kind == EditKind::kMergeMap
               ? model.operand.kind != ValueKind::kMap
               : (edit.kind == EditKind::kExtend || edit.kind == EditKind::kSetSlice) &&
                     model.operand.kind != ValueKind::kList);
  if (edit.kind == EditKind::kRemoveValue && here != nullptr && !here->items.empty()) {
    model.operand = here->items[random() % here->items.size()];
  }
  model.text = testing::RandomText(random);
  edit.delta = random() % 3 ? Number::Int(static_cast<int64_t>(random() >> random() % 64))
                            : Number::Float(0.5);
  if (random() % 2) edit.initial = random() % 2 ? Number::Int(3) : Number::Float(2.5);
  if (random() % 2) edit.item = RandomStep(random, here, &model.keys);
  edit.start = static_cast<int64_t>(random() % 12) - 6;
  if (random() % 2) edit.stop = static_cast<int64_t>(random() % 12) - 6;
  edit.create_parents = random() % 2 != 0;
  edit.create_missing = random() % 2 != 0;
  return model;
}

std::string Json(const ValueTree& tree) {
  std::string json;
  EXPECT_TRUE(ValueToJson(EncodeTree(tree), &json).ok());
  return json;
}

// Runs random edits from one seed; counts those that were done.
size_t RunEdits(uint64_t seed, int edits) {
  std::mt19937_64 random(seed);
  ValueTree tree = ValueTree::Map();
  size_t done = 0;
  for (int i = 0; i < edits; ++i) {
    if (i % 40 == 0) {
      do {
        tree = testing::RandomTree(random, 5);
      } while (tree.items.size() < 2);
    }
    ModelEdit model = RandomEdit(random, &tree);
    const std::string current = EncodeTree(tree);
    const std::string operand = EncodeTree(model.operand);
    const bool is_raw =
        model.edit.kind == EditKind::kStringAppend || model.edit.kind == EditKind::kBytesAppend;
    model.edit.value = is_raw ? std::string_view(model.text) : std::string_view(operand);
    const std::string before = Json(tree);
    std::string next;
    EditResult result;

    const Status status = EditValue(current, model.path, model.edit, &next, &result);
    const Reason expected = Apply(model, &tree);

    EXPECT_EQ(ReasonName(status.reason()), ReasonName(expected))
        << status.message() << " edit " << static_cast<int>(model.edit.kind) << " at "
        << PathText(model.path) << " of " << before;
    if (!status.ok() || expected != Reason::kOk) continue;
    ++done;
    EXPECT_TRUE(CheckValue(next).ok()) << CheckValue(next).ToString();
    // The trees may differ in nothing, not even in what counts as equal.
    EXPECT_EQ(next, EncodeTree(tree))
        << " edit " << static_cast<int>(model.edit.kind) << " at " << PathText(model.path) << " of "
        << before << " should give " << Json(tree);
    if (::testing::Test::HasFailure()) break;
  }
  return done;
}

TEST(EditModelTest, RandomEditsDoWhatTheModelDoes) {
  size_t done = 0;
  for (uint64_t seed = 1; seed <= 20 && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    done += RunEdits(seed, 2000);
  }
  EXPECT_GT(done, 10'000u);
}

}  // namespace
}  // namespace statehouse
