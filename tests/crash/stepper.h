// Stepper: runs a piece of work in a child process one instruction at a time.
//
// The child shares memory with its parent only through what was mapped shared before. Between two
// instructions the child stands still, so the parent sees exactly what a SIGKILL at that boundary
// would leave.
#pragma once

#include <cstdint>
#include <functional>

namespace statehouse {

// Forks, runs `work` in the child, and calls `at_boundary` in the parent before its first
// instruction, after each one, and at the end. Returns the number of boundaries, or -1 when the
// machine does not let a process be traced. The child is killed and reaped when `at_boundary`
// returns false or the work is done.
int64_t StepThrough(const std::function<void()>& work,
                    const std::function<bool(bool finished)>& at_boundary);

// The same, but the child runs at full speed until `work` calls BeginSteps.
int64_t StepThroughFrom(const std::function<void()>& work,
                        const std::function<bool(bool finished)>& at_boundary);
void BeginSteps();

}  // namespace statehouse
