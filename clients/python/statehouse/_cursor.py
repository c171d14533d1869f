"""Cursor: a place inside a shared dict, ``d.at("a", "b", 1)``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import _local, errors
from ._dict_verbs import MISSING, check_path


class Cursor:
    """A place inside a shared dict: a key and the steps into its value. Each method is one atomic operation on what is there now; nothing
    is kept here. Values go in and out as ordinary objects.

    ``if_version`` refuses with Conflict where the entry changed since that version; use it where a step is a list's position. ``create``
    makes the dicts that are missing on the way, and the list that is appended to. Errors: KeyNotFound, PathNotFound (both are
    KeyErrors), TypeMismatch, Conflict, and those of SharedDict.
    """

    __slots__ = ("_shared", "_key", "_path")

    def __init__(self, shared: Any, key: Any, path: tuple[Any, ...]) -> None:
        self._shared = shared
        self._key = key
        self._path = check_path(path)

    def __repr__(self) -> str:
        steps = "".join(f"[{step!r}]" for step in (self._key, *self._path))
        return f"<place {steps} of the dict {self._shared.name}>"

    def at(self, *path: Any) -> Cursor:
        """A place further in."""
        return Cursor(self._shared, self._key, self._path + path)

    def _edit(self, kind: str, value: Any = MISSING, **options: Any) -> tuple[Any, int]:
        shared = self._shared
        result: tuple[Any, int] = shared._run(shared._edit(self._key, self._path, kind, value, **options))
        return result

    def get(self, default: Any = None) -> Any:
        """What is there, or ``default`` where there is nothing."""
        try:
            return self.fetch()
        except (errors.KeyNotFound, errors.PathNotFound):
            return default

    def fetch(self) -> Any:
        """What is there. KeyNotFound, PathNotFound."""
        return self._shared.fetch(self._key, *self._path)

    def exists(self) -> bool:
        """Whether there is anything."""
        return self.get(MISSING) is not MISSING

    def set(self, value: Any, *, create: bool = False, if_version: int | None = None) -> None:
        """Puts a value there: a dict's key is added or replaced, a list's position must exist."""
        if self._path or if_version is not None:
            self._edit("set", value, create=create or not self._path, if_version=if_version)
        else:
            self._shared[self._key] = value

    def setdefault(self, default: Any = None, *, create: bool = False) -> Any:
        """What is there; where there is nothing, ``default`` is put there first."""
        return self._edit("set_default", default, create=create or not self._path)[0]

    def delete(self, *, if_version: int | None = None) -> bool:
        """Takes away what is there; False where there is nothing."""
        if not self._path:
            return bool(self._shared.delete(self._key, if_version=if_version))
        try:
            self._edit("delete", if_version=if_version)
        except (errors.KeyNotFound, errors.PathNotFound):
            return False
        return True

    def pop(self, default: Any = MISSING, *, if_version: int | None = None) -> Any:
        """Takes away what is there and returns it. To take the last item of a list, ``at(-1).pop()``."""
        if not self._path and if_version is None:
            return self._shared.pop(self._key, default)
        if not self._path:
            raise TypeError("pop() with if_version needs a place inside a value; use SharedDict.delete for an entry")
        try:
            return self._edit("delete", if_version=if_version)[0]
        except (errors.KeyNotFound, errors.PathNotFound):
            if default is MISSING:
                raise
            return default

    def incr(self, delta: Any = 1, *, default: Any = 0, min: Any = None, max: Any = None) -> Any:
        """Adds to the number there and returns the new one."""
        return self._shared.incr(self._key, delta, path=self._path, default=default, min=min, max=max)

    def append(self, value: Any, *, create: bool = False) -> int:
        """Adds to the end of the list there, and returns its length."""
        return self._edit("append", value, create=create)[1]

    def extend(self, values: Iterable[Any], *, create: bool = False) -> int:
        """Adds several to the end of the list there, and returns its length."""
        return self._edit("extend", list(values), create=create)[1]

    def insert(self, index: int, value: Any, *, if_version: int | None = None) -> int:
        """Inserts before a position of the list there, and returns its length."""
        return self._edit("insert", value, start=index, if_version=if_version)[1]

    def remove(self, value: Any) -> None:
        """Removes the first item of the list there that is exactly this value. ValueError where there is none."""
        try:
            self._edit("remove", value)
        except errors.PathNotFound as error:
            if not self.exists():
                raise
            raise ValueError(f"{value!r} is not in the list at {self!r}") from error

    def update(self, other: Any = (), /, **more: Any) -> None:
        """Sets keys of the dict there, all at once."""
        self._edit("merge", dict(other, **more))

    def clear(self) -> None:
        """Empties the list or dict there."""
        self._edit("clear")

    def append_text(self, text: str, *, create: bool = False) -> int:
        """Adds to the end of the text there, and returns its length in bytes of UTF-8."""
        if not isinstance(text, str):
            raise TypeError(f"append_text() takes a str, not {type(text).__name__}")
        return self._edit("append_string", text, create=create)[1]

    def append_bytes(self, data: bytes, *, create: bool = False) -> int:
        """Adds to the end of the bytes there, and returns their number."""
        return self._edit("append_bytes", bytes(data), create=create)[1]
