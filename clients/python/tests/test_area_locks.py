"""Fencing tokens on an area's writes, and the locks of its ranges: the same through both doors."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import statehouse
import statehouse.aio

from conftest import DOORS_OF_ASYNCIO, Service, wait_until

STRIPE = 4096
SIZE = 64 * STRIPE
SHORT_S = 0.3


@pytest.fixture
def web(client: statehouse.Client, area_name: str) -> statehouse.Area:
    return client.area(area_name, SIZE)


@pytest.fixture
def theirs(service: Service, door: str, web: statehouse.Area) -> Iterator[statehouse.Area]:
    with service.connect(door) as c:
        yield c.area(web.name)


def writes(area: Any, pos: int) -> list[tuple[str, Callable[..., Any]]]:
    """Every method that writes, to be called with the fence alone."""
    words = [(f"{verb}_{word}", (pos, *rest)) for word in ("u8", "i64") for verb, rest in (
        ("store", (7,)), ("add", (1,)), ("add", ()), ("compare_exchange", (7, 7)),
        ("bitwise_and", (1,)), ("bitwise_or", (1,)), ("bitwise_xor", (1,)),
    )]
    ranges = [("write", (pos, b"bytes")), ("fill", (pos, 5, 1))]
    return [(name, lambda name=name, args=args, **fence: getattr(area, name)(*args, **fence)) for name, args in words + ranges]


def test_every_write_with_an_older_token_is_refused(web: statehouse.Area) -> None:
    web.write(0, b"newest", fence=1000)
    before, updates = web.read(0, 64), web.updates
    for name, write in writes(web, 0):
        with pytest.raises(statehouse.Fenced, match="1000") as refused:
            write(fence=999)
        assert refused.value.name == web.name, name
    assert web.read(0, 64) == before and web.updates == updates
    for _, write in writes(web, 0):
        write(fence=1000)
        write(fence=None)
        write(fence=0)
        write()
    web.store_u8(STRIPE, 1, fence=1)  # Another stripe.


def test_tokens_have_64_bits_and_nothing_else_is_one(web: statehouse.Area) -> None:
    web.store_u8(0, 1, fence=(1 << 64) - 1)
    for _, write in writes(web, 0):
        with pytest.raises(statehouse.Fenced):
            write(fence=(1 << 64) - 2)
        for number in (-1, 1 << 64):
            with pytest.raises(statehouse.InvalidArgument, match="fence"):
                write(fence=number)
        for wrong in ("7", 1.5, b""):
            with pytest.raises(TypeError, match="fence"):
                write(fence=wrong)
        with pytest.raises(TypeError):
            write(token=1)


def test_ranges_that_share_a_stripe_exclude_each_other(web: statehouse.Area, theirs: statehouse.Area) -> None:
    with web.lock(STRIPE + 100, STRIPE) as lock:
        assert (lock.pos, lock.len) == (STRIPE + 100, STRIPE) and lock.held and lock.expires_in > 0
        assert f"area/{web.name}" in repr(lock)
        for pos, length in ((STRIPE, 1), (2 * STRIPE, 1), (0, STRIPE + 1), (0, SIZE)):
            other = theirs.lock(pos, length)
            assert other.locked() and not other.acquire(False)
        for pos, length in ((0, STRIPE), (3 * STRIPE, 1)):
            other = theirs.lock(pos, length)
            assert not other.locked() and other.acquire(False)
            other.release()
    with theirs.lock() as whole:
        assert whole.len == SIZE and not web.lock(5 * STRIPE, 1).acquire(timeout=0.05) and web.lock(0, 1).locked()


def test_the_locks_are_those_of_the_c_library(client: statehouse.Client, web: statehouse.Area) -> None:
    def held() -> set[str]:
        return {info.name for info in client.locks.list(f"area/{web.name}") if info.holder_count}

    name = f"area/{web.name}"
    with web.lock(2 * STRIPE - 1, 2):
        assert held() == {name, f"{name}/#1", f"{name}/#2"}
        assert client.locks.describe(name).holders[0].shared and not client.locks.describe(f"{name}/#1").holders[0].shared
    with web.lock(0, 32 * STRIPE):
        assert len(held()) == 33
    with web.lock(0, 32 * STRIPE + 1, shared=True):
        assert held() == {name} and not client.locks.describe(name).holders[0].shared
    assert held() == set()


def test_a_stripe_grows_with_the_area(client: statehouse.Client, area_name: str) -> None:
    big = client.area(area_name, 5 << 20)  # More than 1,024 times 4 KiB: stripes of 8 KiB.
    with big.lock(8191, 1), big.lock(8192, 1):
        assert {info.name for info in client.locks.list(f"area/{area_name}/") if info.holder_count} == {
            f"area/{area_name}/#0",
            f"area/{area_name}/#1",
        }
    big.store_u8(0, 1, fence=9)
    big.store_u8(8192, 1, fence=8)
    with pytest.raises(statehouse.Fenced):
        big.store_u8(8191, 1, fence=8)


def test_shared_ranges_hold_together(web: statehouse.Area, theirs: statehouse.Area) -> None:
    with web.lock(0, 10, shared=True), theirs.lock(5, 10, shared=True):
        assert not theirs.lock(0, 1).acquire(False)


def test_all_or_nothing(web: statehouse.Area, theirs: statehouse.Area) -> None:
    with theirs.lock(2 * STRIPE, 1):
        lock = web.lock(0, 4 * STRIPE, timeout=0.05)
        assert not lock.acquire(False)
        with pytest.raises(statehouse.Timeout), lock:
            pass
        for pos in (0, STRIPE, 3 * STRIPE):
            assert not theirs.lock(pos, 1).locked()


def test_what_was_taken_is_kept_while_the_rest_is_waited_for(web: statehouse.Area, theirs: statehouse.Area) -> None:
    in_the_way = theirs.lock(STRIPE, 1)
    in_the_way.acquire()
    lock = web.lock(0, 2 * STRIPE, ttl=SHORT_S)
    waiter = threading.Thread(target=lock.acquire)
    waiter.start()
    wait_until(lambda: theirs.lock(0, 1).locked(), "the first stripe")
    time.sleep(3 * SHORT_S)  # Longer than the lease that it has.
    assert theirs.lock(0, 1).locked()
    in_the_way.release()
    waiter.join()
    assert lock.held
    lock.release()


def test_the_loss_of_one_stripe_is_the_loss_of_the_range(client: statehouse.Client, web: statehouse.Area) -> None:
    told: list[statehouse.Lock] = []
    lock = web.lock(0, 3 * STRIPE, ttl=1, on_lost=told.append)
    with pytest.raises(statehouse.LockLost), lock:
        lock.renew()
        assert client.locks.force_release(f"area/{web.name}/#1") == 1
        wait_until(lambda: told == [lock], "the news")
        assert lock.lost and not lock.held
        with pytest.raises(statehouse.LockLost):
            lock.renew()
    assert not web.lock().locked()


def test_what_makes_no_sense_is_refused(web: statehouse.Area) -> None:
    for pos, length in ((0, SIZE + 1), (SIZE, 1), (-1, 1), (0, -1), (1 << 64, 1), (SIZE + 1, None)):
        with pytest.raises(statehouse.OutOfBounds):
            web.lock(pos, length)
    for pos, length in ((0, 0), (SIZE, None)):
        with pytest.raises(statehouse.InvalidArgument):
            web.lock(pos, length)
    with pytest.raises(TypeError):
        web.lock("0")
    with pytest.raises(TypeError):
        web.lock(0, 1, limit=2)


def test_a_stopped_holder_that_goes_on_is_refused(service: Service, door: str, web: statehouse.Area) -> None:
    program = f"""
import time
import statehouse
area = statehouse.connect({service.url!r}, token={service.token!r}, transport={door!r}).area({web.name!r})
lock = area.lock(0, {STRIPE}, ttl={SHORT_S})
lock.acquire()
area.write(0, b"early", fence=lock.token)
area.store_u64({8 * STRIPE}, 1)
while area.load_u64({8 * STRIPE}) == 1:
    time.sleep(0.001)
try:
    area.write(0, b"late!", fence=lock.token)
except statehouse.Fenced:
    area.write(100, b"late!")  # Without a token nobody can tell.
    print("refused")
"""
    late = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: web.load_u64(8 * STRIPE) == 1 or late.poll() is not None, "the first write")
        os.kill(late.pid, signal.SIGSTOP)
        with web.lock(0, STRIPE) as lock:
            web.write(0, b"next!", fence=lock.token)
            web.write(100, b"next!", fence=lock.token)
            web.store_u64(8 * STRIPE, 2)
            os.kill(late.pid, signal.SIGCONT)
            assert late.communicate(timeout=60)[0] == "refused\n"
            assert web.read(0, 5) == b"next!" and web.read(100, 5) == b"late!"
    finally:
        late.kill()
        late.communicate()


def test_an_area_and_its_client_go_away_together(service: Service, door: str, web: statehouse.Area) -> None:
    client = service.connect(door)
    client.kept = client.area(web.name)  # type: ignore[attr-defined]
    with client.kept.lock(0, 1):  # type: ignore[attr-defined]
        pass
    gone = weakref.ref(client)
    client.close()
    del client
    wait_until(lambda: gc.collect() >= 0 and gone() is None, "the end of the client")


@pytest.mark.parametrize("door", DOORS_OF_ASYNCIO)
def test_asyncio_has_the_same(service: Service, door: str, web: statehouse.Area) -> None:
    async def check() -> None:
        async with statehouse.aio.connect(service.url, token=service.token, transport=door, timeout=10.0) as client:
            area = await client.area(web.name)
            await area.write(0, b"newest", fence=1000)
            for name, write in writes(area, 0):
                with pytest.raises(statehouse.Fenced):
                    await write(fence=999)
                await write(fence=1000)
                await write()
            async with area.lock(STRIPE, 2 * STRIPE) as lock:
                assert lock.held and not await area.lock(STRIPE, 1).acquire(False)
                assert not web.lock(2 * STRIPE, 1).acquire(False)
                await area.store_u64(STRIPE, 5, fence=lock.token)
            with pytest.raises(statehouse.OutOfBounds):
                area.lock(0, SIZE + 1)
            late = lock.token
            async with area.lock(STRIPE, 1) as lock:
                await area.add_u64(STRIPE, 1, fence=lock.token)
            with pytest.raises(statehouse.Fenced):
                await area.add_u64(STRIPE, 1, fence=late)

    asyncio.run(check())
