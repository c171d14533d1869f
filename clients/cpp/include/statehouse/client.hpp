// The C++ client of Statehouse: RAII and types over the C library (statehouse/statehouse.h). This
// header is all of it; it includes result.hpp, value.hpp, dict.hpp, watch.hpp and lock.hpp. C++20.
//
//   auto client = statehouse::client::Client::Connect();
//   if (!client.ok()) { std::cerr << client.error().message() << '\n'; return 1; }
//   auto area = client->Open("counters", 4096);
//   if (area.ok()) std::cout << "visit " << area->Add<uint64_t>(0, 1).value() << '\n';
//   auto dict = client->OpenDict("sessions");
//   if (dict.ok()) dict->Set("user", "Ada");
//   auto lock = client->AcquireLock("deploy");
//   if (lock.ok()) std::cout << "token " << (**lock).token() << '\n';
//
// Nothing throws. Each call returns a Result: a value, or an Error with a reason to branch on.
// Positions, lengths and sizes are bytes. Link with -lstatehouse.
#pragma once

#include <statehouse/statehouse.h>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <statehouse/dict.hpp>
#include <statehouse/lock.hpp>
#include <statehouse/result.hpp>
#include <statehouse/watch.hpp>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace statehouse::client {
namespace internal {

struct ClientCloser {
  void operator()(sh_client* client) const { sh_close(client); }
};
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

// How to connect. What is empty is taken from the environment, or has a default; see statehouse.h.
struct Options {
  std::string token;
  std::string token_file;
  std::string client_name;              // Shown to operators.
  std::chrono::milliseconds timeout{};  // Of each call; zero: 5 s, or the URL's.
  sh_transport transport = SH_TRANSPORT_AUTO;
};

// How to create an area: `size` bytes or `pages` pages of 4,096.
struct AreaSpec {
  uint64_t size = 0;
  uint64_t pages = 0;
  std::string file;        // A file of the service's host; empty: memory.
  uint64_t offset = 0;     // In the file; a multiple of 4,096.
  bool exclusive = false;  // Refuse a name that exists.
};

// A connection to a service.
//
// Who owns it: whoever holds it; it is moved, not copied. Destroying it ends the connection.
// Threads: any number may call its methods at once. fork(): as statehouse.h says.
class Client final {
 public:
  // `url` empty: STATEHOUSE_URL, else this user's service, else 127.0.0.1:7700.
  static Result<Client> Connect(const std::string& url = "", const Options& options = {}) {
    sh_options c_options{};
    c_options.token = OrNull(options.token);
    c_options.token_file = OrNull(options.token_file);
    c_options.client_name = OrNull(options.client_name);
    c_options.timeout_ms = static_cast<uint64_t>(options.timeout.count());
    c_options.transport = options.transport;
    sh_client* client = nullptr;
    internal::ErrorSlot slot;
    const sh_reason reason = sh_connect(OrNull(url), &c_options, &client, slot.out());
    if (reason != SH_OK) return slot.Take(reason);
    return Client(client);
  }

  // The door in use: SH_TRANSPORT_LOCAL or SH_TRANSPORT_NETWORK.
  sh_transport transport() const { return sh_transport_of(client_.get()); }

  // Opens an area; with `size` > 0 it is created when it does not exist.
  Result<Area> Open(const std::string& name, uint64_t size = 0) {
    sh_area* area = nullptr;
    internal::ErrorSlot slot;
    const sh_reason reason = sh_area_open(client_.get(), name.c_str(), size, &area, slot.out());
    if (reason != SH_OK) return slot.Take(reason);
    return Area(area);
  }
  // Creates an area, or finds the one that agrees.
  Result<sh_area_info> Create(const std::string& name, const AreaSpec& spec) {
    sh_area_spec c_spec{};
    c_spec.size = spec.size;
    c_spec.pages = spec.pages;
    c_spec.file = OrNull(spec.file);
    c_spec.offset = spec.offset;
    c_spec.exclusive = spec.exclusive ? 1 : 0;
    sh_area_info info{};
    internal::ErrorSlot slot;
    const sh_reason reason =
        sh_area_create(client_.get(), name.c_str(), &c_spec, &info, nullptr, slot.out());
    if (reason != SH_OK) return slot.Take(reason);
    return info;
  }
  Result<sh_area_info> Describe(const std::string& name) {
    sh_area_info info{};
    internal::ErrorSlot slot;
    const sh_reason reason = sh_area_describe(client_.get(), name.c_str(), &info, slot.out());
    if (reason != SH_OK) return slot.Take(reason);
    return info;
  }
  Result<Done> Delete(const std::string& name) {
    internal::ErrorSlot slot;
    const sh_reason reason = sh_area_delete(client_.get(), name.c_str(), slot.out());
    if (reason != SH_OK) return slot.Take(reason);
    return Done();
  }
  // In order of creation; all, or those whose name begins with `prefix`.
  Result<std::vector<sh_area_info>> List(const std::string& prefix = "") {
    sh_area_info* infos = nullptr;
    size_t count = 0;
    internal::ErrorSlot slot;
    const sh_reason reason =
        sh_area_list(client_.get(), prefix.c_str(), &infos, &count, slot.out());
    if (reason != SH_OK) return slot.Take(reason);
    std::vector<sh_area_info> list(infos, infos + count);
    sh_area_list_free(infos);
    return list;
  }

  // Opens a dict, which is created when it does not exist; without a spec it must exist.
  Result<Dict> OpenDict(const std::string& name, const std::optional<DictSpec>& spec = DictSpec()) {
    const sh_dict_spec c_spec = spec.value_or(DictSpec()).ToC();
    sh_dict* dict = nullptr;
    return internal::Finish<Dict>(
        [&](sh_error** e) {
          return sh_dict_open(client_.get(), name.c_str(), spec ? &c_spec : nullptr, &dict, e);
        },
        [&] { return Dict(dict); });
  }
  // Creates a dict, or finds the one that agrees.
  Result<sh_dict_info> CreateDict(const std::string& name, const DictSpec& spec = {}) {
    const sh_dict_spec c_spec = spec.ToC();
    sh_dict_info info{};
    return internal::Finish<sh_dict_info>(
        [&](sh_error** e) {
          return sh_dict_create(client_.get(), name.c_str(), &c_spec, &info, nullptr, e);
        },
        [&] { return info; });
  }
  Result<sh_dict_info> DescribeDict(const std::string& name) {
    sh_dict_info info{};
    return internal::Finish<sh_dict_info>(
        [&](sh_error** e) { return sh_dict_describe(client_.get(), name.c_str(), &info, e); },
        [&] { return info; });
  }
  Result<Done> DeleteDict(const std::string& name) {
    return internal::Finish<Done>(
        [&](sh_error** e) { return sh_dict_delete(client_.get(), name.c_str(), e); },
        [] { return Done(); });
  }
  // In order of creation; all, or those whose name begins with `prefix`.
  Result<std::vector<sh_dict_info>> ListDicts(const std::string& prefix = "") {
    sh_dict_info* infos = nullptr;
    size_t count = 0;
    return internal::Finish<std::vector<sh_dict_info>>(
        [&](sh_error** e) {
          return sh_dict_list(client_.get(), prefix.c_str(), &infos, &count, e);
        },
        [&] {
          std::vector<sh_dict_info> list(infos, infos + count);
          sh_dict_list_free(infos);
          return list;
        });
  }

  // Takes a lock and waits for it. Empty: it was not had in time, which is no error. Further
  // errors: SH_CONFLICT (in use with another limit), SH_LIMIT_EXCEEDED, SH_STALLED.
  Result<std::optional<Lock>> AcquireLock(const std::string& name,
                                          const LockOptions& options = {}) {
    const auto take = [&](const sh_lock_options& c, sh_lock** lock, sh_error** e) {
      return sh_lock_acquire(client_.get(), name.c_str(), &c, lock, e);
    };
    return Lock::Acquire(name, options, take);
  }
  // Takes the lock of a range of an area that this client opened; its token is for that area's
  // writes. Stripes and errors: see sh_area_lock.
  Result<std::optional<Lock>> AcquireAreaLock(const Area& area, uint64_t pos, uint64_t len,
                                              const LockOptions& options = {}) {
    const auto take = [&](const sh_lock_options& c, sh_lock** lock, sh_error** e) {
      return sh_area_lock(client_.get(), area.area_.get(), pos, len, &c, lock, e);
    };
    return Lock::Acquire(area.name(), options, take);
  }
  // Who has one lock; without parties where nobody uses it.
  Result<LockInfo> DescribeLock(const std::string& name) {
    sh_lock_info* info = nullptr;
    return internal::Finish<LockInfo>(
        [&](sh_error** e) { return sh_lock_describe(client_.get(), name.c_str(), &info, e); },
        [&] {
          LockInfo described = LockInfo::FromC(*info);
          sh_lock_infos_free(info, 1);
          return described;
        });
  }
  // All locks in use that the token may see, or those whose name begins with `prefix`.
  Result<std::vector<LockInfo>> ListLocks(const std::string& prefix = "") {
    sh_lock_info* infos = nullptr;
    size_t count = 0;
    return internal::Finish<std::vector<LockInfo>>(
        [&](sh_error** e) {
          return sh_lock_list(client_.get(), prefix.c_str(), &infos, &count, e);
        },
        [&] {
          std::vector<LockInfo> list;
          for (size_t i = 0; i < count; ++i) list.push_back(LockInfo::FromC(infos[i]));
          sh_lock_infos_free(infos, count);
          return list;
        });
  }
  // For operators: takes the lock from the holder with this token, 0: from all; gives from how
  // many.
  Result<uint32_t> ForceReleaseLock(const std::string& name, uint64_t token = 0) {
    uint32_t released = 0;
    return internal::Finish<uint32_t>(
        [&](sh_error** e) {
          return sh_lock_force_release(client_.get(), name.c_str(), token, &released, e);
        },
        [&] { return released; });
  }

  Result<sh_status> GetStatus() {
    sh_status status{};
    internal::ErrorSlot slot;
    const sh_reason reason = sh_get_status(client_.get(), &status, slot.out());
    if (reason != SH_OK) return slot.Take(reason);
    return status;
  }

 private:
  explicit Client(sh_client* client) : client_(client) {}
  static const char* OrNull(const std::string& text) {
    return text.empty() ? nullptr : text.c_str();
  }

  std::unique_ptr<sh_client, internal::ClientCloser> client_;
};

}  // namespace statehouse::client
