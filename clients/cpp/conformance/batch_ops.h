// Batches in the C++ client's conformance program.
#pragma once

#include <optional>
#include <statehouse/client.hpp>
#include <string>

#include "flat_json.h"

// Carries the steps of one batch out: the answer as a line, or nothing for another operation.
std::optional<std::string> DoBatch(statehouse::client::Client* client, const flat_json& in);
