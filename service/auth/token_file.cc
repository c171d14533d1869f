#include "service/auth/token_file.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <optional>
#include <unordered_set>
#include <utility>

#include "engine/base/limits.h"
#include "service/config/toml_parser.h"
#include "service/config/toml_text.h"

namespace statehouse {
namespace {

constexpr std::string_view kIdAlphabet = "abcdefghijkmnpqrstuvwxyz23456789";  // 32, none alike.
constexpr std::string_view kBase64Url =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
static_assert(kIdAlphabet.size() == 32);

Status FileError(const std::string& path, std::string_view what) {
  return Status(Reason::kBackingInvalid,
                "tokens file " + path + ": " + std::string(what) + ": " + std::strerror(errno));
}

// Closes a descriptor at the end of its scope. (engine/os has one, which the CLI does not link.)
class Descriptor final {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

// The whole file, or nothing where there is none.
StatusOr<std::optional<std::string>> ReadWhole(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) {
    if (errno == ENOENT) return std::optional<std::string>();
    return FileError(path, "cannot be opened");
  }
  std::string text;
  char buffer[16384];
  for (;;) {
    const ssize_t n = ::read(file.get(), buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(path, "cannot be read");
    if (n == 0) return std::optional<std::string>(std::move(text));
    text.append(buffer, static_cast<size_t>(n));
    if (text.size() > kTokensFileBytesMax) {
      return Status(Reason::kConfigInvalid, "tokens file " + path + ": larger than 4 MiB");
    }
  }
}

bool WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    text.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

// Puts `text` in the file's place: a reader sees the old file or the new one.
Status ReplaceFile(const std::string& path, std::string_view text) {
  const std::string temporary = path + ".tmp";  // One writer at a time: the caller holds the lock.
  {
    const Descriptor file(
        ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (file.get() < 0) return FileError(temporary, "cannot be created");
    if (::fchmod(file.get(), 0600) != 0 || !WriteAll(file.get(), text) ||
        ::fsync(file.get()) != 0) {
      const Status status = FileError(temporary, "cannot be written");
      ::unlink(temporary.c_str());
      return status;
    }
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const Status status = FileError(path, "cannot be replaced");
    ::unlink(temporary.c_str());
    return status;
  }
  return Status();
}

// Names the place of a node in the file.
class FileReader final {
 public:
  explicit FileReader(std::string_view file_name) : file_name_(file_name) {}

  Status Refuse(const toml::source_region& where, std::string_view why) const {
    return Status(Reason::kConfigInvalid, file_name_ + ":" + std::to_string(where.begin.line) +
                                              ":" + std::to_string(where.begin.column) + ": " +
                                              std::string(why));
  }

  // A string of at most `bytes_max` bytes.
  StatusOr<std::string> Text(const toml::node& node, std::string_view key, size_t bytes_max) const {
    const auto* text = node.as_string();
    if (text == nullptr) return Refuse(node.source(), std::string(key) + " must be a string");
    if (text->get().size() > bytes_max) {
      return Refuse(node.source(),
                    std::string(key) + " is longer than " + std::to_string(bytes_max) + " bytes");
    }
    return text->get();
  }

  StatusOr<uint32_t> Number(const toml::node& node, const toml::key& key, uint32_t max) const {
    const auto* const number = node.as_integer();
    if (number == nullptr || number->get() < 0 || number->get() > max) {
      return Refuse(node.source(), std::string(key.str()) + " must be a number from 0 to " +
                                       std::to_string(max) + "; 0: no limit");
    }
    return static_cast<uint32_t>(number->get());
  }

  StatusOr<TokenHash> Hash(const toml::node& node) const {
    SH_ASSIGN_OR_RETURN(const std::string hex, Text(node, "hash", 64));
    TokenHash hash{};
    const auto digit = [](char c) {
      if (c >= '0' && c <= '9') return c - '0';
      if (c >= 'a' && c <= 'f') return c - 'a' + 10;
      if (c >= 'A' && c <= 'F') return c - 'A' + 10;
      return -1;
    };
    bool valid = hex.size() == 64;
    for (size_t i = 0; valid && i < hash.size(); ++i) {
      const int high = digit(hex[2 * i]);
      const int low = digit(hex[2 * i + 1]);
      valid = high >= 0 && low >= 0;
      hash[i] = static_cast<unsigned char>(high << 4 | (low & 15));
    }
    if (!valid) return Refuse(node.source(), "hash must be the 64 hex digits of a SHA-256");
    return hash;
  }

  // As a TOML date-time with an offset, or as a string.
  StatusOr<int64_t> Expiry(const toml::node& node) const {
    std::string text;
    if (const auto* date = node.as_date_time()) {
      if (!date->get().offset) {
        return Refuse(node.source(), "expires needs an offset, such as the Z at its end");
      }
      const toml::date_time& when = date->get();
      const int minutes = when.offset->minutes;
      char buffer[64];
      std::snprintf(buffer, sizeof(buffer), "%04d-%02d-%02dT%02d:%02d:%02d%c%02d:%02d",
                    static_cast<int>(when.date.year), static_cast<int>(when.date.month),
                    static_cast<int>(when.date.day), static_cast<int>(when.time.hour),
                    static_cast<int>(when.time.minute), static_cast<int>(when.time.second),
                    minutes < 0 ? '-' : '+', std::abs(minutes) / 60, std::abs(minutes) % 60);
      text = buffer;
    } else {
      SH_ASSIGN_OR_RETURN(text, Text(node, "expires", 64));
    }
    StatusOr<int64_t> when = ParseTimestamp(text);
    if (!when.ok()) return Refuse(node.source(), "expires: " + when.status().message());
    if (*when == 0) return Refuse(node.source(), "expires: the time must lie after 1970");
    return when;
  }

  StatusOr<Grant> OneGrant(const toml::node& node) const {
    const auto* table = node.as_table();
    if (table == nullptr) {
      return Refuse(node.source(),
                    "a grant is a table: {kind = \"area\", pattern = \"*\", verbs = [\"read\"]}");
    }
    std::string kind;
    std::string pattern;
    std::string verbs;
    for (const auto& [key, value] : *table) {
      if (key == "kind") {
        SH_ASSIGN_OR_RETURN(kind, Text(value, "kind", 16));
      } else if (key == "pattern") {
        SH_ASSIGN_OR_RETURN(pattern, Text(value, "pattern", kNameBytesMax));
      } else if (key == "verbs") {
        const auto* array = value.as_array();
        if (array == nullptr) return Refuse(value.source(), "verbs must be an array of strings");
        for (const toml::node& verb : *array) {
          SH_ASSIGN_OR_RETURN(const std::string word, Text(verb, "a verb", 16));
          if (word.find_first_of(",:") != std::string::npos) {
            return Refuse(verb.source(), "write each verb as a string of its own");
          }
          verbs.append(verbs.empty() ? "" : ",").append(word);
        }
      } else {
        return Refuse(value.source(), "unknown key \"" + std::string(key.str()) +
                                          "\"; a grant has kind, pattern and verbs");
      }
    }
    StatusOr<Grant> grant = ParseGrant(kind + ":" + pattern + ":" + verbs);
    if (!grant.ok()) return Refuse(node.source(), grant.status().message());
    return grant;
  }

  StatusOr<std::vector<Grant>> Grants(const toml::node& node) const {
    const auto* array = node.as_array();
    if (array == nullptr) return Refuse(node.source(), "grants must be an array of tables");
    if (array->size() > kTokenGrantsMax) {
      return Refuse(node.source(), "more than 100 grants in one token");
    }
    std::vector<Grant> grants;
    for (const toml::node& entry : *array) {
      SH_ASSIGN_OR_RETURN(Grant grant, OneGrant(entry));
      grants.push_back(std::move(grant));
    }
    return grants;
  }

  StatusOr<TokenRecord> OneToken(const toml::node& node) const {
    const auto* table = node.as_table();
    if (table == nullptr) return Refuse(node.source(), "token must be [[token]] tables");
    TokenRecord record;
    bool has_hash = false;
    for (const auto& [key, value] : *table) {
      if (key == "id") {
        SH_ASSIGN_OR_RETURN(record.id, Text(value, "id", kTokenIdBytes));
      } else if (key == "hash") {
        SH_ASSIGN_OR_RETURN(record.hash, Hash(value));
        has_hash = true;
      } else if (key == "description") {
        SH_ASSIGN_OR_RETURN(record.description,
                            Text(value, "description", kTokenDescriptionBytesMax));
      } else if (key == "expires") {
        SH_ASSIGN_OR_RETURN(record.expires_unix_s, Expiry(value));
      } else if (key == "grants") {
        SH_ASSIGN_OR_RETURN(record.grants, Grants(value));
      } else if (key == "calls_per_second") {
        SH_ASSIGN_OR_RETURN(record.calls_per_second, Number(value, key, kCallsPerSecondMax));
      } else if (key == "calls_at_once") {
        SH_ASSIGN_OR_RETURN(record.calls_at_once, Number(value, key, kCallsAtOnceMax));
      } else {
        return Refuse(value.source(), "unknown key \"" + std::string(key.str()) +
                                          "\"; a token has id, hash, description, expires, "
                                          "grants, calls_per_second and calls_at_once");
      }
    }
    if (record.id.size() != kTokenIdBytes) {
      return Refuse(node.source(), "token: id is missing or has not 8 characters");
    }
    if (!has_hash) return Refuse(node.source(), "token " + record.id + ": hash is missing");
    return record;
  }

 private:
  const std::string file_name_;
};

std::string FormatEntry(const TokenRecord& record) {
  std::string text = "[[token]]\nid = " + QuoteToml(record.id) + "\nhash = \"";
  for (const unsigned char byte : record.hash) {
    char hex[3];
    std::snprintf(hex, sizeof(hex), "%02x", byte);
    text.append(hex);
  }
  text.append("\"\n");
  if (!record.description.empty()) {
    text.append("description = ").append(QuoteToml(record.description)).append("\n");
  }
  if (record.expires_unix_s != 0) {
    text.append("expires = ").append(FormatTimestamp(record.expires_unix_s)).append("\n");
  }
  const auto append_number = [&text](const char* key, const std::optional<uint32_t>& number) {
    if (number) text.append(key).append(" = ").append(std::to_string(*number)).append("\n");
  };
  append_number("calls_per_second", record.calls_per_second);
  append_number("calls_at_once", record.calls_at_once);
  text.append("grants = [\n");
  for (const Grant& grant : record.grants) {
    text.append("  {kind = ").append(QuoteToml(ObjectKindName(grant.kind)));
    text.append(", pattern = ").append(QuoteToml(grant.pattern)).append(", verbs = [");
    const std::string formatted = FormatGrant(grant);
    std::string_view verbs = std::string_view(formatted).substr(formatted.rfind(':') + 1);
    for (bool first = true;; first = false) {
      const size_t comma = verbs.find(',');
      text.append(first ? "" : ", ").append(QuoteToml(verbs.substr(0, comma)));
      if (comma == std::string_view::npos) break;
      verbs.remove_prefix(comma + 1);
    }
    text.append("]},\n");
  }
  return text.append("]\n");
}

// `count` random characters; false when the random source failed.
bool RandomText(std::string_view alphabet, size_t count, std::string* out) {
  std::string bytes(count, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(count)) != 1) {
    return false;
  }
  for (const char c : bytes) {
    out->append(1, alphabet[static_cast<unsigned char>(c) % alphabet.size()]);
  }
  return true;
}

// 32 random bytes as 43 characters of base64url.
bool RandomSecret(std::string* out) {
  unsigned char bytes[kTokenSecretBytes];
  if (RAND_bytes(bytes, sizeof(bytes)) != 1) return false;
  uint32_t bits = 0;
  int count = 0;
  for (const unsigned char byte : bytes) {
    bits = bits << 8 | byte;
    for (count += 8; count >= 6; count -= 6) {
      out->append(1, kBase64Url[bits >> (count - 6) & 63]);
    }
  }
  out->append(1, kBase64Url[bits << (6 - count) & 63]);
  return true;
}

Status CheckSpec(const TokenSpec& spec) {
  const auto refuse = [](std::string_view why) {
    return Status(Reason::kInvalidArgument, "new token: " + std::string(why));
  };
  if (spec.grants.empty()) return refuse("it needs at least one grant, or it could do nothing");
  if (spec.grants.size() > kTokenGrantsMax) return refuse("it has more than 100 grants");
  if (spec.description.size() > kTokenDescriptionBytesMax) {
    return refuse("its description is longer than 256 bytes");
  }
  if (spec.expires_unix_s < 0) return refuse("its expiry lies before 1970");
  if (spec.calls_per_second.value_or(0) > kCallsPerSecondMax) {
    return refuse("calls_per_second is more than " + std::to_string(kCallsPerSecondMax));
  }
  if (spec.calls_at_once.value_or(0) > kCallsAtOnceMax) {
    return refuse("calls_at_once is more than " + std::to_string(kCallsAtOnceMax));
  }
  for (const Grant& grant : spec.grants) {
    SH_ASSIGN_OR_RETURN(const Grant parsed, ParseGrant(FormatGrant(grant)));
    if (parsed.pattern != grant.pattern || parsed.verbs != grant.verbs) {
      return refuse("the grant \"" + FormatGrant(grant) + "\" is malformed");
    }
  }
  return Status();
}

// Removes the lines of entry `index`; comments before the next entry stay with that one.
std::string WithoutEntry(const std::string& text, const std::vector<size_t>& entry_lines,
                         size_t index) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    const size_t next = end == std::string::npos ? text.size() : end + 1;
    lines.push_back(text.substr(begin, next - begin));
    begin = next;
  }
  const size_t first = entry_lines[index] - 1;
  size_t last = index + 1 < entry_lines.size() ? entry_lines[index + 1] - 1 : lines.size();
  const auto is_comment = [&lines](size_t line) {
    const size_t mark = lines[line].find_first_not_of(" \t\r\n");
    return mark == std::string::npos || lines[line][mark] == '#';
  };
  if (index + 1 < entry_lines.size()) {
    while (last > first + 1 && is_comment(last - 1)) --last;
  }
  std::string kept;
  for (size_t line = 0; line < lines.size(); ++line) {
    if (line < first || line >= last) kept.append(lines[line]);
  }
  return kept;
}

// The line on which each [[token]] stands.
std::vector<size_t> EntryLines(std::string_view text) {
  std::vector<size_t> lines;
  const toml::parse_result parsed = toml::parse(text);
  if (!parsed) return lines;
  const toml::table& root = parsed.table();
  if (const toml::array* tokens = root["token"].as_array()) {
    for (const toml::node& node : *tokens) lines.push_back(node.source().begin.line);
  }
  return lines;
}

}  // namespace

StatusOr<std::vector<TokenRecord>> ParseTokens(std::string_view text, std::string_view file_name) {
  const FileReader reader(file_name);
  const toml::parse_result parsed = toml::parse(text, file_name);
  if (!parsed) return reader.Refuse(parsed.error().source(), parsed.error().description());
  const toml::table& root = parsed.table();
  std::vector<TokenRecord> records;
  std::unordered_set<std::string> ids;
  for (const auto& [key, value] : root) {
    if (key != "token") {
      return reader.Refuse(value.source(), "unknown key \"" + std::string(key.str()) +
                                               "\"; the file holds [[token]] tables only");
    }
    const auto* tokens = value.as_array();
    if (tokens == nullptr) return reader.Refuse(value.source(), "write [[token]], not [token]");
    if (tokens->size() > kTokensMax) {
      return reader.Refuse(value.source(), "more than 10,000 tokens in one file");
    }
    for (const toml::node& node : *tokens) {
      SH_ASSIGN_OR_RETURN(TokenRecord record, reader.OneToken(node));
      if (!ids.insert(record.id).second) {
        return reader.Refuse(node.source(), "token " + record.id + " stands twice in the file");
      }
      records.push_back(std::move(record));
    }
  }
  return records;
}

StatusOr<std::vector<TokenRecord>> ListTokens(const std::string& path) {
  SH_ASSIGN_OR_RETURN(const std::optional<std::string> text, ReadWhole(path));
  if (!text) return std::vector<TokenRecord>();
  return ParseTokens(*text, path);
}

StatusOr<std::string> CreateToken(const std::string& path, const TokenSpec& spec) {
  SH_RETURN_IF_ERROR(CheckSpec(spec));
  const Descriptor lock(
      ::open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (lock.get() < 0 || ::flock(lock.get(), LOCK_EX) != 0) {
    return FileError(path + ".lock", "cannot be locked");
  }
  SH_ASSIGN_OR_RETURN(std::optional<std::string> text, ReadWhole(path));
  if (!text) text = "# Access tokens of Statehouse. Only hashes stand here.\n";
  SH_ASSIGN_OR_RETURN(const std::vector<TokenRecord> before, ParseTokens(*text, path));
  if (before.size() >= kTokensMax) {
    return Status(Reason::kLimitExceeded, "tokens file " + path + ": it holds 10,000 tokens");
  }

  TokenRecord record;
  std::string secret;
  bool taken = true;
  while (taken) {
    record.id.clear();
    if (!RandomText(kIdAlphabet, kTokenIdBytes, &record.id)) {
      return Status(Reason::kInternal, "new token: the random source of OpenSSL failed");
    }
    taken = false;
    for (const TokenRecord& other : before) taken = taken || other.id == record.id;
  }
  if (!RandomSecret(&secret)) {
    return Status(Reason::kInternal, "new token: the random source of OpenSSL failed");
  }
  record.hash = HashSecret(secret);
  record.description = spec.description;
  record.expires_unix_s = spec.expires_unix_s;
  record.grants = spec.grants;
  record.calls_per_second = spec.calls_per_second;
  record.calls_at_once = spec.calls_at_once;
  if (!text->empty() && text->back() != '\n') text->append("\n");
  text->append("\n").append(FormatEntry(record));
  // An entry that the reader would refuse (a description that is no UTF-8) must not spoil the file.
  SH_RETURN_IF_ERROR(ParseTokens(*text, path).status());
  SH_RETURN_IF_ERROR(ReplaceFile(path, *text));
  return "sh1_" + record.id + "_" + secret;
}

Status RevokeToken(const std::string& path, std::string_view id) {
  const Descriptor lock(
      ::open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (lock.get() < 0 || ::flock(lock.get(), LOCK_EX) != 0) {
    return FileError(path + ".lock", "cannot be locked");
  }
  SH_ASSIGN_OR_RETURN(const std::optional<std::string> text, ReadWhole(path));
  SH_ASSIGN_OR_RETURN(const std::vector<TokenRecord> before, ParseTokens(text.value_or(""), path));
  size_t index = 0;
  while (index < before.size() && before[index].id != id) ++index;
  if (index == before.size()) {
    return Status(Reason::kInvalidArgument, "tokens file " + path + ": no token has the id \"" +
                                                std::string(id.substr(0, 64)) + "\"");
  }
  const std::vector<size_t> entry_lines = EntryLines(*text);
  const std::string after_text = WithoutEntry(*text, entry_lines, index);
  StatusOr<std::vector<TokenRecord>> after = ParseTokens(after_text, path);
  // Cutting lines is right for [[token]] entries that follow each other. Where someone wrote the
  // file in another shape, the result differs, and nothing is changed.
  bool others_stay = after.ok() && after->size() + 1 == before.size();
  for (size_t i = 0; others_stay && i < after->size(); ++i) {
    others_stay = (*after)[i].id == before[i < index ? i : i + 1].id;
  }
  if (!others_stay) {
    return Status(Reason::kConfigInvalid,
                  path + ":" + std::to_string(entry_lines[index]) + ": token " + std::string(id) +
                      " does not stand in a [[token]] table of its own; remove it with an editor");
  }
  return ReplaceFile(path, after_text);
}

}  // namespace statehouse
