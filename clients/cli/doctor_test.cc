// Each check of `statehouse doctor` on a host that is laid for it, sound and not.
#include "clients/cli/doctor.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "clients/cli/sockets.h"

namespace statehouse::cli {
namespace {

constexpr uint64_t kMib = 1 << 20;

class DoctorTest : public ::testing::Test {
 protected:
  DoctorTest() {
    const char* const base = getenv("TMPDIR");
    root_ = std::string(base != nullptr ? base : "/tmp") + "/statehouse-doctor-XXXXXX";
    if (mkdtemp(root_.data()) == nullptr) abort();
    files_ = {.proc = root_ + "/proc", .cgroup = root_ + "/cgroup", .shm = root_};
  }
  ~DoctorTest() override { std::filesystem::remove_all(root_); }

  std::string Lay(const std::string& name, const std::string& text, mode_t mode = 0600) {
    const std::string path = root_ + "/" + name;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path) << text;
    chmod(path.c_str(), mode);
    return path;
  }
  static void ExpectExplained(const Finding& finding) {
    EXPECT_FALSE(finding.found.empty()) << finding.check;
    EXPECT_FALSE(finding.why.empty()) << finding.check;
    if (finding.verdict == Verdict::kProblem || finding.verdict == Verdict::kWarning) {
      EXPECT_FALSE(finding.fix.empty()) << finding.check << ": " << finding.found;
    }
  }
  // What the check is to say, in the order of the arguments.
  static void Expect(Verdict verdict, const std::string& part, const Finding& finding) {
    EXPECT_EQ(finding.verdict, verdict) << finding.check << ": " << finding.found;
    EXPECT_NE(finding.found.find(part), std::string::npos) << finding.found;
    ExpectExplained(finding);
  }
  Settings At(const std::string& runtime_dir) const {
    return {.runtime_dir = runtime_dir, .url = "", .token = "", .timeout_ms = 500};
  }

  std::string root_;
  HostFiles files_;
};

TEST_F(DoctorTest, TheRuntimeDirIsTheServicesAndNobodyElseWrites) {
  const std::string dir = root_ + "/run";
  Expect(Verdict::kProblem, "does not exist", CheckRuntimeDir(dir, std::nullopt));
  mkdir(dir.c_str(), 0700);
  Expect(Verdict::kGood, "0700", CheckRuntimeDir(dir, geteuid()));
  Expect(Verdict::kProblem, "belongs to user", CheckRuntimeDir(dir, geteuid() + 1));
  chmod(dir.c_str(), 0750);
  Expect(Verdict::kWarning, "entered by others", CheckRuntimeDir(dir, geteuid()));
  chmod(dir.c_str(), 0720);
  Expect(Verdict::kProblem, "written by others", CheckRuntimeDir(dir, geteuid()));
  chmod(dir.c_str(), 0777);
  Expect(Verdict::kProblem, "written by others", CheckRuntimeDir(dir, geteuid()));
  const std::string link = root_ + "/link";
  std::filesystem::create_symlink(dir, link);
  Expect(Verdict::kProblem, "no folder", CheckRuntimeDir(link, geteuid()));
}

TEST_F(DoctorTest, TheTokensFileIsTheServicesAndNobodyElseWrites) {
  Expect(Verdict::kUnknown, "does not exist", CheckTokensFile(root_ + "/none", geteuid()));
  const std::string path = Lay("tokens.toml", "");
  Expect(Verdict::kGood, "0600", CheckTokensFile(path, geteuid()));
  chown(path.c_str(), 4711, 4711) == 0
      ? Expect(Verdict::kProblem, "4711", CheckTokensFile(path, geteuid()))
      : Expect(Verdict::kProblem, "belongs", CheckTokensFile(path, geteuid() + 1));
  const std::string open = Lay("open.toml", "", 0644);
  Expect(Verdict::kWarning, "read by others", CheckTokensFile(open, geteuid()));
  chmod(open.c_str(), 0620);
  Expect(Verdict::kProblem, "written by others", CheckTokensFile(open, geteuid()));
}

TEST_F(DoctorTest, TheClientsTokenFileIsForItsOwnerOnly) {
  Expect(Verdict::kGood, "0600", CheckClientTokenFile(Lay("token", "x")));
  Expect(Verdict::kProblem, "0640", CheckClientTokenFile(Lay("shared", "x", 0640)));
  Expect(Verdict::kUnknown, "cannot be looked at", CheckClientTokenFile(root_ + "/none"));
}

TEST_F(DoctorTest, MemoryMustBeThereForTheLimit) {
  Expect(Verdict::kUnknown, "meminfo", CheckSharedMemory(0, 0, files_));
  const auto lay = [&](int total, int free) {
    Lay("proc/meminfo", "MemTotal:       " + std::to_string(total) + " kB\nMemAvailable:   " +
                            std::to_string(free) + " kB\nSwapTotal:      0 kB\nSwapFree: 0 kB\n");
  };
  lay(100 * 1024, 50 * 1024);
  Expect(Verdict::kGood, "50.0 MiB of 100.0 MiB", CheckSharedMemory(0, 1, files_));
  Expect(Verdict::kGood, "50.0 MiB", CheckSharedMemory(100 * kMib, 1, files_));
  Expect(Verdict::kWarning, "does not fit", CheckSharedMemory(100 * kMib + 1, 1, files_));
  lay(100 * 1024, 4 * 1024);
  Expect(Verdict::kWarning, "4.0 MiB", CheckSharedMemory(0, 1, files_));
}

TEST_F(DoctorTest, TheDaemonMayOpenEnoughFiles) {
  const auto lay = [&](const std::string& open_max, const std::string& space, int open) {
    std::filesystem::remove_all(root_ + "/proc/7");
    Lay("proc/7/limits",
        "Limit                     Soft Limit           Hard Limit           Units\n"
        "Max open files            " +
            open_max +
            "                 65536                files\n"
            "Max locked memory         8388608              8388608              bytes\n"
            "Max address space         " +
            space + "            unlimited            bytes\n");
    for (int i = 0; i < open; ++i) Lay("proc/7/fd/" + std::to_string(i), "");
  };
  Expect(Verdict::kUnknown, "limits", CheckProcessLimits(7, files_));
  lay("4096", "unlimited", 5);
  const Finding good = CheckProcessLimits(7, files_);
  Expect(Verdict::kGood, "4096 files and has 5", good);
  EXPECT_NE(good.found.find("8388608"), std::string::npos) << good.found;
  lay("4095", "unlimited", 5);
  Expect(Verdict::kWarning, "4095", CheckProcessLimits(7, files_));
  lay("20", "unlimited", 19);
  Expect(Verdict::kProblem, "has 19", CheckProcessLimits(7, files_));
  lay("unlimited", "1073741824", 1);
  Expect(Verdict::kWarning, "address space is limited to 1.0 GiB", CheckProcessLimits(7, files_));
}

TEST_F(DoctorTest, TheServicesLimitLiesBelowThatOfItsCgroups) {
  Expect(Verdict::kUnknown, "not known", CheckCgroupMemory(7, 0, files_));
  Lay("proc/7/cgroup", "1:name=systemd:/x\n0::/a/b\n");
  Expect(Verdict::kGood, "no cgroup", CheckCgroupMemory(7, 0, files_));
  Lay("cgroup/a/b/memory.max", "max\n");
  Expect(Verdict::kGood, "no cgroup", CheckCgroupMemory(7, 0, files_));
  Lay("cgroup/a/memory.max", std::to_string(64 * kMib) + "\n");  // Of the group above.
  Expect(Verdict::kWarning, "allows 64.0 MiB", CheckCgroupMemory(7, 0, files_));
  Expect(Verdict::kWarning, "allows 64.0 MiB", CheckCgroupMemory(7, 64 * kMib, files_));
  Expect(Verdict::kGood, "allows 64.0 MiB", CheckCgroupMemory(7, 64 * kMib - 1, files_));
}

TEST_F(DoctorTest, TheKernelHasWhatTheEngineUses) {
  const KernelFeatures here = TryKernelFeatures();
  EXPECT_TRUE(here.sealed_memory);
  EXPECT_TRUE(here.futex);
  EXPECT_TRUE(here.pidfd);
  EXPECT_TRUE(here.pidfd_poll);
  EXPECT_TRUE(here.record_locks);

  const KernelFeatures all{true, true, true, true, true, true, true};
  Expect(Verdict::kGood, "has memfd seals", CheckKernel(all));
  KernelFeatures old = all;
  old.futex_of_several = false;
  Expect(Verdict::kWarning, "lacks futex_waitv", CheckKernel(old));
  for (bool KernelFeatures::*const needed :
       {&KernelFeatures::sealed_memory, &KernelFeatures::futex, &KernelFeatures::pidfd,
        &KernelFeatures::pidfd_poll, &KernelFeatures::record_locks}) {
    KernelFeatures without = old;
    without.*needed = false;
    Expect(Verdict::kProblem, "lacks ", CheckKernel(without));
  }
}

TEST_F(DoctorTest, ADoorThatIsNotThereIsAProblem) {
  DoorAnswer answer;
  Expect(Verdict::kProblem, "No such file", CheckAttachDoor(At(root_), &answer));
  Expect(Verdict::kProblem, "No such file", CheckGrpcDoor(At(root_), &answer));
  EXPECT_FALSE(answer.asked);
  // A socket that nobody listens on.
  const UniqueFd left_behind(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  const std::string path = root_ + "/attach.sock";
  std::copy(path.begin(), path.end(), address.sun_path);
  ASSERT_EQ(bind(left_behind.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
            0);
  const Finding refused = CheckAttachDoor(At(root_), &answer);
  Expect(Verdict::kProblem, "Connection refused", refused);
  EXPECT_NE(refused.fix.find("nobody listens"), std::string::npos) << refused.fix;
}

TEST_F(DoctorTest, AClosedPortAndOneThatIsNotStatehouseAreProblems) {
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), size), 0);
  ASSERT_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::string port = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));

  DoorAnswer answer;
  Expect(Verdict::kProblem, "Connection refused",
         CheckTcpDoor("statehouse://" + port, port, At(""), &answer));
  EXPECT_FALSE(answer.asked);
  Expect(Verdict::kWarning, "Connection refused", CheckHttpDoor(port, 500));
  Expect(Verdict::kUnknown, "Connection refused",
         CheckCertificate("tls-certificate", CertificateOfServer(port, 500), 0));

  ASSERT_EQ(listen(listener.get(), 8), 0);  // It takes connections and says nothing.
  Expect(Verdict::kProblem, "gives no answer",
         CheckTcpDoor("statehouse://" + port, port, At(""), &answer));
  Expect(Verdict::kWarning, "Connection timed out", CheckHttpDoor(port, 100));
  Expect(Verdict::kGood, "off", CheckHttpDoor("", 100));
}

// Takes connections and closes them at once, until it is destroyed.
class ClosingListener final {
 public:
  ClosingListener() : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    EXPECT_EQ(bind(socket_.get(), reinterpret_cast<const sockaddr*>(&at), size), 0);
    EXPECT_EQ(getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&at), &size), 0);
    EXPECT_EQ(listen(socket_.get(), 64), 0);
    address_ = "127.0.0.1:" + std::to_string(ntohs(at.sin_port));
    thread_ = std::thread([this] {
      for (;;) {
        const UniqueFd taken(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!taken.valid()) return;
      }
    });
  }
  ~ClosingListener() {
    shutdown(socket_.get(), SHUT_RDWR);
    thread_.join();
  }
  const std::string& address() const { return address_; }

 private:
  const UniqueFd socket_;
  std::string address_;
  std::thread thread_;
};

// OpenSSL answers an end that it did not expect with an alert, to a connection that is reset by
// then.
TEST_F(DoctorTest, ADoorThatTakesConnectionsAndClosesThemIsTold) {
  constexpr int kTries = 50;
  const ClosingListener listener;
  for (int i = 0; i < kTries; ++i) {
    const CertificateFacts facts = CertificateOfServer(listener.address(), 5'000);
    ASSERT_FALSE(facts.expires_unix_s.has_value());
    ASSERT_NE(facts.error.find(listener.address()), std::string::npos) << facts.error;
  }
  sigset_t pending;
  sigpending(&pending);
  EXPECT_EQ(sigismember(&pending, SIGPIPE), 0);
  DoorAnswer answer;
  const std::string url = "statehouse+tls://" + listener.address();
  const Finding finding = CheckTcpDoor(url, listener.address(), At(""), &answer);
  EXPECT_EQ(finding.verdict, Verdict::kProblem) << finding.found;
  ExpectExplained(finding);
}

TEST_F(DoctorTest, ATokenThatIsRefusedIsTold) {
  DoorAnswer answer;
  Expect(Verdict::kGood, "accepted", CheckToken(answer, true));
  answer.reason = SH_UNAUTHENTICATED;
  Expect(Verdict::kProblem, "no access token", CheckToken(answer, false));
  Expect(Verdict::kProblem, "refused", CheckToken(answer, true));
  answer.reason = SH_TOKEN_EXPIRED;
  Expect(Verdict::kProblem, "over", CheckToken(answer, true));
  answer.reason = SH_RATE_LIMITED;
  answer.message = "access token: too many failed attempts came from unix:7; wait a minute";
  const Finding failures = CheckToken(answer, true);
  Expect(Verdict::kProblem, answer.message, failures);
  EXPECT_NE(failures.fix.find("wrong"), std::string::npos) << failures.fix;
}

TEST_F(DoctorTest, AValidTokenBeyondItsOwnLimitIsAWarning) {
  DoorAnswer answer;
  answer.reason = SH_RATE_LIMITED;
  for (const char* const message :
       {"token k3m9x2ab makes more than 5 calls a second (calls_per_second); try again after 200 "
        "ms, or have its limit raised",
        "token k3m9x2ab has 2 calls at once (calls_at_once); try again after 100 ms, or have its "
        "limit raised"}) {
    answer.message = message;
    const Finding finding = CheckToken(answer, true);
    Expect(Verdict::kWarning, message, finding);
    EXPECT_EQ(finding.fix.find("wrong"), std::string::npos) << finding.fix;
  }
}

TEST_F(DoctorTest, VersionsStateAndMemoryAsTheServiceTellsThem) {
  Expect(Verdict::kGood, "1.2.3", CheckVersion("1.2.3", "1.2.3"));
  Expect(Verdict::kWarning, "1.3.0", CheckVersion("1.2.3", "1.3.0"));
  Expect(Verdict::kProblem, "2.0.0", CheckVersion("1.2.3", "2.0.0"));

  DoorAnswer answer;
  v1::GetStatusResponse& status = answer.status;
  status.set_state(v1::SERVING_STATE_SERVING);
  status.set_generation(3);
  Expect(Verdict::kGood, "restarted 2 times", CheckServing(answer));
  status.set_state(v1::SERVING_STATE_DRAINING);
  Expect(Verdict::kProblem, "draining", CheckServing(answer));
  DoorAnswer refused;
  refused.reason = SH_DRAINING;
  Expect(Verdict::kProblem, "draining", CheckServing(refused));

  status.set_memory_bytes(899);
  Expect(Verdict::kGood, "none", CheckMemory(status));
  // At the last part that a dict can get, and one byte past it.
  constexpr uint64_t kLimit = 100 << 20;
  status.set_memory_limit_bytes(kLimit);
  status.set_memory_bytes(kLimit / 10 * 9 - 1);
  Expect(Verdict::kGood, "limit 100.0 MiB", CheckMemory(status));
  status.set_memory_bytes(kLimit / 10 * 9);
  Expect(Verdict::kWarning, "90.0 MiB in use", CheckMemory(status));
  status.set_memory_bytes(kLimit - (64 << 10));
  Expect(Verdict::kWarning, "99.9 MiB in use", CheckMemory(status));
  status.set_memory_bytes(kLimit - (64 << 10) + 1);
  Expect(Verdict::kProblem, "99.9 MiB in use", CheckMemory(status));
}

TEST_F(DoctorTest, ClocksThatDifferByMoreThanASecond) {
  constexpr int64_t kSecond = 1'000'000'000;
  Expect(Verdict::kGood, "same clock", CheckClock({.same_host = true, .now_ns = kSecond}));
  Expect(Verdict::kUnknown, "not measured", CheckClock({.now_ns = kSecond}));
  Expect(Verdict::kWarning, "in the future",
         CheckClock({.same_host = true, .start_time_ns = 3 * kSecond, .now_ns = kSecond}));
  Expect(Verdict::kGood, "-0.500 s",
         CheckClock({.service_minus_own_ns = -kSecond / 2, .error_ns = 1000}));
  Expect(Verdict::kWarning, "+2.000 s",
         CheckClock({.service_minus_own_ns = 2 * kSecond, .error_ns = 1000}));
  Expect(Verdict::kGood, "+2.000 s",
         CheckClock({.service_minus_own_ns = 2 * kSecond, .error_ns = kSecond}));
}

// A certificate that signs itself and ends `days` from now.
std::string SelfSigned(int days) {
  EVP_PKEY* const key = EVP_RSA_gen(2048);
  X509* const made = X509_new();
  ASN1_INTEGER_set(X509_get_serialNumber(made), 1);
  X509_gmtime_adj(X509_getm_notBefore(made), -86'400L * 365);
  X509_gmtime_adj(X509_getm_notAfter(made), 86'400L * days + 60);
  X509_set_pubkey(made, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("db1"), -1, -1, 0);
  X509_sign(made, key, EVP_sha256());
  BIO* const memory = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(memory, made);
  char* text = nullptr;
  const long bytes = BIO_get_mem_data(memory, &text);
  std::string pem(text, static_cast<size_t>(bytes));
  BIO_free(memory);
  X509_free(made);
  EVP_PKEY_free(key);
  return pem;
}

TEST_F(DoctorTest, CertificatesThatEndSoonAreTold) {
  const auto now = static_cast<int64_t>(time(nullptr));
  const auto check = [&](int days) {
    return CheckCertificate("tls-certificate", CertificateOfPem(SelfSigned(days)), now);
  };
  Expect(Verdict::kGood, "CN=db1 ends in 15 days", check(15));
  Expect(Verdict::kWarning, "ends in 13 days", check(13));
  Expect(Verdict::kProblem, "ended 2 days ago", check(-3));
  Expect(Verdict::kUnknown, "PEM",
         CheckCertificate("client-certificate", CertificateOfPem("no"), now));
}

TEST_F(DoctorTest, TheFolderTellsOfItsService) {
  LocalService service = ReadLocalService(root_);
  EXPECT_EQ(service.daemon_pid, 0);
  Lay("endpoints.json", "{\"listen\": [\"127.0.0.1:1\", \"[::1]:2\"], \"daemon_pid\": 12}");
  service = ReadLocalService(root_);
  EXPECT_EQ(service.daemon_pid, 12);
  EXPECT_EQ(service.listen, (std::vector<std::string>{"127.0.0.1:1", "[::1]:2"}));
  for (const char* const bad : {"", "{", "[]", "{\"listen\": 5, \"daemon_pid\": \"x\"}",
                                "{\"listen\": [5], \"daemon_pid\": 1.5}"}) {
    Lay("endpoints.json", bad);
    service = ReadLocalService(root_);
    EXPECT_EQ(service.daemon_pid, 0) << bad;
    EXPECT_TRUE(service.listen.empty()) << bad;
  }
  v1::GetStatusResponse status;
  status.set_runtime_dir(root_);
  status.set_daemon_pid(12);
  EXPECT_TRUE(IsOfThisHost(false, status));
  EXPECT_FALSE(IsOfThisHost(true, status)) << "the folder tells of no daemon";
  Lay("endpoints.json", "{\"listen\": [], \"daemon_pid\": 12}");
  EXPECT_TRUE(IsOfThisHost(true, status));
  status.set_daemon_pid(13);
  EXPECT_FALSE(IsOfThisHost(true, status)) << "another one than here";
  EXPECT_EQ(OwnerOfProcess(getpid(), {}), geteuid());
  EXPECT_EQ(OwnerOfProcess(0, {}), std::nullopt);
  EXPECT_EQ(OwnerOfProcess(12, files_), std::nullopt);
  EXPECT_EQ(UnixUrl("/a b?c%d"), "statehouse+unix:///a b%3Fc%25d");
}

TEST_F(DoctorTest, AddressesHaveAHostAndAPort) {
  EXPECT_EQ(SplitAddress("[::1]:80")->host, "::1");
  EXPECT_EQ(SplitAddress("db1:7700")->port, "7700");
  for (const char* const bad : {"", ":", "db1", "db1:", ":80", "::1:80", "db1:x", "[]:1"}) {
    EXPECT_FALSE(SplitAddress(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace statehouse::cli
