// What the network door's threads ask of the kernel for themselves.
//
// Threads: each for itself.
#pragma once

namespace statehouse {

// Niceness of a thread that shares its processors with others, such as a client that floods the
// door: when it wakes up it does not wait until one of theirs has had its time.
inline constexpr int kRaisedNiceness = -10;

// The calling thread is `name` to tools, 15 characters at most. `raise_priority`: it has
// kRaisedNiceness from now on, unless somebody has chosen another than 0 for the process. False:
// the kernel refuses that (RLIMIT_NICE, CAP_SYS_NICE), and callers wait longer beside busy
// neighbours.
bool BeginDoorThread(const char* name, bool raise_priority);

}  // namespace statehouse
