// Values as JSON, for people and for the command line. docs/formats/value.md has the mapping: what
// JSON has no words for is an object with one key that begins with '$'.
//
//   1, -5                 int, or big int beyond 64 bits
//   1.0, 1e3              float              {"$float": "nan" | "inf" | "-inf" | "nan:<16 hex>"}
//   {"$int": "-0xff"}     int or big int, in hex
//   {"$bytes": "AQI="}    bytes, base64
//   {"$timestamp": "2024-02-29T12:00:00.5Z"}
//   {"$tensor": {"dtype": "uint8", "shape": [2], "data": "AQI="}}
//   {"$tag": ["tuple", [1, 2]]}
//   {"$map": {"$bytes": 1}}   a map whose only key begins with '$'
//
// Threads: functions of their arguments.
#pragma once

#include <string>
#include <string_view>

#include "engine/base/status.h"

namespace statehouse {

// The value that the text means. VALUE_INVALID says line, column and what to write instead; then
// `*wire` is not touched. What ValueToJson wrote comes back with equal bytes, except that defaults
// which were written out are left out.
Status ValueFromJson(std::string_view json, std::string* wire);

// The value as one line of JSON. VALUE_INVALID when it is none; then `*json` is not touched.
Status ValueToJson(std::string_view wire, std::string* json);

}  // namespace statehouse
