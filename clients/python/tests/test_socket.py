"""transport="socket": what goes over the attach socket, what does not, and when a client comes by that door. What the calls mean is
tested with the other doors."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import statehouse
import statehouse.aio
from statehouse._network_session import NetworkSession

from conftest import PATIENCE_S, Service, wait_until
from test_fork import in_child

LONG = "x" * 800_000  # No packet has room for it.


@pytest.fixture
def door() -> str:
    return "socket"


def calls(service: Service, door: str, method: str) -> float:
    """How often a method was called through a door, as the metrics say."""
    with service.connect("local") as client:
        address = client.status().http_address
    with urllib.request.urlopen(f"http://{address}/metrics") as response:
        text = response.read().decode()
    pattern = rf'^statehouse_calls_total\{{door="{door}",method="[^"]*/{method}",.*\}} (\S+)$'
    return sum(map(float, re.findall(pattern, text, re.MULTILINE)))


class Counted:
    """Calls of a method through both doors since this was made."""

    def __init__(self, service: Service, method: str) -> None:
        self._service = service
        self._method = method
        self._before = self._now()

    def _now(self) -> tuple[float, float]:
        return calls(self._service, "local", self._method), calls(self._service, "network", self._method)

    def see(self, by_socket: int, by_grpc: int) -> None:
        wanted = (self._before[0] + by_socket, self._before[1] + by_grpc)
        wait_until(lambda: self._now() == wanted, f"{by_socket} and {by_grpc} calls of {self._method}")


def in_thread(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_client_and_what_it_opens_tell_their_door(
    client: statehouse.Client, shared: statehouse.SharedDict, area: statehouse.Area
) -> None:
    assert client.transport == shared.transport == area.transport == "socket"
    assert "socket" in repr(area)
    with pytest.raises(statehouse.TransportError, match="socket"):
        area.memoryview()


def test_small_calls_go_over_the_socket_and_long_requests_by_grpc(service: Service, shared: statehouse.SharedDict) -> None:
    sets, gets, adds = (Counted(service, method) for method in ("SetEntry", "GetEntry", "IncrementEntry"))
    shared.incr("n")
    adds.see(1, 0)
    # Around what a packet has room for, and the largest value that there is.
    sizes = (100_000, 130_600, 130_800, 131_072, 1_000_000)
    for size in sizes:
        shared["k"] = "x" * size
        assert shared["k"] == "x" * size
    sets.see(2, 3)
    gets.see(5, 0)  # Answers of any size come over the socket.


def test_a_batch_with_a_long_answer_comes_over_the_socket(
    service: Service, client: statehouse.Client, shared: statehouse.SharedDict
) -> None:
    shared["k"] = LONG
    batches = Counted(service, "RunBatch")
    batch = client.batch()
    noted = batch.dict(shared.name)
    got = [noted.get("k") for _ in range(5)]
    number = noted.incr("n")
    batch.run()
    assert [one.result() for one in got] == [LONG] * 5 and number.result() == 1
    batches.see(1, 0)
    batch.dict(shared.name).set("k", "short")
    batch.dict(shared.name).set("l", LONG)
    batch.run()
    assert shared["k"] == "short" and shared["l"] == LONG
    batches.see(1, 1)


WAITS: list[tuple[str, Callable[[statehouse.Client, Any, Any], Any]]] = [
    ("WaitArea", lambda client, area, shared: area.wait(0)),
    ("WaitEntry", lambda client, area, shared: shared.wait("told")),
    ("AcquireLock", lambda client, area, shared: client.lock(area.name).acquire()),
]


@pytest.mark.parametrize(("method", "wait"), WAITS, ids=[method for method, _ in WAITS])
def test_waits_keep_no_call_waiting(
    service: Service,
    client: statehouse.Client,
    shared: statehouse.SharedDict,
    area: statehouse.Area,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    wait: Any,
) -> None:
    is_waiting = threading.Event()
    original = NetworkSession.call

    def call(session: NetworkSession, call: Any, *options: Any) -> Any:
        if call.method.endswith("/" + method):
            is_waiting.set()
        return original(session, call, *options)

    monkeypatch.setattr(NetworkSession, "call", call)
    with service.connect("local") as other:
        held = other.lock(area.name)
        held.acquire()
        thread = in_thread(lambda: wait(client, area, shared))
        assert is_waiting.wait(PATIENCE_S)
        adds = Counted(service, "IncrementEntry")
        for _ in range(20):
            shared.incr("n")
        adds.see(20, 0)
        assert thread.is_alive()
        area.add_u64(0, 1)
        shared["told"] = 1
        held.release()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_a_process_that_makes_small_calls_maps_nothing_and_loads_no_grpc(service: Service, area_name: str) -> None:
    program = f"""
import sys, statehouse
with statehouse.connect({service.url!r}, token={service.token!r}, transport="socket") as c:
    d = c.dict({area_name!r})
    d["k"] = [1]
    assert d["k"] == [1] and d.incr("n") == 1
    a = c.area({area_name!r}, size=4096)
    assert a.add_u64(0, 1) == 1
    assert a.wait(0, timeout=0) and d.wait("n", timeout=0).value == 1  # Which only look.
    batch = c.batch()
    batch.dict({area_name!r}).get("k")
    assert batch.run() == [[1]]
    assert c.status().attached_processes == int(sys.argv[1])
    assert not any("memfd:" in line for line in open("/proc/self/maps"))
    assert "grpc" not in sys.modules
"""
    with service.connect("local") as client:
        attached = client.status().attached_processes
        subprocess.run([sys.executable, "-c", program, str(attached)], check=True, timeout=PATIENCE_S)
        client.dicts.delete(area_name)
        client.areas.delete(area_name)


def test_the_limit_of_a_token_holds(service: Service, area_name: str) -> None:
    token = service.add_token("socklimi", {("dict", "*"): ("read", "write", "create")}, calls_per_second=20)
    with service.connect("socket", token=token) as limited:
        (shared,) = wait_until(lambda: _unless_limited(lambda: (limited.dict(area_name),)), "a call within the limit")
        with pytest.raises(statehouse.RateLimited) as raised:
            for _ in range(1000):
                shared.incr("n")
    assert raised.value.reason == "RATE_LIMITED" and raised.value.name == area_name and raised.value.retryable
    assert (raised.value.retry_after or 0) > 0 and "calls_per_second" in raised.value.message
    service.remove_token("socklimi")


def _unless_limited(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except statehouse.RateLimited:
        return None


def test_a_token_that_is_taken_away_ends_its_clients(service: Service, area_name: str) -> None:
    token = service.add_token("sockgone", {("dict", "*"): ("read", "write", "create")})
    with service.connect("socket", token=token) as client:
        shared = client.dict(area_name)
        shared.incr("n")
        service.remove_token("sockgone")
        with pytest.raises(statehouse.Unauthenticated):
            shared.incr("n")
    with pytest.raises(statehouse.Unauthenticated):  # Told when it connects, as by the local door.
        service.connect("socket", token=token)


def test_additions_of_threads_count_once_over_killed_daemons(
    service: Service, client: statehouse.Client, shared: statehouse.SharedDict
) -> None:
    is_over = threading.Event()
    added = [0] * 4
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            while not is_over.is_set():
                shared.incr("n")
                added[number] += 1
        except BaseException as failure:
            failures.append(failure)

    threads = [in_thread(lambda number=number: work(number)) for number in range(4)]
    try:
        for _ in range(3):
            generation = client.status().generation
            before = list(added)
            service.kill_daemon()
            wait_until(lambda: client.status().generation > generation, "the next daemon's start")
            wait_until(lambda: failures or all(now > then for now, then in zip(added, before, strict=True)), "its calls")
    finally:
        is_over.set()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert not failures and shared["n"] == sum(added)


def test_children_and_their_parent_have_connections_of_their_own(shared: statehouse.SharedDict) -> None:
    shared["long"] = LONG  # By gRPC, which then is to be had in the children, too.
    is_over = threading.Event()
    added = 0

    def work() -> None:
        nonlocal added
        while not is_over.is_set():
            shared.incr("n")
            added += 1

    def in_the_child() -> None:
        for _ in range(50):
            shared.incr("n")
        shared["long"] = LONG + "y"
        assert shared["long"] == LONG + "y"
        in_child(lambda: shared.incr("n"))

    thread = in_thread(work)
    try:
        for _ in range(5):
            in_child(in_the_child)
    finally:
        is_over.set()
        thread.join(PATIENCE_S)
    assert shared["n"] == added + 5 * 51


def test_threads_of_a_child_take_turns(shared: statehouse.SharedDict, client: statehouse.Client) -> None:
    shared["k"] = LONG

    def in_the_child() -> None:
        is_over = threading.Event()
        failures: list[BaseException] = []

        def work() -> None:
            try:
                while not is_over.is_set():
                    shared.incr("n")
            except BaseException as failure:
                failures.append(failure)

        threads = [in_thread(work) for _ in range(2)]
        for _ in range(10):  # Each keeps the socket busy for a while.
            batch = client.batch()
            noted = batch.dict(shared.name)
            for _ in range(10):
                noted.get("k")
            batch.run()
        is_over.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert not failures

    in_child(in_the_child)


def test_locks_and_bound_entries_end_with_their_process(service: Service, shared: statehouse.SharedDict, area_name: str) -> None:
    program = f"""
import os, statehouse
c = statehouse.connect({service.url!r}, token={service.token!r}, transport="socket")
c.dict({shared.name!r}).set("worker", 1, bound=True)
assert c.lock({area_name!r}, ttl=60).acquire()
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE_S)
    wait_until(lambda: "worker" not in shared, "the end of the entry")
    with service.connect("socket") as client, client.lock(area_name) as lock:
        assert lock.token > 0


def test_watches_come_by_grpc(service: Service, client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    watched = Counted(service, "WatchDict")
    with shared.watch("k") as watch:
        synced = watch.next(PATIENCE_S)
        assert synced is not None and synced.kind == "synced"
        shared["k"] = 1
        event = watch.next(PATIENCE_S)
        assert event is not None and (event.kind, event.value) == ("put", 1)
    watched.see(0, 1)


# Which client comes by this door.


@pytest.fixture
def all_lanes(service: Service) -> Iterator[list[statehouse.Client]]:
    """Clients that have all the lanes that one process gets."""
    clients: list[statehouse.Client] = []
    try:
        while True:
            clients.append(service.connect("local"))
            assert len(clients) <= 16  # attach.leases_per_process_max.
    except statehouse.LimitExceeded:
        yield clients
    finally:
        for client in clients:
            client.close()


def test_a_process_that_gets_no_more_lanes_comes_by_the_socket(
    service: Service, all_lanes: list[statehouse.Client], area_name: str
) -> None:
    with service.connect("auto") as client:
        assert client.transport == "socket"
        assert client.dict(area_name).incr("n") == 1
        client.dicts.delete(area_name)
    with pytest.raises(statehouse.LimitExceeded):  # Who asks for memory is told that there is none.
        service.connect("local")
    with pytest.raises(statehouse.LimitExceeded):
        statehouse.connect(service.url + "?transport=local", token=service.token)

    async def by_asyncio() -> None:
        async with statehouse.aio.connect(service.url, token=service.token) as there:
            assert there.transport == "network" and (await there.status()).version

    asyncio.run(by_asyncio())
    all_lanes.pop().close()
    with service.connect("auto") as client:
        assert client.transport == "local"


def test_the_url_may_ask_for_it(service: Service) -> None:
    with statehouse.connect(service.url + "?transport=socket", token=service.token) as client:
        assert client.transport == "socket" and client.status().version
    with statehouse.connect(service.url + "?transport=socket", token=service.token, transport="network") as client:
        assert client.transport == "network"


def test_a_wrong_transport_is_told_with_the_right_ones(service: Service) -> None:
    with pytest.raises(statehouse.InvalidArgument) as raised:
        service.connect("sockets")
    assert all(f'"{name}"' in str(raised.value) for name in ("sockets", "auto", "local", "socket", "network"))
    with pytest.raises(statehouse.InvalidArgument, match="transport=socket needs a service of this host"):
        statehouse.connect(service.tcp_url, token=service.token, transport="socket")


@pytest.mark.parametrize("by_url", [False, True], ids=["by argument", "by URL"])
def test_asyncio_says_what_to_use_instead(service: Service, by_url: bool) -> None:
    async def main() -> None:
        if by_url:
            await statehouse.aio.connect(service.url + "?transport=socket", token=service.token)
        else:
            await statehouse.aio.connect(service.url, token=service.token, transport="socket")

    with pytest.raises(statehouse.InvalidArgument, match='statehouse.aio takes "network"'):
        asyncio.run(main())


def test_a_service_that_is_not_there_is_unavailable(tmp_path: os.PathLike[str]) -> None:
    with pytest.raises(statehouse.Unavailable) as raised:
        statehouse.connect(f"statehouse+unix://{tmp_path}", transport="socket", timeout=0.05)
    assert raised.value.retryable
