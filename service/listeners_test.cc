#include "service/listeners.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <set>

namespace statehouse {
namespace {

class NameVault final : public DescriptorVault {
 public:
  Status Store(const std::string& name, int) override {
    stored.insert(name);
    return Status();
  }
  Status Remove(const std::string& name) override {
    stored.erase(name);
    return Status();
  }
  std::set<std::string> stored;
};

class ListenersTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(mkdtemp(folder_.data()), nullptr); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  StatusOr<UniqueFd> OpenTcp(const std::string& address) {
    return OpenListener({ListenerKind::kTcp, "listen.tcp.0", address}, &inherited_, &vault_);
  }
  std::string AddressOf(const UniqueFd& fd) {
    const auto address = ListenerAddress(fd.get());
    EXPECT_TRUE(address.ok());
    return address.ok() ? *address : "";
  }

  std::string folder_ = "/tmp/statehouse-listen-XXXXXX";
  InheritedDescriptors inherited_;
  NameVault vault_;
};

TEST_F(ListenersTest, PortZeroBecomesAPortAndTheSocketIsKept) {
  const auto fd = OpenTcp("127.0.0.1:0");
  ASSERT_TRUE(fd.ok()) << fd.status().ToString();

  const std::string address = AddressOf(*fd);

  EXPECT_EQ(address.substr(0, 10), "127.0.0.1:");
  EXPECT_NE(address, "127.0.0.1:0");
  EXPECT_EQ(vault_.stored.count("listen.tcp.0"), 1u);
}

TEST_F(ListenersTest, AnInheritedListenerIsUsedAgainWhileItFits) {
  auto first = OpenTcp("127.0.0.1:0");
  ASSERT_TRUE(first.ok());
  const std::string address = AddressOf(*first);
  for (const std::string& wanted : {std::string("127.0.0.1:0"), address}) {
    inherited_["listen.tcp.0"].Reset(fcntl(first->get(), F_DUPFD_CLOEXEC, 0));

    const auto again = OpenTcp(wanted);

    ASSERT_TRUE(again.ok()) << again.status().ToString();
    EXPECT_EQ(AddressOf(*again), address);
    EXPECT_TRUE(inherited_.empty());
  }
}

TEST_F(ListenersTest, AnInheritedListenerOfAnotherAddressIsReplaced) {
  auto first = OpenTcp("127.0.0.1:0");
  ASSERT_TRUE(first.ok());
  const std::string before = AddressOf(*first);
  inherited_["listen.tcp.0"] = *std::move(first);

  const auto other = OpenTcp("127.0.0.2:0");

  ASSERT_TRUE(other.ok()) << other.status().ToString();
  EXPECT_EQ(AddressOf(*other).substr(0, 10), "127.0.0.2:");
}

TEST_F(ListenersTest, ATakenPortIsUnavailableWithAdvice) {
  const auto first = OpenTcp("127.0.0.1:0");
  ASSERT_TRUE(first.ok());

  const auto second = OpenTcp(AddressOf(*first));

  EXPECT_EQ(second.status().reason(), Reason::kUnavailable);
  EXPECT_NE(second.status().message().find("choose another port"), std::string::npos)
      << second.status().message();
}

TEST_F(ListenersTest, OnlyLoopbackIsServed) {
  for (const char* address :
       {"0.0.0.0:0", "192.0.2.1:0", "[::]:0", "127.0.0.1", "127.0.0.1:http", "", "[::1:0"}) {
    EXPECT_EQ(OpenTcp(address).status().reason(), Reason::kConfigInvalid) << address;
  }
  EXPECT_TRUE(vault_.stored.empty());
}

TEST_F(ListenersTest, AUnixSocketIsPrivateAndReplacesAStaleOne) {
  const ListenerSpec spec{ListenerKind::kUnixPackets, "listen.attach", folder_ + "/attach.sock"};
  { ASSERT_TRUE(OpenListener(spec, &inherited_, &vault_).ok()); }
  ASSERT_TRUE(std::filesystem::exists(spec.address));

  const auto fd = OpenListener(spec, &inherited_, &vault_);

  ASSERT_TRUE(fd.ok()) << fd.status().ToString();
  struct stat facts {};
  ASSERT_EQ(stat(spec.address.c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0600u);
  EXPECT_EQ(AddressOf(*fd), spec.address);
}

TEST_F(ListenersTest, AnInheritedUnixSocketWhoseFileIsGoneIsBoundAgain) {
  const ListenerSpec spec{ListenerKind::kUnixStream, "listen.grpc-unix", folder_ + "/grpc.sock"};
  auto first = OpenListener(spec, &inherited_, &vault_);
  ASSERT_TRUE(first.ok());
  inherited_[spec.vault_name] = *std::move(first);
  ASSERT_EQ(unlink(spec.address.c_str()), 0);

  const auto again = OpenListener(spec, &inherited_, &vault_);

  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_TRUE(std::filesystem::exists(spec.address));
}

TEST_F(ListenersTest, APathThatIsTooLongIsRefused) {
  const ListenerSpec spec{ListenerKind::kUnixStream, "listen.grpc-unix",
                          folder_ + "/" + std::string(120, 'x')};

  EXPECT_EQ(OpenListener(spec, &inherited_, &vault_).status().reason(), Reason::kConfigInvalid);
}

}  // namespace
}  // namespace statehouse
