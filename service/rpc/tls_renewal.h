// TlsRenewal: the certificate, key and authorities that the network door's TLS uses, and new ones
// when their files have changed.
//
//   files ──► [read every 5 s] ──► [check] ── sound ──► in use from the next handshake
//                                     └── not, at two looks ──► told; the old ones stay
//
// At the start the old ones are those that an earlier daemon has kept, if it has.
//
// Who owns it: the door, which destroys it after gRPC's server. Threads: one of its own looks at
// the files; Credentials and its handshakes from any other, one at a time. Always true: what gRPC
// gets has passed CheckTlsTexts as a whole, byte for byte; the key is in memory only. Failure:
// files that cannot be read or do not fit change nothing. Once they are found so at two looks,
// `on_refused` is told; one look may fall between the two renames of a renewal. It holds until
// `on_taken` or `on_mended` is told.
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "engine/base/status.h"
#include "service/rpc/tls_files.h"

namespace statehouse {

inline constexpr std::chrono::milliseconds kTlsLookInterval{5'000};

struct TlsRenewalOptions {
  TlsFiles files;
  std::chrono::milliseconds look_interval = kTlsLookInterval;
  std::optional<TlsTexts> kept;  // Used where the files are wrong at the start.
  // On its own thread, and on the caller's of Start. Null: nobody wants to know. Times are when the
  // certificate in use ends, in seconds since 1970.
  std::function<void(const TlsTexts& texts, int64_t expiry_unix_s)> on_taken;
  std::function<void(const Status& why, int64_t expiry_unix_s)> on_refused;
  std::function<void()> on_mended;  // The files hold what is in use again.
};

class TlsRenewal final {
 public:
  // Errors: CONFIG_INVALID, of the files.
  static StatusOr<std::unique_ptr<TlsRenewal>> Start(TlsRenewalOptions options);
  ~TlsRenewal();
  TlsRenewal(const TlsRenewal&) = delete;
  TlsRenewal& operator=(const TlsRenewal&) = delete;

  // REQUIRES: one server uses them, whose connections are handed over by one thread: gRPC 1.51
  // guards the exchange of a certificate against no other handshake that begins.
  std::shared_ptr<grpc::ServerCredentials> Credentials();

 private:
  class ServerCredentials;

  TlsRenewal(TlsRenewalOptions options, TlsTexts texts, int64_t expiry_unix_s);
  void Run();
  void Look();
  // Of the texts on disk, that they are not taken.
  void Refuse(const Status& why, size_t fingerprint);

  const TlsRenewalOptions options_;
  std::mutex mutex_;  // Of what follows, up to thread_.
  std::condition_variable stopped_;
  bool stopping_ = false;
  TlsTexts in_use_;
  bool is_new_ = true;  // gRPC has not fetched in_use_ yet.

  // The thread's.
  int64_t expiry_unix_s_;
  std::string refused_;  // Why, at the last look; empty: they were in use.
  size_t refused_fingerprint_ = 0;
  bool refusal_told_ = false;  // This one.
  bool mending_owed_ = false;  // One was told since the last on_taken and on_mended.
  std::thread thread_;
};

}  // namespace statehouse
