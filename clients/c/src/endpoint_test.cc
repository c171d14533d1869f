#include "clients/c/src/endpoint.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <map>

namespace statehouse {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

Environment EnvironmentOf(const std::map<std::string, std::string>& variables) {
  return [variables](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
}

ConnectArguments Url(const std::string& url) {
  ConnectArguments arguments;
  arguments.url = url;
  return arguments;
}

class EndpointTest : public testing::Test {
 protected:
  EndpointTest() {
    const char* const base = std::getenv("TMPDIR");
    dir_ = std::string(base != nullptr ? base : "/tmp") + "/statehouse-endpoint-XXXXXX";
    EXPECT_NE(::mkdtemp(dir_.data()), nullptr);
  }
  ~EndpointTest() override {
    for (const std::string& file : files_) ::unlink(file.c_str());
    ::rmdir(dir_.c_str());
  }
  std::string MakeFile(const std::string& name, const std::string& content) {
    files_.push_back(dir_ + "/" + name);
    std::ofstream(files_.back()) << content;
    return files_.back();
  }
  StatusOr<Endpoint> Resolve(const ConnectArguments& arguments,
                             const std::map<std::string, std::string>& variables = {}) {
    return ResolveEndpoint(arguments, EnvironmentOf(variables));
  }

  std::string dir_;
  std::vector<std::string> files_;
};

TEST_F(EndpointTest, TcpUrlsNameTheNetworkDoor) {
  const std::map<std::string, std::string> cases = {
      {"statehouse://host", "host:7700"},       {"statehouse://host:1234", "host:1234"},
      {"statehouse://host:1234/", "host:1234"}, {"statehouse://[::1]", "[::1]:7700"},
      {"statehouse://[::1]:99", "[::1]:99"},
  };
  for (const auto& [url, target] : cases) {
    const auto endpoint = Resolve(Url(url));
    ASSERT_TRUE(endpoint.ok()) << url;
    EXPECT_EQ((*endpoint).grpc_target, target);
    EXPECT_FALSE((*endpoint).local);
  }
}

TEST_F(EndpointTest, MalformedUrlsAreRefused) {
  for (const char* url : {"",
                          "http://x",
                          "statehouse://",
                          "statehouse://:1",
                          "statehouse://h:0",
                          "statehouse://h:65536",
                          "statehouse://h:1x",
                          "statehouse://[::1",
                          "statehouse://a/b",
                          "statehouse://h?",
                          "statehouse://h?x=1",
                          "statehouse://h?timeout=-1s",
                          "statehouse://h?timeout=soon",
                          "statehouse://h?transport=pigeon",
                          "statehouse://h?transport=local",
                          "statehouse://h?transport=socket",
                          "statehouse+unix://",
                          "statehouse+unix://relative",
                          "statehouse+unix:///a%2",
                          "statehouse+unix:///a%zz",
                          "statehouse+unix:///a%00"}) {
    if (std::string(url) == "statehouse://h?") {
      EXPECT_TRUE(Resolve(Url(url)).ok()) << "an empty query asks for nothing";
      continue;
    }
    EXPECT_EQ(Resolve(Url(url)).status().reason(), Reason::kInvalidArgument) << url;
  }
}

TEST_F(EndpointTest, WhatStandsBeforeAnAtSignIsNotShown) {
  for (const char* url :
       {"statehouse://user:secret@host:7700", "statehouse://secret@host",
        "statehouse+tls://u:sec/secret@host", "statehouse://u:secret@@host",
        "http://user:secret@host", "user:secret@host", "user:sec://ret@host",
        "statehouse://user:sec://ret@host", "statehouse+unix://user:secret@host",
        "statehouse+unix://u:sec%off@host", "statehouse://user:se?secret@host",
        "statehouse://user:se?sec&ret@host", "statehouse://u:x?transport=secret@host",
        "statehouse://u:x?timeout=secret@host", "statehouse+unix://sec/ret?ca_file=x@host"}) {
    const Status refused = Resolve(Url(url)).status();
    EXPECT_EQ(refused.reason(), Reason::kInvalidArgument) << url;
    EXPECT_EQ(refused.message().find("sec"), std::string::npos) << refused.message();
    EXPECT_NE(refused.message().find("***@host"), std::string::npos) << refused.message();
    EXPECT_NE(refused.message().find("STATEHOUSE_TOKEN"), std::string::npos) << refused.message();
  }
}

TEST_F(EndpointTest, TheSocketWithoutMemoryIsTakenWhereItIsAskedFor) {
  const auto endpoint = Resolve(Url("statehouse+unix://" + dir_ + "?transport=socket"));
  ASSERT_TRUE(endpoint.ok()) << endpoint.status().message();
  EXPECT_TRUE((*endpoint).socket);
  EXPECT_FALSE((*endpoint).local);
  EXPECT_TRUE((*endpoint).chosen);
  EXPECT_EQ((*endpoint).grpc_target, "unix:" + dir_ + "/grpc.sock");
  const auto automatic = Resolve(Url("statehouse+unix://" + dir_));
  ASSERT_TRUE(automatic.ok());
  EXPECT_FALSE((*automatic).socket);
  EXPECT_FALSE((*automatic).chosen);
}

TEST_F(EndpointTest, AUnixUrlPrefersTheLocalDoorWhereItsSocketIs) {
  const std::string url = "statehouse+unix://" + dir_;
  EXPECT_TRUE((*Resolve(Url(url))).local) << "a daemon that is away may come back";
  MakeFile("grpc.sock", "");
  EXPECT_FALSE((*Resolve(Url(url))).local);
  EXPECT_EQ((*Resolve(Url(url))).grpc_target, "unix:" + dir_ + "/grpc.sock");
  MakeFile("attach.sock", "");
  EXPECT_TRUE((*Resolve(Url(url))).local);
  EXPECT_FALSE((*Resolve(Url(url + "?transport=network"))).local);
}

TEST_F(EndpointTest, PercentSignsInPathsAreDecoded) {
  EXPECT_EQ((*Resolve(Url("statehouse+unix:///a%20b%3f"))).runtime_dir, "/a b?");
}

TEST_F(EndpointTest, ArgumentsBeatTheUrlAndTheUrlBeatsTheDefault) {
  EXPECT_EQ((*Resolve(Url("statehouse://h"))).timeout, seconds(5));
  ConnectArguments arguments = Url("statehouse://h?timeout=150ms");
  EXPECT_EQ((*Resolve(arguments)).timeout, milliseconds(150));
  arguments.timeout = seconds(2);
  EXPECT_EQ((*Resolve(arguments)).timeout, seconds(2));
  ConnectArguments local = Url("statehouse+unix://" + dir_ + "?transport=network");
  local.transport = TransportChoice::kLocal;
  EXPECT_TRUE((*Resolve(local)).local);
}

TEST_F(EndpointTest, TheEnvironmentNamesTheService) {
  const auto endpoint = Resolve(ConnectArguments(), {{"STATEHOUSE_URL", "statehouse://env:1"}});
  ASSERT_TRUE(endpoint.ok());
  EXPECT_EQ((*endpoint).grpc_target, "env:1");
  EXPECT_EQ(
      (*Resolve(Url("statehouse://arg"), {{"STATEHOUSE_URL", "statehouse://env:1"}})).grpc_target,
      "arg:7700");
}

TEST_F(EndpointTest, TokensComeFromArgumentThenEnvironmentThenFile) {
  const std::string file = MakeFile("token", "  from-file\n");
  const std::string other = MakeFile("other", "from-other");
  std::map<std::string, std::string> variables = {{"STATEHOUSE_TOKEN_FILE", file}};
  ConnectArguments arguments = Url("statehouse://h");
  EXPECT_EQ((*Resolve(arguments)).token, "");
  EXPECT_EQ((*Resolve(arguments, variables)).token, "from-file");
  variables["STATEHOUSE_TOKEN"] = "from-environment";
  EXPECT_EQ((*Resolve(arguments, variables)).token, "from-environment");
  arguments.token_file = other;
  EXPECT_EQ((*Resolve(arguments, variables)).token, "from-other");
  arguments.token = "from-argument";
  EXPECT_EQ((*Resolve(arguments, variables)).token, "from-argument");
}

TEST_F(EndpointTest, ATokenFileThatIsMissingOrEmptyIsAnError) {
  ConnectArguments arguments = Url("statehouse://h");
  arguments.token_file = dir_ + "/none";
  EXPECT_EQ(Resolve(arguments).status().reason(), Reason::kInvalidArgument);
  arguments.token_file = MakeFile("empty", "\n");
  EXPECT_EQ(Resolve(arguments).status().reason(), Reason::kInvalidArgument);
}

TEST_F(EndpointTest, TlsTakesFilesOfTheUrlThenOfTheEnvironment) {
  const std::string ca = MakeFile("ca.pem", "-----BEGIN CERTIFICATE-----\nca\n");
  const std::string other = MakeFile("other.pem", "-----BEGIN CERTIFICATE-----\nother\n");
  const std::string key = MakeFile("key.pem", "-----BEGIN PRIVATE KEY-----\nkey\n");
  EXPECT_FALSE((*Resolve(Url("statehouse://h"), {{"STATEHOUSE_TLS_CA_FILE", ca}})).tls.enabled);
  auto endpoint = Resolve(Url("statehouse+tls://h"));
  ASSERT_TRUE(endpoint.ok()) << endpoint.status().ToString();
  EXPECT_TRUE((*endpoint).tls.enabled);
  EXPECT_EQ((*endpoint).tls.authorities, "");
  EXPECT_EQ((*endpoint).grpc_target, "h:7700");
  endpoint = Resolve(Url("statehouse+tls://h:1?ca_file=" + other),
                     {{"STATEHOUSE_TLS_CA_FILE", ca},
                      {"STATEHOUSE_TLS_CERTIFICATE_FILE", ca},
                      {"STATEHOUSE_TLS_KEY_FILE", key}});
  ASSERT_TRUE(endpoint.ok()) << endpoint.status().ToString();
  EXPECT_NE((*endpoint).tls.authorities.find("other"), std::string::npos);
  EXPECT_NE((*endpoint).tls.certificate.find("ca"), std::string::npos);
  EXPECT_NE((*endpoint).tls.key.find("key"), std::string::npos);
}

TEST_F(EndpointTest, WrongTlsFilesAreErrors) {
  const std::string text = MakeFile("text", "no PEM");
  const std::string ca = MakeFile("ca.pem", "-----BEGIN CERTIFICATE-----\n");
  for (const std::string& url :
       {"statehouse+tls://h?ca_file=" + dir_ + "/none", "statehouse+tls://h?ca_file=" + text,
        "statehouse+tls://h?certificate_file=" + ca, "statehouse+tls://h?key_file=" + ca,
        "statehouse://h?ca_file=" + ca, "statehouse+unix:///r?ca_file=" + ca}) {
    EXPECT_EQ(Resolve(Url(url)).status().reason(), Reason::kInvalidArgument) << url;
  }
}

TEST(ParseDurationTest, UnitsAndLimits) {
  EXPECT_EQ(*ParseDuration("2s"), seconds(2));
  EXPECT_EQ(*ParseDuration("0.5"), milliseconds(500));
  EXPECT_EQ(*ParseDuration("1m"), seconds(60));
  EXPECT_EQ(*ParseDuration("20us"), std::chrono::microseconds(20));
  EXPECT_EQ(*ParseDuration("86400s"), std::chrono::hours(24));
  for (const char* text : {"", "s", "-1", "nan", "inf", "86401s", "2h", "1 s", "1e99"}) {
    EXPECT_FALSE(ParseDuration(text).ok()) << text;
  }
}

}  // namespace
}  // namespace statehouse
