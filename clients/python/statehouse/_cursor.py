"""Places inside a shared dict: ``d.at("a", "b", 1)``, for the blocking client and for asyncio."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import errors
from ._dict_verbs import MISSING, TRIES, Edited, Verb, check_path


_UNKNOWN: Any = object()
_END = (1 << 63) - 1
# What an edit's value must be; None: it has none.
_EDIT_VALUES: dict[str, Any] = {
    "set": object, "delete": None, "append": object, "extend": list, "insert": object, "pop": None, "remove": object, "merge": dict,
    "clear": None, "slice": list, "set_default": object, "append_string": str, "append_bytes": bytes,
}  # fmt: skip


class Place:
    """A place and its verbs, which the two kinds of Cursor carry out in their ways."""

    __slots__ = ("_shared", "_key", "_path")

    def __init__(self, shared: Any, key: Any, path: tuple[Any, ...]) -> None:
        """Not for users: at() makes it."""
        self._shared = shared
        self._key = key
        self._path = check_path(path)

    def __repr__(self) -> str:
        steps = "".join(f"[{step!r}]" for step in (self._key, *self._path))
        return f"<place {steps} of the dict {self._shared.name}>"

    def _edit(self, kind: str, value: Any = MISSING, **options: Any) -> Verb[Edited]:
        verb: Verb[Edited] = self._shared._edit(self._key, self._path, kind, value, **options)
        return verb

    def _length(self, kind: str, value: Any, **options: Any) -> Verb[int]:
        return (yield from self._edit(kind, value, **options)).length

    def _fetch(self) -> Verb[Any]:
        return (yield from self._shared._fetch(self._key, self._path))

    def _get(self, default: Any) -> Verb[Any]:
        try:
            return (yield from self._fetch())
        except (errors.KeyNotFound, errors.PathNotFound):
            return default

    def _exists(self) -> Verb[bool]:
        return (yield from self._get(MISSING)) is not MISSING

    def _set(self, value: Any, create: bool, if_version: int | None) -> Verb[None]:
        if self._path or if_version is not None:
            yield from self._edit("set", value, create=create or not self._path, if_version=if_version)
        else:
            yield from self._shared._set(self._key, value)

    def _setdefault(self, default: Any, create: bool) -> Verb[Any]:
        return (yield from self._edit("set_default", default, create=create or not self._path)).result

    def _delete(self, if_version: int | None) -> Verb[bool]:
        if not self._path:
            return bool((yield from self._shared._delete(self._key, if_version, None)))
        try:
            yield from self._edit("delete", if_version=if_version)
        except (errors.KeyNotFound, errors.PathNotFound):
            return False
        return True

    def _pop(self, default: Any, if_version: int | None) -> Verb[Any]:
        if not self._path and if_version is not None:
            raise TypeError("pop() with if_version needs a place inside a value; use delete() for an entry")
        if not self._path:
            return (yield from self._shared._pop(self._key, default))
        try:
            return (yield from self._edit("delete", if_version=if_version)).result
        except (errors.KeyNotFound, errors.PathNotFound):
            if default is MISSING:
                raise
            return default

    def _incr(self, delta: Any, default: Any, low: Any, high: Any) -> Verb[Any]:
        return (yield from self._shared._incr(self._key, delta, self._path, default, low, high))

    def _remove(self, value: Any) -> Verb[None]:
        try:
            yield from self._edit("remove", value)
        except errors.PathNotFound as error:
            if not (yield from self._exists()):
                raise
            raise ValueError(f"{value!r} is not in the list at {self!r}") from error

    def _replace(self, old: Any, new: Any) -> Verb[bool]:
        if not self._path:
            return bool((yield from self._shared._replace(self._key, old, new)))
        wanted = self._shared._wire(old)
        for _ in range(TRIES):
            try:
                entry = yield "get", self._shared._key(self._key), self._path
            except errors.PathNotFound:
                return False
            if entry is None or entry[0] != wanted:
                return False
            try:
                yield from self._edit("set", new, if_version=entry[1])
            except errors.Conflict:
                continue  # The entry changed, perhaps elsewhere.
            return True
        raise self._shared._too_busy("replace()")

    def _change(self, kind: str, value: Any = MISSING) -> Verb[None]:
        yield from self._edit(kind, value)

    def _edit_as(
        self, kind: str, value: Any, start: int, stop: int | None, create: bool, if_version: int | None, fence: int | None
    ) -> Verb[Edited]:
        needs = _EDIT_VALUES.get(kind, _UNKNOWN)
        if needs is _UNKNOWN:
            raise ValueError(f"there is no edit {kind!r}; there are {', '.join(_EDIT_VALUES)}")
        if (needs is None) != (value is MISSING):
            raise TypeError(f"the edit {kind!r} takes {'no' if needs is None else 'a'} value")
        if needs is not None and not isinstance(value, needs):
            raise TypeError(f"the edit {kind!r} takes a {needs.__name__}, not {type(value).__name__}")
        end = _END if stop is None else stop
        return (yield from self._edit(kind, value, start=start, stop=end, create=create, if_version=if_version, fence=fence))


class Cursor(Place):
    """A place inside a shared dict: a key and the steps into its value. Each method is one atomic operation on what is there now; nothing
    is kept here. Values go in and out as ordinary objects.

    ``if_version`` refuses with Conflict where the entry changed since that version; use it where a step is a list's position. ``create``
    makes the dicts that are missing on the way, and the list that is appended to. Errors: KeyNotFound, PathNotFound (both are
    KeyErrors), TypeMismatch, Conflict, and those of SharedDict.
    """

    __slots__ = ()

    def _run(self, verb: Any) -> Any:
        return self._shared._run(verb)

    def at(self, *path: Any) -> Cursor:
        """A place further in."""
        return Cursor(self._shared, self._key, self._path + path)

    def get(self, default: Any = None) -> Any:
        """What is there, or ``default`` where there is nothing."""
        return self._run(self._get(default))

    def fetch(self) -> Any:
        """What is there. KeyNotFound, PathNotFound."""
        return self._run(self._fetch())

    def exists(self) -> bool:
        """Whether there is anything."""
        return bool(self._run(self._exists()))

    def set(self, value: Any, *, create: bool = False, if_version: int | None = None) -> None:
        """Puts a value there: a dict's key is added or replaced, a list's position must exist."""
        self._run(self._set(value, create, if_version))

    def setdefault(self, default: Any = None, *, create: bool = False) -> Any:
        """What is there; where there is nothing, ``default`` is put there first."""
        return self._run(self._setdefault(default, create))

    def replace(self, old: Any, new: Any) -> bool:
        """Puts ``new`` in the place of exactly ``old``, as ``SharedDict.replace`` does; False where something else is there, or nothing."""
        return bool(self._run(self._replace(old, new)))

    def delete(self, *, if_version: int | None = None) -> bool:
        """Takes away what is there; False where there is nothing."""
        return bool(self._run(self._delete(if_version)))

    def pop(self, default: Any = MISSING, *, if_version: int | None = None) -> Any:
        """Takes away what is there and returns it. To take the last item of a list, ``at(-1).pop()``."""
        return self._run(self._pop(default, if_version))

    def incr(self, delta: Any = 1, *, default: Any = 0, min: Any = None, max: Any = None) -> Any:
        """Adds to the number there and returns the new one."""
        return self._run(self._incr(delta, default, min, max))

    def append(self, value: Any, *, create: bool = False) -> int:
        """Adds to the end of the list there, and returns its length."""
        return int(self._run(self._length("append", value, create=create)))

    def extend(self, values: Iterable[Any], *, create: bool = False) -> int:
        """Adds several to the end of the list there, and returns its length."""
        return int(self._run(self._length("extend", list(values), create=create)))

    def insert(self, index: int, value: Any, *, if_version: int | None = None) -> int:
        """Inserts before a position of the list there, and returns its length."""
        return int(self._run(self._length("insert", value, start=index, if_version=if_version)))

    def remove(self, value: Any) -> None:
        """Removes the first item of the list there that is exactly this value. ValueError where there is none."""
        self._run(self._remove(value))

    def update(self, other: Any = (), /, **more: Any) -> None:
        """Sets keys of the dict there, all at once."""
        self._run(self._change("merge", dict(other, **more)))

    def clear(self) -> None:
        """Empties the list or dict there."""
        self._run(self._change("clear"))

    def append_text(self, text: str, *, create: bool = False) -> int:
        """Adds to the end of the text there, and returns its length in bytes of UTF-8."""
        return int(self._run(self._length("append_string", check_text(text), create=create)))

    def append_bytes(self, data: bytes, *, create: bool = False) -> int:
        """Adds to the end of the bytes there, and returns their number."""
        return int(self._run(self._length("append_bytes", check_bytes(data), create=create)))

    def edit(
        self,
        kind: str,
        value: Any = MISSING,
        *,
        start: int = 0,
        stop: int | None = None,
        create: bool = False,
        if_version: int | None = None,
        fence: int | None = None,
    ) -> Edited:
        """Any edit with all of its options, of which the other methods are short forms. ``kind`` is one of

        - ``set``, ``delete``, ``set_default``: of what is here;
        - ``append``, ``extend``, ``insert`` (before ``start``), ``pop``, ``remove``, ``slice`` (the values replace what is from ``start``
          up to ``stop``): of the list here. PathNotFound where ``pop`` or ``remove`` finds nothing;
        - ``merge``: of the dict here, ``clear``: of a list or dict, ``append_string`` and ``append_bytes``: of a text or bytes.
        """
        return self._run(self._edit_as(kind, value, start, stop, create, if_version, fence))  # type: ignore[no-any-return]


class AsyncCursor(Place):
    """Cursor for asyncio: the same methods, awaited."""

    __slots__ = ()

    async def _run(self, verb: Any) -> Any:
        return await self._shared._run(verb)

    def at(self, *path: Any) -> AsyncCursor:
        return AsyncCursor(self._shared, self._key, self._path + path)

    async def get(self, default: Any = None) -> Any:
        return await self._run(self._get(default))

    async def fetch(self) -> Any:
        return await self._run(self._fetch())

    async def exists(self) -> bool:
        return bool(await self._run(self._exists()))

    async def set(self, value: Any, *, create: bool = False, if_version: int | None = None) -> None:
        await self._run(self._set(value, create, if_version))

    async def setdefault(self, default: Any = None, *, create: bool = False) -> Any:
        return await self._run(self._setdefault(default, create))

    async def replace(self, old: Any, new: Any) -> bool:
        return bool(await self._run(self._replace(old, new)))

    async def delete(self, *, if_version: int | None = None) -> bool:
        return bool(await self._run(self._delete(if_version)))

    async def pop(self, default: Any = MISSING, *, if_version: int | None = None) -> Any:
        return await self._run(self._pop(default, if_version))

    async def incr(self, delta: Any = 1, *, default: Any = 0, min: Any = None, max: Any = None) -> Any:
        return await self._run(self._incr(delta, default, min, max))

    async def append(self, value: Any, *, create: bool = False) -> int:
        return int(await self._run(self._length("append", value, create=create)))

    async def extend(self, values: Iterable[Any], *, create: bool = False) -> int:
        return int(await self._run(self._length("extend", list(values), create=create)))

    async def insert(self, index: int, value: Any, *, if_version: int | None = None) -> int:
        return int(await self._run(self._length("insert", value, start=index, if_version=if_version)))

    async def remove(self, value: Any) -> None:
        await self._run(self._remove(value))

    async def update(self, other: Any = (), /, **more: Any) -> None:
        await self._run(self._change("merge", dict(other, **more)))

    async def clear(self) -> None:
        await self._run(self._change("clear"))

    async def append_text(self, text: str, *, create: bool = False) -> int:
        return int(await self._run(self._length("append_string", check_text(text), create=create)))

    async def append_bytes(self, data: bytes, *, create: bool = False) -> int:
        return int(await self._run(self._length("append_bytes", check_bytes(data), create=create)))

    async def edit(
        self,
        kind: str,
        value: Any = MISSING,
        *,
        start: int = 0,
        stop: int | None = None,
        create: bool = False,
        if_version: int | None = None,
        fence: int | None = None,
    ) -> Edited:
        return await self._run(self._edit_as(kind, value, start, stop, create, if_version, fence))  # type: ignore[no-any-return]


def check_text(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"append_text() takes a str, not {type(text).__name__}")
    return text


def check_bytes(data: Any) -> bytes:
    return bytes(memoryview(data))
