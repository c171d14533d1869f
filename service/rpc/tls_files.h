// TlsFiles: the PEM files of the network door's TLS, what they hold, and whether it will do.
//
// Threads: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/base/status.h"

namespace statehouse {

struct TlsFiles {
  std::string certificate_file;  // The service's own, and those above it.
  std::string key_file;
  std::string client_ca_file;  // Set: clients need a certificate of one of these.

  bool enabled() const { return !certificate_file.empty(); }
};

// Of each file. A host's whole list of authorities has about 220 KiB.
inline constexpr size_t kTlsFileBytesMax = 1 << 20;

// What the files held when they were read, one after the other.
struct TlsTexts {
  std::string certificate;
  std::string key;
  std::string client_ca;  // Empty where there is no such file.

  bool operator==(const TlsTexts&) const = default;
};

// CONFIG_INVALID: which file, and why it cannot be read.
StatusOr<TlsTexts> ReadTlsFiles(const TlsFiles& files);

// When the certificate ends, in seconds since 1970, of texts that fit each other and that a server
// can begin with now; or CONFIG_INVALID: what is wrong with which file. A certificate whose time is
// over, or has not come, is wrong.
StatusOr<int64_t> CheckTlsTexts(const TlsFiles& files, const TlsTexts& texts);

// Both.
Status CheckTlsFiles(const TlsFiles& files);

// "2026-11-30 22:05:30 UTC".
std::string TimeText(int64_t unix_s);

}  // namespace statehouse
