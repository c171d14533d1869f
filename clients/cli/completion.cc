#include "clients/cli/completion.h"

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>

#include "clients/cli/dict_call.h"

namespace statehouse::cli {
namespace {

bool BeginsWith(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

// Hidden ones have no group.
bool IsShown(const CLI::App* command) {
  return !command->get_group().empty() && !command->get_name().empty();
}

// The option of that name ("--ttl", "-o"), of the command or of one above it.
const CLI::Option* FindOption(const CLI::App* at, const std::string& name) {
  for (; at != nullptr; at = at->get_parent()) {
    for (const CLI::Option* option : at->get_options()) {
      if (option->check_name(name)) return option;
    }
  }
  return nullptr;
}

bool TakesValue(const CLI::Option* option) { return option->get_items_expected_max() > 0; }

// The choices of IsMember, which a type's name holds as {a,b}.
std::vector<std::string> ChoicesOf(const CLI::Option* option) {
  std::vector<std::string> choices;
  const std::string type = option->get_type_name();
  const size_t begin = type.find('{');
  const size_t end = type.find('}', begin);
  if (begin == std::string::npos || end == std::string::npos) return choices;
  for (size_t at = begin + 1; at < end;) {
    const size_t comma = std::min(type.find(',', at), end);
    choices.push_back(type.substr(at, comma - at));
    at = comma + 1;
  }
  return choices;
}

// The commands from the top to `at`, without the program itself.
std::vector<std::string> PathOf(const CLI::App* at) {
  std::vector<std::string> path;
  for (; at->get_parent() != nullptr; at = at->get_parent()) {
    path.insert(path.begin(), at->get_name());
  }
  return path;
}

// Which objects a command's words name.
NameKind NamesOf(const CLI::App* at, const std::vector<std::string>& before) {
  const std::vector<std::string> path = PathOf(at);
  if (path.empty()) return NameKind::kNone;
  const std::string& top = path.front();
  if (top == "watch") {
    if (before.empty() || before == std::vector<std::string>{"dict"}) return NameKind::kDict;
    return before == std::vector<std::string>{"area"} ? NameKind::kArea : NameKind::kNone;
  }
  if (!before.empty()) return NameKind::kNone;
  if (top == "area") return NameKind::kArea;
  if (top == "lock" || top == "elect") return NameKind::kLock;
  return top == "dict" || top == "monitor" || top == "big" || top == "hot" ? NameKind::kDict
                                                                           : NameKind::kNone;
}

// What the words say up to the one at the cursor.
struct Place {
  const CLI::App* at = nullptr;
  std::vector<std::string> positionals;
  const CLI::Option* awaits = nullptr;  // An option whose value is next.
  bool in_command = false;              // Behind the `--` of lock and elect: another program's.
};

void TakeGlobal(const CLI::Option* option, const std::string& value, Globals* globals) {
  if (option->check_name("--url")) globals->url = value;
  if (option->check_name("--token-file")) globals->token_file = value;
  if (option->check_name("--transport")) globals->transport = value;
}

Place PlaceOf(const CLI::App& app, const std::vector<std::string>& words, Globals* globals) {
  Place place{.at = &app, .positionals = {}};
  bool options_ended = false;
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    const std::string& word = words[i];
    if (place.awaits != nullptr) {
      TakeGlobal(place.awaits, word, globals);
      place.awaits = nullptr;
      continue;
    }
    if (!options_ended && word == "--") {
      const std::string& name = place.at->get_name();
      if (name == "lock" || name == "elect") place.in_command = true;
      options_ended = true;
      continue;
    }
    if (!options_ended && word.size() > 1 && word[0] == '-') {
      const size_t equals = word.find('=');
      const CLI::Option* const option = FindOption(place.at, word.substr(0, equals));
      if (option == nullptr || !TakesValue(option)) continue;
      if (equals == std::string::npos) {
        place.awaits = option;
      } else {
        TakeGlobal(option, word.substr(equals + 1), globals);
      }
      continue;
    }
    const std::vector<const CLI::App*> subs =
        place.at->get_subcommands([&word](const CLI::App* sub) { return sub->get_name() == word; });
    if (place.positionals.empty() && !subs.empty()) {
      place.at = subs.front();
    } else {
      place.positionals.push_back(word);
    }
  }
  return place;
}

void AddValues(const CLI::Option* option, const std::string& before, const std::string& word,
               Completion* completion) {
  for (const std::string& choice : ChoicesOf(option)) {
    if (BeginsWith(choice, word)) completion->candidates.push_back({before + choice, ""});
  }
  const std::string name = option->get_name(option->get_positional());
  if (option->check_name("--dict")) {
    completion->names = NameKind::kDict;
    completion->names_before = before;
  } else if (name.find("file") != std::string::npos || name.find("FILE") != std::string::npos) {
    completion->files = true;
  }
}

void AddOptions(const CLI::App* at, const std::string& word, Completion* completion) {
  for (; at != nullptr; at = at->get_parent()) {
    for (const CLI::Option* option : at->get_options()) {
      if (option->get_group().empty()) continue;
      for (const std::string& name : option->get_lnames()) {
        if (BeginsWith("--" + name, word)) {
          completion->candidates.push_back({"--" + name, option->get_description()});
        }
      }
    }
  }
}

void AddCommands(const CLI::App* at, const std::string& word, Completion* completion) {
  for (const CLI::App* sub : at->get_subcommands(IsShown)) {
    if (BeginsWith(sub->get_name(), word)) {
      completion->candidates.push_back({sub->get_name(), sub->get_description()});
    }
  }
}

void AddPositional(const Place& place, const std::string& word, Completion* completion) {
  std::vector<const CLI::Option*> positionals;
  for (const CLI::Option* option : place.at->get_options()) {
    if (option->get_positional()) positionals.push_back(option);
  }
  completion->names = NamesOf(place.at, place.positionals);
  size_t index = place.positionals.size();
  if (positionals.empty()) completion->names = NameKind::kNone;
  if (!positionals.empty() && positionals.back()->get_items_expected_max() > 1) {
    index = std::min(index, positionals.size() - 1);
  }
  if (index < positionals.size()) AddValues(positionals[index], "", word, completion);
  if (PathOf(place.at) == std::vector<std::string>{"watch"} && place.positionals.empty()) {
    for (const char* const kind : {"area", "dict"}) {
      if (BeginsWith(kind, word)) completion->candidates.push_back({kind, ""});
    }
  }
}

// `help WORDS…`: the commands below those.
void AddTopics(const CLI::App& app, const std::vector<std::string>& words, const std::string& word,
               Completion* completion) {
  const CLI::App* at = &app;
  for (const std::string& name : words) {
    const std::vector<const CLI::App*> subs =
        at->get_subcommands([&name](const CLI::App* sub) { return sub->get_name() == name; });
    if (subs.empty()) return;
    at = subs.front();
  }
  AddCommands(at, word, completion);
  if (at == &app && BeginsWith("exit-codes", word)) {
    completion->candidates.push_back({"exit-codes", "What each exit code means"});
  }
}

std::vector<std::string> DictNames(sh_client* client, const std::string& prefix) {
  std::vector<std::string> names;
  v1::ListDictsRequest request;
  request.set_prefix(prefix);
  do {
    const auto page = CallDicts<v1::ListDictsResponse>(client, "ListDicts", request);
    for (const v1::Dict& dict : page.dicts()) names.push_back(dict.name());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty() && names.size() < kCompletionNamesMax);
  return names;
}

}  // namespace

Completion Complete(const CLI::App& app, const std::vector<std::string>& words) {
  Completion completion;
  const std::string word = words.empty() ? "" : words.back();
  const Place place = PlaceOf(app, words, &completion.globals);
  if (place.in_command) {
    completion.files = true;
  } else if (place.awaits != nullptr) {
    AddValues(place.awaits, "", word, &completion);
  } else if (word.size() > 1 && word[0] == '-' && word.find('=') != std::string::npos) {
    const size_t value = word.find('=') + 1;
    const CLI::Option* const option = FindOption(place.at, word.substr(0, value - 1));
    if (option != nullptr) {
      AddValues(option, word.substr(0, value), word.substr(value), &completion);
    }
  } else if (!word.empty() && word[0] == '-') {
    AddOptions(place.at, word, &completion);
  } else if (PathOf(place.at) == std::vector<std::string>{"help"}) {
    AddTopics(app, place.positionals, word, &completion);
  } else {
    if (place.positionals.empty()) AddCommands(place.at, word, &completion);
    AddPositional(place, word, &completion);
  }
  return completion;
}

std::vector<std::string> LiveNames(const Globals& globals, NameKind kind,
                                   const std::string& prefix) {
  std::vector<std::string> names;
  if (kind == NameKind::kNone) return names;
  const Client client = ConnectForEntries(globals);
  sh_error* error = nullptr;
  size_t count = 0;
  if (kind == NameKind::kDict) names = DictNames(client.get(), prefix);
  if (kind == NameKind::kArea) {
    sh_area_info* infos = nullptr;
    Check(sh_area_list(client.get(), prefix.c_str(), &infos, &count, &error), error);
    for (size_t i = 0; i < count; ++i) names.emplace_back(infos[i].name);
    sh_area_list_free(infos);
  }
  if (kind == NameKind::kLock) {
    sh_lock_info* infos = nullptr;
    Check(sh_lock_list(client.get(), prefix.c_str(), &infos, &count, &error), error);
    for (size_t i = 0; i < count; ++i) names.emplace_back(infos[i].name);
    sh_lock_infos_free(infos, count);
  }
  if (names.size() > kCompletionNamesMax) names.resize(kCompletionNamesMax);
  return names;
}

void PrintCompletion(const CLI::App& app, const std::vector<std::string>& words) {
  Completion completion = Complete(app, words);
  if (completion.files) {
    std::cout << kCompleteFiles << "\n";
    return;
  }
  for (const Candidate& candidate : completion.candidates) {
    std::cout << candidate.text;
    if (!candidate.about.empty()) std::cout << "\t" << candidate.about;
    std::cout << "\n";
  }
  std::cout.flush();
  completion.globals.timeout_ms = kCompletionTimeoutMs;
  const auto with_environment = [](std::string* value, const char* variable) {
    const char* const set = std::getenv(variable);
    if (value->empty() && set != nullptr) *value = set;
  };
  with_environment(&completion.globals.url, "STATEHOUSE_URL");
  with_environment(&completion.globals.token_file, "STATEHOUSE_TOKEN_FILE");
  const std::string word = words.empty() ? "" : words.back();
  for (const std::string& name : LiveNames(completion.globals, completion.names,
                                           word.substr(completion.names_before.size()))) {
    std::cout << completion.names_before << name << "\n";
  }
}

}  // namespace statehouse::cli
