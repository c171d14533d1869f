#include "tests/bench/service_peers.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "engine/os/futex.h"

namespace statehouse::bench {
namespace {

constexpr uint64_t kLookNs = 1'000'000;
constexpr char kEtcd[] = "/usr/bin/etcd";

}  // namespace

uint16_t FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t bytes = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  if (bind(fd, any, bytes) != 0 || getsockname(fd, any, &bytes) != 0) Die("finding a free port");
  close(fd);
  return ntohs(address.sin_port);
}

void Die(const std::string& what) {
  std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, what.c_str());
  std::exit(2);
}

void Require(sh_reason reason, const char* doing) {
  if (reason != SH_OK) Die(std::string(doing) + ": " + sh_reason_name(reason));
}

sh_client* Service::Connect(sh_transport transport) const {
  sh_options options{};
  options.token = token.c_str();
  options.transport = transport;
  sh_client* client = nullptr;
  Require(sh_connect(url.c_str(), &options, &client, nullptr), "connecting");
  return client;
}

Service ReadDevFile(const std::string& path) {
  for (int look = 0; look < 10'000; ++look) {
    std::ifstream file(path);
    const nlohmann::json dev = nlohmann::json::parse(file, nullptr, false);
    if (!dev.is_discarded()) {
      const std::string tcp_url = dev.at("tcp_url");
      return {dev.at("url"), dev.at("token"), tcp_url.substr(tcp_url.find("://") + 3)};
    }
    SleepNs(kLookNs);
  }
  Die("statehoused did not start");
}

EtcdProcess::EtcdProcess(const std::string& folder)
    : client_("127.0.0.1:" + std::to_string(FreePort())),
      peer_("http://127.0.0.1:" + std::to_string(FreePort())),
      process_({kEtcd, "--data-dir", folder + "/etcd", "--listen-client-urls", "http://" + client_,
                "--advertise-client-urls", "http://" + client_, "--listen-peer-urls", peer_,
                "--initial-advertise-peer-urls", peer_, "--initial-cluster", "default=" + peer_}) {}

bool EtcdProcess::IsInstalled() { return access(kEtcd, X_OK) == 0; }

DiskFolder::DiskFolder() {
  if (mkdtemp(path_) == nullptr) Die("making a folder in /var/tmp");
}

DiskFolder::~DiskFolder() {
  std::error_code ignored;  // What is left is the system's to remove.
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace statehouse::bench
