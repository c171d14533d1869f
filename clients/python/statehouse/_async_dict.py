"""AsyncSharedDict: SharedDict for asyncio."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

from . import _local
from ._cursor import AsyncCursor
from ._dict_calls import DictCalls, call_timeout, named
from ._dict_verbs import MISSING, VALUES_PAGE, DictEntry, DictVerbs, Verb, _parts, condition_of
from ._plan import Plan, PlanOutcome
from ._transaction import AsyncTransaction, rerun_async
from ._waiting import wait_in_thread
from ._dict_watch import AsyncWatch, Reader, WatchEvent, check_options

_Result = TypeVar("_Result")
_SCAN_PAGE = 256
# Requests that may take longer than the loop should be held.
_LONG = frozenset({"get_many", "set_many", "scan", "transact", "delete_prefix", "clear"})


class AsyncSharedDict(DictVerbs):
    """A shared dict for one event loop: the methods of SharedDict, awaited. It is no MutableMapping, because nothing can await in ``d[k]``.

    Values are ordinary objects: change a part of one with ``at``. ``async for key in d`` and ``async for key, value in d.items()`` go in
    order of insertion. Errors as SharedDict.
    """

    transport = ""
    _streams: Any = None  # Of the client that opened it.
    _mapped: _local.Dict | None = None  # What it is through the local door.
    _binder: Any = None  # The same.

    async def _do(self, request: tuple[Any, ...]) -> Any:
        """Carries one request of a verb out."""
        raise NotImplementedError

    async def _run(self, verb: Verb[_Result]) -> _Result:
        try:
            request = next(verb)
            while True:
                try:
                    answer = await self._do(request)
                except Exception as error:
                    request = verb.throw(error)
                else:
                    request = verb.send(answer)
        except StopIteration as stop:
            return cast(_Result, stop.value)

    async def _run_bound(self, verb: Verb[_Result]) -> _Result:
        """In a thread: the session that it binds to is the blocking client's."""
        return cast(_Result, await asyncio.to_thread(self._binder.run, verb))

    def __repr__(self) -> str:
        return f"<statehouse {self.transport} dict {self.name}, asynchronous>"

    def watch(
        self,
        prefix: str = "",
        *,
        key: Any = None,
        snapshot: bool = True,
        from_revision: int | None = None,
        keys_only: bool = False,
        kinds: Iterable[str] | None = None,
        slow: str = "resync",
        progress: Any = None,
        window: Any = 0,
        previous: bool = False,
        on_resync: Callable[[WatchEvent], None] | None = None,
    ) -> AsyncWatch:
        """See SharedDict.watch: ``async for event in d.watch("web/")``."""
        options = check_options(
            prefix,
            None if key is None else self._key(key),
            snapshot,
            from_revision,
            keys_only,
            kinds,
            slow,
            progress,
            window,
            previous,
        )
        return AsyncWatch(self._streams, Reader(self.name, options, self._from_key, self._mapped), on_resync)

    async def get(self, key: Any, default: Any = None) -> Any:
        return await self._run(self._get(key, default))

    async def fetch(self, key: Any, *path: Any) -> Any:
        return await self._run(self._fetch(key, path))

    async def contains(self, key: Any) -> bool:
        """Whether there is an entry: ``key in d``."""
        return await self._run(self._contains(key))

    async def length(self) -> int:
        """How many entries there are: ``len(d)``."""
        return cast(int, await self._do(("length",)))

    async def set(
        self,
        key: Any,
        value: Any,
        *,
        ttl: Any = None,
        if_absent: bool = False,
        if_present: bool = False,
        if_version: int | None = None,
        if_value: Any = MISSING,
        fence: int | None = None,
        bound: bool = False,
    ) -> bool:
        verb = self._set(key, value, ttl, if_absent, if_present, if_version, fence, if_value)
        return await (self._run_bound(verb) if bound else self._run(verb))

    async def exchange(
        self,
        key: Any,
        value: Any,
        *,
        ttl: Any = None,
        if_absent: bool = False,
        if_present: bool = False,
        if_version: int | None = None,
        if_value: Any = MISSING,
        fence: int | None = None,
        bound: bool = False,
    ) -> tuple[bool, DictEntry | None]:
        condition = condition_of("exchange()", if_absent, if_present, if_version, if_value)
        verb = self._exchange(key, value, ttl, fence, condition)
        return await (self._run_bound(verb) if bound else self._run(verb))

    async def add(self, key: Any, value: Any, *, ttl: Any = None, bound: bool = False) -> bool:
        verb = self._set(key, value, ttl, if_absent=True)
        return await (self._run_bound(verb) if bound else self._run(verb))

    async def replace(self, key: Any, old: Any, new: Any) -> bool:
        return await self._run(self._replace(key, old, new))

    async def delete(
        self, key: Any, *, if_version: int | None = None, if_value: Any = MISSING, fence: int | None = None
    ) -> bool:
        return await self._run(self._delete(key, if_version, fence, if_value))

    async def pop(self, key: Any, default: Any = MISSING) -> Any:
        return await self._run(self._pop(key, default))

    async def popitem(self) -> tuple[Any, Any]:
        return await self._run(self._popitem())

    async def setdefault(self, key: Any, default: Any = None) -> Any:
        return await self._run(self._setdefault(key, default))

    async def update(self, other: Any = (), /, **more: Any) -> None:
        await self._run(self._set_many(other, more, None, None))

    async def incr(
        self,
        key: Any,
        delta: Any = 1,
        *,
        path: Sequence[Any] = (),
        default: Any = 0,
        min: Any = None,
        max: Any = None,
        ttl: Any = None,
        fence: int | None = None,
    ) -> Any:
        return await self._run(self._incr(key, delta, path, default, min, max, ttl, fence))

    async def append(self, key: Any, value: Any, *, create: bool = True) -> int:
        return (await self._run(self._edit(key, (), "append", value, create=create))).length

    async def get_many(self, keys: Iterable[Any], *, consistent: bool = False) -> dict[Any, Any]:
        return await self._run(self._get_many(keys, consistent))

    async def set_many(
        self, mapping: Any, *, ttl: Any = None, fence: int | None = None, bound: bool = False
    ) -> None:
        verb = self._set_many(mapping, {}, ttl, fence)
        await (self._run_bound(verb) if bound else self._run(verb))

    async def touch(self, key: Any, ttl: Any) -> bool:
        return await self._run(self._touch(key, ttl))

    async def ttl(self, key: Any) -> float | None:
        return await self._run(self._ttl(key))

    async def version(self, key: Any) -> int:
        return await self._run(self._version(key))

    async def entry(self, key: Any) -> DictEntry | None:
        return await self._run(self._get_entry(key))

    async def wait(
        self,
        key: Any,
        *,
        absent: bool = False,
        version_above: int | None = None,
        version_differs: int | None = None,
        value: Any = MISSING,
        path: Sequence[Any] = (),
        timeout: Any = None,
    ) -> DictEntry | None:
        return await self._run(
            self._wait(key, absent, version_above, version_differs, value, path, timeout)
        )

    def at(self, key: Any, *path: Any) -> AsyncCursor:
        return AsyncCursor(self, key, path)

    async def copy(self) -> dict[Any, Any]:
        return await self._run(self._copy())

    async def snapshot(self) -> dict[Any, Any]:
        return await self._run(self._snapshot())

    async def clear(self) -> None:
        await self._do(("clear",))

    async def delete_all(self) -> int:
        return cast(int, await self._do(("clear",)))

    async def delete_prefix(self, prefix: str) -> int:
        return cast(int, await self._do(("delete_prefix", prefix)))

    async def __aiter__(self) -> AsyncIterator[Any]:
        for text, _ in await self._run(self._keys_by_ordinal()):
            yield self._from_key(text)

    def keys(self) -> AsyncIterator[Any]:
        return self.__aiter__()

    async def items(self) -> AsyncIterator[tuple[Any, Any]]:
        texts = [text for text, _ in await self._run(self._keys_by_ordinal())]
        for part in _parts(texts, VALUES_PAGE):
            for text, entry in await self._run(self._page(part)):
                yield self._from_key(text), self._value(text, entry)

    async def values(self) -> AsyncIterator[Any]:
        async for _, value in self.items():
            yield value

    async def scan(self, prefix: str = "") -> AsyncIterator[tuple[Any, Any]]:
        cursor = None
        while True:
            page, cursor = await self._run(self._scan_page(cursor, prefix, _SCAN_PAGE))
            for item in page:
                yield item
            if cursor is None:
                return

    async def transact(self, plan: Plan) -> PlanOutcome:
        return await self._run(plan._carry_out(self))

    def transaction(self) -> AsyncTransaction:
        return AsyncTransaction(self)

    def transactional(
        self, retries: int = 10
    ) -> Callable[[Callable[..., Awaitable[_Result]]], Callable[..., Awaitable[_Result]]]:
        """As SharedDict.transactional, for a coroutine function."""

        def decorate(function: Callable[..., Awaitable[_Result]]) -> Callable[..., Awaitable[_Result]]:
            @functools.wraps(function)
            async def run(*args: Any, **kwargs: Any) -> _Result:
                return await rerun_async(self, retries, function, args, kwargs)

            return run

        return decorate


class LocalAsyncSharedDict(AsyncSharedDict):
    """A dict of the local door: what is short is carried out at once, what may take long in a thread."""

    transport = "local"

    def __init__(self, shared: _local.Dict) -> None:
        self._shared = shared

    @property
    def name(self) -> str:
        return self._shared.name

    @property
    def _any_keys(self) -> bool:
        return self._shared._any_keys

    @property
    def _mapped(self) -> _local.Dict:  # type: ignore[override]
        return self._shared

    async def _do(self, request: tuple[Any, ...]) -> Any:
        if request[0] == "wait":
            return await self._wait_apart(request)
        if request[0] in _LONG:
            return await asyncio.to_thread(self._shared._do, request)
        return self._shared._do(request)


    async def _wait_apart(self, request: tuple[Any, ...]) -> Any:
        *rest, seconds = request
        first = self._shared._do((*rest, 0.0))
        if first[0] or seconds == 0:
            return first

        def look(at_most: float) -> tuple[bool, Any]:
            answer = self._shared._do((*rest, at_most))
            return answer[0], answer

        return await wait_in_thread(look, None if seconds == math.inf else seconds)


class NetworkAsyncSharedDict(AsyncSharedDict):
    """A dict over the network door."""

    transport = "network"

    def __init__(self, session: Any, name: str, any_keys: bool) -> None:
        self._session = session
        self._calls = DictCalls(name)
        self._takes_any_keys = any_keys

    @property
    def name(self) -> str:
        return self._calls.name

    @property
    def _any_keys(self) -> bool:
        return self._takes_any_keys

    async def _do(self, request: tuple[Any, ...]) -> Any:
        call, read = getattr(self._calls, request[0])(*request[1:])
        with named(call):
            return read(await self._session.call(call, call_timeout(request, self._session.timeout)))
