#include "service/metrics/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <ctime>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "service/metrics/process_numbers.h"

namespace statehouse {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr size_t kDoors = 2;
constexpr std::string_view kDoorNames[kDoors] = {DoorName(Door::kLocal), DoorName(Door::kNetwork)};

// Upper bounds of the latency buckets, 10 us to 10 s.
constexpr std::array<uint64_t, 13> kBucketsNs = {
    10'000,     25'000,     50'000,      100'000,       250'000,       1'000'000,     2'500'000,
    10'000'000, 50'000'000, 250'000'000, 1'000'000'000, 2'500'000'000, 10'000'000'000};

// Which calls: what one method did through one door. Written by any thread with relaxed adds: a
// scrape needs no moment at which all of them agree.
struct CallCells {
  std::array<std::atomic<uint64_t>, kReasonCount> by_reason{};
  std::array<std::atomic<uint64_t>, kBucketsNs.size() + 1> by_latency{};
  std::atomic<uint64_t> total_ns{0};
};

MetricFamily Family(const char* name, const char* help, MetricType type) {
  MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  return family;
}

ClientMetric Labelled(std::vector<std::pair<const char*, std::string_view>> labels) {
  ClientMetric metric;
  for (const auto& [name, value] : labels) metric.label.push_back({name, std::string(value)});
  return metric;
}

class PrometheusMetrics final : public Metrics {
 public:
  PrometheusMetrics(Engine* engine, std::vector<std::string> methods, std::string version,
                    std::function<LeaseNumbers()> leases, std::function<WatchNumbers()> watches);

  void OnCall(Door door, std::string_view method, Reason reason,
              std::chrono::nanoseconds took) override;
  void OnCalls(Door door, std::string_view method, Reason reason, uint64_t count,
               std::chrono::nanoseconds took) override;
  void OnAuthFailure(Door door, Reason reason) override;
  void OnConnectionThrottled() override {
    connections_throttled_.fetch_add(1, std::memory_order_relaxed);
  }
  void OnConnectionHeld() override { connections_held_.fetch_add(1, std::memory_order_relaxed); }
  void OnConnectionEnded() override { connections_ended_.fetch_add(1, std::memory_order_relaxed); }
  void OnConnectionOpen(int change) override {
    connections_.fetch_add(change, std::memory_order_relaxed);
  }
  void OnConnectionRefused() override {
    connections_refused_.fetch_add(1, std::memory_order_relaxed);
  }
  void OnCertificate(int64_t expiry_unix_s) override {
    certificate_expiry_.store(expiry_unix_s, std::memory_order_relaxed);
  }
  void OnTlsFilesRefused(bool refused) override {
    tls_files_refused_.store(refused, std::memory_order_relaxed);
  }
  void OnAttach(int change) override;
  std::string Scrape() override;

 private:
  CallCells& CellsOf(size_t door, size_t method) { return cells_[door * methods_.size() + method]; }
  MetricFamily CallsFamily();
  MetricFamily LatencyFamily();
  MetricFamily AuthFamily();
  void AddEngine(std::vector<MetricFamily>* families);
  void AddDicts(std::vector<MetricFamily>* families);
  void AddLeases(std::vector<MetricFamily>* families);
  void AddWatches(std::vector<MetricFamily>* families);
  static void AddWatched(const WatchNumbers& watches, std::vector<MetricFamily>* families);
  void AddProcess(std::vector<MetricFamily>* families);

  Engine* const engine_;
  const std::function<LeaseNumbers()> leases_;
  const std::function<WatchNumbers()> watches_;
  const std::string version_;
  const double start_time_s_;
  std::vector<std::string> methods_;                    // The last one is "unknown".
  std::unordered_map<std::string_view, size_t> index_;  // Views into methods_.
  std::vector<CallCells> cells_;                        // By door, then method.
  std::array<std::array<std::atomic<uint64_t>, kReasonCount>, kDoors> auth_failures_{};
  std::atomic<uint64_t> connections_throttled_{0};
  std::atomic<uint64_t> connections_held_{0};
  std::atomic<uint64_t> connections_ended_{0};
  std::atomic<int64_t> connections_{0};
  std::atomic<uint64_t> connections_refused_{0};
  std::atomic<int64_t> certificate_expiry_{0};
  std::atomic<bool> tls_files_refused_{false};
  std::atomic<int64_t> attached_{0};
  std::atomic<uint64_t> attachments_{0};
};

PrometheusMetrics::PrometheusMetrics(Engine* engine, std::vector<std::string> methods,
                                     std::string version, std::function<LeaseNumbers()> leases,
                                     std::function<WatchNumbers()> watches)
    : engine_(engine),
      leases_(std::move(leases)),
      watches_(std::move(watches)),
      version_(std::move(version)),
      start_time_s_(static_cast<double>(time(nullptr))),
      methods_(std::move(methods)) {
  methods_.erase(std::remove(methods_.begin(), methods_.end(), "unknown"), methods_.end());
  methods_.push_back("unknown");
  for (size_t i = 0; i < methods_.size(); ++i) index_[methods_[i]] = i;
  cells_ = std::vector<CallCells>(kDoors * methods_.size());
}

void PrometheusMetrics::OnCall(Door door, std::string_view method, Reason reason,
                               std::chrono::nanoseconds took) {
  OnCalls(door, method, reason, 1, took);
}

void PrometheusMetrics::OnCalls(Door door, std::string_view method, Reason reason, uint64_t count,
                                std::chrono::nanoseconds took) {
  const auto found = index_.find(method);
  const size_t which = found != index_.end() ? found->second : methods_.size() - 1;
  CallCells& cells = CellsOf(static_cast<size_t>(door), which);
  cells.by_reason[static_cast<size_t>(reason)].fetch_add(count, std::memory_order_relaxed);
  const auto ns = static_cast<uint64_t>(std::max<int64_t>(took.count(), 0));
  const auto bucket = std::lower_bound(kBucketsNs.begin(), kBucketsNs.end(), ns);
  cells.by_latency[static_cast<size_t>(bucket - kBucketsNs.begin())].fetch_add(
      count, std::memory_order_relaxed);
  cells.total_ns.fetch_add(count * ns, std::memory_order_relaxed);
}

void PrometheusMetrics::OnAuthFailure(Door door, Reason reason) {
  auth_failures_[static_cast<size_t>(door)][static_cast<size_t>(reason)].fetch_add(
      1, std::memory_order_relaxed);
}

void PrometheusMetrics::OnAttach(int change) {
  attached_.fetch_add(change, std::memory_order_relaxed);
  if (change > 0) attachments_.fetch_add(static_cast<uint64_t>(change), std::memory_order_relaxed);
}

MetricFamily PrometheusMetrics::CallsFamily() {
  MetricFamily family =
      Family("statehouse_calls_total",
             "Calls that ended, by door, method and reason (OK for success). Operations of workers "
             "on mapped areas are not calls: see statehouse_area_mutations_total.",
             MetricType::Counter);
  for (size_t door = 0; door < kDoors; ++door) {
    for (size_t method = 0; method < methods_.size(); ++method) {
      for (size_t reason = 0; reason < kReasonCount; ++reason) {
        const uint64_t count =
            CellsOf(door, method).by_reason[reason].load(std::memory_order_relaxed);
        if (count == 0) continue;
        const std::string_view name = reason == 0 ? "OK" : ReasonName(static_cast<Reason>(reason));
        ClientMetric metric =
            Labelled({{"door", kDoorNames[door]}, {"method", methods_[method]}, {"reason", name}});
        metric.counter.value = static_cast<double>(count);
        family.metric.push_back(std::move(metric));
      }
    }
  }
  return family;
}

MetricFamily PrometheusMetrics::LatencyFamily() {
  MetricFamily family =
      Family("statehouse_call_duration_seconds",
             "How long calls took inside the service, waits included.", MetricType::Histogram);
  for (size_t door = 0; door < kDoors; ++door) {
    for (size_t method = 0; method < methods_.size(); ++method) {
      CallCells& cells = CellsOf(door, method);
      ClientMetric metric = Labelled({{"door", kDoorNames[door]}, {"method", methods_[method]}});
      uint64_t count = 0;
      for (size_t bucket = 0; bucket < cells.by_latency.size(); ++bucket) {
        count += cells.by_latency[bucket].load(std::memory_order_relaxed);
        const bool last = bucket == kBucketsNs.size();
        metric.histogram.bucket.push_back(
            {count, last ? INFINITY : static_cast<double>(kBucketsNs[bucket]) / 1e9});
      }
      if (count == 0) continue;
      metric.histogram.sample_count = count;
      metric.histogram.sample_sum =
          static_cast<double>(cells.total_ns.load(std::memory_order_relaxed)) / 1e9;
      family.metric.push_back(std::move(metric));
    }
  }
  return family;
}

MetricFamily PrometheusMetrics::AuthFamily() {
  MetricFamily family = Family("statehouse_authentication_failures_total",
                               "Refused access tokens, by door and reason.", MetricType::Counter);
  for (size_t door = 0; door < kDoors; ++door) {
    for (size_t reason = 0; reason < kReasonCount; ++reason) {
      const uint64_t count = auth_failures_[door][reason].load(std::memory_order_relaxed);
      if (count == 0) continue;
      ClientMetric metric = Labelled(
          {{"door", kDoorNames[door]}, {"reason", ReasonName(static_cast<Reason>(reason))}});
      metric.counter.value = static_cast<double>(count);
      family.metric.push_back(std::move(metric));
    }
  }
  return family;
}

void AddCounter(std::vector<MetricFamily>* families, const char* name, const char* help,
                double value) {
  MetricFamily family = Family(name, help, MetricType::Counter);
  ClientMetric metric;
  metric.counter.value = value;
  family.metric.push_back(std::move(metric));
  families->push_back(std::move(family));
}

void AddGauge(std::vector<MetricFamily>* families, const char* name, const char* help,
              double value) {
  MetricFamily family = Family(name, help, MetricType::Gauge);
  ClientMetric metric;
  metric.gauge.value = value;
  family.metric.push_back(std::move(metric));
  families->push_back(std::move(family));
}

void AddByOrigin(std::vector<MetricFamily>* families, const char* name, const char* help,
                 uint64_t workers, uint64_t daemon) {
  MetricFamily family = Family(name, help, MetricType::Counter);
  const std::pair<const char*, uint64_t> values[] = {{"worker", workers}, {"daemon", daemon}};
  for (const auto& [origin, value] : values) {
    ClientMetric metric = Labelled({{"origin", origin}});
    metric.counter.value = static_cast<double>(value);
    family.metric.push_back(std::move(metric));
  }
  families->push_back(std::move(family));
}

void PrometheusMetrics::AddEngine(std::vector<MetricFamily>* families) {
  const EngineTotals totals = engine_->Totals();
  AddGauge(families, "statehouse_areas", "Areas that exist.", totals.areas);
  AddGauge(families, "statehouse_memory_bytes",
           "Bytes of memory that areas and dicts hold, control structures included.",
           static_cast<double>(totals.memory_bytes));
  AddGauge(families, "statehouse_memory_limit_bytes",
           "The limit of statehouse_memory_bytes; 0 means none.",
           static_cast<double>(engine_->options().memory_bytes_max));
  AddGauge(families, "statehouse_attached_workers", "Processes that hold lanes now.",
           static_cast<double>(std::max<int64_t>(attached_.load(std::memory_order_relaxed), 0)));
  AddCounter(families, "statehouse_attachments_total",
             "Times that a worker attached, or was found attached at start.",
             attachments_.load(std::memory_order_relaxed));
  AddGauge(families, "statehouse_generation",
           "How many daemons this state has lived through; 1 for the first.",
           static_cast<double>(totals.generation));
  AddCounter(families, "statehouse_recoveries_total",
             "Attachments that ended, by a death or a close; their lanes were recovered.",
             totals.recoveries);
  AddCounter(families, "statehouse_repairs_total", "Damaged control memory that was repaired.",
             totals.repairs);
  AddCounter(families, "statehouse_redos_total",
             "Range writes completed on behalf of a dead worker.", totals.redos);
  AddByOrigin(families, "statehouse_area_mutations_total",
              "Mutations of areas, by the process that carried them out: workers at the local "
              "door, the daemon for calls.",
              totals.local.mutations, totals.daemon.mutations);
  AddByOrigin(families, "statehouse_area_contended_total", "Mutations that met a held stripe.",
              totals.local.contended, totals.daemon.contended);
  AddByOrigin(families, "statehouse_area_wakes_total", "Mutations that woke waiters.",
              totals.local.wakes, totals.daemon.wakes);
}

void PrometheusMetrics::AddDicts(std::vector<MetricFamily>* families) {
  const DictTotals totals = engine_->dicts().Totals();
  AddGauge(families, "statehouse_dicts", "Dicts that exist.", totals.dicts);
  AddGauge(families, "statehouse_dict_entries", "Entries of all dicts, expired ones included.",
           static_cast<double>(totals.entries));
  AddGauge(families, "statehouse_dict_bound_entries", "Entries that are bound to a session.",
           static_cast<double>(totals.bound_entries));
  AddGauge(families, "statehouse_dict_entry_bytes", "Bytes that the entries of all dicts take.",
           static_cast<double>(totals.entry_bytes));
  AddCounter(families, "statehouse_dict_changes_total",
             "Changes of entries, by workers on mapped dicts and by calls.", totals.changes);
  AddCounter(families, "statehouse_dict_contended_total", "Changes that met a held bucket.",
             totals.contended);
  AddCounter(families, "statehouse_dict_evictions_total",
             "Entries that were evicted from full dicts.", totals.evictions);
  AddCounter(families, "statehouse_dict_expirations_total", "Expired entries that were removed.",
             totals.expirations);
  AddCounter(families, "statehouse_dict_moves_total",
             "Times that a dict moved to another segment: grown, cleared or salvaged.",
             totals.moves);
}

void PrometheusMetrics::AddLeases(std::vector<MetricFamily>* families) {
  if (leases_ == nullptr) return;
  const LeaseNumbers leases = leases_();
  AddGauge(families, "statehouse_locks_held",
           "Grants of locks that are held, by workers and by callers; at most a second old.",
           leases.holding);
  AddGauge(families, "statehouse_lock_waiters",
           "Requests that wait for a lock, of workers and of callers; at most a second old.",
           leases.waiting);
  AddGauge(families, "statehouse_lock_calls_parked", "AcquireLock calls that wait.",
           leases.parked_calls);
  AddCounter(families, "statehouse_lock_grants_total", "Locks that were granted.", leases.grants);
  AddCounter(families, "statehouse_lock_releases_total", "Grants that ended by their holder.",
             leases.releases);
  AddCounter(families, "statehouse_lock_expirations_total",
             "Leases that ended by their time and were taken away.", leases.expirations);
  AddCounter(families, "statehouse_lock_contended_total",
             "Requests that had to wait, or were refused for that.", leases.contended);
  AddCounter(families, "statehouse_lock_forced_releases_total",
             "Grants that ForceReleaseLock took away.", leases.forced_releases);
  AddCounter(families, "statehouse_lock_losses_total",
             "Grants of callers that ended before they were released.", leases.losses);
  AddGauge(families, "statehouse_lock_last_token", "The fencing token of the latest grant.",
           static_cast<double>(leases.last_token));
  AddGauge(families, "statehouse_sessions", "Sessions that are open.", leases.sessions);
  MetricFamily ends = Family("statehouse_session_ends_total", "Sessions that ended, by reason.",
                             MetricType::Counter);
  for (const auto& [reason, count] : leases.session_ends) {
    ClientMetric metric = Labelled({{"reason", reason}});
    metric.counter.value = static_cast<double>(count);
    ends.metric.push_back(std::move(metric));
  }
  families->push_back(std::move(ends));
  AddCounter(families, "statehouse_dict_bound_removals_total",
             "Bound entries that went with their session.", leases.bound_removals);
}

void PrometheusMetrics::AddWatches(std::vector<MetricFamily>* families) {
  if (watches_ == nullptr) return;
  const WatchNumbers watches = watches_();
  MetricFamily open = Family("statehouse_watches", "Watches that are open, by the kind of object.",
                             MetricType::Gauge);
  MetricFamily lag = Family("statehouse_watch_lag_revisions",
                            "Revisions (updates of an area) that the slowest live watch was not "
                            "told yet.",
                            MetricType::Gauge);
  MetricFamily changes = Family("statehouse_watch_changes_total",
                                "Changes of entries, and events of areas, that watches were told.",
                                MetricType::Counter);
  MetricFamily coalesced =
      Family("statehouse_watch_coalesced_total",
             "Changes that were left out for a newer one of the same key; updates of areas that "
             "were told with a later one.",
             MetricType::Counter);
  MetricFamily resyncs =
      Family("statehouse_watch_resyncs_total", "Times that a watch had to begin anew, by reason.",
             MetricType::Counter);
  for (const WatchNumbers::OfKind& of : watches.kinds) {
    const auto add = [&of](MetricFamily* family, uint64_t number) {
      ClientMetric metric = Labelled({{"kind", of.kind}});
      (family->type == MetricType::Gauge ? metric.gauge.value : metric.counter.value) =
          static_cast<double>(number);
      family->metric.push_back(std::move(metric));
    };
    add(&open, of.watches);
    add(&lag, of.lag);
    add(&changes, of.changes);
    add(&coalesced, of.coalesced);
    for (const auto& [reason, count] : of.resyncs) {
      ClientMetric metric = Labelled({{"kind", of.kind}, {"reason", reason}});
      metric.counter.value = static_cast<double>(count);
      resyncs.metric.push_back(std::move(metric));
    }
  }
  for (MetricFamily* family : {&open, &lag, &changes, &coalesced, &resyncs}) {
    families->push_back(std::move(*family));
  }
  AddWatched(watches, families);
}

void PrometheusMetrics::AddWatched(const WatchNumbers& watches,
                                   std::vector<MetricFamily>* families) {
  AddGauge(families, "statehouse_watched_dicts",
           "Dicts whose changes are followed, also for a while after their last watch.",
           watches.dicts);
  AddGauge(families, "statehouse_watch_history_changes",
           "Changes that are kept for watches that are behind or come back.",
           static_cast<double>(watches.history_changes));
  AddGauge(families, "statehouse_watch_local_followers",
           "Watches of dicts whose clients follow the changes by themselves on this host.",
           watches.local_followers);
  AddCounter(families, "statehouse_watch_handed_over_total",
             "Times that a watch was left to its client to follow.", watches.handed_over);
  AddCounter(families, "statehouse_watch_early_changes_total",
             "Changes that a client took from their ring before the service.",
             watches.early_changes);
  AddCounter(families, "statehouse_watch_follow_fallbacks_total",
             "Times that a client could not follow any more, and its watch went on over a stream.",
             watches.follow_fallbacks);
  AddGauge(families, "statehouse_watch_previous_bytes",
           "Memory of the previous values that watches of dicts asked for.",
           static_cast<double>(watches.previous_bytes));
  AddGauge(
      families, "statehouse_watch_lag_seconds",
      "For how long the oldest change that a live watch of a dict was not told yet has been there.",
      watches.lag_s);
  MetricFamily wakes =
      Family("statehouse_watch_wake_seconds",
             "From when the service noticed a change until a live watch of a dict was told it.",
             MetricType::Histogram);
  ClientMetric wake;
  for (const auto& [bound, count] : watches.wakes) {
    wake.histogram.sample_count += count;
    wake.histogram.bucket.push_back({wake.histogram.sample_count, bound});
  }
  wake.histogram.sample_sum = watches.wakes_s;
  wakes.metric.push_back(std::move(wake));
  families->push_back(std::move(wakes));
  AddGauge(families, "statehouse_watched_ranges",
           "Ranges of areas that are watched, or were a while ago.", watches.ranges);
  AddGauge(families, "statehouse_watch_copy_bytes",
           "Memory of the copies of watched ranges of areas.",
           static_cast<double>(watches.copy_bytes));
}

void PrometheusMetrics::AddProcess(std::vector<MetricFamily>* families) {
  MetricFamily build =
      Family("statehouse_build_info", "Always 1; the label tells the release.", MetricType::Gauge);
  ClientMetric metric = Labelled({{"version", version_}});
  metric.gauge.value = 1;
  build.metric.push_back(std::move(metric));
  families->push_back(std::move(build));
  AddGauge(families, "process_start_time_seconds",
           "When this daemon started, in seconds since 1970.", start_time_s_);
  const ProcessNumbers process = ReadProcessNumbers();
  AddCounter(families, "process_cpu_seconds_total",
             "Processor time of this daemon, in user and kernel mode.", process.cpu_seconds);
  AddGauge(families, "process_resident_memory_bytes",
           "Memory of this daemon that is not swapped out, what it has touched of areas and dicts "
           "included.",
           static_cast<double>(process.resident_bytes));
  AddGauge(families, "process_open_fds", "Open descriptors of this daemon.",
           static_cast<double>(process.open_descriptors));
  AddGauge(families, "process_max_fds", "How many descriptors this daemon may have.",
           static_cast<double>(process.descriptors_max));
  AddCounter(families, "statehouse_connections_throttled_total",
             "Connections of the network door that are read more slowly, for wasted calls.",
             connections_throttled_.load(std::memory_order_relaxed));
  AddCounter(families, "statehouse_connections_held_total",
             "New connections of the network door that waited, because their host opens many.",
             connections_held_.load(std::memory_order_relaxed));
  AddCounter(families, "statehouse_connections_ended_total",
             "Connections of the network door that were ended after many pauses.",
             connections_ended_.load(std::memory_order_relaxed));
  AddGauge(families, "statehouse_connections", "Open connections of the network door.",
           static_cast<double>(connections_.load(std::memory_order_relaxed)));
  AddCounter(families, "statehouse_connections_refused_total",
             "New connections of the network door that were closed at once, for the limit of them.",
             connections_refused_.load(std::memory_order_relaxed));
  AddGauge(families, "statehouse_tls_certificate_expiry_seconds",
           "When the certificate in use ends, in seconds since 1970; 0 for none.",
           static_cast<double>(certificate_expiry_.load(std::memory_order_relaxed)));
  AddGauge(families, "statehouse_tls_files_refused",
           "1 while the newest TLS files are not taken and those from before are in use; else 0.",
           tls_files_refused_.load(std::memory_order_relaxed) ? 1 : 0);
}

std::string PrometheusMetrics::Scrape() {
  std::vector<MetricFamily> families;
  for (MetricFamily family : {CallsFamily(), LatencyFamily(), AuthFamily()}) {
    if (!family.metric.empty()) families.push_back(std::move(family));
  }
  AddEngine(&families);
  AddDicts(&families);
  AddLeases(&families);
  AddWatches(&families);
  AddProcess(&families);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace

std::unique_ptr<Metrics> NewMetrics(Engine* engine, std::vector<std::string> methods,
                                    std::string version, std::function<LeaseNumbers()> leases,
                                    std::function<WatchNumbers()> watches) {
  return std::make_unique<PrometheusMetrics>(engine, std::move(methods), std::move(version),
                                             std::move(leases), std::move(watches));
}

}  // namespace statehouse
