// Runs the body of tests/fuzz/value_fuzz.cc on well-formed and on damaged values.
#include "engine/value/testing/value_invariants.h"

#include <gtest/gtest.h>

#include "engine/value/json.h"
#include "engine/value/testing/value_tree.h"
#include "engine/value/value_writer.h"

namespace statehouse {
namespace {

using testing::EncodeTree;
using testing::ValueTree;

char Byte(uint64_t number) { return static_cast<char>(number); }

// An input whose path mostly leads somewhere.
std::string RandomInput(std::mt19937_64& random) {
  const ValueTree tree = testing::RandomTree(random, 4);
  std::string input = {Byte(random() % 15), Byte(random()), Byte(random())};
  std::string steps;
  size_t count = 0;
  for (const ValueTree* here = &tree; count < 3 && !here->items.empty() && random() % 4; ++count) {
    const size_t at = random() % here->items.size();
    if (here->kind == ValueKind::kMap) {
      const std::string key = here->keys[at].substr(0, 127);
      steps += Byte(key.size()) + key;
    } else {
      steps += Byte(192 + at % 60);
    }
    here = &here->items[at];
  }
  input += Byte(count) + steps;
  if ((input[1] & 8) != 0) input += random() % 2 ? "\xbf" : "\1a";
  const std::string operand = EncodeTree(testing::RandomTree(random, 2)).substr(0, 255);
  return input + Byte(operand.size()) + operand + EncodeTree(tree);
}

TEST(ValueInvariantsTest, HoldForValuesAndForDamagedBytes) {
  const uint64_t seed = 99;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 60'000; ++i) {
    std::string input = RandomInput(random);

    testing::CheckValueInvariants(input);

    const int changes = i % 4;
    for (int change = 0; change < changes; ++change) {
      const size_t at = random() % input.size();
      switch (random() % 4) {
        case 0: input.erase(at, 1 + random() % 3); break;
        case 1: input.insert(at, 1, Byte(random())); break;
        case 2: input[at] = Byte("\x0a\x12\x42\x4a\x62\xff\x80\x00"[random() % 8]); break;
        default: input[at] = Byte(random());
      }
      if (input.empty()) input = "x";
      testing::CheckValueInvariants(input);
    }
  }
}

TEST(ValueInvariantsTest, HoldForTexts) {
  const uint64_t seed = 100;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 5000; ++i) {
    std::string text;
    ASSERT_TRUE(ValueToJson(EncodeTree(testing::RandomTree(random, 3)), &text).ok());
    if (i % 2) text[random() % text.size()] = Byte(random());

    testing::CheckValueInvariants(std::string(5, '\0') + text);
  }
}

// Bytes that claim to be nested as deep as there are bytes: every level costs two.
TEST(ValueInvariantsTest, HoldForTheDeepestNesting) {
  std::string wire;
  while (wire.size() < 4000) {
    std::string outer;
    ValueWriter writer(&outer);
    writer.BeginTagged("t");
    writer.Wire(wire);
    writer.EndTagged();
    wire = outer;
  }
  testing::CheckValueInvariants(std::string(5, '\0') + wire);
  testing::CheckValueInvariants(std::string("\1\0\0\1\xc0\2\x08\0", 8) + wire);
}

}  // namespace
}  // namespace statehouse
