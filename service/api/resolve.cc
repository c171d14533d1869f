// Names, grants and bounds: what every area verb checks first.
#include <string>

#include "service/api/verbs.h"

namespace statehouse {
namespace {

Status NotFound(std::string_view name) {
  return Status(Reason::kAreaNotFound,
                "area \"" + std::string(name) + "\" does not exist; create it, or list the areas");
}

bool IsNameByte(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '/' || c == ':' || c == '@' || c == '-';
}

}  // namespace

Status CheckName(std::string_view name) {
  const auto refuse = [](const std::string& what) {
    return Status(Reason::kNameInvalid,
                  "field name: " + what + "; use 1 to 255 bytes of [A-Za-z0-9._/:@-], or #<index>");
  };
  if (name.empty()) return refuse("it is empty");
  if (name.size() > kNameBytesMax)
    return refuse("it has " + std::to_string(name.size()) + " bytes");
  const bool by_index = name.front() == '#';
  for (const char c : name.substr(by_index ? 1 : 0)) {
    if (by_index ? c < '0' || c > '9' : !IsNameByte(c)) {
      return refuse("\"" + std::string(name) + "\" holds a byte that a name may not have");
    }
  }
  if (by_index && name.size() == 1) return refuse("\"#\" lacks its index");
  return Status();
}

StatusOr<std::shared_ptr<ServedArea>> ResolveArea(const VerbContext& context, std::string_view name,
                                                  Verb verb) {
  SH_RETURN_IF_ERROR(CheckName(name));
  const bool by_index = name.front() == '#';
  // By name the grant decides before the look-up, so the answer does not depend on what exists.
  if (!by_index) {
    SH_RETURN_IF_ERROR(context.identity->Require(ObjectKind::kArea, name, verb));
  }
  StatusOr<std::shared_ptr<ServedArea>> found = context.engine->FindArea(name);
  if (!found.ok()) {
    return found.status().reason() == Reason::kAreaNotFound ? NotFound(name) : found.status();
  }
  if (!by_index) return found;
  // By index the name is known only now; who may not read it must not learn it, or that it exists.
  const std::string& real = (*found)->info().name;
  if (context.identity->Allows(ObjectKind::kArea, real, verb)) return found;
  if (!context.identity->Allows(ObjectKind::kArea, real, Verb::kRead)) return NotFound(name);
  return context.identity->Require(ObjectKind::kArea, real, verb);
}

Status CheckBounds(const Area& area, uint64_t pos, uint64_t len) {
  if (len <= area.size() && pos <= area.size() - len) return Status();
  return Status(Reason::kOutOfBounds, "area \"" + area.name() + "\": pos " + std::to_string(pos) +
                                          " and len " + std::to_string(len) +
                                          " reach beyond its size of " +
                                          std::to_string(area.size()) + " bytes");
}

}  // namespace statehouse
