// The table of settings: one row for each key, from which the TOML reader, the environment reader,
// the flags, the default file and the description are made. Adding a setting is adding a row.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/base/status.h"
#include "service/config/config.h"

namespace statehouse {

enum class SettingKind : uint8_t {
  kText,
  kBool,
  kNumber,
  kBytes,  // A number, or text with a unit: "64M", "1GiB".
  kTexts,  // A list of texts.
};

using SettingValue = std::variant<std::string, bool, uint64_t, std::vector<std::string>>;

struct Setting {
  std::string_view key;   // "network.listen"
  std::string_view flag;  // "--listen", or empty.
  SettingKind kind;
  std::string_view help;  // One sentence.
  SettingValue (*get)(const Config& config);
  void (*put)(Config* config, SettingValue value);
  // Why a value may not be used; empty when it may.
  std::string (*refuse)(const Config& config);
};

const std::vector<Setting>& Settings();
const Setting* FindSetting(std::string_view key);

// A value from the text of a flag or a variable. The message of a failure says what is expected.
StatusOr<SettingValue> ParseSettingText(const Setting& setting, std::string_view text);
StatusOr<uint64_t> ParseBytes(std::string_view text);

// Puts a value in its place and checks it: CONFIG_INVALID, beginning with `where`.
Status ApplySetting(const Setting& setting, SettingValue value, const std::string& where,
                    Config* config);

// As TOML.
std::string FormatSetting(const SettingValue& value);

// "STATEHOUSED_NETWORK__LISTEN" for "network.listen".
std::string VariableName(std::string_view key);

// ", did you mean \"listen\"?" for the name that is nearest to `given`, or nothing when none is
// near.
std::string DidYouMean(std::string_view given, const std::vector<std::string>& known);

// Why an address may not be listened on; empty when it may. RefuseListenAddress: loopback only.
std::string RefuseTcpAddress(std::string_view address);
std::string RefuseListenAddress(std::string_view address);
bool IsLoopbackAddress(std::string_view address);

}  // namespace statehouse
