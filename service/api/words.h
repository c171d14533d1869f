// Between WordValue messages and the bits that the engine takes.
#pragma once

#include <cstdint>
#include <string_view>

#include "engine/base/status.h"
#include "engine/base/word.h"
#include "statehouse/v1/area.pb.h"

namespace statehouse {

// WIDTH_INVALID for UNSPECIFIED and for unknown numbers.
StatusOr<WordType> ToWordType(v1::WordType type);

// The bits of a number. INVALID_ARGUMENT when none is set, VALUE_OUT_OF_RANGE when it does not fit.
// `field` is for messages.
StatusOr<uint64_t> ToBits(WordType type, const v1::WordValue& value, std::string_view field);

// The member that belongs to the type.
void FromBits(WordType type, uint64_t bits, v1::WordValue* value);

}  // namespace statehouse
