// The checks of files, limits and the kernel.
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <sstream>

#include "clients/cli/doctor.h"
#include "clients/cli/quantity.h"
#include "engine/os/barrier.h"
#include "engine/os/futex.h"
#include "engine/os/memory.h"
#include "engine/os/process.h"
#include "engine/os/record_lock.h"

namespace statehouse::cli {
namespace {

constexpr uint64_t kDescriptorsFew = 4096;
constexpr double kShareHigh = 0.8;
constexpr double kShareFull = 0.95;
constexpr uint64_t kNone = UINT64_MAX;

constexpr const char* kWhyRuntimeDir =
    "whoever may write to the folder can put a socket of their own in the service's place, and "
    "whoever may read it finds its doors";
constexpr const char* kWhyTokens =
    "the file decides who may do what; whoever may write it may make tokens";
constexpr const char* kWhyMemory =
    "areas and dicts live in memory files (memfd); what does not fit is refused or, where no limit "
    "is reached before, the kernel kills a process for it";
constexpr const char* kWhyLimits =
    "each area, dict, worker, connection and watch takes descriptors of the daemon and the keeper";

std::string TextOf(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string Octal(mode_t mode) {
  char text[8];
  std::snprintf(text, sizeof text, "%04o", mode & 07777);
  return text;
}

// The number of a line "Name:  123 kB" as bytes; 0 where it is not there.
uint64_t MeminfoBytes(const std::string& text, const std::string& name) {
  const size_t at = text.find(name + ":");
  if (at == std::string::npos) return 0;
  return std::strtoull(text.c_str() + at + name.size() + 1, nullptr, 10) * 1024;
}

// The soft limit of a row of /proc/<pid>/limits; nothing where the row is not there.
std::optional<uint64_t> SoftLimit(const std::string& limits, const std::string& row) {
  const size_t at = limits.find(row);
  if (at == std::string::npos) return std::nullopt;
  std::istringstream rest(limits.substr(at + row.size()));
  std::string soft;
  rest >> soft;
  return soft == "unlimited" ? kNone : std::strtoull(soft.c_str(), nullptr, 10);
}

std::string LimitText(uint64_t limit) {
  return limit == kNone ? std::string("unlimited") : std::to_string(limit);
}

Finding Unreadable(Finding finding, const std::string& path, int error) {
  finding.verdict = Verdict::kUnknown;
  finding.found = path + " cannot be looked at: " + std::strerror(error);
  finding.fix = "run doctor as the service's user, or as root";
  return finding;
}

}  // namespace

LocalService ReadLocalService(const std::string& runtime_dir) {
  LocalService service{.runtime_dir = runtime_dir};
  const auto json = nlohmann::json::parse(TextOf(runtime_dir + "/endpoints.json"), nullptr, false);
  if (!json.is_object()) return service;
  const auto listen = json.find("listen");
  if (listen != json.end() && listen->is_array()) {
    for (const auto& address : *listen) {
      if (address.is_string()) service.listen.push_back(address.get<std::string>());
    }
  }
  const auto pid = json.find("daemon_pid");
  if (pid != json.end() && pid->is_number_integer()) service.daemon_pid = pid->get<pid_t>();
  return service;
}

StatusOr<Endpoint> EndpointOf(const Globals& globals) {
  ConnectArguments arguments;
  if (!globals.url.empty()) arguments.url = globals.url;
  if (!globals.token_file.empty()) arguments.token_file = globals.token_file;
  return ResolveEndpoint(arguments, ProcessEnvironment());
}

bool IsByAddress(const Endpoint& endpoint) { return endpoint.grpc_target.rfind("unix:", 0) != 0; }

bool IsOfThisHost(bool by_address, const v1::GetStatusResponse& status) {
  if (!by_address) return true;
  const pid_t there = ReadLocalService(status.runtime_dir()).daemon_pid;
  return there != 0 && there == static_cast<pid_t>(status.daemon_pid());
}

std::optional<uid_t> OwnerOfProcess(pid_t pid, const HostFiles& files) {
  struct stat facts {};
  if (pid <= 0 || stat((files.proc + "/" + std::to_string(pid)).c_str(), &facts) != 0) {
    return std::nullopt;
  }
  return facts.st_uid;
}

Finding CheckRuntimeDir(const std::string& dir, std::optional<uid_t> owner) {
  Finding finding{.check = "runtime-dir", .why = kWhyRuntimeDir};
  struct stat facts {};
  if (lstat(dir.c_str(), &facts) != 0) {
    if (errno != ENOENT) return Unreadable(finding, dir, errno);
    finding.verdict = Verdict::kProblem;
    finding.found = dir + " does not exist";
    finding.fix = "start statehoused, or name its folder: --url statehouse+unix://<runtime dir>";
    return finding;
  }
  finding.verdict = Verdict::kProblem;
  if (!S_ISDIR(facts.st_mode)) {
    finding.found = dir + " is no folder";
    finding.fix = "name the folder of statehoused itself, not a link to it";
  } else if (owner.has_value() && facts.st_uid != *owner) {
    finding.found = dir + " belongs to user " + std::to_string(facts.st_uid) +
                    ", the service runs as " + std::to_string(*owner);
    finding.fix = "chown " + std::to_string(*owner) + " " + dir;
  } else if ((facts.st_mode & 0022) != 0) {
    finding.found = dir + " can be written by others (mode " + Octal(facts.st_mode) + ")";
    finding.fix = "chmod 0700 " + dir;
  } else if ((facts.st_mode & 0055) != 0) {
    finding.verdict = Verdict::kWarning;
    finding.found = dir + " can be entered by others (mode " + Octal(facts.st_mode) + ")";
    finding.fix = "chmod 0700 " + dir + ", unless workers of other users are to use the local door";
  } else {
    finding.verdict = Verdict::kGood;
    finding.found = dir + " has mode " + Octal(facts.st_mode) + " and belongs to user " +
                    std::to_string(facts.st_uid);
  }
  return finding;
}

Finding CheckTokensFile(const std::string& path, std::optional<uid_t> owner) {
  Finding finding{.check = "tokens-file", .why = kWhyTokens};
  struct stat facts {};
  if (stat(path.c_str(), &facts) != 0) {
    if (errno != ENOENT) return Unreadable(finding, path, errno);
    finding.verdict = Verdict::kUnknown;
    finding.found = path + " does not exist";
    finding.fix =
        "if the service reads another one, name it with --tokens-file; else make it: "
        "statehouse token create";
    return finding;
  }
  finding.verdict = Verdict::kProblem;
  if (owner.has_value() && facts.st_uid != *owner && facts.st_uid != 0) {
    finding.found = path + " belongs to user " + std::to_string(facts.st_uid) +
                    ", the service runs as " + std::to_string(*owner);
    finding.fix = "chown " + std::to_string(*owner) + " " + path;
  } else if ((facts.st_mode & 0022) != 0) {
    finding.found = path + " can be written by others (mode " + Octal(facts.st_mode) + ")";
    finding.fix = "chmod 0600 " + path;
  } else if ((facts.st_mode & 0044) != 0) {
    finding.verdict = Verdict::kWarning;
    finding.found = path + " can be read by others (mode " + Octal(facts.st_mode) + ")";
    finding.fix = "chmod 0600 " + path + "; it holds hashes and grants, no tokens";
  } else {
    finding.verdict = Verdict::kGood;
    finding.found = path + " has mode " + Octal(facts.st_mode) + " and belongs to user " +
                    std::to_string(facts.st_uid);
  }
  return finding;
}

Finding CheckClientTokenFile(const std::string& path) {
  Finding finding{.check = "client-token-file",
                  .why = "whoever reads the file has the token and its grants"};
  struct stat facts {};
  if (stat(path.c_str(), &facts) != 0) return Unreadable(finding, path, errno);
  if ((facts.st_mode & 0077) != 0) {
    finding.verdict = Verdict::kProblem;
    finding.found = path + " is open to others (mode " + Octal(facts.st_mode) + ")";
    finding.fix = "chmod 0600 " + path + ", and replace the token if others may have read it";
    return finding;
  }
  finding.found = path + " has mode " + Octal(facts.st_mode);
  return finding;
}

Finding CheckSharedMemory(uint64_t memory_limit_bytes, uint64_t memory_bytes,
                          const HostFiles& files) {
  Finding finding{.check = "shared-memory", .why = kWhyMemory};
  const std::string meminfo = TextOf(files.proc + "/meminfo");
  const uint64_t total = MeminfoBytes(meminfo, "MemTotal") + MeminfoBytes(meminfo, "SwapTotal");
  const uint64_t free = MeminfoBytes(meminfo, "MemAvailable") + MeminfoBytes(meminfo, "SwapFree");
  if (total == 0) return Unreadable(finding, files.proc + "/meminfo", ENOENT);
  finding.found = FormatByteCount(free) + " of " + FormatByteCount(total) +
                  " memory and swap are free, the service has " + FormatByteCount(memory_bytes);
  struct statvfs shm {};
  if (statvfs(files.shm.c_str(), &shm) == 0) {
    finding.found += "; " + files.shm + " has " +
                     FormatByteCount(uint64_t{shm.f_bavail} * shm.f_frsize) +
                     " free (only for areas over files there)";
  }
  if (memory_limit_bytes > total) {
    finding.verdict = Verdict::kWarning;
    finding.found += "; its limit of " + FormatByteCount(memory_limit_bytes) + " does not fit";
    finding.fix = "set areas.memory_max below what the host has";
  } else if (free < total / 20) {
    finding.verdict = Verdict::kWarning;
    finding.fix = "give the host memory, delete areas or dicts, or end other programs";
  }
  return finding;
}

Finding CheckProcessLimits(pid_t daemon, const HostFiles& files) {
  Finding finding{.check = "process-limits", .why = kWhyLimits};
  const std::string folder = files.proc + "/" + std::to_string(daemon);
  const std::string limits = TextOf(folder + "/limits");
  const std::optional<uint64_t> open_max = SoftLimit(limits, "Max open files");
  if (!open_max.has_value()) return Unreadable(finding, folder + "/limits", EACCES);
  const uint64_t locked = SoftLimit(limits, "Max locked memory").value_or(kNone);
  const uint64_t space = SoftLimit(limits, "Max address space").value_or(kNone);
  std::error_code error;
  uint64_t open = 0;
  for (std::filesystem::directory_iterator at(folder + "/fd", error), end; !error && at != end;
       at.increment(error)) {
    ++open;
  }
  finding.found = "daemon " + std::to_string(daemon) + " may open " + LimitText(*open_max) +
                  " files" + (error ? "" : " and has " + std::to_string(open)) +
                  "; locked memory (not used): " + LimitText(locked);
  const double share = *open_max == kNone || *open_max == 0
                           ? 0
                           : static_cast<double>(open) / static_cast<double>(*open_max);
  finding.fix =
      "raise it for whoever starts statehoused: LimitNOFILE= of its unit, or ulimit -n; "
      "then restart";
  if (share >= kShareFull) {
    finding.verdict = Verdict::kProblem;
  } else if (share >= kShareHigh || *open_max < kDescriptorsFew) {
    finding.verdict = Verdict::kWarning;
  } else if (space != kNone) {
    finding.verdict = Verdict::kWarning;
    finding.found += "; address space is limited to " + FormatByteCount(space);
    finding.why = "every area and dict is mapped into the daemon";
    finding.fix = "start statehoused without a limit of its address space (ulimit -v unlimited)";
  } else {
    finding.fix.clear();
  }
  return finding;
}

Finding CheckCgroupMemory(pid_t daemon, uint64_t memory_limit_bytes, const HostFiles& files) {
  Finding finding{.check = "cgroup-memory",
                  .why =
                      "beyond its cgroup's limit the kernel kills the daemon; at "
                      "areas.memory_max it refuses with MEMORY_EXHAUSTED and loses nothing"};
  const std::string groups = TextOf(files.proc + "/" + std::to_string(daemon) + "/cgroup");
  const size_t at = groups.rfind("0::", 0) == 0 ? 0 : groups.find("\n0::");
  if (at == std::string::npos) {
    finding.verdict = Verdict::kUnknown;
    finding.found = "the daemon's cgroup (v2) is not known";
    return finding;
  }
  const size_t begin = groups.find("0::", at) + 3;
  std::filesystem::path group(groups.substr(begin, groups.find('\n', begin) - begin));
  uint64_t lowest = kNone;
  // The limits of all groups above count, too.
  for (;; group = group.parent_path()) {
    const std::string max = TextOf(files.cgroup + group.string() + "/memory.max");
    if (!max.empty() && max.rfind("max", 0) != 0) {
      lowest = std::min<uint64_t>(lowest, std::strtoull(max.c_str(), nullptr, 10));
    }
    if (!group.has_relative_path()) break;
  }
  if (lowest == kNone) {
    finding.found = "no cgroup limits the daemon's memory";
    return finding;
  }
  finding.found = "the daemon's cgroup allows " + FormatByteCount(lowest) +
                  ", areas.memory_max is " +
                  (memory_limit_bytes == 0 ? "none" : FormatByteCount(memory_limit_bytes));
  if (memory_limit_bytes == 0 || memory_limit_bytes >= lowest) {
    finding.verdict = Verdict::kWarning;
    finding.fix = "set areas.memory_max to at most " + FormatByteCount(lowest / 4 * 3) +
                  ", or raise the cgroup's memory.max";
  }
  return finding;
}

KernelFeatures TryKernelFeatures() {
  KernelFeatures features;
  const StatusOr<UniqueFd> memory = CreateSealedMemory("statehouse-doctor", 4096);
  const StatusOr<UniqueFd> other =
      memory.ok() ? ReopenDescription(memory->get(), true) : StatusOr<UniqueFd>(memory.status());
  features.sealed_memory = memory.ok() && SizeIsSealed(memory->get());
  features.record_locks = other.ok() && TryLockByte(memory->get(), 0) &&
                          ByteIsLocked(other->get(), 0) && !TryLockByte(other->get(), 0);
  std::atomic<uint32_t> word{0};
  // A word that differs does not let anybody sleep: the call alone is tried.
  errno = 0;
  FutexWait(word, 1, 1'000'000);
  features.futex = errno == EAGAIN;
  const std::atomic<uint32_t>* const words[] = {&word};
  const uint32_t expected[] = {1};
  features.futex_of_several = FutexWaitAny(words, expected, 1'000'000);
  const StatusOr<UniqueFd> self = OpenPidfd(getpid());
  features.pidfd = self.ok();
  if (const pid_t child = features.pidfd ? fork() : -1; child == 0) {
    _exit(0);
  } else if (child > 0) {
    const StatusOr<UniqueFd> pidfd = OpenPidfd(child);
    siginfo_t ended{};
    // Left as a zombie until the pidfd was asked.
    const bool waited = waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT) == 0;
    features.pidfd_poll =
        waited && pidfd.ok() && ProcessHasEnded(pidfd->get()) && !ProcessHasEnded(self->get());
    while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) continue;
  }
  features.barriers = JoinBarriers() && BarrierEverywhere();
  return features;
}

Finding CheckKernel(const KernelFeatures& features) {
  Finding finding{.check = "kernel",
                  .why =
                      "the local door maps sealed memory files, sleeps on futexes and learns of "
                      "dead workers by pidfds and record locks"};
  const struct {
    bool there;
    bool needed;
    const char* name;
  } rows[] = {{features.sealed_memory, true, "memfd seals"},
              {features.futex, true, "futex"},
              {features.pidfd, true, "pidfd_open"},
              {features.pidfd_poll, true, "poll of a pidfd"},
              {features.record_locks, true, "OFD record locks"},
              {features.futex_of_several, false, "futex_waitv"},
              {features.barriers, false, "membarrier"}};
  std::string there;
  std::string missing;
  for (const auto& row : rows) {
    std::string& list = row.there ? there : missing;
    list += (list.empty() ? "" : ", ") + std::string(row.name);
    if (!row.there) {
      finding.verdict =
          std::max(finding.verdict, row.needed ? Verdict::kProblem : Verdict::kWarning);
    }
  }
  finding.found = missing.empty() ? "has " + there : "lacks " + missing;
  if (finding.verdict == Verdict::kProblem) {
    finding.fix = "use Linux 5.16 or later, and a container profile that allows these calls";
  } else if (finding.verdict == Verdict::kWarning) {
    finding.fix =
        "waits work, but look again by time: use Linux 5.16 or later, and a container "
        "profile that allows these calls";
  }
  return finding;
}

}  // namespace statehouse::cli
