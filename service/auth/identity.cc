#include <utility>

#include "service/auth/authenticator.h"

namespace statehouse {

std::string_view VerbName(Verb verb) {
  switch (verb) {
    case Verb::kRead: return "read";
    case Verb::kWrite: return "write";
    case Verb::kCreate: return "create";
    case Verb::kWatch: return "watch";
    case Verb::kLock: return "lock";
    case Verb::kAdmin: return "admin";
  }
  return "unknown";
}

std::string_view ObjectKindName(ObjectKind kind) {
  switch (kind) {
    case ObjectKind::kArea: return "area";
    case ObjectKind::kDict: return "dict";
    case ObjectKind::kService: return "service";
    case ObjectKind::kLock: return "lock";
  }
  return "unknown";
}

bool PatternMatches(std::string_view pattern, std::string_view name) {
  // Greedy with one point of return: after a mismatch the last '*' takes one more character.
  // Earlier stars need no second look, because the last one can stand for everything that they
  // could.
  size_t p = 0;
  size_t n = 0;
  size_t star = std::string_view::npos;
  size_t star_took_until = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_took_until = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++star_took_until;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

Identity::Identity(std::string token_id, std::string description, int64_t expires_unix_s,
                   std::vector<Grant> grants, std::shared_ptr<CallLimit> limit, std::string key_id)
    : token_id_(std::move(token_id)),
      description_(std::move(description)),
      expires_unix_s_(expires_unix_s),
      grants_(std::move(grants)),
      limit_(std::move(limit)),
      key_id_(std::move(key_id)) {}

bool Identity::Allows(ObjectKind kind, std::string_view name, Verb verb) const {
  for (const Grant& grant : grants_) {
    if (grant.kind == kind && (grant.verbs & static_cast<uint8_t>(verb)) != 0 &&
        PatternMatches(grant.pattern, name)) {
      return true;
    }
  }
  return false;
}

bool Identity::AllowsEvery(ObjectKind kind, Verb verb) const {
  for (const Grant& grant : grants_) {
    if (grant.kind == kind && (grant.verbs & static_cast<uint8_t>(verb)) != 0 &&
        grant.pattern == "*") {
      return true;
    }
  }
  return false;
}

bool Identity::ExpiredAt(int64_t unix_s) const {
  return expires_unix_s_ != 0 && unix_s >= expires_unix_s_;
}

Status Identity::Require(ObjectKind kind, std::string_view name, Verb verb) const {
  if (Allows(kind, name, verb)) return Status();
  std::string message = "token ";
  message.append(token_id_)
      .append(" has no grant to ")
      .append(VerbName(verb))
      .append(" ")
      .append(ObjectKindName(kind))
      .append(" \"")
      .append(name)
      .append("\"; use a token with this verb or have one made");
  return Status(Reason::kPermissionDenied, std::move(message));
}

}  // namespace statehouse
