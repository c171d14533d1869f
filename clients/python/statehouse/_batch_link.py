"""One stream of batches to the network door, spoken by hand over a socket of its own: a fourth of the time of a call by grpcio.

It is only a shortcut. What it cannot carry (large batches, several threads at once, targets and answers that it does not know) goes by a
call; so does everything after it failed, until it is tried again. A batch is sent only on a stream that has answered before.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

from . import errors
from ._control import Call

if TYPE_CHECKING:
    from ._network_session import NetworkSession

RUN_BATCHES = "/statehouse.v1.Batches/RunBatches"
BEGINS_AFTER = 2  # Batches of a client: one alone is not worth a connection.
TRIED_AGAIN_AFTER_S = 10.0
_BEGIN_S = 1.0  # To connect, and as long again for the first answer.
_CHUNK_BYTES = 1 << 16

# HTTP/2, RFC 9113: kinds of frames, and what is used of their flags and settings.
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 5, 6, 7, 8
_END_STREAM = _ACK = 1
_END_HEADERS, _PADDED = 4, 8
_TABLE_SIZE, _ENABLE_PUSH, _INITIAL_WINDOW = 1, 2, 4
_STREAM = 1  # The only one.
_WINDOW_BYTES = 65_535  # Of a connection and its streams, until its ends agree on others.
_WINDOW_BYTES_MAX = (1 << 31) - 1
_RECEIVED_BYTES_MAX = 1 << 30  # A link ends after so many: it never opens its window again.
_MESSAGE_BYTES_MAX = 16_384 - 5  # One frame with a message's prefix.
_UNAUTHENTICATED = b"\x0bgrpc-status\x0216"  # A literal header: what is refused so was not carried out.


class Lost(Exception):
    """The stream has ended. ``refused``: what was sent last was not carried out."""

    def __init__(self, why: str, refused: bool = False) -> None:
        super().__init__(why)
        self.refused = refused


class BatchStream:
    """The bytes of one connection with one stream, without the connection: what goes out, and the messages that come in."""

    def __init__(self, authority: str, metadata: tuple[tuple[str, str], ...]) -> None:
        self._received = bytearray()
        self._content = bytearray()  # Of the messages of the stream.
        self._received_bytes = 0
        self._windows = {0: _WINDOW_BYTES, _STREAM: _WINDOW_BYTES}
        self._initial_window = _WINDOW_BYTES
        settings = ((_TABLE_SIZE, 0), (_ENABLE_PUSH, 0), (_INITIAL_WINDOW, _WINDOW_BYTES_MAX))
        headers = (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", RUN_BATCHES),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *metadata,
        )
        self._outgoing = bytearray(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(_SETTINGS, 0, 0, b"".join(struct.pack(">HI", *setting) for setting in settings))
            + frame(_WINDOW, 0, 0, struct.pack(">I", _WINDOW_BYTES_MAX - _WINDOW_BYTES))
            + frame(_HEADERS, _END_HEADERS, _STREAM, b"".join(_literal(*header) for header in headers))
        )

    @property
    def is_used_up(self) -> bool:
        """Whether it should make place for another one."""
        return self._received_bytes > _RECEIVED_BYTES_MAX

    def takes(self, message: bytes) -> bool:
        """Whether a message can be sent now."""
        return len(message) <= _MESSAGE_BYTES_MAX and len(message) + 5 <= min(self._windows.values())

    def send(self, message: bytes) -> None:
        """REQUIRES: it takes the message."""
        size = len(message)
        for stream in self._windows:
            self._windows[stream] -= size + 5
        self._outgoing += b"%b\0\0\0\0\0\x01\0%b%b" % ((size + 5).to_bytes(3, "big"), size.to_bytes(4, "big"), message)

    def outgoing(self) -> bytes:
        """Takes away what has to be sent."""
        outgoing = bytes(self._outgoing)
        self._outgoing.clear()
        return outgoing

    def receive(self, chunk: bytes) -> bytes | None:
        """Takes what was received, and gives the next message if it is whole. Lost where the stream has ended."""
        received = self._received
        received += chunk
        self._received_bytes += len(chunk)
        at = 0
        try:
            while len(received) - at >= 9:
                end = at + 9 + int.from_bytes(received[at : at + 3], "big")
                if end > len(received):
                    break
                stream = int.from_bytes(received[at + 5 : at + 9], "big") & 0x7FFFFFFF
                self._take(received[at + 3], received[at + 4], stream, bytes(received[at + 9 : end]))
                at = end
        finally:
            del received[:at]
        return self._message()

    def _message(self) -> bytes | None:
        content = self._content
        if len(content) < 5:
            return None
        if content[0]:
            raise Lost("it sent a compressed message")
        end = 5 + int.from_bytes(content[1:5], "big")
        if end > len(content):
            return None
        message = bytes(content[5:end])
        del content[:end]
        return message

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in (_DATA, _HEADERS) and stream == _STREAM:
            if flags & _PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            if kind == _DATA:
                self._content += payload
            if flags & _END_STREAM:
                raise Lost("the service ended the stream", refused=_UNAUTHENTICATED in payload)
        elif kind == _WINDOW and stream in self._windows:
            self._windows[stream] += int.from_bytes(payload, "big")
        elif kind == _SETTINGS and not flags & _ACK:
            for at in range(0, len(payload), 6):
                setting, value = struct.unpack(">HI", payload[at : at + 6])
                if setting == _INITIAL_WINDOW:
                    self._windows[_STREAM] += value - self._initial_window
                    self._initial_window = value
            self._outgoing += frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            self._outgoing += frame(_PING, _ACK, 0, payload)
        elif kind in (_RST_STREAM, _PUSH, _GOAWAY):
            raise Lost("the service ended the connection")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    """A header field that no table remembers (RFC 7541, 6.2.3)."""
    return b"\x10" + b"".join(_length(len(text)) + text for text in (name.encode(), value.encode()))


def _length(size: int) -> bytes:
    if size < 0x7F:
        return bytes((size,))
    written = bytearray((0x7F,))
    size -= 0x7F
    while size >= 0x80:
        written.append(size & 0x7F | 0x80)
        size >>= 7
    written.append(size)
    return bytes(written)


def address_of(target: str) -> tuple[int, Any] | None:
    """(family, address) for a socket; None for targets that only gRPC knows."""
    if target.startswith("unix:"):
        return socket.AF_UNIX, "/" + target.removeprefix("unix:").lstrip("/")
    host, colon, port = target.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host or (":" in host and not host.startswith("[")):
        return None
    return socket.AF_UNSPEC, (host.strip("[]"), int(port))


class BatchLink:
    """The stream of one session. Threads: any at once; one of them has the stream, the others go by calls meanwhile. fork(): the child
    makes a stream of its own."""

    def __init__(self, session: NetworkSession) -> None:
        self._session = session
        # Plain sockets only: a token must not go where TLS is asked for.
        self._address = address_of(session.target) if session.tls is None else None
        self._lock = threading.Lock()  # Guards what follows, but for close().
        self._batches = 0
        self._not_before = 0.0
        self._pid = 0
        self._socket: socket.socket | None = None
        self._stream: Any = None

    def call(self, call: Call) -> Any:
        """Carries a batch out, as the session's call does."""
        if not self._lock.acquire(blocking=False):
            return self._session.call(call)
        deadline = time.monotonic() + self._session.timeout
        answer = self._try(call, deadline)
        return self._session.call(call, deadline - time.monotonic()) if answer is None else answer

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
            return None if _is_failure(answer) else answer  # Refused as a whole: the call says it better.
        except Lost as lost:
            if call.idempotent or lost.refused or self._session.closed:
                return None
            raise errors.by_name("UNAVAILABLE", f"{RUN_BATCHES} at {self._session.target}: {lost}") from None
        except TimeoutError:
            raise errors.by_name("TIMEOUT", f"{RUN_BATCHES} at {self._session.target}: no answer before the deadline") from None
        finally:
            if not keep:
                self._drop()
            self._lock.release()

    def _is_ready(self, serialized: bytes, deadline: float) -> bool:
        """Whether the batch can go over the stream, which is begun if it is worth it."""
        self._batches += 1
        if self._address is None or len(serialized) > _MESSAGE_BYTES_MAX or self._session.closed:
            return False
        if self._socket is not None and self._pid != os.getpid():
            self._drop()  # Of a parent that forked without Python's knowledge.
            self._not_before = 0.0
        if self._socket is not None:
            return self._is_alive() and bool(self._stream.takes(serialized))
        now = time.monotonic()
        if self._batches <= BEGINS_AFTER or now < self._not_before:
            return False
        self._not_before = now + TRIED_AGAIN_AFTER_S
        return self._begin(self._address, min(deadline, now + _BEGIN_S))

    def _begin(self, address: tuple[int, Any], deadline: float) -> bool:
        """Connects, and asks for an empty batch: then the service lets us in, and knows streams of batches."""
        family, where = address
        try:
            if family == socket.AF_UNIX:
                made = socket.socket(family)
                self._socket, self._pid = made, os.getpid()
                made.settimeout(_BEGIN_S)
                made.connect(where)
            else:
                made = socket.create_connection(where, _BEGIN_S)
                self._socket, self._pid = made, os.getpid()
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setblocking(False)
            authority = "localhost" if family == socket.AF_UNIX else self._session.target
            self._stream = BatchStream(authority, self._session.metadata)
            if not _is_failure(self._exchange(b"", deadline)):
                return True
        except (Lost, OSError):
            pass  # Then there is none.
        self._drop()
        return False

    def _is_alive(self) -> bool:
        """Takes what came since the last answer. False where that was the end."""
        assert self._socket is not None
        try:
            chunk = self._socket.recv(_CHUNK_BYTES)
            if chunk and self._stream.receive(chunk) is None:
                return True
        except BlockingIOError:
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
                        self._wait(select.POLLOUT, deadline)
                self._wait(select.POLLIN, deadline)
                chunk = self._socket.recv(_CHUNK_BYTES)
                if not chunk:
                    raise Lost("the connection was closed")
                answer = self._stream.receive(chunk)
        except TimeoutError:
            raise
        except OSError as error:
            raise Lost(str(error)) from None
        return answer

    def _wait(self, event: int, deadline: float) -> None:
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, event)
        if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
            raise TimeoutError

    def _drop(self) -> None:
        found, self._socket, self._stream = self._socket, None, None
        if found is not None:
            found.close()


def _is_failure(answer: bytes) -> bool:
    """Whether a RunBatchesResponse refuses the batch as a whole."""
    return answer[:1] == b"\x12"
