"""Transactions of a shared dict: reads that remember versions, writes that are kept back, one call at the end."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from . import _local, errors
from ._dict_calls import TTL_KEEP
from ._dict_verbs import MISSING, Verb, fence_of, ttl_ms

_Result = TypeVar("_Result")
_PAUSE_S_MAX = 0.05


class Pending:
    """What a transaction has read and will write, for the blocking client and for asyncio."""

    def __init__(self, shared: Any) -> None:
        """Not for users: transaction() makes it."""
        self._shared = shared
        self._is_open = False
        self._forget()

    def _forget(self) -> None:
        self._versions: dict[str, int] = {}  # Of what was read; 0: there was none.
        self._wires: dict[str, bytes] = {}  # What was read.
        self._values: dict[str, Any] = {}  # What it is now, for this transaction; MISSING: none.
        self._writes: dict[str, tuple[int, int]] = {}  # ttl and fence of what was set or deleted.

    def _open(self) -> None:
        if self._is_open:
            raise RuntimeError("this transaction is open already; begin another one with d.transaction()")
        self._forget()
        self._is_open = True

    def _text(self, key: Any) -> str:
        if not self._is_open:
            raise RuntimeError("the transaction is over; use it inside its with block")
        return str(self._shared._key(key))

    def _read(self, key: Any) -> Verb[Any]:
        """The value, or MISSING."""
        text = self._text(key)
        if text not in self._values:
            entry = yield "get", text
            self._versions[text] = 0 if entry is None else entry[1]
            if entry is not None:
                self._wires[text] = entry[0]
            self._values[text] = MISSING if entry is None else _local.decode_value(entry[0])
        return self._values[text]

    def _get(self, key: Any, default: Any) -> Verb[Any]:
        found = yield from self._read(key)
        return default if found is MISSING else found

    def _fetch(self, key: Any) -> Verb[Any]:
        found = yield from self._read(key)
        if found is MISSING:
            raise self._shared._missing(key)
        return found

    def _pop(self, key: Any, default: Any) -> Verb[Any]:
        found = yield from (self._fetch(key) if default is MISSING else self._get(key, MISSING))
        if found is MISSING:
            return default
        self.delete(key)
        return found

    def _setdefault(self, key: Any, default: Any) -> Verb[Any]:
        found = yield from self._read(key)
        if found is not MISSING:
            return found
        self.set(key, default)
        return default

    def _incr(self, key: Any, delta: Any, default: Any) -> Verb[Any]:
        number = (yield from self._get(key, default)) + delta
        self.set(key, number)
        return number

    def set(self, key: Any, value: Any, *, ttl: Any = None, fence: int | None = None) -> None:
        """Sets an entry at the end of the transaction."""
        text = self._text(key)
        self._shared._wire(value)  # What cannot be stored is told where it is set.
        self._values[text] = value
        self._writes[text] = (ttl_ms(ttl), fence_of(fence))

    def delete(self, key: Any, *, fence: int | None = None) -> None:
        """Deletes an entry, if there is one, at the end of the transaction."""
        text = self._text(key)
        self._values[text] = MISSING
        self._writes[text] = (0, fence_of(fence))

    def update(self, other: Any = (), /, **more: Any) -> None:
        """Sets entries at the end of the transaction."""
        for key, value in dict(other, **more).items():
            self.set(key, value)

    def _steps(self) -> list[tuple[Any, ...]]:
        steps: list[tuple[Any, ...]] = []
        for text, value in self._values.items():
            wire = None if value is MISSING else self._shared._wire(value)
            if text in self._writes:
                ttl, fence = self._writes[text]
                if wire is not None:
                    steps.append(("set", text, wire, None, ttl, fence))
                elif self._versions.get(text) != 0:
                    steps.append(("delete", text, None, fence))
            elif wire is not None and wire != self._wires[text]:
                steps.append(("set", text, wire, None, TTL_KEEP, 0))  # It was changed inside.
        return steps

    def _commit(self) -> Verb[None]:
        steps = self._steps()
        compares = [(text, ("version", version)) for text, version in self._versions.items()]
        if not steps and len(compares) < 2:
            return  # One entry that was read was read at one moment.
        compared, _ = yield "transact", compares, steps, []
        if not compared:
            name = self._shared.name
            raise errors.by_name(
                "CONFLICT",
                f'dict "{name}": others changed what the transaction had read, and nothing of it was written; run it again, or '
                "let d.transactional() do so",
                name,
            )


class Transaction(Pending):
    """One transaction; ``with d.transaction() as t`` makes it. A stack object of one thread.

    Always true: an entry is read once, and reads see the transaction's own writes. At the end of the block everything is compared and
    written at once, for everybody; Conflict, and nothing is written, where an entry that was read has changed since. An exception
    in the block throws the writes away. At most 1,024 comparisons and writes. Changes inside a list or dict that was read count as
    writes of its key.
    """

    def __enter__(self) -> Transaction:
        self._open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_open = False
        if exc_type is None:
            self._shared._run(self._commit())

    def get(self, key: Any, default: Any = None) -> Any:
        return self._shared._run(self._get(key, default))

    def __getitem__(self, key: Any) -> Any:
        return self._shared._run(self._fetch(key))

    def __contains__(self, key: Any) -> bool:
        return self._shared._run(self._read(key)) is not MISSING

    def __setitem__(self, key: Any, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: Any) -> None:
        self[key]
        self.delete(key)

    def pop(self, key: Any, default: Any = MISSING) -> Any:
        return self._shared._run(self._pop(key, default))

    def setdefault(self, key: Any, default: Any = None) -> Any:
        return self._shared._run(self._setdefault(key, default))

    def incr(self, key: Any, delta: Any = 1, *, default: Any = 0) -> Any:
        """Adds to a number and returns the new one."""
        return self._shared._run(self._incr(key, delta, default))

    def __iter__(self) -> Any:
        raise TypeError("a transaction compares the keys that it names; it cannot tell that none was added, so it is not iterable")


class AsyncTransaction(Pending):
    """Transaction for asyncio: ``async with d.transaction() as t``. Reads are awaited; set, delete and update only take notes."""

    async def __aenter__(self) -> AsyncTransaction:
        self._open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_open = False
        if exc_type is None:
            await self._shared._run(self._commit())

    async def get(self, key: Any, default: Any = None) -> Any:
        return await self._shared._run(self._get(key, default))

    async def fetch(self, key: Any) -> Any:
        """The value; KeyNotFound where there is none."""
        return await self._shared._run(self._fetch(key))

    async def contains(self, key: Any) -> bool:
        return await self._shared._run(self._read(key)) is not MISSING

    async def pop(self, key: Any, default: Any = MISSING) -> Any:
        return await self._shared._run(self._pop(key, default))

    async def setdefault(self, key: Any, default: Any = None) -> Any:
        return await self._shared._run(self._setdefault(key, default))

    async def incr(self, key: Any, delta: Any = 1, *, default: Any = 0) -> Any:
        """Adds to a number and returns the new one."""
        return await self._shared._run(self._incr(key, delta, default))


class _Reruns:
    """How often a function may run again, and the pauses between, so that rivals do not meet again."""

    def __init__(self, retries: int) -> None:
        if retries < 0:
            raise ValueError(f"retries is {retries}; it must be 0 or more")
        self._left = retries
        self._pause_s = 0.0005

    def pause_after(self, conflict: errors.Conflict) -> float:
        """How long to wait before the next run. Raises the conflict when there is none."""
        if self._left == 0:
            raise conflict
        self._left -= 1
        self._pause_s = min(self._pause_s * 2, _PAUSE_S_MAX)
        return random.uniform(0, self._pause_s)


def rerun(
    shared: Any,
    retries: int,
    function: Callable[..., _Result],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> _Result:
    """Runs the function in a transaction until nobody interferes."""
    reruns = _Reruns(retries)
    while True:
        try:
            with Transaction(shared) as transaction:
                result = function(transaction, *args, **kwargs)
            return result
        except errors.Conflict as conflict:
            pause_s = reruns.pause_after(conflict)
        time.sleep(pause_s)


async def rerun_async(
    shared: Any,
    retries: int,
    function: Callable[..., Awaitable[_Result]],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> _Result:
    """As rerun, for a coroutine function."""
    import asyncio

    reruns = _Reruns(retries)
    while True:
        try:
            async with AsyncTransaction(shared) as transaction:
                result = await function(transaction, *args, **kwargs)
            return result
        except errors.Conflict as conflict:
            pause_s = reruns.pause_after(conflict)
        await asyncio.sleep(pause_s)
