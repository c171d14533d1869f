"""One stream of batches (_batch_stream.py) over a blocking socket: one batch at a time, so those of other threads go by calls."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from . import _batch_stream, _short_calls
from ._batch_stream import BEGIN_S, CHUNK_BYTES, MESSAGE_BYTES_MAX, BatchStream, Lost, is_failure
from ._control import Call

if TYPE_CHECKING:
    from ._network_session import NetworkSession


class BatchLink:
    """The stream of one session. Threads: any at once; one of them has the stream, the others go by calls meanwhile. fork(): the child
    makes a stream of its own."""

    def __init__(self, session: NetworkSession) -> None:
        self._session = session
        # Plain sockets only: a token must not go where TLS is asked for.
        self._address = _batch_stream.address_of(session.target) if session.tls is None else None
        self._lock = threading.Lock()  # Guards what follows, but for close().
        self._batches = 0
        self._short_calls = 0
        self._not_before = 0.0
        self._pid = 0
        self._socket: socket.socket | None = None
        self._readable = select.poll()  # Of the socket.
        self._buffer = memoryview(bytearray())
        self._stream: Any = None  # A BatchStream while there is a socket.

    def call(self, call: Call, timeout: float | None = None) -> Any:
        """Carries a batch out, as the session's call does."""
        if not self._lock.acquire(blocking=False):
            return self._session.call(call, timeout)
        deadline = time.monotonic() + (self._session.timeout if timeout is None else timeout)
        self._batches += 1
        answer = self._try(call, deadline)
        return self._session.call(call, deadline - time.monotonic()) if answer is None else answer

    def call_short(self, call: Call, deadline: float) -> Any:
        """The response of a call, or None where it is to go by itself: it is none for the stream, the stream is busy, or not there, or
        failed before the call was carried out. ``deadline`` is of time.monotonic(). Errors: the call's."""
        if self._address is None or self._session.closed or time.monotonic() >= deadline:
            return None
        operation = _short_calls.operation_of(call)
        if operation is None:
            return None
        message = call._replace(request=_short_calls.Message(_short_calls.message_of(operation)))
        if not self._lock.acquire(blocking=False):
            return None
        self._short_calls += 1
        answer = self._try(message, deadline)
        if answer is None:
            return None
        try:
            ((kind, result),) = _short_calls.results_of(answer, 1)
        except ValueError as damage:
            raise _short_calls.broken_error(call, str(damage)) from None
        return _short_calls.response_of(call, kind, result)

    def close(self) -> None:
        """Ends it, also under a thread that waits for an answer."""
        found = self._socket
        if found is None:
            return
        if self._pid == os.getpid():
            try:
                found.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # The other end was faster.
        if self._lock.acquire(blocking=False):  # Else the waiting thread lets it go.
            self._drop()
            self._lock.release()

    def after_fork_in_child(self) -> None:
        # A thread that is not here may have held the old one. The parent's connection goes on.
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._drop()

    def _try(self, call: Call, deadline: float) -> bytes | None:
        """None where the batch has to go by a call: it was not carried out, or may be repeated. Lets the lock go."""
        keep = False
        try:
            serialized = call.request.SerializeToString()
            if not self._is_ready(serialized, deadline):
                keep = True
                return None
            answer = self._exchange(serialized, deadline)
            keep = not self._stream.is_used_up
            return None if is_failure(answer) else answer  # Refused as a whole: the call says it better.
        except Lost as lost:
            if _batch_stream.may_go_by_a_call(call, lost, self._session.closed):
                return None
            raise _batch_stream.lost_error(self._session.target, call, lost) from None
        except TimeoutError:
            raise _batch_stream.late_error(self._session.target, call) from None
        finally:
            if not keep:
                self._drop()
            self._lock.release()

    def _is_ready(self, serialized: bytes, deadline: float) -> bool:
        """Whether the batch can go over the stream, which is begun if it is worth it."""
        if self._address is None or len(serialized) > MESSAGE_BYTES_MAX or self._session.closed:
            return False
        if self._socket is not None and self._pid != os.getpid():
            self._drop()  # Of a parent that forked without Python's knowledge.
            self._not_before = 0.0
        if self._socket is not None:
            return self._is_alive() and bool(self._stream.takes(serialized))
        now = time.monotonic()
        is_worth_it = self._batches > _batch_stream.BEGINS_AFTER or self._short_calls > _short_calls.BEGINS_AFTER
        if not is_worth_it or now < self._not_before:
            return False
        self._not_before = now + _batch_stream.TRIED_AGAIN_AFTER_S
        # What that takes a call by grpcio may still need.
        return self._begin(self._address, now + min(BEGIN_S, (deadline - now) / 2)) and bool(self._stream.takes(serialized))

    def _begin(self, address: tuple[int, Any], deadline: float) -> bool:
        """Connects, and asks for an empty batch: then the service lets us in, and knows streams of batches."""
        family, where = address
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            return False
        try:
            if family == socket.AF_UNIX:
                made = socket.socket(family)
                self._socket, self._pid = made, os.getpid()
                made.settimeout(seconds)
                made.connect(where)
            else:
                made = socket.create_connection(where, seconds)
                self._socket, self._pid = made, os.getpid()
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setblocking(False)
            self._readable = select.poll()
            self._readable.register(made, select.POLLIN)
            self._buffer = memoryview(bytearray(CHUNK_BYTES))
            self._stream = BatchStream(_batch_stream.authority_of(family, self._session.target), self._session.metadata)
            # Whoever closed the client while it connected had no socket to end.
            if not self._session.closed and not is_failure(self._exchange(b"", deadline)):
                return True
        except (Lost, OSError):
            pass  # Then there is none.
        self._drop()
        return False

    def _is_alive(self) -> bool:
        """Takes what came since the last answer. False where that was the end."""
        assert self._socket is not None
        try:
            while self._readable.poll(0):  # The end may stand behind a ping.
                size = self._socket.recv_into(self._buffer)
                if not size or self._stream.receive(self._buffer[:size]) is not None or self._stream.is_used_up:
                    break
            else:
                return True
        except (Lost, OSError):
            pass
        self._drop()
        return False

    def _exchange(self, serialized: bytes, deadline: float) -> bytes:
        """Lost, TimeoutError."""
        assert self._socket is not None
        self._stream.send(serialized)
        answer: bytes | None = None
        try:
            while answer is None:
                outgoing = memoryview(self._stream.outgoing())
                while outgoing:
                    try:
                        outgoing = outgoing[self._socket.send(outgoing) :]
                    except BlockingIOError:
                        self._wait_for_room(deadline)
                if not self._readable.poll(max(deadline - time.monotonic(), 0) * 1000):
                    raise TimeoutError
                size = self._socket.recv_into(self._buffer)
                if not size:
                    raise Lost("the connection was closed")
                answer = self._stream.receive(self._buffer[:size])
        except TimeoutError:
            raise
        except OSError as error:
            raise Lost(str(error)) from None
        return answer

    def _wait_for_room(self, deadline: float) -> None:
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
            raise TimeoutError

    def _drop(self) -> None:
        found, self._socket, self._stream = self._socket, None, None
        self._buffer = memoryview(bytearray())
        if found is not None:
            found.close()
