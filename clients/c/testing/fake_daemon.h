// FakeDaemon: the daemon's side of the attach door, in this process, for unit tests of the local
// session: a real engine, and a thread that serves <temporary folder>/attach.sock.
//
// Threads: the test's thread calls everything. Failure: a set-up that fails ends the test program.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "engine/attach/protocol.h"
#include "engine/os/unique_fd.h"
#include "engine/state/engine.h"

namespace statehouse {

class FakeDaemon final {
 public:
  // Answers a call: serialized request in, serialized response out. Runs on the daemon's thread.
  using CallHandler =
      std::function<StatusOr<std::string>(const std::string& method, const std::string& request)>;

  explicit FakeDaemon(const EngineOptions& options = {});
  ~FakeDaemon();
  FakeDaemon(const FakeDaemon&) = delete;
  FakeDaemon& operator=(const FakeDaemon&) = delete;

  const std::string& runtime_dir() const { return runtime_dir_; }
  Engine& engine() { return *engine_; }
  void CreateArea(const std::string& name, uint64_t size);

  std::shared_ptr<ServedDict> CreateDict(const std::string& name,
                                         uint64_t max_entries = kDictEntriesDefault);
  // Moves the dict as the service does.
  void MoveDict(const std::string& name, DictStore::Move how);
  // From now on it is a service that knows nothing of what was made. REQUIRES: it does not serve.
  void LoseState();
  // How far the clock that it tells is ahead of this process's.
  void SetClockAhead(std::chrono::nanoseconds ahead) { clock_ahead_ns_ = ahead.count(); }

  // Connections that say Hello with another token are refused. Default: "".
  void RequireToken(const std::string& token);
  // Connections that ask for lanes are refused with this reason and "no lanes for this one".
  void RefuseLanes(Reason reason) { lanes_refusal_ = reason; }
  void OpenAreasReadOnly() { read_only_ = true; }
  void HandleCalls(CallHandler handler);
  // Drops the next answer and closes its connection instead, as a daemon does that is killed after
  // it carried a call out.
  void LoseNextAnswer() { lose_next_answer_ = true; }

  // Sends what is no packet in the place of the next answer.
  void GarbleNextAnswer() { garble_next_answer_ = true; }

  // Ends the thread, and with it every connection and the socket; the engine lives on, as it does
  // in the next daemon.
  void StopServing();
  void Serve();

  int hellos_with_lanes() const { return hellos_with_lanes_; }
  int hellos_without_lanes() const { return hellos_without_lanes_; }
  int opens() const { return opens_; }
  int dict_opens() const { return dict_opens_; }
  int calls() const { return calls_; }

 private:
  struct Connection {
    UniqueFd socket;
    bool greeted = false;
    uint32_t block = 0;  // 0: no lanes.
  };
  class Vault final : public DescriptorVault {
   public:
    Status Store(const std::string& name, int fd) override;
    Status Remove(const std::string& name) override;

   private:
    std::mutex mutex_;
    std::map<std::string, UniqueFd> stored_;
  };

  void Run();
  void Accept();
  // False when the connection is to be closed.
  bool HandlePacket(Connection* connection);
  AttachMessage Answer(Connection* connection, const AttachMessage& message, int received,
                       std::vector<UniqueFd>* descriptors);
  AttachMessage AnswerHello(Connection* connection, const AttachHello& hello, int pidfd,
                            std::vector<UniqueFd>* descriptors);
  AttachMessage AnswerOpen(const Connection& connection, const AttachOpenArea& open,
                           std::vector<UniqueFd>* descriptors);
  AttachMessage AnswerOpenDict(const Connection& connection, const AttachOpenDict& open,
                               std::vector<UniqueFd>* descriptors);
  AttachMessage AnswerCall(const AttachCall& call);

  std::string runtime_dir_;
  Vault vault_;
  std::unique_ptr<Engine> engine_;
  UniqueFd listener_;
  UniqueFd wake_;
  std::thread thread_;
  std::map<int, Connection> connections_;
  std::mutex mutex_;  // Guards token_ and handler_.
  std::string token_;
  CallHandler handler_;
  std::atomic<Reason> lanes_refusal_{Reason::kOk};
  std::atomic<bool> read_only_{false};
  std::atomic<bool> lose_next_answer_{false};
  std::atomic<bool> garble_next_answer_{false};
  std::atomic<int> hellos_with_lanes_{0};
  std::atomic<int> hellos_without_lanes_{0};
  std::atomic<int> opens_{0};
  std::atomic<int> dict_opens_{0};
  std::atomic<int64_t> clock_ahead_ns_{0};
  std::atomic<int> calls_{0};
};

}  // namespace statehouse
