#include "service/api/api_test_support.h"

namespace statehouse {

std::shared_ptr<const Identity> IdentityOf(std::vector<std::string> grants,
                                           const std::string& token_id) {
  std::vector<Grant> parsed;
  for (const std::string& grant : grants) parsed.push_back(ParseGrant(grant).value());
  return std::make_shared<const Identity>(token_id, "", 0, std::move(parsed));
}

TestService::TestService(DispatcherOptions options, EngineOptions engine_options)
    : identity_(IdentityOf({"area:*:read,write,create,admin", "dict:*:read,write,create,admin",
                            "lock:*:read,lock,admin", "service:*:admin"})) {
  auto engine = Engine::Start(engine_options, {}, &vault_);
  EXPECT_TRUE(engine.ok()) << engine.status().ToString();
  engine_ = *std::move(engine);
  auto store = SessionStore::Start(UniqueFd(), &vault_);
  EXPECT_TRUE(store.ok()) << store.status().ToString();
  session_store_ = *std::move(store);
  locks_ = LockService::Start({}, engine_.get(), {});
  bound_ = BoundEntries::Start({}, &engine_->dicts(), engine_->DaemonLane(kBoundEntriesThread), {});
  sessions_ = SessionTable::Start(session_store_.get(), {[this](uint64_t session) {
                                                           locks_->BeginSession(session);
                                                           bound_->BeginSession(session);
                                                         },
                                                         [this](uint64_t session) {
                                                           bound_->EndSession(session);
                                                           return locks_->EndSession(session);
                                                         }});
  locks_->SetOnLoss([this](const LockLoss& loss) {
    sessions_->TellLost(loss.session, {loss.name, loss.token});
  });
  watches_ = WatchHub::Start({}, &engine_->dicts(), &vault_, {});
  area_watches_ = AreaHub::Start({}, engine_.get());
  dispatcher_ = NewDispatcher(
      std::move(options),
      {engine_.get(), locks_, sessions_, bound_, watches_, area_watches_, &control_, &observer_},
      engine_->DaemonLane(1));
}
TestService::~TestService() {
  dispatcher_->Shutdown();
  dispatcher_.reset();
}

CallContext TestService::Context(std::shared_ptr<const Identity> identity) const {
  CallContext context;
  context.identity = std::move(identity);
  context.lane = engine_->DaemonLane(0);
  context.peer = [] { return std::string("10.0.0.7:5"); };
  return context;
}

std::shared_ptr<PendingCall> TestService::Send(std::string_view method, const std::string& request,
                                               Answer* answer) {
  return dispatcher_->Dispatch(Context(identity_), method, request, answer->Callback());
}

StatusOr<std::string> TestService::CallForBytes(std::shared_ptr<const Identity> identity,
                                                std::string_view method,
                                                const std::string& request) {
  Answer answer;
  dispatcher_->Dispatch(Context(std::move(identity)), method, request, answer.Callback());
  StatusOr<std::string> bytes = answer.Await();
  EXPECT_EQ(answer.times(), 1);
  return bytes;
}

std::shared_ptr<ServedArea> TestService::MakeArea(const std::string& name, uint64_t size) {
  AreaSpec spec;
  spec.name = name;
  spec.size = size;
  auto created = engine_->CreateArea(std::move(spec));
  EXPECT_TRUE(created.ok()) << created.status().ToString();
  return created->area;
}

}  // namespace statehouse
