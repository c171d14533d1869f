"""Transactions of a shared dict: reads that remember versions, writes that are kept back, one call at the end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from . import _local, errors
from ._dict_verbs import MISSING, _fence, ttl_ms

_Result = TypeVar("_Result")
_PAUSE_S_MAX = 0.05


class Transaction:
    """One transaction; ``with d.transaction() as t`` makes it. A stack object of one thread.

    Always true: an entry is read once, and reads see the transaction's own writes. At the end of the block everything is compared and
    written at once, for everybody; Conflict, and nothing is written, where an entry that was read has changed since. An exception
    in the block throws the writes away. At most 1,024 entries. Changes inside a list or dict that was read count as writes of its key.
    """

    def __init__(self, shared: Any) -> None:
        self._shared = shared
        self._begin()

    def _begin(self) -> None:
        self._versions: dict[str, int] = {}  # Of what was read; 0: there was none.
        self._wires: dict[str, bytes] = {}  # What was read.
        self._values: dict[str, Any] = {}  # What it is now, for this transaction; MISSING: none.
        self._writes: dict[str, tuple[int, int]] = {}  # ttl and fence of what was set or deleted.
        self._open = False

    def __enter__(self) -> Transaction:
        if self._open:
            raise RuntimeError("this transaction is open already; begin another one with d.transaction()")
        self._begin()
        self._open = True
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open = False
        if exc_type is None:
            self._commit()

    def _text(self, key: Any) -> str:
        if not self._open:
            raise RuntimeError("the transaction is over; use it inside its with block")
        return str(self._shared._key(key))

    def _read(self, key: Any) -> Any:
        text = self._text(key)
        if text not in self._values:
            entry = self._shared._do(("get", text))
            self._versions[text] = 0 if entry is None else entry[1]
            if entry is not None:
                self._wires[text] = entry[0]
            self._values[text] = MISSING if entry is None else _local.decode_value(entry[0])
        return self._values[text]

    def get(self, key: Any, default: Any = None) -> Any:
        found = self._read(key)
        return default if found is MISSING else found

    def __getitem__(self, key: Any) -> Any:
        found = self._read(key)
        if found is MISSING:
            raise self._shared._missing(key)
        return found

    def __contains__(self, key: Any) -> bool:
        return self._read(key) is not MISSING

    def __setitem__(self, key: Any, value: Any) -> None:
        self.set(key, value)

    def set(self, key: Any, value: Any, *, ttl: Any = None, fence: int | None = None) -> None:
        """Sets an entry at the end of the transaction."""
        text = self._text(key)
        self._shared._wire(value)  # What cannot be stored is told where it is set.
        self._values[text] = value
        self._writes[text] = (ttl_ms(ttl), _fence(fence))

    def __delitem__(self, key: Any) -> None:
        self[key]
        self.delete(key)

    def delete(self, key: Any, *, fence: int | None = None) -> None:
        """Deletes an entry, if there is one, at the end of the transaction."""
        text = self._text(key)
        self._values[text] = MISSING
        self._writes[text] = (0, _fence(fence))

    def pop(self, key: Any, default: Any = MISSING) -> Any:
        found = self._read(key)
        if found is not MISSING:
            self.delete(key)
            return found
        if default is MISSING:
            raise self._shared._missing(key)
        return default

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, other: Any = (), /, **more: Any) -> None:
        for key, value in dict(other, **more).items():
            self[key] = value

    def incr(self, key: Any, delta: Any = 1, *, default: Any = 0) -> Any:
        """Adds to a number and returns the new one."""
        self[key] = self.get(key, default) + delta
        return self[key]

    def __iter__(self) -> Any:
        raise TypeError("a transaction compares the keys that it names; it cannot tell that none was added, so it is not iterable")

    def _steps(self) -> list[tuple[Any, ...]]:
        steps: list[tuple[Any, ...]] = []
        for text, value in self._values.items():
            wire = None if value is MISSING else self._shared._wire(value)
            if text in self._writes:
                ttl, fence = self._writes[text]
                if wire is not None:
                    steps.append(("set", text, wire, ttl, fence))
                elif self._versions.get(text) != 0:
                    steps.append(("delete", text, fence))
            elif wire is not None and wire != self._wires[text]:
                steps.append(("set", text, wire, -2, 0))  # Changed inside; it lives as long as before.
        return steps

    def _commit(self) -> None:
        steps = self._steps()
        compares = [(text, ("version", version)) for text, version in self._versions.items()]
        if not steps and len(compares) < 2:
            return  # One entry that was read was read at one moment.
        compared, _ = self._shared._do(("transact", compares, steps))
        if not compared:
            name = self._shared.name
            raise errors.by_name(
                "CONFLICT",
                f'dict "{name}": others changed what the transaction had read, and nothing of it was written; run it again, or '
                "let d.transactional() do so",
                name,
            )


def rerun(
    shared: Any,
    retries: int,
    function: Callable[..., _Result],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> _Result:
    """Runs the function in a transaction until nobody interferes, `retries` times more at most."""
    for left in range(retries, -1, -1):
        try:
            with Transaction(shared) as transaction:
                result = function(transaction, *args, **kwargs)
            return result
        except errors.Conflict:
            if left == 0:
                raise
            pause = min(0.0005 * 2 ** (retries - left), _PAUSE_S_MAX)
            time.sleep(random.uniform(0, pause))  # So that rivals do not meet again.
    raise ValueError(f"retries is {retries}; it must be 0 or more")
