"""statehouse.aio: the same names, awaited, through both doors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

import statehouse
import statehouse.aio
from statehouse.aio import AsyncClient
from statehouse.types import AsyncArea

from conftest import DOORS_OF_ASYNCIO, Service

Body = Callable[[AsyncClient, AsyncArea], Coroutine[Any, Any, None]]


@pytest.fixture(params=DOORS_OF_ASYNCIO)
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(service: Service, door: str, area_name: str) -> Callable[[Body], None]:
    """Runs a body with a client and an area of its own."""

    async def with_area(body: Body) -> None:
        connecting = statehouse.aio.connect(
            service.url, token=service.token, transport=door, timeout=10.0
        )
        async with connecting as client:
            assert client.transport == door
            area = await client.area(area_name, size=4096)
            try:
                await asyncio.wait_for(body(client, area), 60)
            finally:
                if not client.closed:
                    await client.areas.delete(area_name)

    return lambda body: asyncio.run(with_area(body))


def test_every_operation_is_awaited(run: Callable[[Body], None], area_name: str) -> None:
    async def body(client: AsyncClient, area: AsyncArea) -> None:
        assert await area.add_u64(0, 5) == 5
        assert await area.add_i8(8, -1) == -1
        assert await area.load_u64(0) == 5
        await area.store_i32(16, -7)
        assert await area.load_i32(16) == -7
        result = await area.compare_exchange_u64(0, expected=5, desired=6)
        assert result and result.found == 5
        assert await area.bitwise_or_u8(0, 1) == 7
        assert await area.bitwise_and_u8(0, 3) == 3
        assert await area.bitwise_xor_u8(0, 1) == 2
        await area.write(100, b"hello")
        assert await area.read(100, 5) == b"hello"
        await area.fill(100, 2, 0)
        assert await area.read(100, 5) == b"\0\0llo"
        assert await area.read(4095) == b"\0"
        assert await area.updates > 0
        assert (area.name, area.size) == (area_name, 4096)

    run(body)


def test_areas_as_wholes(run: Callable[[Body], None], area_name: str) -> None:
    async def body(client: AsyncClient, area: AsyncArea) -> None:
        info = await client.areas.create(area_name + "/x", pages=1)
        assert info.size == 4096
        assert [i.name for i in await client.areas.list(prefix=area_name + "/")] == [info.name]
        assert (await client.areas.describe(info.name)).index == info.index
        await client.areas.delete(info.name)
        with pytest.raises(statehouse.NotFound):
            await client.area(info.name)
        assert (await client.status()).version

    run(body)


def test_errors_are_those_of_the_blocking_client(run: Callable[[Body], None]) -> None:
    async def body(client: AsyncClient, area: AsyncArea) -> None:
        refused: list[tuple[Callable[[], Awaitable[object]], type[Exception]]] = [
            (lambda: area.load_u64(4096), statehouse.OutOfBounds),
            (lambda: area.load_u64(-1), statehouse.OutOfBounds),
            (lambda: area.read(0, 1 << 70), statehouse.OutOfBounds),
            (lambda: area.store_u8(0, 256), statehouse.ValueOutOfRange),
            (lambda: area.fill(0, 1, 256), statehouse.ValueOutOfRange),
            (lambda: area.wait(0, -1), statehouse.InvalidArgument),
            (lambda: client.areas.create("a b", size=1), statehouse.InvalidArgument),
        ]
        for call, error in refused:
            with pytest.raises(error):
                await call()

    run(body)


def test_a_wait_lets_the_loop_go_on(run: Callable[[Body], None]) -> None:
    async def body(client: AsyncClient, area: AsyncArea) -> None:
        since = await area.updates
        waits = [asyncio.create_task(area.wait(since, 60)) for _ in range(50)]
        await asyncio.sleep(0)
        assert not any(wait.done() for wait in waits)
        await area.add_u64(0, 1)
        assert await asyncio.gather(*waits) == [True] * 50
        since = await area.updates
        assert await area.wait(since, 0) is False
        assert await area.wait(since, 0.01) is False
        assert await area.wait(since - 1) is True

    run(body)


def test_a_cancelled_wait_ends_at_once_and_leaves_the_client_usable(
    run: Callable[[Body], None],
) -> None:
    async def body(client: AsyncClient, area: AsyncArea) -> None:
        wait = asyncio.create_task(area.wait(await area.updates))
        await asyncio.sleep(0)
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait
        assert await area.add_u64(0, 1) == 1

    run(body)


def test_many_calls_at_once_count_exactly(run: Callable[[Body], None]) -> None:
    async def body(client: AsyncClient, area: AsyncArea) -> None:
        await asyncio.gather(*(area.add_u64(0, 1) for _ in range(200)))
        assert await area.load_u64(0) == 200

    run(body)


def test_everything_refuses_after_close(
    run: Callable[[Body], None], service: Service, area_name: str
) -> None:
    async def body(client: AsyncClient, area: AsyncArea) -> None:
        await client.close()
        assert client.closed
        for call in (lambda: area.load_u64(0), lambda: area.add_u64(0, 1), client.status):
            with pytest.raises(statehouse.ClientClosed):
                await call()

    run(body)
    with service.connect("local") as blocking:
        blocking.areas.delete(area_name)


def test_closing_over_the_network_ends_calls_under_way(service: Service, area_name: str) -> None:
    async def body() -> None:
        async with statehouse.aio.connect(service.url, token=service.token, transport="network") as client:
            area = await client.area(area_name, size=8)
            waits = [asyncio.create_task(area.wait(await area.updates)) for _ in range(3)]
            await area.load_u64(0)  # The waits are on their way.
            await client.close()
            results = await asyncio.gather(*waits, return_exceptions=True)
            assert {type(result) for result in results} == {statehouse.ClientClosed}

    asyncio.run(body())
    with service.connect("local") as blocking:
        blocking.areas.delete(area_name)


def test_connect_may_be_awaited(service: Service, door: str) -> None:
    async def body() -> None:
        client = await statehouse.aio.connect(service.url, token=service.token, transport=door)
        assert (await client.status()).version
        await client.close()

    asyncio.run(body())


def test_nobody_there_is_unavailable_and_does_not_block_the_loop(tmp_path: object) -> None:
    async def body() -> None:
        ticks = 0
        connecting = asyncio.ensure_future(
            statehouse.aio.connect(f"statehouse+unix://{tmp_path}", timeout=0.2)._connect()
        )
        began = time.monotonic()
        while not connecting.done() and time.monotonic() - began < 60:
            await asyncio.sleep(0)
            ticks += 1
        with pytest.raises(statehouse.Unavailable):
            await connecting
        assert ticks > 2

    asyncio.run(body())
