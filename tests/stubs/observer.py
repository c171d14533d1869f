"""A statehoused for the programs, and what each of them must have done to it: looked at with the Python client and in its metrics."""

from __future__ import annotations

import collections
import datetime
import json
import pathlib
import re
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable

PATIENCE_S = 60.0  # For what must happen.

PRINTED = """\
health: serving
wrong token: refused
area: written, read and added to
dict: each kind of value came back
increment: sent twice, counted once
compare and set: conflict
lock: held, fenced and released
watch: snapshot, synced, change
batches: 100 increments in order
deadline: exceeded
"""

ENTRIES = {
    "null": None,
    "bool": True,
    "int": 2**53 + 1,  # No double is this number.
    "float": 2.0,
    "text": "Größe",
    "bytes": b"\x00\xff",
    "time": datetime.datetime.fromtimestamp(1_700_000_000, datetime.timezone.utc) + datetime.timedelta(milliseconds=5),
    "map": {"ports": [80, 8443]},
    "visits": 5,
    "release": "1.4",
    "fenced": 2,
    "watched": "after",
    "batched": 100,
}
AREA_BYTES = (2**61).to_bytes(8, "little") + bytes(56) + b"hello" + bytes(4096 - 69)
AREA_UPDATES = 3  # A write and two additions.

# What the service counts of each program: its calls by method and outcome, the operations of its batches among them.
CALLS = {
    "Areas/CreateArea OK": 1,
    "Areas/WriteArea OK": 1,
    "Areas/ReadArea OK": 1,
    "Areas/ReadArea OUT_OF_BOUNDS": 1,
    "Areas/AddWord OK": 2,
    "Dicts/CreateDict OK": 1,
    "Dicts/SetEntry OK": 15,
    "Dicts/SetEntry FENCED": 1,
    "Dicts/GetEntry OK": 10,
    "Dicts/EditEntry OK": 1,
    "Dicts/EditEntry CONFLICT": 1,
    "Dicts/IncrementEntry OK": 102,
    "Dicts/WatchDict CANCELLED": 1,
    "Dicts/WaitEntry TIMEOUT": 1,
    "Locks/AcquireLock OK": 2,
    "Locks/ReleaseLock OK": 2,
    "Sessions/OpenSession OK": 1,
    "Sessions/HoldSession OK": 1,
    "Sessions/CloseSession OK": 1,
    "Batches/RunBatches OK": 10,
    "authentication UNAUTHENTICATED": 1,
}
# Asked until the session is held, which may take several; and where a client's clock is before the service's, it cancels its wait.
AS_OFTEN_AS_NEEDED = "Sessions/RenewSession OK"
OTHERWISE = {"Dicts/WaitEntry CANCELLED": "Dicts/WaitEntry TIMEOUT"}


class Service:
    """The service. It is ended and removed with the context."""

    def __init__(self, binary: pathlib.Path) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="statehouse-stubs-")
        folder = pathlib.Path(self._temporary.name)
        self._log = folder / "log"
        with self._log.open("wb") as log:
            command = [str(binary), "--dev", "--runtime-dir", str(folder / "run")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            self._wait_until(lambda: (folder / "run/dev.json").exists(), "statehoused starts")
        except BaseException:
            self.__exit__()
            raise
        facts = json.loads((folder / "run/dev.json").read_text())
        self.tcp_url: str = facts["tcp_url"]
        self.address = self.tcp_url.split("://")[1]
        self.token: str = facts["token"]
        self._metrics: str = facts["http"] + "/metrics"

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._temporary.cleanup()

    def _wait_until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"gave up waiting: {what}\n{self._log.read_text(errors='replace')}")
            time.sleep(0.005)

    def calls(self) -> collections.Counter[str]:
        """How many calls came over the network, by method and outcome."""
        with urllib.request.urlopen(self._metrics, timeout=PATIENCE_S) as answer:
            text = answer.read().decode()
        counts: collections.Counter[str] = collections.Counter()
        for method, reason, count in re.findall(
            r'^statehouse_calls_total\{door="network",method="/statehouse\.v1\.([^"]+)",reason="(\w+)"\} (\d+)', text, re.MULTILINE
        ):
            counts[f"{method} {reason}"] = int(count)
        for reason, count in re.findall(
            r'^statehouse_authentication_failures_total\{door="network",reason="(\w+)"\} (\d+)', text, re.MULTILINE
        ):
            counts[f"authentication {reason}"] = int(count)
        return counts


def made_calls(service: Service, before: collections.Counter[str]) -> dict[str, int]:
    made = service.calls() - before
    for other, name in OTHERWISE.items():
        if other in made:
            made[name] += made.pop(other)
    return dict(made)


def wrong_calls(service: Service, before: collections.Counter[str]) -> list[str]:
    """What a program did not call as often as it must. A call that was cancelled is counted soon after, not at once."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        made = made_calls(service, before)
        renewed = made.pop(AS_OFTEN_AS_NEEDED, 0)
        if renewed > 0 and made == CALLS:
            return []
        if time.monotonic() > deadline or any(count > CALLS.get(name, 0) for name, count in made.items()):
            break
        time.sleep(0.02)
    names = [name for name in {**CALLS, **made} if made.get(name, 0) != CALLS.get(name, 0)]
    wrong = [f"{name}: {made.get(name, 0)} times, and {CALLS.get(name, 0)} are expected" for name in names]
    return wrong if renewed > 0 else [*wrong, f"{AS_OFTEN_AS_NEEDED}: never"]


def wrong_state(service: Service, name: str) -> list[str]:
    """What a program left otherwise than it must."""
    import statehouse

    wrong = []

    def expect(what: str, seen: object, expected: object) -> None:
        if repr(seen) != repr(expected):  # Tells 2 from 2.0 and 1 from True.
            wrong.append(f"{what} is {seen!r}, and {expected!r} is expected")

    with statehouse.connect(service.tcp_url, token=service.token) as client:
        shared = client.dict(name, create=False)
        entries = shared.snapshot()
        for key in sorted({*entries, *ENTRIES}):
            expect(f"the entry {key!r}", entries.get(key, "absent"), ENTRIES.get(key, "absent"))
        fenced = shared.entry("fenced")
        if fenced is None or fenced.fence == 0:
            wrong.append("the entry 'fenced' has no fencing token")
        area = client.area(name)
        expect("the area's content", area.read(0, area.size), AREA_BYTES)
        expect("the area's update counter", area.updates, AREA_UPDATES)
        expect("what holds the lock", [lock.name for lock in client.locks.list(prefix=name)], [])
        expect("the number of open sessions", client.status().sessions, 0)
    return wrong


def problems_of(printed: str, service: Service, name: str, before: collections.Counter[str]) -> list[str]:
    """What is wrong with a program that ended well: what it printed, what it called since `before`, what it left under `name`."""
    problems = [] if printed == PRINTED else [f"it printed\n{printed}and this is expected:\n{PRINTED}"]
    problems += wrong_calls(service, before)
    try:
        problems += wrong_state(service, name)
    except Exception as error:  # Of any kind that the client has: what a program did not make is not there.
        problems.append(f"its state cannot be read: {error}")
    return problems
