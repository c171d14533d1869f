"""statehouse.aio's locks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

import statehouse
import statehouse.aio

from conftest import DOORS_OF_ASYNCIO, Service


@pytest.fixture(params=DOORS_OF_ASYNCIO)
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(service: Service, door: str, check: Callable[[statehouse.aio.AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        async with statehouse.aio.connect(service.url, token=service.token, transport=door, timeout=10.0) as client:
            await check(client)

    asyncio.run(main())


def test_tasks_exclude_each_other(service: Service, door: str, area_name: str) -> None:
    async def check(client: statehouse.aio.AsyncClient) -> None:
        inside = 0

        async def work() -> None:
            nonlocal inside
            for _ in range(5):
                async with client.lock(area_name) as lock:
                    assert lock.held and lock.token > 0 and not lock.lost and lock.expires_in > 0
                    inside += 1
                    assert inside == 1
                    await asyncio.sleep(0)
                    inside -= 1

        await asyncio.gather(*(work() for _ in range(3)))
        first, second = client.semaphore(area_name, 2), client.semaphore(area_name, 2)
        assert await first.acquire(False) and await second.acquire(False) and await first.locked()
        assert not await client.semaphore(area_name, 2).acquire(timeout=0.05)
        assert (await client.locks.describe(area_name)).holder_count == 2
        assert [lock.name async for lock in client.locks.list(area_name)] == [area_name]
        await first.renew()
        await first.release()
        await second.release()

    run(service, door, check)


def test_losing_it_ends_the_block(service: Service, door: str, area_name: str) -> None:
    async def check(client: statehouse.aio.AsyncClient) -> None:
        with pytest.raises(statehouse.LockLost):
            async with client.lock(area_name, ttl=0.3):
                assert await client.locks.force_release(area_name) == 1
                await asyncio.sleep(3600)
        task = asyncio.current_task()
        assert task is not None and not task.cancelling()

    run(service, door, check)


def test_a_cancelled_waiter_leaves_nothing_behind(service: Service, door: str, area_name: str) -> None:
    async def check(client: statehouse.aio.AsyncClient) -> None:
        async with client.lock(area_name):
            waiting = asyncio.create_task(client.lock(area_name).acquire())
            while (await client.locks.describe(area_name)).waiter_count == 0:
                await asyncio.sleep(0.005)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            with pytest.raises(statehouse.Timeout):
                async with client.lock(area_name, timeout=0.05):
                    pytest.fail("it is held")
        assert await client.lock(area_name).acquire(timeout=60)

    run(service, door, check)


def test_a_waiter_keeps_its_place(service: Service, door: str, area_name: str) -> None:
    """However long it takes: whoever came later is served later."""

    async def check(client: statehouse.aio.AsyncClient) -> None:
        served = []

        async def wait(number: int) -> None:
            async with client.lock(area_name):
                served.append(number)

        async with client.lock(area_name):
            waiters = []
            for number in range(3):
                waiters.append(asyncio.create_task(wait(number)))
                while (await client.locks.describe(area_name)).waiter_count <= number:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.9)  # Longer than any call of a wait lasts.
        await asyncio.gather(*waiters)
        assert served == [0, 1, 2]

    run(service, door, check)
