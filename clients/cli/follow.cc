#include "clients/cli/follow.h"

#include <poll.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <set>
#include <utility>
#include <vector>

#include "clients/cli/dict_call.h"

namespace statehouse::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kLookInterval{1};
// Changes that had piled up by the beginning are taken before it, for so long at most: some dict
// may always have more.
constexpr std::chrono::seconds kCatchUpMax{1};
constexpr int kEventsAtOnce = 1000;  // Of one dict, before the others have their turn.

// Each watch has a descriptor.
void AllowManyDescriptors() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  // Where it is refused the old limit stands, and a watch beyond it is refused with a message.
  (void)setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

struct Follower::Followed {
  std::string name;
  sh_dict* dict = nullptr;
  sh_watch* watch = nullptr;
  bool awaited = false;  // It is counted in unsynced_.
};

void Follower::Closer::operator()(Followed* followed) const {
  sh_watch_close(followed->watch);
  sh_dict_close(followed->dict);
  delete followed;
}

Follower::Follower(const Globals& globals, const FollowOptions& options, FollowSink* sink)
    : globals_(globals), options_(options), sink_(sink) {}

Follower::~Follower() = default;

void Follower::Join(uint32_t index, const std::string& name, bool later) {
  FollowedPtr followed(new Followed{.name = name});
  sh_error* error = nullptr;
  const std::string by_index = "#" + std::to_string(index);
  sh_reason reason =
      sh_dict_open(client_.get(), by_index.c_str(), nullptr, &followed->dict, &error);
  if (reason == SH_DICT_NOT_FOUND) return sh_error_free(error);  // It is gone again.
  Check(reason, error);
  sh_watch_options options{};
  options.kinds = options_.kinds;
  options.keys_only = options_.keys_only ? 1 : 0;
  options.skip_snapshot = later ? 0 : 1;
  Check(sh_dict_watch(followed->dict, &options, &followed->watch, &error), error);
  followed->awaited = !later;
  if (!later) ++unsynced_;
  dicts_.emplace(index, std::move(followed));
  if (later) sink_->Joined(name);
}

void Follower::Look(bool later) {
  std::vector<std::pair<uint32_t, std::string>> found;
  try {
    if (options_.only.has_value()) {
      v1::DescribeDictRequest request;
      request.set_name(*options_.only);
      const auto response =
          CallDicts<v1::DescribeDictResponse>(client_.get(), "DescribeDict", request);
      found.emplace_back(response.dict().index(), response.dict().name());
    } else {
      v1::ListDictsRequest request;
      request.set_prefix(options_.prefix);
      do {
        const auto page = CallDicts<v1::ListDictsResponse>(client_.get(), "ListDicts", request);
        for (const v1::Dict& dict : page.dicts()) found.emplace_back(dict.index(), dict.name());
        request.set_page_token(page.next_page_token());
      } while (!request.page_token().empty());
    }
    away_ = false;
  } catch (const Failed& failed) {
    // The watches wait for the service by themselves; a list that was never read is another matter.
    if (!later || failed.exit_code != kExitUnavailable) throw;
    if (!std::exchange(away_, true)) {
      std::fprintf(stderr, "statehouse: %s; waiting for the service\n", failed.message.c_str());
    }
    return;
  }
  for (const auto& [index, name] : found) {
    if (!dicts_.contains(index)) Join(index, name, later);
  }
}

// False where the sink has enough. `*gone`: the dict has left.
bool Follower::Drain(Dicts::iterator at, bool* gone) {
  Followed& followed = *at->second;
  for (int i = 0; i < kEventsAtOnce; ++i) {
    sh_watch_event event{};
    sh_error* error = nullptr;
    const sh_reason reason = sh_watch_next(followed.watch, 0, &event, &error);
    if (reason == SH_DICT_NOT_FOUND || reason == SH_PERMISSION_DENIED) {
      sh_error_free(error);
      *gone = true;
      if (followed.awaited) --unsynced_;
      sink_->Left(followed.name,
                  reason == SH_DICT_NOT_FOUND ? "deleted" : "the token may not read it");
      return true;
    }
    Check(reason, error);
    if (event.kind == SH_WATCH_NONE) return true;
    if (event.kind == SH_WATCH_SYNCED && std::exchange(followed.awaited, false)) --unsynced_;
    if (sink_->Take(followed.name, event)) return false;
  }
  rested_ = false;
  return true;
}

bool Follower::DrainAll() {
  rested_ = true;
  for (auto at = dicts_.begin(); at != dicts_.end();) {
    bool gone = false;
    if (!Drain(at, &gone)) return false;
    at = gone ? dicts_.erase(at) : std::next(at);
  }
  sink_->Rest();
  return true;
}

void Follower::Await(Clock::time_point until) {
  std::vector<pollfd> entries;
  for (const auto& [index, followed] : dicts_) {
    entries.push_back({sh_watch_fd(followed->watch), POLLIN, 0});
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
  const int got =
      poll(entries.data(), entries.size(), static_cast<int>(std::max<int64_t>(left, 0)));
  if (got < 0 && errno != EINTR) throw Failed{kExitError, "waiting for changes failed"};
}

bool Follower::HasBegun(Clock::time_point now) {
  if (begun_.has_value()) return true;
  if (unsynced_ != 0) return false;
  if (!synced_.has_value()) synced_ = now;
  if (!rested_ && now < *synced_ + kCatchUpMax) return false;
  begun_ = now;
  sink_->Began();
  return true;
}

std::chrono::duration<double> Follower::Run(std::optional<std::chrono::milliseconds> duration) {
  AllowManyDescriptors();
  client_ = ConnectForEntries(globals_);
  Look(false);
  auto next_look = Clock::now() + kLookInterval;
  std::optional<Clock::time_point> until;
  const auto passed = [this](Clock::time_point now) {
    return begun_.has_value() ? now - *begun_ : Clock::duration::zero();
  };
  for (;;) {
    if (!DrainAll()) return passed(Clock::now());
    const auto now = Clock::now();
    if (HasBegun(now) && duration.has_value()) until = *begun_ + *duration;
    if (until.has_value() && now >= *until) return passed(now);
    if (now >= next_look) {
      if (options_.only.has_value() && dicts_.empty()) return passed(now);
      if (!options_.only.has_value()) Look(true);
      next_look = Clock::now() + kLookInterval;
    }
    Await(until.has_value() ? std::min(*until, next_look) : next_look);
  }
}

}  // namespace statehouse::cli
