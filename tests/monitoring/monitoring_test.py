"""The alert rules and the dashboard of deploy/monitoring: they are valid, they ask only for metrics and labels that docs/OPERATIONS.md
lists (which the service's own test compares with what it serves), and each rule has a test that fails without it.

It needs promtool, of Debian's package prometheus.
"""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import tempfile
import unittest
from collections.abc import Iterator
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ALERTS = ROOT / "deploy/monitoring/alerts.yml"
DASHBOARD = ROOT / "deploy/monitoring/dashboard.json"
# What Prometheus adds to what it scrapes.
TARGET_LABELS = {"instance", "job", "le"}
GRID_COLUMNS = 24


def promtool(*arguments: str | pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def listed_metrics() -> dict[str, set[str]]:
    """The labels of each metric in the table of docs/OPERATIONS.md; a histogram also under the names of its series."""
    metrics: dict[str, set[str]] = {}
    for line in (ROOT / "docs/OPERATIONS.md").read_text().splitlines():
        row = re.fullmatch(r"\| `(\w+)` \| (\w+) \|([^|]*)\|.*", line)
        if row is None:
            continue
        name, kind, labels = row.groups()
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        for suffix in suffixes:
            metrics[name + suffix] = {label.strip() for label in labels.split(",") if label.strip()}
    return metrics


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    """(panel, PromQL) with Grafana's variables filled in."""
    for panel in panels():
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")


def alert_rules() -> list[list[str]]:
    """The lines of each rule of alerts.yml."""
    rules: list[list[str]] = []
    for line in ALERTS.read_text().splitlines():
        if line.startswith("      - alert: "):
            rules.append([])
        if rules:
            rules[-1].append(line)
    return rules


def unknown_in(expression: str, metrics: dict[str, set[str]]) -> list[str]:
    """What an expression asks for that no service serves: metrics, and labels that none of its metrics has."""
    names = set(re.findall(r"\b(?:statehouse|process)_\w+\b", re.sub(r'"[^"]*"', '""', expression)))
    problems = [f"no metric {name}" for name in sorted(names - metrics.keys())]
    labels = TARGET_LABELS.union(*(metrics.get(name, set()) for name in names))
    asked = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', expression))
    for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
        asked.update(label.strip() for label in group.split(",") if label.strip())
    return problems + [f"no label {label}" for label in sorted(asked - labels)]


class AlertsTest(unittest.TestCase):
    def test_the_rules_are_valid(self) -> None:
        checked = promtool("check", "rules", ALERTS)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_each_rule_fires_and_keeps_silent_where_it_should(self) -> None:
        tested = promtool("test", "rules", HERE / "alerts_test.yml")
        self.assertEqual(tested.returncode, 0, tested.stdout + tested.stderr)

    def test_no_rule_can_go_without_a_test_that_fails(self) -> None:
        rules = alert_rules()
        self.assertGreater(len(rules), 0)
        text = ALERTS.read_text()
        tests = (HERE / "alerts_test.yml").read_text()
        for rule in rules:
            with self.subTest(rule=rule[0]), tempfile.TemporaryDirectory() as folder:
                without = pathlib.Path(folder, "alerts.yml")
                without.write_text(text.replace("\n".join(rule), ""))
                self.assertNotEqual(without.read_text(), text)
                test = pathlib.Path(folder, "test.yml")
                test.write_text(tests.replace("../../deploy/monitoring/alerts.yml", "alerts.yml"))
                tested = promtool("test", "rules", test)
                self.assertIn("FAILED", tested.stdout + tested.stderr)

    def test_the_rules_ask_for_what_is_served(self) -> None:
        metrics = listed_metrics()
        for rule in alert_rules():
            expression = "\n".join(rule).partition("expr:")[2].partition("        labels:")[0].partition("        for:")[0]
            with self.subTest(rule=rule[0]):
                metrics_and_scrape = {**metrics, "up": set()}
                self.assertEqual(unknown_in(expression, metrics_and_scrape), [])


class DashboardTest(unittest.TestCase):
    def test_every_expression_is_valid(self) -> None:
        rules = [{"record": f"panel:{index}", "expr": expression} for index, (_, expression) in enumerate(dashboard_expressions())]
        self.assertGreater(len(rules), 20)
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "rules.yml")
            file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML, too.
            checked = promtool("check", "rules", file)
            self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_it_asks_for_what_is_served(self) -> None:
        metrics = listed_metrics()
        self.assertIn("statehouse_calls_total", metrics)
        for title, expression in dashboard_expressions():
            with self.subTest(panel=title):
                self.assertEqual(unknown_in(expression, metrics), [])
                self.assertIn('instance=~".*"', expression)

    def test_what_is_not_served_would_be_found(self) -> None:
        metrics = {"statehouse_watches": {"kind"}}
        self.assertEqual(unknown_in('sum by (kind) (statehouse_watches{instance=~"x"})', metrics), [])
        self.assertEqual(unknown_in("statehouse_watchers", metrics), ["no metric statehouse_watchers"])
        self.assertEqual(unknown_in("sum by (door) (statehouse_watches)", metrics), ["no label door"])
        self.assertEqual(unknown_in('statehouse_watches{reason!="OK"}', metrics), ["no label reason"])

    def test_panels_have_their_own_place_and_say_what_they_show(self) -> None:
        taken: dict[tuple[int, int], str] = {}
        ids = [panel["id"] for panel in panels()]
        self.assertEqual(len(ids), len(set(ids)))
        for panel in panels():
            place = panel["gridPos"]
            with self.subTest(panel=panel["title"]):
                self.assertLessEqual(place["x"] + place["w"], GRID_COLUMNS)
                if panel["type"] != "row":
                    self.assertTrue(panel["description"])
                for x in range(place["x"], place["x"] + place["w"]):
                    for y in range(place["y"], place["y"] + place["h"]):
                        self.assertNotIn((x, y), taken)
                        taken[x, y] = panel["title"]


if __name__ == "__main__":
    unittest.main()
