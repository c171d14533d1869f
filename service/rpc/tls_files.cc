#include "service/rpc/tls_files.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>

namespace statehouse {
namespace {

constexpr unsigned kLookSeconds = 5;

struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
struct FreeCertificate {
  void operator()(X509* certificate) const { X509_free(certificate); }
};
struct FreeKey {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using File = std::unique_ptr<BIO, FreeBio>;
using Certificate = std::unique_ptr<X509, FreeCertificate>;
using Key = std::unique_ptr<EVP_PKEY, FreeKey>;

Status Wrong(const std::string& file, const std::string& what) {
  ERR_clear_error();
  return Status(Reason::kConfigInvalid, "TLS file \"" + file + "\": " + what);
}

StatusOr<File> OpenFile(const std::string& path) {
  File file(BIO_new_file(path.c_str(), "r"));
  if (file == nullptr) {
    return Wrong(path, "it cannot be read; check its path and permissions");
  }
  return file;
}

StatusOr<Certificate> ReadCertificate(const std::string& path) {
  SH_ASSIGN_OR_RETURN(const File file, OpenFile(path));
  Certificate certificate(PEM_read_bio_X509(file.get(), nullptr, nullptr, nullptr));
  if (certificate == nullptr) return Wrong(path, "it holds no certificate in PEM form");
  return certificate;
}

// A key with a passphrase is none: nobody is there to be asked.
int NoPassphrase(char*, int, int, void*) { return 0; }

}  // namespace

StatusOr<int64_t> CertificateExpiry(const std::string& certificate_file) {
  SH_ASSIGN_OR_RETURN(const Certificate certificate, ReadCertificate(certificate_file));
  std::tm end{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate.get()), &end) != 1) {
    return Wrong(certificate_file, "its certificate does not say when it ends");
  }
  return static_cast<int64_t>(timegm(&end));
}

Status CheckTlsFiles(const TlsFiles& files) {
  SH_ASSIGN_OR_RETURN(const Certificate certificate, ReadCertificate(files.certificate_file));
  SH_ASSIGN_OR_RETURN(const File key_file, OpenFile(files.key_file));
  const Key key(PEM_read_bio_PrivateKey(key_file.get(), nullptr, &NoPassphrase, nullptr));
  if (key == nullptr) {
    return Wrong(files.key_file, "it holds no private key in PEM form without a passphrase");
  }
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    return Wrong(files.key_file,
                 "it is not the key of the certificate in \"" + files.certificate_file + "\"");
  }
  SH_ASSIGN_OR_RETURN(const int64_t expiry, CertificateExpiry(files.certificate_file));
  if (expiry <= static_cast<int64_t>(std::time(nullptr))) {
    return Wrong(files.certificate_file, "the time of its certificate is over; renew it");
  }
  if (files.client_ca_file.empty()) return Status();
  return ReadCertificate(files.client_ca_file).status();
}

std::shared_ptr<grpc::ServerCredentials> TlsCredentials(const TlsFiles& files) {
  using grpc::experimental::FileWatcherCertificateProvider;
  const auto provider = std::make_shared<FileWatcherCertificateProvider>(
      files.key_file, files.certificate_file, files.client_ca_file, kLookSeconds);
  grpc::experimental::TlsServerCredentialsOptions options(provider);
  options.watch_identity_key_cert_pairs();
  if (!files.client_ca_file.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

}  // namespace statehouse
