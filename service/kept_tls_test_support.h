// For tests of what the keeper holds of TLS: a vault that keeps copies.
#pragma once

#include <fcntl.h>

#include <string>

#include "engine/state/descriptor_vault.h"
#include "service/listeners.h"

namespace statehouse {

class KeepingVault final : public DescriptorVault {
 public:
  Status Store(const std::string& name, int fd) override {
    kept_[name].Reset(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    return Status();
  }
  Status Remove(const std::string& name) override {
    kept_.erase(name);
    return Status();
  }
  InheritedDescriptors& kept() { return kept_; }

 private:
  InheritedDescriptors kept_;
};

}  // namespace statehouse
