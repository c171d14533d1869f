// A follow log in which anything may stand, although its writer is trusted: a reader ends, reads
// nothing outside the log, and gives revisions that follow one another.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "engine/os/memory.h"
#include "engine/state/follow_log.h"

namespace {

using namespace statehouse;  // NOLINT(google-build-using-namespace)

constexpr uint64_t kDictId = 1;
constexpr uint64_t kLogId = 2;
constexpr uint64_t kLogBytes = kFeedLogBytesMin;
constexpr uint64_t kFileBytes = kFollowLogOffset + kLogBytes;

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "a damaged follow log: %s\n", what);
  std::abort();
}

// A log that went round, as its writer left it, and memory to damage a copy in.
struct Scene {
  Scene() {
    auto writer = FollowLogWriter::Create(kDictId, kLogBytes);
    Require(writer.ok(), "not made");
    DictChange change;
    while ((*writer)->tail_position() < kLogBytes / 2) {
      if (change.revision == 1'000) middle = (*writer)->head_position();
      ++change.revision;
      change.key = "key" + std::to_string(change.revision % 7);
      change.bytes.assign(change.revision % 90, 'v');
      (*writer)->Append(change);
    }
    (*writer)->Commit();
    revision = change.revision;
    tail = (*writer)->tail_position();
    image.resize(kFileBytes);
    std::byte* const mapped = *MapShared((*writer)->fd(), 0, kFileBytes, false);
    std::memcpy(image.data(), mapped, kFileBytes);
    Unmap(mapped, kFileBytes);
    reinterpret_cast<FollowLogHead*>(image.data())->log_id = kLogId;
    auto published = CreatePublishedMemory("fuzz", kFileBytes);
    Require(published.ok(), "no memory");
    memory = *std::move(published);
  }

  std::vector<std::byte> image;
  PublishedMemory memory;
  uint64_t revision = 0;
  uint64_t middle = 0;
  uint64_t tail = 0;
};

}  // namespace

// A byte that says where to begin, then each six bytes: where, and four bytes that are put there.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Scene scene;
  if (size == 0) return 0;
  const uint8_t begin = data[0];
  ++data;
  --size;
  std::memcpy(scene.memory.base, scene.image.data(), kFileBytes);
  uint64_t position = scene.tail;
  if (begin % 4 == 1) position += begin / 4 * 8;
  if (begin % 4 == 2) position = UINT64_MAX - begin;
  if (begin % 4 == 3) position = scene.middle;
  for (; size >= 6; data += 6, size -= 6) {
    uint16_t where = 0;
    std::memcpy(&where, data, sizeof where);
    // The head with its positions, or the log near where reading begins.
    const uint64_t at = where % 4 == 0
                            ? where / 4 % (sizeof(FollowLogHead) - 4)
                            : kFollowLogOffset + (position + where / 4) % (kLogBytes - 4);
    std::memcpy(scene.memory.base + at, data + 2, 4);
  }
  auto log = FollowLog::Map({kDictId, kLogId}, scene.memory.fd.get());
  if (!log.ok()) {
    Require(log.status().reason() == Reason::kDataLoss, "refused for another reason");
    return 0;
  }
  // The revision before what stands there, so that the first one follows.
  FeedRecord first{};
  std::memcpy(&first,
              scene.memory.base + kFollowLogOffset + position % kLogBytes % (kLogBytes - 48),
              sizeof first);
  FollowLogReader reader(*log, position, first.revision - 1);
  DictChange change;
  uint64_t last = first.revision - 1;
  uint64_t given = 0;
  for (;; ++given) {
    const auto found = reader.Next(&change);
    if (found != FollowLogReader::Found::kChange) break;
    Require(change.revision == last + 1, "revisions have holes");
    Require(change.key.size() <= kDictKeyBytesMax && change.bytes.size() <= kLogBytes,
            "larger than the log");
    last = change.revision;
    Require(given <= kLogBytes / sizeof(FeedRecord), "it does not come to an end");
  }
  Require(reader.revision() == last, "it lost its place");
  return 0;
}
