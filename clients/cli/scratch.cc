#include "clients/cli/scratch.h"

#include <unistd.h>

#include <cstdio>
#include <random>

namespace statehouse::cli {

std::string ScratchName(const std::string& command) {
  std::random_device random;
  return "statehouse-" + command + "/" + std::to_string(getpid()) + "-" + std::to_string(random());
}

ScratchArea::ScratchArea(sh_client* client, const std::string& name)
    : client_(client), name_(name) {
  sh_area_spec spec{};
  spec.pages = 1;
  spec.exclusive = 1;
  sh_error* error = nullptr;
  Check(sh_area_create(client, name.c_str(), &spec, nullptr, nullptr, &error), error);
  sh_area* opened = nullptr;
  const sh_reason reason = sh_area_open(client, name.c_str(), 0, &opened, &error);
  if (reason != SH_OK) sh_area_delete(client, name.c_str(), nullptr);
  Check(reason, error);
  area_.reset(opened);
}

ScratchArea::~ScratchArea() {
  area_.reset();
  sh_error* error = nullptr;
  if (sh_area_delete(client_, name_.c_str(), &error) != SH_OK) {
    std::fprintf(stderr, "statehouse: area \"%s\" is left behind: %s\n", name_.c_str(),
                 sh_error_message(error));
  }
  sh_error_free(error);
}

}  // namespace statehouse::cli
