#include "clients/cli/watch_line.h"

#include <nlohmann/json.hpp>

#include "clients/cli/terminal_text.h"

namespace statehouse::cli {

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
