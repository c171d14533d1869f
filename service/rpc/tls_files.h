// TlsFiles: the PEM files of the network door's TLS, and the credentials made of them.
//
// gRPC looks at the files every few seconds and uses what they hold for the connections from then
// on, so a certificate is renewed by replacing its files; where they do not fit each other, it goes
// on with what it has.
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <cstdint>
#include <memory>
#include <string>

#include "engine/base/status.h"

namespace statehouse {

struct TlsFiles {
  std::string certificate_file;  // The service's own, and those above it.
  std::string key_file;
  std::string client_ca_file;  // Set: clients need a certificate of one of these.

  bool enabled() const { return !certificate_file.empty(); }
};

// OK, or CONFIG_INVALID: what is wrong with which file. A certificate whose time is over is wrong.
Status CheckTlsFiles(const TlsFiles& files);

// REQUIRES: CheckTlsFiles is OK with them.
std::shared_ptr<grpc::ServerCredentials> TlsCredentials(const TlsFiles& files);

// When the certificate ends, in seconds since 1970. CONFIG_INVALID.
StatusOr<int64_t> CertificateExpiry(const std::string& certificate_file);

}  // namespace statehouse
