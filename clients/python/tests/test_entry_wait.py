"""Waiting for an entry: what ends it, through each door, with threads and with asyncio."""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
import threading
import time
from typing import Any

import pytest

import statehouse
import statehouse.aio

from conftest import DOORS_OF_ASYNCIO, Service


def soon(call: Any, *args: Any, delay: float = 0.05) -> threading.Timer:
    timer = threading.Timer(delay, call, args)
    timer.start()
    return timer


def test_what_is_so_already_ends_at_once(shared: statehouse.SharedDict) -> None:
    assert shared.wait("none", absent=True, timeout=0) is None
    shared["a"] = {"port": 80}
    entry = shared.wait("a", timeout=0)
    assert entry is not None and entry.value == {"port": 80} and entry.version == shared.version("a")
    assert shared.wait("a", value={"port": 80}, timeout=0) == entry
    assert shared.wait("a", value=80, path=("port",), timeout=0) == entry
    assert shared.wait("a", path=["port"], timeout=0) == entry
    assert shared.wait("a", absent=True, path=["none"], timeout=0) == entry
    assert shared.wait("a", version_above=entry.version - 1, timeout=0) == entry
    assert shared.wait("a", version_differs=0, timeout=0) == entry


def test_a_change_ends_it(shared: statehouse.SharedDict) -> None:
    timer = soon(shared.__setitem__, "ready", [1, 2])
    entry = shared.wait("ready")
    assert entry is not None and entry.value == [1, 2]
    timer.join()
    timer = soon(shared.incr, "n", 7)
    assert shared.wait("n", value=7) is not None
    timer.join()
    version = shared.version("n")
    timer = soon(shared.incr, "n")
    entry = shared.wait("n", version_above=version, timeout=datetime.timedelta(seconds=30))
    assert entry is not None and entry.value == 8
    timer.join()
    timer = soon(shared.pop, "n")
    assert shared.wait("n", version_differs=entry.version, timeout=30) is None
    timer.join()
    timer = soon(shared.__setitem__, "a", {"x": {"y": 1}})
    entry = shared.wait("a", value=1, path=("x", "y"), timeout=30)
    assert entry is not None and entry.value == {"x": {"y": 1}}
    timer.join()


def test_an_entry_that_expires_is_absent(shared: statehouse.SharedDict) -> None:
    shared.set("a", 1, ttl=0.1)
    assert shared.wait("a", absent=True, timeout=30) is None


def test_time_is_over(shared: statehouse.SharedDict) -> None:
    begin = time.monotonic()
    with pytest.raises(statehouse.Timeout, match="'a'"):
        shared.wait("a", timeout=0.1)
    assert time.monotonic() - begin >= 0.1
    shared["a"] = 1
    for wanted in ({"absent": True}, {"value": 2}, {"version_above": shared.version("a")}, {"path": ("x",)}):
        with pytest.raises(TimeoutError):
            shared.wait("a", timeout=0, **wanted)


def test_bad_input_is_refused(shared: statehouse.SharedDict) -> None:
    with pytest.raises(TypeError, match="one of"):
        shared.wait("a", absent=True, value=1)
    for timeout in ("1", True):
        with pytest.raises(TypeError):
            shared.wait("a", timeout=timeout)
    for timeout in (-1, float("nan")):
        with pytest.raises(statehouse.InvalidArgument):
            shared.wait("a", timeout=timeout)
    with pytest.raises(statehouse.InvalidArgument):
        shared.wait("a", version_above=1, path=("x",), timeout=0)
    with pytest.raises(statehouse.InvalidArgument):
        shared.wait("a", version_differs=-1)
    with pytest.raises(statehouse.InvalidArgument):
        shared.wait("", timeout=0)


def test_a_dict_that_grows_and_one_that_is_deleted(
    client: statehouse.Client, shared: statehouse.SharedDict
) -> None:
    def fill() -> None:
        for page in range(20):
            shared.set_many({f"k{page}/{i}": "x" * 100 for i in range(500)})
        shared["late"] = True

    timer = soon(fill)
    entry = shared.wait("late", timeout=60)
    assert entry is not None and entry.value is True
    timer.join()
    timer = soon(client.dicts.delete, shared.name)
    with pytest.raises(statehouse.NotFound):
        shared.wait("never", timeout=60)
    timer.join()


def test_it_outlives_the_daemon(service: Service, client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    def kill_and_set() -> None:
        service.kill_daemon()
        with service.connect("network", timeout=30) as other:
            other.dict(shared.name)["late"] = 1

    timer = soon(kill_and_set)
    entry = shared.wait("late", timeout=60)
    assert entry is not None and entry.value == 1
    timer.join()


def test_each_sees_the_others_turn(service: Service, door: str, area_name: str) -> None:
    """A ball goes between two threads with clients of their own: one wake-up that is lost, and it stays where it is."""
    rounds = 300

    def play(mine: str, his: str, begins: bool) -> None:
        with service.connect(door) as client:
            shared = client.dict(area_name)
            for i in range(1, rounds + 1):
                if begins:
                    shared[mine] = i
                assert shared.wait(his, value=i, timeout=60) is not None
                if not begins:
                    shared[mine] = i

    with service.connect("local") as client:
        client.dict(area_name)
        failures: list[BaseException] = []

        def run(*args: Any) -> None:
            try:
                play(*args)
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=run, args=args) for args in (("a", "b", True), ("b", "a", False))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.dicts.delete(area_name)
        assert not failures


def test_control_c_ends_it(shared: statehouse.SharedDict) -> None:
    # It is ignored in what a shell starts in the background, and so are these tests there.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer = soon(os.kill, os.getpid(), signal.SIGINT, delay=0.2)
        with pytest.raises(KeyboardInterrupt):
            shared.wait("never", timeout=30)
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("door", DOORS_OF_ASYNCIO)
def test_asyncio_waits_and_cancels(service: Service, door: str, area_name: str) -> None:
    async def main() -> None:
        async with statehouse.aio.connect(
            service.url, token=service.token, transport=door, timeout=10.0
        ) as client:
            shared = await client.dict(area_name)
            waiters = [asyncio.create_task(shared.wait("go", timeout=60)) for _ in range(50)]
            never = asyncio.create_task(shared.wait("never"))
            await asyncio.sleep(0.05)
            assert not any(waiter.done() for waiter in waiters)
            await shared.set("go", 1)
            entries = await asyncio.gather(*waiters)
            assert all(entry.value == 1 for entry in entries)
            never.cancel()
            with pytest.raises(asyncio.CancelledError):
                await never
            with pytest.raises(statehouse.Timeout):
                await shared.wait("never", timeout=0.05)
            await client.dicts.delete(area_name)

    asyncio.run(main())
