// Increments: an int64 stays one or is refused, a double follows IEEE 754.
#include <string>

#include "engine/value/editor.h"
#include "engine/value/locate.h"
#include "engine/value/value_writer.h"
#include "engine/value/wire.h"

namespace statehouse::internal {
namespace {

// Holds every int64 and every double exactly.
long double Exact(const Number& number) {
  static_assert(std::numeric_limits<long double>::digits >= 64);
  return number.is_float ? static_cast<long double>(number.real)
                         : static_cast<long double>(number.integer);
}

std::string Text(const Number& number) {
  return number.is_float ? std::to_string(number.real) : std::to_string(number.integer);
}

}  // namespace

Status Editor::Increment() {
  SH_RETURN_IF_ERROR(Walk(path_));
  if (is_missing_) return edit_.initial ? WriteNumber(*edit_.initial) : NotFound();
  const ValueView view(value_);
  if (view.kind() == ValueKind::kInt) return WriteNumber(Number::Int(view.AsInt()));
  if (view.kind() == ValueKind::kFloat) return WriteNumber(Number::Float(view.AsFloat()));
  return WrongKind(view, "an increment needs an int or a float");
}

// Adds the delta to what was there and writes the sum, in place of it or as the missing key.
Status Editor::WriteNumber(const Number& before) {
  const Number& delta = edit_.delta;
  if (!before.is_float && delta.is_float) {
    return PathError(Reason::kTypeMismatch, path_,
                     "a float cannot be added to an int; add an int, or set the value to a float");
  }
  Number sum = before;
  if (before.is_float) {
    sum.real += delta.is_float ? delta.real : static_cast<double>(delta.integer);
  } else if (__builtin_add_overflow(before.integer, delta.integer, &sum.integer)) {
    return PathError(
        Reason::kValueOutOfRange, path_,
        Text(before) + " + " + Text(delta) + " does not fit 64 bits; nothing was changed");
  }
  // Written so that a NaN is outside of every bound.
  if (edit_.min && !(Exact(sum) >= Exact(*edit_.min))) {
    return PathError(Reason::kValueOutOfRange, path_,
                     "the sum " + Text(sum) + " would be below the minimum of " + Text(*edit_.min) +
                         "; nothing was changed");
  }
  if (edit_.max && !(Exact(sum) <= Exact(*edit_.max))) {
    return PathError(Reason::kValueOutOfRange, path_,
                     "the sum " + Text(sum) + " would be above the maximum of " + Text(*edit_.max) +
                         "; nothing was changed");
  }
  result_.number = sum;
  char wire[1 + kVarintBytesMax];
  size_t wire_bytes = 0;
  if (sum.is_float) {
    wire[0] = kFloatTag;
    std::memcpy(wire + 1, &sum.real, sizeof(sum.real));
    wire_bytes = 1 + sizeof(sum.real);
  } else {
    wire[0] = kIntTag;
    wire_bytes = PutVarint(wire + 1, static_cast<uint64_t>(sum.integer)) - wire;
  }
  if (is_missing_) return PutMissing({wire, wire_bytes});
  splice_.Add({wire, wire_bytes});
  return splice_.Write(next_);
}

}  // namespace statehouse::internal
