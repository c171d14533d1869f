// Where file-backed areas may lie.
#pragma once

#include <string>

#include "engine/base/status.h"

namespace statehouse {

// The canonical path of a regular file below `root`, with every symbolic link resolved: what the
// engine then opens. `file` is absolute, or relative to `root`. BACKING_INVALID when the root is
// empty (none are allowed), when the file is missing or no regular file, or when it lies outside.
// Whoever can write below the root can exchange a folder between this check and the opening, so the
// root belongs to the service's operator.
StatusOr<std::string> ResolveAreaFile(const std::string& root, const std::string& file);

}  // namespace statehouse
