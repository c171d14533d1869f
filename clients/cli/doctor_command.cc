// statehouse doctor: the checks that apply, one after another, and what they found.
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>

#include "clients/c/src/endpoint.h"
#include "clients/cli/application.h"
#include "clients/cli/commands.h"
#include "clients/cli/doctor.h"
#include "clients/cli/exit_codes.h"
#include "clients/cli/terminal_text.h"

namespace statehouse::cli {
namespace {

constexpr const char* kVerdictNames[] = {"ok", "unknown", "warning", "problem"};
constexpr uint64_t kDoorTimeoutMs = 3000;

struct Arguments {
  std::string tokens_file;
  bool probe = false;
  bool verbose = false;
};

nlohmann::ordered_json ToJson(const Finding& finding) {
  return {{"check", finding.check},
          {"verdict", kVerdictNames[static_cast<size_t>(finding.verdict)]},
          {"found", finding.found},
          {"why", finding.why},
          {"fix", finding.fix}};
}

// Prints each finding as it comes, or all at the end.
class Report final {
 public:
  Report(const Globals& globals, const Arguments& arguments)
      : json_(globals.json), verbose_(arguments.verbose) {}

  void Add(const Finding& finding) {
    ++counts_[static_cast<size_t>(finding.verdict)];
    if (json_) {
      all_.push_back(ToJson(finding));
      return;
    }
    std::printf("%-8s %-18s %s\n", kVerdictNames[static_cast<size_t>(finding.verdict)],
                finding.check.c_str(), Visible(finding.found).c_str());
    const bool explain = verbose_ || finding.verdict != Verdict::kGood;
    if (explain) std::printf("%-8s   why: %s\n", "", finding.why.c_str());
    if (!finding.fix.empty()) std::printf("%-8s   fix: %s\n", "", finding.fix.c_str());
    std::fflush(stdout);
  }

  void End() {
    const size_t problems = counts_[static_cast<size_t>(Verdict::kProblem)];
    const size_t warnings = counts_[static_cast<size_t>(Verdict::kWarning)];
    if (json_) {
      std::cout << nlohmann::ordered_json{{"healthy", problems == 0},
                                          {"problems", problems},
                                          {"warnings", warnings},
                                          {"findings", all_}}
                       .dump(2)
                << "\n";
    } else {
      std::printf("\n%zu checks, %zu problems, %zu warnings\n",
                  counts_[0] + counts_[1] + warnings + problems, problems, warnings);
    }
    if (problems != 0) throw Failed{kExitUnhealthy, ""};
  }

 private:
  const bool json_;
  const bool verbose_;
  size_t counts_[4] = {};
  nlohmann::ordered_json all_ = nlohmann::ordered_json::array();
};

// All that the checks begin from.
struct Patient {
  Endpoint endpoint;
  Settings settings;
  LocalService local;
  bool is_tcp = false;  // The URL names an address, no folder.
};

StatusOr<Patient> PatientOf(const Globals& globals) {
  Patient patient;
  SH_ASSIGN_OR_RETURN(patient.endpoint, EndpointOf(globals));
  const std::string& target = patient.endpoint.grpc_target;
  patient.is_tcp = IsByAddress(patient.endpoint);
  patient.settings.token = patient.endpoint.token;
  patient.settings.timeout_ms = std::min(globals.timeout_ms, kDoorTimeoutMs);
  if (!patient.is_tcp) patient.settings.runtime_dir = patient.endpoint.runtime_dir;
  patient.settings.url = !patient.is_tcp       ? UnixUrl(patient.endpoint.runtime_dir)
                         : globals.url.empty() ? "statehouse://" + target
                                               : globals.url;
  if (!patient.is_tcp) patient.local = ReadLocalService(patient.endpoint.runtime_dir);
  return patient;
}

// The doors that there are. The first answer with a status, or else any; `asked` is false where
// nobody answered.
DoorAnswer CheckDoors(const Patient& patient, Report* report) {
  DoorAnswer best;
  const auto add = [&](const Finding& finding, DoorAnswer answer) {
    report->Add(finding);
    if (!answer.asked || !IsReached(answer.reason)) return;
    if (!best.asked || best.reason != SH_OK) best = std::move(answer);
  };
  if (patient.is_tcp) {
    DoorAnswer answer;
    const Finding finding =
        CheckTcpDoor(patient.settings.url, patient.endpoint.grpc_target, patient.settings, &answer);
    add(finding, std::move(answer));
    return best;
  }
  for (const auto check : {&CheckAttachDoor, &CheckGrpcDoor}) {
    DoorAnswer answer;
    const Finding finding = check(patient.settings, &answer);
    add(finding, std::move(answer));
  }
  for (const std::string& address : patient.local.listen) {
    DoorAnswer answer;
    const Finding finding =
        CheckTcpDoor("statehouse://" + address, address, patient.settings, &answer);
    add(finding, std::move(answer));
  }
  return best;
}

void CheckFiles(const Patient& patient, const Globals& globals, const Arguments& arguments,
                const HostFiles& files, Report* report) {
  if (!patient.is_tcp) {
    const std::optional<uid_t> owner = OwnerOfProcess(patient.local.daemon_pid, files);
    report->Add(CheckRuntimeDir(patient.settings.runtime_dir, owner));
    report->Add(CheckTokensFile(arguments.tokens_file.empty()
                                    ? patient.settings.runtime_dir + "/tokens.toml"
                                    : arguments.tokens_file,
                                owner));
  }
  // Without a URL the folder comes first, and its absence is why a port is asked.
  if (patient.is_tcp && globals.url.empty()) {
    report->Add(CheckRuntimeDir(patient.endpoint.runtime_dir, std::nullopt));
  }
  if (!globals.token_file.empty()) report->Add(CheckClientTokenFile(globals.token_file));
}

// What a service of this host is given by the host.
void CheckHost(const v1::GetStatusResponse& status, const HostFiles& files, Report* report) {
  const auto daemon = static_cast<pid_t>(status.daemon_pid());
  report->Add(CheckSharedMemory(status.memory_limit_bytes(), status.memory_bytes(), files));
  report->Add(CheckProcessLimits(daemon, files));
  report->Add(CheckCgroupMemory(daemon, status.memory_limit_bytes(), files));
}

void CheckTls(const Patient& patient, Report* report) {
  const auto now = static_cast<int64_t>(time(nullptr));
  if (patient.is_tcp && patient.endpoint.tls.enabled) {
    report->Add(CheckCertificate(
        "tls-certificate",
        CertificateOfServer(patient.endpoint.grpc_target, patient.settings.timeout_ms), now));
    if (!patient.endpoint.tls.certificate.empty()) {
      report->Add(CheckCertificate("client-certificate",
                                   CertificateOfPem(patient.endpoint.tls.certificate), now));
    }
  }
}

void CheckTime(const Patient& patient, const v1::GetStatusResponse& status, bool same_host,
               bool probe, Report* report) {
  ClockFacts facts;
  facts.same_host = same_host;
  facts.start_time_ns = status.start_time().seconds() * 1'000'000'000 + status.start_time().nanos();
  facts.now_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(
                     std::chrono::system_clock::now().time_since_epoch())
                     .count();
  std::string refusal;
  if (probe) {
    MeasureClock({patient.settings.url, SH_TRANSPORT_NETWORK, patient.settings.token,
                  patient.settings.timeout_ms},
                 &facts, &refusal);
  }
  Finding finding = CheckClock(facts);
  if (!refusal.empty()) {
    finding.verdict = std::max(finding.verdict, Verdict::kWarning);
    finding.found += "; --probe: " + refusal;
  }
  report->Add(finding);
}

void Examine(const Globals& globals, const Arguments& arguments) {
  Report report(globals, arguments);
  const HostFiles files;
  StatusOr<Patient> patient = PatientOf(globals);
  if (!patient.ok()) {
    report.Add({.check = "settings",
                .verdict = Verdict::kProblem,
                .found = patient.status().message(),
                .why = "without them no client finds the service",
                .fix = "correct --url, STATEHOUSE_URL and what they name"});
    return report.End();
  }
  CheckFiles(*patient, globals, arguments, files, &report);
  const DoorAnswer answer = CheckDoors(*patient, &report);
  if (!patient->is_tcp) report.Add(CheckKernel(TryKernelFeatures()));
  CheckTls(*patient, &report);
  if (answer.asked) {
    report.Add(CheckToken(answer, !patient->settings.token.empty()));
  }
  if (answer.asked && (answer.reason == SH_OK || answer.reason == SH_DRAINING)) {
    report.Add(CheckServing(answer));
  }
  if (answer.asked && answer.reason == SH_OK) {
    const v1::GetStatusResponse& status = answer.status;
    report.Add(CheckVersion(ProgramVersion(), status.version()));
    report.Add(CheckMemory(status));
    const bool same_host = IsOfThisHost(patient->is_tcp, status);
    if (same_host) {
      report.Add(CheckHttpDoor(status.http_address(), patient->settings.timeout_ms));
      CheckHost(status, files, &report);
    }
    CheckTime(*patient, status, same_host, arguments.probe, &report);
  }
  report.End();
}

constexpr const char* kFooter =
    "Each check says what it found, why it matters and what to do. Verdicts: ok; unknown (it could "
    "not\n"
    "be looked at); warning (it works, and may not for long); problem.\n"
    "\n"
    "Exit codes: 0 no problem, warnings included; 8 a problem; 2 wrong use.\n"
    "\n"
    "Examples:\n"
    "  statehouse doctor\n"
    "  statehouse -o json doctor | jq '.findings[] | select(.verdict != \"ok\")'\n"
    "  statehouse --url statehouse+tls://db1:7700 doctor --probe";

}  // namespace

void AddDoctorCommand(CLI::App* app, const Globals* globals) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* const command =
      app->add_subcommand("doctor", "Checks the service, its doors and its host");
  command->footer(kFooter);
  command->add_option("--tokens-file", arguments->tokens_file,
                      "The service's tokens file (default: tokens.toml of its runtime dir)");
  command->add_flag("--probe", arguments->probe,
                    "Make and delete a dict of its own, to measure the service's clock");
  command->add_flag("-v,--verbose", arguments->verbose,
                    "Say of good findings, too, why they count");
  command->callback([globals, arguments] { Examine(*globals, *arguments); });
}

}  // namespace statehouse::cli
