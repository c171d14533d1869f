// The operations that the lock space's crash test stops at every instruction.
#include "engine/state/test_locks.h"
#include "tests/crash/lock_crash_scene.h"

namespace statehouse {
namespace {

using Operations = std::vector<LockCrashOperation>;

RequestKind KindNow(LockSpace& space, LockPlace place) {
  return static_cast<RequestKind>(LockInternals::Request(space, place).state.load() &
                                  kRequestKindMask);
}

LockRequest SemaphoreOf(uint32_t limit) {
  LockRequest request;
  request.limit = limit;
  return request;
}
LockRequest Shared() {
  LockRequest request;
  request.mode = LockMode::kShared;
  return request;
}
LockRequest ForASecond() {
  LockRequest request;
  request.ttl_ns = kSecondNs;
  return request;
}

auto Acquiring(std::string lock, LockRequest request = {}) {
  request.ttl_ns = 3600 * kSecondNs;
  return [=](LockScene&, LockSpace& space) {
    LockPlace place = 0;
    LockLook look;
    return space.Acquire(kVictimLane, lock, request, &place, &look);
  };
}
auto Releasing(std::string party) {
  return [=](LockScene& scene, LockSpace& space) {
    bool held = false;
    return space.Release(kVictimLane, scene.place(party), &held);
  };
}
auto Renewing(std::string party) {
  return [=](LockScene& scene, LockSpace& space) {
    LockLook look;
    return space.Renew(kVictimLane, scene.place(party), 2 * 3600 * kSecondNs, &look);
  };
}
// A request of the victim's stands so at the lock, beside the parties of the scene.
auto VictimIs(RequestKind kind) {
  return [=](const LockScene& scene, LockSpace& space) {
    for (LockPlace place = 1; place <= scene.live.geometry.requests_max; ++place) {
      const uint64_t state = LockInternals::Request(space, place).state.load();
      const bool victims = (state >> kRequestBlockShift & 0xffff) == 2;
      if (victims && KindNow(space, place) == kind) return true;
    }
    return false;
  };
}
auto PartyIs(std::string party, RequestKind kind) {
  return [=](const LockScene& scene, LockSpace& space) {
    return KindNow(space, scene.place(party)) == kind;
  };
}
auto PartyIsNot(std::string party, RequestKind kind) {
  return [=](const LockScene& scene, LockSpace& space) {
    return KindNow(space, scene.place(party)) != kind;
  };
}

void AddAcquires(Operations* all) {
  all->push_back({.name = "acquire a new lock",
                  .prepare = [](LockScene&) {},
                  .run = Acquiring("new"),
                  .done = VictimIs(RequestKind::kHolding)});
  all->push_back({.name = "acquire a new lock with a new request",
                  .prepare = [](LockScene& scene) { scene.Ask("other", kOtherLane, "b"); },
                  .run =
                      [](LockScene& scene, LockSpace& space) {
                        if (!space.PrepareLanes(kVictimLane.id, 1).ok()) _exit(4);
                        return Acquiring("new")(scene, space);
                      },
                  .done = VictimIs(RequestKind::kHolding),
                  .holds = {"other"}});
  all->push_back({.name = "acquire a known lock",
                  .prepare = [](LockScene& scene) { scene.Use(kOtherLane, "a"); },
                  .run = Acquiring("a"),
                  .done = VictimIs(RequestKind::kHolding)});
  all->push_back({.name = "acquire a known lock with another limit",
                  .prepare = [](LockScene& scene) { scene.Use(kOtherLane, "a"); },
                  .run = Acquiring("a", SemaphoreOf(3)),
                  .done = VictimIs(RequestKind::kHolding)});
  all->push_back({.name = "join shared holders",
                  .prepare = [](LockScene& scene) { scene.AskShared("reader", kOtherLane, "a"); },
                  .run = Acquiring("a", Shared()),
                  .done = VictimIs(RequestKind::kHolding),
                  .holds = {"reader"}});
  all->push_back(
      {.name = "join a semaphore",
       .prepare = [](LockScene& scene) { scene.Ask("one", kOtherLane, "a", SemaphoreOf(2)); },
       .run = Acquiring("a", SemaphoreOf(2)),
       .done = VictimIs(RequestKind::kHolding),
       .holds = {"one"}});
  all->push_back({.name = "take over an expired lease",
                  .prepare =
                      [](LockScene& scene) {
                        scene.Ask("late", kOtherLane, "a", ForASecond());
                        scene.Pass(2 * kSecondNs);
                      },
                  .run = Acquiring("a"),
                  .done = VictimIs(RequestKind::kHolding),
                  .loses = {"late"}});
  all->push_back({.name = "acquire where idle locks must make room",
                  .prepare =
                      [](LockScene& scene) {
                        for (int i = 0; i < 5; ++i) scene.Use(kOtherLane, "i" + std::to_string(i));
                        scene.Ask("other", kOtherLane, "used");
                        scene.Ask("third", kThirdLane, "used too");
                      },
                  .run = Acquiring("new"),
                  .done = VictimIs(RequestKind::kHolding),
                  .holds = {"other", "third"}});
}

void AddWaits(Operations* all) {
  all->push_back({.name = "begin to wait",
                  .prepare = [](LockScene& scene) { scene.Ask("holder", kOtherLane, "a"); },
                  .run = Acquiring("a"),
                  .done = VictimIs(RequestKind::kWaiting),
                  .holds = {"holder"}});
  all->push_back({.name = "begin to wait behind another",
                  .prepare =
                      [](LockScene& scene) {
                        scene.Ask("holder", kOtherLane, "a");
                        scene.Ask("first", kThirdLane, "a");
                      },
                  .run = Acquiring("a"),
                  .done = VictimIs(RequestKind::kWaiting),
                  .holds = {"holder"},
                  .waits = {"first"}});
  LockRequest only_now;
  only_now.queue = false;
  all->push_back({.name = "be refused",
                  .prepare = [](LockScene& scene) { scene.Ask("holder", kOtherLane, "a"); },
                  .run = Acquiring("a", only_now),
                  .holds = {"holder"}});
}

void AddCancels(Operations* all) {
  all->push_back({.name = "give up in the middle",
                  .prepare =
                      [](LockScene& scene) {
                        scene.Ask("holder", kOtherLane, "a");
                        scene.Ask("first", kThirdLane, "a");
                        scene.Ask("victim", kVictimLane, "a");
                        scene.Ask("third", kThirdLane, "a");
                      },
                  .run = Releasing("victim"),
                  .done = PartyIsNot("victim", RequestKind::kWaiting),
                  .holds = {"holder"},
                  .waits = {"first", "third"}});
  all->push_back({.name = "give up at the end",
                  .prepare =
                      [](LockScene& scene) {
                        scene.Ask("holder", kOtherLane, "a");
                        scene.Ask("first", kThirdLane, "a");
                        scene.Ask("victim", kVictimLane, "a");
                      },
                  .run = Releasing("victim"),
                  .done = PartyIsNot("victim", RequestKind::kWaiting),
                  .holds = {"holder"},
                  .waits = {"first"}});
  all->push_back({.name = "give up in front and let readers in",
                  .prepare =
                      [](LockScene& scene) {
                        scene.AskShared("reader", kOtherLane, "a");
                        scene.Ask("victim", kVictimLane, "a");
                        scene.AskShared("next", kThirdLane, "a");
                        scene.AskRemote("remote", "a", true);
                        scene.Sleeps("next");
                      },
                  .run = Releasing("victim"),
                  .done = PartyIsNot("victim", RequestKind::kWaiting),
                  .holds = {"reader", "next", "remote"}});
  all->push_back({.name = "a waiter takes over an expired lease",
                  .prepare =
                      [](LockScene& scene) {
                        scene.Ask("late", kOtherLane, "a", ForASecond());
                        scene.Ask("victim", kVictimLane, "a");
                        scene.Ask("behind", kThirdLane, "a");
                        scene.Sleeps("behind");
                        scene.Pass(2 * kSecondNs);
                      },
                  .run =
                      [](LockScene& scene, LockSpace& space) {
                        return space.Wait(kVictimLane, scene.place("victim"), kSecondNs).status();
                      },
                  .done = PartyIs("victim", RequestKind::kHolding),
                  .loses = {"late"},
                  .holds = {"behind"}});
}

void AddReleases(Operations* all) {
  all->push_back({.name = "release",
                  .prepare = [](LockScene& scene) { scene.Ask("victim", kVictimLane, "a"); },
                  .run = Releasing("victim"),
                  .done = PartyIsNot("victim", RequestKind::kHolding)});
  all->push_back({.name = "release to the next",
                  .prepare =
                      [](LockScene& scene) {
                        scene.Ask("victim", kVictimLane, "a");
                        scene.Ask("next", kOtherLane, "a");
                        scene.Ask("behind", kThirdLane, "a");
                        scene.Sleeps("next");
                        scene.Sleeps("behind");
                      },
                  .run = Releasing("victim"),
                  .done = PartyIsNot("victim", RequestKind::kHolding),
                  .holds = {"next"},
                  .waits = {"behind"}});
  all->push_back({.name = "release to a remote",
                  .prepare =
                      [](LockScene& scene) {
                        scene.Ask("victim", kVictimLane, "a");
                        scene.AskRemote("next", "a");
                      },
                  .run = Releasing("victim"),
                  .done = PartyIsNot("victim", RequestKind::kHolding),
                  .holds = {"next"}});
  all->push_back({.name = "release to readers",
                  .prepare =
                      [](LockScene& scene) {
                        scene.Ask("victim", kVictimLane, "a");
                        scene.AskShared("one", kOtherLane, "a");
                        scene.AskRemote("remote", "a", true);
                        scene.AskShared("two", kThirdLane, "a");
                        scene.Ask("writer", kThirdLane, "a");
                        scene.AskShared("late", kOtherLane, "a");
                        for (const char* name : {"one", "two", "writer", "late"}) {
                          scene.Sleeps(name);
                        }
                      },
                  .run = Releasing("victim"),
                  .done = PartyIsNot("victim", RequestKind::kHolding),
                  .holds = {"one", "two", "remote"},
                  .waits = {"writer", "late"}});
}

void AddLateReleases(Operations* all) {
  all->push_back({.name = "leave a semaphore",
                  .prepare =
                      [](LockScene& scene) {
                        scene.Ask("one", kOtherLane, "a", SemaphoreOf(3));
                        scene.Ask("victim", kVictimLane, "a", SemaphoreOf(3));
                        scene.Ask("two", kThirdLane, "a", SemaphoreOf(3));
                        scene.Ask("next", kThirdLane, "a", SemaphoreOf(3));
                        scene.Sleeps("next");
                      },
                  .run = Releasing("victim"),
                  .done = PartyIsNot("victim", RequestKind::kHolding),
                  .holds = {"one", "two", "next"}});
  all->push_back({.name = "release and drop who waited too long",
                  .prepare =
                      [](LockScene& scene) {
                        LockRequest request;
                        scene.Ask("victim", kVictimLane, "a");
                        request.wait_until_ns = scene.live.space->NowNs() + kSecondNs;
                        scene.Ask("tired", kOtherLane, "a", request);
                        scene.Ask("next", kThirdLane, "a");
                        scene.Sleeps("next");
                        scene.Pass(2 * kSecondNs);
                      },
                  .run = Releasing("victim"),
                  .done = PartyIsNot("victim", RequestKind::kHolding),
                  .loses = {"tired"},
                  .holds = {"next"}});
  all->push_back({.name = "renew",
                  .prepare =
                      [](LockScene& scene) {
                        scene.Ask("victim", kVictimLane, "a");
                        scene.Ask("next", kOtherLane, "a");
                      },
                  .run = Renewing("victim"),
                  .holds = {"next"}});
  all->push_back({.name = "renew too late",
                  .prepare =
                      [](LockScene& scene) {
                        scene.Ask("victim", kVictimLane, "a", ForASecond());
                        scene.Ask("next", kOtherLane, "a");
                        scene.Sleeps("next");
                        scene.Pass(2 * kSecondNs);
                      },
                  .run = Renewing("victim"),
                  .done = PartyIs("victim", RequestKind::kLost),
                  .answer = Reason::kLockLost,
                  .holds = {"next"}});
}

void AddDaemonsOwn(Operations* all, LockCrashOperation operation) {
  operation.lane = kDaemonLane.id;
  all->push_back(std::move(operation));
}

void AddDaemons(Operations* all) {
  AddDaemonsOwn(all,
                {.name = "the daemon expires a lease",
                 .prepare =
                     [](LockScene& scene) {
                       scene.Ask("late", kThirdLane, "a", ForASecond());
                       scene.Ask("next", kOtherLane, "a");
                       scene.Sleeps("next");
                       scene.Pass(2 * kSecondNs);
                     },
                 .run =
                     [](LockScene&, LockSpace& space) {
                       return space.ScanRequests(kDaemonLane).served == 1
                                  ? Status()
                                  : Status(Reason::kInternal, "");
                     },
                 .done = PartyIs("next", RequestKind::kHolding),
                 .dead_block = 0,
                 .next_daemon = [](LockSpace& space) { (void)space.ScanRequests(kDaemonLane); },
                 .loses = {"late"},
                 .holds = {"next"}});
  AddDaemonsOwn(all, {.name = "force a release",
                      .prepare =
                          [](LockScene& scene) {
                            scene.AskShared("one", kOtherLane, "a");
                            scene.AskShared("two", kThirdLane, "a");
                            scene.Ask("next", kOtherLane, "a");
                            scene.Sleeps("next");
                          },
                      .run =
                          [](LockScene&, LockSpace& space) {
                            return space.ForceRelease(kDaemonLane, "a", 0).status();
                          },
                      .done = PartyIs("next", RequestKind::kHolding),
                      .dead_block = 0,
                      .loses = {"one", "two"}});
  AddDaemonsOwn(all, {.name = "sweep an idle lock",
                      .prepare =
                          [](LockScene& scene) {
                            scene.Use(kOtherLane, "idle");
                            scene.Ask("holder", kOtherLane, "used");
                            scene.Pass(100 * kSecondNs);
                          },
                      .run =
                          [](LockScene&, LockSpace& space) {
                            uint32_t next = 0;
                            (void)space.Sweep(kDaemonLane, &next, 64,
                                              [](uint32_t) { return true; });
                            return Status();
                          },
                      .dead_block = 0,
                      .holds = {"holder"}});
}

void AddEnds(Operations* all) {
  AddDaemonsOwn(all, {.name = "end a dead process",
                      .prepare =
                          [](LockScene& scene) {
                            scene.Ask("its", kThirdLane, "a");
                            scene.Ask("next", kOtherLane, "a");
                            scene.Ask("holder", kOtherLane, "b");
                            scene.Ask("its place", kThirdLane, "b");
                            scene.AskRemote("remote", "b");
                            scene.AskShared("its shared", kThirdLane, "c");
                            scene.AskShared("shared", kOtherLane, "c");
                            scene.Use(kThirdLane, "past");
                            scene.Sleeps("next");
                          },
                      .run =
                          [](LockScene&, LockSpace& space) {
                            return space.RecoverBlock(kDaemonLane, 3) == 2
                                       ? Status()
                                       : Status(Reason::kInternal, "");
                          },
                      .dead_block = 3,
                      .holds = {"next", "holder", "shared"},
                      .waits = {"remote"}});
  AddDaemonsOwn(all,
                {.name = "end a session",
                 .prepare =
                     [](LockScene& scene) {
                       scene.AskRemote("its", "a");
                       scene.Ask("next", kOtherLane, "a");
                       scene.Ask("holder", kOtherLane, "b");
                       scene.AskRemote("its place", "b");
                       scene.AskRemote("another", "b", false, 78);
                       scene.Sleeps("next");
                     },
                 .run =
                     [](LockScene&, LockSpace& space) {
                       return space.EndSession(kDaemonLane, kSessionInScene) == 1
                                  ? Status()
                                  : Status(Reason::kInternal, "");
                     },
                 .dead_block = 0,
                 .next_daemon =
                     [](LockSpace& space) { (void)space.EndSession(kDaemonLane, kSessionInScene); },
                 .gone = {"its", "its place"},
                 .holds = {"next", "holder"},
                 .waits = {"another"}});
}

void AddMending(Operations* all) {
  const auto mend = [](LockSpace& space) {
    uint32_t next = 0;
    (void)space.Sweep(kDaemonLane, &next, 64, [](uint32_t) { return true; });
  };
  AddDaemonsOwn(all, {.name = "mend a bucket",
                      .prepare =
                          [](LockScene& scene) {
                            scene.Ask("holder", kOtherLane, "a");
                            scene.Ask("waiter", kThirdLane, "a");
                            scene.Ask("untouched", kOtherLane, "b");
                            scene.Ask("patient", kThirdLane, "b");
                            scene.Sleeps("waiter");
                            LockInternals::Request(*scene.live.space, scene.place("holder")).links =
                                7;
                          },
                      .run =
                          [mend](LockScene&, LockSpace& space) {
                            mend(space);
                            return Status();
                          },
                      .done = PartyIs("waiter", RequestKind::kLost),
                      .dead_block = 0,
                      .next_daemon = mend,
                      .loses = {"holder", "waiter"},
                      .holds = {"untouched"},
                      .waits = {"patient"},
                      .damaged = true});
}

}  // namespace

std::vector<LockCrashOperation> LockCrashOperations() {
  Operations all;
  AddAcquires(&all);
  AddWaits(&all);
  AddCancels(&all);
  AddReleases(&all);
  AddLateReleases(&all);
  AddDaemons(&all);
  AddEnds(&all);
  AddMending(&all);
  return all;
}

}  // namespace statehouse
