#include "engine/os/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "engine/base/limits.h"
#include "engine/os/errno_status.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

namespace statehouse {
namespace {

// A signal, also one that stops the process, ends a call with EINTR and undoes all that it
// allocated. So a call asks for little: most are through between two signals, however many come.
constexpr uint64_t kAllocatedAtOnceBytes = 64 << 10;

constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW;

// Not sealed yet.
StatusOr<UniqueFd> CreateMemory(const std::string& name, uint64_t bytes) {
  constexpr unsigned kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  UniqueFd fd(memfd_create(name.c_str(), kFlags | MFD_NOEXEC_SEAL));
  if (!fd.valid() && errno == EINVAL)
    fd.Reset(memfd_create(name.c_str(), kFlags));  // Before Linux 6.3.
  if (!fd.valid()) return ErrnoStatus("creating shared memory \"" + name + "\"");
  // A new memfd is 0777: any other user could open a read-only descriptor for writing through
  // /proc.
  if (fchmod(fd.get(), 0600) != 0)
    return ErrnoStatus("setting the mode of shared memory \"" + name + "\"");
  if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus("sizing shared memory \"" + name + "\" to " + std::to_string(bytes) +
                       " bytes");
  }
  return fd;
}

}  // namespace

StatusOr<UniqueFd> CreateSealedMemory(const std::string& name, uint64_t bytes) {
  SH_ASSIGN_OR_RETURN(UniqueFd fd, CreateMemory(name, bytes));
  if (fcntl(fd.get(), F_ADD_SEALS, kSizeSeals | F_SEAL_SEAL) != 0) {
    return ErrnoStatus("sealing shared memory \"" + name + "\"");
  }
  return fd;
}

StatusOr<PublishedMemory> CreatePublishedMemory(const std::string& name, uint64_t bytes) {
  PublishedMemory memory;
  SH_ASSIGN_OR_RETURN(memory.fd, CreateMemory(name, bytes));
  SH_ASSIGN_OR_RETURN(memory.base, MapShared(memory.fd.get(), 0, bytes, true));
  constexpr int kSeals = kSizeSeals | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
  if (fcntl(memory.fd.get(), F_ADD_SEALS, kSeals) != 0) {
    const Status failed = ErrnoStatus("sealing shared memory \"" + name + "\" against writing",
                                      Reason::kUnimplemented);
    Unmap(memory.base, bytes);
    return failed;
  }
  return memory;
}

Status AllocateRange(int fd, uint64_t offset, uint64_t bytes) {
  uint64_t done = 0;
  while (done < bytes) {
    const uint64_t piece = std::min(bytes - done, kAllocatedAtOnceBytes);
    if (fallocate(fd, 0, static_cast<off_t>(offset + done), static_cast<off_t>(piece)) == 0) {
      done += piece;
    } else if (errno != EINTR) {
      return ErrnoStatus("allocating " + std::to_string(bytes) + " bytes of shared memory",
                         Reason::kMemoryExhausted);
    }
  }
  return Status();
}

Status ReleaseRange(int fd, uint64_t offset, uint64_t bytes) {
  if (bytes == 0) return Status();
  if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus("giving back " + std::to_string(bytes) + " bytes of shared memory");
  }
  return Status();
}

StatusOr<uint64_t> FileBytes(int fd) {
  struct stat facts;
  if (fstat(fd, &facts) != 0) return ErrnoStatus("reading a file's size", Reason::kBackingInvalid);
  return static_cast<uint64_t>(facts.st_size);
}

StatusOr<uint64_t> AllocatedBytes(int fd) {
  struct stat facts;
  if (fstat(fd, &facts) != 0) return ErrnoStatus("reading a file's size", Reason::kBackingInvalid);
  return static_cast<uint64_t>(facts.st_blocks) * 512;
}

bool SizeIsSealed(int fd) {
  const int seals = fcntl(fd, F_GET_SEALS);
  return seals >= 0 && (seals & kSizeSeals) == kSizeSeals;
}

bool ContentIsSealed(int fd) {
  const int seals = fcntl(fd, F_GET_SEALS);
  constexpr int kNeeded = kSizeSeals | F_SEAL_FUTURE_WRITE;
  return seals >= 0 && (seals & kNeeded) == kNeeded;
}

StatusOr<UniqueFd> ReopenDescription(int fd, bool writable) {
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  UniqueFd copy(open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC));
  if (!copy.valid())
    return ErrnoStatus("opening a new description through " + path, Reason::kUnavailable);
  return copy;
}

StatusOr<std::byte*> MapShared(int fd, uint64_t offset, uint64_t bytes, bool writable) {
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* base = mmap(nullptr, bytes, protection, MAP_SHARED, fd, static_cast<off_t>(offset));
  if (base == MAP_FAILED) return ErrnoStatus("mapping " + std::to_string(bytes) + " shared bytes");
  return static_cast<std::byte*>(base);
}

void Unmap(std::byte* base, uint64_t bytes) {
  if (base != nullptr) munmap(base, bytes);
}

void Populate(std::byte* base, uint64_t bytes, bool writable) {
  const auto begin = reinterpret_cast<uintptr_t>(base) & ~(kPageBytes - 1);
  const auto end = (reinterpret_cast<uintptr_t>(base) + bytes + kPageBytes - 1) & ~(kPageBytes - 1);
  // Best effort by contract: without it the first touch faults, which is slower and still right.
  (void)madvise(reinterpret_cast<void*>(begin), end - begin,
                writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
}

}  // namespace statehouse
