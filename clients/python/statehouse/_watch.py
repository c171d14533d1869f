"""Watches: what changes in a dict, in order, from where one left off; and what a watch of anything does."""

from __future__ import annotations

import asyncio
import datetime
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from . import _local, errors
from ._control import Call
from ._network_session import RetryDelays, closed_error, error_of

WATCH_DICT = "/statehouse.v1.Dicts/WatchDict"
KINDS = ("put", "delete", "expire", "evict")
SLOW_POLICIES = ("resync", "latest", "cancel")
RESYNC_REASONS = (
    "unspecified",
    "history gone",
    "revision unknown",
    "slow watcher",
    "overrun",
    "replaced",
    "damaged",
)
CONNECTION_LOST = "connection lost"
WINDOW_S_MAX = 0.01
_READ_AHEAD = 16  # Messages; beyond them the service keeps the changes.


EventType = TypeVar("EventType")
WatchingType = TypeVar("WatchingType", bound="Watching[Any]")
AsyncWatchingType = TypeVar("AsyncWatchingType", bound="AsyncWatching[Any]")


class Point(Protocol):
    """Where a stream goes on. Equal ones are the same place."""

    def take(self, message: Any) -> Point:
        """The place after a message."""
        ...

    def put(self, request: Any) -> None:
        """Makes a request go on from here."""
        ...


class Places(Protocol[EventType]):
    """What a watch knows of its place: makes requests, takes messages apart, and decides what a broken stream means."""

    name: str
    read_ahead: int  # Messages; beyond them the service keeps the changes.

    def call(self) -> Call: ...
    @property
    def point(self) -> Point: ...
    def events(self, message: Any) -> Iterator[EventType]:
        """What a message tells."""
        ...

    def after_break(self) -> Iterator[EventType]:
        """What is to be told when the stream broke and another one begins."""
        ...


class WatchEvent(NamedTuple):
    """What a watch tells.

    ``kind``: "entry" (of the snapshot), "put", "delete", "expire", "evict", "synced" (everything as of ``revision`` was told), "resync"
    (changes are missing, ``reason`` says why: forget what was told; a snapshot and "synced" follow) or "progress".
    ``revision``: the change's place in the order of all changes of the dict; 0 for "entry" and "resync". ``value`` is None where there is
    none: ``value_gone`` says that it was not known any more. ``coalesced``: older changes of the key were left out. ``previous``, where it
    was asked for: the value that the key had before this change and those that were left out for it, None where it was absent;
    ``previous_gone`` says that it is not known.
    """

    kind: str
    key: Any = None
    value: Any = None
    version: int = 0
    revision: int = 0
    value_gone: bool = False
    coalesced: bool = False
    reason: str = ""
    time: datetime.datetime | None = None
    previous: Any = None
    previous_gone: bool = False


class WatchOptions(NamedTuple):
    prefix: str
    key: str | None
    snapshot: bool
    from_revision: int | None
    keys_only: bool
    kinds: tuple[str, ...]
    slow: str
    progress: float | None
    window: float
    previous: bool


def check_options(
    prefix: str,
    key: str | None,
    snapshot: bool,
    from_revision: int | None,
    keys_only: bool,
    kinds: Iterable[str] | None,
    slow: str,
    progress: Any,
    window: Any,
    previous: bool,
) -> WatchOptions:
    """Raises InvalidArgument or TypeError for what no service would take."""
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a str, not {type(prefix).__name__}")
    if prefix and key is not None:
        raise _invalid("give a key or a prefix, not both")
    if from_revision is not None and (not isinstance(from_revision, int) or not 0 < from_revision < 1 << 64):
        raise _invalid(f"from_revision is {from_revision!r}; use the revision of an earlier event")
    chosen = tuple(() if kinds is None else (kinds,) if isinstance(kinds, str) else kinds)
    for kind in chosen:
        if kind not in KINDS:
            raise _invalid(f"{kind!r} is no kind of change; use {', '.join(KINDS)}")
    if slow not in SLOW_POLICIES:
        raise _invalid(f"slow is {slow!r}; use {', '.join(SLOW_POLICIES)}")
    if isinstance(progress, datetime.timedelta):
        progress = progress.total_seconds()
    if progress is not None and not 0.1 <= progress <= 3600:
        raise _invalid(f"progress is {progress} s; use 0.1 to 3600 seconds")
    if isinstance(window, datetime.timedelta):
        window = window.total_seconds()
    if not 0 <= window <= WINDOW_S_MAX:
        raise _invalid(f"window is {window} s; use 0 to {WINDOW_S_MAX} seconds")
    if previous and keys_only:
        raise _invalid("previous values are none with keys_only; leave one of the two out")
    return WatchOptions(
        prefix, key, snapshot, from_revision, keys_only, chosen, slow, progress, window, previous
    )


def _invalid(why: str) -> errors.Error:
    return errors.by_name("INVALID_ARGUMENT", f"watching a dict: {why}", "")


def _watch_pb2() -> Any:
    from .v1 import watch_pb2 as module

    return module


class DictPoint(NamedTuple):
    revision: int  # 0: at the beginning.

    def take(self, message: Any) -> DictPoint:
        return DictPoint(message.revision) if message.revision or message.HasField("resync") else self

    def put(self, request: Any) -> None:
        if self.revision:
            request.from_revision = self.revision
        else:
            request.ClearField("from_revision")


def goes_on(error: errors.Error) -> bool:
    """Whether a stream that ended so is followed by another one."""
    return isinstance(error, (errors.Unavailable, errors.Draining)) and error.reason != "STALLED"


class Reader:
    """What a watch of a dict knows of its place."""

    read_ahead = _READ_AHEAD

    def __init__(self, name: str, options: WatchOptions, from_key: Callable[[str], Any]) -> None:
        self.name = name
        self._options = options
        self._from_key = from_key
        self.revision = options.from_revision or 0
        self._told_entries = False  # Since the snapshot began, and "synced" did not come yet.

    def call(self) -> Call:
        pb = _watch_pb2()
        options = self._options
        request = pb.WatchDictRequest(
            name=self.name,
            skip_snapshot=not options.snapshot,
            keys_only=options.keys_only,
            kinds=[KINDS.index(kind) + 1 for kind in options.kinds],
            slow_policy=SLOW_POLICIES.index(options.slow) + 1,
            previous=options.previous,
        )
        if options.key is not None:
            request.key = options.key
        elif options.prefix:
            request.prefix = options.prefix
        self.point.put(request)
        if options.progress is not None:
            request.progress_interval.FromMilliseconds(round(options.progress * 1000))
        if options.window:
            request.window.FromMicroseconds(round(options.window * 1_000_000))
        return Call(WATCH_DICT, request, pb.WatchDictResponse, True, self.name)

    @property
    def point(self) -> DictPoint:
        return DictPoint(self.revision)

    def events(self, message: Any) -> Iterator[WatchEvent]:
        which = message.WhichOneof("event")
        if which == "snapshot":
            self._told_entries = True
            for entry in message.snapshot.entries:
                yield WatchEvent(
                    "entry", self._from_key(entry.key), self._value(entry, "value"), version=entry.version
                )
        elif which == "changes":
            self._told_entries = self._told_entries or not self.revision
            for change in message.changes.changes:
                if message.revision:
                    self.revision = change.revision
                yield WatchEvent(
                    KINDS[change.kind - 1],
                    self._from_key(change.key),
                    self._value(change, "value"),
                    version=change.version,
                    revision=change.revision,
                    value_gone=change.value_gone,
                    coalesced=change.coalesced,
                    time=change.time.ToDatetime(datetime.timezone.utc),
                    previous=self._value(change, "previous"),
                    previous_gone=change.previous_gone,
                )
        elif which == "synced":
            self._told_entries = False
            self.revision = message.revision
            yield WatchEvent("synced", revision=message.revision)
        elif which == "resync":
            self._told_entries = False
            self.revision = 0
            yield WatchEvent("resync", reason=RESYNC_REASONS[message.resync.reason])
        elif which == "progress" and self._options.progress is not None:
            self.revision = message.revision
            yield WatchEvent("progress", revision=message.revision)
        if message.revision:
            self.revision = message.revision

    def _value(self, holder: Any, field: str) -> Any:
        if not holder.HasField(field):
            return None
        return _local.decode_value(getattr(holder, field).SerializeToString())

    def after_break(self) -> Iterator[WatchEvent]:
        if self._told_entries and not self.revision:
            self._told_entries = False
            yield WatchEvent("resync", reason=CONNECTION_LOST)


class _Pump:
    """A thread that reads one stream after another into a queue. It holds nothing of the Watch, which may be forgotten."""

    def __init__(self, session: Any, call: Call, point: Point, read_ahead: int) -> None:
        self._session = session
        self._call = call
        self._point = point
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._stream: Any = None
        # Messages; None where a stream broke and another one begins; at the end why it ended.
        self.messages: queue.Queue[Any] = queue.Queue(read_ahead)
        threading.Thread(target=self._run, name="statehouse-watch", daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            if self._stream is not None:
                self._stream.cancel()
        self._put(closed_error(self._call.name))

    def _put(self, message: Any) -> None:
        """Gives up when nobody reads any more."""
        while True:
            try:
                return self.messages.put(message, timeout=0.1)
            except queue.Full:
                if self._closed.is_set():
                    return

    def _run(self) -> None:
        delays = RetryDelays()
        while not self._closed.is_set():
            began = self._point
            began.put(self._call.request)
            error = self._read()
            if self._closed.is_set():
                return
            if self._session.closed:
                return self._put(closed_error(self._call.name))
            # CANCELLED comes from a fork of this process, which lets the connection go.
            if error is not None and not isinstance(error, errors.Cancelled) and not goes_on(error):
                return self._put(error)
            self._put(None)
            if self._point != began:
                delays = RetryDelays()
            self._closed.wait(delays.next())

    def _read(self) -> errors.Error | None:
        """One stream to its end: why it ended."""
        import grpc

        stream: Any = None
        try:
            stream = self._session.stream(self._call)
            with self._lock:
                self._stream = stream
            if self._closed.is_set():
                stream.cancel()
            for message in stream:
                self._point = self._point.take(message)
                self._put(message)
                if self._closed.is_set():
                    break
        except errors.Error as error:
            return error
        except grpc.RpcError as failed:
            return error_of(failed, self._call, self._session.target)
        except ValueError as closed:  # grpcio's way to say that another thread closed the channel.
            return errors.by_name("CANCELLED", str(closed), self._call.name)
        finally:
            # Held on to, it would keep grpcio from ending before a fork.
            with self._lock:
                self._stream = None
        return None


class Watching(Generic[EventType]):
    """A stream of events that goes on by itself. Threads: one at a time reads it; close() from any."""

    def __init__(
        self, session: Any, reader: Places[EventType], on_resync: Callable[[EventType], None] | None
    ) -> None:
        """Not for users."""
        self._session = session
        self._reader = reader
        self._on_resync = on_resync
        self._is_closed = False
        self._pending: Iterator[EventType] = iter(())
        self._failure: errors.Error | None = None
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        reader = self._reader
        self._pump = _Pump(self._session, reader.call(), reader.point, reader.read_ahead)

    def next(self, timeout: float | None = None) -> EventType | None:
        """The next event, or None when ``timeout`` (seconds; None: for ever) passes first."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            event = next(self._pending, None)
            if event is not None:
                if self._on_resync is not None and getattr(event, "kind", None) == "resync":
                    self._on_resync(event)
                return event
            if self._is_closed:
                raise closed_error(self._reader.name)
            if self._failure is not None:
                raise self._failure
            if self._pid != os.getpid():
                self._pending = self._reader.after_break()
                self._begin()
                continue
            try:
                message = self._pump.messages.get(
                    timeout=None if deadline is None else max(deadline - time.monotonic(), 0.0)
                )
            except queue.Empty:
                return None
            if isinstance(message, errors.Error):
                self._failure = message
            elif message is None:
                self._pending = self._reader.after_break()
            else:
                self._pending = self._reader.events(message)

    def close(self) -> None:
        """Ends it. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._pid == os.getpid():
            self._pump.close()

    def __iter__(self) -> Iterator[EventType]:
        return self

    def __next__(self) -> EventType:
        try:
            event = self.next()
        except errors.ClientClosed:
            if self._is_closed:
                raise StopIteration from None
            raise
        assert event is not None
        return event

    def __enter__(self: WatchingType) -> WatchingType:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class AsyncWatching(Generic[EventType]):
    """Watching for asyncio. Cancelling a task that waits for the next event loses none."""

    def __init__(
        self, session: Any, reader: Places[EventType], on_resync: Callable[[EventType], None] | None
    ) -> None:
        """Not for users."""
        self._session = session
        self._reader = reader
        self._on_resync = on_resync
        self._pending: Iterator[EventType] = iter(())
        self._stream: Any = None
        self._delays = RetryDelays()
        self._is_closed = False

    async def next(self) -> EventType:
        """The next event."""
        while True:
            event = next(self._pending, None)
            if event is not None:
                if self._on_resync is not None and getattr(event, "kind", None) == "resync":
                    self._on_resync(event)
                return event
            if self._is_closed or self._session.closed:
                raise closed_error(self._reader.name)
            message = await self._read()
            self._pending = self._reader.after_break() if message is None else self._reader.events(message)

    async def _read(self) -> Any:
        """The next message, or None when the stream broke and another one is to begin."""
        import grpc

        call = self._reader.call()
        error: errors.Error | None = None
        try:
            if self._stream is None:
                self._stream = self._session.stream(call)
            message = await self._stream.read()
            if message is not grpc.aio.EOF:
                self._delays = RetryDelays()
                return message
        except asyncio.CancelledError:
            self._break_off()
            if self._is_closed or self._session.closed:
                raise closed_error(call.name) from None
            raise
        except grpc.aio.UsageError:  # The channel was closed.
            raise closed_error(call.name) from None
        except grpc.RpcError as failed:
            error = error_of(failed, call, self._session.target)
        self._stream = None
        if error is not None and not goes_on(error):
            raise error
        await asyncio.sleep(self._delays.next())
        return None

    def _break_off(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None
            self._pending = self._reader.after_break()

    async def close(self) -> None:
        """Ends it. Idempotent."""
        self._is_closed = True
        self._break_off()

    def __aiter__(self: AsyncWatchingType) -> AsyncWatchingType:
        return self

    async def __anext__(self) -> EventType:
        try:
            return await self.next()
        except errors.ClientClosed:
            if self._is_closed:
                raise StopAsyncIteration from None
            raise

    async def __aenter__(self: AsyncWatchingType) -> AsyncWatchingType:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class Watch(Watching[WatchEvent]):
    """The changes of a dict, as they are made: ``for event in d.watch("web/")``. Also a context manager, which closes it.

    It goes on by itself over a restart of the service and a broken connection, from its last ``revision``, without a gap or a repeat; where
    that cannot be it says "resync". Who owns it: whoever began it; close() or the end of ``with`` ends it. Threads: one at a time reads it;
    close() from any. In a forked child it goes on from the revision that it had, on a connection of its own.

    Errors, raised where the next event would be: NotFound (the dict was deleted), PermissionDenied, Unauthenticated, LimitExceeded (too
    many watches; or with ``slow="cancel"`` it fell behind), ClientClosed.
    """

    _reader: Reader

    @property
    def revision(self) -> int:
        """Where a later watch goes on (``from_revision``); 0 before "synced" and after "resync"."""
        return self._reader.revision


class AsyncWatch(AsyncWatching[WatchEvent]):
    """Watch for asyncio: ``async for event in d.watch("web/")``, ``async with``.

    Cancelling a task that waits for the next event loses none.
    """

    _reader: Reader

    @property
    def revision(self) -> int:
        """Where a later watch goes on (``from_revision``); 0 before "synced" and after "resync"."""
        return self._reader.revision
