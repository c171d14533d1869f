// DescriptorVault: where descriptors outlive the daemon: the keeper or systemd (FDSTORE).
#pragma once

#include <string>

#include "engine/base/status.h"

namespace statehouse {

// Names: "catalogue", "area.<id>", "data.<id>", "alive.<block>", "worker.<block>", "dicts",
// "dict.<id>.<generation>", "locks",
// "sessions".
class DescriptorVault {
 public:
  virtual ~DescriptorVault() = default;
  // Returns once the vault owns a copy that survives this process.
  virtual Status Store(const std::string& name, int fd) = 0;
  virtual Status Remove(const std::string& name) = 0;
};

}  // namespace statehouse
