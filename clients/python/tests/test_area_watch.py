"""Watches of areas, through a real service."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

import statehouse
import statehouse.aio
from statehouse import AreaEvent, errors

from conftest import DOORS_OF_ASYNCIO, PATIENCE_S, Service


def take(watch: statehouse.AreaWatch, count: int) -> list[AreaEvent]:
    events = []
    for _ in range(count):
        event = watch.next(PATIENCE_S)
        assert event is not None, f"only {events}"
        events.append(event)
    return events


class Replay:
    """What a watcher of a range knows: each event is put over what was told before."""

    def __init__(self, pos: int, len: int) -> None:
        self.pos = pos
        self.bytes = bytearray(len)
        self.synced = False
        self.changes = 0

    def take(self, event: AreaEvent) -> None:
        if event.data is not None:
            assert len(event.data) == event.len
            begin = event.pos - self.pos
            assert 0 <= begin <= len(self.bytes) - event.len
            self.bytes[begin : begin + event.len] = event.data
        self.changes += event.kind == "change" and not event.more
        self.synced = self.synced or event.kind == "synced"

    def until_equal(self, watch: statehouse.AreaWatch, area: statehouse.Area) -> None:
        while not self.synced or self.bytes != area.read(self.pos, len(self.bytes)):
            (event,) = take(watch, 1)
            self.take(event)


def test_a_snapshot_then_synced_then_changes(area: statehouse.Area) -> None:
    area.write(10, b"hello")
    with area.watch(8, 100) as watch:
        snapshot, synced = take(watch, 2)
        assert (snapshot.kind, snapshot.pos, snapshot.len) == ("snapshot", 8, 100)
        assert snapshot.data == b"\0\0hello" + bytes(93)
        assert (synced.kind, synced.pos, synced.len) == ("synced", 8, 100)
        assert synced.updates == watch.updates == area.updates
        assert watch.incarnation > 0
        area.write(11, b"E")
        (change,) = take(watch, 1)
        assert change == AreaEvent("change", 11, 1, b"E", area.updates)
        area.write(2000, b"neighbour")
        area.write(11, b"E")
        assert watch.next(0.05) is None
    with pytest.raises(errors.ClientClosed):
        watch.next()
    assert list(watch) == []


def test_several_parts_of_one_write_belong_together(area: statehouse.Area) -> None:
    area.write(0, b"." * 300)
    with area.watch() as watch:
        take(watch, 2)
        area.write(0, b"A" + b"." * 250 + b"B" + b"." * 48)
        first, second = take(watch, 2)
        assert (first.pos, first.data, first.more, first.updates) == (0, b"A", True, None)
        assert (second.pos, second.data, second.more, second.updates) == (251, b"B", False, area.updates)


def test_ranges_only_without_a_snapshot_progress_and_a_window(area: statehouse.Area) -> None:
    with (
        area.watch(0, 64, ranges_only=True, progress=0.1) as ranges,
        area.watch(0, 64, snapshot=False, window=0.01) as changes,
    ):
        (synced,) = take(ranges, 1)
        assert synced.kind == "synced"
        assert [e.kind for e in take(changes, 1)] == ["synced"]
        (progress,) = take(ranges, 1)
        assert progress == AreaEvent("progress", updates=synced.updates)
        area.write(3, b"abc")
        event = take(ranges, 1)[0]
        while event.kind == "progress":
            event = take(ranges, 1)[0]
        assert (event.kind, event.pos, event.len, event.data) == ("change", 3, 3, None)
        assert take(changes, 1)[0].data == b"abc"


def test_a_hot_counter_makes_at_most_one_event_in_a_window(area: statehouse.Area) -> None:
    with area.watch(0, 8, window=0.01) as watch:
        take(watch, 2)
        for _ in range(2000):
            area.add_u64(0)
        events = []
        while not events or int.from_bytes(area.read(0, 8), sys.byteorder) != 2000 or watch.updates != area.updates:
            events += take(watch, 1)
        assert len(events) < 2000
        assert area.load_u64(0) == 2000


def test_a_later_watch_goes_on_from_updates(area: statehouse.Area) -> None:
    with area.watch() as watch:
        take(watch, 2)
        place: Any = {"from_updates": watch.updates, "from_incarnation": watch.incarnation}
    with area.watch(**place) as watch:
        assert [e.kind for e in take(watch, 1)] == ["synced"]
    area.write(100, b"x")
    with area.watch(**place) as watch:
        change, synced = take(watch, 2)
        assert (change.kind, change.pos, change.data, synced.kind) == ("change", 100, b"x", "synced")
    resyncs: list[AreaEvent] = []
    place["from_incarnation"] += 1
    with area.watch(**place, on_resync=resyncs.append) as watch:
        assert [e.kind for e in take(watch, 3)] == ["resync", "snapshot", "synced"]
    assert [e.reason for e in resyncs] == ["replaced"]


def test_the_end_of_the_area_is_an_error(client: statehouse.Client, area_name: str) -> None:
    area = client.area(area_name, size=64)
    with area.watch() as watch:
        take(watch, 2)
        client.areas.delete(area_name)
        for _ in range(2):
            with pytest.raises(errors.NotFound):
                watch.next(PATIENCE_S)


@pytest.mark.parametrize(
    ("options", "error", "what"),
    [
        ({"pos": 4096}, errors.OutOfBounds, "pos 4096 .* size of 4096"),
        ({"pos": -1}, errors.OutOfBounds, "pos -1"),
        ({"pos": 1, "len": 4096}, errors.OutOfBounds, "len 4096"),
        ({"len": 0}, errors.InvalidArgument, "empty"),
        ({"len": -1}, errors.OutOfBounds, "len -1"),
        ({"from_updates": -1}, errors.InvalidArgument, "from_updates"),
        ({"from_incarnation": 1 << 64}, errors.InvalidArgument, "from_incarnation"),
        ({"window": 0.0101}, errors.InvalidArgument, "window"),
        ({"window": -0.1}, errors.InvalidArgument, "window"),
        ({"progress": 0.05}, errors.InvalidArgument, "progress"),
        ({"pos": 1.5}, TypeError, "pos must be an int"),
    ],
)
def test_bad_options_are_refused(
    area: statehouse.Area, options: dict[str, Any], error: type[Exception], what: str
) -> None:
    with pytest.raises(error, match=what):
        area.watch(**options)


def test_close_and_a_closed_client_end_readers(service: Service, door: str, area_name: str) -> None:
    client = service.connect(door)
    area = client.area(area_name, size=64)
    watch, other = area.watch(), area.watch()
    take(other, 2)
    seen: list[AreaEvent] = []
    reader = threading.Thread(target=lambda: seen.extend(watch))
    reader.start()
    watch.close()
    reader.join(PATIENCE_S)
    assert not reader.is_alive()
    client.close()
    with pytest.raises(errors.ClientClosed):
        other.next(PATIENCE_S)


WRITER = """
import random, sys
import statehouse
with statehouse.connect(sys.argv[1], token=sys.argv[2], transport="local") as c:
    area = c.area(sys.argv[3])
    while True:
        area.write(random.randrange(20_000), bytes([random.randrange(256)]) * 500)
"""


def test_goes_on_over_killed_daemons_and_killed_writers(service: Service, door: str, area_name: str) -> None:
    """The watchers end with the area while the daemon and writers of both doors are killed, one of them slow."""
    with service.connect(door, timeout=30.0) as client:
        area = client.area(area_name, size=30_000)
        stop = threading.Event()

        def write() -> None:
            with service.connect("network", timeout=30.0) as other:
                remote = other.area(area_name)
                while not stop.wait(0.001):
                    try:
                        remote.write(random.randrange(29_900), os.urandom(100))
                    except (errors.Unavailable, errors.Timeout):
                        pass  # Nobody sends it again.

        writer = threading.Thread(target=write)
        with area.watch() as watch, area.watch(20, 25_000, window=0.005) as slow:
            replays = (Replay(0, 30_000), Replay(20, 25_000))
            writer.start()
            try:
                for _ in range(3):
                    command = [sys.executable, "-c", WRITER, service.url, service.token, area_name]
                    process = subprocess.Popen(command)
                    before = replays[0].changes
                    while replays[0].changes < before + 50:
                        replays[0].take(take(watch, 1)[0])
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    replays[1].take(take(slow, 1)[0])
                    service.kill_daemon()
            finally:
                stop.set()
                writer.join()
            replays[0].until_equal(watch, area)
            replays[1].until_equal(slow, area)


def test_goes_on_in_a_forked_child(area: statehouse.Area) -> None:
    with area.watch(0, 8) as watch:
        take(watch, 2)
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                event = take(watch, 1)[0]
                while event.kind != "change":
                    event = take(watch, 1)[0]
                os.write(write_end, event.data or b"")
                code = 0
            finally:
                os._exit(code)
        os.close(write_end)
        area.write(0, b"x")
        with os.fdopen(read_end, "rb") as told:
            assert told.read() == b"x"
        assert os.waitpid(pid, 0)[1] == 0
        event = take(watch, 1)[0]
        while event.kind != "change":
            event = take(watch, 1)[0]
        assert event.data == b"x"


@pytest.mark.parametrize("door", DOORS_OF_ASYNCIO)
def test_aio(service: Service, door: str, area_name: str) -> None:
    async def run() -> None:
        async with statehouse.aio.connect(service.url, token=service.token, transport=door) as client:
            area = await client.area(area_name, 64)
            await area.write(0, b"a")
            kinds = []
            async with area.watch(0, 4) as watch:
                async for event in watch:
                    kinds.append((event.kind, event.data))
                    if event.kind == "synced":
                        await area.write(1, b"b")
                    if event.kind == "change":
                        break
                assert kinds == [("snapshot", b"a\0\0\0"), ("synced", None), ("change", b"b")]
                # A wait that is given up loses nothing.
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(watch.next(), 0.05)
                await area.write(2, b"c")
                event = await asyncio.wait_for(watch.next(), PATIENCE_S)
                while event.kind == "synced":
                    event = await asyncio.wait_for(watch.next(), PATIENCE_S)
                assert event.data == b"c"
            gone = area.watch()
            await client.areas.delete(area_name)
            with pytest.raises(errors.NotFound):
                async for event in gone:
                    pass

    asyncio.run(run())
