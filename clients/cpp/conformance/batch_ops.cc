#include "batch_ops.h"

#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "answers.h"

namespace {

namespace sh = statehouse::client;

// What is left to do with an operation: its result as JSON, once the batch was run.
using Show = std::function<std::string()>;

template <typename T, typename ToText>
Show Shown(const sh::Noted<T>& noted, const ToText& to_text) {
  return [noted, to_text] {
    const sh::Result<T> result = noted.result();
    if (!result.ok()) return R"({"error": ")" + std::string(result.error().reason_name()) + R"("})";
    return to_text(*result);
  };
}

std::string Text(const flat_json& in, const std::string& key) {
  return flat_json_text(&in, key.c_str(), "");
}

sh::Value ValueOf(const flat_json& in, const std::string& key) {
  return sh::Value::FromJson(Text(in, key)).value_or(sh::Value());
}

Show NoteOfDict(sh::Batch& batch, sh::Dict& dict, std::string_view what, const flat_json& in,
                const std::string& prefix) {
  const std::string key = Text(in, prefix + "key");
  const auto applied = [](const sh::Outcome& outcome) { return Boolean(outcome.applied); };
  if (what == "get") {
    return Shown(batch.Get(dict, key), [](const std::optional<sh::Value>& value) {
      return value.has_value() ? JsonOf(*value) : std::string("null");
    });
  }
  if (what == "set") return Shown(batch.Set(dict, key, ValueOf(in, prefix + "value")), applied);
  if (what == "delete") return Shown(batch.Delete(dict, key), applied);
  if (what == "append") {
    const sh::Edit edit = sh::Edit::Append(ValueOf(in, prefix + "value")).CreateParents();
    return Shown(batch.EditAt(dict, key, {}, edit),
                 [](const sh::EditOutcome& outcome) { return std::to_string(outcome.length); });
  }
  const std::string delta = Text(in, prefix + "delta");
  return Shown(batch.Increment(dict, key, delta.empty() ? 1 : std::stoll(delta)),
               [](int64_t sum) { return std::to_string(sum); });
}

Show NoteOfArea(sh::Batch& batch, sh::Area& area, std::string_view what, const flat_json& in,
                const std::string& prefix) {
  const uint64_t pos = flat_json_number(&in, (prefix + "pos").c_str(), 0);
  const uint64_t amount = flat_json_number(&in, (prefix + "amount").c_str(), 0);
  const auto word = [](uint64_t number) { return std::to_string(number); };
  if (what == "add") {
    return Shown(batch.Add<uint64_t>(area, pos, static_cast<int64_t>(amount)), word);
  }
  if (what == "load") return Shown(batch.Load<uint64_t>(area, pos), word);
  return Shown(batch.Store<uint64_t>(area, pos, amount),
               [](const sh::Done&) { return std::string("null"); });
}

}  // namespace

std::optional<std::string> DoBatch(sh::Client* client, const flat_json& in) {
  if (std::string_view(flat_json_text(&in, "op", "")) != "batch") return std::nullopt;
  if (client == nullptr) return Inexpressible();  // There is no object to call.
  sh::Batch batch = client->NewBatch({.stop_at_failure = flat_json_number(&in, "stop", 0) != 0});
  std::vector<Show> shows;
  for (size_t i = 0;; ++i) {
    const std::string prefix = "steps." + std::to_string(i) + ".";
    const std::string what = Text(in, prefix + "do");
    if (what.empty()) break;
    if (what == "add" || what == "load" || what == "store") {
      sh::Result<sh::Area> area = client->Open(Text(in, prefix + "name"));
      if (!area.ok()) return Refused(area.error());
      shows.push_back(NoteOfArea(batch, *area, what, in, prefix));
    } else {
      sh::Result<sh::Dict> dict = client->OpenDict(Text(in, prefix + "name"), std::nullopt);
      if (!dict.ok()) return Refused(dict.error());
      shows.push_back(NoteOfDict(batch, *dict, what, in, prefix));
    }
    if (batch.count() != shows.size()) return Refused(batch.Run().error());  // Not even noted.
  }
  (void)batch.Run();  // Each result says it again.
  std::string list;
  for (const Show& show : shows) list += (list.empty() ? "" : ", ") + show();
  return Ok("[" + list + "]");
}
