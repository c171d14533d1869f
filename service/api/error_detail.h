// What travels with a refusal: the ErrorDetail of error.proto.
#pragma once

#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "statehouse/v1/error.pb.h"

namespace statehouse {

// The text if it is UTF-8, else with '?' for every byte beyond ASCII; cut to `bytes_max` at a
// character.
std::string PresentableText(std::string_view text, size_t bytes_max);

// REQUIRES: `refusal` is not OK. `name` is the object's name as the caller sent it.
void FillErrorDetail(const Status& refusal, std::string_view name, v1::ErrorDetail* detail);

}  // namespace statehouse
