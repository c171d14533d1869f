// docs/OPERATIONS.md lists every metric that a real service serves, with its type and labels, and
// none that it does not.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "statehouse/v1/area.pb.h"
#include "tests/support/attach_client.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

// "counter {door,method,reason}" for each metric's name.
using Metrics = std::map<std::string, std::string>;

std::string Shape(const std::string& type, const std::set<std::string>& labels) {
  std::string text = type + " {";
  for (const std::string& label : labels) text += (text.back() == '{' ? "" : ",") + label;
  return text + "}";
}

std::string Trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" `");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" `") - first + 1);
}

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(Trimmed(part));
  return parts;
}

// The rows of the table whose heading is "metric | type | labels | unit | meaning".
Metrics Listed(const std::string& path) {
  Metrics metrics;
  std::ifstream file(path);
  bool in_table = false;
  for (std::string line; std::getline(file, line);) {
    if (line == "| metric | type | labels | unit | meaning |") in_table = true;
    if (!line.starts_with("|")) in_table = false;
    if (!in_table || !line.starts_with("| `")) continue;
    const std::vector<std::string> cells = Split(line, '|');  // The first is empty.
    if (cells.size() < 6 || cells[5].empty()) {
      ADD_FAILURE() << "five cells, the last one not empty, are expected: " << line;
      continue;
    }
    std::set<std::string> labels;
    for (const std::string& label : Split(cells[3], ',')) labels.insert(label);
    EXPECT_TRUE(metrics.emplace(cells[1], Shape(cells[2], labels)).second) << "twice: " << line;
  }
  return metrics;
}

std::set<std::string> LabelsOf(const std::string& sample) {
  std::set<std::string> labels;
  const size_t open = sample.find('{');
  for (size_t at = open; at < sample.rfind('}');) {
    const size_t equals = sample.find("=\"", at);
    labels.insert(sample.substr(at + 1, equals - at - 1));
    at = sample.find('"', equals + 2) + 1;  // Values hold no quotes.
  }
  labels.erase("le");  // A histogram's own.
  return labels;
}

// What /metrics says: each "# TYPE" line, and the labels of the samples that follow it.
Metrics Served(const std::string& exposition) {
  Metrics metrics;
  std::string name;
  std::string type;
  std::istringstream stream(exposition);
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with("# TYPE ")) {
      std::istringstream words(line.substr(7));
      words >> name >> type;
    } else if (!name.empty() && line.starts_with(name)) {
      const std::string shape = Shape(type, LabelsOf(line));
      const auto [known, fresh] = metrics.emplace(name, shape);
      EXPECT_TRUE(fresh || known->second == shape) << "samples of one metric differ: " << line;
    }
  }
  return metrics;
}

TEST(MetricsListedTest, TheTableAndTheServiceAgree) {
  auto started = Daemon::Start();
  ASSERT_TRUE(started.ok()) << started.status().ToString();
  const Daemon& daemon = **started;
  AttachClient worker;
  ASSERT_TRUE(worker.Connect(daemon.attach_socket()).ok());
  ASSERT_TRUE(worker.Hello(daemon.token(), true).ok());
  v1::CreateAreaRequest create;
  create.set_name("seen");
  create.set_size(4096);
  ASSERT_TRUE(worker.Call("/statehouse.v1.Areas/CreateArea", create.SerializeAsString()).ok());
  AttachClient stranger;
  ASSERT_TRUE(stranger.Connect(daemon.attach_socket()).ok());
  ASSERT_EQ(stranger.Hello("nonsense", false).status().reason(), Reason::kUnauthenticated);

  const Metrics listed = Listed(OPERATIONS_MD);
  const std::string exposition = daemon.HttpGet("/metrics");
  const Metrics served = Served(exposition);

  EXPECT_FALSE(served.empty()) << exposition;
  for (const auto& [name, shape] : served) {
    const auto found = listed.find(name);
    if (found == listed.end()) {
      ADD_FAILURE() << name << " " << shape << " is served; list it in docs/OPERATIONS.md";
    } else {
      EXPECT_EQ(found->second, shape) << "docs/OPERATIONS.md tells otherwise of " << name;
    }
  }
  for (const auto& [name, shape] : listed) {
    EXPECT_TRUE(served.contains(name))
        << "docs/OPERATIONS.md lists " << name << " " << shape << "; no service serves it:\n"
        << exposition;
  }
}

// Names, units and help texts are as Prometheus asks for: its own linter finds nothing.
TEST(MetricsListedTest, PrometheusFindsNothingToComplainAbout) {
  auto started = Daemon::Start();
  ASSERT_TRUE(started.ok()) << started.status().ToString();
  const std::string response = (*started)->HttpGet("/metrics");
  ASSERT_NE(response.find("statehouse_build_info"), std::string::npos) << response;
  const std::string exposition = response.substr(response.find("\r\n\r\n") + 4);

  FILE* const promtool = popen("promtool check metrics", "w");
  ASSERT_NE(promtool, nullptr);
  EXPECT_EQ(fwrite(exposition.data(), 1, exposition.size(), promtool), exposition.size());
  EXPECT_EQ(pclose(promtool), 0) << "what it complains about stands above";
}

}  // namespace
}  // namespace statehouse::testing
