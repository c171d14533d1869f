// What a serialized request names, found without decoding it.
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include "engine/base/limits.h"
#include "service/api/dispatcher.h"

namespace statehouse {

std::string_view NameIn(std::string_view request) {
  using google::protobuf::internal::WireFormatLite;
  using google::protobuf::io::CodedInputStream;
  if (request.size() > INT32_MAX) return {};
  CodedInputStream input(reinterpret_cast<const uint8_t*>(request.data()),
                         static_cast<int>(request.size()));
  constexpr uint32_t kNameTag = 1 << 3 | 2;
  // As a decoder takes it: the last one counts, wherever it stands.
  std::string_view name;
  for (uint32_t tag = input.ReadTag(); tag != 0; tag = input.ReadTag()) {
    if (tag != kNameTag) {
      if (!WireFormatLite::SkipField(&input, tag)) break;
      continue;
    }
    uint32_t length = 0;
    if (!input.ReadVarint32(&length)) break;
    const size_t begin = static_cast<size_t>(input.CurrentPosition());
    if (length > request.size() - begin || !input.Skip(static_cast<int>(length))) break;
    name = length > kNameBytesMax ? std::string_view() : request.substr(begin, length);
  }
  return name;
}

std::string_view ObjectNameOf(std::string_view method, std::string_view request) {
  // Every request of Areas, Dicts and Locks but the listings has its name as field 1; others name
  // nothing.
  const bool named = method.starts_with("/statehouse.v1.Areas/") ||
                     method.starts_with("/statehouse.v1.Dicts/") ||
                     method.starts_with("/statehouse.v1.Locks/");
  if (!named || method.ends_with("/ListAreas") || method.ends_with("/ListDicts") ||
      method.ends_with("/ListLocks")) {
    return {};
  }
  return NameIn(request);
}

}  // namespace statehouse
