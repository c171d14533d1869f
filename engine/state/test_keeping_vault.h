// For tests: a vault that keeps duplicates by name, as the keeper does, and gives them to the next
// daemon. Threads: one at a time.
#pragma once

#include <fcntl.h>

#include <map>
#include <string>

#include "engine/os/unique_fd.h"
#include "engine/state/descriptor_vault.h"

namespace statehouse {

class KeepingVault final : public DescriptorVault {
 public:
  Status Store(const std::string& name, int fd) override {
    kept[name].Reset(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    return Status();
  }
  Status Remove(const std::string& name) override {
    kept.erase(name);
    return Status();
  }
  // A duplicate; not valid: there is none.
  UniqueFd Give(const std::string& name) const {
    const auto found = kept.find(name);
    if (found == kept.end()) return UniqueFd();
    return UniqueFd(::fcntl(found->second.get(), F_DUPFD_CLOEXEC, 0));
  }
  // Duplicates of all.
  std::map<std::string, UniqueFd> GiveAll() const {
    std::map<std::string, UniqueFd> all;
    for (const auto& [name, fd] : kept) all[name] = Give(name);
    return all;
  }

  std::map<std::string, UniqueFd> kept;
};

}  // namespace statehouse
