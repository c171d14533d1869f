#include "service/dev_mode.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>

#include "engine/os/errno_status.h"
#include "service/auth/token_file.h"
#include "service/keeper/keeper_log.h"

namespace statehouse {
namespace {

constexpr const char* kFolderName = "dev-folder";  // In the vault.
constexpr const char* kTokenName = "dev-token";
constexpr const char* kTokenDescription = "made by statehoused --dev";

bool IsDefault(const Config& config, const std::string& key) {
  const auto origin = config.origins.find(key);
  return origin == config.origins.end() || origin->second == "default";
}

StatusOr<std::string> MakeFolder(DescriptorVault* vault) {
  const char* base = getenv("TMPDIR");
  std::string path =
      std::string(base != nullptr && *base != '\0' ? base : "/tmp") + "/statehouse-dev-XXXXXX";
  if (mkdtemp(path.data()) == nullptr) {
    return ErrnoStatus(
        "making a folder " + path + " for --dev (set TMPDIR to a folder that can be written)",
        Reason::kConfigInvalid);
  }
  UniqueFd folder(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid()) return ErrnoStatus("opening " + path);
  SH_RETURN_IF_ERROR(vault->Store(kFolderName, folder.get()));
  return path;
}

StatusOr<std::string> PathOf(int folder) {
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(folder), error);
  if (error)
    return Status(Reason::kInternal,
                  "finding the folder of --dev again failed: " + error.message());
  return path.string();
}

// Takes a descriptor out of what was inherited; invalid when it is not there.
UniqueFd Take(InheritedDescriptors* inherited, const char* name) {
  const auto found = inherited->find(name);
  if (found == inherited->end()) return UniqueFd();
  UniqueFd fd = std::move(found->second);
  inherited->erase(found);
  return fd;
}

// Those of services for development that could not do it.
Status RevokeLeftTokens(const std::string& tokens_file) {
  SH_ASSIGN_OR_RETURN(const std::vector<TokenRecord> records, ListTokens(tokens_file));
  for (const TokenRecord& record : records) {
    if (record.description != kTokenDescription) continue;
    SH_RETURN_IF_ERROR(RevokeToken(tokens_file, record.id));
  }
  return Status();
}

}  // namespace

StatusOr<DevMode> DevMode::Prepare(Config* config, InheritedDescriptors* inherited,
                                   DescriptorVault* vault) {
  DevMode dev;
  if (IsDefault(*config, "runtime_dir")) {
    const UniqueFd folder = Take(inherited, kFolderName);
    SH_ASSIGN_OR_RETURN(dev.folder_, folder.valid() ? PathOf(folder.get()) : MakeFolder(vault));
    config->runtime_dir = dev.folder_;
  }
  dev.owns_tokens_file_ = IsDefault(*config, "auth.tokens_file");
  if (dev.owns_tokens_file_) config->auth.tokens_file = config->runtime_dir + "/tokens.toml";
  if (IsDefault(*config, "network.listen")) config->network.listen = {"127.0.0.1:0"};
  if (IsDefault(*config, "http.listen")) config->http.listen = "127.0.0.1:0";
  return dev;
}

Status DevMode::TakeToken(const std::string& tokens_file, InheritedDescriptors* inherited,
                          DescriptorVault* vault) {
  tokens_file_ = tokens_file;
  const UniqueFd before = Take(inherited, kTokenName);
  if (before.valid()) {
    std::array<char, kTokenBytesMax> text;
    const ssize_t bytes = pread(before.get(), text.data(), text.size(), 0);
    if (bytes <= 0) return ErrnoStatus("reading the access token of the daemon before");
    token_.assign(text.data(), static_cast<size_t>(bytes));
    return Status();
  }
  // Of a file that others use, too, it is not known who made them.
  if (owns_tokens_file_) SH_RETURN_IF_ERROR(RevokeLeftTokens(tokens_file));
  TokenSpec spec;
  spec.description = kTokenDescription;
  for (const char* grant :
       {"area:*:read,write,create,watch,lock,admin", "dict:*:read,write,create,watch,lock,admin",
        "lock:*:read,lock,admin", "service:*:admin"}) {
    SH_ASSIGN_OR_RETURN(Grant parsed, ParseGrant(grant));
    spec.grants.push_back(std::move(parsed));
  }
  SH_ASSIGN_OR_RETURN(token_, CreateToken(tokens_file, spec));
  token_is_new_ = true;
  UniqueFd memory(memfd_create("statehouse-dev-token", MFD_CLOEXEC));
  if (!memory.valid() || pwrite(memory.get(), token_.data(), token_.size(), 0) !=
                             static_cast<ssize_t>(token_.size())) {
    return ErrnoStatus("keeping the access token of --dev");
  }
  return vault->Store(kTokenName, memory.get());
}

Status DevMode::Remove() const {
  TokenParts parts;
  if (folder_.empty() && SplitToken(token_, &parts)) return RevokeToken(tokens_file_, parts.id);
  if (folder_.empty()) return Status();
  std::error_code error;
  std::filesystem::remove_all(folder_, error);
  if (error)
    return Status(Reason::kInternal, "removing " + folder_ + " failed: " + error.message());
  return Status();
}

std::string DevHints(const DevEndpoints& e) {
  std::string text =
      "Statehouse runs for development. Everything goes away when it ends (Ctrl-C).\n\n";
  text += "  local    " + e.url + "\n";
  if (!e.tcp_url.empty()) text += "  network  " + e.tcp_url + "\n";
  if (!e.http.empty()) text += "  http     " + e.http + "/metrics\n";
  text += "  token    " + e.token + "\n\nIn another terminal, first:\n";
  text += "  export STATEHOUSE_URL='" + e.url + "' STATEHOUSE_TOKEN='" + e.token +
          "'\n\nThen one of:\n";
  text +=
      "  Python   python3 -c 'import statehouse; print(statehouse.connect().area(\"demo\", "
      "size=4096)"
      ".add_u64(0, 1))'\n";
  text +=
      "  C++      auto client = statehouse::client::Client::Connect();  // #include "
      "<statehouse/client.hpp>\n";
  text += "  CLI      statehouse status\n";
  if (!e.tcp_url.empty()) {
    const std::string address = e.tcp_url.substr(e.tcp_url.find("//") + 2);
    text += "  grpcurl  grpcurl -plaintext -H \"authorization: Bearer $STATEHOUSE_TOKEN\" " +
            address + " statehouse.v1.Admin/GetStatus\n";
  }
  return text;
}

std::string DevJson(const DevEndpoints& e) {
  const auto field = [](const char* name, const std::string& value) {
    return std::string("\"") + name + "\": \"" + JsonEscape(value) + "\"";
  };
  return "{" + field("url", e.url) + ", " + field("tcp_url", e.tcp_url) + ", " +
         field("token", e.token) + ", " + field("http", e.http) +
         ", \"pid\": " + std::to_string(e.pid) + "}\n";
}

}  // namespace statehouse
