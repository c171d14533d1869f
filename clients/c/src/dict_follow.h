// DictFollow: following the follow log of a dict, in terms of watch_follow.h.
#pragma once

#include <memory>
#include <optional>

#include "clients/c/src/local_dict.h"
#include "clients/c/src/watch_follow.h"
#include "engine/state/selected_changes.h"
#include "statehouse/v1/watch.pb.h"

namespace statehouse {

class DictFollow final : public WatchFollow {
 public:
  // Goes on where the service handed over a watch that began with `request`.
  DictFollow(std::shared_ptr<LocalDict> dict, const v1::WatchDictRequest& request,
             const v1::WatchDictResponse& handed_over);
  // For tests: a log that is mapped already.
  void Use(std::shared_ptr<const FollowLog> log, std::unique_ptr<RingFollower> rings = nullptr);

  Status Open() override;
  FollowEvents events() const override { return changes_->events(); }
  Found Read(uint64_t now_ns, std::unique_ptr<google::protobuf::MessageLite>* message) override;
  Found ReadInto(uint64_t now_ns, WatchReader* reader) override;
  void EndHere() override;
  uint64_t due_ns() const override;
  bool is_pausing() const override { return changes_->is_pausing(); }
  uint64_t counter() const override { return changes_ ? changes_->revision() : revision_; }

 private:
  void Add(DictChange* change, v1::WatchDictResponse* response);
  uint64_t progress_due_ns() const;

  const std::shared_ptr<LocalDict> dict_;
  const v1::WatchDictRequest request_;
  const uint64_t revision_;
  const uint64_t position_;
  const uint64_t log_id_;
  ChangeSelection selection_;
  uint64_t progress_ns_ = 0;  // 0: none.
  uint64_t told_ns_;
  std::optional<SelectedChanges> changes_;
  DictChange change_;  // Its memory is used again.
};

}  // namespace statehouse
