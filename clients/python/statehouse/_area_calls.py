"""The calls of one area over the network: checks what the caller gave, and builds the messages."""

from __future__ import annotations

import functools
import operator
import time
from typing import Any

from . import errors
from ._control import AREAS, Call, area_pb2
from ._dict_verbs import fence_of
from .types import WORD_TYPES, BytesLike

_PIECE_BYTES = 1 << 20  # A longer range takes several calls.
_WAIT_SLICE_S = 60.0  # A longer wait takes several calls.
_OPERATORS = {"and": 1, "or": 2, "xor": 3}


class AreaCalls:
    """The calls of one area, for the blocking and the asyncio client: checks what the caller gave and builds messages."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size

    @functools.cached_property
    def pb(self) -> Any:
        """The generated messages; words that are added to in a batch need none."""
        return area_pb2()

    def _word(
        self, verb: str, word_type: str, pos: int, idempotent: bool = False, **fields: Any
    ) -> Call:
        request_type = getattr(self.pb, f"{verb}WordRequest")
        request = request_type(
            name=self.name,
            pos=self.position(pos),
            type=WORD_TYPES.index(word_type) + 1,
            **fields,
        )
        response_type = getattr(self.pb, f"{verb}WordResponse")
        return Call(f"{AREAS}{verb}Word", request, response_type, idempotent, self.name)

    def load(self, word_type: str, pos: int) -> Call:
        return self._word("Load", word_type, pos, True)

    def store(self, word_type: str, pos: int, value: int, fence: int | None = None) -> Call:
        return self._word("Store", word_type, pos, value=self._value(word_type, value), fence=fence_of(fence))

    def add(self, word_type: str, pos: int, delta: int, fence: int | None = None) -> Call:
        return self._word("Add", word_type, pos, delta=self.delta_of(delta), fence=fence_of(fence))

    def compare_exchange(
        self, word_type: str, pos: int, expected: int, desired: int, fence: int | None = None
    ) -> Call:
        return self._word(
            "CompareExchange",
            word_type,
            pos,
            expected=self._value(word_type, expected),
            desired=self._value(word_type, desired),
            fence=fence_of(fence),
        )

    def bitwise(self, operator: str, word_type: str, pos: int, operand: int, fence: int | None = None) -> Call:
        return self._word(
            "Bitwise",
            word_type,
            pos,
            operator=_OPERATORS[operator],
            operand=self._value(word_type, operand),
            fence=fence_of(fence),
        )

    def _value(self, word_type: str, number: int) -> Any:
        number = operator.index(number)
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

    def delta_of(self, number: int) -> int:
        number = operator.index(number)
        if not -(1 << 63) <= number < 1 << 64:
            raise errors.by_name(
                "VALUE_OUT_OF_RANGE",
                f'area "{self.name}": delta is {number}; it must fit 64 bits',
                self.name,
            )
        return number - (1 << 64) if number >= 1 << 63 else number

    def position(self, number: int, what: str = "pos") -> int:
        number = operator.index(number)
        if not 0 <= number < 1 << 64:
            raise errors.by_name(
                "OUT_OF_BOUNDS",
                f'area "{self.name}": {what} is {number}; it must be a number of bytes '
                "inside the area",
                self.name,
            )
        return number

    def _bounds(self, pos: int, length: int) -> None:
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
        self._bounds(pos, length)
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

    def writes(self, pos: int, data: memoryview, fence: int | None = None) -> list[Call]:
        pos = self.position(pos)
        token = fence_of(fence)
        self._bounds(pos, data.nbytes)
        return [
            Call(
                AREAS + "WriteArea",
                self.pb.WriteAreaRequest(
                    name=self.name, pos=pos + at, data=bytes(data[at : at + size]), fence=token
                ),
                self.pb.WriteAreaResponse,
                False,
                self.name,
            )
            for at, size in _pieces(data.nbytes)
        ]

    def fill(self, pos: int, length: int, value: int, fence: int | None = None) -> Call:
        pos = self.position(pos)
        length = self.position(length, "len")
        self._value("u8", value)
        request = self.pb.FillAreaRequest(
            name=self.name, pos=pos, len=length, value=value, fence=fence_of(fence)
        )
        return Call(AREAS + "FillArea", request, self.pb.FillAreaResponse, False, self.name)

    def wait(self, since: int | None, timeout: float) -> Call:
        request = self.pb.WaitAreaRequest(name=self.name)
        if since is not None:
            if not 0 <= operator.index(since) < 1 << 64:
                raise errors.by_name(
                    "INVALID_ARGUMENT",
                    "`since` must be an update counter, 0 to 2^64 - 1",
                    self.name,
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
