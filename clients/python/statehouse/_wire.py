"""The little of the protobuf wire format that is needed to take a google.rpc.Status apart."""

from __future__ import annotations

from collections.abc import Iterator


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ValueError("a varint is too long")


def bytes_fields(data: bytes, field: int) -> Iterator[bytes]:
    """The values of every length-delimited field ``field``. Stops at the first malformed byte."""
    at = 0
    try:
        while at < len(data):
            key, at = _varint(data, at)
            kind = key & 7
            if kind == 0:
                _, at = _varint(data, at)
            elif kind == 2:
                length, at = _varint(data, at)
                if at + length > len(data):
                    return
                if key >> 3 == field:
                    yield data[at : at + length]
                at += length
            else:
                return
    except (IndexError, ValueError):
        return


def error_details(rpc_status: bytes) -> Iterator[bytes]:
    """The serialized ErrorDetail messages inside a serialized google.rpc.Status."""
    for any_message in bytes_fields(rpc_status, 3):
        for type_url in bytes_fields(any_message, 1):
            if type_url.endswith(b"/statehouse.v1.ErrorDetail"):
                yield from bytes_fields(any_message, 2)
