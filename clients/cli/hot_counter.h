// HotCounter: the changes of each key, of the measured time alone.
#pragma once

#include <cstdio>
#include <string>

#include "clients/cli/follow.h"
#include "clients/cli/progress.h"
#include "clients/cli/ranking.h"
#include "clients/cli/terminal_text.h"

namespace statehouse::cli {

class HotCounter final : public FollowSink {
 public:
  void Began() override { begun_ = true; }
  void Joined(const std::string& dict) override {}
  void Left(const std::string& dict, const std::string& why) override {
    std::fprintf(stderr, "dict \"%s\" is no longer watched: %s\n", Visible(dict).c_str(),
                 why.c_str());
  }
  bool Take(const std::string& dict, const sh_watch_event& event) override {
    if (!begun_) return false;  // Other dicts are still to come: no time is counted yet.
    if (event.kind == SH_WATCH_RESYNC) ++resyncs_;
    if (event.kind < SH_WATCH_PUT || event.kind > SH_WATCH_EVICT) return false;
    counts_.Count({dict, std::string(static_cast<const char*>(event.key.data), event.key.size)});
    progress_.Tell(std::to_string(counts_.total()) + " changes");
    return false;
  }

  const KeyCounts& counts() const { return counts_; }
  uint64_t resyncs() const { return resyncs_; }
  const Progress& progress() const { return progress_; }

 private:
  bool begun_ = false;
  KeyCounts counts_;
  Progress progress_;
  uint64_t resyncs_ = 0;
};

}  // namespace statehouse::cli
