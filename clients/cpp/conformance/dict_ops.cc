#include "dict_ops.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "answers.h"

namespace sh = statehouse::client;

namespace {

// What an argument that cannot be made answers. Collected, because many are made for one call.
struct Arguments {
  explicit Arguments(const flat_json& from) : in(from) {}

  const flat_json_member* Find(const std::string& name) const {
    return flat_json_find(&in, name.c_str());
  }
  bool Has(const std::string& name) const { return Find(name) != nullptr; }
  std::string Text(const std::string& name) const { return flat_json_text(&in, name.c_str(), ""); }
  uint64_t Number(const std::string& name) const { return flat_json_number(&in, name.c_str(), 0); }
  static std::string FromHex(const std::string& digits) {
    std::string bytes;
    for (size_t i = 0; i + 1 < digits.size(); i += 2) {
      bytes.push_back(static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16)));
    }
    return bytes;
  }

  // A value out of JSON text, or out of the digits of the member with "_wire" behind its name.
  sh::Value Value(const std::string& name) {
    if (!Has(name) && !Has(name + "_wire")) {
      inexpressible = true;  // There is no missing value in C++.
      return {};
    }
    sh::Result<sh::Value> value = Has(name + "_wire")
                                      ? sh::Value::FromWire(FromHex(Text(name + "_wire")))
                                      : sh::Value::FromJson(Text(name));
    if (value.ok()) return *std::move(value);
    if (refused.empty()) refused = Refused(value.error());
    return {};
  }
  sh::Path Path() const {
    sh::Path path;
    for (int i = 0;; ++i) {
      const flat_json_member* const step = Find("path_steps." + std::to_string(i));
      if (step == nullptr) return path;
      if (step->is_number != 0) {
        path.emplace_back(static_cast<int64_t>(step->number));
      } else {
        path.emplace_back(step->text);
      }
    }
  }
  sh::Condition Condition(const std::string& prefix) {
    const std::string condition = prefix + "condition.";
    if (Has(condition + "absent")) return sh::Condition::Absent();
    if (Has(condition + "present")) return sh::Condition::Present();
    if (Has(condition + "version")) return sh::Condition::Version(Number(condition + "version"));
    if (Has(condition + "value")) return sh::Condition::Holds(Value(condition + "value"));
    return {};
  }
  sh::Ttl Ttl(const std::string& prefix) const {
    if (Has(prefix + "ttl.none")) return sh::Ttl::Forever();
    if (Has(prefix + "ttl.keep")) return sh::Ttl::Keep();
    if (!Has(prefix + "ttl.duration_ms")) return {};
    return sh::Ttl::For(
        std::chrono::milliseconds(static_cast<int64_t>(Number(prefix + "ttl.duration_ms"))));
  }
  sh::WriteOptions Options(const std::string& prefix) {
    return {Condition(prefix), Ttl(prefix), Number(prefix + "fence"),
            Number(prefix + "bound") != 0};
  }

  const flat_json& in;
  std::string refused;  // The answer, where an argument is refused.
  bool inexpressible = false;
};

std::string ShowEntry(const std::optional<sh::Entry>& entry) {
  return entry.has_value() ? R"({"value": )" + JsonOf(entry->value) + "}" : "null";
}
std::string ShowEntries(const std::vector<std::optional<sh::Entry>>& entries) {
  std::string text;
  for (const auto& entry : entries) text += (text.empty() ? "" : ", ") + ShowEntry(entry);
  return "[" + text + "]";
}

std::string GetEntry(sh::Dict& dict, const std::string& key, Arguments& in) {
  const std::string show = in.Text("show");
  return Answer(dict.GetEntry(key, in.Path()), [&](const std::optional<sh::Entry>& entry) {
    if (show == "version") return std::to_string(entry ? entry->version : 0);
    if (show == "fence") return std::to_string(entry ? entry->fence : 0);
    if (show == "has_ttl") return Boolean(entry && entry->ttl);
    if (show == "is_bound") return Boolean(entry && entry->bound_session != 0);
    return ShowEntry(entry);
  });
}

std::string Mutate(std::string_view op, sh::Dict& dict, const std::string& key, Arguments& in) {
  const sh::WriteOptions options = in.Options("");
  const bool with_previous = in.Number("return_previous") != 0;
  std::optional<sh::Entry> previous;
  std::optional<sh::Entry>* const before = with_previous ? &previous : nullptr;
  const auto show = [&](const sh::Outcome& outcome) {
    if (!with_previous) return Boolean(outcome.applied);
    return R"({"applied": )" + Boolean(outcome.applied) + R"(, "previous": )" +
           ShowEntry(previous) + "}";
  };
  if (op == "touch_entry") return Answer(dict.Touch(key, options.ttl), show);
  if (op == "delete_entry") return Answer(dict.Delete(key, options, before), show);
  const sh::Value value = in.Value("value");
  if (!in.refused.empty() || in.inexpressible) return {};
  return Answer(dict.Set(key, value, options, before), show);
}

template <sh::EntryNumber T>
std::string Increment(sh::Dict& dict, const std::string& key, Arguments& in, T one) {
  const auto number = [&](const char* name, T missing) {
    if (!in.Has(name)) return missing;
    const std::optional<T> value = in.Value(name).As<T>();
    // The interface has one type for all of them.
    if (!value.has_value()) in.inexpressible = true;
    return value.value_or(missing);
  };
  sh::IncrementOptions<T> options;
  options.path = in.Path();
  options.initial = number("initial", T());
  options.must_exist = in.Number("must_exist") != 0;
  if (in.Has("min")) options.min = number("min", T());
  if (in.Has("max")) options.max = number("max", T());
  options.ttl = in.Ttl("");
  options.fence = in.Number("fence");
  const T delta = number("delta", one);
  if (!in.refused.empty() || in.inexpressible) return {};
  return Answer(dict.Increment<T>(key, delta, options),
                [](T sum) { return JsonOf(sh::Value(sum)); });
}

std::optional<sh::Edit> EditOf(Arguments& in) {
  const auto list = [&](const char* name) {
    const sh::Value value = in.Value(name);
    if (value.IfList() == nullptr) in.inexpressible = true;
    return value.As<sh::List>().value_or(sh::List());
  };
  if (in.Has("edit.set") || in.Has("edit.set_wire")) return sh::Edit::Set(in.Value("edit.set"));
  if (in.Has("edit.delete")) return sh::Edit::Delete();
  if (in.Has("edit.append")) return sh::Edit::Append(in.Value("edit.append"));
  if (in.Has("edit.extend.values")) return sh::Edit::Extend(list("edit.extend.values"));
  if (in.Has("edit.insert.value")) {
    return sh::Edit::Insert(static_cast<int64_t>(in.Number("edit.insert.index")),
                            in.Value("edit.insert.value"));
  }
  if (in.Has("edit.pop")) return sh::Edit::Pop();
  if (in.Has("edit.remove")) return sh::Edit::Remove(in.Value("edit.remove"));
  if (in.Has("edit.merge")) {
    const sh::Value map = in.Value("edit.merge");
    if (map.IfMap() == nullptr) in.inexpressible = true;
    return sh::Edit::Merge(map.As<sh::Map>().value_or(sh::Map()));
  }
  if (in.Has("edit.clear")) return sh::Edit::Clear();
  if (in.Has("edit.slice.values")) {
    return sh::Edit::Slice(static_cast<int64_t>(in.Number("edit.slice.start")),
                           static_cast<int64_t>(in.Number("edit.slice.stop")),
                           list("edit.slice.values"));
  }
  if (in.Has("edit.set_default")) return sh::Edit::SetDefault(in.Value("edit.set_default"));
  if (in.Has("edit.append_string")) return sh::Edit::AppendString(in.Text("edit.append_string"));
  if (in.Has("edit.append_bytes")) {
    return sh::Edit::AppendBytes(Arguments::FromHex(in.Text("edit.append_bytes")));
  }
  in.inexpressible = true;  // There is no edit without a kind.
  return std::nullopt;
}

std::string EditEntry(sh::Dict& dict, const std::string& key, Arguments& in) {
  std::optional<sh::Edit> edit = EditOf(in);
  if (!in.refused.empty() || in.inexpressible || !edit.has_value()) return {};
  if (in.Number("create_parents") != 0) edit = std::move(*edit).CreateParents();
  edit = std::move(*edit).IfVersion(in.Number("if_version")).Fence(in.Number("fence"));
  return Answer(dict.EditAt(key, in.Path(), *edit), [](const sh::EditOutcome& outcome) {
    const std::string result =
        outcome.value.has_value() ? R"({"value": )" + JsonOf(*outcome.value) + "}" : "null";
    return R"({"result": )" + result + R"(, "length": )" + std::to_string(outcome.length) + "}";
  });
}

std::string GetEntries(sh::Dict& dict, Arguments& in) {
  std::vector<std::string> keys;
  for (int i = 0; in.Has("keys." + std::to_string(i)); ++i) {
    keys.push_back(in.Text("keys." + std::to_string(i)));
  }
  return Answer(dict.GetMany(keys, in.Number("consistent") != 0), ShowEntries);
}

std::string SetEntries(sh::Dict& dict, Arguments& in) {
  std::vector<std::pair<std::string, sh::Value>> entries;
  for (int i = 0; in.Has("entries." + std::to_string(i) + ".key"); ++i) {
    const std::string entry = "entries." + std::to_string(i) + ".";
    entries.emplace_back(in.Text(entry + "key"), in.Value(entry + "value"));
  }
  if (!in.refused.empty() || in.inexpressible) return {};
  return Answer(dict.SetMany(entries, in.Ttl(""), in.Number("fence"), in.Number("bound") != 0),
                [](const std::vector<uint64_t>&) { return std::string("null"); });
}

std::string ScanEntries(sh::Dict& dict, Arguments& in) {
  std::string text;
  const sh::Result<sh::Done> done = dict.Scan(in.Text("prefix"), [&](sh::Entry entry) {
    text += (text.empty() ? "" : ", ") + Quoted(entry.key) + ": " + JsonOf(entry.value);
    return true;
  });
  return Answer(done, [&](const sh::Done&) { return "{" + text + "}"; });
}

// One step of a transaction; false when there is none.
bool AddStep(const std::string& prefix, Arguments& in, sh::Transaction* transaction) {
  if (in.Has(prefix + "get")) {
    transaction->Get(in.Text(prefix + "get"));
  } else if (in.Has(prefix + "set.key")) {
    transaction->Set(in.Text(prefix + "set.key"), in.Value(prefix + "set.value"),
                     in.Options(prefix + "set."));
  } else if (in.Has(prefix + "delete.key")) {
    transaction->Delete(in.Text(prefix + "delete.key"), in.Options(prefix + "delete."));
  } else if (in.Has(prefix + "increment.key")) {
    const std::string key = in.Text(prefix + "increment.key");
    const sh::Value delta =
        in.Has(prefix + "increment.delta") ? in.Value(prefix + "increment.delta") : sh::Value(1);
    if (delta.IfDouble() != nullptr) {
      transaction->Increment<double>(key, *delta.IfDouble());
    } else {
      transaction->Increment<int64_t>(key, delta.As<int64_t>().value_or(1));
    }
  } else {
    return false;
  }
  return true;
}

std::string TransactDict(sh::Dict& dict, Arguments& in) {
  sh::Transaction transaction;
  for (int i = 0; in.Has("compares." + std::to_string(i) + ".key"); ++i) {
    const std::string compare = "compares." + std::to_string(i) + ".";
    transaction.If(in.Text(compare + "key"), in.Condition(compare));
  }
  for (int i = 0; AddStep("then_steps." + std::to_string(i) + ".", in, &transaction); ++i) {
  }
  transaction.Otherwise();
  for (int i = 0; AddStep("else_steps." + std::to_string(i) + ".", in, &transaction); ++i) {
  }
  if (!in.refused.empty() || in.inexpressible) return {};
  return Answer(dict.Transact(transaction), [](const sh::TransactionOutcome& outcome) {
    return R"({"compared": )" + Boolean(outcome.compared) + R"(, "results": )" +
           ShowEntries(outcome.results) + "}";
  });
}

}  // namespace

std::optional<std::string> DictOps::DoCatalogue(sh::Client& client, const std::string& name,
                                                const flat_json& in) {
  const Arguments arguments(in);
  const std::string op = arguments.Text("op");
  if (op == "open_dict") {
    const bool create = !arguments.Has("create") || arguments.Number("create") != 0;
    sh::Result<sh::Dict> dict =
        client.OpenDict(name, create ? std::optional<sh::DictSpec>(sh::DictSpec()) : std::nullopt);
    const std::string answer = Answer(dict, [](const sh::Dict&) { return std::string("null"); });
    if (dict.ok()) dicts_.insert_or_assign(name, *std::move(dict));
    return answer;
  }
  if (op == "create_dict") {
    sh::DictSpec spec;
    spec.max_entries = arguments.Number("max_entries");
    spec.max_bytes = arguments.Number("max_bytes");
    spec.default_ttl =
        std::chrono::milliseconds(static_cast<int64_t>(arguments.Number("default_ttl_ms")));
    spec.evict = arguments.Text("full_policy") == "EVICT";
    spec.exclusive = arguments.Number("exclusive") != 0;
    return Answer(client.CreateDict(name, spec),
                  [](const sh_dict_info& info) { return std::to_string(info.max_entries); });
  }
  if (op == "describe_dict") {
    return Answer(client.DescribeDict(name),
                  [](const sh_dict_info& info) { return std::to_string(info.entries); });
  }
  if (op == "delete_dict") return Answer(client.DeleteDict(name));
  if (op == "list_dicts") {
    return Answer(client.ListDicts(arguments.Text("prefix")),
                  [](const std::vector<sh_dict_info>& infos) {
                    std::string text;
                    for (const sh_dict_info& info : infos) {
                      text += (text.empty() ? "" : ", ") + Quoted(info.name);
                    }
                    return "[" + text + "]";
                  });
  }
  return std::nullopt;
}

namespace {

std::string Wait(const sh::Dict& dict, const std::string& key, Arguments& in) {
  sh::WaitUntil until;
  if (in.Has("until.absent")) until = sh::WaitUntil::Absent();
  if (in.Has("until.version_above")) {
    until = sh::WaitUntil::VersionAbove(in.Number("until.version_above"));
  }
  if (in.Has("until.version_differs")) {
    until = sh::WaitUntil::VersionDiffers(in.Number("until.version_differs"));
  }
  if (in.Has("until.value")) until = sh::WaitUntil::Holds(in.Value("until.value"));
  until.path = in.Path();
  std::optional<std::chrono::milliseconds> timeout;
  if (in.Has("timeout_ms")) {
    timeout = std::chrono::milliseconds(static_cast<int64_t>(in.Number("timeout_ms")));
  }
  if (!in.refused.empty() || in.inexpressible) return {};
  return Answer(dict.Wait(key, until, timeout), [](const sh::EntryWaitOutcome& outcome) {
    return R"({"met": )" + Boolean(outcome.met) + R"(, "entry": )" + ShowEntry(outcome.entry) + "}";
  });
}

}  // namespace

std::optional<std::string> DictOps::DoDict(sh::Dict& dict, const flat_json& from) {
  Arguments in(from);
  const std::string op = in.Text("op");
  const std::string key = in.Text("key");
  std::optional<std::string> answer;
  if (op == "get_entry") {
    answer = GetEntry(dict, key, in);
  } else if (op == "set_entry" || op == "delete_entry" || op == "touch_entry") {
    answer = Mutate(op, dict, key, in);
  } else if (op == "increment_entry") {
    const bool is_double = in.Has("delta") && in.Value("delta").IfDouble() != nullptr;
    answer = is_double ? Increment<double>(dict, key, in, 1.0)
                       : Increment<int64_t>(dict, key, in, int64_t{1});
  } else if (op == "edit_entry") {
    answer = EditEntry(dict, key, in);
  } else if (op == "wait_entry") {
    answer = Wait(dict, key, in);
  } else if (op == "get_entries") {
    answer = GetEntries(dict, in);
  } else if (op == "set_entries") {
    answer = SetEntries(dict, in);
  } else if (op == "scan_entries") {
    answer = ScanEntries(dict, in);
  } else if (op == "transact_dict") {
    answer = TransactDict(dict, in);
  } else if (op == "clear_dict") {
    answer = Answer(dict.Clear());
  } else if (op == "delete_prefix") {
    answer = Answer(dict.DeletePrefix(in.Text("prefix")));
  } else if (op == "dict_length") {
    answer = Answer(dict.Length());
  }
  if (!in.refused.empty()) return in.refused;
  if (in.inexpressible) return Inexpressible();
  return answer;
}

std::optional<std::string> DictOps::Do(sh::Client* client, const flat_json& in) {
  const std::string name = flat_json_text(&in, "name", "");
  if (client != nullptr) {
    if (std::optional<std::string> answer = DoCatalogue(*client, name, in)) return answer;
  }
  const auto found = dicts_.find(name);
  return found == dicts_.end() ? std::nullopt : DoDict(found->second, in);
}
