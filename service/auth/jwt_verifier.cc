#include "service/auth/jwt_verifier.h"

#include <jwt.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "service/auth/token_file.h"

namespace statehouse {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kPemBegin = "-----BEGIN PUBLIC KEY-----";
constexpr std::string_view kPemEnd = "-----END PUBLIC KEY-----";
// What a token may do, as `statehouse token create --grant` takes it.
constexpr const char* kGrantsClaim = "statehouse_grants";
constexpr size_t kDigestBytes = 8;

Status RefuseFile(const JwtOptions& options, const std::string& why) {
  return Status(Reason::kConfigInvalid, "auth.jwt_key_file " + options.key_file + ": " + why);
}

Status RefuseToken(const std::string& why) {
  return Status(Reason::kUnauthenticated, "access token (JWT): " + why);
}

// The begin of its SHA-256, in hex.
std::string DigestOf(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  const TokenHash hash = HashSecret(text);
  std::string digest;
  for (size_t i = 0; i < kDigestBytes; ++i) {
    digest += kHex[hash[i] >> 4];
    digest += kHex[hash[i] & 15];
  }
  return digest;
}

std::string HolderIdOf(const std::string& subject) {
  std::string id(kJwtHolderPrefix);
  if (id.size() + subject.size() <= kJwtHolderIdBytesMax) return id + subject;
  const std::string end = "~" + DigestOf(subject);
  return id + subject.substr(0, kJwtHolderIdBytesMax - id.size() - end.size()) + end;
}

bool IsSymmetric(std::string_view algorithm) { return algorithm.starts_with("HS"); }

// Why a public key cannot be one of the algorithm's; empty: it can.
std::string RefuseKey(const std::string& pem, std::string_view algorithm) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> source(
      BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), &BIO_free);
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
      PEM_read_bio_PUBKEY(source.get(), nullptr, nullptr, nullptr), &EVP_PKEY_free);
  if (key == nullptr) return "a key in it cannot be read";
  const bool is_rsa = EVP_PKEY_base_id(key.get()) == EVP_PKEY_RSA;
  const bool is_ec = EVP_PKEY_base_id(key.get()) == EVP_PKEY_EC;
  if (algorithm.starts_with("RS")) {
    if (!is_rsa) return "a key in it is not one of RSA, which auth.jwt_algorithm asks for";
    if (EVP_PKEY_bits(key.get()) < kJwtRsaBitsMin) {
      return "a key of RSA has less than " + std::to_string(kJwtRsaBitsMin) + " bits";
    }
    return "";
  }
  if (!is_ec) return "a key in it is not of an elliptic curve, which auth.jwt_algorithm asks for";
  const int bits = algorithm == "ES256" ? 256 : algorithm == "ES384" ? 384 : 521;
  if (EVP_PKEY_bits(key.get()) != bits) {
    return "a key's curve is not the one of " + std::string(algorithm);
  }
  return "";
}

// One line of printable characters that a log can hold.
bool IsSubject(std::string_view text) {
  return !text.empty() && text.size() <= kJwtSubjectBytesMax &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || std::strchr("._@:/-+", c) != nullptr;
         });
}

struct JwtFree {
  void operator()(jwt_t* jwt) const { jwt_free(jwt); }
};
struct TextFree {
  void operator()(char* text) const { std::free(text); }  // NOLINT: libjwt gives it so.
};

// A number of seconds; false where it is none.
bool SecondsOf(const Json& claims, const char* name, int64_t* seconds) {
  const auto found = claims.find(name);
  if (found == claims.end() || !found->is_number()) return false;
  const double value = found->get<double>();
  if (!(value >= 0 && value < 1e12)) return false;
  *seconds = static_cast<int64_t>(value);
  return true;
}

bool HoldsAudience(const Json& claims, const std::string& audience) {
  const auto found = claims.find("aud");
  if (found == claims.end()) return false;
  if (found->is_array()) return std::find(found->begin(), found->end(), audience) != found->end();
  return *found == audience;
}

}  // namespace

bool LooksLikeJwt(std::string_view token) {
  // `{"` in base64url.
  return token.starts_with("eyJ") && std::count(token.begin(), token.end(), '.') == 2;
}

StatusOr<std::unique_ptr<JwtVerifier>> JwtVerifier::Load(const JwtOptions& options) {
  struct stat facts {};
  std::ifstream file(options.key_file, std::ios::binary);
  if (!file || ::stat(options.key_file.c_str(), &facts) != 0) {
    return RefuseFile(options, std::string("it cannot be read: ") + std::strerror(errno));
  }
  if (IsSymmetric(options.algorithm) && (facts.st_mode & S_IRWXO) != 0) {
    return RefuseFile(options, "everybody can read the secret in it; chmod o= it");
  }
  std::string text(kJwtKeyFileBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) return RefuseFile(options, "it cannot be read");
  text.resize(static_cast<size_t>(file.gcount()));
  return FromText(options, text);
}

StatusOr<std::unique_ptr<JwtVerifier>> JwtVerifier::FromText(const JwtOptions& options,
                                                             std::string_view text) {
  if (text.size() > kJwtKeyFileBytesMax) {
    return RefuseFile(options, "longer than " + std::to_string(kJwtKeyFileBytesMax) + " bytes");
  }
  std::vector<Key> keys;
  if (IsSymmetric(options.algorithm)) {
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
    // Whoever has the public key could sign with it.
    if (text.find("-----BEGIN") != std::string_view::npos) {
      return RefuseFile(options, "it holds a key in PEM, and " + options.algorithm +
                                     " of auth.jwt_algorithm takes a secret");
    }
    if (text.size() < kJwtSecretBytesMin) {
      return RefuseFile(options, "a secret has at least " + std::to_string(kJwtSecretBytesMin) +
                                     " bytes (openssl rand -hex 32)");
    }
    keys.push_back({std::string(text), DigestOf(text)});
  }
  for (size_t at = 0; !IsSymmetric(options.algorithm);) {
    const size_t begin = text.find(kPemBegin, at);
    if (begin == std::string_view::npos) break;
    const size_t end = text.find(kPemEnd, begin);
    if (end == std::string_view::npos) return RefuseFile(options, "a key in it has no end");
    at = end + kPemEnd.size();
    std::string pem(text.substr(begin, at - begin));
    pem += '\n';
    const std::string why = RefuseKey(pem, options.algorithm);
    if (!why.empty()) return RefuseFile(options, why);
    if (keys.size() == kJwtKeysMax) {
      return RefuseFile(options, "more than " + std::to_string(kJwtKeysMax) + " keys");
    }
    std::string id = DigestOf(pem);
    keys.push_back({std::move(pem), std::move(id)});
  }
  if (keys.empty()) {
    return RefuseFile(options, "it has no public key (PEM, \"BEGIN PUBLIC KEY\")");
  }
  return std::unique_ptr<JwtVerifier>(new JwtVerifier(options, std::move(keys)));
}

bool JwtVerifier::HasKey(std::string_view key_id) const {
  return std::any_of(keys_.begin(), keys_.end(), [&](const Key& key) { return key.id == key_id; });
}

StatusOr<JwtClaims> JwtVerifier::Verify(const std::string& token, int64_t now_unix_s) const {
  for (const Key& key : keys_) {
    jwt_t* decoded = nullptr;
    const int error =
        jwt_decode(&decoded, token.c_str(), reinterpret_cast<const unsigned char*>(key.text.data()),
                   static_cast<int>(key.text.size()));
    const std::unique_ptr<jwt_t, JwtFree> jwt(decoded);
    // The token names its algorithm itself: with another one a public key would be taken for a
    // secret, or "none" for a signature.
    if (error != 0 || jwt == nullptr || jwt_get_alg(jwt.get()) == JWT_ALG_NONE ||
        jwt_alg_str(jwt_get_alg(jwt.get())) != options_.algorithm) {
      continue;
    }
    // What it may not be accepted without (RFC 7515, 4.1.11): none of it is known here.
    const std::unique_ptr<char, TextFree> critical(jwt_get_headers_json(jwt.get(), "crit"));
    if (critical != nullptr) return RefuseToken("its header has crit");
    const std::unique_ptr<char, TextFree> json(jwt_get_grants_json(jwt.get(), nullptr));
    if (json == nullptr) return RefuseToken("it has no claims");
    SH_ASSIGN_OR_RETURN(JwtClaims claims, ReadClaims(json.get(), now_unix_s));
    claims.key_id = key.id;
    return claims;
  }
  return RefuseToken("no key of auth.jwt_key_file signed it with " + options_.algorithm +
                     ", or its header has a typ that is not JWT");
}

StatusOr<JwtClaims> JwtVerifier::ReadClaims(std::string_view text, int64_t now_unix_s) const {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return RefuseToken("its claims are no object");
  JwtClaims claims;
  if (!SecondsOf(json, "exp", &claims.expires_unix_s) || claims.expires_unix_s == 0) {
    return RefuseToken("it has no end (exp)");
  }
  if (now_unix_s >= claims.expires_unix_s) {
    return Status(Reason::kTokenExpired, "access token (JWT): its time is over; ask for a new one");
  }
  if (claims.expires_unix_s - now_unix_s > options_.lifetime_s_max) {
    return RefuseToken("it ends in more than " + std::to_string(options_.lifetime_s_max) +
                       " s (auth.jwt_lifetime_s_max)");
  }
  for (const char* const name : {"nbf", "iat"}) {
    int64_t begins = 0;
    if (!json.contains(name)) continue;
    if (!SecondsOf(json, name, &begins) || begins > now_unix_s + kJwtClockSkewS) {
      return RefuseToken(std::string("its time has not come (") + name + ")");
    }
  }
  if (!options_.issuer.empty() && json.value("iss", Json()) != options_.issuer) {
    return RefuseToken("its issuer (iss) is not auth.jwt_issuer");
  }
  if (!HoldsAudience(json, options_.audience)) {
    return RefuseToken("it is for somebody else: its audience (aud) lacks auth.jwt_audience");
  }
  const Json subject = json.value("sub", Json());
  if (!subject.is_string() || !IsSubject(subject.get_ref<const std::string&>())) {
    return RefuseToken("its subject (sub) must be 1 to " + std::to_string(kJwtSubjectBytesMax) +
                       " characters of A-Z, a-z, 0-9 and ._@:/-+");
  }
  claims.subject = subject.get<std::string>();
  claims.holder_id = HolderIdOf(claims.subject);
  const Json grants = json.value(kGrantsClaim, Json());
  if (!grants.is_array() || grants.empty() || grants.size() > kTokenGrantsMax) {
    return RefuseToken(std::string(kGrantsClaim) + " must be a list of 1 to " +
                       std::to_string(kTokenGrantsMax) + " grants, such as \"dict:web/*:read\"");
  }
  for (const Json& grant : grants) {
    if (!grant.is_string()) return RefuseToken(std::string(kGrantsClaim) + " must hold texts");
    StatusOr<Grant> parsed = ParseGrant(grant.get_ref<const std::string&>());
    if (!parsed.ok()) return RefuseToken(parsed.status().message());
    claims.grants.push_back(*std::move(parsed));
  }
  return claims;
}

}  // namespace statehouse
