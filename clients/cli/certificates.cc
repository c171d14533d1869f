// When certificates end: of a TLS server as it shows it, and of a PEM text.
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>

#include <cerrno>
#include <chrono>
#include <ctime>
#include <memory>

#include "clients/cli/doctor.h"
#include "clients/cli/sockets.h"
#include "engine/base/freer.h"

namespace statehouse::cli {
namespace {

constexpr int64_t kDay = 86'400;
constexpr int64_t kSoonDays = 14;

using Context = std::unique_ptr<SSL_CTX, Freer<SSL_CTX_free>>;
using Session = std::unique_ptr<SSL, Freer<SSL_free>>;
using Certificate = std::unique_ptr<X509, Freer<X509_free>>;
using Memory = std::unique_ptr<BIO, Freer<BIO_free>>;

// OpenSSL writes to sockets as to files, so one whose other end is closed sends SIGPIPE, which ends
// a program that did not ask for it. As long as this object is there the calling thread gets EPIPE
// only; elsewhere the signal stays as it is, for who pipes our output into `head`.
class PipeSignalBlock final {
 public:
  PipeSignalBlock() {
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &signals_, &before_);
  }
  ~PipeSignalBlock() {
    // Ours came to this thread, and is taken before it can be delivered.
    const timespec now{};
    while (!was_pending_ && sigtimedwait(&signals_, nullptr, &now) < 0 && errno == EINTR) continue;
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  PipeSignalBlock(const PipeSignalBlock&) = delete;
  PipeSignalBlock& operator=(const PipeSignalBlock&) = delete;

 private:
  sigset_t signals_{};
  sigset_t before_{};
  bool was_pending_ = false;
};

CertificateFacts FactsOf(X509* certificate) {
  CertificateFacts facts;
  std::tm end{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) != 1) {
    facts.error = "the certificate does not say when it ends";
    return facts;
  }
  facts.expires_unix_s = static_cast<int64_t>(timegm(&end));
  char name[256] = "";
  X509_NAME_oneline(X509_get_subject_name(certificate), name, sizeof name);
  facts.subject = name;
  return facts;
}

// Shakes hands as far as the server shows its certificate, whatever comes afterwards: it may want
// one of ours.
Certificate Handshake(SSL* session, int fd, std::chrono::steady_clock::time_point deadline) {
  for (;;) {
    const int done = SSL_connect(session);
    if (Certificate shown(SSL_get1_peer_certificate(session)); shown != nullptr) return shown;
    if (done == 1) return nullptr;
    const int want = SSL_get_error(session, done);
    if (want != SSL_ERROR_WANT_READ && want != SSL_ERROR_WANT_WRITE) return nullptr;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd entry = {fd, static_cast<short>(want == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT), 0};
    if (left.count() <= 0 || poll(&entry, 1, static_cast<int>(left.count())) <= 0) return nullptr;
  }
}

}  // namespace

CertificateFacts CertificateOfServer(const std::string& address, uint64_t timeout_ms) {
  CertificateFacts facts;
  const PipeSignalBlock no_pipe_signal;  // Destroyed after the session.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  const StatusOr<UniqueFd> fd = ConnectTcp(address, timeout_ms);
  if (!fd.ok()) {
    facts.error = fd.status().message();
    return facts;
  }
  const Context context(SSL_CTX_new(TLS_client_method()));
  const Session session(context == nullptr ? nullptr : SSL_new(context.get()));
  if (session == nullptr || SSL_set_fd(session.get(), fd->get()) != 1) {
    facts.error = "TLS cannot be set up in this process";
    ERR_clear_error();
    return facts;
  }
  // gRPC's servers speak to nobody else. Its length comes first.
  static constexpr unsigned char kAlpn[] = {2, 'h', '2'};
  SSL_set_alpn_protos(session.get(), kAlpn, sizeof kAlpn);
  const Certificate shown = Handshake(session.get(), fd->get(), deadline);
  ERR_clear_error();
  if (shown == nullptr) {
    facts.error = address + " showed no certificate";
    return facts;
  }
  return FactsOf(shown.get());
}

CertificateFacts CertificateOfPem(const std::string& pem) {
  const Memory memory(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  const Certificate read(
      memory == nullptr ? nullptr : PEM_read_bio_X509(memory.get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  if (read == nullptr) return {.error = "it is no certificate in PEM form"};
  return FactsOf(read.get());
}

Finding CheckCertificate(const std::string& check, const CertificateFacts& facts,
                         int64_t now_unix_s) {
  Finding finding{.check = check, .why = "when its time is over every TLS connection is refused"};
  if (!facts.expires_unix_s.has_value()) {
    finding.verdict = Verdict::kUnknown;
    finding.found = "its end is not known: " + facts.error;
    return finding;
  }
  const int64_t left = *facts.expires_unix_s - now_unix_s;
  const std::string days = std::to_string((left < 0 ? -left : left) / kDay) + " days";
  finding.found = facts.subject + (left > 0 ? " ends in " + days : " ended " + days + " ago");
  if (left > kSoonDays * kDay) return finding;
  finding.verdict = left > 0 ? Verdict::kWarning : Verdict::kProblem;
  finding.fix = check == "client-certificate"
                    ? "renew the file that certificate_file names"
                    : "rename a renewed certificate and key into place; the service takes them "
                      "within seconds, without a restart, or its log says why not";
  return finding;
}

}  // namespace statehouse::cli
