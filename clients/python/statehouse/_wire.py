"""The little of the protobuf wire format that is written and read by hand: batches, and the details of a google.rpc.Status."""

from __future__ import annotations

from collections.abc import Iterator

_ONE_BYTE = [bytes((number,)) for number in range(0x80)]


def put_varint(number: int) -> bytes:
    """REQUIRES: ``number`` is 0 or more."""
    if number < 0x80:
        return _ONE_BYTE[number]
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where it ends. IndexError and ValueError where it is damaged."""
    number = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ValueError("a varint is too long")


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of every field that is a varint or length-delimited. Stops at the first malformed byte."""
    at = 0
    try:
        while at < len(data):
            key, at = varint(data, at)
            kind = key & 7
            if kind == 0:
                number, at = varint(data, at)
                yield key >> 3, number
            elif kind == 2:
                length, at = varint(data, at)
                if at + length > len(data):
                    return
                yield key >> 3, data[at : at + length]
                at += length
            else:
                return
    except (IndexError, ValueError):
        return


def bytes_fields(data: bytes, field: int) -> Iterator[bytes]:
    """The values of every length-delimited field ``field``. Stops at the first malformed byte."""
    for number, value in fields(data):
        if number == field and isinstance(value, bytes):
            yield value


def error_details(rpc_status: bytes) -> Iterator[bytes]:
    """The serialized ErrorDetail messages inside a serialized google.rpc.Status."""
    for any_message in bytes_fields(rpc_status, 3):
        for type_url in bytes_fields(any_message, 1):
            if type_url.endswith(b"/statehouse.v1.ErrorDetail"):
                yield from bytes_fields(any_message, 2)
