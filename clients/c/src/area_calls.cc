// The part of the C interface that operates on an area: check what the caller gave, then the local
// door or the network door.
#include <span>
#include <string>

#include "clients/c/src/client_handle.h"

namespace statehouse {
namespace {

StatusOr<WordType> TypeOf(sh_word_type type) {
  if (IsWordType(static_cast<unsigned>(type))) return static_cast<WordType>(type);
  return Status(Reason::kWidthInvalid, "word type " + std::to_string(static_cast<int>(type)) +
                                           " is none of SH_U8 … SH_I64");
}

// OK when the 64-bit two's complement `number` fits the type.
Status CheckFits(WordType type, uint64_t number) {
  const bool fits =
      IsSigned(type) ? FitsSigned(type, static_cast<int64_t>(number)) : FitsUnsigned(type, number);
  if (fits) return Status();
  const std::string text =
      IsSigned(type) ? std::to_string(static_cast<int64_t>(number)) : std::to_string(number);
  return Status(Reason::kValueOutOfRange,
                text + " does not fit " + (IsSigned(type) ? "a signed" : "an unsigned") +
                    " word of " + std::to_string(WordBytes(type)) + " bytes");
}

// The bits of a word as the number that the C interface gives out.
uint64_t NumberOf(WordType type, uint64_t bits) {
  return IsSigned(type) ? static_cast<uint64_t>(SignExtend(type, bits)) : bits;
}

Status Load(sh_area* area, sh_word_type c_type, uint64_t pos, uint64_t* value) {
  SH_ASSIGN_OR_RETURN(const WordType type, TypeOf(c_type));
  if (area->local == nullptr) return NetworkLoad(*area, type, pos, value);
  uint64_t bits = 0;
  SH_RETURN_IF_ERROR(area->local->Load(type, pos, &bits));
  *value = NumberOf(type, bits);
  return Status();
}

Status Store(sh_area* area, sh_word_type c_type, uint64_t pos, uint64_t value, uint64_t fence) {
  SH_ASSIGN_OR_RETURN(const WordType type, TypeOf(c_type));
  SH_RETURN_IF_ERROR(CheckFits(type, value));
  if (area->local == nullptr) return NetworkStore(*area, type, pos, value, fence);
  return area->local->Store(type, pos, value & WordMask(type), fence);
}

Status Add(sh_area* area, sh_word_type c_type, uint64_t pos, int64_t delta, uint64_t fence,
           uint64_t* value) {
  SH_ASSIGN_OR_RETURN(const WordType type, TypeOf(c_type));
  uint64_t result = 0;
  if (area->local == nullptr) {
    SH_RETURN_IF_ERROR(NetworkAdd(*area, type, pos, delta, fence, &result));
  } else {
    SH_RETURN_IF_ERROR(area->local->Add(type, pos, static_cast<uint64_t>(delta), &result, fence));
    result = NumberOf(type, result);
  }
  if (value != nullptr) *value = result;
  return Status();
}

Status CompareExchange(sh_area* area, sh_word_type c_type, uint64_t pos, uint64_t expected,
                       uint64_t desired, uint64_t fence, CompareExchangeResult* result) {
  SH_ASSIGN_OR_RETURN(const WordType type, TypeOf(c_type));
  SH_RETURN_IF_ERROR(CheckFits(type, expected));
  SH_RETURN_IF_ERROR(CheckFits(type, desired));
  if (area->local == nullptr) {
    return NetworkCompareExchange(*area, type, pos, expected, desired, fence, result);
  }
  const uint64_t mask = WordMask(type);
  SH_RETURN_IF_ERROR(
      area->local->CompareExchange(type, pos, expected & mask, desired & mask, result, fence));
  result->found = NumberOf(type, result->found);
  return Status();
}

Status Bitwise(sh_area* area, sh_bitwise_operator op, sh_word_type c_type, uint64_t pos,
               uint64_t operand, uint64_t fence, uint64_t* value) {
  SH_ASSIGN_OR_RETURN(const WordType type, TypeOf(c_type));
  if (op < SH_AND || op > SH_XOR) {
    return Status(Reason::kInvalidArgument, "the operator is none of SH_AND, SH_OR and SH_XOR");
  }
  SH_RETURN_IF_ERROR(CheckFits(type, operand));
  const auto engine_op = static_cast<BitwiseOperator>(op);
  uint64_t result = 0;
  if (area->local == nullptr) {
    SH_RETURN_IF_ERROR(NetworkBitwise(*area, engine_op, type, pos, operand, fence, &result));
  } else {
    SH_RETURN_IF_ERROR(
        area->local->Bitwise(engine_op, type, pos, operand & WordMask(type), &result, fence));
    result = NumberOf(type, result);
  }
  if (value != nullptr) *value = result;
  return Status();
}

// A span must not be made of a length that no memory has.
Status CheckRange(const sh_area& area, uint64_t pos, uint64_t len, const void* bytes) {
  if (len > area.size) {
    return Status(Reason::kOutOfBounds, "area \"" + area.name + "\": [" + std::to_string(pos) +
                                            ", +" + std::to_string(len) + ") is not inside its " +
                                            std::to_string(area.size) + " bytes");
  }
  if (bytes == nullptr && len > 0) {
    return Status(Reason::kInvalidArgument, "area \"" + area.name + "\": the buffer is NULL");
  }
  return Status();
}

Status Read(sh_area* area, uint64_t pos, void* buffer, uint64_t len) {
  SH_RETURN_IF_ERROR(CheckRange(*area, pos, len, buffer));
  auto* const out = static_cast<std::byte*>(buffer);
  if (area->local == nullptr) return NetworkRead(*area, pos, out, len);
  return area->local->Read(pos, std::span<std::byte>(out, len));
}

Status Write(sh_area* area, uint64_t pos, const void* bytes, uint64_t len, uint64_t fence) {
  SH_RETURN_IF_ERROR(CheckRange(*area, pos, len, bytes));
  const auto* const in = static_cast<const std::byte*>(bytes);
  if (area->local == nullptr) return NetworkWrite(*area, pos, in, len, fence);
  return area->local->Write(pos, std::span<const std::byte>(in, len), fence);
}

StatusOr<WaitResult> Wait(sh_area* area, uint64_t since, uint64_t timeout_ms) {
  const Deadline deadline = DeadlineAfterMs(timeout_ms);
  return area->local == nullptr ? NetworkWait(*area, since, deadline)
                                : area->local->Wait(since, deadline);
}

Status Data(sh_area* area, bool writable, void** data) {
  if (area->local == nullptr) {
    return Status(Reason::kUnimplemented,
                  "area \"" + area->name +
                      "\" is reached over the network; its bytes are not in this process, use "
                      "sh_read and sh_write");
  }
  if (writable && !area->local->writable()) {
    return Status(Reason::kReadOnly,
                  "area \"" + area->name + "\" is read-only for this access token");
  }
  *data = area->local->data();
  return Status();
}

}  // namespace
}  // namespace statehouse

using statehouse::Finish;

sh_reason sh_load(sh_area* area, sh_word_type type, uint64_t pos, uint64_t* value,
                  sh_error** error) {
  return Finish(statehouse::Load(area, type, pos, value), area->name.c_str(), error);
}

sh_reason sh_store(sh_area* area, sh_word_type type, uint64_t pos, uint64_t value,
                   sh_error** error) {
  return sh_store_fenced(area, type, pos, value, 0, error);
}

sh_reason sh_store_fenced(sh_area* area, sh_word_type type, uint64_t pos, uint64_t value,
                          uint64_t fence, sh_error** error) {
  return Finish(statehouse::Store(area, type, pos, value, fence), area->name.c_str(), error);
}

sh_reason sh_add(sh_area* area, sh_word_type type, uint64_t pos, int64_t delta, uint64_t* value,
                 sh_error** error) {
  return sh_add_fenced(area, type, pos, delta, 0, value, error);
}

sh_reason sh_add_fenced(sh_area* area, sh_word_type type, uint64_t pos, int64_t delta,
                        uint64_t fence, uint64_t* value, sh_error** error) {
  return Finish(statehouse::Add(area, type, pos, delta, fence, value), area->name.c_str(), error);
}

sh_reason sh_compare_exchange(sh_area* area, sh_word_type type, uint64_t pos, uint64_t expected,
                              uint64_t desired, int* exchanged, uint64_t* found, sh_error** error) {
  return sh_compare_exchange_fenced(area, type, pos, expected, desired, 0, exchanged, found, error);
}

sh_reason sh_compare_exchange_fenced(sh_area* area, sh_word_type type, uint64_t pos,
                                     uint64_t expected, uint64_t desired, uint64_t fence,
                                     int* exchanged, uint64_t* found, sh_error** error) {
  statehouse::CompareExchangeResult result;
  const statehouse::Status status =
      statehouse::CompareExchange(area, type, pos, expected, desired, fence, &result);
  if (status.ok()) {
    if (exchanged != nullptr) *exchanged = result.exchanged;
    if (found != nullptr) *found = result.found;
  }
  return Finish(status, area->name.c_str(), error);
}

sh_reason sh_bitwise(sh_area* area, sh_bitwise_operator op, sh_word_type type, uint64_t pos,
                     uint64_t operand, uint64_t* value, sh_error** error) {
  return sh_bitwise_fenced(area, op, type, pos, operand, 0, value, error);
}

sh_reason sh_bitwise_fenced(sh_area* area, sh_bitwise_operator op, sh_word_type type, uint64_t pos,
                            uint64_t operand, uint64_t fence, uint64_t* value, sh_error** error) {
  return Finish(statehouse::Bitwise(area, op, type, pos, operand, fence, value), area->name.c_str(),
                error);
}

sh_reason sh_read(sh_area* area, uint64_t pos, void* buffer, uint64_t len, sh_error** error) {
  return Finish(statehouse::Read(area, pos, buffer, len), area->name.c_str(), error);
}

sh_reason sh_write(sh_area* area, uint64_t pos, const void* bytes, uint64_t len, sh_error** error) {
  return sh_write_fenced(area, pos, bytes, len, 0, error);
}

sh_reason sh_write_fenced(sh_area* area, uint64_t pos, const void* bytes, uint64_t len,
                          uint64_t fence, sh_error** error) {
  return Finish(statehouse::Write(area, pos, bytes, len, fence), area->name.c_str(), error);
}

sh_reason sh_fill(sh_area* area, uint64_t pos, uint64_t len, uint8_t value, sh_error** error) {
  return sh_fill_fenced(area, pos, len, value, 0, error);
}

sh_reason sh_fill_fenced(sh_area* area, uint64_t pos, uint64_t len, uint8_t value, uint64_t fence,
                         sh_error** error) {
  return Finish(area->local == nullptr ? statehouse::NetworkFill(*area, pos, len, value, fence)
                                       : area->local->Fill(pos, len, std::byte{value}, fence),
                area->name.c_str(), error);
}

sh_reason sh_updates(sh_area* area, uint64_t* updates, sh_error** error) {
  const auto result =
      area->local == nullptr ? statehouse::NetworkUpdates(*area) : area->local->Updates();
  if (result.ok()) *updates = *result;
  return Finish(result.status(), area->name.c_str(), error);
}

sh_reason sh_wait(sh_area* area, uint64_t since, uint64_t timeout_ms, int* changed,
                  uint64_t* updates, sh_error** error) {
  const auto result = statehouse::Wait(area, since, timeout_ms);
  if (result.ok()) {
    if (changed != nullptr) *changed = result.value().changed;
    if (updates != nullptr) *updates = result.value().updates;
  }
  return Finish(result.status(), area->name.c_str(), error);
}

sh_reason sh_area_data(sh_area* area, int writable, void** data, sh_error** error) {
  return Finish(statehouse::Data(area, writable != 0, data), area->name.c_str(), error);
}
