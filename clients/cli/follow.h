// Follower: the changes of every dict whose name begins with a prefix, or of one, on one thread.
//
// Dicts that are created later join, with the entries that they have by then; deleted ones leave.
// The service tells neither, so their list is read every second. A restart of the service is passed
// over as the watches themselves do.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "clients/cli/connection.h"

namespace statehouse::cli {

// What is told. `dict` is valid during the call.
class FollowSink {
 public:
  virtual ~FollowSink() = default;
  // Every dict of the beginning is followed, and what they had told meanwhile has been taken: the
  // time of Run counts from here.
  virtual void Began() {}
  // After the beginning.
  virtual void Joined(const std::string& dict) = 0;
  virtual void Left(const std::string& dict, const std::string& why) = 0;
  // True: this was enough.
  virtual bool Take(const std::string& dict, const sh_watch_event& event) = 0;
  // Nothing more is there for now.
  virtual void Rest() {}
};

struct FollowOptions {
  std::string prefix;               // Of the dicts' names; empty: all.
  std::optional<std::string> only;  // One dict, which must be there.
  uint32_t kinds = 0;               // As sh_watch_options has it.
  bool keys_only = false;
};

class Follower final {
 public:
  Follower(const Globals& globals, const FollowOptions& options, FollowSink* sink);
  ~Follower();
  // Until the sink has enough, the one dict is gone, or for so long after Began. The time from
  // Began to the end; 0 where it did not come to that. Throws Failed.
  std::chrono::duration<double> Run(std::optional<std::chrono::milliseconds> duration);

 private:
  struct Followed;
  struct Closer {
    void operator()(Followed* followed) const;
  };
  using FollowedPtr = std::unique_ptr<Followed, Closer>;
  using Dicts = std::map<uint32_t, FollowedPtr>;  // By index: a name may come again.

  void Look(bool later);
  void Join(uint32_t index, const std::string& name, bool later);
  bool Drain(Dicts::iterator at, bool* gone);
  bool DrainAll();
  bool HasBegun(std::chrono::steady_clock::time_point now);
  void Await(std::chrono::steady_clock::time_point until);

  const Globals& globals_;
  const FollowOptions options_;
  FollowSink* const sink_;
  Client client_;
  Dicts dicts_;
  size_t unsynced_ = 0;  // Dicts of the beginning that are not followed yet.
  bool rested_ = false;  // The last DrainAll left nothing of any dict.
  std::optional<std::chrono::steady_clock::time_point> synced_;  // When unsynced_ was 0 first.
  std::optional<std::chrono::steady_clock::time_point> begun_;
  bool away_ = false;  // It was said that the list cannot be read.
};

}  // namespace statehouse::cli
