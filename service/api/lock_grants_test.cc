// Who may lock, see and take away which locks.
#include "service/api/lock_verbs_test_support.h"

namespace statehouse {
namespace {

class LockGrantsTest : public LockVerbsFixture {};

TEST_F(LockGrantsTest, GrantsDecide) {
  service_.MakeArea("web", 4096);
  service_.MakeArea("web/inner", 4096);
  // "." allowed, "-" refused: lock, describe, force release.
  struct Row {
    std::vector<std::string> grants;
    const char* name;
    const char* expected;
  };
  const std::vector<Row> rows = {
      {{}, "deploy", "---"},
      {{"lock:*:lock"}, "deploy", "..-"},
      {{"lock:*:read"}, "deploy", "-.-"},
      {{"lock:*:admin"}, "deploy", "--."},
      {{"lock:*:read,lock,admin"}, "deploy", "..."},
      {{"lock:web/*:lock"}, "deploy", "---"},
      {{"lock:web/*:lock"}, "web/deploy", "..-"},
      {{"area:*:lock", "dict:*:lock"}, "deploy", "---"},
      {{"dict:users:lock"}, "dict/users/7", "..-"},
      {{"dict:users:lock"}, "dict/users/a/b", "..-"},
      {{"dict:users:lock"}, "dict/users", "---"},
      {{"dict:users:lock"}, "dict/users/", "---"},
      {{"dict:users:lock"}, "dict/other/7", "---"},
      {{"dict:users:lock"}, "area/users", "---"},
      {{"dict:a/b:lock"}, "dict/a/b/key", "..-"},
      {{"dict:users:write"}, "dict/users/7", "---"},
      {{"dict:users:read"}, "dict/users/7", "-.-"},
      {{"area:web:lock"}, "area/web", "..-"},
      {{"area:web:lock"}, "area/web/#3", "..-"},
      {{"area:web:read"}, "area/web/#3", "-.-"},
      {{"area:web/inner:lock"}, "area/web/#3", "---"},
      {{"area:web:lock"}, "area/web/inner", "---"},  // Another area's.
      {{"area:web*:lock"}, "area/web/inner", "..-"},
      {{"area:web:admin"}, "area/web", "--."},
  };
  const uint64_t session = Open();
  for (const Row& row : rows) {
    std::string grants;
    for (const std::string& grant : row.grants) grants += grant + " ";
    SCOPED_TRACE(grants + row.name);
    const auto identity = IdentityOf(row.grants);
    std::string found;
    const auto note = [&](const Status& status) {
      found += status.reason() == Reason::kPermissionDenied ? '-' : '.';
    };
    v1::DescribeLockRequest describe;
    describe.set_name(row.name);
    v1::ForceReleaseLockRequest force;
    force.set_name(row.name);
    const auto acquired =
        service_.CallAs<v1::AcquireLockResponse>(identity, kAcquire, Try(session, row.name));
    note(acquired.status());
    note(service_.CallAs<v1::DescribeLockResponse>(identity, kDescribe, describe).status());
    note(service_.CallAs<v1::ForceReleaseLockResponse>(identity, kForce, force).status());
    EXPECT_EQ(found, row.expected);
    if (acquired.ok()) (void)Release(session, acquired->token(), row.name);
  }
  v1::ListSessionsRequest list;
  EXPECT_EQ(
      service_.CallAs<v1::ListSessionsResponse>(IdentityOf({"lock:*:admin"}), kListSessions, list)
          .status()
          .reason(),
      Reason::kPermissionDenied);
}

TEST_F(LockGrantsTest, AListShowsWhatTheTokenMaySee) {
  const uint64_t session = Open();
  Take(Ask(session, "mine"));
  Take(Ask(session, "yours"));
  Take(Ask(session, "dict/users/7"));

  const auto page = service_.CallAs<v1::ListLocksResponse>(
      IdentityOf({"lock:mine:read", "dict:users:lock"}), kList, v1::ListLocksRequest());

  ASSERT_TRUE(page.ok());
  std::set<std::string> names;
  for (const v1::Lock& lock : page->locks()) names.insert(lock.name());
  EXPECT_EQ(names, (std::set<std::string>{"mine", "dict/users/7"}));
}

}  // namespace
}  // namespace statehouse
