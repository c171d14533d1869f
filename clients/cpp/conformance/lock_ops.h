// The operations on locks of the C++ client's conformance program.
#pragma once

#include <future>
#include <list>
#include <map>
#include <optional>
#include <statehouse/client.hpp>
#include <string>

#include "flat_json.h"

// Other clients, and the locks that any of them took or waits for. Owned by the program. One
// thread, and one for each request that waits.
class LockOps final {
 public:
  explicit LockOps(statehouse::client::Options options) : options_(std::move(options)) {}
  ~LockOps() { Clear(); }
  LockOps(const LockOps&) = delete;
  LockOps& operator=(const LockOps&) = delete;

  // The answer as a line, or nothing for an operation that is none of these. `client` is the
  // program's own; null when there is none.
  std::optional<std::string> Do(statehouse::client::Client* client, const flat_json& in);
  // Gives every lock back, in the order in which they were asked for, and closes the other clients.
  void Clear();

 private:
  using Acquired = statehouse::client::Result<std::optional<statehouse::client::Lock>>;
  struct Handle {
    std::string label;
    std::future<Acquired> waiting;  // Of a request whose answer nobody took yet.
    std::optional<statehouse::client::Lock> lock;
    std::optional<std::stop_token> lost;
  };

  std::string Acquire(statehouse::client::Client& client, const flat_json& in);
  static std::string Finish(Handle& handle, Acquired acquired);
  static std::string DoHandle(const std::string& op, Handle& handle, const flat_json& in);
  std::optional<std::string> DoClient(const std::string& op, statehouse::client::Client& client,
                                      const flat_json& in);

  const statehouse::client::Options options_;
  std::map<std::string, statehouse::client::Client> clients_;
  std::list<Handle> handles_;  // In the order in which they were asked for.
};
