#include "service/rpc/tls_renewal.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/grpc_security_constants.h>

#include <functional>
#include <utility>

#include "service/rpc/door_thread.h"

namespace statehouse {
namespace {

size_t FingerprintOf(const TlsTexts& texts) {
  const std::hash<std::string> hash;
  return hash(texts.certificate) * 31 * 31 + hash(texts.key) * 31 + hash(texts.client_ca);
}

grpc_ssl_server_certificate_config* ConfigOf(const TlsTexts& texts) {
  const grpc_ssl_pem_key_cert_pair pair = {texts.key.c_str(), texts.certificate.c_str()};
  // Builds of gRPC with assertions want authorities also where no client is asked for a
  // certificate; nothing is checked against these then.
  const std::string& authorities = texts.client_ca.empty() ? texts.certificate : texts.client_ca;
  return grpc_ssl_server_certificate_config_create(authorities.c_str(), &pair, 1);
}

}  // namespace

// gRPC's C++ interface has no credentials that ask for a certificate at each handshake, its C
// interface has.
class TlsRenewal::ServerCredentials final : public grpc::ServerCredentials {
 public:
  explicit ServerCredentials(TlsRenewal* renewal)
      : credentials_(grpc_ssl_server_credentials_create_with_options(
            grpc_ssl_server_credentials_create_options_using_config_fetcher(
                renewal->options_.files.client_ca_file.empty()
                    ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                    : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY,
                &Fetch, renewal))) {}
  ~ServerCredentials() override { grpc_server_credentials_release(credentials_); }

  // Nobody has one: access tokens are looked at call by call.
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  static grpc_ssl_certificate_config_reload_status Fetch(
      void* renewal, grpc_ssl_server_certificate_config** config) {
    auto& self = *static_cast<TlsRenewal*>(renewal);
    const std::lock_guard<std::mutex> lock(self.mutex_);
    if (!std::exchange(self.is_new_, false)) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    *config = ConfigOf(self.in_use_);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  grpc_server_credentials* const credentials_;
};

StatusOr<std::unique_ptr<TlsRenewal>> TlsRenewal::Start(TlsRenewalOptions options) {
  TlsTexts texts;
  StatusOr<TlsTexts> found = ReadTlsFiles(options.files);
  StatusOr<int64_t> expiry = found.ok() ? CheckTlsTexts(options.files, *found) : found.status();
  Status refused;
  if (expiry.ok()) {
    texts = *std::move(found);
  } else {
    refused = expiry.status();
    if (options.kept.has_value()) expiry = CheckTlsTexts(options.files, *options.kept);
    if (!expiry.ok()) return refused;
    texts = *std::move(options.kept);
  }
  if (options.on_taken) options.on_taken(texts, *expiry);
  std::unique_ptr<TlsRenewal> renewal(
      new TlsRenewal(std::move(options), std::move(texts), *expiry));
  if (!refused.ok()) {
    // Told at once, and not again by the looks that find the same.
    const size_t fingerprint = found.ok() ? FingerprintOf(*found) : 0;
    renewal->Refuse(refused, fingerprint);
    renewal->Refuse(refused, fingerprint);
  }
  renewal->thread_ = std::thread([raw = renewal.get()] { raw->Run(); });
  return renewal;
}

TlsRenewal::TlsRenewal(TlsRenewalOptions options, TlsTexts texts, int64_t expiry_unix_s)
    : options_(std::move(options)), in_use_(std::move(texts)), expiry_unix_s_(expiry_unix_s) {}

TlsRenewal::~TlsRenewal() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  stopped_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<grpc::ServerCredentials> TlsRenewal::Credentials() {
  return std::make_shared<ServerCredentials>(this);
}

void TlsRenewal::Run() {
  (void)BeginDoorThread("sh-tls", /*raise_priority=*/false);
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopped_.wait_for(lock, options_.look_interval, [this] { return stopping_; })) {
    lock.unlock();
    Look();
    lock.lock();
  }
}

void TlsRenewal::Look() {
  StatusOr<TlsTexts> texts = ReadTlsFiles(options_.files);
  if (!texts.ok()) return Refuse(texts.status(), 0);
  bool is_in_use = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_in_use = *texts == in_use_;
  }
  if (!is_in_use) {
    // Also what has not changed since the last look: the time of a certificate may have come.
    const StatusOr<int64_t> expiry = CheckTlsTexts(options_.files, *texts);
    if (!expiry.ok()) return Refuse(expiry.status(), FingerprintOf(*texts));
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      in_use_ = *std::move(texts);
      is_new_ = true;
    }
    expiry_unix_s_ = *expiry;
    // Nobody but this thread changes what is in use.
    if (options_.on_taken) options_.on_taken(in_use_, expiry_unix_s_);
  } else if (mending_owed_ && options_.on_mended) {
    options_.on_mended();
  }
  mending_owed_ = false;
  refused_.clear();
}

void TlsRenewal::Refuse(const Status& why, size_t fingerprint) {
  const bool is_known = why.message() == refused_ && fingerprint == refused_fingerprint_;
  if (!is_known) {
    refused_ = why.message();
    refused_fingerprint_ = fingerprint;
    refusal_told_ = false;
    return;
  }
  if (std::exchange(refusal_told_, true)) return;
  mending_owed_ = true;
  if (options_.on_refused) options_.on_refused(why, expiry_unix_s_);
}

}  // namespace statehouse
