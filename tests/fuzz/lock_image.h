// A lock space's segment with arbitrary damage, and everything that a daemon or a worker does with
// it. A hostile or broken writer may have stored anything anywhere in the segment: every call must
// come to an end and touch nothing outside of it, and in the end locks can be had again.
#pragma once

#include "tests/fuzz/image_source.h"

namespace statehouse {

// Lays a sound image out, damages it as `source` says, and uses it. Ends the program when a call
// breaks a promise. Not for two threads at once: the mapping is kept from call to call.
void LiveWithDamagedLocks(ImageSource& source);

}  // namespace statehouse
