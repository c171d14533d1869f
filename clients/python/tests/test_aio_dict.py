"""statehouse.aio's dicts: the same results as the blocking ones, awaited."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import statehouse
import statehouse.aio

from conftest import DOORS_OF_ASYNCIO, Service

Check = Callable[[statehouse.aio.AsyncClient, statehouse.aio.AsyncSharedDict], Awaitable[None]]


@pytest.fixture(params=DOORS_OF_ASYNCIO)
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(service: Service, door: str, name: str, check: Check, **options: Any) -> None:
    async def main() -> None:
        url = service.url
        async with statehouse.aio.connect(url, token=service.token, transport=door, timeout=10.0) as client:
            shared = await client.dict(name, **options)
            assert shared.transport == client.transport == door and shared.name == name and name in repr(shared)
            try:
                await check(client, shared)
            finally:
                await client.dicts.delete(name)

    asyncio.run(main())


def test_entries_are_set_read_and_deleted(service: Service, door: str, area_name: str) -> None:
    async def check(client: statehouse.aio.AsyncClient, d: statehouse.aio.AsyncSharedDict) -> None:
        assert await d.set("a", {"x": [1]}) and await d.get("a") == {"x": [1]} and type(await d.get("a")) is dict
        assert await d.get("none", 5) == 5 and await d.contains("a") and not await d.contains("none")
        assert not await d.add("a", 1) and await d.add("b", 2) and await d.length() == 2
        assert await d.replace("b", 2, 3) and not await d.replace("b", 2, 4) and await d.setdefault("b", 9) == 3
        assert await d.fetch("a", "x", 0) == 1 and await d.pop("b") == 3 and await d.pop("b", None) is None
        with pytest.raises(KeyError):
            await d.pop("b")
        with pytest.raises(statehouse.PathNotFound):
            await d.fetch("a", "y")
        assert await d.delete("a") and not await d.delete("a") and await d.append("l", 1) == 1
        await d.update({"p": 1}, q=2)
        await d.set_many({"r": 3}, ttl=100)
        assert await d.get_many(["p", "r", "none"]) == {"p": 1, "r": 3} and (await d.ttl("r") or 0) > 90
        assert await d.touch("r", math.inf) and await d.ttl("r") is None and await d.version("none") == 0
        entry = await d.entry("p")
        assert entry is not None and entry.version == await d.version("p") and await d.popitem() == ("r", 3)
        assert await d.snapshot() == await d.copy() == {"l": [1], "p": 1, "q": 2}
        assert await d.delete_prefix("p") == 1
        await d.clear()
        assert await d.copy() == {}

    run(service, door, area_name, check)


def test_many_tasks_count_exactly(service: Service, door: str, area_name: str) -> None:
    async def check(client: statehouse.aio.AsyncClient, d: statehouse.aio.AsyncSharedDict) -> None:
        async def count() -> None:
            for _ in range(20):
                await d.incr("n")
                await d.at("m", "in").incr()

        await d.set("m", {})
        await asyncio.gather(*(count() for _ in range(10)))
        assert await d.copy() == {"m": {"in": 200}, "n": 200}
        assert await d.incr("x", 0.5, default=1, max=5) == 1.5

    run(service, door, area_name, check)


def test_iteration_is_in_order(service: Service, door: str, area_name: str) -> None:
    async def check(client: statehouse.aio.AsyncClient, d: statehouse.aio.AsyncSharedDict) -> None:
        await d.update({f"k{i * 7 % 500}": i for i in range(500)})
        expected = [(f"k{i * 7 % 500}", i) for i in range(500)]
        assert [item async for item in d.items()] == expected
        assert [key async for key in d] == [key async for key in d.keys()] == [key for key, _ in expected]
        assert [value async for value in d.values()] == list(range(500))
        assert sorted([item async for item in d.scan("k1")]) == sorted(i for i in expected if i[0].startswith("k1"))

    run(service, door, area_name, check)


def test_places_are_changed(service: Service, door: str, area_name: str) -> None:
    async def check(client: statehouse.aio.AsyncClient, d: statehouse.aio.AsyncSharedDict) -> None:
        await d.set("a", {"l": [1], "t": "x", "y": b"x"})
        place = d.at("a").at("l")
        assert await place.append(2) == 2 and await place.extend([3]) == 3 and await place.insert(0, 0) == 4
        await place.remove(3)
        with pytest.raises(ValueError):
            await place.remove(3)
        await place.at(0).set(9)
        assert await place.get() == [9, 1, 2] and await place.at(-1).pop() == 2 and await place.exists() and await place.fetch() == [9, 1]
        assert await d.at("a", "t").append_text("y") == 2 and await d.at("a", "y").append_bytes(bytearray(b"y")) == 2
        await d.at("a").update(z=1)
        assert await d.at("a", "z").setdefault(5) == 1 and await d.at("a", "z").delete() and await d.at("a", "z").pop(0) == 0
        await place.clear()
        assert await d.fetch("a") == {"l": [], "t": "xy", "y": b"xy"}

    run(service, door, area_name, check)


def test_transactions(service: Service, door: str, area_name: str) -> None:
    async def check(client: statehouse.aio.AsyncClient, d: statehouse.aio.AsyncSharedDict) -> None:
        await d.update(a=1, l=[1])
        async with d.transaction() as t:
            t.set("b", await t.fetch("a") + 1)
            (await t.get("l")).append(2)
            assert await t.incr("n") == 1 and not await t.contains("none") and await t.setdefault("s", 1) == 1
            assert await t.pop("none", 7) == 7 and await t.pop("s") == 1
            t.update(u=1)
            t.delete("u")
        assert await d.copy() == {"a": 1, "l": [1, 2], "b": 2, "n": 1}
        with pytest.raises(statehouse.Conflict):
            async with d.transaction() as t:
                await t.get("a")
                await d.incr("a")
                t.set("a", 0)

        runs = []

        @d.transactional(retries=2)
        async def add(t: statehouse.aio.AsyncTransaction, conflicts: int) -> int:
            number = await t.get("a")
            runs.append(number)
            if len(runs) <= conflicts:
                await d.incr("a")
            t.set("a", number + 100)
            return int(number + 100)

        assert await add(2) == 104 and len(runs) == 3
        runs.clear()
        with pytest.raises(statehouse.Conflict):
            await add(3)

    run(service, door, area_name, check)


def test_dicts_as_wholes_and_keys_of_any_kind(service: Service, door: str, area_name: str) -> None:
    async def check(client: statehouse.aio.AsyncClient, d: statehouse.aio.AsyncSharedDict) -> None:
        await d.set((1, b"x"), {2: 3})
        assert await d.get((1, b"x")) == {2: 3} and [key async for key in d] == [(1, b"x")]
        assert (await client.dicts.describe(area_name)).entries == 1
        assert [info.name for info in await client.dicts.list(prefix=area_name)] == [area_name]
        assert (await client.dict(area_name, create=False)).name == area_name
        with pytest.raises(statehouse.NotFound):
            await client.dict(area_name + "/none", create=False)

    run(service, door, area_name, check, keys="any")


def test_a_deleted_dict_is_reported(service: Service, door: str, area_name: str) -> None:
    async def check(client: statehouse.aio.AsyncClient, d: statehouse.aio.AsyncSharedDict) -> None:
        await client.dicts.delete(area_name)
        calls: list[Callable[[], Awaitable[Any]]] = [
            d.length, d.copy, d.snapshot, d.clear, d.popitem, lambda: d.get("a"), lambda: d.set("a", 1), lambda: d.incr("a"),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(statehouse.NotFound):
                await call()
        await client.dict(area_name)

    run(service, door, area_name, check)
