#!/usr/bin/env python3
"""Runs the conformance cases against every client through every door. See README.md beside this file."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PATIENCE_S = 60.0  # For what must happen.
STANDS_FOR = {"VALUE_OUT_OF_RANGE", "WIDTH_INVALID"}  # What a type system refuses for us.


class Service:
    """A statehoused of our own, ended and removed with the context."""

    def __init__(self, binary: pathlib.Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="statehouse-conformance-")
        folder = pathlib.Path(self._folder.name)
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [binary, "--dev"],
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        deadline = time.monotonic() + PATIENCE_S
        while not (found := list(folder.glob("*/dev.json"))):
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = (folder / "log").read_text()
                self.__exit__()
                raise SystemExit(f"{binary} --dev did not start:\n{log}")
            time.sleep(0.01)
        facts = json.loads(found[0].read_text())
        self.environment = {
            **os.environ,
            "STATEHOUSE_URL": facts["url"],
            "STATEHOUSE_TOKEN": facts["token"],
        }

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._folder.cleanup()


class Program:
    """One client's program, for one door. A watchdog ends it when an answer takes too long."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        watchdog = threading.Timer(PATIENCE_S, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watchdog.cancel()
        if not line:
            raise SystemExit(f"the program ended, or did not answer {request}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write('{"op": "end"}\n')
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # It ended by itself; its code says how.
        try:
            return self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._process.stdout.close()


def commands(build: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """(client, its program without the door)."""
    python = [sys.executable, str(ROOT / "clients/python/conformance/main.py")]
    yield "c", [str(build / "tests/conformance_c")]
    yield "cpp", [str(build / "tests/conformance_cpp")]
    yield "python", python
    yield "python_aio", python


def load_cases(only: str) -> list[tuple[str, dict[str, Any]]]:
    """(file: name, case) of every case whose title contains `only`."""
    cases = []
    for path in sorted((HERE / "cases").glob("*.json")):
        for case in json.loads(path.read_text()):
            title = f"{path.stem}: {case['name']}"
            if only in title:
                cases.append((title, case))
    titles = [title for title, _ in cases]
    assert len(titles) == len(set(titles)), "two cases have one name"
    return cases


def load_known_failing(name: str) -> set[str]:
    path = HERE / "known_failing" / f"{name}.txt"
    if not path.exists():
        return set()
    lines = (line.strip() for line in path.read_text().splitlines())
    return {line for line in lines if line and not line.startswith("#")}


def fill_in(value: Any, saved: dict[str, Any]) -> Any:
    """Puts what was saved in the place of $names."""
    if not isinstance(value, str) or "$" not in value:
        return value
    if value[1:] in saved:
        return saved[value[1:]]
    return value.replace("$area", saved["area"])


def disagreement(answer: dict[str, Any], then: dict[str, Any], saved: dict[str, Any]) -> str:
    """Why the answer is not the expected one, or ""."""
    if answer.get("inexpressible") and then.get("error") in STANDS_FOR:
        return ""
    if "greater_than" in then:
        least = fill_in(then["greater_than"], saved)
        return "" if answer.get("ok", -1) > least else f"{answer} is not greater than {least}"
    if "error" in then:
        good = answer.get("error") == then["error"]
        good = good and then.get("retryable") in (None, answer.get("retryable"))
    else:
        expected = then["ok"]
        if isinstance(expected, list):
            expected = [fill_in(item, saved) for item in expected]
        good = answer == {"ok": fill_in(expected, saved)}
    return "" if good else f"expected {then}, got {answer}"


def run_case(program: Program, case: dict[str, Any], area: str) -> str:
    """Why the client fails the case, or ""."""
    saved: dict[str, Any] = {"area": area}

    def ask(step: dict[str, Any]) -> dict[str, Any]:
        return program.ask({k: fill_in(v, saved) for k, v in step.items() if k != "save"})

    for step in case.get("given", []):
        answer = ask(step)
        if "ok" not in answer:
            return f"given {step}: {answer}"
        if "save" in step:
            saved[step["save"]] = answer["ok"]
    checks = [{"when": case["when"], "then": case["then"]}, *case.get("afterwards", [])]
    for check in checks:
        problem = disagreement(ask(check["when"]), check["then"], saved)
        if problem:
            return f"when {check['when']}: {problem}"
    return ""


def run_client(
    name: str, command: list[str], environment: dict[str, str], cases: list[tuple[str, dict[str, Any]]]
) -> int:
    """Runs all cases with one client through one door; how many lines it had to complain about."""
    known = load_known_failing(name)
    complaints = []
    program = Program(command, environment)
    for number, (title, case) in enumerate(cases):
        problem = run_case(program, case, f"conformance/{name}/{number}")
        if problem and title not in known:
            complaints.append(f"{title}: {problem}")
        if not problem and title in known:
            complaints.append(f"{title}: passes, and is listed as known failing; take it off the list")
    all_titles = {title for title, _ in load_cases("")}
    complaints += [f"{title}: is listed as known failing, and no such case exists" for title in sorted(known - all_titles)]
    code = program.end()
    if code != 0:
        complaints.append(f"the program ended with code {code}")
    print(f"{name:20} {len(cases)} cases, {len(known)} known failing, {len(complaints)} wrong")
    for complaint in complaints:
        print(f"  {complaint}")
    return len(complaints)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--only", default="", help="client-door pairs whose name contains this")
    parser.add_argument("--case", default="", help="cases whose title contains this")
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    cases = load_cases(arguments.case)
    wrong = 0
    ran = 0
    with Service(build / "bin/statehoused") as service:
        environment = {**service.environment, "PYTHONPATH": str(build / "python")}
        for client, command in commands(build):
            for door in ("local", "network"):
                name = f"{client}-{door}"
                if arguments.only not in name:
                    continue
                extra = ["--aio"] if client == "python_aio" else []
                wrong += run_client(name, [*command, door, *extra], environment, cases)
                ran += len(cases)
    if ran == 0:
        print("no case was run; see --only and --case")
        return 1
    print(f"{ran - wrong} passed, {wrong} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
