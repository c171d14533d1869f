#include "engine/value/splice.h"

#include "engine/value/wire.h"

namespace statehouse::internal {

Status Splice::Write(std::string* next) const {
  size_t added = 0;
  for (size_t i = 0; i < piece_count_; ++i) added += pieces_[i].size();
  // From the inside out: a length that needs more bytes makes what is around it longer.
  std::array<size_t, kPartsMax> lengths;
  size_t removed = replaced_.size();
  for (size_t i = part_count_; i-- > 0;) {
    const size_t length = parts_[i].size() - removed + added;
    lengths[i] = length;
    removed += VarintBytes(parts_[i].size());
    added += VarintBytes(length);
  }
  const size_t total = whole_.size() - removed + added;
  if (total > kValueBytesMax) {
    return Status(Reason::kValueInvalid, "the edit would make the value " + std::to_string(total) +
                                             " bytes long; a value has at most 1,048,576");
  }
  next->clear();
  next->reserve(total);
  const char* at = whole_.data();
  const auto copy_to = [&](const char* end) { next->append(at, static_cast<size_t>(end - at)); };
  for (size_t i = 0; i < part_count_; ++i) {
    copy_to(parts_[i].data() - VarintBytes(parts_[i].size()));
    AppendVarint(next, lengths[i]);
    at = parts_[i].data();
  }
  copy_to(replaced_.data());
  for (size_t i = 0; i < piece_count_; ++i) next->append(pieces_[i]);
  at = replaced_.data() + replaced_.size();
  copy_to(whole_.data() + whole_.size());
  return Status();
}

}  // namespace statehouse::internal
