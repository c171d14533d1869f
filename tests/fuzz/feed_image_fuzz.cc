// A feed that an earlier daemon is said to have left, and rings that workers wrote anything into:
// both are refused or lived with, and revisions follow one another.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "engine/os/memory.h"
#include "engine/state/dict_feed.h"

namespace {

using namespace statehouse;  // NOLINT(google-build-using-namespace)

constexpr uint64_t kDictId = 1;
constexpr Lane kLane{1, kOperationTimeoutNsDefault};

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "a damaged feed: %s\n", what);
  std::abort();
}

void Put(Dict& dict, const std::string& key, const std::string& value) {
  DictResult result;
  Require(dict.Set(kLane, key, DictValue::Bytes(value), {}, &result).ok(), "a set was refused");
}

void RequireOrder(const std::vector<DictChange>& changes) {
  for (size_t i = 1; i < changes.size(); ++i) {
    Require(changes[i].revision == changes[i - 1].revision + 1, "revisions have holes");
  }
}

struct Scene {
  Scene() {
    DictGeometry geometry = DictGeometry::For(1000, 16 << 20, kLanesPerBlock);
    geometry.seed = {1, 2};
    UniqueFd segment = *CreateSealedMemory("fuzz-dict", geometry.segment_bytes());
    const uint64_t uuid[2] = {1, 2};
    Require(Dict::Format(geometry, uuid, segment.get()).ok(), "not formatted");
    auto dict = Dict::Map("fuzz", geometry, segment.get(), Access::kReadWrite);
    Require(dict.ok() && (*dict)->PrepareLanes(0, kLanesPerBlock).ok(), "not mapped");
    DictRecord record;
    record.id = kDictId;
    record.name = "fuzz";
    record.geometry = geometry;
    served = std::make_shared<ServedDict>(record, *std::move(dict), std::move(segment));
    auto feed = DictFeed::Create({kFeedLogBytesMin, 600'000}, served, 10);
    Require(feed.ok(), "not made");
    for (int i = 0; i < 30; ++i) Put(served->dict(), "k" + std::to_string(i % 4), "value");
    std::vector<DictChange> fresh;
    (*feed)->Drain(&fresh);
    image.resize(kFeedLogOffset + kFeedLogBytesMin);
    Require(
        pread((*feed)->fd(), image.data(), image.size(), 0) == static_cast<ssize_t>(image.size()),
        "not read");
    fd = UniqueFd(dup((*feed)->fd()));
  }

  std::shared_ptr<ServedDict> served;
  UniqueFd fd;
  std::vector<std::byte> image;
};

}  // namespace

// Each six bytes: where, and four bytes that are put there; an odd "where" leads into lane 1's
// ring.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Scene scene;
  Require(pwrite(scene.fd.get(), scene.image.data(), scene.image.size(), 0) ==
              static_cast<ssize_t>(scene.image.size()),
          "not restored");
  Dict& dict = scene.served->dict();
  Put(dict, "k1", "next");
  auto* const ring = const_cast<std::byte*>(dict.RingOf(1).data());
  const uint64_t head = dict.LaneRecordOf(1).ring_head.load();
  for (; size >= 6; data += 6, size -= 6) {
    uint16_t where = 0;
    std::memcpy(&where, data, sizeof where);
    if (where % 2 == 1) {
      for (uint64_t i = 0; i < 4; ++i) {
        ring[(head - 1 - (where / 2 + i) % 256) % kChangeRingBytes] =
            static_cast<std::byte>(data[2 + i]);
      }
      continue;
    }
    // The head with its marks, the cursors of the first lanes, and the log's beginning.
    const uint64_t at = where % 2048 < 256   ? where % 256
                        : where % 2048 < 512 ? kFeedCursorsOffset + where % 256
                                             : kFeedLogOffset + where % 2048;
    Require(pwrite(scene.fd.get(), data + 2, 4, static_cast<off_t>(at)) == 4, "not damaged");
  }
  std::vector<DictChange> history;
  auto feed = DictFeed::Adopt({kFeedLogBytesMin, 600'000}, UniqueFd(dup(scene.fd.get())),
                              scene.served, &history);
  if (!feed.ok()) {
    Require(feed.status().reason() == Reason::kDataLoss, "refused for another reason");
    return 0;
  }
  Put(dict, "k2", "after");
  for (int i = 0; i < 3; ++i) (*feed)->Drain(&history);
  Require(!(*feed)->HasNews(), "it does not come to an end");
  RequireOrder(history);
  return 0;
}
