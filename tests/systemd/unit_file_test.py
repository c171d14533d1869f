#!/usr/bin/env python3
"""The unit file says what this statehoused understands: unit_file_test.py STATEHOUSED"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "systemd" / "statehoused.service"
STATEHOUSED = sys.argv.pop(1) if len(sys.argv) > 1 else ""


def settings() -> dict[str, list[str]]:
    """Of all sections; a name may come more than once."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            name, equals, value = line.partition("=")
            if not equals:
                raise ValueError(f"{UNIT}: {line!r} is no setting")
            found.setdefault(name, []).append(value)
    return found


def limit(name: str) -> int:
    header = (ROOT / "engine" / "base" / "limits.h").read_text(encoding="utf-8")
    found = re.search(rf"\b{name} = (\d+);", header)
    if found is None:
        raise ValueError(f"limits.h: no {name}")
    return int(found.group(1))


class UnitFileTest(unittest.TestCase):
    def test_the_command_line_is_understood(self) -> None:
        (command,) = settings()["ExecStart"]
        words = command.split()
        self.assertEqual(words[0].rsplit("/", 1)[-1], "statehoused")
        self.assertIn("--no-keeper", words)
        at = words.index("--config")
        flags = [*words[1:at], *words[at + 2 :]]  # Its file is not here.
        checked = subprocess.run([STATEHOUSED, "config", "check", *flags], capture_output=True, text=True, check=False)
        self.assertEqual((checked.returncode, checked.stderr), (0, ""))

    def test_the_daemon_uses_the_folder_that_systemd_makes(self) -> None:
        unit = settings()
        words = unit["ExecStart"][0].split()
        self.assertEqual(words[words.index("--runtime-dir") + 1], "/run/" + unit["RuntimeDirectory"][0])
        self.assertEqual(unit["RuntimeDirectoryMode"], ["0700"])

    def test_no_number_of_failures_makes_systemd_forget_the_memory(self) -> None:
        self.assertEqual(settings()["StartLimitIntervalSec"], ["0"])
        self.assertEqual(settings()["Restart"], ["on-failure"])

    def test_systemd_keeps_as_many_descriptors_as_there_can_be_objects(self) -> None:
        kept = int(settings()["FileDescriptorStoreMax"][0])
        areas = 2 * limit("kAreasMax")  # Control memory, and a file.
        dicts = 3 * limit("kDictsMax")  # A segment, the next one while it grows, and a feed.
        self.assertGreaterEqual(kept, areas + dicts)
        self.assertGreater(int(settings()["LimitNOFILE"][0]), kept)

    def test_systemd_waits_longer_than_calls_in_flight_may_take(self) -> None:
        defaults = subprocess.run([STATEHOUSED, "config", "default"], capture_output=True, text=True, check=True).stdout
        grace = re.search(r"^#? ?drain_grace_ms = (\d+)", defaults, re.MULTILINE)
        assert grace is not None, defaults
        self.assertGreater(int(settings()["TimeoutStopSec"][0]) * 1000, int(grace.group(1)))

    def test_systemd_can_tell_that_it_serves(self) -> None:
        self.assertEqual(settings()["Type"], ["notify"])


if __name__ == "__main__":
    if not STATEHOUSED:
        sys.exit(__doc__)
    unittest.main()
