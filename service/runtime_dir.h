// RuntimeDir: the folder of the service's sockets, its lock and the files that tell where it
// listens.
//
// Who owns it: the composition root. Threads: one. Always true: while the lock is held, no other
// statehoused serves the folder;
//   the lock lives on in the keeper while the daemon restarts, and the kernel drops it when both
//   are gone.
// Failure: a folder that others could change is refused with CONFIG_INVALID, one that is served
// with UNAVAILABLE.
#pragma once

#include <sys/types.h>

#include <string>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"

namespace statehouse {

class RuntimeDir final {
 public:
  // Makes the folder (0700) where it is missing, checks owner and mode, and takes the lock, or
  // takes over `inherited_lock` from the daemon before.
  static StatusOr<RuntimeDir> Open(const std::string& path, UniqueFd inherited_lock);

  const std::string& path() const { return path_; }
  std::string attach_socket() const { return path_ + "/attach.sock"; }
  std::string grpc_socket() const { return path_ + "/grpc.sock"; }
  int lock_fd() const { return lock_.get(); }

  // Whether files of a service that never stopped lie here: it was killed as a whole. REQUIRES:
  // nothing was written yet.
  bool was_left_behind() const;

  // Writes <path>/<name> (0600) as a whole: a reader sees the old text or the new one.
  Status WriteFile(const std::string& name, const std::string& text) const;
  // Removes the sockets, the files that WriteFile made and the lock. Call at the end of the
  // service.
  Status RemoveFiles() const;

 private:
  RuntimeDir(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  std::string path_;
  UniqueFd lock_;
};

}  // namespace statehouse
