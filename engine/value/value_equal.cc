// ValuesEqual: equal bytes are equal; what else is equal differs in the order of a map, in the sign
// of a zero, or in a default that one side wrote out.
#include "engine/value/key_index.h"
#include "engine/value/value.h"

namespace statehouse {
namespace {

bool Equal(std::string_view a, std::string_view b, size_t levels);

bool ListsEqual(const ValueView& a, const ValueView& b, size_t levels) {
  ListReader left(a.payload());
  ListReader right(b.payload());
  std::string_view x;
  std::string_view y;
  while (left.Next(&x)) {
    if (!right.Next(&y) || !Equal(x, y, levels)) return false;
  }
  return left.ok() && right.ok();
}

bool MapsEqual(const ValueView& a, const ValueView& b, size_t levels) {
  MapReader left(a.payload());
  MapReader right(b.payload());
  std::string_view key;
  std::string_view other_key;
  std::string_view x;
  std::string_view y;
  // As long as the keys come in the same order, there is nothing to look up.
  while (true) {
    const bool has_left = left.Next(&key, &x);
    const bool has_right = right.Next(&other_key, &y);
    if (!has_left || !has_right) return has_left == has_right && left.ok() && right.ok();
    if (key != other_key) break;
    if (!Equal(x, y, levels)) return false;
  }
  internal::KeyIndex index(b.payload());
  size_t entries = 0;
  for (left = MapReader(a.payload()); left.Next(&key, &x); ++entries) {
    internal::KeyPlace* const place = index.Find(key);
    if (place == nullptr || place->is_used || !Equal(x, place->value, levels)) return false;
    place->is_used = true;
  }
  return left.ok() && index.ok() && entries == index.size();
}

bool Equal(std::string_view a, std::string_view b, size_t levels) {
  if (a == b) return true;
  const ValueView left(a);
  const ValueView right(b);
  if (left.kind() != right.kind() || levels == 0) return false;
  switch (left.kind()) {
    case ValueKind::kFloat:
      return left.AsFloat() == right.AsFloat();  // NaNs of the same bits were equal above.
    case ValueKind::kList: return ListsEqual(left, right, levels - 1);
    case ValueKind::kMap: return MapsEqual(left, right, levels - 1);
    case ValueKind::kTimestamp: {
      TimestampValue x;
      TimestampValue y;
      return left.ReadTimestamp(&x) && right.ReadTimestamp(&y) && x.seconds == y.seconds &&
             x.nanos == y.nanos;
    }
    case ValueKind::kTensor: {
      TensorValue x;
      TensorValue y;
      return left.ReadTensor(&x) && right.ReadTensor(&y) && x.dtype == y.dtype &&
             x.dimensions == y.dimensions && x.shape == y.shape && x.data == y.data;
    }
    case ValueKind::kTagged: {
      TaggedValue x;
      TaggedValue y;
      return left.ReadTagged(&x) && right.ReadTagged(&y) && x.tag == y.tag &&
             Equal(x.value, y.value, levels - 1);
    }
    default: return false;  // The bytes of the other kinds say all there is.
  }
}

}  // namespace

bool ValuesEqual(std::string_view a, std::string_view b) { return Equal(a, b, kValueDepthMax); }

}  // namespace statehouse
