"""The bytes of a stream of batches to the network door, HTTP/2 by hand, without a connection: what goes out, and what comes in.

It is only a shortcut for what a call by grpcio would carry, at a fourth of its time. Its connections (_batch_link.py, _async_batch_link.py)
begin it after a client's first few batches and send a batch only on a stream that has answered before. What it cannot carry (large
batches, targets and answers that it does not know) goes by a call; so does everything after it failed, until it is tried again.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from . import errors
from ._control import Call

RUN_BATCHES = "/statehouse.v1.Batches/RunBatches"
BEGINS_AFTER = 2  # Batches of a client: one alone is not worth a connection.
TRIED_AGAIN_AFTER_S = 10.0
BEGIN_S = 1.0  # To connect, and as long again for the first answer.
CHUNK_BYTES = 1 << 16
MESSAGE_BYTES_MAX = 16_384 - 5  # One frame with a message's prefix.
ANSWER_BYTES_MAX = (16 << 20) + 4096  # As of a call.

# HTTP/2, RFC 9113: kinds of frames, and what is used of their flags and settings.
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 5, 6, 7, 8
_END_STREAM = _ACK = 1
_END_HEADERS, _PADDED = 4, 8
_TABLE_SIZE, _ENABLE_PUSH, _INITIAL_WINDOW = 1, 2, 4
_ONLY_BATCHES = 0x5348  # Statehouse's own: 1 says that a connection carries nothing else (docs/formats/batches.md).
_STREAM = 1  # The only one.
_FRAME_BYTES_MAX = 16_384  # Of a frame's payload, where nobody agreed on more.
_WINDOW_BYTES = 65_535  # Of a connection and its streams, until its ends agree on others.
_WINDOW_BYTES_MAX = (1 << 31) - 1
_RECEIVED_BYTES_MAX = 1 << 30  # A link ends after so many: it never opens its window again.
# A literal header, its name plain or in Huffman's code: what is refused so was not carried out.
_UNAUTHENTICATED = (b"\x0bgrpc-status\x0216", b"\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x0216")


class Lost(Exception):
    """The stream has ended. ``refused``: what was sent last was not carried out."""

    def __init__(self, why: str, refused: bool = False) -> None:
        super().__init__(why)
        self.refused = refused


class BatchStream:
    """One connection with one stream. Messages are answered in their order. Threads: one at a time."""

    def __init__(self, authority: str, metadata: tuple[tuple[str, str], ...]) -> None:
        self._received = bytearray()
        self._content = bytearray()  # Of the messages of the stream.
        self._received_bytes = 0
        self._windows = {0: _WINDOW_BYTES, _STREAM: _WINDOW_BYTES}
        self._initial_window = _WINDOW_BYTES
        self._goes_away = False  # The service answers what it has, and wants no more.
        self._end: Lost | None = None
        settings = ((_TABLE_SIZE, 0), (_ENABLE_PUSH, 0), (_INITIAL_WINDOW, _WINDOW_BYTES_MAX), (_ONLY_BATCHES, 1))
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
        """Whether it should make place for another one: it takes no more messages, but may still have answers."""
        return self._goes_away or self._end is not None or self._received_bytes > _RECEIVED_BYTES_MAX

    def takes(self, message: bytes) -> bool:
        """Whether a message can be sent now."""
        size = len(message)
        return size <= MESSAGE_BYTES_MAX and size + 5 <= min(self._windows.values()) and not self.is_used_up

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

    def receive(self, chunk: bytes | memoryview) -> bytes | None:
        """Takes what was received, and gives the next message if it is whole; with no bytes, a further one of those before. Lost where
        the stream has ended, and for whatever HTTP/2 or gRPC do not allow, after the messages that came before that."""
        if self._end is None and chunk:
            self._received += chunk
            self._received_bytes += len(chunk)
            try:
                self._take_frames()
            except Lost as lost:
                self._end = lost
        try:
            message = self._message()
        except Lost as lost:
            message = None
            self._end = lost
            self._content.clear()
        if message is None and self._end is not None:
            raise Lost(str(self._end), self._end.refused)
        return message

    def _take_frames(self) -> None:
        received = self._received
        at = 0
        try:
            while len(received) - at >= 9:
                size = int.from_bytes(received[at : at + 3], "big")
                if size > _FRAME_BYTES_MAX:
                    raise Lost(f"it sent a frame of {size} bytes, or no HTTP/2")
                end = at + 9 + size
                if end > len(received):
                    break
                stream = int.from_bytes(received[at + 5 : at + 9], "big") & 0x7FFFFFFF
                self._take(received[at + 3], received[at + 4], stream, bytes(received[at + 9 : end]))
                at = end
        finally:
            del received[:at]

    def _message(self) -> bytes | None:
        content = self._content
        if len(content) < 5:
            return None
        if content[0]:
            raise Lost("it sent a compressed message")
        size = int.from_bytes(content[1:5], "big")
        if size > ANSWER_BYTES_MAX:
            raise Lost(f"it sent a message of {size} bytes")
        end = 5 + size
        if end > len(content):
            return None
        message = bytes(content[5:end])
        del content[:end]
        return message

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in (_DATA, _HEADERS):
            if stream != _STREAM:
                return
            if flags & _PADDED:
                payload = _without_padding(payload)
            if kind == _DATA:
                self._content += payload
            if flags & _END_STREAM:
                raise Lost("the service ended the stream", refused=any(field in payload for field in _UNAUTHENTICATED))
        elif kind == _WINDOW and stream in self._windows:
            self._open(stream, int.from_bytes(_of_size(payload, 4, "window update"), "big") & _WINDOW_BYTES_MAX)
        elif kind == _SETTINGS and not flags & _ACK:
            self._set(payload)
        elif kind == _PING and not flags & _ACK:
            self._outgoing += frame(_PING, _ACK, 0, _of_size(payload, 8, "ping"))
        elif kind == _GOAWAY:
            last, code = struct.unpack(">II", _of_size(payload[:8], 8, "goaway"))
            if code or last & 0x7FFFFFFF < _STREAM:
                raise Lost("the service ended the connection")
            self._goes_away = True
        elif kind in (_RST_STREAM, _PUSH):
            raise Lost("the service ended the connection")

    def _set(self, payload: bytes) -> None:
        if len(payload) % 6:
            raise Lost(f"it sent settings of {len(payload)} bytes")
        for setting, value in struct.iter_unpack(">HI", payload):
            if setting != _INITIAL_WINDOW:
                continue
            if value > _WINDOW_BYTES_MAX:
                raise Lost(f"it opened a window of {value} bytes")
            self._open(_STREAM, value - self._initial_window)
            self._initial_window = value
        self._outgoing += frame(_SETTINGS, _ACK, 0, b"")

    def _open(self, stream: int, size: int) -> None:
        self._windows[stream] += size
        if self._windows[stream] > _WINDOW_BYTES_MAX:
            raise Lost(f"it opened a window of {self._windows[stream]} bytes")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _of_size(payload: bytes, size: int, what: str) -> bytes:
    if len(payload) != size:
        raise Lost(f"it sent a {what} of {len(payload)} bytes")
    return payload


def _without_padding(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise Lost("it sent a frame that is all padding")
    return payload[1 : len(payload) - payload[0]]


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


def authority_of(family: int, target: str) -> str:
    return "localhost" if family == socket.AF_UNIX else target


def is_failure(answer: bytes) -> bool:
    """Whether a RunBatchesResponse refuses the batch as a whole."""
    return answer[:1] == b"\x12"


def may_go_by_a_call(call: Call, lost: Lost, closed: bool) -> bool:
    """Whether a batch whose answer was lost may be asked for by a call. One of a closed client is: the call says what is wrong."""
    return call.idempotent or lost.refused or closed


def lost_error(target: str, call: Call, lost: Lost) -> errors.Error:
    return errors.by_name("UNAVAILABLE", f"{call.method} at {target}: {lost}", call.name)


def late_error(target: str, call: Call) -> errors.Error:
    return errors.by_name("TIMEOUT", f"{call.method} at {target}: no answer before the deadline", call.name)
