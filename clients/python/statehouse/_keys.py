"""Keys that are no texts, for dicts that were opened with ``keys="any"``: written as texts, and read back.

A text stands for itself unless it is empty or begins with NUL. Everything else begins with NUL and a letter:
``s`` a text, ``i`` an int in decimal, ``b`` bytes in base64, ``t`` a tuple: each item as its length, ``:`` and its text.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from . import errors

_MARK = "\0"


def encode_key(key: Any) -> str:
    """The text that the service knows a key by. A bool is the int that it equals."""
    if isinstance(key, str):
        return _MARK + "s" + key if not key or key[0] == _MARK else str(key)
    if isinstance(key, int):
        return f"{_MARK}i{int(key)}"
    if isinstance(key, bytes):
        return _MARK + "b" + base64.b64encode(key).decode()
    if isinstance(key, tuple):
        items = [encode_key(item) for item in key]
        return _MARK + "t" + "".join(f"{len(item)}:{item}" for item in items)
    raise TypeError(
        f"a key must be a str, int, bytes or a tuple of these, not {type(key).__name__}: it must mean the "
        "same in every program"
    )


def decode_key(text: str) -> Any:
    """The key that a text stands for; a text that no key gives stands for itself."""
    if text[:1] != _MARK:
        return text
    kind, rest = text[1:2], text[2:]
    try:
        if kind == "s":
            return rest
        if kind == "i":
            return int(rest)
        if kind == "b":
            return base64.b64decode(rest, validate=True)
        if kind == "t":
            return _decode_items(rest)
    except (ValueError, binascii.Error):
        return text
    return text


def _decode_items(rest: str) -> tuple[Any, ...]:
    items = []
    while rest:
        length, _, rest = rest.partition(":")
        size = int(length)
        if not 0 <= size <= len(rest):
            raise ValueError("an item of a tuple is cut off")
        items.append(decode_key(rest[:size]))
        rest = rest[size:]
    return tuple(items)


def check_key(key: Any) -> str:
    """A key of a dict whose keys are texts."""
    if isinstance(key, str):
        return key
    raise TypeError(
        f"a key must be a str, not {type(key).__name__}: {key!r}; use a text, or open the dict with keys=\"any\""
    )


def missing(name: str, key: Any) -> errors.Error:
    """The KeyError for a key that is not there; as with a dict, its first argument is the key."""
    error = errors.by_name("KEY_NOT_FOUND", f'dict "{name}": there is no key {key!r}', name)
    error.args = (key,)
    return error
