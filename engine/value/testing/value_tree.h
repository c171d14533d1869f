// ValueTree: a value as a plain C++ tree. The model that tests compare the byte code with.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/value/value.h"

namespace statehouse::testing {

// Each kind uses the members that belong to it; the others keep their defaults, so that == works.
struct ValueTree {
  static ValueTree Int(int64_t number);
  static ValueTree Float(double number);
  static ValueTree String(std::string text);
  static ValueTree List(std::vector<ValueTree> items = {});
  static ValueTree Map();

  // The value under a map's key, or nullptr.
  ValueTree* Find(std::string_view key);
  bool operator==(const ValueTree&) const = default;

  ValueKind kind = ValueKind::kNull;
  uint64_t bits = 0;  // Of a bool, int or float.
  std::string bytes;  // Of a string, bytes, big int; a tensor's data.
  std::string name;   // A tag, or a tensor's dtype.
  std::vector<uint64_t> shape;
  int64_t seconds = 0;
  int32_t nanos = 0;
  std::vector<ValueTree> items;   // Of a list or map; the one value of a tagged value.
  std::vector<std::string> keys;  // Of a map.
};

// The tree's bytes, written by ValueWriter.
std::string EncodeTree(const ValueTree& tree);

// The tree of a well-formed value; fails the test for bytes that are none.
ValueTree DecodeTree(std::string_view wire);

// Whether two trees mean the same: written down without looking at how ValuesEqual does it.
bool TreesEqual(const ValueTree& a, const ValueTree& b);

// A random well-formed tree that is at most `depth` deep.
ValueTree RandomTree(std::mt19937_64& random, size_t depth);

// Random UTF-8 text, also empty, mostly short.
std::string RandomText(std::mt19937_64& random);

}  // namespace statehouse::testing
