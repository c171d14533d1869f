#include "clients/c/src/dict_message.h"

#include "clients/c/src/wire_fields.h"

namespace statehouse {

std::string EncodeDictName(std::string_view name) {
  std::string request;
  AppendBytesField(1, name, &request);
  return request;
}

std::string EncodeEntryName(std::string_view name, std::string_view key) {
  std::string request = EncodeDictName(name);
  AppendBytesField(2, key, &request);
  return request;
}

StatusOr<uint64_t> DecodeClearDictResponse(std::string_view bytes) {
  uint64_t deleted = 0;
  while (!bytes.empty()) {
    uint64_t field = 0;
    uint64_t number = 0;
    if (!TakeVarintField(&bytes, &field, &number)) {
      return Status(Reason::kInternal, "the daemon's answer to ClearDict is malformed");
    }
    if (field == 1) deleted = number;
  }
  return deleted;
}

}  // namespace statehouse
