// What a stream of batches answers in the place of a batch that is refused as a whole.
#pragma once

#include <string>

#include "engine/base/status.h"

namespace statehouse {

// A serialized RunBatchesResponse with the failure. REQUIRES: `why` is not OK.
std::string EncodeBatchRefusal(const Status& why);

}  // namespace statehouse
