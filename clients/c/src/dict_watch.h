// DictWatch and DictWatchReader: watching a dict, in terms of watch_subject.h.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "clients/c/src/local_dict.h"
#include "clients/c/src/watch_subject.h"
#include "engine/state/dict_change.h"
#include "statehouse/v1/watch.pb.h"

namespace statehouse {

class DictWatch final : public WatchSubject {
 public:
  // `local`: the dict through the local door, or null. INVALID_ARGUMENT and KEY_INVALID say which
  // option is wrong.
  static StatusOr<std::unique_ptr<DictWatch>> Make(std::string name,
                                                   const sh_watch_options& options,
                                                   std::shared_ptr<LocalDict> local = nullptr);

  const std::string& name() const override { return request_.name(); }
  const std::string& method() const override { return method_; }
  const WatchPoint& from() const override { return from_; }
  size_t read_ahead() const override { return SH_WATCH_READ_AHEAD; }
  std::unique_ptr<Message> MakeRequest(const WatchPoint& from, LocalFollow follow) const override;
  std::unique_ptr<Message> MakeResponse() const override;
  WatchPoint PointAfter(const Message& response, const WatchPoint& point) const override;
  bool may_follow() const override { return local_ != nullptr; }
  Sign SignOf(const Message& response) const override;
  std::shared_ptr<WatchFollow> Follow(const Message& handed_over) const override;

 private:
  DictWatch() = default;

  const std::string method_ = "/statehouse.v1.Dicts/WatchDict";
  WatchPoint from_;
  v1::WatchDictRequest request_;      // Without a revision.
  std::shared_ptr<LocalDict> local_;  // Where it may be followed, else null.
};

class DictWatchReader final : public WatchReaderOf<sh_watch_event> {
 public:
  explicit DictWatchReader(const WatchPoint& from) : revision_(from.counter) {}

  void Take(std::unique_ptr<WatchSubject::Message> response) override;
  void TakeBreak() override;
  // One change that was followed, whose memory is exchanged for that of an older one; and that
  // there was none up to `revision`. REQUIRES: as Take.
  void TakeChange(DictChange* change, bool tells_value);
  void TakeProgress(uint64_t revision);
  StatusOr<bool> Next(sh_watch_event* event) override;
  WatchPoint point() const override { return {revision() != 0, revision()}; }
  // 0: the beginning.
  uint64_t revision() const { return revision_.load(std::memory_order_relaxed); }

 private:
  void ShowEntry(const v1::Entry& entry, sh_watch_event* event);
  Status ShowChange(const v1::DictChange& change, sh_watch_event* event);
  void ShowFollowed(sh_watch_event* event);
  bool ShowValue(const DictChange& change, sh_bytes* value);
  static sh_bytes Shown(const v1::Value& value, std::string* wire);
  void SetRevision(uint64_t revision) { revision_.store(revision, std::memory_order_relaxed); }

  std::atomic<uint64_t> revision_;
  bool told_before_sync_ = false;  // Entries or changes, and no "synced" after them yet.
  bool lost_ = false;              // "connection lost" is to be told.
  std::unique_ptr<v1::WatchDictResponse> response_;  // Null: all of it was given.
  int at_ = 0;                                       // The next of its entries or changes.
  std::unique_ptr<v1::WatchDictResponse> given_;     // What the last event may point into.
  enum class Followed : uint8_t { kNothing, kChange, kChangeAndValue };
  Followed followed_ = Followed::kNothing;  // What is to be given of change_.
  DictChange change_;                       // What the last event may point into.
  std::string value_;                       // The same,
  std::string previous_;                    // and this.
};

}  // namespace statehouse
