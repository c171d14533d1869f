// The TOML file of the configuration.
#include <string>
#include <unordered_set>
#include <utility>

#include "engine/base/limits.h"
#include "service/config/config.h"
#include "service/config/settings.h"
#include "service/config/toml_parser.h"
#include "service/config/toml_text.h"

namespace statehouse {
namespace {

constexpr size_t kDeclaredAreasMax = 4096;
static_assert(kDeclaredAreasMax <= kAreasMax);

// Reads one document. Lives during one ParseConfigToml.
class TomlReader final {
 public:
  explicit TomlReader(std::string_view file_name) : file_name_(file_name) {}

  std::string Where(const toml::source_region& region) const {
    return file_name_ + ":" + std::to_string(region.begin.line) + ":" +
           std::to_string(region.begin.column);
  }
  Status Refuse(const toml::source_region& region, std::string_view why) const {
    return Status(Reason::kConfigInvalid, Where(region) + ": " + std::string(why));
  }

  Status Root(const toml::table& root, Config* config) {
    for (const auto& [key, node] : root) {
      const std::string name(key.str());
      if (name == "area") {
        SH_RETURN_IF_ERROR(Areas(node, config));
      } else if (FindSetting(name) != nullptr) {
        SH_RETURN_IF_ERROR(One(*FindSetting(name), node, config));
      } else if (IsSection(name)) {
        SH_RETURN_IF_ERROR(Section(name, node, config));
      } else {
        return Refuse(key.source(), "unknown key \"" + name + "\"" + DidYouMean(name, TopNames()));
      }
    }
    return Status();
  }

 private:
  static bool IsSection(std::string_view name) {
    for (const Setting& setting : Settings()) {
      if (setting.key.substr(0, setting.key.find('.')) == name) return true;
    }
    return false;
  }

  static std::vector<std::string> TopNames() {
    std::vector<std::string> names = {"area"};
    for (const Setting& setting : Settings()) {
      names.emplace_back(setting.key.substr(0, setting.key.find('.')));
    }
    return names;
  }

  Status Section(const std::string& section, const toml::node& node, Config* config) {
    const toml::table* table = node.as_table();
    if (table == nullptr) {
      return Refuse(node.source(), "\"" + section + "\" is a section; write [" + section + "]");
    }
    for (const auto& [key, value] : *table) {
      const std::string full = section + "." + std::string(key.str());
      const Setting* setting = FindSetting(full);
      if (setting == nullptr) {
        std::vector<std::string> known;
        for (const Setting& other : Settings()) {
          if (other.key.starts_with(section + ".")) known.emplace_back(other.key);
        }
        return Refuse(key.source(), "unknown key \"" + full + "\"" + DidYouMean(full, known));
      }
      SH_RETURN_IF_ERROR(One(*setting, value, config));
    }
    return Status();
  }

  StatusOr<SettingValue> Value(const Setting& setting, const toml::node& node) const {
    const auto refuse = [&](std::string_view expected) {
      return Refuse(node.source(), std::string(setting.key) + " must be " + std::string(expected));
    };
    const auto* text = node.as_string();
    const auto* number = node.as_integer();
    switch (setting.kind) {
      case SettingKind::kText:
        if (text == nullptr) return refuse("a string");
        return SettingValue(text->get());
      case SettingKind::kBool:
        if (!node.is_boolean()) return refuse("true or false");
        return SettingValue(node.as_boolean()->get());
      case SettingKind::kNumber:
        if (number == nullptr || number->get() < 0) return refuse("a whole number, 0 or more");
        return SettingValue(static_cast<uint64_t>(number->get()));
      case SettingKind::kBytes: {
        if (number != nullptr && number->get() >= 0) {
          return SettingValue(static_cast<uint64_t>(number->get()));
        }
        if (text == nullptr) return refuse("a number of bytes, or a string such as \"64M\"");
        const StatusOr<uint64_t> bytes = ParseBytes(text->get());
        if (!bytes.ok()) {
          return Refuse(node.source(), std::string(setting.key) + ": " + bytes.status().message());
        }
        return SettingValue(*bytes);
      }
      case SettingKind::kTexts: {
        const auto* array = node.as_array();
        if (array == nullptr) return refuse("an array of strings");
        std::vector<std::string> texts;
        for (const toml::node& entry : *array) {
          if (!entry.is_string()) return refuse("an array of strings");
          texts.push_back(entry.as_string()->get());
        }
        return SettingValue(std::move(texts));
      }
    }
    return refuse("of a known kind");
  }

  Status One(const Setting& setting, const toml::node& node, Config* config) {
    SH_ASSIGN_OR_RETURN(SettingValue value, Value(setting, node));
    SH_RETURN_IF_ERROR(ApplySetting(setting, std::move(value), Where(node.source()), config));
    config->origins[std::string(setting.key)] =
        "file " + file_name_ + ":" + std::to_string(node.source().begin.line);
    return Status();
  }

  Status Areas(const toml::node& node, Config* config) {
    const auto* array = node.as_array();
    if (array == nullptr) return Refuse(node.source(), "write [[area]], not [area]");
    if (array->size() > kDeclaredAreasMax) return Refuse(node.source(), "more than 4096 areas");
    std::unordered_set<std::string> names;
    for (const AreaConfig& area : config->declared_areas) names.insert(area.name);
    for (const toml::node& entry : *array) {
      SH_ASSIGN_OR_RETURN(AreaConfig area, OneArea(entry));
      if (!names.insert(area.name).second) {
        return Refuse(entry.source(), "area \"" + area.name + "\" is declared twice");
      }
      config->declared_areas.push_back(std::move(area));
    }
    return Status();
  }

  // A number of bytes or pages; `key` is for messages.
  StatusOr<uint64_t> Number(const toml::node& node, const std::string& key) const {
    const Setting bytes{key, "", SettingKind::kBytes, "", nullptr, nullptr, nullptr};
    SH_ASSIGN_OR_RETURN(const SettingValue value, Value(bytes, node));
    return std::get<uint64_t>(value);
  }

  StatusOr<AreaConfig> OneArea(const toml::node& node) const {
    const toml::table* table = node.as_table();
    if (table == nullptr) return Refuse(node.source(), "an area is a table: [[area]]");
    AreaConfig area;
    for (const auto& [key, value] : *table) {
      const std::string name(key.str());
      if (name == "name" || name == "file") {
        if (!value.is_string()) return Refuse(value.source(), "area." + name + " must be a string");
        (name == "name" ? area.name : area.file) = value.as_string()->get();
      } else if (name == "size") {
        SH_ASSIGN_OR_RETURN(area.size, Number(value, "area.size"));
      } else if (name == "pages") {
        SH_ASSIGN_OR_RETURN(area.pages, Number(value, "area.pages"));
      } else if (name == "offset") {
        SH_ASSIGN_OR_RETURN(area.offset, Number(value, "area.offset"));
      } else if (name == "fd") {
        SH_ASSIGN_OR_RETURN(const uint64_t fd, Number(value, "area.fd"));
        if (fd > 1'000'000) return Refuse(value.source(), "area.fd: there is no such descriptor");
        area.fd = static_cast<int>(fd);
      } else {
        return Refuse(key.source(),
                      "unknown key \"area." + name + "\"" +
                          DidYouMean("area." + name, {"area.name", "area.size", "area.pages",
                                                      "area.file", "area.fd", "area.offset"}));
      }
    }
    const std::string why = RefuseArea(area);
    if (!why.empty()) return Refuse(node.source(), "area \"" + area.name + "\": " + why);
    return area;
  }

  static std::string RefuseArea(const AreaConfig& area) {
    if (area.name.empty() || area.name.size() > kNameBytesMax)
      return "name must have 1 to 255 bytes";
    for (const char c : area.name) {
      const bool is_alnum =
          (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
      if (!is_alnum && std::string_view("._/:@-").find(c) == std::string_view::npos) {
        return "name may hold [A-Za-z0-9._/:@-] only";
      }
    }
    if (area.size == 0 && area.pages == 0) return "set size (bytes) or pages (of 4096 bytes)";
    if (area.pages > kAreaBytesMax / kPageBytes || area.size > kAreaBytesMax) {
      return "it is above the limit of 16 GiB";
    }
    if (area.size != 0 && area.pages != 0 && area.size != area.pages * kPageBytes) {
      return "size contradicts pages";
    }
    if (!area.file.empty() && area.fd >= 0) return "set file or fd, not both";
    if (area.file.find('\0') != std::string::npos) return "file holds a zero byte";
    if (area.offset != 0 && area.file.empty() && area.fd < 0) return "offset needs file or fd";
    if (area.offset % kPageBytes != 0) return "offset must be a multiple of 4096";
    return "";
  }

  const std::string file_name_;
};

// The section of a key, empty for a key of the top.
std::string_view SectionOf(std::string_view key) {
  const size_t dot = key.find('.');
  return dot == std::string_view::npos ? std::string_view() : key.substr(0, dot);
}

}  // namespace

StatusOr<Config> ParseConfigToml(std::string_view text, std::string_view file_name, Config base) {
  TomlReader reader(file_name);
  const toml::parse_result parsed = toml::parse(text, file_name);
  if (!parsed) return reader.Refuse(parsed.error().source(), parsed.error().description());
  SH_RETURN_IF_ERROR(reader.Root(parsed.table(), &base));
  return base;
}

std::string DefaultConfigToml() {
  const Config defaults;
  std::string text =
      "# Configuration of statehoused. Every value here is the default.\n"
      "# Flags come first, then STATEHOUSED_ variables, then this file.\n";
  std::string_view section;
  for (const Setting& setting : Settings()) {
    if (SectionOf(setting.key) != section) {
      section = SectionOf(setting.key);
      text.append("\n[").append(section).append("]\n");
    }
    text.append("# ").append(setting.help).append("\n");
    const std::string_view name = setting.key.substr(section.empty() ? 0 : section.size() + 1);
    text.append(name).append(" = ").append(FormatSetting(setting.get(defaults))).append("\n");
  }
  return text.append(
      "\n# An area that exists as soon as the service runs; any number of them.\n"
      "# [[area]]\n"
      "# name = \"web/counters\"\n"
      "# size = \"64K\"         # or pages = 16\n"
      "# file = \"/srv/a.bin\"  # or fd = 5; with offset = 4096\n");
}

std::string DescribeConfig(const Config& config) {
  std::string text;
  std::string_view section;
  for (const Setting& setting : Settings()) {
    if (SectionOf(setting.key) != section) {
      section = SectionOf(setting.key);
      text.append("\n[").append(section).append("]\n");
    }
    const std::string_view name = setting.key.substr(section.empty() ? 0 : section.size() + 1);
    const auto origin = config.origins.find(std::string(setting.key));
    text.append(name).append(" = ").append(FormatSetting(setting.get(config)));
    text.append("  # ").append(origin == config.origins.end() ? "default" : origin->second);
    text.append("\n");
  }
  for (const AreaConfig& area : config.declared_areas) {
    text.append("\n[[area]]\nname = ").append(QuoteToml(area.name)).append("\n");
    if (area.size != 0) text.append("size = ").append(std::to_string(area.size)).append("\n");
    if (area.pages != 0) text.append("pages = ").append(std::to_string(area.pages)).append("\n");
    if (!area.file.empty()) text.append("file = ").append(QuoteToml(area.file)).append("\n");
    if (area.fd >= 0) text.append("fd = ").append(std::to_string(area.fd)).append("\n");
    if (area.offset != 0) text.append("offset = ").append(std::to_string(area.offset)).append("\n");
  }
  return text;
}

std::string ConfigHelp() {
  std::string text =
      "Settings, from flags, then environment variables, then the file, then defaults:\n"
      "  --config PATH\n      The TOML file; also STATEHOUSED_CONFIG. See \"config default\".\n";
  for (const Setting& setting : Settings()) {
    if (setting.flag.empty()) continue;
    text.append("  ").append(setting.flag);
    if (setting.kind != SettingKind::kBool) text.append(" VALUE");
    if (setting.kind == SettingKind::kTexts) text.append("   (repeatable)");
    text.append("\n      ").append(setting.help).append(" Also ").append(VariableName(setting.key));
    text.append(".\n");
  }
  return text.append(
      "  --no-keeper\n      The daemon alone: state ends with it, unless a service manager keeps "
      "descriptors.\n"
      "\n"
      "Examples:\n"
      "  statehoused --dev\n"
      "  statehoused --config /etc/statehouse/statehoused.toml --log-level debug\n"
      "  statehoused --listen 127.0.0.1:7700 --listen [::1]:7700 --memory-max 4G\n"
      "  STATEHOUSED_NETWORK__LISTEN=none statehoused --runtime-dir /run/statehouse\n");
}

}  // namespace statehouse
