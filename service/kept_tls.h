// What TLS files held when the network door took them, in memory that the keeper holds: a daemon
// that is started after one that was killed goes on with it where the files are wrong by then.
//
// Threads: any. It goes with the keeper, as the state does; it is on no disk.
#pragma once

#include <optional>

#include "engine/state/descriptor_vault.h"
#include "service/listeners.h"
#include "service/rpc/tls_files.h"

namespace statehouse {

inline constexpr const char* kKeptTlsName = "tls";

// Instead of what was kept before.
Status KeepTls(const TlsFiles& files, const TlsTexts& texts, DescriptorVault* vault);

// What the daemon before has kept of these very files; taken out of `inherited` where it will do.
// Nothing where that was of others, or cannot be read.
std::optional<TlsTexts> TakeKeptTls(const TlsFiles& files, InheritedDescriptors* inherited);

}  // namespace statehouse
