// The conformance program of the C++ client: operations as JSON lines on stdin, results on stdout.
// tests/conformance/README.md describes them. Usage: conformance_cpp local|network.
#include <cstdlib>
#include <iostream>
#include <limits>
#include <map>
#include <optional>
#include <statehouse/client.hpp>
#include <string>
#include <string_view>

#include "answers.h"
#include "batch_ops.h"
#include "dict_ops.h"
#include "flat_json.h"
#include "lock_ops.h"
#include "watch_ops.h"

namespace {

namespace sh = statehouse::client;

std::string Number(uint64_t number) { return std::to_string(number); }
std::string Number(int64_t number) { return std::to_string(number); }
template <sh::Word T>
std::string WordText(T word) {
  if constexpr (std::is_signed_v<T>) return Number(static_cast<int64_t>(word));
  return Number(static_cast<uint64_t>(word));
}

class Program final {
 public:
  Program(sh::Client client, const sh::Options& options, std::string token)
      : client_(std::move(client)), options_(options), token_(std::move(token)), locks_(options) {}
  std::string Do(const flat_json& in);

 private:
  std::string DoConnect(const flat_json& in);
  std::string DoControl(std::string_view op, const std::string& name, const flat_json& in);
  std::string DoArea(std::string_view op, sh::Area& area, const flat_json& in);
  template <sh::Word T>
  std::string DoWord(std::string_view op, sh::Area& area, const flat_json& in);

  std::optional<sh::Client> client_;  // Empty when it was closed, or a connect failed.
  sh::Options options_;
  const std::string token_;  // STATEHOUSE_TOKEN at the start.
  std::map<std::string, sh::Area> areas_;
  DictOps dicts_;
  LockOps locks_;
  WatchOps watches_;
};

// Whether a member that the interface takes as an unsigned number is none.
bool IsBeyondU64(const flat_json& in) {
  for (const char* const key : {"pos", "len", "size", "pages", "offset", "since", "timeout_ms"}) {
    const flat_json_member* const member = flat_json_find(&in, key);
    if (member != nullptr && (member->fits == 0 || member->text[0] == '-')) return true;
  }
  return false;
}

std::string Program::Do(const flat_json& in) {
  const std::string op = flat_json_text(&in, "op", "");
  const std::string name = flat_json_text(&in, "name", "");
  static constexpr std::string_view kControl[] = {
      "open", "list", "create", "describe", "delete", "transport", "status", "connect", "close"};
  sh::Client* const client = client_.has_value() ? &*client_ : nullptr;
  if (const std::optional<std::string> answer = dicts_.Do(client, in)) return *answer;
  if (const std::optional<std::string> answer = DoBatch(client, in)) return *answer;
  if (const std::optional<std::string> answer = locks_.Do(client, in)) return *answer;
  if (const std::optional<std::string> answer = watches_.Do(client, in)) return *answer;
  if (IsBeyondU64(in)) return Inexpressible();
  for (const std::string_view control : kControl) {
    if (op == control) return DoControl(op, name, in);
  }
  const auto found = areas_.find(name);
  return found == areas_.end() ? Malformed() : DoArea(op, found->second, in);
}

// A new client in place of the one before, and its first call, so that each door tells what is
// wrong. "token": "" means none; without the member it is the first one.
std::string Program::DoConnect(const flat_json& in) {
  areas_.clear();
  dicts_.Clear();
  locks_.Clear();
  watches_.Clear();
  client_.reset();
  const std::string token = flat_json_text(&in, "token", token_.c_str());
  const int failed =
      token.empty() ? unsetenv("STATEHOUSE_TOKEN") : setenv("STATEHOUSE_TOKEN", token.c_str(), 1);
  if (failed != 0) return Malformed();
  options_.timeout = std::chrono::milliseconds(flat_json_number(&in, "timeout_ms", 0));
  sh::Result<sh::Client> client = sh::Client::Connect(flat_json_text(&in, "url", ""), options_);
  const auto done = [](const auto&) { return std::string("null"); };
  if (!client.ok()) return Answer(client, done);
  client_ = *std::move(client);
  return Answer(client_->GetStatus(), done);
}

std::string Program::DoControl(std::string_view op, const std::string& name, const flat_json& in) {
  const auto size_of = [](const sh_area_info& info) { return Number(info.size); };
  if (op == "connect") return DoConnect(in);
  if (!client_.has_value()) return Inexpressible();  // There is no object to call.
  if (op == "close") {
    client_.reset();
    return Ok("null");
  }
  if (op == "open") {
    sh::Result<sh::Area> area = client_->Open(name, flat_json_number(&in, "size", 0));
    const std::string answer = Answer(area, [](const sh::Area& a) { return Number(a.size()); });
    if (area.ok()) areas_.insert_or_assign(name, *std::move(area));
    return answer;
  }
  if (op == "create") {
    sh::AreaSpec spec;
    spec.size = flat_json_number(&in, "size", 0);
    spec.pages = flat_json_number(&in, "pages", 0);
    spec.file = flat_json_text(&in, "file", "");
    spec.offset = flat_json_number(&in, "offset", 0);
    spec.exclusive = flat_json_number(&in, "exclusive", 0) != 0;
    return Answer(client_->Create(name, spec), size_of);
  }
  if (op == "describe") return Answer(client_->Describe(name), size_of);
  if (op == "delete") return Answer(client_->Delete(name));
  if (op == "list") {
    return Answer(client_->List(flat_json_text(&in, "prefix", "")),
                  [](const std::vector<sh_area_info>& infos) {
                    std::string text;
                    for (const sh_area_info& info : infos) {
                      text += (text.empty() ? "" : ", ") + Quoted(info.name);
                    }
                    return "[" + text + "]";
                  });
  }
  if (op == "status") {
    return Answer(client_->GetStatus(), [](const sh_status& status) {
      return Quoted(status.draining != 0 ? "draining" : "serving");
    });
  }
  return Ok(Quoted(client_->transport() == SH_TRANSPORT_LOCAL    ? "local"
                   : client_->transport() == SH_TRANSPORT_SOCKET ? "socket"
                                                                 : "network"));
}

std::vector<std::byte> FromHex(const std::string& text) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::string Program::DoArea(std::string_view op, sh::Area& area, const flat_json& in) {
  const uint64_t pos = flat_json_number(&in, "pos", 0);
  const uint64_t fence = flat_json_number(&in, "fence", 0);
  if (op == "read") {
    std::optional<uint64_t> len;
    if (flat_json_find(&in, "len") != nullptr) len = flat_json_number(&in, "len", 0);
    return Answer(area.Read(pos, len),
                  [](const std::vector<std::byte>& bytes) { return Quoted(Hex(bytes)); });
  }
  if (op == "write") {
    return Answer(area.Write(pos, FromHex(flat_json_text(&in, "data", "")), fence));
  }
  if (op == "fill") {
    const uint64_t value = flat_json_number(&in, "value", 0);
    if (value > 255) return Inexpressible();
    return Answer(
        area.Fill(pos, flat_json_number(&in, "len", 0), static_cast<std::byte>(value), fence));
  }
  if (op == "updates") {
    return Answer(area.Updates(), [](uint64_t updates) { return Number(updates); });
  }
  if (op == "wait") {
    std::optional<std::chrono::nanoseconds> timeout;
    if (flat_json_find(&in, "timeout_ms") != nullptr) {
      timeout = std::chrono::milliseconds(flat_json_number(&in, "timeout_ms", 0));
    }
    return Answer(area.Wait(flat_json_number(&in, "since", 0), timeout),
                  [](const sh::WaitOutcome& outcome) { return Boolean(outcome.changed); });
  }
  const std::string type = flat_json_text(&in, "type", "");
  if (type == "u8") return DoWord<uint8_t>(op, area, in);
  if (type == "u16") return DoWord<uint16_t>(op, area, in);
  if (type == "u32") return DoWord<uint32_t>(op, area, in);
  if (type == "u64") return DoWord<uint64_t>(op, area, in);
  if (type == "i8") return DoWord<int8_t>(op, area, in);
  if (type == "i16") return DoWord<int16_t>(op, area, in);
  if (type == "i32") return DoWord<int32_t>(op, area, in);
  if (type == "i64") return DoWord<int64_t>(op, area, in);
  return Inexpressible();
}

// The member as a T, or nothing when no T has that value.
template <sh::Word T>
std::optional<T> WordOf(const flat_json& in, const char* key) {
  const flat_json_member* const member = flat_json_find(&in, key);
  if (member == nullptr) return T{0};
  if (member->fits == 0) return std::nullopt;
  const bool negative = member->text[0] == '-';
  const auto as_signed = static_cast<int64_t>(member->number);
  const bool fits =
      negative
          ? std::is_signed_v<T> && as_signed >= static_cast<int64_t>(std::numeric_limits<T>::min())
          : member->number <= static_cast<uint64_t>(std::numeric_limits<T>::max());
  if (!fits) return std::nullopt;
  return static_cast<T>(member->number);
}

template <sh::Word T>
std::string Program::DoWord(std::string_view op, sh::Area& area, const flat_json& in) {
  const uint64_t pos = flat_json_number(&in, "pos", 0);
  const uint64_t fence = flat_json_number(&in, "fence", 0);
  const auto show = [](T word) { return WordText(word); };
  if (op == "load") return Answer(area.Load<T>(pos), show);
  if (op == "add") {
    const auto delta = static_cast<int64_t>(flat_json_number(&in, "delta", 1));
    return Answer(area.Add<T>(pos, delta, fence), show);
  }
  const std::optional<T> value = WordOf<T>(in, "value");
  const std::optional<T> operand = WordOf<T>(in, "operand");
  const std::optional<T> expected = WordOf<T>(in, "expected");
  const std::optional<T> desired = WordOf<T>(in, "desired");
  if (!value || !operand || !expected || !desired) return Inexpressible();
  if (op == "store") return Answer(area.Store<T>(pos, *value, fence));
  if (op == "compare_exchange") {
    return Answer(area.CompareExchange<T>(pos, *expected, *desired, fence),
                  [](const sh::Exchange<T>& exchange) {
                    return R"({"exchanged": )" + Boolean(exchange.exchanged) + R"(, "found": )" +
                           WordText(exchange.found) + "}";
                  });
  }
  const std::string bitwise = flat_json_text(&in, "operator", "");
  if (bitwise == "and") return Answer(area.BitwiseAnd<T>(pos, *operand, fence), show);
  if (bitwise == "or") return Answer(area.BitwiseOr<T>(pos, *operand, fence), show);
  return Answer(area.BitwiseXor<T>(pos, *operand, fence), show);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: conformance_cpp local|socket|network\n";
    return 2;
  }
  sh::Options options;
  options.client_name = "conformance c++";
  options.transport = std::string_view(argv[1]) == "local"    ? SH_TRANSPORT_LOCAL
                      : std::string_view(argv[1]) == "socket" ? SH_TRANSPORT_SOCKET
                                                              : SH_TRANSPORT_NETWORK;
  sh::Result<sh::Client> client = sh::Client::Connect("", options);
  if (!client.ok()) {
    std::cerr << client.error().message() << '\n';
    return 1;
  }
  const char* const token = std::getenv("STATEHOUSE_TOKEN");
  Program program(*std::move(client), options, token == nullptr ? "" : token);
  for (std::string line; std::getline(std::cin, line);) {
    flat_json in;
    if (flat_json_parse(line.data(), &in) == 0) {
      std::cout << Malformed() << std::endl;
      continue;
    }
    if (std::string_view(flat_json_text(&in, "op", "")) == "end") break;
    std::cout << program.Do(in) << std::endl;
  }
  return 0;
}
