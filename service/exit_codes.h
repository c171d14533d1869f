// How statehoused ends: the numbers that scripts and service managers see, as `statehoused --help`
// lists them; they follow sysexits.h.
#pragma once

namespace statehouse {

inline constexpr int kExitOk = 0;      // Stopped after a drain.
inline constexpr int kExitUsage = 64;  // A subcommand or its arguments not understood.
inline constexpr int kExitUnavailable =
    69;  // Another instance serves the folder, or an address is taken.
inline constexpr int kExitInternal = 70;  // A defect, or memory that cannot be carried on with.
inline constexpr int kExitSystem =
    71;  // The system refused something (memory, descriptors, permissions).
inline constexpr int kExitStateLost =
    74;  // Keeper and daemon were killed at once, so that the state is lost.
inline constexpr int kExitCutShort =
    75;  // Stopped at once by a second signal; calls in flight were cut off.
inline constexpr int kExitConfig =
    78;  // The configuration is wrong: a flag, a variable or the file.

// Before the first daemon is ready these end the keeper too: starting again would fail the same
// way.
constexpr bool IsStartUpFailure(int code) {
  return code == kExitUsage || code == kExitUnavailable || code == kExitInternal ||
         code == kExitSystem || code == kExitConfig;
}

}  // namespace statehouse
