#!/usr/bin/env python3
"""Runs the conformance cases against every client through every door. See README.md beside this file."""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import bad_input
from service import HERE, PATIENCE_S, Service

ROOT = HERE.parent.parent
STANDS_FOR = {"VALUE_OUT_OF_RANGE", "WIDTH_INVALID"}  # What a type system refuses for us.
RUNNERS_OWN = {"save", "meanwhile", "is", "eventually"}  # Members of a step that no program sees.
# Members of operations on dicts that hold values: they travel as JSON text.
VALUES = {"value", "values", "delta", "initial", "min", "max"}
DICT_OPS = {"open_dict", "create_dict", "describe_dict", "delete_dict", "list_dicts", "dict_length", "clear_dict"}
DICT_OPS |= {"get_entry", "set_entry", "delete_entry", "touch_entry", "increment_entry", "edit_entry", "delete_prefix"}
DICT_OPS |= {"wait_entry", "get_entries", "set_entries", "scan_entries", "transact_dict"}
LOCK_OPS = {"acquire_lock", "start_acquire", "finish_acquire", "release_lock", "renew_lock", "await_loss", "show_lock"}
LOCK_OPS |= {"describe_lock", "list_locks", "force_release_lock", "open_client", "close_client", "let_go"}
MANY_LOCKS = 1_001  # One more than a page of any client holds.
VALUES |= {"until.value"}
WITHOUT_SOCKET = {"raw", "python_aio", "watch_python_aio", "watch_cli"}
WATCH_OPS = {"watch_area", "watch_dict", "next_event", "no_event", "watch_place", "close_watch"}
VALUES |= {f"edit.{kind}" for kind in ("set", "append", "remove", "merge", "set_default")}


class Program:
    """One client's program, for one door. A watchdog ends it when an answer takes too long."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(flat(request), ensure_ascii=False) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # receive() tells.

    def receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        watchdog = threading.Timer(PATIENCE_S, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise SystemExit("a client's program ended, or did not answer")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.send(request)
        return self.receive()

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


def flat(step: dict[str, Any]) -> dict[str, Any]:
    """A step on dicts and locks as the programs read it: a.b for what is nested, text for values, numbers for truths."""
    if step["op"] not in DICT_OPS | LOCK_OPS | {"batch"}:
        return step
    members: dict[str, Any] = {}

    def put(path: str, item: Any) -> None:
        is_value = path.rpartition(".")[2] in VALUES or path in VALUES
        if is_value:
            members[path] = json.dumps(item, ensure_ascii=False)
        elif isinstance(item, dict):
            for key, inner in item.items():
                put(f"{path}.{key}" if path else key, inner)
        elif isinstance(item, list):
            for index, inner in enumerate(item):
                put(f"{path}.{index}", inner)
        else:
            members[path] = int(item) if isinstance(item, bool) else item

    put("", step)
    return members


def same(one: Any, other: Any) -> bool:
    """Equality that tells 1 from 1.0 and from true."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def commands(build: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """(client, its program without the door)."""
    python = [sys.executable, "-B", str(ROOT / "clients/python/conformance/main.py")]
    yield "c", [str(build / "tests/conformance_c")]
    yield "cpp", [str(build / "tests/conformance_cpp")]
    yield "python", python
    yield "python_aio", python
    yield "raw", [sys.executable, "-B", str(HERE / "raw_calls.py")]


def watchers(build: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """As commands, of the clients that have watches."""
    python = [sys.executable, "-B", str(ROOT / "clients/python/conformance/main.py")]
    yield "watch_c", [str(build / "tests/conformance_c")]
    yield "watch_cpp", [str(build / "tests/conformance_cpp")]
    yield "watch_python", python
    yield "watch_python_aio", python
    yield "watch_cli", [sys.executable, "-B", str(HERE / "watch_cli.py"), str(build / "bin/statehouse")]


def load_cases(folder: str, more: list[tuple[str, dict[str, Any]]], only: str) -> list[tuple[str, dict[str, Any]]]:
    """(file: name, case) of every case of a folder, and of `more`, whose title contains `only`."""
    cases = [
        (f"{path.stem}: {case['name']}", case)
        for path in sorted((HERE / folder).glob("*.json"))
        for case in json.loads(path.read_text())
    ]
    cases += more
    titles = [title for title, _ in cases]
    assert len(titles) == len(set(titles)), "two cases have one name"
    return [(title, case) for title, case in cases if only in title]


def ops_of(value: Any) -> set[str]:
    """Every operation that a case names."""
    if isinstance(value, dict):
        own = {value["op"]} if isinstance(value.get("op"), str) else set()
        return own.union(*(ops_of(item) for item in value.values()))
    return set().union(*(ops_of(item) for item in value)) if isinstance(value, list) else set()


def load_known_failing(name: str) -> set[str]:
    path = HERE / "known_failing" / f"{name}.txt"
    if not path.exists():
        return set()
    lines = (line.strip() for line in path.read_text().splitlines())
    return {line for line in lines if line and not line.startswith("#")}


def fill_in(value: Any, saved: dict[str, Any]) -> Any:
    """Puts what was saved in the place of $names, at any depth."""
    if isinstance(value, dict):
        return {key: fill_in(item, saved) for key, item in value.items()}
    if isinstance(value, list):
        return [fill_in(item, saved) for item in value]
    if not isinstance(value, str) or "$" not in value:
        return value
    if value[1:] in saved:
        return saved[value[1:]]
    return value.replace("$area", saved["area"]).replace("$url", saved["url"])


def disagreement(answer: dict[str, Any], then: dict[str, Any], saved: dict[str, Any]) -> str:
    """Why the answer is not the expected one, or ""."""
    if answer.get("inexpressible") and (then.get("or_inexpressible") or str(then.get("error")) in STANDS_FOR):
        return ""
    if "greater_than" in then:
        least = fill_in(then["greater_than"], saved)
        return "" if answer.get("ok", -1) > least else f"{answer} is not greater than {least}"
    if "between" in then:
        least, most = then["between"]
        good = isinstance(answer.get("ok"), int) and least <= answer["ok"] <= most
    elif "error" in then:
        reasons = then["error"] if isinstance(then["error"], list) else [then["error"]]
        good = answer.get("error") in reasons
        good = good and then.get("retryable") in (None, answer.get("retryable"))
    else:
        good = same(answer, {"ok": fill_in(then["ok"], saved)})
    return "" if good else f"expected {then}, got {answer}"


class Runner:
    """Runs cases with one client through one door. `observer` is a client of our own that only looks."""

    def __init__(self, name: str, command: list[str], service: Service, observer: Program) -> None:
        self.name = name
        self._door = name.rpartition("-")[2]
        self._service = service
        self._observer = observer
        self._program = Program(command, service.environment)
        self._observer.ask({"op": "connect"})  # Lets the areas of another runner's looks go.
        self.expressed: set[str] = set()  # Cases that the client's types could tell.
        self.told_apart = False  # The case that runs is one of them.

    def names(self, number: int) -> dict[str, Any]:
        """What $names stand for in one case."""
        tokens = {f"token.{name}": token.text for name, token in self._service.tokens.items()}
        url = self._service.environment["STATEHOUSE_URL"]
        area = f"conformance/{self.name}/{number}"
        return {"area": area, "url": url, "n255": "n" * 255, "n256": "n" * 256, **tokens}

    def ask(self, step: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
        request = {k: fill_in(v, saved) for k, v in step.items() if k not in RUNNERS_OWN}
        self._program.send(request)
        if "meanwhile" in step:
            self._service.act({"do": step["meanwhile"]})
        return self._program.receive()

    def look(self, name: str) -> list[dict[str, Any]]:
        """Everything that a refused call must leave as it was."""
        open_it = [{"op": "open", "name": name}, {"op": "updates", "name": name}, {"op": "read", "name": name, "pos": 0}]
        prefix = f"conformance/{self.name}/"
        all_of_it = [{"op": "list", "prefix": prefix}, {"op": "status"}, {"op": "list_locks", "prefix": name}]
        return [self._observer.ask(step) for step in [*open_it, *all_of_it]]

    def run_case(self, case: dict[str, Any], saved: dict[str, Any]) -> str:
        """Why the client fails the case, or ""."""
        for step in case.get("given", []):
            if "do" in step:
                self._service.act(step)
                continue
            if step.get("eventually"):
                problem = self.ask_until(step, {"ok": step["is"]}, saved)
                if problem:
                    return f"given {step}: {problem}"
                continue
            answer = self.ask(step, saved)
            if "ok" not in answer or ("is" in step and not same(answer["ok"], step["is"])):
                return f"given {step}: {answer}"
            if "save" in step:
                saved[step["save"]] = answer["ok"]
        unchanged = fill_in(case.get("unchanged", ""), saved)
        before = self.look(unchanged) if unchanged else []
        for check in [case, *case.get("afterwards", [])]:
            problem = self.check(check, saved)
            if problem:
                return problem
        after = self.look(unchanged) if unchanged else []
        return "" if before == after else f"it changed something: {before} became {after}"

    def ask_until(self, step: dict[str, Any], then: dict[str, Any], saved: dict[str, Any]) -> str:
        """Asks until the answer is the expected one; why it never was, or ""."""
        deadline = time.monotonic() + PATIENCE_S
        while problem := disagreement(self.ask(step, saved), then, saved):
            if time.monotonic() > deadline:
                return problem
            time.sleep(0.005)
        return ""

    def check(self, check: dict[str, Any], saved: dict[str, Any]) -> str:
        if "do" in check:
            self._service.act(check)
            return ""
        steps = check["when"] if isinstance(check["when"], list) else [check["when"]]
        # The socket of this host without mapped memory is the network door's rules over another wire.
        alike = "network" if self._door == "socket" else self._door
        then = check["then"].get(self._door, check["then"].get(alike, check["then"]))
        for step in steps:
            if check.get("eventually"):
                problem = self.ask_until(step, then, saved)
                self.told_apart = True
            else:
                answer = self.ask(step, saved)
                problem = disagreement(answer, then, saved)
                self.told_apart = self.told_apart or not answer.get("inexpressible")
            if problem:
                return f"when {step}: {problem}"
        return ""

    def mend(self, case: dict[str, Any]) -> str:
        """Gives the next case a client as at the start."""
        if ops_of(case) & WATCH_OPS:
            answer = self._program.ask({"op": "close_watch"})
            if answer != {"ok": None}:
                return f"the watch cannot be closed: {answer}"
        if not ops_of(case) & {"connect", "close"} and '"do"' not in json.dumps(case):
            return ""
        answer = self._program.ask({"op": "connect"})
        return "" if "ok" in answer else f"the client cannot connect again afterwards: {answer}"

    def let_locks_go(self, case: dict[str, Any], prefix: str) -> str:
        """Ends what a case on locks holds, and looks that nothing of it is left."""
        if not ops_of(case) & LOCK_OPS:
            return ""
        answer = self._program.ask({"op": "let_go"})
        left = self._observer.ask({"op": "list_locks", "prefix": prefix})
        if answer != {"ok": None} or left != {"ok": []}:
            return f"locks are left afterwards: {answer}, {left}"
        return ""

    def delete_all(self, case: dict[str, Any], prefix: str) -> str:
        """Takes away what a case made: a service has a limit of dicts, and many areas make it slow to look at all of them."""
        ops = ops_of(case)
        kinds = [("list_dicts", "delete_dict")] if ops & DICT_OPS else []
        kinds += [("list", "delete")] if ops - DICT_OPS - LOCK_OPS - WATCH_OPS else []
        for list_op, delete_op in kinds:
            for name in self._observer.ask({"op": list_op, "prefix": prefix}).get("ok", []):
                answer = self._observer.ask({"op": delete_op, "name": name})
                if "ok" not in answer:
                    return f"{name} cannot be deleted afterwards: {answer}"
        return ""

    def try_case(self, title: str, case: dict[str, Any], number: int) -> str:
        names = self.names(number)
        try:
            self.told_apart = False
            problem = self.run_case(case, dict(names))
            if self.told_apart:
                self.expressed.add(title)
            self._service.mend()
            unmended = self.let_locks_go(case, names["area"]) or self.mend(case)
            unmended = unmended or self.delete_all(case, names["area"])
        except SystemExit as failure:
            raise SystemExit(f"{self.name}: {title}: {failure}") from None
        return problem or unmended

    def run(self, cases: list[tuple[str, dict[str, Any]]]) -> int:
        """Runs all cases; how many lines it had to complain about."""
        began = time.monotonic()
        known = load_known_failing(self.name)
        complaints = []
        ran = 0
        for number, (title, case) in enumerate(cases):
            ran += 1
            problem = self.try_case(title, case, number)
            if problem and title not in known:
                complaints.append(f"{title}: {problem}")
            if not problem and title in known:
                complaints.append(f"{title}: passes, and is listed as known failing; take it off the list")
        all_titles = {title for title, _ in load_cases("cases", bad_input.client_cases(), "")}
        complaints += [f"{t}: is listed as known failing, and no such case exists" for t in sorted(known - all_titles)]
        code = self._program.end()
        if code != 0:
            complaints.append(f"the program ended with code {code}")
        took = time.monotonic() - began
        print(f"{self.name:20} {ran} cases, {len(known)} known failing, {len(complaints)} wrong, {took:.1f} s", flush=True)
        for complaint in complaints:
            print(f"  {complaint}")
        return len(complaints)


def hold_many(service: Service, build: pathlib.Path) -> Program:
    """A client that holds more locks than a page of any list has, under the prefix "many/", until it ends."""
    holder = Program([str(build / "tests/conformance_c"), "local"], service.environment)
    for number in range(MANY_LOCKS):
        step = {"op": "acquire_lock", "name": f"many/{number}", "as": str(number), "ttl_ms": 604_800_000}
        if holder.ask(step) != {"ok": True}:
            raise SystemExit(f"the lock many/{number} cannot be had")
    return holder


def untold(cases: list[tuple[str, dict[str, Any]]], runners: list[Runner]) -> list[str]:
    """Cases that prove nothing: no client's types could tell them, to any service."""
    told = set().union(*(runner.expressed for runner in runners))
    return [title for title, _ in cases if title not in told]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--only", default="", help="client-door pairs whose name contains this")
    parser.add_argument("--case", default="", help="cases whose title contains this")
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    cases = load_cases("cases", bad_input.client_cases(), arguments.case)
    raw_cases = load_cases("raw_cases", bad_input.raw_cases(), arguments.case)
    watch_cases = load_cases("watch_cases", [], arguments.case)
    wrong = 0
    ran = 0
    runners: dict[str, Runner] = {}
    sys.path.insert(0, str(build / "python"))
    for gap in bad_input.uncovered():
        print(f"bad_input.json: {gap}")
        wrong += 1
    for op in sorted((DICT_OPS | LOCK_OPS) - ops_of([case for _, case in load_cases("cases", [], "")]) - {"let_go"}):
        print(f"cases: no case has the operation {op}")
        wrong += 1
    for op in sorted(WATCH_OPS - ops_of([case for _, case in load_cases("watch_cases", [], "")]) - {"close_watch"}):
        print(f"watch_cases: no case has the operation {op}")
        wrong += 1
    with Service(build / "bin/statehoused") as service:
        service.environment["PYTHONPATH"] = str(build / "python")
        observer = Program([str(build / "tests/conformance_c"), "network"], service.environment)
        holder = hold_many(service, build)
        for client, command in [*commands(build), *watchers(build)]:
            for door in ("local", "network") if client in WITHOUT_SOCKET else ("local", "socket", "network"):
                name = f"{client}-{door}"
                if arguments.only not in name:
                    continue
                extra = ["--aio"] if client.endswith("python_aio") else []
                todo = raw_cases if client == "raw" else watch_cases if client.startswith("watch_") else cases
                runners[name] = Runner(name, [*command, door, *extra], service, observer)
                wrong += runners[name].run(todo)
                ran += len(todo)
        for ours in (observer, holder):
            if ours.end() != 0:
                print("a client of the runner's own ended badly")
                wrong += 1
    if ran == 0:
        print("no case was run; see --only and --case")
        return 1
    if not arguments.only:
        watching = [runner for name, runner in runners.items() if name.startswith("watch_")]
        calling = [runner for name, runner in runners.items() if not name.startswith(("raw", "watch_"))]
        for title in untold(cases, calling) + untold(watch_cases, watching):
            print(f"{title}: no client's types could tell it")
            wrong += 1
    print(f"{ran} runs of {len(cases) + len(raw_cases) + len(watch_cases)} cases by {len(runners)} pairs of client and door, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
