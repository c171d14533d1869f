#include "clients/cli/top_model.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <tuple>

#include "clients/cli/quantity.h"
#include "clients/cli/terminal_text.h"

namespace statehouse::cli {
namespace {

constexpr size_t kTableRowsMin = 3;

// What counted up by so many in so long; nothing where it went down, as after a restart.
std::optional<double> Rate(uint64_t before, uint64_t now, double seconds) {
  if (now < before || seconds <= 0) return std::nullopt;
  return static_cast<double>(now - before) / seconds;
}

std::vector<DictRow> DictRows(const TopLook& before, const TopLook& now, double seconds) {
  std::map<uint32_t, uint64_t> revisions;
  for (const v1::Dict& dict : before.dicts) revisions[dict.index()] = dict.revision();
  std::vector<DictRow> rows;
  for (const v1::Dict& dict : now.dicts) {
    DictRow row{.name = dict.name(),
                .entries = dict.entries(),
                .bytes = dict.memory_bytes(),
                .processes = dict.attached_processes(),
                .changes = std::nullopt};
    const auto known = revisions.find(dict.index());
    if (known != revisions.end()) row.changes = Rate(known->second, dict.revision(), seconds);
    rows.push_back(std::move(row));
  }
  std::stable_sort(rows.begin(), rows.end(), [](const DictRow& a, const DictRow& b) {
    return std::tuple(a.changes.value_or(0), a.bytes) > std::tuple(b.changes.value_or(0), b.bytes);
  });
  return rows;
}

std::vector<AreaRow> AreaRows(const TopLook& before, const TopLook& now, double seconds) {
  std::map<uint32_t, uint64_t> updates;
  for (const sh_area_info& area : before.areas) updates[area.index] = area.updates;
  std::vector<AreaRow> rows;
  for (const sh_area_info& area : now.areas) {
    AreaRow row{.name = area.name,
                .size = area.size,
                .processes = area.attached_processes,
                .updates = std::nullopt};
    const auto known = updates.find(area.index);
    if (known != updates.end()) row.updates = Rate(known->second, area.updates, seconds);
    rows.push_back(std::move(row));
  }
  std::stable_sort(rows.begin(), rows.end(), [](const AreaRow& a, const AreaRow& b) {
    return std::tuple(a.updates.value_or(0), a.size) > std::tuple(b.updates.value_or(0), b.size);
  });
  return rows;
}

std::vector<MethodRow> MethodRows(const std::vector<MetricSample>& before,
                                  const std::vector<MetricSample>& now, double seconds) {
  using Key = std::tuple<std::string, std::string, std::string>;
  const auto counts = [](const std::vector<MetricSample>& samples) {
    std::map<Key, double> found;
    for (const MetricSample& sample : samples) {
      if (sample.name != "statehouse_calls_total") continue;
      auto label = [&sample](const char* name) {
        const auto at = sample.labels.find(name);
        return at == sample.labels.end() ? std::string() : at->second;
      };
      found[{label("door"), label("method"), label("reason")}] += sample.value;
    }
    return found;
  };
  const std::map<Key, double> then = counts(before);
  std::map<std::pair<std::string, std::string>, MethodRow> rows;
  for (const auto& [key, count] : counts(now)) {
    const auto& [door, method, reason] = key;
    const auto known = then.find(key);
    // A daemon that was restarted counts from 0.
    const double grown = count - (known == then.end() || known->second > count ? 0 : known->second);
    if (grown <= 0 || seconds <= 0) continue;
    MethodRow& row = rows[{door, method}];
    row.door = door;
    row.method = method;
    row.calls += grown / seconds;
    if (reason != "OK") row.errors += grown / seconds;
  }
  std::vector<MethodRow> sorted;
  for (auto& [key, row] : rows) sorted.push_back(std::move(row));
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const MethodRow& a, const MethodRow& b) { return a.calls > b.calls; });
  return sorted;
}

// Whole, however long the texts are.
template <typename... Values>
std::string Format(const char* format, Values... values) {
  std::string text(static_cast<size_t>(std::snprintf(nullptr, 0, format, values...)), '\0');
  std::snprintf(text.data(), text.size() + 1, format, values...);
  return text;
}

std::string RateText(const std::optional<double>& rate) {
  return rate.has_value() ? Format("%.1f", *rate) : "-";
}

// A table's rows below its title, at most `rows_max`.
struct Table {
  std::string title;
  std::vector<std::string> rows;
};

Table DictTable(const TopView& view) {
  Table table{
      Format("%-32s %12s %12s %10s %12s", "DICT", "ENTRIES", "MEMORY", "PROCESSES", "CHANGES/S"),
      {}};
  for (const DictRow& row : view.dicts) {
    table.rows.push_back(Format("%-32s %12" PRIu64 " %12s %10u %12s", row.name.c_str(), row.entries,
                                FormatByteCount(row.bytes).c_str(), row.processes,
                                RateText(row.changes).c_str()));
  }
  return table;
}

Table AreaTable(const TopView& view) {
  Table table{Format("%-32s %12s %12s %10s %12s", "AREA", "", "SIZE", "PROCESSES", "UPDATES/S"),
              {}};
  for (const AreaRow& row : view.areas) {
    table.rows.push_back(Format("%-32s %12s %12s %10u %12s", row.name.c_str(), "",
                                FormatByteCount(row.size).c_str(), row.processes,
                                RateText(row.updates).c_str()));
  }
  return table;
}

Table LockTable(const TopView& view) {
  Table table{Format("%-32s %12s %12s %10s  %s", "LOCK", "LIMIT", "HOLDERS", "WAITERS", "OWNER"),
              {}};
  for (const LockUse& lock : view.locks) {
    table.rows.push_back(Format("%-32s %12u %12u %10u  %s", lock.name.c_str(), lock.limit,
                                lock.holders, lock.waiters, lock.owner.c_str()));
  }
  return table;
}

Table MethodTable(const TopView& view) {
  Table table{Format("%-45s %12s %10s %12s", "CALL", "DOOR", "ERRORS/S", "CALLS/S"), {}};
  for (const MethodRow& row : *view.methods) {
    table.rows.push_back(Format("%-45s %12s %10.1f %12.1f", row.method.c_str(), row.door.c_str(),
                                row.errors, row.calls));
  }
  return table;
}

std::vector<std::string> HeadLines(const TopView& view) {
  const v1::GetStatusResponse& status = view.status;
  double calls = 0;
  double errors = 0;
  for (const MethodRow& row : view.methods.value_or(std::vector<MethodRow>())) {
    calls += row.calls;
    errors += row.errors;
  }
  const bool draining = status.state() == v1::SERVING_STATE_DRAINING;
  const std::string limit =
      status.memory_limit_bytes() == 0 ? "" : " of " + FormatByteCount(status.memory_limit_bytes());
  return {Format("statehouse %s, %s, daemon %u (generation %" PRIu64 "), over %.1f s",
                 status.version().c_str(), draining ? "DRAINING" : "serving", status.daemon_pid(),
                 status.generation(), view.seconds),
          Format("memory %s%s, processes %u, sessions %u, locks held %u, waiting %u",
                 FormatByteCount(status.memory_bytes()).c_str(), limit.c_str(),
                 status.attached_processes(), status.sessions(), status.locks_held(),
                 status.lock_waiters()),
          view.methods.has_value()
              ? Format("calls %.1f/s, errors %.1f/s", calls, errors)
              : std::string("calls: not known, /metrics is read on the service's host")};
}

}  // namespace

TopView Compare(const TopLook& before, const TopLook& now) {
  TopView view;
  view.seconds = std::chrono::duration<double>(now.time - before.time).count();
  view.status = now.status;
  view.dicts = DictRows(before, now, view.seconds);
  view.areas = AreaRows(before, now, view.seconds);
  view.locks = now.locks;
  std::stable_sort(view.locks.begin(), view.locks.end(), [](const LockUse& a, const LockUse& b) {
    return std::tuple(a.waiters, a.holders) > std::tuple(b.waiters, b.holders);
  });
  if (before.metrics.has_value() && now.metrics.has_value()) {
    view.methods = MethodRows(*before.metrics, *now.metrics, view.seconds);
  }
  return view;
}

nlohmann::ordered_json ToJson(const TopView& view) {
  using Json = nlohmann::ordered_json;
  const auto rate = [](const std::optional<double>& value) {
    return value.has_value() ? Json(*value) : Json(nullptr);
  };
  Json json = {
      {"seconds", view.seconds},
      {"state", view.status.state() == v1::SERVING_STATE_DRAINING ? "draining" : "serving"},
      {"generation", view.status.generation()},
      {"memory_bytes", view.status.memory_bytes()},
      {"memory_limit_bytes", view.status.memory_limit_bytes()},
      {"attached_processes", view.status.attached_processes()},
      {"sessions", view.status.sessions()},
      {"locks_held", view.status.locks_held()},
      {"lock_waiters", view.status.lock_waiters()},
      {"dicts", Json::array()},
      {"areas", Json::array()},
      {"locks", Json::array()}};
  for (const DictRow& row : view.dicts) {
    json["dicts"].push_back({{"name", row.name},
                             {"entries", row.entries},
                             {"memory_bytes", row.bytes},
                             {"attached_processes", row.processes},
                             {"changes_per_s", rate(row.changes)}});
  }
  for (const AreaRow& row : view.areas) {
    json["areas"].push_back({{"name", row.name},
                             {"size", row.size},
                             {"attached_processes", row.processes},
                             {"updates_per_s", rate(row.updates)}});
  }
  for (const LockUse& lock : view.locks) {
    json["locks"].push_back({{"name", lock.name},
                             {"limit", lock.limit},
                             {"holder_count", lock.holders},
                             {"waiter_count", lock.waiters},
                             {"owner", lock.owner}});
  }
  if (!view.methods.has_value()) return json;
  json["calls"] = Json::array();
  for (const MethodRow& row : *view.methods) {
    json["calls"].push_back({{"method", row.method},
                             {"door", row.door},
                             {"calls_per_s", row.calls},
                             {"errors_per_s", row.errors}});
  }
  return json;
}

std::vector<std::string> ToLines(const TopView& view, size_t lines_max, size_t columns) {
  std::vector<std::string> lines = HeadLines(view);
  std::vector<Table> tables;
  tables.push_back(DictTable(view));
  tables.push_back(AreaTable(view));
  tables.push_back(LockTable(view));
  if (view.methods.has_value()) tables.push_back(MethodTable(view));
  std::erase_if(tables, [](const Table& table) { return table.rows.empty(); });
  for (size_t i = 0; i < tables.size(); ++i) {
    const Table& table = tables[i];
    size_t rows = table.rows.size();
    if (lines_max != 0) {
      // What is left, in equal parts: an empty line, the title and what was cut take three.
      const size_t left = lines_max > lines.size() ? lines_max - lines.size() : 0;
      const size_t part = left / (tables.size() - i);
      rows = std::min(rows, std::max(part > 3 ? part - 3 : 0, kTableRowsMin));
    }
    lines.emplace_back();
    lines.push_back(table.title);
    lines.insert(lines.end(), table.rows.begin(),
                 table.rows.begin() + static_cast<ptrdiff_t>(rows));
    if (rows < table.rows.size()) {
      lines.push_back(Format("… and %zu more", table.rows.size() - rows));
    }
  }
  if (lines_max != 0 && lines.size() > lines_max) lines.resize(lines_max);
  for (std::string& line : lines) {
    line = Visible(line);
    if (columns != 0) line.resize(CutAtCharacter(line, columns).size());
    line.erase(line.find_last_not_of(' ') + 1);
  }
  return lines;
}

}  // namespace statehouse::cli
