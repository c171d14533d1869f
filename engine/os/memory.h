// Memory that processes share: sealed memfds and mappings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"

namespace statehouse {

// A memfd of `bytes`, mode 0600, sealed against every change of size, sparse and zeroed.
StatusOr<UniqueFd> CreateSealedMemory(const std::string& name, uint64_t bytes);

// Memory that this process alone can ever write: a memfd like that of CreateSealedMemory, mapped
// here, and then sealed against every other mapping for writing and every write, whoever opens it
// and however. UNIMPLEMENTED before Linux 5.1.
struct PublishedMemory {
  UniqueFd fd;
  std::byte* base = nullptr;  // To be unmapped.
};
StatusOr<PublishedMemory> CreatePublishedMemory(const std::string& name, uint64_t bytes);

// Allocates [offset, offset + bytes) now, so that no later touch can fail for lack of memory.
// Signals do not end it. When it fails, a part of the range may have its memory.
Status AllocateRange(int fd, uint64_t offset, uint64_t bytes);
// Gives the memory of the range back: it reads as zeros, and a touch allocates it again.
Status ReleaseRange(int fd, uint64_t offset, uint64_t bytes);

// The size of the file behind `fd`, and the memory it holds.
StatusOr<uint64_t> FileBytes(int fd);
StatusOr<uint64_t> AllocatedBytes(int fd);

// Whether the file can no longer shrink or grow.
bool SizeIsSealed(int fd);
// The same, and nobody can map it for writing any more.
bool ContentIsSealed(int fd);

// A new description of the same file, opened for reading only or for both. UNAVAILABLE where /proc
// is missing.
StatusOr<UniqueFd> ReopenDescription(int fd, bool writable);

// Maps [offset, offset + bytes) of `fd` shared. REQUIRES: offset is a multiple of the page size.
StatusOr<std::byte*> MapShared(int fd, uint64_t offset, uint64_t bytes, bool writable);
void Unmap(std::byte* base, uint64_t bytes);

// Fills the page tables of a range so that later touches do not fault. Best effort: an old kernel
// ignores it.
void Populate(std::byte* base, uint64_t bytes, bool writable);

}  // namespace statehouse
