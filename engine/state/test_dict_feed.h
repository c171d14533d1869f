// For tests of the feed of a dict: a dict of its own, and changes as short texts.
#pragma once

#include <unistd.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/state/dict_feed.h"
#include "engine/state/test_dict.h"
#include "engine/state/test_keeping_vault.h"

namespace statehouse {

class DictFeedTest : public testing::Test {
 protected:
  DictFeedTest() {
    std::map<std::string, UniqueFd> nothing;
    std::vector<std::string> warnings;
    auto started = DictStore::Start({}, &nothing, &vault, &warnings);
    EXPECT_TRUE(started.ok()) << started.status().ToString();
    store = std::move(*started);
    DictSpec spec;
    spec.name = "d";
    spec.max_entries = 100'000;
    spec.max_bytes = 64 << 20;
    auto created = store->Create(spec);
    EXPECT_TRUE(created.ok()) << created.status().ToString();
    served = created->dict;
    EXPECT_TRUE(dict().PrepareLanes(8, 8).ok());
  }

  Dict& dict() { return served->dict(); }
  static Lane At(uint32_t lane) { return {lane, kOperationTimeoutNsDefault}; }

  uint64_t Put(std::string_view key, std::string_view value, uint32_t lane = 1) {
    DictResult result;
    const Status status = dict().Set(At(lane), key, DictValue::Bytes(value), {}, &result);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return result.version;
  }
  void Delete(std::string_view key, uint32_t lane = 1) {
    DictResult result;
    const Status status = dict().Delete(At(lane), key, {}, &result);
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
  void Begin(DictFeedOptions options = {}, uint64_t first_revision = 1) {
    auto created = DictFeed::Create(options, served, first_revision);
    ASSERT_TRUE(created.ok()) << created.status().ToString();
    feed = std::move(*created);
  }
  std::vector<DictChange> Drain() {
    std::vector<DictChange> fresh;
    while (feed->HasNews()) feed->Drain(&fresh);
    return fresh;
  }
  // The next daemon goes on with what `fd` holds.
  StatusOr<std::unique_ptr<DictFeed>> Adopt(int fd, std::vector<DictChange>* history,
                                            DictFeedOptions options = {}) {
    return DictFeed::Adopt(options, UniqueFd(dup(fd)), served, history);
  }

  KeepingVault vault;
  std::unique_ptr<DictStore> store;
  std::shared_ptr<ServedDict> served;
  std::unique_ptr<DictFeed> feed;
};

// "1:put a=x 7" and so on.
inline std::string Text(const DictChange& change) {
  std::string text = std::to_string(change.revision) + ":";
  switch (change.operation) {
    case FeedOperation::kPut: text += "put "; break;
    case FeedOperation::kDelete: text += "delete "; break;
    case FeedOperation::kExpire: text += "expire "; break;
    case FeedOperation::kEvict: text += "evict "; break;
    case FeedOperation::kGap: return text + "gap " + std::to_string(change.bits);
    case FeedOperation::kMoved: return text + "moved";
  }
  text += change.key;
  if (change.value_gone) return text + " gone";
  if (change.operation != FeedOperation::kPut) return text;
  return text + "=" +
         (change.kind == DictKind::kBytes ? change.bytes : std::to_string(change.bits));
}

inline std::vector<std::string> Texts(const std::vector<DictChange>& changes) {
  std::vector<std::string> texts;
  for (const DictChange& change : changes) texts.push_back(Text(change));
  return texts;
}

using Strings = std::vector<std::string>;

}  // namespace statehouse
