// RequestSequence: valid requests, one after the other, against a whole service core; after each
// one the dict is sound and the answer, and every byte of the area, is what a model says. Now and
// then the lock space, which is large, is looked through too, and every entry compared with the
// model's.
//
// Who owns it: a test, or a fuzz target; it makes GoogleTest's assertions. Threads: one. Always
// true: the same choices give the same requests.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "service/api/dict_verbs_test_support.h"

namespace statehouse {

class RequestSequence final {
 public:
  // `below(n)` chooses a number below n. The objects that it works on are its own, and gone with
  // it.
  RequestSequence(TestService* service, std::function<uint64_t(uint64_t)> below);
  ~RequestSequence();
  RequestSequence(const RequestSequence&) = delete;
  RequestSequence& operator=(const RequestSequence&) = delete;
  void Step();
  // What must be true whenever no request is under way; `thoroughly`: all of it.
  void CheckAll(bool thoroughly);

 private:
  static constexpr uint64_t kAreaBytes = 160;
  static constexpr int kKeys = 40;
  static constexpr uint64_t kEntriesMax = 64;
  static constexpr uint64_t kLocks = 4;

  std::string Key() { return "k" + std::to_string(below_(kKeys)); }
  uint64_t WordAt(uint64_t pos) const;
  void SetWord(uint64_t pos, uint64_t word);

  void SetOne();
  void DeleteOne();
  void IncrementOne();
  void Transact();
  void Batch();
  void DeletePrefix();
  void ClearDict();
  void AddToWord();
  void ExchangeWord();
  void WriteBytes();
  void FillBytes();
  void LockOrUnlock();
  void CheckEntries();
  void CheckArea();

  TestService& service_;
  const std::function<uint64_t(uint64_t)> below_;
  std::shared_ptr<ServedArea> area_;
  std::map<std::string, int64_t> model_;
  std::string bytes_ = std::string(kAreaBytes, '\0');  // Of the area.
  std::map<std::string, uint64_t> tokens_;
  std::map<std::string, uint64_t> last_tokens_;
  uint64_t session_ = 0;
  uint64_t requests_ = 0;
  uint64_t sequence_ = 0;
  uint64_t updates_ = 0;  // Of the area, at least.
};

}  // namespace statehouse
