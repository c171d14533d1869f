"""Watches: what a watch of anything does. _dict_watch.py and _area_watch.py say what is watched."""

from __future__ import annotations

import asyncio
import functools
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from . import _local, errors
from ._control import Call
from ._network_session import RetryDelays, closed_error, error_of
from ._watch_follow import AsyncFollow, Offers, Open

RESYNC_REASONS = (
    "unspecified",
    "history gone",
    "revision unknown",
    "slow watcher",
    "overrun",
    "replaced",
    "damaged",
)
WINDOW_S_MAX = 0.01

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

    def at(self, revision: int) -> Point:
        """The place after a revision. Only where the service may hand over."""
        ...


class Places(Protocol[EventType]):
    """What a watch knows of its place: makes requests, takes messages apart, and decides what a broken stream means."""

    name: str
    read_ahead: int  # Messages; beyond them the service keeps the changes.
    open_follow: Open | None  # Where the service may hand over.

    def call(self) -> Call: ...
    @property
    def point(self) -> Point: ...
    def events(self, message: Any) -> Iterator[EventType]:
        """What a message tells, or a portion of what was followed."""
        ...

    def pass_by(self, revision: int) -> None:
        """Everything up to it was told. Only where the service may hand over."""
        ...

    def after_break(self) -> Iterator[EventType]:
        """What is to be told when the stream broke and another one begins."""
        ...


def goes_on(error: errors.Error) -> bool:
    """Whether a stream that ended so is followed by another one."""
    return isinstance(error, (errors.Unavailable, errors.Draining)) and error.reason != "STALLED"


class _Messages(queue.Queue[Any]):
    """Messages; what is followed from there on; None where a stream broke and another one begins; at the end why it ended."""

    def put_now(self, message: Any) -> None:
        """Also beyond the bound."""
        with self.mutex:
            self._put(message)
            self.not_empty.notify()


class _Pump:
    """A thread that reads one stream after another into a queue. It holds nothing of the Watch, which may be forgotten.

    Where the service hands over, the queue is given what to follow: whoever reads the watch reads that in his own thread, while this one
    waits for the end of the stream.
    """

    def __init__(self, session: Any, reader: Places[Any]) -> None:
        self._session = session
        self._call = reader.call()
        self._open_follow = reader.open_follow
        self._offers = Offers(self._open_follow is not None)
        self._closed = threading.Event()
        self._lock = threading.Lock()  # Guards what follows.
        self._point = reader.point
        self._stream: Any = None
        self._follow: _local.DictFollow | None = None  # What the stream handed over to.
        self._last_follow: _local.DictFollow | None = None  # The same, also when that stream is over.
        self._falls_back = False  # The stream was cancelled to go on with another one.
        self.messages = _Messages(reader.read_ahead)
        threading.Thread(target=self._run, name="statehouse-watch", daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            if self._stream is not None:
                self._stream.cancel()
            if self._last_follow is not None:
                self._last_follow.stop()
        self._put(closed_error(self._call.name))

    def fall_back(self, follow: _local.DictFollow, is_broken: bool) -> None:
        """Another stream goes on from where ``follow`` cannot."""
        with self._lock:
            if self._follow is not follow:
                return  # Its stream ended meanwhile.
            self._follow = None
            self._point = self._point.at(follow.stop())
            self._offers.fall_back(is_broken)
            self._falls_back = True
            if self._stream is not None:
                self._stream.cancel()

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
            self._offers.put(self._call.request)
            error = self._read()
            with self._lock:
                follow, self._follow = self._follow, None
                falls_back, self._falls_back = self._falls_back, False
            is_closed = self._closed.is_set() or self._session.closed
            # CANCELLED comes from a fork of this process, which lets the connection go.
            is_end = error is not None and not isinstance(error, errors.Cancelled) and not goes_on(error)
            if follow is not None and not is_closed and is_end:
                # What was committed by now is told before it, and nothing that comes later: a token may have been revoked.
                follow.end_here()
            elif follow is not None:
                self._point = self._point.at(follow.stop())
            if self._closed.is_set():
                return
            if self._session.closed:
                return self._put(closed_error(self._call.name))
            if self._offers.is_refused_return(error):
                self._closed.wait(delays.next())
                continue
            if is_end:
                return self._put(error)
            if falls_back:
                delays = RetryDelays()
                continue
            self._offers.after_break()
            self._put(None)
            if self._point != began:
                delays = RetryDelays()
            self._closed.wait(delays.next())

    def _read(self) -> errors.Error | None:
        """One stream to its end: why it ended."""
        import grpc

        stream: Any = None
        is_handed_over = False  # From then on it says nothing but its end.
        try:
            stream = self._session.stream(self._call)
            with self._lock:
                self._stream = stream
            if self._closed.is_set():
                stream.cancel()
            for message in stream:
                if self._closed.is_set():
                    break
                if is_handed_over:
                    continue
                self._point = self._point.take(message)
                is_handed_over = self._offers.hands_over(message)
                if is_handed_over:
                    self._begin_follow(message, stream)
                elif self._offers.is_told(message):
                    self._put(message)
        except errors.Error as error:
            return error
        except grpc.RpcError as failed:
            return error_of(failed, self._call, self._session.target)
        except ValueError as closed:  # grpcio's way to say that another thread closed the channel.
            return errors.by_name("CANCELLED", str(closed), self._call.name)
        finally:
            # Held on to, it would keep grpcio from ending before a fork. It is what was raised, too, and then knows this frame.
            with self._lock:
                self._stream = stream = None
        return None

    def _begin_follow(self, handed_over: Any, stream: Any) -> None:
        assert self._open_follow is not None
        try:
            follow = self._open_follow(handed_over)
        except errors.Error as error:
            self._offers.was_opened(error)
            self._falls_back = True
            stream.cancel()
            return
        self._offers.was_opened(None)
        with self._lock:
            self._follow = self._last_follow = follow
            if self._closed.is_set():
                follow.stop()
        self.messages.put_now(follow)


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

    def __repr__(self) -> str:
        return f"<statehouse watch of {self._reader.name}{', closed' if self._is_closed else ''}>"

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._pump = _Pump(self._session, self._reader)
        self._follow: _local.DictFollow | None = None  # Read instead of the queue.

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
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if self._follow is not None:
                if self._read_followed(self._follow, left):
                    continue
                return None
            try:
                message = self._pump.messages.get(timeout=left)
            except queue.Empty:
                return None
            if isinstance(message, errors.Error):
                self._failure = message
            elif isinstance(message, _local.DictFollow):
                self._follow = message
            elif message is None:
                self._pending = self._reader.after_break()
            else:
                self._pending = self._reader.events(message)

    def _read_followed(self, follow: _local.DictFollow, timeout: float | None) -> bool:
        """False: nothing came in time."""
        found = follow.read(timeout)
        if isinstance(found, tuple):
            self._pending = self._reader.events(found)
        elif found is not None:
            self._follow = None
            if found != "over":  # Else the queue tells why.
                self._pump.fall_back(follow, found == "broken")
        return found is not None

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


def _end_of(session: Any, call: Call, reading: asyncio.Future[Any]) -> errors.Error | None:
    """Why a stream that handed over ended; None where another one follows."""
    import grpc

    failed = None if reading.cancelled() else reading.exception()
    if isinstance(failed, grpc.RpcError):
        error = error_of(failed, call, session.target)
        return None if goes_on(error) else error
    if session.closed or reading.cancelled() or failed is not None:  # The channel was closed.
        return closed_error(call.name)
    return None


class AsyncWatching(Generic[EventType]):
    """Watching for asyncio. Cancelling a task that waits for the next event loses none."""

    _follow: AsyncFollow | None = None  # Read instead of the stream.

    def __init__(
        self, session: Any, reader: Places[EventType], on_resync: Callable[[EventType], None] | None
    ) -> None:
        """Not for users."""
        self._session = session
        self._reader = reader
        self._on_resync = on_resync
        self._pending: Iterator[EventType] = iter(())
        self._offers = Offers(reader.open_follow is not None)
        self._call: Any = None  # Of the stream.
        self._stream: Any = None
        self._delays = RetryDelays()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<statehouse watch of {self._reader.name}{', closed' if self._is_closed else ''}, asynchronous>"

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
            if self._follow is not None:
                self._pending = await self._read_followed(self._follow)
            else:
                self._pending = await self._read()

    async def _read(self) -> Iterator[EventType]:
        """What the next message tells. Nothing where it hands over, or the stream broke and another one is to begin."""
        import grpc

        error: errors.Error | None = None
        try:
            if self._stream is None:
                self._call = self._reader.call()
                self._offers.put(self._call.request)
                self._stream = self._session.stream(self._call)
            message = await self._stream.read()
            if message is not grpc.aio.EOF:
                self._delays = RetryDelays()
                if self._offers.hands_over(message):
                    await self._begin_follow(message)
                    return iter(())
                return self._reader.events(message) if self._offers.is_told(message) else iter(())
        except asyncio.CancelledError:
            self._break_off()
            if self._is_closed or self._session.closed:
                raise closed_error(self._reader.name) from None
            raise
        except grpc.aio.UsageError:  # The channel was closed.
            raise closed_error(self._reader.name) from None
        except grpc.RpcError as failed:
            error = error_of(failed, self._call, self._session.target)
        self._stream = None
        if self._offers.is_refused_return(error):
            await asyncio.sleep(self._delays.next())
            return iter(())
        if error is not None and not goes_on(error):
            raise error
        return await self._after_break()

    async def _after_break(self) -> Iterator[EventType]:
        self._offers.after_break()
        await asyncio.sleep(self._delays.next())
        return self._reader.after_break()

    async def _begin_follow(self, handed_over: Any) -> None:
        assert self._reader.open_follow is not None
        stream = self._stream
        follow: AsyncFollow | None = None
        try:
            opened = await asyncio.to_thread(self._reader.open_follow, handed_over)
            if self._stream is stream:  # Else it was closed meanwhile.
                follow = AsyncFollow(opened, stream, functools.partial(_end_of, self._session, self._call))
            self._offers.was_opened(None)
        except errors.Error as error:
            self._offers.was_opened(error)
            stream.cancel()
            self._stream = None
        self._follow = follow

    async def _read_followed(self, follow: AsyncFollow) -> Iterator[EventType]:
        """As _read, of what is followed."""
        found = await follow.read()
        if isinstance(found, tuple):
            return self._reader.events(found)
        if self._is_closed or self._session.closed:
            self._break_off()
            raise closed_error(self._reader.name)
        self._reader.pass_by(follow.close())
        self._follow = self._stream = None
        if follow.end is not None:
            raise follow.end
        self._delays = RetryDelays()
        if found == "over":
            return await self._after_break()
        self._offers.fall_back(found == "broken")
        return iter(())

    def _break_off(self) -> None:
        if self._follow is not None:
            self._reader.pass_by(self._follow.close())
            self._follow = None
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None
            self._pending = self._reader.after_break()

    async def close(self) -> None:
        """Ends it. Idempotent."""
        self._is_closed = True
        self._break_off()

    def __del__(self) -> None:
        if self._follow is not None:
            self._follow.forget()

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
