// ProcessNumbers: what this process takes of its host, under the names that Prometheus' own client
// libraries give it (https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics).
#pragma once

#include <cstdint>

namespace statehouse {

// 0 where /proc does not say.
struct ProcessNumbers {
  double cpu_seconds = 0;       // Of all threads, in user and kernel mode.
  uint64_t resident_bytes = 0;  // Mapped areas and dicts included, as far as it has touched them.
  uint64_t open_descriptors = 0;
  uint64_t descriptors_max = 0;
};
ProcessNumbers ReadProcessNumbers();

}  // namespace statehouse
