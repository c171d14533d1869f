// What must hold of any bytes that come as a batch.
#pragma once

#include <string_view>

namespace statehouse::testing {

// Reads the bytes as the service does and as protobuf does, and ends the process where the two
// disagree: what protobuf understands is understood, and means the same.
void CheckBatchBytes(std::string_view bytes);

}  // namespace statehouse::testing
