// What `statehouse doctor` looks at. Each check takes facts, or where to read them, and gives one
// finding; none of them throws, prints or changes anything.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "clients/c/src/endpoint.h"
#include "clients/cli/connection.h"
#include "engine/base/status.h"
#include "statehouse/statehouse.h"
#include "statehouse/v1/admin.pb.h"

namespace statehouse::cli {

enum class Verdict : uint8_t {
  kGood = 0,
  kUnknown = 1,  // It could not be looked at, which need not be wrong.
  kWarning = 2,  // It works, and may not for long.
  kProblem = 3,
};

struct Finding {
  std::string check{};  // Its name; programs rely on it.
  Verdict verdict = Verdict::kGood;
  std::string found{};
  std::string why{};
  std::string fix{};  // Empty where there is nothing to do.
};

// The service that runs on this host, as far as its folder tells; zero and empty where it does not.
struct LocalService {
  std::string runtime_dir{};
  std::vector<std::string> listen{};  // "127.0.0.1:7700"
  pid_t daemon_pid = 0;
};
LocalService ReadLocalService(const std::string& runtime_dir);

// Where a command's flags and the environment say that the service is.
StatusOr<Endpoint> EndpointOf(const Globals& globals);
// It is called by an address, not in a folder of this host.
bool IsByAddress(const Endpoint& endpoint);
// Whether the daemon that answered runs where this program does.
bool IsOfThisHost(bool by_address, const v1::GetStatusResponse& status);

// Where /proc and the cgroups are; tests lay others.
struct HostFiles {
  std::string proc = "/proc";
  std::string cgroup = "/sys/fs/cgroup";
  std::string shm = "/dev/shm";
};

// The user that the process runs as; nothing where there is none.
std::optional<uid_t> OwnerOfProcess(pid_t pid, const HostFiles& files);

// Files. `owner`: the service's user, where known.
Finding CheckRuntimeDir(const std::string& dir, std::optional<uid_t> owner);
Finding CheckTokensFile(const std::string& path, std::optional<uid_t> owner);
// The one that this client reads its access token from.
Finding CheckClientTokenFile(const std::string& path);

// The host.
Finding CheckSharedMemory(uint64_t memory_limit_bytes, uint64_t memory_bytes,
                          const HostFiles& files);
Finding CheckProcessLimits(pid_t daemon, const HostFiles& files);
Finding CheckCgroupMemory(pid_t daemon, uint64_t memory_limit_bytes, const HostFiles& files);

// What the engine asks of the kernel, tried by the engine's own functions.
struct KernelFeatures {
  bool sealed_memory = false;
  bool futex = false;
  bool futex_of_several = false;  // futex_waitv, Linux 5.16.
  bool pidfd = false;
  bool pidfd_poll = false;
  bool record_locks = false;
  bool barriers = false;  // membarrier.
};
KernelFeatures TryKernelFeatures();
Finding CheckKernel(const KernelFeatures& features);

// The URL of a service's folder.
std::string UnixUrl(const std::string& dir);

// What one door answered.
struct DoorAnswer {
  bool asked = false;  // Else the rest means nothing.
  sh_reason reason = SH_OK;
  std::string message{};           // Of a refusal.
  double milliseconds = 0;         // Connecting and one call.
  v1::GetStatusResponse status{};  // Where reason is SH_OK.
};
struct DoorQuestion {
  std::string url{};
  sh_transport transport = SH_TRANSPORT_AUTO;
  std::string token{};
  uint64_t timeout_ms = 0;
};
DoorAnswer AskDoor(const DoorQuestion& question);
// Whether it tells something about the door's way, rather than the access token.
bool IsReached(sh_reason reason);

// Doors. Each fills `*answer` where it has come so far as to ask.
struct Settings {
  std::string runtime_dir{};  // Empty: the service is not one of this host's folders.
  std::string url{};          // As it was given; empty: the default.
  std::string token{};
  uint64_t timeout_ms = 0;
};
Finding CheckAttachDoor(const Settings& settings, DoorAnswer* answer);
Finding CheckGrpcDoor(const Settings& settings, DoorAnswer* answer);
// `url` is statehouse://host:port or statehouse+tls://…; `address` its host:port.
Finding CheckTcpDoor(const std::string& url, const std::string& address, const Settings& settings,
                     DoorAnswer* answer);
Finding CheckHttpDoor(const std::string& address, uint64_t timeout_ms);
Finding CheckToken(const DoorAnswer& answer, bool has_token);

// What the service tells of itself.
Finding CheckVersion(const std::string& client, const std::string& service);
// A service that drains may refuse to tell its status, too.
Finding CheckServing(const DoorAnswer& answer);
Finding CheckMemory(const v1::GetStatusResponse& status);

// Clocks, in Unix time.
struct ClockFacts {
  bool same_host = false;
  int64_t start_time_ns = 0;                      // The daemon's start, by its clock.
  int64_t now_ns = 0;                             // This host's.
  std::optional<int64_t> service_minus_own_ns{};  // Measured, within `error_ns`.
  int64_t error_ns = 0;
};
Finding CheckClock(const ClockFacts& facts);
// Makes a dict of its own, reads the service's time off it and deletes it; false where that is
// refused, then `*refusal` says why.
bool MeasureClock(const DoorQuestion& question, ClockFacts* facts, std::string* refusal);

// Certificates. The end of its time, in Unix seconds.
struct CertificateFacts {
  std::optional<int64_t> expires_unix_s{};
  std::string subject{};
  std::string error{};  // Where there is none.
};
// What a TLS server at host:port shows. It is not verified: that is the door's check.
CertificateFacts CertificateOfServer(const std::string& address, uint64_t timeout_ms);
CertificateFacts CertificateOfPem(const std::string& pem);
Finding CheckCertificate(const std::string& check, const CertificateFacts& facts,
                         int64_t now_unix_s);

}  // namespace statehouse::cli
