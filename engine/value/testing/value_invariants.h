// What must hold for any bytes at all: the body of the fuzz target, and of the test that runs it on
// damaged values.
#pragma once

#include <string_view>

namespace statehouse::testing {

// Takes an edit, a path and a value from arbitrary bytes, and does everything to them that the
// library offers. Ends the process with a message when something is not as it must be.
//
//   byte 0      the kind of edit
//   byte 1      bits: create_parents, create_missing, initial, item, min, float delta, short stop
//   byte 2      delta and start, signed
//   byte 3      steps of the path, modulo 4; then each step:
//               a byte below 128 is the length of a key that follows, else a position (byte - 192)
//   then        the length of the operand in one byte, the operand, and the rest is the value
void CheckValueInvariants(std::string_view input);

}  // namespace statehouse::testing
