"""One stream of batches (_batch_stream.py) over an asyncio transport: the tasks of an event loop share it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from . import _batch_stream, _short_calls
from ._batch_stream import BEGIN_S, CHUNK_BYTES, MESSAGE_BYTES_MAX, BatchStream, Lost, is_failure
from ._control import Call

if TYPE_CHECKING:
    from .aio import _AsyncNetworkSession

# Batches of a stream that were sent and are not answered. All their answers fit into what the stream may still receive when it is used up.
IN_FLIGHT_MAX = 32
_MESSAGE_HEAD_BYTES_MAX = 8  # What is around the operations of a message.
WAITING_MAX = 4096  # Batches that wait for that; further ones go by calls.


_Outcome = bytes | Lost | TimeoutError | None
_LATE = TimeoutError()


class _Exchange:
    """A batch on its way. Its outcome is the answer; Lost; TimeoutError; or None where it was not sent. Never an exception of the future,
    which nobody would look at where a task was cancelled."""

    __slots__ = ("message", "was_sent", "outcome")

    def __init__(self, message: bytes, outcome: asyncio.Future[_Outcome]) -> None:
        self.message = message
        self.was_sent = False
        self.outcome = outcome

    def end(self, outcome: _Outcome) -> None:
        if not self.outcome.done():  # Its task was cancelled, or gave up.
            self.outcome.set_result(outcome)


class _Gathered:
    """Short calls of one turn of the event loop, which go out together when it ends. Each is waited for by its future, whose outcome is
    kind and message of its result, or that of the exchange."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._calls: list[tuple[bytes, asyncio.Future[Any]]] = []
        self._size = 0
        self._values = 0  # That their answers may hold.
        self._changes_value = False
        self._waited_for = 0
        self._exchange: _Exchange | None = None
        self._is_sent = False

    @property
    def was_sent(self) -> bool:
        return self._exchange is not None and self._exchange.was_sent

    def takes(self, operation: bytes, answer: _short_calls.Answer) -> bool:
        """Whether it can go out with those that are there: what changes something must have room for its answer, which is told once."""
        is_roomy = self._values + answer.values <= _short_calls.VALUES_MAX
        is_told = is_roomy or not (self._changes_value or answer.changes_value)
        return not self._is_sent and is_told and self._size + len(operation) <= MESSAGE_BYTES_MAX - _MESSAGE_HEAD_BYTES_MAX

    def add(self, operation: bytes, answer: _short_calls.Answer) -> asyncio.Future[Any]:
        outcome: asyncio.Future[Any] = self.connection.loop.create_future()
        self._calls.append((operation, outcome))
        self._size += len(operation)
        self._values += answer.values
        self._changes_value = self._changes_value or answer.changes_value
        self._waited_for += 1
        return outcome

    def leave(self) -> None:
        """One of them is not waited for any more."""
        self._waited_for -= 1
        if self._waited_for == 0 and self._exchange is not None:
            self._exchange.end(None)

    def send(self) -> None:
        if self._is_sent:
            return
        self._is_sent = True
        self._calls = [call for call in self._calls if not call[1].done()]  # Else its task was cancelled.
        exchange = None
        if self._calls:
            exchange = self.connection.start(_short_calls.message_of(b"".join([operation for operation, _ in self._calls])))
        if exchange is None:
            return self._end_all(None)
        self._exchange = exchange
        exchange.outcome.add_done_callback(lambda future: self._take(future.result()))

    def _take(self, outcome: _Outcome) -> None:
        if not isinstance(outcome, bytes):
            return self._end_all(outcome)
        if is_failure(outcome):
            return self._end_all(None)  # Refused as a whole: each call says it better.
        try:
            results = _short_calls.results_of(outcome, len(self._calls))
        except ValueError as damage:
            return self._end_all(damage)
        for (_, future), result in zip(self._calls, results, strict=True):
            if not future.done():
                future.set_result(result)

    def _end_all(self, outcome: Any) -> None:
        for _, future in self._calls:
            if not future.done():
                future.set_result(outcome)


class Connection(asyncio.BufferedProtocol):
    """A connection, and the batches on their way over it: answers come in their order, and those that nobody waits for any more are
    dropped. It belongs to the event loop that made it, and is its protocol for the socket. ``retired``: it takes no further batches, and
    ends with the last that is waited for."""

    def __init__(self, found: socket.socket, stream: BatchStream) -> None:
        self.loop = asyncio.get_running_loop()
        self.retired = False
        self._socket = found
        self._poll = select.poll()
        self._poll.register(found, select.POLLIN)
        self._buffer = memoryview(bytearray(CHUNK_BYTES))
        self._stream = stream
        self._transport: asyncio.Transport | None = None
        self._sent: deque[_Exchange] = deque()
        self._waiting: deque[_Exchange] = deque()

    def start(self, message: bytes) -> _Exchange | None:
        """Sends a batch, now or when there is room; None where there will be none."""
        if not self._sent:
            self._catch_up()
        if self.retired or len(self._waiting) >= WAITING_MAX:
            return None
        exchange = _Exchange(message, self.loop.create_future())
        self._waiting.append(exchange)
        self._pump()
        return exchange

    def retire(self) -> None:
        self.retired = True
        while self._waiting:
            self._waiting.popleft().end(None)
        self.end_if_unused()

    def end_if_unused(self) -> None:
        """To be asked again whenever nobody waits for one of its batches any more."""
        if self.retired and all(exchange.outcome.done() for exchange in self._sent):
            self.end(Lost("it was closed"))

    def end(self, why: Lost) -> None:
        """Lets the connection go. What was sent is lost, what was not was not carried out."""
        self.retired = True
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        while self._sent:
            self._sent.popleft().end(why)
        while self._waiting:
            self._waiting.popleft().end(None)

    def let_go(self) -> None:
        """Closes the socket without its event loop, which is closed, or was left behind by a fork."""
        self.retired = True
        self._transport = None
        self._socket.close()

    def _catch_up(self) -> None:
        """Takes what came while the loop was busy: nothing is sent to a service that has left."""
        while self._transport is not None and self._poll.poll(0):  # The end may stand behind a ping.
            try:
                size = self._socket.recv_into(self._buffer)
            except OSError as error:
                return self.end(Lost(str(error)))
            if size:
                self.buffer_updated(size)
            else:
                self.eof_received()

    def _pump(self) -> None:
        """Sends what there is room for."""
        waiting = self._waiting
        while waiting and len(self._sent) < IN_FLIGHT_MAX:
            exchange = waiting[0]
            if not exchange.outcome.done():
                if not self._stream.takes(exchange.message):
                    break
                self._stream.send(exchange.message)
                exchange.was_sent, exchange.message = True, b""
                self._sent.append(exchange)
            waiting.popleft()
        outgoing = self._stream.outgoing()
        if outgoing and self._transport is not None:
            self._transport.write(outgoing)
        if not self._sent:  # No answer will make room.
            while waiting:
                waiting.popleft().end(None)

    # asyncio.BufferedProtocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._transport is None:
            return  # It was ended.
        try:
            answer = self._stream.receive(self._buffer[:nbytes])
            while answer is not None:
                if not self._sent:
                    raise Lost("it sent an answer that nobody asked for")
                self._sent.popleft().end(answer)
                answer = self._stream.receive(b"")
        except Lost as lost:
            return self.end(lost)
        self._pump()
        if self._stream.is_used_up:
            self.retire()
        else:
            self.end_if_unused()

    def eof_received(self) -> None:
        self.end(Lost("the connection was closed"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(Lost("the connection was closed" if exc is None else str(exc)))


class AsyncBatchLink:
    """The stream of one asynchronous session. It belongs to the event loop that made it; batches of other loops, and those before it is
    there, go by calls. fork(): a child whose parent had used it goes by calls, which tell it to connect again."""

    def __init__(self, session: _AsyncNetworkSession) -> None:
        self._session = session
        # Plain sockets only: a token must not go where TLS is asked for.
        self._address = _batch_stream.address_of(session.target) if session.tls is None else None
        self._batches = 0
        self._short_calls = 0
        self._gathered: _Gathered | None = None
        self._not_before = 0.0
        self._pid = 0  # Of the process that used it first.
        self._connection: Connection | None = None
        self._beginning: asyncio.Task[None] | None = None
        # All that there are: of retired ones batches may still be waited for. Event loops hold them while they live.
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        _links.add(self)

    async def call(self, call: Call) -> Any:
        """Carries a batch out, as the session's call does."""
        serialized = call.request.SerializeToString()
        self._batches += 1
        connection = self._ready(serialized)
        exchange = None if connection is None else connection.start(serialized)
        if connection is None or exchange is None:
            return await self._session.call(call)
        deadline = time.monotonic() + self._session.timeout
        timer = connection.loop.call_later(self._session.timeout, exchange.end, _LATE)
        try:
            outcome = await exchange.outcome
        finally:
            timer.cancel()
            if connection.retired:
                connection.end_if_unused()
        if isinstance(outcome, bytes) and not is_failure(outcome):
            return outcome
        if outcome is _LATE:
            connection.retire()  # Others that it has sent have their own time.
            if exchange.was_sent:
                raise _batch_stream.late_error(self._session.target, call)
        if isinstance(outcome, Lost) and not _batch_stream.may_go_by_a_call(call, outcome, self._session.closed):
            raise _batch_stream.lost_error(self._session.target, call, outcome)
        # It was not carried out, or may be repeated, or was refused as a whole: the call says that better.
        return await self._session.call(call, deadline - time.monotonic())

    async def call_short(self, call: Call, deadline: float) -> Any:
        """The response of a call, or None where it is to go by itself: it is none for the stream, or the stream is not there, or failed
        before the call was carried out. Tasks that call in one turn of the event loop share a message; nothing waits for company.
        ``deadline`` is of time.monotonic(). Errors: the call's."""
        if self._address is None or time.monotonic() >= deadline:
            return None
        operation = _short_calls.operation_of(call)
        if operation is None:
            return None
        self._short_calls += 1
        connection = self._ready(operation)
        if connection is None:
            return None
        answer = _short_calls.answer_of(call)
        gathered = self._gathered
        if gathered is None or gathered.connection is not connection or not gathered.takes(operation, answer):
            if gathered is not None and gathered.connection.loop is connection.loop:
                gathered.send()
            gathered = self._gathered = _Gathered(connection)
            connection.loop.call_soon(gathered.send)
        outcome = await self._outcome_of(gathered, gathered.add(operation, answer), deadline)
        if isinstance(outcome, tuple):
            return _short_calls.response_of(call, *outcome)
        if outcome is _LATE:
            connection.retire()  # Others that it has sent have their own time.
            if gathered.was_sent:
                raise _batch_stream.late_error(self._session.target, call)
        if isinstance(outcome, ValueError):
            raise _short_calls.broken_error(call, str(outcome))
        if isinstance(outcome, Lost) and not _batch_stream.may_go_by_a_call(call, outcome, self._session.closed):
            raise _batch_stream.lost_error(self._session.target, call, outcome)
        return None

    async def _outcome_of(self, gathered: _Gathered, outcome: asyncio.Future[Any], deadline: float) -> Any:
        def end() -> None:
            if not outcome.done():
                outcome.set_result(_LATE)

        timer = gathered.connection.loop.call_later(deadline - time.monotonic(), end)
        try:
            return await outcome
        finally:
            timer.cancel()
            gathered.leave()
            if gathered.connection.retired:
                gathered.connection.end_if_unused()

    async def close(self) -> None:
        """Ends it, also under tasks that wait for answers."""
        loop = asyncio.get_running_loop()
        if self._pid != os.getpid():
            return self.after_fork_in_child()  # For one that forked without Python's knowledge.
        self._forget_others()
        if self._beginning is not None:
            beginning = self._beginning
            if beginning.get_loop() is loop:
                beginning.cancel()
                await asyncio.wait((beginning,))
        self._connection = None
        for connection in list(self._connections):
            why = Lost("the client was closed")
            if connection.loop is loop:
                connection.end(why)
            else:
                connection.loop.call_soon_threadsafe(connection.end, why)

    def after_fork_in_child(self) -> None:
        # The parent's connections go on; the tasks of its event loop are not in this process.
        for connection in list(self._connections):
            connection.let_go()
        self._connections.clear()
        self._connection = None
        self._beginning = None

    def _ready(self, serialized: bytes) -> Connection | None:
        """The connection that may take the batch. One is begun beside calls, if that is worth it: nobody waits for it."""
        if self._address is None or len(serialized) > MESSAGE_BYTES_MAX or self._session.closed:
            return None
        loop = asyncio.get_running_loop()
        connection = self._connection
        if self._pid != os.getpid():
            if self._pid:
                return None
            self._pid = os.getpid()
        if connection is not None and connection.loop is loop and not connection.retired:
            return connection
        self._forget_others()
        if self._connection is not None and self._connection.loop is not loop:
            return None
        now = time.monotonic()
        is_worth_it = self._batches > _batch_stream.BEGINS_AFTER or self._short_calls > _short_calls.BEGINS_AFTER
        if self._beginning is None and is_worth_it and now >= self._not_before:
            self._not_before = now + _batch_stream.TRIED_AGAIN_AFTER_S
            self._beginning = loop.create_task(self._begin(self._address))
        return None

    def _forget_others(self) -> None:
        """Of event loops that were closed before the client, and what has ended."""
        if self._beginning is not None and self._beginning.get_loop().is_closed():
            self._beginning = None
            self._not_before = 0.0
        for connection in [connection for connection in self._connections if connection.loop.is_closed()]:
            connection.let_go()
            self._connections.discard(connection)
            self._not_before = 0.0
        if self._connection is not None and self._connection.retired:
            self._connection = None

    async def _begin(self, address: tuple[int, Any]) -> None:
        """Connects, and asks for an empty batch: then the service lets us in, and knows streams of batches."""
        connection = None
        try:
            async with asyncio.timeout(BEGIN_S):
                found = await _connected(*address)
            authority = _batch_stream.authority_of(address[0], self._session.target)
            connection = await self._over(found, BatchStream(authority, self._session.metadata))
            first = connection.start(b"")
            async with asyncio.timeout(BEGIN_S):
                answer = None if first is None else await first.outcome
            if isinstance(answer, bytes) and not is_failure(answer) and not connection.retired and not self._session.closed:
                self._connection, connection = connection, None
        except OSError:
            pass  # Then there is none.
        finally:
            self._beginning = None
            if connection is not None:
                connection.end(Lost("it did not begin"))

    async def _over(self, found: socket.socket, stream: BatchStream) -> Connection:
        """The connection on a socket, which is closed if that fails."""
        connection = Connection(found, stream)
        self._connections.add(connection)
        loop: Any = connection.loop
        create = loop.create_unix_connection if found.family == socket.AF_UNIX else loop.create_connection
        try:
            await create(lambda: connection, sock=found)
        except BaseException:
            connection.end(Lost("it did not begin"))
            found.close()
            raise
        return connection


async def _connected(family: int, where: Any) -> socket.socket:
    """A connected socket that does not block. OSError."""
    loop = asyncio.get_running_loop()
    candidates: list[tuple[int, Any]] = [(family, where)]
    if family != socket.AF_UNIX:
        found = await loop.getaddrinfo(*where, type=socket.SOCK_STREAM)
        candidates = [(info[0], info[4]) for info in found]
    last: OSError = ConnectionError(f"{where} has no address")
    for kind, address in candidates:
        made = socket.socket(kind, socket.SOCK_STREAM)
        with contextlib.ExitStack() as stack:
            stack.callback(made.close)
            made.setblocking(False)
            try:
                await loop.sock_connect(made, address)
                if kind != socket.AF_UNIX:
                    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                last = error
                continue
            stack.pop_all()
            return made
    raise last


_links: weakref.WeakSet[AsyncBatchLink] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for link in list(_links):
        link.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
