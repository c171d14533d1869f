#include "service/metrics/process_numbers.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

namespace statehouse {
namespace {

constexpr const char* kDescriptors = "/proc/self/fd";

uint64_t CountDescriptors() {
  struct stat folder {};
  // Since Linux 6.2 the folder's size is their number.
  if (::stat(kDescriptors, &folder) == 0 && folder.st_size > 0) {
    return static_cast<uint64_t>(folder.st_size);
  }
  std::error_code error;
  const std::filesystem::directory_iterator all(kDescriptors, error);
  if (error) return 0;
  return static_cast<uint64_t>(std::distance(begin(all), end(all))) - 1;  // One is the look's own.
}

}  // namespace

ProcessNumbers ReadProcessNumbers() {
  ProcessNumbers numbers;
  timespec used{};
  if (::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) == 0) {
    numbers.cpu_seconds =
        static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
  }
  uint64_t pages = 0;
  std::ifstream statm("/proc/self/statm");
  if (statm >> pages >> pages) {
    numbers.resident_bytes = pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  }
  numbers.open_descriptors = CountDescriptors();
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) numbers.descriptors_max = limit.rlim_cur;
  return numbers;
}

}  // namespace statehouse
