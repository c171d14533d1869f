// A writer beside a scan of the whole dict.
#pragma once

#include "engine/state/dict.h"
#include "tests/bench/harness.h"

namespace statehouse::bench {

// REQUIRES: the dict is BenchDict::Filled(kManyKeys) and outlives the race.
Race ScanRace(Dict& dict);

}  // namespace statehouse::bench
