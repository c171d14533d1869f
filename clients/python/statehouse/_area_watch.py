"""Watches of areas: what the bytes of a range are, whenever they changed."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from . import errors
from ._control import Call
from ._watch import RESYNC_REASONS, WINDOW_S_MAX, AsyncWatching, Watching
from ._watch_follow import Open

WATCH_AREA = "/statehouse.v1.Areas/WatchArea"


class AreaEvent(NamedTuple):
    """What a watch of an area tells.

    ``kind``: "snapshot" (``data`` is what the range held at ``pos``), "change" (what it holds there now), "synced" (everything as of
    ``updates`` was told), "resync" (this is another area than before, ``reason`` says why; a snapshot and "synced" follow) or "progress".
    ``pos`` counts from the area's beginning. ``data`` is None with ``ranges_only``. ``more``: the next event belongs to the same moment.
    ``updates``: the range's update counter up to which everything was told; None where more is to come.
    """

    kind: str
    pos: int = 0
    len: int = 0
    data: bytes | None = None
    updates: int | None = None
    more: bool = False
    reason: str = ""


class AreaWatchOptions(NamedTuple):
    pos: int
    len: int
    snapshot: bool
    from_updates: int | None
    from_incarnation: int
    ranges_only: bool
    window: float
    progress: float | None


def check_area_options(
    name: str,
    size: int,
    pos: int,
    len: int | None,
    snapshot: bool,
    from_updates: int | None,
    from_incarnation: int,
    ranges_only: bool,
    window: Any,
    progress: Any,
) -> AreaWatchOptions:
    """Raises OutOfBounds, InvalidArgument or TypeError for what no service would take."""
    for what, number in (("pos", pos), ("len", 0 if len is None else len)):
        if not isinstance(number, int):
            raise TypeError(f"{what} must be an int, not {type(number).__name__}")
    length = size - pos if len is None else len
    if not 0 <= pos < size or length < 0 or length > size - pos:
        raise errors.by_name(
            "OUT_OF_BOUNDS", f'area "{name}": pos {pos} and len {length} reach beyond its size of {size} bytes', name
        )
    if length == 0:
        raise _invalid(name, "an empty range never changes; use a len of 1 or more")
    for what, counter in (("from_updates", from_updates), ("from_incarnation", from_incarnation)):
        if counter is not None and (not isinstance(counter, int) or not 0 <= counter < 1 << 64):
            raise _invalid(name, f"{what} is {counter!r}; use that of an earlier watch")
    seconds = [s.total_seconds() if isinstance(s, datetime.timedelta) else s for s in (window, progress)]
    if not 0 <= seconds[0] <= WINDOW_S_MAX:
        raise _invalid(name, f"window is {seconds[0]} s; use 0 to {WINDOW_S_MAX} seconds")
    if seconds[1] is not None and not 0.1 <= seconds[1] <= 3600:
        raise _invalid(name, f"progress is {seconds[1]} s; use 0.1 to 3600 seconds")
    return AreaWatchOptions(
        pos, length, snapshot, from_updates, from_incarnation, ranges_only, seconds[0], seconds[1]
    )


def _invalid(name: str, why: str) -> errors.Error:
    return errors.by_name("INVALID_ARGUMENT", f'watching area "{name}": {why}', name)


class AreaPoint(NamedTuple):
    updates: int | None
    incarnation: int

    def at(self, revision: int) -> AreaPoint:
        raise NotImplementedError  # No watch of an area is handed over.

    def take(self, message: Any) -> AreaPoint:
        incarnation = message.synced.incarnation or self.incarnation
        if message.HasField("updates"):
            return AreaPoint(message.updates, incarnation)
        return AreaPoint(None, 0) if message.HasField("resync") else self

    def put(self, request: Any) -> None:
        request.ClearField("from_updates")
        if self.updates is not None:
            request.from_updates = self.updates
        request.from_incarnation = self.incarnation


class AreaReader:
    """What a watch of an area knows of its place."""

    read_ahead = 2  # Further messages would only be older than what the service tells instead of them.
    open_follow: Open | None = None

    def __init__(self, name: str, options: AreaWatchOptions) -> None:
        self.name = name
        self._options = options
        self.point = AreaPoint(options.from_updates, options.from_incarnation)

    def call(self) -> Call:
        from .v1 import watch_pb2 as pb

        options = self._options
        request = pb.WatchAreaRequest(
            name=self.name,
            pos=options.pos,
            len=options.len,
            skip_snapshot=not options.snapshot,
            ranges_only=options.ranges_only,
        )
        self.point.put(request)
        if options.window:
            request.window.FromMicroseconds(round(options.window * 1_000_000))
        if options.progress is not None:
            request.progress_interval.FromMilliseconds(round(options.progress * 1000))
        return Call(WATCH_AREA, request, pb.WatchAreaResponse, True, self.name)

    def pass_by(self, revision: int) -> None:
        raise NotImplementedError  # No watch of an area is handed over.

    def events(self, message: Any) -> Iterator[AreaEvent]:
        point = self.point.take(message)
        updates = message.updates if message.HasField("updates") else None
        which = message.WhichOneof("event")
        if which != "changes":
            self.point = point
        if which == "snapshot":
            yield self._of_range("snapshot", message.snapshot.range, updates, message.snapshot.more)
        elif which == "changes":
            ranges = message.changes.ranges
            for i, part in enumerate(ranges, 1):
                is_last = i == len(ranges)
                more = message.changes.more or not is_last
                if is_last:
                    self.point = point  # Not before: one that goes on from here has the others.
                yield self._of_range("change", part, updates if is_last else None, more)
        elif which == "synced":
            yield AreaEvent("synced", message.synced.pos, message.synced.len, updates=updates)
        elif which == "resync":
            yield AreaEvent("resync", reason=RESYNC_REASONS[message.resync.reason])
        elif which == "progress":
            yield AreaEvent("progress", updates=updates)

    def _of_range(self, kind: str, part: Any, updates: int | None, more: bool) -> AreaEvent:
        data = None if self._options.ranges_only else part.data
        return AreaEvent(kind, part.pos, part.len, data, updates, more)

    def after_break(self) -> Iterator[AreaEvent]:
        """Nothing: what is told from then on stands over what was told before."""
        return iter(())


def area_reader(
    area: Any,
    pos: int,
    len: int | None,
    *,
    snapshot: bool = True,
    from_updates: int | None = None,
    from_incarnation: int = 0,
    ranges_only: bool = False,
    window: Any = 0,
    progress: Any = None,
) -> AreaReader:
    """For a watch of ``area``, which may be any kind of area. Errors: as check_area_options."""
    options = check_area_options(
        area.name, area.size, pos, len, snapshot, from_updates, from_incarnation, ranges_only, window, progress
    )
    return AreaReader(area.name, options)


class AreaWatch(Watching[AreaEvent]):
    """What a range of an area is, whenever it changed: ``for event in area.watch(0, 64)``. Also a context manager, which closes it.

    It tells state, not steps: a program that reads slowly gets the newest bytes, once. The last state of a range that rests is always
    told. It goes on by itself over a restart of the service and a broken connection; then more may be told than what changed, and a
    snapshot that was broken off begins anew. Who owns it: whoever began it; close() or the end of ``with`` ends it. Threads: one at a time
    reads it; close() from any. In a forked child it goes on, on a connection of its own.

    Errors, raised where the next event would be: NotFound (the area was deleted), OutOfBounds, PermissionDenied, Unauthenticated,
    LimitExceeded (too many watches), DataLoss, ClientClosed.
    """

    _reader: AreaReader

    @property
    def updates(self) -> int | None:
        """Where a later watch of the range goes on (``from_updates``); None before the first event that has it."""
        return self._reader.point.updates

    @property
    def incarnation(self) -> int:
        """Which area it is (``from_incarnation``): another one when it was made anew under its name. 0 before "synced"."""
        return self._reader.point.incarnation


class AsyncAreaWatch(AsyncWatching[AreaEvent]):
    """AreaWatch for asyncio: ``async for event in area.watch(0, 64)``, ``async with``.

    Cancelling a task that waits for the next event loses none.
    """

    _reader: AreaReader

    @property
    def updates(self) -> int | None:
        """Where a later watch of the range goes on (``from_updates``); None before the first event that has it."""
        return self._reader.point.updates

    @property
    def incarnation(self) -> int:
        """Which area it is (``from_incarnation``): another one when it was made anew under its name. 0 before "synced"."""
        return self._reader.point.incarnation


class AsyncWatched:
    """What every kind of asyncio area has: watches."""

    name: str
    size: int
    _streams: Any  # Of the client that opened it.

    def watch(
        self,
        pos: int = 0,
        len: int | None = None,
        *,
        on_resync: Callable[[AreaEvent], None] | None = None,
        **options: Any,
    ) -> AsyncAreaWatch:
        """As statehouse.types.Area.watch."""
        return AsyncAreaWatch(self._streams, area_reader(self, pos, len, **options), on_resync)
