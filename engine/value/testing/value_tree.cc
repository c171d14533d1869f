#include "engine/value/testing/value_tree.h"

#include <gtest/gtest.h>

#include <bit>
#include <set>

#include "engine/value/value_writer.h"

namespace statehouse::testing {
namespace {

void Write(ValueWriter& writer, const ValueTree& tree) {
  switch (tree.kind) {
    case ValueKind::kInvalid: FAIL() << "a tree without a kind"; return;
    case ValueKind::kNull: writer.Null(); return;
    case ValueKind::kBool: writer.Bool(tree.bits != 0); return;
    case ValueKind::kInt: writer.Int(static_cast<int64_t>(tree.bits)); return;
    case ValueKind::kBigInt: writer.BigInt(tree.bytes); return;
    case ValueKind::kFloat: writer.FloatBits(tree.bits); return;
    case ValueKind::kString: writer.String(tree.bytes); return;
    case ValueKind::kBytes: writer.Bytes(tree.bytes); return;
    case ValueKind::kTimestamp: writer.Timestamp({tree.seconds, tree.nanos}); return;
    case ValueKind::kTensor: writer.Tensor(tree.name, tree.shape, tree.bytes); return;
    case ValueKind::kList:
      writer.BeginList();
      for (const ValueTree& item : tree.items) Write(writer, item);
      writer.EndList();
      return;
    case ValueKind::kMap:
      writer.BeginMap();
      for (size_t i = 0; i < tree.items.size(); ++i) {
        writer.Key(tree.keys[i]);
        Write(writer, tree.items[i]);
      }
      writer.EndMap();
      return;
    case ValueKind::kTagged:
      writer.BeginTagged(tree.name);
      Write(writer, tree.items[0]);
      writer.EndTagged();
      return;
  }
}

uint64_t Pick(std::mt19937_64& random, uint64_t below) { return random() % below; }

std::string RandomBytes(std::mt19937_64& random, size_t length) {
  std::string bytes;
  while (bytes.size() < length) bytes.push_back(static_cast<char>(random()));
  return bytes;
}

std::string RandomBigInt(std::mt19937_64& random) {
  std::string bytes = RandomBytes(random, 9 + Pick(random, 20));
  const bool first_is_sign = bytes[0] == '\0' || bytes[0] == '\xff';
  if (first_is_sign) bytes[1] = static_cast<char>(bytes[0] == '\0' ? bytes[1] | 0x80 : 0x7f);
  return bytes;
}

void FillScalar(std::mt19937_64& random, ValueTree* tree) {
  static constexpr uint64_t kInts[] = {0,     1,    127, 128, ~uint64_t{0}, uint64_t{1} << 63,
                                       16383, 16384};
  static constexpr double kFloats[] = {0.0, -0.0, 1.0, -2.5, 1e300, 5e-324};
  switch (tree->kind) {
    case ValueKind::kBool: tree->bits = Pick(random, 2); return;
    case ValueKind::kInt: tree->bits = Pick(random, 2) ? kInts[Pick(random, 8)] : random(); return;
    case ValueKind::kFloat:
      tree->bits = Pick(random, 2) ? std::bit_cast<uint64_t>(kFloats[Pick(random, 6)]) : random();
      return;
    case ValueKind::kBigInt: tree->bytes = RandomBigInt(random); return;
    case ValueKind::kString: tree->bytes = RandomText(random); return;
    case ValueKind::kBytes: tree->bytes = RandomBytes(random, Pick(random, 200)); return;
    case ValueKind::kTimestamp:
      if (Pick(random, 2)) tree->nanos = static_cast<int32_t>(Pick(random, 1'000'000'000));
      tree->seconds = static_cast<int64_t>(Pick(random, 315'537'897'600)) - 62'135'596'800;
      return;
    case ValueKind::kTensor:
      tree->name = Pick(random, 2) ? "uint8" : "float32";
      for (uint64_t i = Pick(random, 4); i > 0; --i) tree->shape.push_back(Pick(random, 5));
      tree->bytes.assign(tree->name == "uint8" ? 1 : 4, '\x7f');
      for (const uint64_t length : tree->shape) {
        std::string repeated;
        for (uint64_t i = 0; i < length; ++i) repeated += tree->bytes;
        tree->bytes = repeated;
      }
      return;
    default: return;
  }
}

}  // namespace

ValueTree ValueTree::Int(int64_t number) {
  ValueTree tree;
  tree.kind = ValueKind::kInt;
  tree.bits = static_cast<uint64_t>(number);
  return tree;
}

ValueTree ValueTree::Float(double number) {
  ValueTree tree;
  tree.kind = ValueKind::kFloat;
  tree.bits = std::bit_cast<uint64_t>(number);
  return tree;
}

ValueTree ValueTree::String(std::string text) {
  ValueTree tree;
  tree.kind = ValueKind::kString;
  tree.bytes = std::move(text);
  return tree;
}

ValueTree ValueTree::List(std::vector<ValueTree> items) {
  ValueTree tree;
  tree.kind = ValueKind::kList;
  tree.items = std::move(items);
  return tree;
}

ValueTree ValueTree::Map() {
  ValueTree tree;
  tree.kind = ValueKind::kMap;
  return tree;
}

ValueTree* ValueTree::Find(std::string_view key) {
  for (size_t i = 0; i < keys.size(); ++i) {
    if (keys[i] == key) return &items[i];
  }
  return nullptr;
}

std::string EncodeTree(const ValueTree& tree) {
  std::string wire;
  ValueWriter writer(&wire);
  Write(writer, tree);
  const Status finished = writer.Finish();
  EXPECT_TRUE(finished.ok()) << finished.ToString();
  return wire;
}

ValueTree DecodeTree(std::string_view wire) {
  const ValueView view(wire);
  ValueTree tree;
  tree.kind = view.kind();
  std::string_view key;
  std::string_view value;
  TimestampValue timestamp;
  TensorValue tensor;
  TaggedValue tagged;
  switch (view.kind()) {
    case ValueKind::kInvalid: ADD_FAILURE() << "bytes that are no value"; break;
    case ValueKind::kList: {
      ListReader reader(view.payload());
      while (reader.Next(&value)) tree.items.push_back(DecodeTree(value));
      EXPECT_TRUE(reader.ok());
      break;
    }
    case ValueKind::kMap: {
      MapReader reader(view.payload());
      while (reader.Next(&key, &value)) {
        tree.keys.emplace_back(key);
        tree.items.push_back(DecodeTree(value));
      }
      EXPECT_TRUE(reader.ok());
      break;
    }
    case ValueKind::kTimestamp:
      EXPECT_TRUE(view.ReadTimestamp(&timestamp));
      tree.seconds = timestamp.seconds;
      tree.nanos = timestamp.nanos;
      break;
    case ValueKind::kTensor:
      EXPECT_TRUE(view.ReadTensor(&tensor));
      tree.name = tensor.dtype;
      tree.bytes = tensor.data;
      tree.shape.assign(tensor.shape.begin(), tensor.shape.begin() + tensor.dimensions);
      break;
    case ValueKind::kTagged:
      EXPECT_TRUE(view.ReadTagged(&tagged));
      tree.name = tagged.tag;
      tree.items.push_back(DecodeTree(tagged.value));
      break;
    case ValueKind::kBigInt:
    case ValueKind::kString:
    case ValueKind::kBytes: tree.bytes = view.payload(); break;
    default: tree.bits = view.FloatBits();
  }
  return tree;
}

bool TreesEqual(const ValueTree& a, const ValueTree& b) {
  if (a.kind != b.kind || a.items.size() != b.items.size()) return false;
  if (a.kind == ValueKind::kFloat) {
    return a.bits == b.bits || std::bit_cast<double>(a.bits) == std::bit_cast<double>(b.bits);
  }
  const bool scalars_equal = a.bits == b.bits && a.bytes == b.bytes && a.name == b.name &&
                             a.shape == b.shape && a.seconds == b.seconds && a.nanos == b.nanos;
  if (!scalars_equal) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    const ValueTree* other = &b.items[i];
    if (a.kind == ValueKind::kMap) other = const_cast<ValueTree&>(b).Find(a.keys[i]);
    if (other == nullptr || !TreesEqual(a.items[i], *other)) return false;
  }
  return true;
}

ValueTree RandomTree(std::mt19937_64& random, size_t depth) {
  ValueTree tree;
  do {
    tree.kind = static_cast<ValueKind>(1 + Pick(random, 12));
  } while (depth <= 1 && (tree.kind == ValueKind::kList || tree.kind == ValueKind::kMap ||
                          tree.kind == ValueKind::kTagged));
  static constexpr const char* kTags[] = {"tuple", "set", "decimal", "a-b_c.9"};
  size_t count = Pick(random, 16) == 0 ? 40 : Pick(random, 6);
  switch (tree.kind) {
    case ValueKind::kMap:
      for (std::set<std::string> used; used.size() < count;) {
        const std::string key = RandomText(random);
        if (!used.insert(key).second) continue;
        tree.keys.push_back(key);
      }
      break;
    case ValueKind::kList: break;
    case ValueKind::kTagged:
      tree.name = kTags[Pick(random, 4)];
      count = 1;
      break;
    default: count = 0; FillScalar(random, &tree);
  }
  for (size_t i = 0; i < count; ++i) {
    tree.items.push_back(RandomTree(random, count > 6 ? 1 : depth - 1));
  }
  return tree;
}

std::string RandomText(std::mt19937_64& random) {
  static constexpr const char* kPieces[] = {"a", "b", "key", "x.y", "\"", "\n", "ä", "€", "😀", "$"};
  std::string text;
  const size_t count = Pick(random, 20) == 0 ? 60 : Pick(random, 5);
  for (size_t i = 0; i < count; ++i) text += kPieces[Pick(random, 10)];
  return text;
}

}  // namespace statehouse::testing
