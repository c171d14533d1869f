#include "clients/cli/watch_line.h"

#include <nlohmann/json.hpp>

#include "clients/cli/commands.h"
#include "clients/cli/exit_codes.h"
#include "clients/cli/dict_call.h"
#include "clients/cli/terminal_text.h"

namespace statehouse::cli {
namespace {

const char* NameOf(sh_watch_kind kind) {
  switch (kind) {
    case SH_WATCH_PUT: return "put";
    case SH_WATCH_DELETE: return "delete";
    case SH_WATCH_EXPIRE: return "expire";
    case SH_WATCH_EVICT: return "evict";
    case SH_WATCH_ENTRY: return "entry";
    case SH_WATCH_SYNCED: return "synced";
    case SH_WATCH_RESYNC: return "resync";
    default: return "progress";
  }
}

// Empty where there is none.
std::string JsonOf(const sh_bytes& bytes) {
  if (bytes.data == nullptr) return {};
  v1::Value value;
  if (!value.ParseFromArray(bytes.data, static_cast<int>(bytes.size))) {
    throw Failed{kExitError, "a value that is no message of this release"};
  }
  return JsonOfValue(value);
}

}  // namespace

Told ToldOf(const sh_watch_event& event) {
  Told told{.kind = NameOf(event.kind),
            .value = JsonOf(event.value),
            .previous = JsonOf(event.previous),
            .version = event.version,
            .revision = event.revision,
            .coalesced = event.coalesced != 0,
            .value_gone = event.value_gone != 0,
            .previous_gone = event.previous_gone != 0};
  const bool is_change = event.kind >= SH_WATCH_PUT && event.kind <= SH_WATCH_EVICT;
  told.has_key = is_change || event.kind == SH_WATCH_ENTRY;
  if (told.has_key) told.key = {static_cast<const char*>(event.key.data), event.key.size};
  if (event.kind == SH_WATCH_RESYNC) told.reason = sh_resync_reason_text(event.reason);
  return told;
}

uint32_t KindsOf(const std::vector<std::string>& names) {
  uint32_t kinds = 0;
  for (const std::string& name : names) {
    for (const sh_watch_kind kind :
         {SH_WATCH_PUT, SH_WATCH_DELETE, SH_WATCH_EXPIRE, SH_WATCH_EVICT}) {
      if (name == NameOf(kind)) kinds |= SH_WATCH_MASK(kind);
    }
  }
  return kinds;
}

std::string LineOf(const Told& told, bool as_json) {
  if (as_json) {
    nlohmann::ordered_json line;
    if (!told.dict.empty()) line["dict"] = told.dict;
    line["kind"] = told.kind;
    if (told.has_key) {
      line["key"] = told.key;
      if (!told.value.empty()) line["value"] = nlohmann::ordered_json::parse(told.value);
      line["version"] = told.version;
      if (!told.previous.empty()) {
        line["previous"] = nlohmann::ordered_json::parse(told.previous);
      }
    }
    if (told.revision != 0) line["revision"] = told.revision;
    if (!told.reason.empty()) line["reason"] = told.reason;
    if (told.coalesced) line["coalesced"] = true;
    if (told.value_gone) line["value_gone"] = true;
    if (told.previous_gone) line["previous_gone"] = true;
    return line.dump();
  }
  std::string line = told.dict.empty() ? told.kind : Visible(told.dict) + "\t" + told.kind;
  if (told.has_key) line += "\t" + Visible(told.key);
  if (!told.value.empty()) line += "\t" + Visible(told.value);
  if (!told.previous.empty()) line += "\twas " + Visible(told.previous);
  if (told.previous_gone) line += "\twas not known";
  if (!told.reason.empty()) line += "\t" + told.reason;
  if (told.revision != 0) line += "\t(revision " + std::to_string(told.revision) + ")";
  return line;
}

}  // namespace statehouse::cli
