// GetPath and CheckPath; the text form is in path_text.cc.
#include "engine/value/path.h"

#include <string>

#include "engine/value/locate.h"
#include "engine/value/wire.h"

namespace statehouse {

Status CheckPath(std::span<const PathStep> path) {
  if (path.size() > kPathStepsMax) {
    return Status(Reason::kInvalidArgument,
                  "the path has " + std::to_string(path.size()) + " steps; a path has at most 32");
  }
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i].kind != PathStep::Kind::kKey) continue;
    if (path[i].key.size() > kMapKeyBytesMax) {
      return Status(Reason::kKeyInvalid, "step " + std::to_string(i + 1) +
                                             " of the path is a key of " +
                                             std::to_string(path[i].key.size()) +
                                             " bytes; a map's key has at most 1,024");
    }
    if (!internal::IsUtf8(path[i].key)) {
      return Status(Reason::kKeyInvalid,
                    "step " + std::to_string(i + 1) + " of the path is a key that is not UTF-8");
    }
  }
  return Status();
}

Status GetPath(std::string_view value, std::span<const PathStep> path, std::string_view* found) {
  SH_RETURN_IF_ERROR(CheckPath(path));
  for (size_t i = 0; i < path.size(); ++i) {
    internal::Child child;
    ValueView view(value);
    TaggedValue tagged;
    while (view.ReadTagged(&tagged)) view = ValueView(tagged.value);
    SH_RETURN_IF_ERROR(internal::FindChild(view, path, i, &child));
    value = child.value;
  }
  *found = value;
  return Status();
}

}  // namespace statehouse
