#include "service/rpc/tls_files.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <unistd.h>

#include <cstring>
#include <ctime>
#include <memory>
#include <utility>
#include <vector>

#include "engine/base/freer.h"
#include "engine/os/unique_fd.h"

namespace statehouse {
namespace {

using Memory = std::unique_ptr<BIO, Freer<BIO_free>>;
using Certificate = std::unique_ptr<X509, Freer<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using Context = std::unique_ptr<SSL_CTX, Freer<SSL_CTX_free>>;

Status Wrong(const std::string& file, const std::string& what) {
  ERR_clear_error();
  return Status(Reason::kConfigInvalid, "TLS file \"" + file + "\": " + what);
}

// With what OpenSSL says of it: "ee key too small".
Status Refused(const std::string& file, const std::string& what) {
  const char* const reason = ERR_reason_error_string(ERR_peek_last_error());
  return Wrong(file, what + (reason == nullptr ? "" : std::string(": ") + reason));
}

StatusOr<std::string> ReadText(const std::string& path) {
  // A pipe in the place of the file holds nobody up.
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  std::string text;
  char buffer[16384];
  for (;;) {
    const ssize_t n = file.valid() ? ::read(file.get(), buffer, sizeof(buffer)) : -1;
    if (n < 0 && file.valid() && errno == EINTR) continue;
    if (n < 0) {
      return Wrong(path, std::string("it cannot be read (") + std::strerror(errno) +
                             "); check its path and permissions");
    }
    if (n == 0) return text;
    text.append(buffer, static_cast<size_t>(n));
    if (text.size() > kTlsFileBytesMax) return Wrong(path, "it is larger than 1 MiB");
  }
}

// Up to a zero byte, if there is one: gRPC, too, reads no further.
Memory MemoryOf(const std::string& text) { return Memory(BIO_new_mem_buf(text.c_str(), -1)); }

// At least one. One that is cut off or damaged is an error wherever it stands: what comes after it
// would be left out without a word.
StatusOr<std::vector<Certificate>> Certificates(const std::string& path, const std::string& text) {
  const Memory memory = MemoryOf(text);
  std::vector<Certificate> certificates;
  for (;;) {
    ERR_clear_error();
    Certificate next(PEM_read_bio_X509(memory.get(), nullptr, nullptr, nullptr));
    if (next == nullptr) break;
    certificates.push_back(std::move(next));
  }
  const unsigned long error = ERR_peek_last_error();
  const bool at_end =
      ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
  if (certificates.empty()) return Wrong(path, "it holds no certificate in PEM form");
  if (!at_end) {
    return Refused(path, "its certificate number " + std::to_string(certificates.size() + 1) +
                             " cannot be read");
  }
  ERR_clear_error();
  return certificates;
}

// A key with a passphrase is none: nobody is there to be asked.
int NoPassphrase(char*, int, int, void*) { return 0; }

// Whether a server can be set up with them: OpenSSL refuses a key that is too short, for example.
Status TryAsServer(const TlsFiles& files, const std::vector<Certificate>& chain, EVP_PKEY* key) {
  const Context context(SSL_CTX_new(TLS_server_method()));
  if (context == nullptr) return Refused(files.certificate_file, "TLS cannot be set up");
  if (SSL_CTX_use_certificate(context.get(), chain.front().get()) != 1) {
    return Refused(files.certificate_file, "its certificate cannot be used");
  }
  for (size_t i = 1; i < chain.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context.get(), chain[i].get()) != 1) {
      return Refused(files.certificate_file,
                     "its certificate number " + std::to_string(i + 1) + " cannot be used");
    }
  }
  if (SSL_CTX_use_PrivateKey(context.get(), key) != 1) {
    return Refused(files.key_file, "its key cannot be used");
  }
  return Status();
}

StatusOr<int64_t> UnixTime(const std::string& file, const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) {
    return Wrong(file, "its certificate does not say when it begins and ends");
  }
  return static_cast<int64_t>(timegm(&parts));
}

// When it ends.
StatusOr<int64_t> CheckTime(const std::string& file, const X509* certificate) {
  SH_ASSIGN_OR_RETURN(const int64_t begin, UnixTime(file, X509_get0_notBefore(certificate)));
  SH_ASSIGN_OR_RETURN(const int64_t end, UnixTime(file, X509_get0_notAfter(certificate)));
  const auto now = static_cast<int64_t>(std::time(nullptr));
  if (end <= now) {
    return Wrong(file, "the time of its certificate is over since " + TimeText(end) + "; renew it");
  }
  if (begin > now) {
    return Wrong(file, "the time of its certificate begins at " + TimeText(begin) +
                           "; clients refuse it until then");
  }
  return end;
}

}  // namespace

std::string TimeText(int64_t unix_s) {
  const auto time = static_cast<std::time_t>(unix_s);
  std::tm utc{};
  gmtime_r(&time, &utc);
  char text[32] = "";
  std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &utc);
  return text;
}

StatusOr<TlsTexts> ReadTlsFiles(const TlsFiles& files) {
  TlsTexts texts;
  SH_ASSIGN_OR_RETURN(texts.certificate, ReadText(files.certificate_file));
  SH_ASSIGN_OR_RETURN(texts.key, ReadText(files.key_file));
  if (files.client_ca_file.empty()) return texts;
  SH_ASSIGN_OR_RETURN(texts.client_ca, ReadText(files.client_ca_file));
  return texts;
}

StatusOr<int64_t> CheckTlsTexts(const TlsFiles& files, const TlsTexts& texts) {
  SH_ASSIGN_OR_RETURN(const std::vector<Certificate> chain,
                      Certificates(files.certificate_file, texts.certificate));
  const Memory key_memory = MemoryOf(texts.key);
  const Key key(PEM_read_bio_PrivateKey(key_memory.get(), nullptr, &NoPassphrase, nullptr));
  if (key == nullptr) {
    return Wrong(files.key_file, "it holds no private key in PEM form without a passphrase");
  }
  if (X509_check_private_key(chain.front().get(), key.get()) != 1) {
    return Wrong(files.key_file,
                 "it is not the key of the certificate in \"" + files.certificate_file + "\"");
  }
  SH_RETURN_IF_ERROR(TryAsServer(files, chain, key.get()));
  if (!files.client_ca_file.empty()) {
    SH_RETURN_IF_ERROR(Certificates(files.client_ca_file, texts.client_ca).status());
  }
  return CheckTime(files.certificate_file, chain.front().get());
}

Status CheckTlsFiles(const TlsFiles& files) {
  SH_ASSIGN_OR_RETURN(const TlsTexts texts, ReadTlsFiles(files));
  return CheckTlsTexts(files, texts).status();
}

}  // namespace statehouse
