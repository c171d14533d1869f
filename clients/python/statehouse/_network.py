"""The network door: unary gRPC calls, and an area whose every operation is one.

grpcio is imported at the first call, and a channel is made then, so a process may fork until that moment; a child
makes a channel of its own, whatever its parent did.
"""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Any

from . import _wire, errors
from ._control import AREAS, Call, area_pb2
from .types import WORD_TYPES, BytesLike, CompareExchangeResult

if TYPE_CHECKING:
    import builtins

_PIECE_BYTES = 1 << 20  # A longer range takes several calls.
_WAIT_SLICE_S = 60.0  # A longer wait takes several calls.
_MESSAGE_BYTES_MAX = (16 << 20) + 4096
CHANNEL_OPTIONS = [
    # A child of a fork must not share its parent's connection, which grpcio would otherwise find by address.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
# For failures that come from gRPC itself and not from the service.
_REASON_OF_CODE = {
    "CANCELLED": "CANCELLED",
    "DEADLINE_EXCEEDED": "TIMEOUT",
    "UNAUTHENTICATED": "UNAUTHENTICATED",
    "PERMISSION_DENIED": "PERMISSION_DENIED",
    "UNIMPLEMENTED": "UNIMPLEMENTED",
    "RESOURCE_EXHAUSTED": "MESSAGE_TOO_LARGE",
    "UNAVAILABLE": "UNAVAILABLE",
    "INVALID_ARGUMENT": "INVALID_ARGUMENT",
}


def error_of(rpc_error: Any, call: Call, target: str) -> errors.Error:
    """The exception for a grpc.RpcError."""
    for key, value in rpc_error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        from .v1 import error_pb2

        for serialized in _wire.error_details(value):
            detail = error_pb2.ErrorDetail.FromString(serialized)
            return errors.from_reason(detail.reason, rpc_error.details() or "", call.name)
    reason = _REASON_OF_CODE.get(rpc_error.code().name, "INTERNAL")
    return errors.by_name(
        reason, f"{call.method} at {target}: {rpc_error.details()}", call.name
    )


def closed_error(name: str) -> errors.Error:
    return errors.by_name(
        "CLIENT_CLOSED", "the client was closed before this call; connect again", name
    )


def unreachable_error(target: str, name: str) -> errors.Error:
    return errors.by_name(
        "UNAVAILABLE",
        f"no connection to {target} before the deadline; is statehoused listening there?",
        name,
    )


class Backoff:
    """The pauses between tries: 5 ms growing to 200 ms, with jitter."""

    def __init__(self) -> None:
        self._length = 0.005

    def next(self) -> float:
        length = self._length
        self._length = min(length * 2, 0.2)
        return random.uniform(length / 2, length)


class NetworkSession:
    """One channel for each process, made at its first call. Threads: any at once."""

    def __init__(self, target: str, token: str, timeout: float) -> None:
        self.target = target
        self.timeout = timeout
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._closed = False
        self._pid = 0
        self._channel: Any = None
        self._calls: dict[str, Any] = {}
        self._connected = False
        self._inherited: list[Any] = []  # Of the parent: closing them here would hang or disturb it.

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        channel, self._channel = self._channel, None
        if channel is not None and self._pid == os.getpid():
            channel.close()

    def call(self, call: Call, timeout: float | None = None) -> Any:
        """Carries one call out. Only idempotent ones are sent again, and only after Unavailable."""
        import grpc

        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        backoff = Backoff()
        while True:
            if self._closed:
                raise closed_error(call.name)
            self._connect(call, deadline)
            left = max(deadline - time.monotonic(), 0.0)
            try:
                return self._method(call)(call.request, timeout=left, metadata=self._metadata)
            except grpc.RpcError as rpc_error:
                error = error_of(rpc_error, call, self.target)
            except ValueError:  # grpcio's way to say that another thread closed the channel.
                if not self._closed:
                    raise
                raise closed_error(call.name) from None
            if self._closed:
                raise closed_error(call.name)
            if not isinstance(error, errors.Unavailable) or error.reason == "STALLED":
                raise error
            self._connected = False
            pause = backoff.next()
            if not call.idempotent or time.monotonic() + pause >= deadline:
                raise error
            time.sleep(pause)

    def _connect(self, call: Call, deadline: float) -> None:
        """Waits for a connection: nothing is sent before there is one, so waiting is safe for every call."""
        import grpc

        if self._pid != os.getpid():
            if self._channel is not None:
                self._inherited.append((self._channel, self._calls))
            self._channel = None
            self._pid = os.getpid()
        if self._channel is None:
            self._calls = {}
            self._connected = False
            self._channel = grpc.insecure_channel(self.target, options=CHANNEL_OPTIONS)
        if self._connected:
            return
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=max(deadline - time.monotonic(), 0.001))
        except grpc.FutureTimeoutError:
            raise unreachable_error(self.target, call.name) from None
        finally:
            ready.cancel()
        self._connected = True

    def _method(self, call: Call) -> Any:
        method = self._calls.get(call.method)
        if method is None:
            method = self._channel.unary_unary(
                call.method,
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=call.response_type.FromString,
            )
            self._calls[call.method] = method
        return method


class AreaCalls:
    """The calls of one area, for the blocking and the asyncio client: checks what the caller gave and builds messages."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.pb = area_pb2()

    def word(self, verb: str, word_type: str, pos: int, idempotent: bool = False, **fields: Any) -> Call:
        request_type = getattr(self.pb, f"{verb}WordRequest")
        request = request_type(
            name=self.name,
            pos=self.position(pos),
            type=WORD_TYPES.index(word_type) + 1,
            **fields,
        )
        response_type = getattr(self.pb, f"{verb}WordResponse")
        return Call(f"{AREAS}{verb}Word", request, response_type, idempotent, self.name)

    def value(self, word_type: str, number: int) -> Any:
        number = self._integer(number, "the value")
        bits = int(word_type[1:])
        signed = word_type[0] == "i"
        low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
        if not low <= number < high:
            kind = "a signed" if signed else "an unsigned"
            raise errors.by_name(
                "VALUE_OUT_OF_RANGE",
                f'area "{self.name}": {number} does not fit {kind} word of {bits // 8} bytes',
                self.name,
            )
        if signed:
            return self.pb.WordValue(signed_value=number)
        return self.pb.WordValue(unsigned_value=number)

    def delta(self, number: int) -> int:
        number = self._integer(number, "delta")
        if not -(1 << 63) <= number < 1 << 64:
            raise errors.by_name(
                "VALUE_OUT_OF_RANGE",
                f'area "{self.name}": delta is {number}; it must fit 64 bits',
                self.name,
            )
        return number - (1 << 64) if number >= 1 << 63 else number

    def position(self, number: int, what: str = "pos") -> int:
        number = self._integer(number, what)
        if not 0 <= number < 1 << 64:
            raise errors.by_name(
                "OUT_OF_BOUNDS",
                f'area "{self.name}": {what} is {number}; it must be a number of bytes inside the area',
                self.name,
            )
        return number

    def bounds(self, pos: int, length: int) -> None:
        if length > self.size or pos > self.size - length:
            raise errors.by_name(
                "OUT_OF_BOUNDS",
                f'area "{self.name}": [{pos}, +{length}) is not inside its {self.size} bytes',
                self.name,
            )

    def reads(self, pos: int, length: int | None) -> list[Call]:
        pos = self.position(pos)
        if length is None:
            length = self.size - pos if pos <= self.size else 0
        length = self.position(length, "len")
        self.bounds(pos, length)
        return [
            Call(
                AREAS + "ReadArea",
                self.pb.ReadAreaRequest(name=self.name, pos=pos + at, len=size),
                self.pb.ReadAreaResponse,
                True,
                self.name,
            )
            for at, size in _pieces(length)
        ]

    def writes(self, pos: int, data: builtins.memoryview) -> list[Call]:
        pos = self.position(pos)
        self.bounds(pos, data.nbytes)
        return [
            Call(
                AREAS + "WriteArea",
                self.pb.WriteAreaRequest(name=self.name, pos=pos + at, data=bytes(data[at : at + size])),
                self.pb.WriteAreaResponse,
                False,
                self.name,
            )
            for at, size in _pieces(data.nbytes)
        ]

    def fill(self, pos: int, length: int, value: int) -> Call:
        pos = self.position(pos)
        length = self.position(length, "len")
        self.value("u8", value)
        request = self.pb.FillAreaRequest(name=self.name, pos=pos, len=length, value=value)
        return Call(AREAS + "FillArea", request, self.pb.FillAreaResponse, False, self.name)

    def wait(self, since: int | None, timeout: float) -> Call:
        request = self.pb.WaitAreaRequest(name=self.name)
        if since is not None:
            if not 0 <= self._integer(since, "since") < 1 << 64:
                raise errors.by_name(
                    "INVALID_ARGUMENT", "`since` must be an update counter, 0 to 2^64 - 1", self.name
                )
            request.since = since
            request.timeout.seconds = int(timeout)
            request.timeout.nanos = int((timeout - int(timeout)) * 1e9)
        return Call(AREAS + "WaitArea", request, self.pb.WaitAreaResponse, True, self.name)

    def wait_timeout(self, timeout: float | None) -> float:
        """Seconds, infinite for None."""
        if timeout is None:
            return float("inf")
        seconds = float(timeout)
        if not seconds >= 0:
            raise errors.by_name(
                "INVALID_ARGUMENT", "a timeout must be a number of seconds, 0 or more", self.name
            )
        return seconds

    def _integer(self, number: int, what: str) -> int:
        try:
            return number.__index__()
        except AttributeError:
            raise TypeError(f"{what} must be an int, not {type(number).__name__}") from None


def _pieces(length: int) -> list[tuple[int, int]]:
    """(position, size) of each piece; one empty piece for an empty range."""
    return [(at, min(_PIECE_BYTES, length - at)) for at in range(0, max(length, 1), _PIECE_BYTES)]


def number_of(value: Any) -> int:
    number: int = getattr(value, value.WhichOneof("kind") or "unsigned_value")
    return number


def bytes_of(data: BytesLike) -> memoryview:
    return memoryview(data).cast("B")


def wait_slice(deadline: float) -> float:
    """How long the next call of a wait lasts."""
    return min(max(deadline - time.monotonic(), 0.0), _WAIT_SLICE_S)


class NetworkArea:
    """An area over the network: the protocol is statehouse.types.Area. Threads: any at once."""

    transport = "network"

    def __init__(self, session: NetworkSession, name: str, size: int, index: int) -> None:
        self._session = session
        self._calls = AreaCalls(name, size)
        self.name = name
        self.size = size
        self.index = index

    def __repr__(self) -> str:
        return f"<statehouse network area {self.name}, {self.size} bytes>"

    def __len__(self) -> int:
        return self.size

    @property
    def updates(self) -> int:
        updates: int = self._session.call(self._calls.wait(None, 0)).updates
        return updates

    def read(self, pos: int, len: int | None = None) -> bytes:
        return b"".join(self._session.call(call).data for call in self._calls.reads(pos, len))

    def write(self, pos: int, bytes: BytesLike, /) -> None:
        for call in self._calls.writes(pos, bytes_of(bytes)):
            self._session.call(call)

    def fill(self, pos: int, len: int, value: int, /) -> None:
        self._session.call(self._calls.fill(pos, len, value))

    def wait(self, since: int, timeout: float | None = None) -> bool:
        deadline = time.monotonic() + self._calls.wait_timeout(timeout)
        while True:
            seconds = wait_slice(deadline)
            call = self._calls.wait(since, seconds)
            changed: bool = self._session.call(call, seconds + self._session.timeout).changed
            if changed or time.monotonic() >= deadline:
                return changed

    def memoryview(self) -> memoryview:
        raise errors.TransportError(
            f'area "{self.name}" is reached over the network, so its bytes are not in this process; use read and '
            "write, or connect through the local door",
            reason="UNIMPLEMENTED",
            name=self.name,
        )

    def __getitem__(self, key: int | slice) -> int | bytes:
        if isinstance(key, slice):
            pos, length = self._range(key)
            return self.read(pos, length)
        return self.read(self._index(key), 1)[0]

    def __setitem__(self, key: int | slice, value: Any) -> None:
        if not isinstance(key, slice):
            self._session.call(
                self._calls.word(
                    "Store", "u8", self._index(key), value=self._calls.value("u8", value)
                )
            )
            return
        pos, length = self._range(key)
        data = bytes_of(value)
        if data.nbytes != length:
            raise errors.by_name(
                "INVALID_ARGUMENT",
                f'area "{self.name}": a slice of {length} bytes cannot take {data.nbytes}; an area does not change '
                "its size",
                self.name,
            )
        self.write(pos, data)

    def _index(self, key: int) -> int:
        index = key.__index__()
        at = index + self.size if index < 0 else index
        if not 0 <= at < self.size:
            raise errors.by_name(
                "OUT_OF_BOUNDS",
                f'area "{self.name}": the index is not inside its {self.size} bytes',
                self.name,
            )
        return at

    def _range(self, key: slice) -> tuple[int, int]:
        start, stop, step = key.indices(self.size)
        if step != 1:
            raise errors.by_name(
                "INVALID_ARGUMENT", f'area "{self.name}": a slice must have step 1', self.name
            )
        return start, max(stop - start, 0)


def _add_word_methods(word_type: str) -> None:
    def load(self: NetworkArea, pos: int, /) -> int:
        call = self._calls.word("Load", word_type, pos, True)
        return number_of(self._session.call(call).value)

    def store(self: NetworkArea, pos: int, value: int, /) -> None:
        calls = self._calls
        self._session.call(calls.word("Store", word_type, pos, value=calls.value(word_type, value)))

    def add(self: NetworkArea, pos: int, delta: int = 1, /) -> int:
        calls = self._calls
        call = calls.word("Add", word_type, pos, delta=calls.delta(delta))
        return number_of(self._session.call(call).value)

    def compare_exchange(
        self: NetworkArea, pos: int, expected: int, desired: int
    ) -> CompareExchangeResult:
        calls = self._calls
        call = calls.word(
            "CompareExchange",
            word_type,
            pos,
            expected=calls.value(word_type, expected),
            desired=calls.value(word_type, desired),
        )
        response = self._session.call(call)
        return CompareExchangeResult(response.exchanged, number_of(response.found))

    setattr(NetworkArea, f"load_{word_type}", load)
    setattr(NetworkArea, f"store_{word_type}", store)
    setattr(NetworkArea, f"add_{word_type}", add)
    setattr(NetworkArea, f"compare_exchange_{word_type}", compare_exchange)
    for operator, verb in enumerate(("and", "or", "xor"), start=1):
        setattr(NetworkArea, f"bitwise_{verb}_{word_type}", _bitwise(word_type, operator))


def _bitwise(word_type: str, operator: int) -> Any:
    def bitwise(self: NetworkArea, pos: int, operand: int, /) -> int:
        calls = self._calls
        call = calls.word(
            "Bitwise", word_type, pos, operator=operator, operand=calls.value(word_type, operand)
        )
        return number_of(self._session.call(call).value)

    return bitwise


for _word_type in WORD_TYPES:
    _add_word_methods(_word_type)
