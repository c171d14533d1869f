// --dev: a service to try things with: a private folder that goes away with it, free ports, an
// access token for everything, and the lines to paste.
#pragma once

#include <string>
#include <vector>

#include "engine/state/engine.h"
#include "service/config/config.h"
#include "service/listeners.h"

namespace statehouse {

// What the hints tell.
struct DevEndpoints {
  std::string url;      // "statehouse+unix:///tmp/statehouse-dev-x"
  std::string tcp_url;  // "statehouse://127.0.0.1:41234"; empty without TCP.
  std::string http;     // "http://127.0.0.1:41235"; empty without HTTP.
  std::string token;
  int pid = 0;  // Whom to send SIGTERM.
};

// The folder and the token outlive a daemon in the keeper, so that a restarted daemon goes on with
// the same. Threads: one. Always true: Remove leaves neither the folder, if it was made here, nor
// the token's entry; a first daemon removes the entries of services on its folder that were killed.
class DevMode final {
 public:
  // Sets what the operator has not set: folder, tokens file and ports.
  static StatusOr<DevMode> Prepare(Config* config, InheritedDescriptors* inherited,
                                   DescriptorVault* vault);
  // The access token: of the daemon before, or a new one in `tokens_file`.
  Status TakeToken(const std::string& tokens_file, InheritedDescriptors* inherited,
                   DescriptorVault* vault);

  const std::string& token() const { return token_; }
  // Whether this is the first daemon, which prints the hints.
  bool token_is_new() const { return token_is_new_; }
  // What the service leaves when it ends.
  Status Remove() const;

 private:
  std::string folder_;       // Empty: the operator named one, which stays.
  std::string tokens_file_;  // That has the token.
  bool owns_tokens_file_ = false;
  std::string token_;
  bool token_is_new_ = false;
};

// What goes to stdout, and what goes to dev.json.
std::string DevHints(const DevEndpoints& endpoints);
std::string DevJson(const DevEndpoints& endpoints);

}  // namespace statehouse
