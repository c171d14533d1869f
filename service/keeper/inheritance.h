// How descriptors pass from the keeper to the daemon: numbers from 3 up, names in the environment,
// as systemd does.
//
// LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES are systemd's. One environment string holds at most 128
// KiB, so our keeper goes on in LISTEN_FDNAMES_1, LISTEN_FDNAMES_2 … STATEHOUSE_KEEPER_FD is the
// number of the socket to the keeper.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"

namespace statehouse {

inline constexpr int kFirstInheritedFd = 3;

// What a daemon found at its start.
struct Inheritance {
  std::map<std::string, UniqueFd> descriptors;  // Close-on-exec.
  UniqueFd keeper_socket;     // Invalid when no keeper of ours started this process.
  std::string notify_socket;  // $NOTIFY_SOCKET; empty when there is none.
};

// Takes everything and clears the variables, so that no child is misled. Call once, before other
// threads run and before other descriptors are opened.
StatusOr<Inheritance> TakeInheritance();

// Names joined for the environment, no string longer than `string_bytes_max`.
std::vector<std::string> JoinNames(const std::vector<std::string>& names, size_t string_bytes_max);

// In a forked child that is about to exec: moves the descriptors to 3, 4, … and the socket behind
// them, and sets the variables. Only what it moves survives the exec, provided that all else is
// close-on-exec.
Status BequeathDescriptors(const std::map<std::string, UniqueFd>& descriptors, int keeper_socket);

}  // namespace statehouse
