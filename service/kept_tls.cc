#include "service/kept_tls.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <string>
#include <string_view>
#include <utility>

#include "engine/os/errno_status.h"
#include "engine/os/unique_fd.h"

namespace statehouse {
namespace {

// Three paths and three files, each with its length before it.
constexpr off_t kBytesMax = 4 * static_cast<off_t>(kTlsFileBytesMax);

std::string Encode(const TlsFiles& files, const TlsTexts& texts) {
  std::string bytes;
  for (const std::string* part : {&files.certificate_file, &files.key_file, &files.client_ca_file,
                                  &texts.certificate, &texts.key, &texts.client_ca}) {
    bytes += std::to_string(part->size()) + "\n" + *part;
  }
  return bytes;
}

std::optional<std::string> TakePart(std::string_view* bytes) {
  size_t length = 0;
  const auto [end, error] = std::from_chars(bytes->data(), bytes->data() + bytes->size(), length);
  const auto digits = static_cast<size_t>(end - bytes->data());
  if (error != std::errc() || digits >= bytes->size() || *end != '\n') return std::nullopt;
  bytes->remove_prefix(digits + 1);
  if (length > bytes->size()) return std::nullopt;
  std::string part(bytes->substr(0, length));
  bytes->remove_prefix(length);
  return part;
}

std::optional<TlsTexts> Decode(const TlsFiles& files, std::string_view bytes) {
  std::array<std::string, 6> parts;
  for (std::string& part : parts) {
    std::optional<std::string> next = TakePart(&bytes);
    if (!next.has_value()) return std::nullopt;
    part = *std::move(next);
  }
  if (!bytes.empty() || parts[0] != files.certificate_file || parts[1] != files.key_file ||
      parts[2] != files.client_ca_file) {
    return std::nullopt;
  }
  return TlsTexts{std::move(parts[3]), std::move(parts[4]), std::move(parts[5])};
}

}  // namespace

Status KeepTls(const TlsFiles& files, const TlsTexts& texts, DescriptorVault* vault) {
  const std::string bytes = Encode(files, texts);
  const UniqueFd memory(memfd_create("statehouse-tls", MFD_CLOEXEC));
  if (!memory.valid() || fchmod(memory.get(), 0600) != 0 ||
      pwrite(memory.get(), bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    return ErrnoStatus("keeping the TLS files for the next daemon");
  }
  return vault->Store(kKeptTlsName, memory.get());
}

std::optional<TlsTexts> TakeKeptTls(const TlsFiles& files, InheritedDescriptors* inherited) {
  const auto found = inherited->find(kKeptTlsName);
  struct stat facts {};
  if (found == inherited->end() || fstat(found->second.get(), &facts) != 0 || facts.st_size <= 0 ||
      facts.st_size > kBytesMax) {
    return std::nullopt;
  }
  std::string bytes(static_cast<size_t>(facts.st_size), '\0');
  const ssize_t read = pread(found->second.get(), bytes.data(), bytes.size(), 0);
  if (read != static_cast<ssize_t>(bytes.size())) return std::nullopt;
  std::optional<TlsTexts> texts = Decode(files, bytes);
  if (texts.has_value()) inherited->erase(found);
  return texts;
}

}  // namespace statehouse
