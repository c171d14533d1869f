// Copies between shared and private memory. Other processes may write the shared side meanwhile;
// the caller validates afterwards and throws torn bytes away.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstring>

namespace statehouse {

#if defined(__SANITIZE_THREAD__)
// The thread sanitizer knows atomics but not sequence validation, so its builds copy byte by byte
// with relaxed atomics.
inline void CopyShared(std::byte* to, const std::byte* from, size_t len) {
  auto* source = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(from));
  auto* target = reinterpret_cast<unsigned char*>(to);
  for (size_t i = 0; i < len; ++i) {
    std::atomic_ref<unsigned char>(target[i]).store(
        std::atomic_ref<unsigned char>(source[i]).load(std::memory_order_relaxed),
        std::memory_order_relaxed);
  }
}
#else
inline void CopyShared(std::byte* to, const std::byte* from, size_t len) {
  if (len == 0) return;  // Nothing may stand nowhere: memcpy takes no null.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  // Where the compiler knows a bound of the length it writes `rep movs`, which takes 30 ns to
  // begin; without one it calls memcpy.
  asm("" : "+r"(len));
  std::memcpy(to, from, len);
  std::atomic_signal_fence(std::memory_order_seq_cst);
}
#endif

}  // namespace statehouse
