// The C++ client of Statehouse: RAII and types over the C library (statehouse/statehouse.h). This
// header is all of it; it includes result.hpp, value.hpp, area.hpp, dict.hpp, watch.hpp, lock.hpp
// and batch.hpp. C++20.
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
#include <cstdint>
#include <memory>
#include <optional>
#include <statehouse/area.hpp>
#include <statehouse/batch.hpp>
#include <statehouse/dict.hpp>
#include <statehouse/lock.hpp>
#include <statehouse/result.hpp>
#include <statehouse/watch.hpp>
#include <string>
#include <utility>
#include <vector>

namespace statehouse::client {
namespace internal {

struct ClientCloser {
  void operator()(sh_client* client) const { sh_close(client); }
};

}  // namespace internal

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

  // Begins a batch: operations of this client's dicts, areas and locks, carried out together. It
  // may outlive the Client, and is refused with SH_CLIENT_CLOSED then.
  Batch NewBatch(const Batch::Options& options = {}) {
    sh_batch_options c_options{};
    c_options.stop_at_failure = options.stop_at_failure ? 1 : 0;
    sh_batch* batch = nullptr;
    (void)sh_batch_begin(client_.get(), &c_options, &batch, nullptr);  // NULL for no client.
    return Batch(batch);
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
