// For tests of TLS: certificates that they make themselves, as PEM files of a folder.
#pragma once

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace statehouse {

inline std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

class TestFolder final {
 public:
  TestFolder() {
    char pattern[] = "/tmp/sh_tls_XXXXXX";
    path_ = ::mkdtemp(pattern);
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// When a certificate is good, in seconds from now.
struct TestTime {
  long end_s = 3600;  // Negative: it has been good for as long.
  long begin_s = end_s < 0 ? 2 * end_s : 0;
};

// Signs certificates for localhost and 127.0.0.1.
class TestAuthority final {
 public:
  // Its own certificate goes to `file`.
  explicit TestAuthority(const std::string& file) : key_(EVP_EC_gen("P-256")) {
    certificate_ = Make("authority", key_, TestTime{});
    X509V3_CTX context;
    X509V3_set_ctx(&context, certificate_, certificate_, nullptr, nullptr, 0);
    Extend(&context, certificate_, NID_basic_constraints, "critical,CA:TRUE");
    EXPECT_GT(X509_sign(certificate_, key_, EVP_sha256()), 0);
    WriteCertificate(certificate_, file);
  }
  ~TestAuthority() {
    X509_free(certificate_);
    EVP_PKEY_free(key_);
  }
  TestAuthority(const TestAuthority&) = delete;
  TestAuthority& operator=(const TestAuthority&) = delete;

  // A certificate and its key.
  void Issue(const std::string& certificate_file, const std::string& key_file,
             TestTime time = {}) const {
    Issue(certificate_file, key_file, time, EVP_EC_gen("P-256"));
  }
  void Issue(const std::string& certificate_file, const std::string& key_file, TestTime time,
             EVP_PKEY* key) const {
    X509* const certificate = Make("service", key, time);
    X509V3_CTX context;
    X509V3_set_ctx(&context, certificate_, certificate, nullptr, nullptr, 0);
    Extend(&context, certificate, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
    EXPECT_GT(X509_sign(certificate, key_, EVP_sha256()), 0);
    WriteCertificate(certificate, certificate_file);
    FILE* const file = std::fopen(key_file.c_str(), "w");
    EXPECT_EQ(PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr), 1);
    std::fclose(file);
    X509_free(certificate);
    EVP_PKEY_free(key);
  }

 private:
  X509* Make(const char* name, EVP_PKEY* key, TestTime time) const {
    X509* const certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial_);
    X509_gmtime_adj(X509_getm_notBefore(certificate), time.begin_s);
    X509_gmtime_adj(X509_getm_notAfter(certificate), time.end_s);
    X509_set_pubkey(certificate, key);
    X509_NAME* const subject = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name), -1, -1, 0);
    const bool is_own = certificate_ == nullptr;
    X509_set_issuer_name(certificate, is_own ? subject : X509_get_subject_name(certificate_));
    return certificate;
  }
  static void Extend(X509V3_CTX* context, X509* certificate, int kind, const char* value) {
    X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, context, kind, value);
    EXPECT_NE(extension, nullptr);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }
  static void WriteCertificate(X509* certificate, const std::string& path) {
    FILE* const file = std::fopen(path.c_str(), "w");
    EXPECT_EQ(PEM_write_X509(file, certificate), 1);
    std::fclose(file);
  }

  EVP_PKEY* const key_;
  X509* certificate_ = nullptr;
  mutable long serial_ = 0;
};

}  // namespace statehouse
