// Many damaged images, the same ones in each run.
#pragma once

#include "tests/fuzz/image_source.h"

namespace statehouse {

// Calls `live` with one source after another and returns with how many. An image that breaks
// something or hangs names its number; STATEHOUSE_IMAGE=<number> runs that one alone, and
// STATEHOUSE_LONG=1 ten million.
int LiveWithManyImages(void (*live)(ImageSource& source));

}  // namespace statehouse
