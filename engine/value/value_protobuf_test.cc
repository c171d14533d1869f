// The byte code against the protobuf library: what one writes the other reads, and what CheckValue
// takes means the same to both, also after random damage.
#include <google/protobuf/io/coded_stream.h>
#include <gtest/gtest.h>

#include <bit>

#include "engine/value/path.h"
#include "engine/value/testing/value_tree.h"
#include "engine/value/value.h"
#include "engine/value/value_writer.h"
#include "statehouse/v1/value.pb.h"

namespace statehouse {
namespace {

using testing::DecodeTree;
using testing::EncodeTree;
using testing::ValueTree;

void ToMessage(const ValueTree& tree, v1::Value* message) {
  switch (tree.kind) {
    case ValueKind::kInvalid: FAIL(); return;
    case ValueKind::kNull: message->set_null_value(google::protobuf::NULL_VALUE); return;
    case ValueKind::kBool: message->set_bool_value(tree.bits != 0); return;
    case ValueKind::kInt: message->set_int_value(static_cast<int64_t>(tree.bits)); return;
    case ValueKind::kBigInt: message->set_big_int_value(tree.bytes); return;
    case ValueKind::kFloat: message->set_float_value(std::bit_cast<double>(tree.bits)); return;
    case ValueKind::kString: message->set_string_value(tree.bytes); return;
    case ValueKind::kBytes: message->set_bytes_value(tree.bytes); return;
    case ValueKind::kTimestamp:
      message->mutable_timestamp_value()->set_seconds(tree.seconds);
      message->mutable_timestamp_value()->set_nanos(tree.nanos);
      return;
    case ValueKind::kTensor:
      message->mutable_tensor_value()->set_dtype(tree.name);
      for (const uint64_t length : tree.shape) {
        message->mutable_tensor_value()->add_dimensions(length);
      }
      message->mutable_tensor_value()->set_data(tree.bytes);
      return;
    case ValueKind::kList:
      message->mutable_list_value();
      for (const ValueTree& item : tree.items) {
        ToMessage(item, message->mutable_list_value()->add_values());
      }
      return;
    case ValueKind::kMap:
      message->mutable_map_value();
      for (size_t i = 0; i < tree.items.size(); ++i) {
        v1::MapEntry* const entry = message->mutable_map_value()->add_entries();
        entry->set_key(tree.keys[i]);
        ToMessage(tree.items[i], entry->mutable_value());
      }
      return;
    case ValueKind::kTagged:
      message->mutable_tagged_value()->set_tag(tree.name);
      ToMessage(tree.items[0], message->mutable_tagged_value()->mutable_value());
      return;
  }
}

ValueTree ToTree(const v1::Value& message) {
  ValueTree tree;
  tree.kind = static_cast<ValueKind>(message.kind_case());
  switch (message.kind_case()) {
    case v1::Value::kBoolValue: tree.bits = message.bool_value() ? 1 : 0; break;
    case v1::Value::kIntValue: tree.bits = static_cast<uint64_t>(message.int_value()); break;
    case v1::Value::kFloatValue: tree.bits = std::bit_cast<uint64_t>(message.float_value()); break;
    case v1::Value::kBigIntValue: tree.bytes = message.big_int_value(); break;
    case v1::Value::kStringValue: tree.bytes = message.string_value(); break;
    case v1::Value::kBytesValue: tree.bytes = message.bytes_value(); break;
    case v1::Value::kTimestampValue:
      tree.seconds = message.timestamp_value().seconds();
      tree.nanos = message.timestamp_value().nanos();
      break;
    case v1::Value::kTensorValue:
      tree.name = message.tensor_value().dtype();
      tree.bytes = message.tensor_value().data();
      for (const uint64_t length : message.tensor_value().dimensions()) {
        tree.shape.push_back(length);
      }
      break;
    case v1::Value::kListValue:
      for (const v1::Value& item : message.list_value().values()) {
        tree.items.push_back(ToTree(item));
      }
      break;
    case v1::Value::kMapValue:
      for (const v1::MapEntry& entry : message.map_value().entries()) {
        tree.keys.push_back(entry.key());
        tree.items.push_back(ToTree(entry.value()));
      }
      break;
    case v1::Value::kTaggedValue:
      tree.name = message.tagged_value().tag();
      tree.items.push_back(ToTree(message.tagged_value().value()));
      break;
    default: break;
  }
  return tree;
}

TEST(ValueProtobufTest, BothWriteTheSameBytesAndReadThemBack) {
  const uint64_t seed = 321;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 5000; ++i) {
    const ValueTree tree = testing::RandomTree(random, 6);
    v1::Value message;
    ToMessage(tree, &message);
    const std::string theirs = message.SerializeAsString();
    const std::string ours = EncodeTree(tree);

    ASSERT_EQ(ours, theirs);
    ASSERT_TRUE(CheckValue(theirs).ok()) << CheckValue(theirs).ToString();
    ASSERT_EQ(DecodeTree(theirs), tree);
    v1::Value parsed;
    ASSERT_TRUE(parsed.ParseFromString(ours));
    ASSERT_EQ(ToTree(parsed), tree);
  }
}

TEST(ValueProtobufTest, DamagedBytesThatAreTakenMeanTheSameToBoth) {
  const uint64_t seed = 322;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  size_t taken = 0;
  size_t refused = 0;
  for (int i = 0; i < 200'000; ++i) {
    std::string wire = EncodeTree(testing::RandomTree(random, 3));
    switch (random() % 4) {
      case 0: wire.resize(random() % wire.size()); break;
      case 1: wire.insert(random() % wire.size(), 1, static_cast<char>(random())); break;
      case 2: wire.erase(random() % wire.size(), 1); break;
      default: wire[random() % wire.size()] = static_cast<char>(random());
    }
    if (!CheckValue(wire).ok()) {
      ++refused;
      continue;
    }
    ++taken;
    v1::Value message;
    ASSERT_TRUE(message.ParseFromString(wire));
    ASSERT_EQ(ToTree(message), DecodeTree(wire));
    const std::string again = message.SerializeAsString();
    ASSERT_TRUE(CheckValue(again).ok()) << CheckValue(again).ToString();
    ASSERT_TRUE(ValuesEqual(wire, again));
  }
  EXPECT_GT(taken, 10'000u);
  EXPECT_GT(refused, 10'000u);
}

TEST(ValueProtobufTest, TheDeepestValueFitsIntoACallAtTheParsersDefaultLimit) {
  std::string wire;
  ValueWriter writer(&wire);
  for (size_t i = 1; i < kValueDepthMax; ++i) {
    writer.BeginMap();
    writer.Key("k");
  }
  writer.BeginList();
  writer.EndList();
  for (size_t i = 1; i < kValueDepthMax; ++i) writer.EndMap();
  ASSERT_TRUE(writer.Finish().ok());
  ASSERT_TRUE(CheckValue(wire).ok());
  google::protobuf::io::CodedInputStream input(reinterpret_cast<const uint8_t*>(wire.data()),
                                               static_cast<int>(wire.size()));
  ASSERT_EQ(google::protobuf::io::CodedInputStream::GetDefaultRecursionLimit(),
            static_cast<int>(kProtobufNestingMax));
  input.SetRecursionLimit(static_cast<int>(kProtobufNestingMax - kCallNestingMax));

  v1::Value message;

  EXPECT_TRUE(message.ParseFromCodedStream(&input));
}

TEST(ValueProtobufTest, KindsHaveTheNumbersOfTheFields) {
  const auto* const fields = v1::Value::descriptor()->FindOneofByName("kind");

  ASSERT_EQ(fields->field_count(), 12);
  for (int i = 0; i < fields->field_count(); ++i) {
    std::string name = fields->field(i)->name();
    name.resize(name.size() - std::string("_value").size());
    std::string ours(ValueKindName(static_cast<ValueKind>(fields->field(i)->number())));
    if (ours == "tagged value") ours = "tagged";
    for (char& c : ours) c = c == ' ' ? '_' : c;
    EXPECT_EQ(ours, name);
  }
}

}  // namespace
}  // namespace statehouse
