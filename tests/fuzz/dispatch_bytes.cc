#include "tests/fuzz/dispatch_bytes.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <utility>

#include "service/api/error_detail.h"
#include "statehouse/v1/dict.pb.h"
#include "statehouse/v1/lock.pb.h"
#include "statehouse/v1/session.pb.h"

namespace statehouse::testing {
namespace {

namespace pb = google::protobuf;

constexpr int kRequestsMax = 16;     // Of one input.
constexpr size_t kStreamsMax = 4;    // Open at once.
constexpr int kMessagesMax = 32;     // Of a stream, after each request.
constexpr int kStreamLooksMax = 50;  // At the end, for messages that come late.
constexpr int kLooksMax = 1000;      // Until what other threads remove is gone.
constexpr uint64_t kAreaBytes = 160;
constexpr uint64_t kIdPlaceholder = 1;

struct Seed {
  std::string_view method;  // Without "/statehouse.v1.".
  const char* request;      // In protobuf's text format.
};
constexpr Seed kSeeds[] = {
    {"Areas/CreateArea", "name: 'b' size: 64"},
    {"Areas/DescribeArea", "name: 'a'"},
    {"Areas/ListAreas", "prefix: 'a' page_size: 2"},
    {"Areas/DeleteArea", "name: 'a'"},
    {"Areas/ReadArea", "name: 'a' pos: 8 len: 16"},
    {"Areas/WriteArea", "name: 'a' pos: 3 data: 'bytes'"},
    {"Areas/FillArea", "name: 'a' pos: 1 len: 9 value: 255"},
    {"Areas/LoadWord", "name: 'a' pos: 8 type: WORD_TYPE_U16"},
    {"Areas/StoreWord", "name: 'a' pos: 8 type: WORD_TYPE_I32 value { signed_value: -1 }"},
    {"Areas/AddWord", "name: 'a' pos: 5 type: WORD_TYPE_U64 delta: -3"},
    {"Areas/CompareExchangeWord",
     "name: 'a' type: WORD_TYPE_U8 expected { unsigned_value: 0 } desired { unsigned_value: 7 }"},
    {"Areas/BitwiseWord",
     "name: 'a' type: WORD_TYPE_U32 operator: BITWISE_OPERATOR_XOR operand { unsigned_value: 9 }"},
    {"Areas/WaitArea", "name: 'a' since: 0 timeout { seconds: 1 } pos: 8 len: 8"},
    {"Areas/WatchArea", "name: 'a' pos: 8 len: 8 window { nanos: 1000000 }"},
    {"Dicts/CreateDict",
     "name: 'e' max_entries: 64 default_ttl { seconds: 60 } full_policy: FULL_POLICY_EVICT"},
    {"Dicts/DescribeDict", "name: 'd'"},
    {"Dicts/ListDicts", "prefix: 'd' page_size: 2"},
    {"Dicts/DeleteDict", "name: 'd'"},
    {"Dicts/ClearDict", "name: 'd'"},
    {"Dicts/GetEntry", "name: 'd' key: 'map' path_steps { key: 'x' }"},
    {"Dicts/SetEntry",
     "name: 'd' key: 'new' value { tagged_value { tag: 't' value { string_value: 'v' } } } "
     "condition { absent: true } ttl { duration { seconds: 60 } } fence: 1 return_previous: true "
     "operation_id { session: 7 sequence: 1 } bind_session: 1"},
    {"Dicts/DeleteEntry", "name: 'd' key: 'int' condition { value { int_value: 5 } }"},
    {"Dicts/IncrementEntry",
     "name: 'd' key: 'int' delta { int_value: 2 } min { int_value: 0 } max { int_value: 9 }"},
    {"Dicts/EditEntry",
     "name: 'd' key: 'list' edit { slice { start: 0 stop: 1 values { int_value: 8 } } }"},
    {"Dicts/TouchEntry", "name: 'd' key: 'int' ttl { duration { seconds: 9 } }"},
    {"Dicts/GetEntries", "name: 'd' keys: 'int' keys: 'none' consistent: true"},
    {"Dicts/SetEntries",
     "name: 'd' entries { key: 'p' value { bool_value: true } } "
     "entries { key: 'q' value { tensor_value { dtype: 'int32' dimensions: 1 data: '1234' } } }"},
    {"Dicts/DeletePrefix", "name: 'd' prefix: 'l'"},
    {"Dicts/ScanEntries", "name: 'd'"},
    {"Dicts/TransactDict",
     "name: 'd' compares { key: 'int' condition { present: true } } then_steps { get: 'int' } "
     "then_steps { increment { key: 'n' delta { int_value: 1 } } } "
     "else_steps { set { key: 'int' value { int_value: 1 } } }"},
    {"Dicts/WaitEntry", "name: 'd' key: 'int' present: true timeout { seconds: 1 }"},
    {"Dicts/WatchDict", "name: 'd' prefix: 'i' previous: true progress_interval { seconds: 1 }"},
    {"Locks/AcquireLock",
     "name: 'm' session_id: 1 request_id: 2 mode: LOCK_MODE_SHARED ttl { seconds: 60 } "
     "timeout { } owner: 'o'"},
    {"Locks/RenewLock", "name: 'l' session_id: 1 token: 1 ttl { seconds: 60 }"},
    {"Locks/ReleaseLock", "name: 'l' session_id: 1 token: 1"},
    {"Locks/DescribeLock", "name: 'l'"},
    {"Locks/ListLocks", "prefix: 'l' page_size: 2"},
    {"Locks/ForceReleaseLock", "name: 'l'"},
    {"Sessions/OpenSession", "ttl { seconds: 60 } client_name: 'c' linger { seconds: 1 }"},
    {"Sessions/RenewSession", "session_id: 1"},
    {"Sessions/HoldSession", "session_id: 1"},
    {"Sessions/CloseSession", "session_id: 1"},
    {"Sessions/ListSessions", "page_size: 2"},
    {"Batches/RunBatch",
     "batch { names: 'd' names: 'a' operations { get { key: 'int' } } "
     "operations { add { area: 1 pos: 8 type: WORD_TYPE_U8 delta: 1 } } "
     "operations { transact_dict { name: 'd' then_steps { get: 'int' } } } }"},
    {"Batches/RunBatches",
     "batch { names: 'd' stop_at_failure: true operations { set { key: 'k' ttl_ms: 9000 "
     "value { null_value: NULL_VALUE } } } operations { increment { key: 'int' delta: 3 } } }"},
    {"Admin/GetStatus", ""},
    {"Admin/Drain", "grace { seconds: 1 }"},
};

[[noreturn]] void Fail(const std::string& what) {
  std::fprintf(stderr, "dispatch bytes: %s\n", what.c_str());
  std::abort();
}

void Require(bool holds, const std::string& what) {
  if (!holds) Fail(what);
}

const pb::MethodDescriptor& DescriptorOf(const std::string& method) {
  std::string name = method.substr(1);
  std::replace(name.begin(), name.end(), '/', '.');
  const auto* const found = pb::DescriptorPool::generated_pool()->FindMethodByName(name);
  Require(found != nullptr, method + " is in no service of the messages");
  return *found;
}

std::unique_ptr<pb::Message> NewMessage(const pb::Descriptor* type) {
  return std::unique_ptr<pb::Message>(
      pb::MessageFactory::generated_factory()->GetPrototype(type)->New());
}

void RequireMessage(const pb::Descriptor* type, const std::string& bytes,
                    const std::string& method) {
  Require(NewMessage(type)->ParseFromString(bytes), method + ": its answer is no " + type->name());
}

// Fields of these names that hold the placeholder get the number; true if there was one.
struct RealIds {
  uint64_t session = 0;
  uint64_t token = 0;
};
bool PutRealIds(const RealIds& ids, pb::Message* message) {
  const pb::Reflection& reflection = *message->GetReflection();
  std::vector<const pb::FieldDescriptor*> fields;
  reflection.ListFields(*message, &fields);
  bool found = false;
  for (const pb::FieldDescriptor* field : fields) {
    if (field->cpp_type() == pb::FieldDescriptor::CPPTYPE_MESSAGE) {
      if (!field->is_repeated()) {
        found |= PutRealIds(ids, reflection.MutableMessage(message, field));
        continue;
      }
      for (int i = 0; i < reflection.FieldSize(*message, field); ++i) {
        found |= PutRealIds(ids, reflection.MutableRepeatedMessage(message, field, i));
      }
      continue;
    }
    const bool is_session = field->name() == "session_id" || field->name() == "bind_session";
    if (!is_session && field->name() != "token" && field->name() != "fence") continue;
    if (field->cpp_type() != pb::FieldDescriptor::CPPTYPE_UINT64 || field->is_repeated()) continue;
    if (reflection.GetUInt64(*message, field) != kIdPlaceholder) continue;
    reflection.SetUInt64(message, field, is_session ? ids.session : ids.token);
    found = true;
  }
  return found;
}

EngineOptions SmallEngine() {
  EngineOptions options;
  options.areas_max = 64;
  options.dicts_max = 64;
  options.area_bytes_max = 1 << 20;
  options.dict_bytes_max = 4 << 20;
  options.memory_bytes_max = 256 << 20;
  return options;
}

v1::SetEntriesRequest EntriesOfDict() {
  v1::SetEntriesRequest request;
  Require(pb::TextFormat::ParseFromString(
              "name: 'd' entries { key: 'int' value { int_value: 5 } } "
              "entries { key: 'float' value { float_value: 0.5 } } "
              "entries { key: 'text' value { string_value: 'text' } } "
              "entries { key: 'list' value { list_value { values { int_value: 1 } "
              "values { string_value: 'x' } } } } "
              "entries { key: 'map' value { map_value { entries { key: 'x' "
              "value { list_value { values { bool_value: true } } } } } } }",
              &request),
          "the entries are no message");
  return request;
}

}  // namespace

// What a refused call leaves as it was.
struct DispatchBytes::State {
  std::optional<v1::Dict> dict;
  std::shared_ptr<ServedArea> area;
  uint64_t updates = 0;
  std::vector<std::string> names;
};

DispatchBytes::DispatchBytes()
    : service_(std::make_unique<TestService>(DispatcherOptions{}, SmallEngine())),
      methods_(service_->dispatcher().Methods()),
      writer_(IdentityOf({"area:*:read,write,create,admin", "dict:*:read,write,create,admin",
                          "lock:*:read,lock,admin", "service:*:admin"})),
      reader_(IdentityOf({"area:*:read", "dict:*:read", "lock:*:read"}, "readonly")) {}

DispatchBytes::~DispatchBytes() = default;

// Only what "a" and "d" hold at first, and one session, which holds "l".
void DispatchBytes::Reset() {
  service_->control().set_draining(false);
  Engine& engine = service_->engine();
  for (const auto& area : engine.ListAreas("", 0, SIZE_MAX)) {
    Require(engine.DeleteArea("#" + std::to_string(area->info().index)).ok(), "an area stays");
  }
  for (const auto& dict : engine.dicts().List("", 0, SIZE_MAX)) {
    const std::string index = "#" + std::to_string(dict->record().index);
    Require(engine.dicts().Delete(index).ok(), "a dict stays");
  }
  const auto sessions = service_->Call<v1::ListSessionsResponse>(
      "/statehouse.v1.Sessions/ListSessions", v1::ListSessionsRequest());
  Require(sessions.ok(), "the sessions cannot be listed");
  for (const v1::Session& session : sessions->sessions()) {
    v1::CloseSessionRequest request;
    request.set_session_id(session.session_id());
    for (const auto& identity : {writer_, reader_}) {
      (void)service_->CallAs<v1::CloseSessionResponse>(
          identity, "/statehouse.v1.Sessions/CloseSession", request);
    }
  }
  service_->MakeArea("a", kAreaBytes);
  DictSpec dict;
  dict.name = "d";
  dict.max_entries = 64;
  Require(engine.dicts().Create(dict).ok(), "the dict cannot be made");
  Require(service_->Call<v1::SetEntriesResponse>("/statehouse.v1.Dicts/SetEntries", EntriesOfDict())
              .ok(),
          "the dict cannot be filled");
  v1::OpenSessionRequest open;
  open.mutable_ttl()->set_seconds(3600);
  const auto opened =
      service_->Call<v1::OpenSessionResponse>("/statehouse.v1.Sessions/OpenSession", open);
  Require(opened.ok(), "no session can be opened");
  session_ = opened->session_id();
  v1::AcquireLockRequest acquire;
  acquire.set_name("l");
  acquire.set_session_id(session_);
  acquire.set_request_id(1);
  acquire.set_mode(v1::LOCK_MODE_EXCLUSIVE);
  acquire.mutable_ttl()->set_seconds(3600);
  acquire.mutable_timeout();
  const auto acquired =
      service_->Call<v1::AcquireLockResponse>("/statehouse.v1.Locks/AcquireLock", acquire);
  Require(acquired.ok() && acquired->acquired(), "the lock cannot be had");
  token_ = acquired->token();
}

void DispatchBytes::Run(std::string_view bytes, bool thoroughly) {
  const pb::LogSilencer silencer;  // Of text that is no UTF-8.
  Reset();
  answered_ = 0;
  streams_begun_ = 0;
  messages_ = 0;
  for (int i = 0; i < kRequestsMax && !bytes.empty(); ++i) {
    const auto choice = static_cast<uint8_t>(bytes.front());
    size_t length = 0;
    for (size_t at = 1; at <= 2 && at < bytes.size(); ++at) {
      length |= size_t{static_cast<uint8_t>(bytes[at])} << 8 * (at - 1);
    }
    bytes.remove_prefix(std::min<size_t>(3, bytes.size()));
    length = std::min(length, bytes.size());
    Send((choice & 0x7f) % methods_.size(), choice < 0x80, std::string(bytes.substr(0, length)));
    bytes.remove_prefix(length);
    PollStreams(1);
  }
  PollStreams(kStreamLooksMax);
  streams_.clear();
  CheckState(thoroughly);
}

std::string DispatchBytes::WithRealIds(const std::string& method, std::string request) const {
  const std::unique_ptr<pb::Message> message = NewMessage(DescriptorOf(method).input_type());
  if (!message->ParseFromString(request)) return request;
  if (PutRealIds({session_, token_}, message.get())) return message->SerializeAsString();
  return request;
}

void DispatchBytes::Send(size_t method, bool may_write, std::string request) {
  const std::string& name = methods_[method];
  request = WithRealIds(name, std::move(request));
  const CallContext context = service_->Context(may_write ? writer_ : reader_);
  if (service_->dispatcher().Streams(name)) {
    OpenStream(name, context, request);
  } else {
    SendUnary(name, context, request);
  }
  service_->control().set_draining(false);
}

void DispatchBytes::SendUnary(const std::string& method, const CallContext& context,
                              const std::string& request) {
  const State before = StateNow();
  Answer answer;
  const std::shared_ptr<PendingCall> pending =
      service_->dispatcher().Dispatch(context, method, request, answer.Callback());
  if (pending != nullptr) pending->Cancel();
  const StatusOr<std::string> result = answer.Await();
  Require(answer.times() == 1, method + ": answered more than once");
  Require(service_->dispatcher().CallsInFlight() == 0, method + ": still in flight");
  if (result.ok()) {
    ++answered_;
    return RequireMessage(DescriptorOf(method).output_type(), *result, method);
  }
  TakeRefusal(result.status(), method, request);
  if (pending != nullptr && result.status().reason() == Reason::kCancelled) ++answered_;
  // Operations of a batch are done one by one.
  if (method.find("/statehouse.v1.Batches/") == 0) return;
  const State after = StateNow();
  Require(before.area == after.area && before.updates == after.updates,
          method + ": refused, and the area has changed");
  Require(before.names == after.names, method + ": refused, and there are other objects");
  if (!before.dict.has_value() || before.dict->bound_entries() != 0 ||
      before.dict->expirations() != after.dict->expirations()) {
    return;  // Threads of the service may change it by themselves.
  }
  Require(before.dict->revision() == after.dict->revision(),
          method + ": refused, and the dict has changed");
}

void DispatchBytes::TakeRefusal(const Status& status, const std::string& method,
                                const std::string& request) {
  Require(!status.ok(), method + ": refused with OK");
  v1::ErrorDetail detail;
  FillErrorDetail(status, ObjectNameOf(method, request), &detail);
  RequireMessage(v1::ErrorDetail::descriptor(), detail.SerializeAsString(), method);
  last_refusal_ = status;
}

void DispatchBytes::OpenStream(const std::string& method, const CallContext& context,
                               const std::string& request) {
  auto stream = service_->dispatcher().OpenStream(context, method, request, [] {});
  if (!stream.ok()) return TakeRefusal(stream.status(), method, request);
  ++answered_;
  ++streams_begun_;
  if (streams_.size() < kStreamsMax) streams_.push_back({method, request, *std::move(stream)});
}

void DispatchBytes::PollStreams(int looks) {
  std::erase_if(streams_, [&](const OpenedStream& opened) { return !PollStream(opened, looks); });
}

bool DispatchBytes::PollStream(const OpenedStream& opened, int looks) {
  for (int messages = 0; messages < kMessagesMax;) {
    std::string message;
    Status status;
    switch (opened.stream->Poll(&message, &status)) {
      case ServedStream::Found::kMessage:
      case ServedStream::Found::kLastMessage:
        RequireMessage(DescriptorOf(opened.method).output_type(), message, opened.method);
        ++messages;
        ++messages_;
        break;
      case ServedStream::Found::kNothing:
        if (--looks <= 0) return true;
        std::this_thread::yield();  // Another thread of the service makes them.
        break;
      case ServedStream::Found::kEnd:
        TakeRefusal(status, opened.method, opened.request);
        return false;
    }
  }
  return true;
}

DispatchBytes::State DispatchBytes::StateNow() {
  State state;
  Engine& engine = service_->engine();
  for (const auto& area : engine.ListAreas("", 0, SIZE_MAX)) {
    state.names.push_back("area " + area->info().name);
  }
  for (const auto& dict : engine.dicts().List("", 0, SIZE_MAX)) {
    state.names.push_back("dict " + dict->record().name);
  }
  if (const auto area = engine.FindArea("a"); area.ok()) {
    state.area = *area;
    state.updates = state.area->area().Updates();
  }
  v1::DescribeDictRequest request;
  request.set_name("d");
  auto described =
      service_->Call<v1::DescribeDictResponse>("/statehouse.v1.Dicts/DescribeDict", request);
  if (described.ok()) state.dict = described->dict();
  return state;
}

void DispatchBytes::CheckState(bool thoroughly) {
  Engine& engine = service_->engine();
  for (const auto& dict : engine.dicts().List("", 0, SIZE_MAX)) {
    // Entries whose time or session is over are removed meanwhile: then it is not quiet.
    DictCheck check = dict->dict().Check(/*quiet=*/true);
    for (int look = 0; look < kLooksMax && !check.faults.empty(); ++look) {
      std::this_thread::yield();
      check = dict->dict().Check(/*quiet=*/true);
    }
    Require(check.faults.empty(), "dict \"" + dict->record().name +
                                      "\": " + (check.faults.empty() ? "" : check.faults.front()));
  }
  // A stripe that a request had left held would refuse the read.
  for (const auto& area : engine.ListAreas("", 0, SIZE_MAX)) {
    std::vector<std::byte> bytes(area->area().size());
    const Status read = engine.ReadArea(*area, 0, bytes);
    Require(read.ok(), "area \"" + area->info().name + "\": " + read.ToString());
  }
  if (!thoroughly) return;
  std::vector<std::string> faults = engine.locks().Check();
  for (int look = 0; look < kLooksMax && !faults.empty(); ++look) {
    std::this_thread::yield();
    faults = engine.locks().Check();
  }
  Require(faults.empty(), "locks: " + (faults.empty() ? "" : faults.front()));
}

std::vector<std::string> DispatchBytes::Seeds() const {
  std::vector<std::string> seeds;
  for (size_t i = 0; i < methods_.size(); ++i) {
    const auto* const seed =
        std::find_if(std::begin(kSeeds), std::end(kSeeds), [&](const Seed& one) {
          return methods_[i] == "/statehouse.v1." + std::string(one.method);
        });
    Require(seed != std::end(kSeeds), methods_[i] + " has no seed; add one to kSeeds");
    const auto request = NewMessage(DescriptorOf(methods_[i]).input_type());
    Require(pb::TextFormat::ParseFromString(seed->request, request.get()),
            methods_[i] + ": its seed is no request");
    const std::string bytes = request->SerializeAsString();
    seeds.push_back(std::string{static_cast<char>(i), static_cast<char>(bytes.size() & 0xff),
                                static_cast<char>(bytes.size() >> 8)} +
                    bytes);
  }
  return seeds;
}

}  // namespace statehouse::testing
