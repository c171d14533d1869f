"""The bytes of a batch (batch.proto) that the extension does not write and read: what is around its operations, and failures.

Fields stand in the order of their numbers, each once, as protobuf's libraries write them: that is the form which the service reads
without building messages.
"""

from __future__ import annotations

from typing import Any

from ._wire import fields, put_varint, varint

NAMES_MAX = 64  # Of one batch.
ADD = 4  # Fields of Operation and OperationResult.
FAILURE = 15


def field(tag: bytes, content: bytes) -> bytes:
    """A field of bytes."""
    return tag + put_varint(len(content)) + content


def operation(kind: int, message: bytes) -> bytes:
    """An operation of a Batch: the message as the field ``kind`` of Operation."""
    return field(b"\x22", field(put_varint(kind << 3 | 2), message))


def add(place: int, pos: int, word_type: int, delta: int) -> bytes:
    """WordAdd as an operation."""
    zigzag = delta << 1 if delta >= 0 else (-delta << 1) - 1
    numbers = ((b"\x08", place), (b"\x10", pos), (b"\x18", word_type))
    message = b"".join([tag + put_varint(number) for tag, number in numbers if number])
    return operation(ADD, message + b"\x20" + put_varint(zigzag))


def request(names: bytes, session: int, sequence: int, stop_at_failure: bool, operations: bytes) -> bytes:
    """RunBatchRequest; with a ``session`` of 0 it has no operation id."""
    identity = b""
    if session:
        identity = field(b"\x12", b"\x09" + session.to_bytes(8, "little") + b"\x10" + put_varint(sequence))
    stop = b"\x18\x01" if stop_at_failure else b""
    return field(b"\x0a", b"".join((names, identity, stop, operations)))


def word_of(result: bytes) -> int:
    """The number of a WordAddResult: unsigned_value or signed_value."""
    for _, value in fields(result):
        if isinstance(value, bytes) and value:
            number, _ = varint(value, 1)
            return number - (1 << 64) if value[0] == 0x10 and number >> 63 else number
    raise ValueError("a word's result has no number")


def failure_of(failure: bytes) -> tuple[int, str, str]:
    """Of an OperationFailure: the reason's number, the message, and the name of the object."""
    members: dict[int, Any] = dict(fields(failure))
    detail: dict[int, Any] = dict(fields(members.get(1, b"")))
    message, name = (text.decode(errors="replace") for text in (members.get(2, b""), detail.get(2, b"")))
    return detail.get(1, 0), message, name


def is_failure(kind: int, result: bytes, reason: int) -> bool:
    """Whether a result is a failure for this reason."""
    return kind == FAILURE and failure_of(result)[0] == reason
