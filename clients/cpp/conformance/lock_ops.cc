#include "lock_ops.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <span>
#include <string_view>
#include <utility>

#include "answers.h"

namespace sh = statehouse::client;

namespace {

std::string Text(const flat_json& in, const char* name) { return flat_json_text(&in, name, ""); }
bool Has(const flat_json& in, const char* name) { return flat_json_find(&in, name) != nullptr; }
uint64_t Number(const flat_json& in, const char* name) { return flat_json_number(&in, name, 0); }
std::chrono::milliseconds Ms(const flat_json& in, const char* name) {
  return std::chrono::milliseconds(static_cast<int64_t>(Number(in, name)));
}

bool IsOneOf(const std::string& op, std::span<const std::string_view> ops) {
  return std::find(ops.begin(), ops.end(), op) != ops.end();
}

sh::LockOptions OptionsOf(const flat_json& in) {
  sh::LockOptions options;
  if (Number(in, "shared") != 0) options.mode = SH_LOCK_SHARED;
  if (Has(in, "limit")) options.limit = static_cast<uint32_t>(Number(in, "limit"));
  if (Has(in, "ttl_ms")) options.ttl = Ms(in, "ttl_ms");
  if (Has(in, "hold_max_ms")) options.hold_max = Ms(in, "hold_max_ms");
  if (Has(in, "timeout_ms")) options.timeout = Ms(in, "timeout_ms");
  options.try_only = Number(in, "try") != 0;
  options.manual_renewal = Number(in, "manual_renewal") != 0;
  options.owner = Text(in, "owner");
  return options;
}

// Whether a type of the interface does not hold a member.
bool IsBeyond(const flat_json& in) {
  for (const char* const name : {"limit", "ttl_ms", "hold_max_ms", "timeout_ms", "token"}) {
    const flat_json_member* const member = flat_json_find(&in, name);
    if (member != nullptr && member->fits == 0) return true;
  }
  const flat_json_member* const limit = flat_json_find(&in, "limit");
  return limit != nullptr && limit->number > UINT32_MAX;
}

std::string ShowParties(const sh::LockInfo& info, bool waiting) {
  std::string text;
  for (const sh::LockParty& party : info.parties) {
    if ((party.token == 0) != waiting) continue;
    text += (text.empty() ? "" : ", ") + (R"({"owner": )" + Quoted(party.owner)) +
            R"(, "shared": )" + Boolean(party.mode == SH_LOCK_SHARED) + "}";
  }
  return "[" + text + "]";
}

std::string ShowLock(const sh::LockInfo& info, const std::string& show) {
  if (show == "holder_count") return std::to_string(info.holder_count);
  if (show == "waiter_count") return std::to_string(info.waiter_count);
  if (show == "name") return Quoted(info.name);
  if (show.empty()) {
    return R"({"limit": )" + std::to_string(info.limit) + R"(, "holders": )" +
           ShowParties(info, false) + R"(, "waiters": )" + ShowParties(info, true) + "}";
  }
  if (info.parties.empty()) return "null";
  const sh::LockParty& first = info.parties.front();
  if (show == "token") return std::to_string(first.token);
  if (show == "left_ms") return std::to_string(first.expires.count());
  if (show == "since_ms") return std::to_string(first.since.count());
  return Boolean(first.session_id != 0);
}

// Until the token is stopped: its loss is told within seconds.
void Await(const std::stop_token& lost) {
  std::mutex mutex;
  std::condition_variable told;
  const std::stop_callback tell(lost, [&] {
    const std::lock_guard<std::mutex> lock(mutex);
    told.notify_all();
  });
  std::unique_lock<std::mutex> lock(mutex);
  told.wait(lock, [&] { return lost.stop_requested(); });
}

}  // namespace

std::string LockOps::Finish(Handle& handle, Acquired acquired) {
  const auto show = [](const auto& lock) { return Boolean(lock.has_value()); };
  std::string answer = Answer(acquired, show);
  if (acquired.ok()) handle.lock = std::move(acquired).value();
  if (handle.lock.has_value()) handle.lost = handle.lock->lost();
  return answer;
}

std::string LockOps::Acquire(sh::Client& client, const flat_json& in) {
  if (IsBeyond(in)) return Inexpressible();
  const bool is_range = Has(in, "pos");
  const auto acquire = [&client, is_range, name = Text(in, "name"), pos = Number(in, "pos"),
                        len = Number(in, "len"), options = OptionsOf(in)]() -> Acquired {
    if (!is_range) return client.AcquireLock(name, options);
    const auto area = client.Open(name);
    if (!area.ok()) return area.error();
    return client.AcquireAreaLock(*area, pos, len, options);
  };
  Handle& handle = handles_.emplace_back();
  handle.label = Text(in, "as");
  if (Text(in, "op") == "acquire_lock") return Finish(handle, acquire());
  handle.waiting = std::async(std::launch::async, acquire);
  return Ok("null");
}

std::string LockOps::DoHandle(const std::string& op, Handle& handle, const flat_json& in) {
  if (op == "finish_acquire") return Finish(handle, handle.waiting.get());
  if (!handle.lock.has_value()) return Inexpressible();  // There is no object to call.
  sh::Lock& lock = *handle.lock;
  if (op == "release_lock") return Answer(lock.Release(), Boolean);
  if (op == "renew_lock") {
    if (IsBeyond(in)) return Inexpressible();
    std::optional<std::chrono::milliseconds> ttl;
    if (Has(in, "ttl_ms")) ttl = Ms(in, "ttl_ms");
    return Answer(lock.Renew(ttl), [](const sh::Done&) { return std::string("null"); });
  }
  if (op == "await_loss") {
    Await(*handle.lost);
    return Ok("true");
  }
  const std::string show = Text(in, "show");
  if (show == "held") return Ok(Boolean(lock.held()));
  if (show == "lost") return Ok(Boolean(handle.lost->stop_requested()));
  if (show == "left_ms") return Ok(std::to_string(lock.left().count()));
  return Ok(std::to_string(lock.token()));
}

std::optional<std::string> LockOps::DoClient(const std::string& op, sh::Client& client,
                                             const flat_json& in) {
  const std::string name = Text(in, "name");
  if (op == "acquire_lock" || op == "start_acquire") return Acquire(client, in);
  if (op == "describe_lock") {
    const std::string show = Text(in, "show");
    return Answer(client.DescribeLock(name),
                  [&](const sh::LockInfo& info) { return ShowLock(info, show); });
  }
  if (op == "list_locks") {
    const bool count = Text(in, "show") == "count";
    return Answer(client.ListLocks(Text(in, "prefix")), [&](const std::vector<sh::LockInfo>& all) {
      if (count) return std::to_string(all.size());
      std::vector<std::string> names;
      for (const sh::LockInfo& info : all) names.push_back(Quoted(info.name));
      std::sort(names.begin(), names.end());
      std::string text;
      for (const std::string& item : names) text += (text.empty() ? "" : ", ") + item;
      return "[" + text + "]";
    });
  }
  if (op == "force_release_lock") {
    if (IsBeyond(in)) return Inexpressible();
    return Answer(client.ForceReleaseLock(name, Number(in, "token")),
                  [](uint32_t released) { return std::to_string(released); });
  }
  return std::nullopt;
}

std::optional<std::string> LockOps::Do(sh::Client* client, const flat_json& in) {
  const std::string op = Text(in, "op");
  const std::string other = Text(in, "client");
  if (op == "open_client") {
    sh::Options options = options_;
    options.token = Text(in, "token");
    sh::Result<sh::Client> opened = sh::Client::Connect("", options);
    const std::string answer = Answer(opened, [](const auto&) { return std::string("null"); });
    if (opened.ok()) clients_.insert_or_assign(other, *std::move(opened));
    return answer;
  }
  if (op == "close_client") {
    clients_.erase(other);
    return Ok("null");
  }
  if (op == "let_go") {
    Clear();
    return Ok("null");
  }
  static constexpr std::string_view kOfHandles[] = {"finish_acquire", "release_lock", "renew_lock",
                                                    "await_loss", "show_lock"};
  if (IsOneOf(op, kOfHandles)) {
    const auto found =
        std::find_if(handles_.rbegin(), handles_.rend(),
                     [as = Text(in, "as")](const Handle& handle) { return handle.label == as; });
    return found == handles_.rend() ? Inexpressible() : DoHandle(op, *found, in);
  }
  if (!other.empty()) {
    const auto found = clients_.find(other);
    client = found == clients_.end() ? nullptr : &found->second;
    if (client == nullptr) return Inexpressible();
  }
  if (client != nullptr) return DoClient(op, *client, in);
  static constexpr std::string_view kOfClients[] = {
      "acquire_lock", "start_acquire", "describe_lock", "list_locks", "force_release_lock"};
  if (!IsOneOf(op, kOfClients)) return std::nullopt;
  return Inexpressible();  // There is no object to call.
}

void LockOps::Clear() {
  // Whoever waits has its turn once those before it are gone, and gives the lock back with its
  // answer.
  while (!handles_.empty()) handles_.pop_front();
  clients_.clear();
}
