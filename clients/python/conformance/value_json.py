"""Values as JSON (docs/formats/value.md) and as Python's objects."""

from __future__ import annotations

import base64
import datetime
import json
import math
from collections.abc import Callable
from typing import Any

import statehouse

_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def from_json(text: str) -> Any:
    """The object that a text stands for."""
    return _object(json.loads(text))


def _object(read: Any) -> Any:
    if isinstance(read, list):
        return [_object(item) for item in read]
    if not isinstance(read, dict):
        return read
    form, content = next(iter(read.items()), ("", None))
    if len(read) == 1 and form in _FORMS:
        return _FORMS[form](content)
    return {key: _object(item) for key, item in read.items()}


def _tagged(content: list[Any]) -> Any:
    tag, inner = content[0], _object(content[1])
    return tuple(inner) if tag == "tuple" else statehouse.Tagged(tag, inner)


_FORMS: dict[str, Callable[[Any], Any]] = {
    "$bytes": base64.b64decode,
    "$float": lambda name: _FLOATS[name],
    "$timestamp": datetime.datetime.fromisoformat,
    "$tensor": lambda it: statehouse.Tensor(it["dtype"], tuple(it["shape"]), base64.b64decode(it["data"])),
    "$tag": _tagged,
    "$map": lambda members: {key: _object(item) for key, item in members.items()},
}


def to_json(value: Any) -> Any:
    """What json.dumps writes for an object as it was read."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, tuple):
        return {"$tag": ["tuple", [to_json(item) for item in value]]}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        members = {key: to_json(item) for key, item in value.items()}
        is_form = len(members) == 1 and next(iter(members)).startswith("$")
        return {"$map": members} if is_form else members
    if isinstance(value, datetime.datetime):
        text = value.replace(tzinfo=None).isoformat()
        return {"$timestamp": (text.rstrip("0") if "." in text else text) + "Z"}
    if isinstance(value, statehouse.Tagged):
        return {"$tag": [value.tag, to_json(value.value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    data = value.data if isinstance(value, statehouse.Tensor) else value.tobytes()  # An array of numpy where it is installed.
    content = {"dtype": str(value.dtype), "shape": list(value.shape), "data": base64.b64encode(data).decode()}
    return {"$tensor": content}
