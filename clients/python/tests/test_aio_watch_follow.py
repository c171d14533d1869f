"""Watches of an event loop that follow by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pathlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import statehouse
import statehouse.aio
from conftest import Service, wait_until
from statehouse import _local, _watch_follow, errors
from test_watch import PATIENCE_S
from test_watch_follow import HISTORY_BYTES, check_alike, configured, mapped_logs, threads

Run = Callable[[Callable[[Any], Awaitable[None]]], None]


async def until(condition: Callable[[], Any]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), PATIENCE_S)


async def take(watch: Any, count: int) -> list[statehouse.WatchEvent]:
    return [await asyncio.wait_for(watch.next(), PATIENCE_S) for _ in range(count)]


async def until_synced(watch: Any) -> list[statehouse.WatchEvent]:
    events = await take(watch, 1)
    while events[-1].kind != "synced":
        events += await take(watch, 1)
    return events


@contextlib.asynccontextmanager
async def following(d: Any, **options: Any) -> AsyncIterator[Any]:
    """A watch that is synced and follows."""
    async with d.watch(**options) as watch:
        await until_synced(watch)
        await follow(watch)
        yield watch


async def follow(watch: Any) -> None:
    """Takes the handing over, and "synced" of a stream that was broken off for a look."""
    while watch._follow is None:
        waiting = asyncio.ensure_future(watch.next())
        await until(lambda: waiting.done() or watch._follow is not None)
        if waiting.done() or not waiting.cancel():
            assert (await waiting).kind in ("synced", "progress")
        else:
            await asyncio.wait((waiting,))


@pytest.fixture
def run(service: Service, area_name: str) -> Run:
    """Runs a test with an empty dict."""

    def run(test: Callable[[Any], Awaitable[None]]) -> None:
        async def inside() -> None:
            async with statehouse.aio.connect(service.url, token=service.token, transport="local", timeout=10.0) as client:
                await test(await client.dict(area_name))

        asyncio.run(inside())
        assert mapped_logs() == 0
        assert threads("statehouse-flw") == 0

    return run


def test_tells_what_a_stream_tells(run: Run) -> None:
    async def test(d: Any) -> None:
        async with d.watch(slow="latest") as stream, following(d) as watch:
            await until_synced(stream)
            await d.set("list", [1, {"a": b"x"}])
            await d.incr("n", -5)
            await d.set("f", 1.5)
            await d.delete("list")
            followed = await take(watch, 4)
            check_alike(followed, await take(stream, 4))
            assert watch.revision == followed[-1].revision == stream.revision
            assert mapped_logs() == 1 and threads("statehouse-flw") == 1

    run(test)


def test_selection_and_progress(run: Run) -> None:
    async def test(d: Any) -> None:
        async with (
            following(d, key="b", keys_only=True) as one,
            following(d, prefix="b", kinds=["delete"]) as ends,
            following(d, key="other", progress=0.1) as progress,
        ):
            for key in ("a", "b", "bb"):
                await d.set(key, 1)
            await d.delete("bb")
            assert [(e.key, e.value) for e in await take(one, 1)] == [("b", None)]
            assert [(e.kind, e.key) for e in await take(ends, 1)] == [("delete", "bb")]
            first, second = await take(progress, 2)
            assert first.kind == second.kind == "progress"
            await d.set("a", 2)
            assert (await take(progress, 2))[1].revision > second.revision
            assert mapped_logs() == 1

    run(test)


def test_many_changes_come_while_the_loop_is_busy(run: Run) -> None:
    async def test(d: Any) -> None:
        async with following(d) as watch, following(d, key="last") as last:
            for i in range(2_000):
                d._shared["n"] = i
                if i % 100 == 0:
                    time.sleep(0.002)  # No ring is written over, and the loop has no turn.
            d._shared["last"] = 1
            assert (await take(last, 1))[0].key == "last"
            assert [e.value for e in await take(watch, 2_001)] == [*range(2_000), 1]

    run(test)


def test_cancelling_a_wait_loses_nothing_and_keeps_following(run: Run) -> None:
    async def test(d: Any) -> None:
        async with following(d) as watch:
            before = watch._follow
            for i in range(20):
                waiting = asyncio.ensure_future(watch.next())
                await asyncio.sleep(0)
                await d.set("n", i)
                if i % 2:
                    await asyncio.sleep(0.002)
                if waiting.cancel():
                    with contextlib.suppress(asyncio.CancelledError):
                        await waiting
                event = (await take(watch, 1))[0] if waiting.cancelled() else await waiting
                assert event.value == i
            assert watch._follow is before

    run(test)


def test_closing_ends_who_waits(run: Run, service: Service, area_name: str) -> None:
    async def test(d: Any) -> None:
        async with following(d) as watch:
            waiting = asyncio.ensure_future(watch.__anext__())
            await asyncio.sleep(0.01)
            await watch.close()
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(waiting, PATIENCE_S)
        async with statehouse.aio.connect(service.url, token=service.token, transport="local") as other:
            async with following(await other.dict(area_name)) as watch:
                waiting = asyncio.ensure_future(watch.next())
                await asyncio.sleep(0.01)
                await other.close()
                with pytest.raises(errors.ClientClosed):
                    await asyncio.wait_for(waiting, PATIENCE_S)

    run(test)


def test_a_deleted_dict_ends_it_after_what_came_before(run: Run, service: Service, area_name: str) -> None:
    async def test(d: Any) -> None:
        async with following(d) as watch, following(d) as waits, following(d) as mark:
            waiting = asyncio.ensure_future(take(waits, 101))
            for i in range(100):
                await d.set("k", i)
            await take(mark, 100)  # All of it is in the log.
            with service.connect("network") as c:
                await asyncio.to_thread(c.dicts.delete, area_name)
            with pytest.raises(errors.NotFound):
                await waiting
            await until(lambda: watch._follow.end)
            assert [e.value for e in await take(watch, 100)] == list(range(100))
            with pytest.raises(errors.NotFound):
                await take(watch, 1)

    run(test)


def test_a_revoked_token_ends_it(run: Run, service: Service, area_name: str) -> None:
    async def test(d: Any) -> None:
        token = await asyncio.to_thread(service.add_token, "followr2", {("dict", area_name): ("read",)})
        async with statehouse.aio.connect(service.url, token=token, transport="local") as reader:
            async with following(await reader.dict(area_name, create=False)) as watch:
                await d.set("a", 1)
                assert (await take(watch, 1))[0].value == 1
                await asyncio.to_thread(service.remove_token, "followr2")
                await until(lambda: watch._follow.end)
                await d.set("a", 2)
                with pytest.raises(errors.Unauthenticated):
                    await take(watch, 1)

    run(test)


def test_goes_on_and_follows_again_over_a_killed_daemon(run: Run, service: Service) -> None:
    async def test(d: Any) -> None:
        async with following(d) as watch:
            for i in range(3):
                await asyncio.to_thread(service.kill_daemon)
                d._shared["n"] = i
                events = await take(watch, 1)
                while events[-1].kind != "put":
                    events += await take(watch, 1)
                assert [(e.kind, e.value) for e in events if e.kind != "synced"] == [("put", i)]
                await follow(watch)

    run(test)


def test_a_cleared_dict_and_a_slow_reader_are_told_by_the_stream(tmp_path: pathlib.Path) -> None:
    async def test(service: Service) -> None:
        async with statehouse.aio.connect(service.url, token=service.token, transport="local") as client:
            d: Any = await client.dict("d")
            async with following(d) as watch:
                # Though the one before may still be counted.
                for _ in range(5):
                    await d.clear()
                    assert [(e.kind, e.reason) for e in await until_synced(watch)] == [("resync", "replaced"), ("synced", "")]
                    await follow(watch)
                for i in range(3_000):
                    d._shared["n"] = i
                    if i % 100 == 0:
                        await asyncio.sleep(0.002)  # No ring is written over.
                events = await take(watch, 1)
                while events[-1].kind != "resync":
                    events += await take(watch, 1)
                assert events[-1].reason == "slow watcher"
                assert [e.value for e in (await until_synced(watch))[:-1]] == [2_999]

    with configured(tmp_path, f"[watches]\nhistory_bytes = {HISTORY_BYTES}\ncount_max = 1\n") as service:
        asyncio.run(test(service))


@pytest.mark.parametrize(
    ("error", "opened"),
    [
        (errors.by_name("DATA_LOSS", "it makes no sense", ""), 1),
        (errors.by_name("TIMEOUT", "no answer", ""), _watch_follow.OPENS_MAX),
        (errors.by_name("UNAVAILABLE", "it is no more", ""), _watch_follow.OPENS_MAX),
    ],
)
def test_where_the_log_cannot_be_opened_the_stream_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: errors.Error, opened: int
) -> None:
    tries: list[int] = []

    class Refusing:
        is_supported = _local.DictFollow.is_supported
        may_follow_rings = _local.DictFollow.may_follow_rings

        def __new__(cls, *args: Any) -> Any:
            tries.append(args[1])
            raise error

    monkeypatch.setattr(_local, "DictFollow", Refusing)

    async def test(d: Any) -> None:
        async with d.watch() as watch:
            await until_synced(watch)
            for i in range(3):
                waiting = asyncio.ensure_future(watch.next())
                await until(lambda: len(tries) == opened)
                await d.set("a", i)
                assert (await asyncio.wait_for(waiting, PATIENCE_S)).value == i
            assert len(tries) == opened

    run(test)


def test_a_watch_that_nobody_has_any_more_leaves_nothing(run: Run) -> None:
    async def test(d: Any) -> None:
        async with following(d):
            gc.collect()
            before, before_tasks = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks()) + 1  # And that of `until`.
            for _ in range(3):
                watch = d.watch()
                await until_synced(watch)
                await follow(watch)
            del watch
            await until(lambda: gc.collect() >= 0 and len(os.listdir("/proc/self/fd")) <= before)
            await until(lambda: len(asyncio.all_tasks()) == before_tasks)

    run(test)


def test_a_loop_that_ends_with_watches_open_leaves_nothing(service: Service, area_name: str) -> None:
    async def test() -> None:
        client = await statehouse.aio.connect(service.url, token=service.token, transport="local")
        watch = (await client.dict(area_name)).watch()
        await until_synced(watch)
        await follow(watch)

    asyncio.run(test())
    gc.collect()
    wait_until(lambda: mapped_logs() == 0 and threads("statehouse-flw") == 0, "the end of following")
