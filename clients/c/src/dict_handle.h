// What stands behind sh_dict, sh_entry, sh_entries and sh_cursor, and how the C interface's
// structures become the engine's terms.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "clients/c/src/client_handle.h"
#include "clients/c/src/local_dict.h"
#include "clients/c/src/network_dict.h"
#include "statehouse/dict.h"

// `local` is set through the local door; what binds entries goes by calls there, too.
struct sh_dict {
  std::string name;
  std::shared_ptr<statehouse::LocalDict> local;
  std::unique_ptr<statehouse::NetworkDict> network;
  std::shared_ptr<statehouse::ClientLocks> locks;  // Has the session that entries are bound to.
  std::shared_ptr<statehouse::ClientWatches> watches;
};

struct sh_entry_memory {
  statehouse::LocalValue value;
};

struct sh_entries_memory {
  std::vector<sh_entry> items;
  std::deque<std::string> bytes;  // What the items point to; stays where it is while it grows.
};

struct sh_cursor_memory {
  statehouse::LocalDictCursor local;
  std::string page_token;
};

namespace statehouse {

// OK unless the handle is NULL.
Status CheckDict(const sh_dict* dict);
// For errors and sh_dict_name.
inline const char* NameOf(const sh_dict* dict) { return dict == nullptr ? "" : dict->name.c_str(); }

// Arguments. INVALID_ARGUMENT for NULL with a size, and for enumerators that are none;
// VALUE_INVALID for bytes that are no value.
StatusOr<std::string_view> ToKey(sh_bytes key);
StatusOr<std::string_view> ToBytes(sh_bytes bytes, const char* what);
StatusOr<DictValue> ToValue(sh_bytes value, const char* what);
StatusOr<DictCondition> ToCondition(const sh_condition& condition);
DictTtl ToTtl(uint64_t ttl_ms);
StatusOr<std::vector<PathStep>> ToPath(const sh_path_step* path, size_t steps);
// `bind_session` is 0 or kOwnSession, which stands for the client's session.
inline constexpr uint64_t kOwnSession = UINT64_MAX;
StatusOr<DictSetOptions> ToSetOptions(const sh_write_options* options);
StatusOr<DictDeleteOptions> ToDeleteOptions(const sh_write_options* options);
// Everything but the path.
StatusOr<DictIncrement> ToIncrement(sh_number delta, const sh_increment_options& options);
sh_number FromBits(DictKind kind, uint64_t bits);
// The keys of one call, which differ from each other or not.
StatusOr<std::vector<std::string_view>> ToKeys(const sh_bytes* keys, size_t count);

// Carries out `call` with the client's session, and once more where the service says that the
// session is over.
template <typename Call>
Status WithSession(const sh_dict& dict, const Call& call) {
  for (int round = 0;; ++round) {
    SH_ASSIGN_OR_RETURN(const uint64_t session_id, dict.locks->SessionId());
    Status status = call(session_id);
    if (status.reason() != Reason::kSessionNotFound || round > 0) return status;
    dict.locks->LoseSession(session_id);
  }
}

// Results.
sh_bytes FromBytes(std::string_view bytes);
// The memory of a result; made on first use.
LocalValue& ValueOf(sh_entry* entry);
// Fills the entry from what ValueOf holds.
void ShowLocal(const LocalDict& dict, sh_entry* entry);
// Fills the entry from the network's, whose bytes move into what ValueOf holds.
void ShowNetwork(NetworkEntry&& from, sh_entry* entry);

// Fills a sh_entries: Begin, one Add for each, End.
class EntriesBuilder final {
 public:
  explicit EntriesBuilder(sh_entries* entries);
  void AddAbsent(std::string_view key);
  void AddLocal(const LocalDict& dict, std::string_view key, const DictEntry& entry);
  void AddNetwork(const NetworkEntry& entry);
  void AddNumber(std::string_view key, const DictResult& result);
  void End();

 private:
  sh_entry& Add(std::string_view key);
  sh_bytes Keep(std::string bytes);

  sh_entries* const entries_;
  sh_entries_memory& memory_;
};

}  // namespace statehouse
