"""Entries that end with their client, through a real service: set(..., bound=True)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

import statehouse
import statehouse.aio

from conftest import DOORS_OF_ASYNCIO, Service, wait_until
from test_fork import in_child

# Registers itself as "worker/<number>/…" and waits to be killed.
WORKER = """
import sys, statehouse
url, door, token, name, number = sys.argv[1:]
d = statehouse.connect(url, transport=door, token=token).dict(name)
d.set(f"worker/{number}", {"pid": number}, bound=True)
d.set_many({f"worker/{number}/{i}": i for i in range(20)}, bound=True)
print("ready", flush=True)
sys.stdin.read()
"""

# Each takes a lock or registers itself, and is killed before it does anything else. In a process of its own, which has made no call.
MORTALS = """
import os, signal, sys, traceback, grpc, statehouse
url, door, token, name, count = sys.argv[1:]
for number in range(int(count)):
    pid = os.fork()
    if pid == 0:
        try:
            client = statehouse.connect(url, transport=door, token=token)
            if number % 2:
                client.dict(name).set(f"mortal/{number}", 1, bound=True)
            else:
                assert client.lock(f"{name}/mortal/{number}", ttl=60).acquire()
            os.kill(os.getpid(), signal.SIGKILL)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
"""
MORTALS_COUNT = 24
GONE_WITHIN_S = 2.0  # A session that nobody holds lasts 10 s.


@pytest.fixture
def other(service: Service, door: str, shared: statehouse.SharedDict) -> Iterator[statehouse.SharedDict]:
    """The same dict, of another client."""
    with service.connect(door) as client:
        yield client.dict(shared.name)


def close(client_of: statehouse.SharedDict) -> None:
    client_of._binder._client.close()


class Workers:
    def __init__(self, service: Service, door: str, name: str) -> None:
        self._arguments = [sys.executable, "-c", WORKER, service.url, door, service.token, name]
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        worker = subprocess.Popen(
            [*self._arguments, str(len(self._processes))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._processes.append(worker)
        assert worker.stdout is not None and worker.stdout.readline() == b"ready\n"
        return worker

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        worker.kill()
        worker.communicate()

    def close(self) -> None:
        for worker in self._processes:
            if worker.returncode is None:
                self.kill(worker)


@pytest.fixture
def workers(service: Service, door: str, shared: statehouse.SharedDict) -> Iterator[Workers]:
    made = Workers(service, door, shared.name)
    yield made
    made.close()


def test_bound_entries_end_with_their_client(shared: statehouse.SharedDict, other: statehouse.SharedDict) -> None:
    assert other.set("set", 1, bound=True)
    assert other.exchange("exchange", 1, bound=True) == (True, None)
    assert other.add("add", 1, bound=True) and not other.add("add", 2, bound=True)
    other.set_many({"many/a": 1, "many/b": 2}, bound=True)
    assert other.set("plain", 1)
    sessions = {key: entry.bound_session for key in shared if (entry := shared.entry(key))}
    assert sessions.pop("plain") == 0
    assert len(sessions) == 5 and len({*sessions.values()}) == 1 and 0 not in sessions.values()

    close(other)

    wait_until(lambda: [*shared] == ["plain"], "the end of the bound entries")
    with pytest.raises(statehouse.ClientClosed):
        other.set("late", 1, bound=True)


def test_the_next_set_decides_anew(shared: statehouse.SharedDict, other: statehouse.SharedDict) -> None:
    for key in ("n", "list", "t", "nested", "unbound", "taken"):
        other.set(key, [1] if key == "list" else {"a": 1} if key == "nested" else 1, bound=True)
    assert shared.incr("n") == 2
    shared["list"].append(2)
    shared.at("nested", "a").set(2)
    assert shared.touch("t", 60)
    shared["unbound"] = 2
    assert shared.set("taken", 2, bound=True)
    kept = {key: shared.entry(key) for key in ("n", "list", "nested", "t")}
    assert len({entry.bound_session for entry in kept.values() if entry}) == 1

    close(other)

    wait_until(lambda: {*shared} == {"unbound", "taken"}, "the end of the bound entries")
    assert shared.set("n", 1, if_absent=True, ttl=60, bound=True)
    entry = shared.entry("n")
    assert entry is not None and entry.bound_session != 0 and entry.ttl is not None


def test_a_killed_worker_takes_its_entries_along(shared: statehouse.SharedDict, workers: Workers) -> None:
    first, second = workers.start(), workers.start()
    assert len(shared) == 42
    workers.kill(first)
    wait_until(lambda: len(shared) == 21, "the end of the first worker's entries")
    assert shared["worker/1"] == {"pid": "1"} and "worker/0" not in shared
    workers.kill(second)
    wait_until(lambda: len(shared) == 0, "the end of the second worker's entries")


def test_what_is_killed_at_once_leaves_nothing(
    service: Service, door: str, client: statehouse.Client, shared: statehouse.SharedDict
) -> None:
    arguments = [service.url, door, service.token, shared.name, str(MORTALS_COUNT)]
    subprocess.run([sys.executable, "-c", MORTALS, *arguments], check=True)
    died = time.monotonic()
    wait_until(lambda: len(shared) == 0, "the end of the bound entries")
    wait_until(lambda: not [*client.locks.list(prefix=f"{shared.name}/mortal/")], "the end of the locks")
    assert time.monotonic() - died < GONE_WITHIN_S


def test_workers_that_die_with_the_daemon_leave_nothing(
    service: Service, shared: statehouse.SharedDict, workers: Workers
) -> None:
    started = [workers.start() for _ in range(4)]
    with service.connect("network") as c:
        daemon = c.status().daemon_pid
    os.kill(daemon, signal.SIGKILL)
    for worker in started[:2]:
        workers.kill(worker)
    # Their sessions are over when nobody has come back for them in time.
    wait_until(lambda: len(shared) == 42, "the end of the dead workers' entries")
    assert "worker/0" not in shared and "worker/1" not in shared
    for worker in started[2:]:
        workers.kill(worker)
    wait_until(lambda: len(shared) == 0, "the end of the others'")


def test_a_watch_tells_a_delete(shared: statehouse.SharedDict, other: statehouse.SharedDict) -> None:
    other.set("k", 1, bound=True)
    with shared.watch(snapshot=False) as watch:
        synced = watch.next(60)
        assert synced is not None and synced.kind == "synced"
        close(other)
        event = watch.next(60)
        assert event is not None and (event.kind, event.key) == ("delete", "k")


def test_a_child_binds_for_itself(door: str, shared: statehouse.SharedDict, other: statehouse.SharedDict) -> None:
    other.set("parent", 1, bound=True)
    parent = shared.entry("parent")
    assert parent is not None

    def check() -> None:
        assert other.set("child", 1, bound=True)
        child = other.entry("child")
        assert child is not None and child.bound_session not in (0, parent.bound_session)

    in_child(check)
    wait_until(lambda: "child" not in shared, "the end of the child's entry")
    in_child(lambda: None)
    if door != "local":  # os.fork() closes the connection, and the session ends with it.
        wait_until(lambda: "parent" not in shared, "the end of the session")
        assert other.set("parent", 1, bound=True)
        parent = shared.entry("parent")
        assert parent is not None
    assert other.set("again", 1, bound=True)
    again = shared.entry("again")
    assert again is not None and again.bound_session == parent.bound_session
    assert shared["parent"] == 1


def test_a_session_that_the_service_ended_is_followed_by_another(
    shared: statehouse.SharedDict, other: statehouse.SharedDict
) -> None:
    other.set("k", 1, bound=True)
    leasing = other._binder._client._leases()
    first = leasing.session_id()
    leasing._remote.call(statehouse._lock_calls.close_session(first))
    wait_until(lambda: "k" not in shared, "the end of the session")
    other.set("k", 2, bound=True)
    entry = shared.entry("k")
    assert entry is not None and entry.value == 2 and entry.bound_session not in (0, first)


@pytest.mark.parametrize("door", DOORS_OF_ASYNCIO)
def test_asyncio_binds_too(service: Service, door: str, shared: statehouse.SharedDict) -> None:
    async def main() -> None:
        async with statehouse.aio.connect(
            service.url, token=service.token, transport=door, timeout=10.0
        ) as client:
            d = await client.dict(shared.name)
            assert await d.set("set", 1, bound=True)
            assert await d.add("add", 1, bound=True)
            assert await d.exchange("set", 2, bound=True) is not None
            await d.set_many({"many": 1}, bound=True)
            await d.set("plain", 1)
            assert [entry.bound_session != 0 for key in shared if (entry := shared.entry(key))] == [True] * 3 + [False]

    asyncio.run(main())
    wait_until(lambda: [*shared] == ["plain"], "the end of the bound entries")


def test_dicts_count_bound_entries(
    client: statehouse.Client, shared: statehouse.SharedDict, other: statehouse.SharedDict
) -> None:
    other.set_many({"a": 1, "b": 2}, bound=True)
    shared["c"] = 3
    info = client.dicts.describe(shared.name)
    assert (info.entries, info.bound_entries) == (3, 2)
