// The same work in several processes at once.
#pragma once

#include <cstdint>
#include <functional>

#include "tests/bench/harness.h"

namespace statehouse::bench {

// Does its operation `n` times.
using Loop = std::function<void(uint64_t n)>;

// Process 0 is the caller, the others are its children. Each makes its own loop, runs an eighth of
// it so that its pages are mapped, waits for the others, and then the clock starts; it stops when
// the last of them is through. The result is the time that passed for one operation of one process:
// where processes do not hinder each other and each has a core, it stays the same.
Work InProcesses(int processes, std::function<Loop(int process)> make_loop);

}  // namespace statehouse::bench
