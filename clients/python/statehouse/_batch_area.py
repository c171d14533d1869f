"""The areas of a batch: the operations of an area, noted in place of carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from . import _batch_wire, errors
from ._area_calls import AreaCalls, bytes_of, number_of
from ._batch_operations import ONCE, Add, note_call
from ._control import Call
from ._local import CompareExchangeResult, Noted, Operation
from .types import WORD_TYPES, BytesLike

_ANY_SIZE = 1 << 64  # What the service knows: it judges the bounds.


class BatchArea:
    """An area of a batch: ``batch.area(name)``. The methods are those of an Area, for words (``load_u8``, ``add_i64``, …) and ranges; they
    note an operation and give it back, and its ``result()`` is what the area's method would return or raise. OutOfBounds comes with the
    result, except for what no area can hold.

    What is wrong with an argument is raised at once, and then nothing is noted. Threads: one at a time, as for the batch.
    """

    def __init__(self, noted: Noted, name: str, place: int) -> None:
        """Not for users: Batch.area() makes it. ``place`` is that among the batch's names; -1: it has no room for this one."""
        self._noted = noted
        self._calls = AreaCalls(name, _ANY_SIZE)
        self._place = place

    @property
    def name(self) -> str:
        """The area's name."""
        return self._calls.name

    def __repr__(self) -> str:
        return f"<statehouse area {self.name} of a batch>"

    def read(self, pos: int, len: int) -> Operation[bytes]:
        """``len`` bytes, at most 1 MiB."""
        return note_call(self._noted, self._one(self._calls.reads(pos, len)), lambda answer: answer.data)

    def write(self, pos: int, bytes: BytesLike, /, *, fence: int | None = None) -> Operation[None]:
        """Writes a range of at most 1 MiB."""
        return note_call(self._noted, self._one(self._calls.writes(pos, bytes_of(bytes), fence)), _nothing)

    def fill(self, pos: int, len: int, value: int, /, *, fence: int | None = None) -> Operation[None]:
        """Sets ``len`` bytes to ``value``."""
        return note_call(self._noted, self._calls.fill(pos, len, value, fence), _nothing)

    def _one(self, calls: list[Call]) -> Call:
        if len(calls) > 1:
            raise errors.by_name(
                "LIMIT_EXCEEDED",
                f'area "{self.name}": a range of an operation of a batch has at most 1 MiB; note several',
                self.name,
            )
        return calls[0]

    def _add(self, word_type: str, kind: int, pos: int, delta: int, fence: int | None) -> Operation[int]:
        if self._place < 0 or fence is not None:
            return note_call(self._noted, self._calls.add(word_type, pos, delta, fence), _word)
        part = _batch_wire.add(self._place, self._calls.position(pos), kind, self._calls.delta_of(delta))
        return self._noted.note(Add(), part, ONCE)

    if TYPE_CHECKING:  # _add_word_methods makes them.
        load_u8: _Load
        load_u16: _Load
        load_u32: _Load
        load_u64: _Load
        load_i8: _Load
        load_i16: _Load
        load_i32: _Load
        load_i64: _Load
        store_u8: _Store
        store_u16: _Store
        store_u32: _Store
        store_u64: _Store
        store_i8: _Store
        store_i16: _Store
        store_i32: _Store
        store_i64: _Store
        add_u8: _Add
        add_u16: _Add
        add_u32: _Add
        add_u64: _Add
        add_i8: _Add
        add_i16: _Add
        add_i32: _Add
        add_i64: _Add
        compare_exchange_u8: _CompareExchange
        compare_exchange_u16: _CompareExchange
        compare_exchange_u32: _CompareExchange
        compare_exchange_u64: _CompareExchange
        compare_exchange_i8: _CompareExchange
        compare_exchange_i16: _CompareExchange
        compare_exchange_i32: _CompareExchange
        compare_exchange_i64: _CompareExchange
        bitwise_and_u8: _Bitwise
        bitwise_and_u16: _Bitwise
        bitwise_and_u32: _Bitwise
        bitwise_and_u64: _Bitwise
        bitwise_and_i8: _Bitwise
        bitwise_and_i16: _Bitwise
        bitwise_and_i32: _Bitwise
        bitwise_and_i64: _Bitwise
        bitwise_or_u8: _Bitwise
        bitwise_or_u16: _Bitwise
        bitwise_or_u32: _Bitwise
        bitwise_or_u64: _Bitwise
        bitwise_or_i8: _Bitwise
        bitwise_or_i16: _Bitwise
        bitwise_or_i32: _Bitwise
        bitwise_or_i64: _Bitwise
        bitwise_xor_u8: _Bitwise
        bitwise_xor_u16: _Bitwise
        bitwise_xor_u32: _Bitwise
        bitwise_xor_u64: _Bitwise
        bitwise_xor_i8: _Bitwise
        bitwise_xor_i16: _Bitwise
        bitwise_xor_i32: _Bitwise
        bitwise_xor_i64: _Bitwise


class _Load(Protocol):
    def __call__(self, pos: int, /) -> Operation[int]: ...


class _Store(Protocol):
    def __call__(self, pos: int, value: int, /, *, fence: int | None = None) -> Operation[None]: ...


class _Add(Protocol):
    def __call__(self, pos: int, delta: int = 1, /, *, fence: int | None = None) -> Operation[int]: ...


class _CompareExchange(Protocol):
    def __call__(
        self, pos: int, expected: int, desired: int, *, fence: int | None = None
    ) -> Operation[CompareExchangeResult]: ...


class _Bitwise(Protocol):
    def __call__(self, pos: int, operand: int, /, *, fence: int | None = None) -> Operation[int]: ...


def _nothing(answer: Any) -> None:
    return None


def _word(answer: Any) -> int:
    return number_of(answer.value)


def _exchanged(answer: Any) -> CompareExchangeResult:
    return CompareExchangeResult(answer.exchanged, number_of(answer.found))


def _add_word_methods(word_type: str, kind: int) -> None:
    def load(self: BatchArea, pos: int, /) -> Operation[int]:
        return note_call(self._noted, self._calls.load(word_type, pos), _word)

    def store(self: BatchArea, pos: int, value: int, /, *, fence: int | None = None) -> Operation[None]:
        return note_call(self._noted, self._calls.store(word_type, pos, value, fence), _nothing)

    def add(self: BatchArea, pos: int, delta: int = 1, /, *, fence: int | None = None) -> Operation[int]:
        return self._add(word_type, kind, pos, delta, fence)

    def compare_exchange(
        self: BatchArea, pos: int, expected: int, desired: int, *, fence: int | None = None
    ) -> Operation[CompareExchangeResult]:
        call = self._calls.compare_exchange(word_type, pos, expected, desired, fence)
        return note_call(self._noted, call, _exchanged)

    def bitwise(operator: str) -> Any:
        def combine(self: BatchArea, pos: int, operand: int, /, *, fence: int | None = None) -> Operation[int]:
            return note_call(self._noted, self._calls.bitwise(operator, word_type, pos, operand, fence), _word)

        return combine

    setattr(BatchArea, f"load_{word_type}", load)
    setattr(BatchArea, f"store_{word_type}", store)
    setattr(BatchArea, f"add_{word_type}", add)
    setattr(BatchArea, f"compare_exchange_{word_type}", compare_exchange)
    for operator in ("and", "or", "xor"):
        setattr(BatchArea, f"bitwise_{operator}_{word_type}", bitwise(operator))


for _kind, _word_type in enumerate(WORD_TYPES, start=1):
    _add_word_methods(_word_type, _kind)
