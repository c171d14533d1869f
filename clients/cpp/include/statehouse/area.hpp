// Area: an area of the service as a C++ object. Part of client.hpp.
//
//   area.Add<uint64_t>(0, 1).value();
//   area.Write(8, bytes, lock.token());
#pragma once

#include <statehouse/statehouse.h>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <statehouse/result.hpp>
#include <statehouse/watch.hpp>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace statehouse::client {
namespace internal {

struct AreaCloser {
  void operator()(sh_area* area) const { sh_area_close(area); }
};

}  // namespace internal

// The types that a word can have.
template <typename T>
concept Word = std::same_as<T, uint8_t> || std::same_as<T, uint16_t> || std::same_as<T, uint32_t> ||
    std::same_as<T, uint64_t> || std::same_as<T, int8_t> || std::same_as<T, int16_t> ||
    std::same_as<T, int32_t> || std::same_as<T, int64_t>;

template <Word T>
constexpr sh_word_type WordTypeOf() {
  constexpr int kWidth = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
  return static_cast<sh_word_type>(kWidth + (std::is_signed_v<T> ? SH_I8 : SH_U8));
}

template <Word T>
struct Exchange {
  bool exchanged = false;  // `desired` was written.
  T found = 0;             // What the word held before.
};

struct WaitOutcome {
  bool changed = false;  // False: the time was over first.
  uint64_t updates = 0;  // The counter now.
};

// One open area.
//
// Who owns it: whoever holds it; it is moved, not copied. It may outlive its Client, and then
// answers SH_CLIENT_CLOSED. Threads: any number may call its methods at once; moving and destroying
// need all calls to have returned. Failure: errors of every call are those of statehouse.h; a
// refused call changed nothing.
class Area final {
 public:
  std::string name() const { return sh_area_name(area_.get()); }
  uint64_t size() const { return sh_area_size(area_.get()); }

  // The word at `pos`; any alignment. Errors: SH_OUT_OF_BOUNDS, SH_AREA_NOT_FOUND.
  template <Word T>
  Result<T> Load(uint64_t pos) const {
    uint64_t value = 0;
    return Finish<T>(
        [&](sh_error** e) { return sh_load(area_.get(), WordTypeOf<T>(), pos, &value, e); },
        [&] { return static_cast<T>(value); });
  }
  // `fence` of this and of everything that writes: a fencing token (Lock::token()); 0: none. It is
  // refused with SH_FENCED where a higher one wrote to a stripe that the call touches; see
  // sh_store_fenced. Errors: as Load, SH_READ_ONLY, SH_FENCED, SH_STALLED.
  template <Word T>
  Result<Done> Store(uint64_t pos, std::type_identity_t<T> value, uint64_t fence = 0) {
    return Finish<Done>(
        [&](sh_error** e) {
          return sh_store_fenced(area_.get(), WordTypeOf<T>(), pos, Widen(value), fence, e);
        },
        [] { return Done(); });
  }
  // Adds modulo the width, and gives the new value. Errors: as Store.
  template <Word T>
  Result<T> Add(uint64_t pos, int64_t delta = 1, uint64_t fence = 0) {
    uint64_t value = 0;
    return Finish<T>(
        [&](sh_error** e) {
          return sh_add_fenced(area_.get(), WordTypeOf<T>(), pos, delta, fence, &value, e);
        },
        [&] { return static_cast<T>(value); });
  }
  // Writes `desired` if the word equals `expected`. Errors: as Store.
  template <Word T>
  Result<Exchange<T>> CompareExchange(uint64_t pos, std::type_identity_t<T> expected,
                                      std::type_identity_t<T> desired, uint64_t fence = 0) {
    int exchanged = 0;
    uint64_t found = 0;
    return Finish<Exchange<T>>(
        [&](sh_error** e) {
          return sh_compare_exchange_fenced(area_.get(), WordTypeOf<T>(), pos, Widen(expected),
                                            Widen(desired), fence, &exchanged, &found, e);
        },
        [&] {
          return Exchange<T>{exchanged != 0, static_cast<T>(found)};
        });
  }
  // Combine bit by bit, and give the new value. Errors: as Store.
  template <Word T>
  Result<T> BitwiseAnd(uint64_t pos, std::type_identity_t<T> operand, uint64_t fence = 0) {
    return Bitwise<T>(SH_AND, pos, operand, fence);
  }
  template <Word T>
  Result<T> BitwiseOr(uint64_t pos, std::type_identity_t<T> operand, uint64_t fence = 0) {
    return Bitwise<T>(SH_OR, pos, operand, fence);
  }
  template <Word T>
  Result<T> BitwiseXor(uint64_t pos, std::type_identity_t<T> operand, uint64_t fence = 0) {
    return Bitwise<T>(SH_XOR, pos, operand, fence);
  }

  // Fills `out` from `pos` on. Errors: as Load, SH_STALLED.
  Result<Done> Read(uint64_t pos, std::span<std::byte> out) const {
    return Finish<Done>(
        [&](sh_error** e) { return sh_read(area_.get(), pos, out.data(), out.size(), e); },
        [] { return Done(); });
  }
  // `len` bytes from `pos` on, or those up to the end of the area.
  Result<std::vector<std::byte>> Read(uint64_t pos, std::optional<uint64_t> len = {}) const {
    const uint64_t wanted = len.value_or(pos <= size() ? size() - pos : 0);
    // A length that no area has is refused before memory is asked for it.
    std::vector<std::byte> bytes(wanted <= size() ? wanted : 0);
    return Finish<std::vector<std::byte>>(
        [&](sh_error** e) { return sh_read(area_.get(), pos, bytes.data(), wanted, e); },
        [&] { return std::move(bytes); });
  }
  // All of `bytes` or nothing, up to 64 KiB; longer ranges piece by piece. Errors: as Store.
  Result<Done> Write(uint64_t pos, std::span<const std::byte> bytes, uint64_t fence = 0) {
    return Finish<Done>(
        [&](sh_error** e) {
          return sh_write_fenced(area_.get(), pos, bytes.data(), bytes.size(), fence, e);
        },
        [] { return Done(); });
  }
  Result<Done> Fill(uint64_t pos, uint64_t len, std::byte value, uint64_t fence = 0) {
    return Finish<Done>(
        [&](sh_error** e) {
          return sh_fill_fenced(area_.get(), pos, len, static_cast<uint8_t>(value), fence, e);
        },
        [] { return Done(); });
  }

  // The update counter: grows with every completed mutation.
  Result<uint64_t> Updates() const {
    uint64_t updates = 0;
    return Finish<uint64_t>([&](sh_error** e) { return sh_updates(area_.get(), &updates, e); },
                            [&] { return updates; });
  }
  // Waits until the counter differs from `since`, or the timeout has passed; without one, for ever.
  // Time is rounded up to milliseconds. Errors: SH_AREA_NOT_FOUND (also when deleted meanwhile),
  // SH_UNAVAILABLE.
  Result<WaitOutcome> Wait(uint64_t since,
                           std::optional<std::chrono::nanoseconds> timeout = {}) const {
    uint64_t timeout_ms = SH_FOREVER;
    if (timeout) {
      const auto rounded = std::chrono::ceil<std::chrono::milliseconds>(*timeout).count();
      timeout_ms = rounded > 0 ? static_cast<uint64_t>(rounded) : 0;
    }
    int changed = 0;
    uint64_t updates = 0;
    return Finish<WaitOutcome>(
        [&](sh_error** e) {
          return sh_wait(area_.get(), since, timeout_ms, &changed, &updates, e);
        },
        [&] {
          return WaitOutcome{changed != 0, updates};
        });
  }

  // Begins a watch: what the range holds, then what its bytes are whenever they changed. Errors:
  // SH_OUT_OF_BOUNDS, SH_INVALID_ARGUMENT, SH_LIMIT_EXCEEDED, SH_CLIENT_FORKED.
  Result<AreaWatch> Watch(const AreaWatchOptions& options = {}) const {
    const sh_area_watch_options c_options = options.ToC();
    sh_watch* watch = nullptr;
    return Finish<AreaWatch>(
        [&](sh_error** e) {
          return sh_area_watch(area_.get(), options.pos, options.CLength(), &c_options, &watch, e);
        },
        [&] { return AreaWatch(watch); });
  }

  // The bytes themselves, valid as long as this object: stores are not counted and wake nobody.
  // Local door only. Errors: SH_UNIMPLEMENTED (network door), SH_READ_ONLY.
  Result<std::span<std::byte>> Data() {
    void* data = nullptr;
    return Finish<std::span<std::byte>>(
        [&](sh_error** e) { return sh_area_data(area_.get(), 1, &data, e); },
        [&] { return std::span<std::byte>(static_cast<std::byte*>(data), size()); });
  }
  Result<std::span<const std::byte>> ReadOnlyData() const {
    void* data = nullptr;
    return Finish<std::span<const std::byte>>(
        [&](sh_error** e) { return sh_area_data(area_.get(), 0, &data, e); },
        [&] { return std::span<const std::byte>(static_cast<std::byte*>(data), size()); });
  }

 private:
  friend class Batch;
  friend class Client;
  explicit Area(sh_area* area) : area_(area) {}

  // A number as the C interface takes it: 64-bit two's complement.
  template <Word T>
  static constexpr uint64_t Widen(T value) {
    if constexpr (std::is_signed_v<T>) return static_cast<uint64_t>(static_cast<int64_t>(value));
    return static_cast<uint64_t>(value);
  }
  template <typename T, typename Call, typename Value>
  static Result<T> Finish(const Call& call, const Value& value) {
    return internal::Finish<T>(call, value);
  }
  template <Word T>
  Result<T> Bitwise(sh_bitwise_operator op, uint64_t pos, T operand, uint64_t fence) {
    uint64_t value = 0;
    return Finish<T>(
        [&](sh_error** e) {
          return sh_bitwise_fenced(area_.get(), op, WordTypeOf<T>(), pos, Widen(operand), fence,
                                   &value, e);
        },
        [&] { return static_cast<T>(value); });
  }

  std::unique_ptr<sh_area, internal::AreaCloser> area_;
};

}  // namespace statehouse::client
