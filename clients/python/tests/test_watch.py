"""Watches of dicts, through a real service."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import os
import threading
import time
from typing import Any

import pytest

import statehouse
import statehouse.aio
from statehouse import _dict_watch, errors
from statehouse.v1 import watch_pb2

from conftest import DOORS_OF_ASYNCIO

PATIENCE_S = 30.0


def take(watch: statehouse.Watch, count: int) -> list[statehouse.WatchEvent]:
    events = []
    for _ in range(count):
        event = watch.next(PATIENCE_S)
        assert event is not None, f"only {events}"
        events.append(event)
    return events


def until_synced(watch: statehouse.Watch) -> list[statehouse.WatchEvent]:
    events = take(watch, 1)
    while events[-1].kind != "synced":
        events += take(watch, 1)
    return events


@pytest.fixture
def d(client: statehouse.Client, area_name: str) -> statehouse.SharedDict:
    return client.dict(area_name)


def test_entries_then_synced_then_changes(d: statehouse.SharedDict) -> None:
    d["web/a"] = {"port": 80}
    d["db/a"] = 1
    with d.watch("web/") as watch:
        entry, synced = take(watch, 2)
        assert (entry.kind, entry.key, entry.value) == ("entry", "web/a", {"port": 80})
        assert entry.version == d.version("web/a")
        assert synced.kind == "synced" and synced.revision > 0
        d["db/a"] = 2
        d["web/a"]["port"] = 443
        d.incr("web/n", 5)
        del d["web/a"]
        put, incr, delete = take(watch, 3)
        assert (put.kind, put.key, put.value) == ("put", "web/a", {"port": 443})
        assert (incr.kind, incr.key, incr.value) == ("put", "web/n", 5)
        assert (delete.kind, delete.key, delete.value) == ("delete", "web/a", None)
        assert put.revision < incr.revision < delete.revision == watch.revision
        assert put.time is not None and abs(put.time.timestamp() - time.time()) < 60
        assert watch.next(0.05) is None
    with pytest.raises(errors.ClientClosed):
        watch.next()
    assert list(watch) == []


def test_an_empty_dict_is_synced_too(d: statehouse.SharedDict) -> None:
    with d.watch() as watch:
        assert [event.kind for event in take(watch, 1)] == ["synced"]


def test_one_key_kinds_and_without_values(d: statehouse.SharedDict) -> None:
    d["a"] = "x"
    with (
        d.watch(key="a", keys_only=True) as one,
        d.watch(snapshot=False, kinds=["delete", "expire"]) as ends,
    ):
        assert [(e.kind, e.value) for e in until_synced(one)] == [("entry", None), ("synced", None)]
        assert [e.kind for e in until_synced(ends)] == ["synced"]
        d.set("brief", 1, ttl=0.05)
        d["a"] = "y"
        d["ab"] = "z"
        del d["a"]
        assert [(e.kind, e.key, e.value) for e in take(one, 2)] == [("put", "a", None), ("delete", "a", None)]
        assert [(e.kind, e.key) for e in take(ends, 2)] == [("delete", "a"), ("expire", "brief")]


def test_a_later_watch_goes_on_after_a_revision(d: statehouse.SharedDict) -> None:
    with d.watch() as watch:
        until_synced(watch)
        d["a"] = 1
        (first,) = take(watch, 1)
        d["b"] = 2
        d["c"] = 3
    with d.watch(from_revision=first.revision) as watch:
        events = until_synced(watch)
        assert [(e.kind, e.key) for e in events] == [("put", "b"), ("put", "c"), ("synced", None)]
        assert events[-1].revision == events[-2].revision
    resyncs: list[statehouse.WatchEvent] = []
    with d.watch(from_revision=first.revision + (1 << 40), on_resync=resyncs.append) as watch:
        events = until_synced(watch)
    assert events[0].kind == "resync" and events[0].reason == "revision unknown"
    assert sorted(e.key for e in events if e.kind == "entry") == ["a", "b", "c"]
    assert resyncs == events[:1]


def test_keys_of_any_kind(client: statehouse.Client, area_name: str) -> None:
    d = client.dict(area_name, keys="any")
    d[(1, "a")] = b"x"
    with d.watch(key=(1, "a")) as watch:
        assert until_synced(watch)[0].key == (1, "a")


def test_clearing_is_told(d: statehouse.SharedDict) -> None:
    d["a"] = 1
    with d.watch() as watch:
        until_synced(watch)
        d.clear()
        events = until_synced(watch)
    assert [e.kind for e in events] == ["resync", "synced"]
    assert events[0].reason == "replaced"


def test_the_end_of_the_dict_is_an_error(client: statehouse.Client, d: statehouse.SharedDict) -> None:
    with d.watch() as watch:
        until_synced(watch)
        client.dicts.delete(d.name)
        with pytest.raises(errors.NotFound):
            watch.next(PATIENCE_S)
        with pytest.raises(errors.NotFound):
            watch.next(PATIENCE_S)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"prefix": "a", "key": "b"}, "not both"),
        ({"from_revision": 0}, "from_revision"),
        ({"from_revision": 1 << 64}, "from_revision"),
        ({"kinds": ["put", "get"]}, "'get' is no kind"),
        ({"slow": "drop"}, "slow"),
        ({"progress": 0.05}, "progress"),
        ({"progress": 3601}, "progress"),
        ({"window": 0.0101}, "window"),
        ({"window": -0.001}, "window"),
        ({"previous": True, "keys_only": True}, "previous"),
    ],
)
def test_bad_options_are_refused(d: statehouse.SharedDict, options: dict[str, Any], what: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=what):
        d.watch(**options)


def test_a_key_that_none_can_be_is_refused_by_the_service(d: statehouse.SharedDict) -> None:
    with d.watch(key="") as watch, pytest.raises(errors.InvalidArgument, match="1 to 1024"):
        watch.next(PATIENCE_S)


def test_progress(d: statehouse.SharedDict) -> None:
    with d.watch(progress=0.1) as watch:
        synced, progress = take(watch, 2)
        assert progress.kind == "progress" and progress.revision == synced.revision


@pytest.mark.parametrize("asked", [None, 0.1])
def test_progress_that_was_not_asked_for_moves_the_place_alone(asked: float | None) -> None:
    reader = _dict_watch.Reader("d", _dict_watch.check_options("", None, True, 5, False, None, "resync", asked, 0, False), str)
    message = watch_pb2.WatchDictResponse(revision=9, progress=watch_pb2.WatchProgress())
    assert [event.kind for event in reader.events(message)] == ([] if asked is None else ["progress"])
    assert reader.point == (9,)


def test_each_change_comes_with_the_value_before_it(d: statehouse.SharedDict) -> None:
    d["a"] = {"port": 80}
    with d.watch(previous=True) as watch, d.watch(snapshot=False, kinds="delete", previous=True) as deletes:
        until_synced(watch)
        until_synced(deletes)
        d["a"]["port"] = 443
        d["n"] = 1
        d.incr("n", 4)
        del d["a"]
        events = take(watch, 4)
        assert [(e.key, e.value, e.previous) for e in events] == [
            ("a", {"port": 443}, {"port": 80}),
            ("n", 1, None),
            ("n", 5, 1),
            ("a", None, {"port": 443}),
        ]
        (delete,) = take(deletes, 1)
        assert (delete.key, delete.previous) == ("a", {"port": 443})
        assert not any(e.previous_gone for e in [*events, delete])


def test_a_previous_value_that_the_history_does_not_have_is_gone(d: statehouse.SharedDict) -> None:
    d["a"] = 1
    with d.watch() as watch:
        revision = until_synced(watch)[-1].revision
    d["a"] = 2
    d["a"] = 3
    with d.watch(from_revision=revision, previous=True) as watch:
        events = until_synced(watch)
        d["b"] = 4
        events += take(watch, 1)
    told = [(e.key, e.previous, e.previous_gone) for e in events if e.kind == "put"]
    assert told == [("a", None, True), ("a", 2, False), ("b", None, False)]


def test_a_window_tells_changes_together(d: statehouse.SharedDict) -> None:
    d["n"] = 0
    with (
        d.watch(window=0.01) as every,
        d.watch(window=datetime.timedelta(milliseconds=10), slow="latest", previous=True) as latest,
    ):
        until_synced(every)
        until_synced(latest)
        for i in range(1, 101):
            d["n"] = i
        assert [e.value for e in take(every, 100)] == list(range(1, 101))
        # Each goes on where the one before ended, however many were left out.
        last = 0
        while last != 100:
            (event,) = take(latest, 1)
            assert event.previous == last
            assert event.coalesced == (event.value != last + 1)
            last = event.value


def test_close_ends_a_reader_in_another_thread(d: statehouse.SharedDict) -> None:
    watch = d.watch()
    until_synced(watch)
    seen: list[Any] = []
    reader = threading.Thread(target=lambda: seen.extend(watch))
    reader.start()
    d["a"] = 1
    deadline = time.monotonic() + PATIENCE_S
    while not seen and time.monotonic() < deadline:
        time.sleep(0.005)
    watch.close()
    reader.join(PATIENCE_S)
    assert not reader.is_alive()
    assert [e.key for e in seen] == ["a"]


def test_a_closed_client_ends_its_watches(service: Any, door: str, area_name: str) -> None:
    client = service.connect(door)
    watch = client.dict(area_name).watch()
    until_synced(watch)
    client.close()
    with pytest.raises(errors.ClientClosed):
        watch.next(PATIENCE_S)


def test_goes_on_in_a_forked_child_and_in_its_parent(d: statehouse.SharedDict) -> None:
    with d.watch() as watch:
        until_synced(watch)
        d["a"] = 1
        (event,) = take(watch, 1)
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                (after,) = take(watch, 1)
                if after.kind == "synced":  # Of its own stream.
                    (after,) = take(watch, 1)
                os.write(write_end, f"{after.kind} {after.key} {after.revision - event.revision}".encode())
                code = 0
            finally:
                os._exit(code)
        os.close(write_end)
        d["b"] = 2
        with os.fdopen(read_end) as told:
            assert told.read() == "put b 1"
        assert os.waitpid(pid, 0)[1] == 0
        events = take(watch, 1)
        if events[0].kind == "synced":
            events = take(watch, 1)
        assert [(e.kind, e.key) for e in events] == [("put", "b")]


def test_goes_on_over_a_killed_daemon(service: Any, door: str, area_name: str) -> None:
    """Nothing is missed or repeated while the daemon is killed again and again and others write."""
    with service.connect(door, timeout=30.0) as client:
        d = client.dict(area_name)
        stop = threading.Event()
        wrote = 0

        def write() -> None:
            nonlocal wrote
            with service.connect(door, timeout=30.0) as other:
                shared = other.dict(area_name)
                for i in itertools.count(1):
                    shared["n"] = i
                    wrote = i
                    if stop.wait(0.001):
                        return

        with d.watch() as watch:
            until_synced(watch)
            writer = threading.Thread(target=write)
            writer.start()
            expected = 1
            try:
                for _ in range(3):
                    end = expected + 60
                    while expected < end:
                        (event,) = take(watch, 1)
                        assert event.kind in ("put", "synced")
                        if event.kind == "put":
                            assert event.value == expected
                            expected += 1
                    service.kill_daemon()
            finally:
                stop.set()
                writer.join()
            while expected <= wrote:
                (event,) = take(watch, 1)
                assert event.kind in ("put", "synced")
                if event.kind == "put":
                    assert event.value == expected
                    expected += 1


@pytest.mark.parametrize("door", DOORS_OF_ASYNCIO)
def test_aio(service: Any, door: str, area_name: str) -> None:
    async def run() -> None:
        async with statehouse.aio.connect(service.url, token=service.token, transport=door) as client:
            d = await client.dict(area_name)
            await d.set("a", 1)
            seen = []
            async with d.watch() as watch:
                async for event in watch:
                    seen.append((event.kind, event.key, event.value))
                    if event.kind == "synced":
                        await d.set("b", 2)
                    if event.key == "b":
                        break
                assert seen == [("entry", "a", 1), ("synced", None, None), ("put", "b", 2)]
                # A wait that is given up loses nothing.
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(watch.next(), 0.05)
                await d.set("c", 3)
                events = [await asyncio.wait_for(watch.next(), PATIENCE_S)]
                while len(events) < (1 if door == "local" else 2) or "c" not in {event.key for event in events}:
                    events.append(await asyncio.wait_for(watch.next(), PATIENCE_S))
                # A stream is broken off for it, and another one says that it is synced; what is followed stays.
                assert [(event.kind, event.key) for event in events if event.kind != "synced"] == [("put", "c")]
                waiting = asyncio.ensure_future(watch.__anext__())
                await asyncio.sleep(0.01)
            with pytest.raises(StopAsyncIteration):
                await waiting
            async with d.watch(key="b", previous=True, window=0.005) as watch:
                while (await watch.next()).kind != "synced":
                    pass
                await d.set("b", 3)
                event = await watch.next()
                assert (event.value, event.previous, event.previous_gone) == (3, 2, False)
            with pytest.raises(errors.InvalidArgument, match="window"):
                d.watch(window=1)
            gone = d.watch()
            await client.dicts.delete(area_name)
            with pytest.raises(errors.NotFound):
                async for event in gone:
                    pass

    asyncio.run(run())
