"""Python's part of the codec: the types that have no form of their own on the wire.

The extension writes and reads None, bool, int, float, str, bytes, list, dict, tuple and set by itself and asks ``reduce`` and
``restore`` here for anything else. Nothing here runs code that a value names: a class must have been registered.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import sys
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

from . import errors

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_PLAIN, _TAGGED, _TIMESTAMP, _TENSOR = range(4)  # The forms that the extension knows.
_DTYPES = {  # (kind of number, bytes of one) -> dtype
    ("?", 1): "bool",
    **{("i", n): f"int{8 * n}" for n in (1, 2, 4, 8)},
    **{("u", n): f"uint{8 * n}" for n in (1, 2, 4, 8)},
    **{("f", n): f"float{8 * n}" for n in (2, 4, 8)},
    **{("c", n): f"complex{8 * n}" for n in (8, 16)},
}
_KINDS = {  # The letters of the buffer protocol.
    "?": "?",
    **dict.fromkeys("bhilqn", "i"),
    **dict.fromkeys("BHILQN", "u"),
    **dict.fromkeys("efd", "f"),
    **dict.fromkeys(("Zf", "Zd"), "c"),
}
_STRUCT_LETTERS = {
    "bool": "?", "int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B", "uint16": "H",
    "uint32": "I", "uint64": "Q", "float16": "e", "float32": "f", "float64": "d",
}
_Class = TypeVar("_Class", bound=type)


class Tagged:
    """A value with a tag that this program does not know; stored again, it is the same value.

    ``tag`` names the kind ("dataclass", "money", …), ``value`` is what it is made of.
    """

    __slots__ = ("tag", "value")

    def __init__(self, tag: str, value: Any) -> None:
        self.tag = tag
        self.value = value

    def __repr__(self) -> str:
        return f"Tagged({self.tag!r}, {self.value!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tagged):
            return NotImplemented
        return self.tag == other.tag and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash((self.tag, self.value))


class Tensor:
    """An array of numbers where numpy is not installed: ``dtype`` by numpy's name, ``shape``, and ``data`` in C order.

    ``memoryview(tensor)`` has the numbers with their shape; complex numbers and those of 16 bits as bytes.
    """

    __slots__ = ("dtype", "shape", "data")

    def __init__(self, dtype: str, shape: tuple[int, ...], data: bytes) -> None:
        self.dtype = dtype
        self.shape = tuple(shape)
        self.data = bytes(data)

    def memoryview(self) -> memoryview:
        """The numbers, with their shape where the type has a letter in module struct."""
        letter = _STRUCT_LETTERS.get(self.dtype)
        flat = memoryview(self.data)
        if letter is None or not self.shape or 0 in self.shape:
            return flat
        return flat.cast(letter, list(self.shape))  # type: ignore[call-overload, no-any-return]

    def __repr__(self) -> str:
        return f"Tensor({self.dtype!r}, {self.shape!r}, {len(self.data)} bytes)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tensor):
            return NotImplemented
        return (self.dtype, self.shape, self.data) == (other.dtype, other.shape, other.data)

    def __hash__(self) -> int:
        return hash((self.dtype, self.shape, self.data))


class _Registration(NamedTuple):
    cls: type
    name: str
    tag: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


_by_class: dict[type, _Registration] = {}
_by_name: dict[tuple[str, str], _Registration] = {}


def register(
    cls: _Class,
    *,
    name: str | None = None,
    encode: Callable[[Any], Any] | None = None,
    decode: Callable[[Any], Any] | None = None,
) -> _Class:
    """Lets objects of a class be stored and come back as that class. Also a decorator.

    A dataclass is stored by its fields, a member of an Enum by its name. For any other class, ``encode`` turns an object
    into a value and ``decode`` the value into an object again. ``name`` is what the stored value calls the class, by default its
    qualified name; every program that registers the same name gets its own class.
    """
    if not isinstance(cls, type):
        raise TypeError(f"register() takes a class, not {cls!r}")
    name = f"{cls.__module__}.{cls.__qualname__}" if name is None else name
    if (encode is None) != (decode is None):
        raise TypeError(f"registering {name}: give both encode and decode, or none of them")
    if encode is not None and decode is not None:
        found = _Registration(cls, name, "object", encode, decode)
    elif issubclass(cls, enum.Enum):
        found = _Registration(cls, name, "enum", _enum_content, lambda content: _member(cls, content))
    elif dataclasses.is_dataclass(cls):
        found = _Registration(cls, name, "dataclass", _fields, lambda content: _dataclass(cls, content))
    else:
        raise TypeError(f"registering {name}: it is no dataclass and no Enum, so give encode and decode")
    taken = _by_name.get((found.tag, name))
    if taken is not None and taken.cls is not cls:
        raise ValueError(f"{name} is registered for {taken.cls!r} already; choose another name")
    _by_class[cls] = found
    _by_name[found.tag, name] = found
    return cls


def _enum_content(member: Any) -> Any:
    # A combination of flags has no name of its own.
    return member.name if member.name in type(member).__members__ else [member.value]


def _member(cls: Any, content: Any) -> Any:
    return cls[content] if isinstance(content, str) else cls(content[0])


def _fields(instance: Any) -> dict[str, Any]:
    return {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}


def _dataclass(cls: Any, content: Any) -> Any:
    made_by_init = {field.name for field in dataclasses.fields(cls) if field.init}
    instance = cls(**{name: value for name, value in content.items() if name in made_by_init})
    for field in dataclasses.fields(cls):
        if not field.init and field.name in content:
            object.__setattr__(instance, field.name, content[field.name])
    return instance


def reduce(value: Any) -> Any:
    """How to write an object: a form, the reason why it cannot be written, or None (as the type that it derives from)."""
    kind = type(value)
    found = _by_class.get(kind)
    if found is not None:
        return _TAGGED, found.tag, [found.name, found.encode(value)]
    simple = _SIMPLE.get(kind)
    if simple is not None:
        return simple(value)
    if isinstance(value, enum.Enum):
        return (
            f"{value!r} is a member of an Enum that is not registered; register the class with "
            f"statehouse.register({kind.__qualname__}), or store its .name or .value"
        )
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _TAGGED, "dataclass", [f"{kind.__module__}.{kind.__qualname__}", _fields(value)]
    if isinstance(value, tuple(_SIMPLE)):
        return next(form(value) for base, form in _SIMPLE.items() if isinstance(value, base))
    if isinstance(value, (str, int, float, list, tuple, bytes, bytearray, dict, set, frozenset)):
        return None
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        plain = value.item()
        return (_PLAIN, plain) if type(plain) is not kind else f"numpy's {kind.__name__} cannot be stored"
    return _array_form(value)


def _datetime_form(value: datetime.datetime) -> Any:
    if value.tzinfo is datetime.timezone.utc:
        since = value - _EPOCH
        return _TIMESTAMP, since.days * 86_400 + since.seconds, since.microseconds * 1000
    return _TAGGED, "datetime", [value.isoformat(), 1] if value.fold else value.isoformat()


def _tensor_form(value: Tensor) -> Any:
    return _TENSOR, value.dtype, value.shape, value.data


def _array_form(value: Any) -> Any:
    """The form of what has the buffer protocol."""
    try:
        view = memoryview(value)
    except (TypeError, ValueError, BufferError):
        return None
    with view:
        letters = view.format.removeprefix("@").removeprefix("=")
        if letters.startswith("<"):
            letters = letters[1:]
        dtype = _DTYPES.get((_KINDS.get(letters, ""), view.itemsize))
        if dtype is None:
            return (
                f"an array whose numbers have the format {view.format!r} cannot be stored; use one of numpy's "
                f"types {', '.join(_DTYPES.values())} in this machine's byte order"
            )
        return _TENSOR, dtype, view.shape, view.tobytes("C")


_SIMPLE: dict[type, Callable[[Any], Any]] = {
    decimal.Decimal: lambda value: (_TAGGED, "decimal", str(value)),
    uuid.UUID: lambda value: (_TAGGED, "uuid", str(value)),
    datetime.datetime: _datetime_form,  # Before date, which it derives from.
    datetime.date: lambda value: (_TAGGED, "date", value.isoformat()),
    datetime.time: lambda value: (
        _TAGGED, "time", [value.isoformat(), 1] if value.fold else value.isoformat()
    ),
    datetime.timedelta: lambda value: (
        _TAGGED, "timedelta", [value.days, value.seconds, value.microseconds]
    ),
    Tagged: lambda value: (_TAGGED, _check_tag(value.tag), value.value),
    Tensor: _tensor_form,
}


def _check_tag(tag: Any) -> str:
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    if not isinstance(tag, str) or not 1 <= len(tag) <= 64 or not set(tag) <= allowed:
        raise errors.by_name(
            "VALUE_INVALID", f"the tag {tag!r} is not 1 to 64 characters of a-z, 0-9, '.', '_' and '-'"
        )
    return tag


def _with_fold(read: Callable[[str], Any], content: Any) -> Any:
    if isinstance(content, list):
        return read(content[0]).replace(fold=content[1])
    return read(content)


_RESTORE: dict[str, Callable[[Any], Any]] = {
    "decimal": decimal.Decimal,
    "uuid": uuid.UUID,
    "datetime": lambda content: _with_fold(datetime.datetime.fromisoformat, content),
    "date": datetime.date.fromisoformat,
    "time": lambda content: _with_fold(datetime.time.fromisoformat, content),
    "timedelta": lambda content: datetime.timedelta(content[0], content[1], content[2]),
}


def restore(tag: str, content: Any) -> Any:
    """The object that a tagged value stands for; Tagged where this program does not know it."""
    read = _RESTORE.get(tag)
    if read is not None:
        try:
            return read(content)
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
            return Tagged(tag, content)  # Another program means something else by this tag.
    if tag in ("dataclass", "enum", "object") and isinstance(content, list) and len(content) == 2:
        name, inner = content
        found = _by_name.get((tag, name)) if isinstance(name, str) else None
        if found is not None:
            try:
                return found.decode(inner)
            except Exception as error:
                raise errors.by_name(
                    "VALUE_INVALID",
                    f"a stored {name} cannot be made from {inner!r} ({error}); did the class change?",
                ) from error
    return Tagged(tag, content)


def timestamp(seconds: int, nanos: int) -> datetime.datetime:
    """A point in time; what is below a microsecond, which Python's type cannot hold, is cut."""
    return _EPOCH + datetime.timedelta(seconds=seconds, microseconds=nanos // 1000)


def tensor(dtype: str, shape: tuple[int, ...], data: bytes) -> Any:
    """A numpy array that cannot be written to, so that no change is lost by mistake; without numpy a Tensor."""
    try:
        import numpy
    except ImportError:
        return Tensor(dtype, shape, data)
    return cast(Any, numpy.frombuffer(data, dtype=dtype).reshape(shape))
