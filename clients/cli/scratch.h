// Objects that a measuring command makes for itself and takes away again.
#pragma once

#include <string>

#include "clients/cli/connection.h"

namespace statehouse::cli {

// "statehouse-<command>/<pid>-<random>": nobody else's.
std::string ScratchName(const std::string& command);

// An area of 4 KiB, deleted with the object.
class ScratchArea final {
 public:
  // Throws Failed.
  ScratchArea(sh_client* client, const std::string& name);
  ~ScratchArea();
  ScratchArea(const ScratchArea&) = delete;
  ScratchArea& operator=(const ScratchArea&) = delete;
  sh_area* get() const { return area_.get(); }

 private:
  sh_client* const client_;
  const std::string name_;
  OpenArea area_;
};

}  // namespace statehouse::cli
