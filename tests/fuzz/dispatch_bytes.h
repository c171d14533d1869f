// What must hold of any bytes that come as requests of any method.
//
// Who owns it: a test, or a fuzz target. Threads: one. Failure: where something does not hold it
// says what, and ends the process.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "service/api/api_test_support.h"

namespace statehouse::testing {

class DispatchBytes final {
 public:
  DispatchBytes();
  ~DispatchBytes();
  DispatchBytes(const DispatchBytes&) = delete;
  DispatchBytes& operator=(const DispatchBytes&) = delete;

  // Sends one request after the other to a service core that has an area "a", a dict "d" and a lock
  // "l". Of each there is a byte that chooses the method, and by its highest bit a caller who may
  // only read; two bytes, the low one first, are the length of the request, which ends with the
  // input at the latest. A session or token of 1 stands for the open session and the lock's token.
  // Waits are taken back as soon as they have begun; streams are open until the last request.
  // `thoroughly`: the lock space, which is large, is looked through too.
  void Run(std::string_view bytes, bool thoroughly);

  // Of each method a request that is taken, as Run takes it.
  std::vector<std::string> Seeds() const;
  // Of the last Run. How many requests were answered with OK, or were waits that had begun.
  int answered() const { return answered_; }
  // Streams that were begun, and messages that they had.
  int streams() const { return streams_begun_; }
  int messages() const { return messages_; }
  const Status& last_refusal() const { return last_refusal_; }

 private:
  struct State;
  struct OpenedStream {
    std::string method;
    std::string request;
    std::unique_ptr<ServedStream> stream;
  };

  void Reset();
  void Send(size_t method, bool may_write, std::string request);
  void SendUnary(const std::string& method, const CallContext& context, const std::string& request);
  void TakeRefusal(const Status& status, const std::string& method, const std::string& request);
  void OpenStream(const std::string& method, const CallContext& context,
                  const std::string& request);
  // Asks every open stream for its messages; one that has none, so many times.
  void PollStreams(int looks);
  // False when it is over.
  bool PollStream(const OpenedStream& opened, int looks);
  State StateNow();
  void CheckState(bool thoroughly);
  std::string WithRealIds(const std::string& method, std::string request) const;

  std::unique_ptr<TestService> service_;
  std::vector<std::string> methods_;
  std::shared_ptr<const Identity> writer_;
  std::shared_ptr<const Identity> reader_;
  std::vector<OpenedStream> streams_;
  uint64_t session_ = 0;
  uint64_t token_ = 0;
  int answered_ = 0;
  int streams_begun_ = 0;
  int messages_ = 0;
  Status last_refusal_;
};

}  // namespace statehouse::testing
