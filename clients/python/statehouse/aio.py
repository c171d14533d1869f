"""Statehouse for asyncio: the same names as the package, awaited.

    async with statehouse.aio.connect() as c:
        visits = await c.dict("counters")
        print("visit", await visits.incr("front page"))

Local word operations take nanoseconds and are carried out at once; whatever may wait (attaching, control calls, long
ranges, waits) runs in a thread for the local door and as an asynchronous call for the network door, so the event loop is
never blocked. One client belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import builtins
import functools
import os
import time
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, cast

from . import _client, _control, _dicts, _local, errors
from ._area_calls import AreaCalls, bytes_of, number_of, wait_slice
from ._area_locks import AreaLock
from ._area_watch import AsyncWatched
from ._async_batch_link import AsyncBatchLink
from ._async_dict import AsyncSharedDict, LocalAsyncSharedDict, NetworkAsyncSharedDict
from ._async_locks import AsyncLock, AsyncLocks
from ._batch import AsyncBatch, fits_no_packet
from ._bound import Binder
from ._control import Call
from ._cursor import AsyncCursor
from ._local import CompareExchangeResult
from ._network_session import (
    make_channel,
    NetworkSession,
    RetryDelays,
    closed_error,
    error_of,
    too_late_error,
    unreachable_error,
)
from ._locks import TTL_DEFAULT
from ._transaction import AsyncTransaction
from ._waiting import wait_in_thread
from .types import WORD_TYPES, AreaInfo, AsyncArea, BytesLike, DictInfo, ServiceStatus

_LONG_RANGE_BYTES = 256 << 10  # A longer one would hold the loop for tens of microseconds.


def connect(
    url: str | None = None,
    *,
    token: str | None = None,
    token_file: str | None = None,
    timeout: float | None = None,
    transport: str = "auto",
) -> Connecting:
    """As statehouse.connect, without the transport "socket", for which "auto" takes "network". Use ``async with connect(...) as c`` or
    ``c = await connect(...)``."""
    return Connecting(lambda: _open_blocking(_local.resolve(url, token, token_file, timeout, transport)))


def _open_blocking(endpoint: _client.Endpoint) -> _client.Client:
    if endpoint[0] == "socket":
        raise errors.by_name(
            "INVALID_ARGUMENT",
            'transport "socket" is of statehouse.connect, whose calls block; statehouse.aio takes "network", which reaches a service of '
            'this host through its unix socket, "local" and "auto"',
        )
    return _client.open_client(endpoint, has_socket=False)


class Connecting:
    """What connect() gives: awaitable, and an asynchronous context manager."""

    def __init__(self, connect_blocking: Callable[[], _client.Client]) -> None:
        self._connect_blocking = connect_blocking
        self._client: AsyncClient | None = None

    def __await__(self) -> Generator[Any, None, AsyncClient]:
        return self._connect().__await__()

    async def __aenter__(self) -> AsyncClient:
        self._client = await self._connect()
        return self._client

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._client is not None:
            await self._client.close()

    async def _connect(self) -> AsyncClient:
        return AsyncClient(await asyncio.to_thread(self._connect_blocking))


class AsyncClient:
    """A connection to a service, for one event loop. See statehouse.Client."""

    def __init__(self, blocking: _client.Client) -> None:
        """Not for users: connect() makes clients."""
        self._blocking = blocking
        self._streams = _AsyncNetworkSession(blocking._streams)
        self._network: _AsyncNetworkSession | None = None
        if isinstance(blocking._session, NetworkSession):
            self._network = self._streams
        self.areas = AsyncAreas(self)
        self.dicts = AsyncDicts(self)
        self.locks = AsyncLocks(self)

    def __repr__(self) -> str:
        return f"{repr(self._blocking)[:-1]}, asynchronous>"

    @property
    def transport(self) -> str:
        return self._blocking.transport

    @property
    def closed(self) -> bool:
        return self._blocking.closed

    async def area(self, name: str, size: int | None = None) -> AsyncArea:
        if self._network is None:
            local = await asyncio.to_thread(self._blocking.area, name, size)
            return cast(AsyncArea, LocalAsyncArea(local, self._streams))
        if size is not None:
            info = await self.areas.create(name, size=size)
        else:
            info = await self.areas.describe(name)
        return cast(
            AsyncArea,
            NetworkAsyncArea(self._network, info.name, info.size, info.index, self._blocking._area_lock),
        )

    async def dict(
        self,
        name: str,
        *,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        default_ttl: Any = None,
        evict: bool = False,
        create: bool = True,
        keys: str = "str",
    ) -> AsyncSharedDict:
        any_keys = _dicts.check_keys(keys)
        if self._network is None:
            shared = await asyncio.to_thread(
                self._blocking.dict,
                name,
                max_entries=max_entries,
                max_bytes=max_bytes,
                default_ttl=default_ttl,
                evict=evict,
                create=create,
                keys=keys,
            )
            local = LocalAsyncSharedDict(cast(Any, shared))
            local._streams = self._streams
            local._binder = shared._binder
            return local
        if create:
            info = await self.dicts.create(
                name, max_entries=max_entries, max_bytes=max_bytes, default_ttl=default_ttl, evict=evict
            )
        else:
            info = await self.dicts.describe(name)
        remote = NetworkAsyncSharedDict(self._network, info.name, any_keys)
        remote._streams = self._streams
        remote._binder = Binder(self._blocking, info.name)
        return remote

    def lock(
        self,
        name: str,
        *,
        ttl: Any = TTL_DEFAULT,
        shared: bool = False,
        hold_max: Any = None,
        timeout: Any = None,
        owner: str | None = None,
        manual_renewal: bool = False,
    ) -> AsyncLock:
        """See statehouse.Client.lock."""
        return AsyncLock(
            lambda on_lost: self._blocking.lock(
                name,
                ttl=ttl,
                shared=shared,
                hold_max=hold_max,
                timeout=timeout,
                owner=owner,
                on_lost=on_lost,
                manual_renewal=manual_renewal,
            )
        )

    def semaphore(
        self,
        name: str,
        limit: int,
        *,
        ttl: Any = TTL_DEFAULT,
        hold_max: Any = None,
        timeout: Any = None,
        owner: str | None = None,
        manual_renewal: bool = False,
    ) -> AsyncLock:
        """See statehouse.Client.semaphore."""
        return AsyncLock(
            lambda on_lost: self._blocking.semaphore(
                name,
                limit,
                ttl=ttl,
                hold_max=hold_max,
                timeout=timeout,
                owner=owner,
                on_lost=on_lost,
                manual_renewal=manual_renewal,
            )
        )

    def batch(self, stop_at_failure: bool = False) -> AsyncBatch:
        """See statehouse.Client.batch: operations are noted, and ``await batch.run()`` carries them out."""
        return AsyncBatch(self, stop_at_failure)

    async def status(self) -> ServiceStatus:
        return _control.service_status(await self._call(_control.status()))

    async def close(self) -> None:
        await self._streams.close()
        await asyncio.to_thread(self._blocking.close)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _call(self, call: Call) -> Any:
        if self._network is not None:
            return await self._network.call(call)
        return await asyncio.to_thread(self._blocking._call, call)

    async def _call_batch(self, call: Call) -> Any:
        if self._network is None and call.request.by_packet:
            try:
                return await asyncio.to_thread(self._blocking._call, call)
            except errors.LimitExceeded as error:
                if not fits_no_packet(error, call):
                    raise
        return await self._streams.batches.call(call)


class AsyncAreas:
    """The areas of a service as wholes: ``client.areas``. See statehouse.Areas."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(
        self,
        name: str,
        *,
        size: int | None = None,
        pages: int | None = None,
        file: str | None = None,
        offset: int = 0,
        exclusive: bool = False,
    ) -> AreaInfo:
        call = _control.create(name, size, pages, file, offset, exclusive)
        return _control.area_info((await self._client._call(call)).area)

    async def describe(self, name: str) -> AreaInfo:
        return _control.area_info((await self._client._call(_control.describe(name))).area)

    async def delete(self, name: str) -> None:
        await self._client._call(_control.delete(name))

    async def list(self, *, prefix: str = "") -> builtins.list[AreaInfo]:
        infos: builtins.list[AreaInfo] = []
        page_token = ""
        while True:
            response = await self._client._call(_control.list_page(prefix, page_token))
            infos.extend(map(_control.area_info, response.areas))
            page_token = response.next_page_token
            if not page_token:
                return infos


class AsyncDicts:
    """The dicts of a service as wholes: ``client.dicts``. See statehouse.Dicts."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(
        self,
        name: str,
        *,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        default_ttl: Any = None,
        evict: bool = False,
        exclusive: bool = False,
    ) -> DictInfo:
        call = _dicts.create(name, max_entries, max_bytes, default_ttl, evict, exclusive)
        return _dicts.dict_info((await self._client._call(call)).dict)

    async def describe(self, name: str) -> DictInfo:
        return _dicts.dict_info((await self._client._call(_dicts.describe(name))).dict)

    async def delete(self, name: str) -> None:
        await self._client._call(_dicts.delete(name))

    async def list(self, *, prefix: str = "") -> builtins.list[DictInfo]:
        infos: builtins.list[DictInfo] = []
        page_token = ""
        while True:
            response = await self._client._call(_dicts.list_page(prefix, page_token))
            infos.extend(map(_dicts.dict_info, response.dicts))
            page_token = response.next_page_token
            if not page_token:
                return infos


class LocalAsyncArea(AsyncWatched):
    """An area of the local door: the protocol is statehouse.types.AsyncArea."""

    transport = "local"

    def __init__(self, area: Any, streams: _AsyncNetworkSession) -> None:
        self._area = area
        self._streams = streams
        self.name: str = area.name
        self.size: int = area.size
        self.index: int = area.index

    def __repr__(self) -> str:
        return f"<statehouse local area {self.name}, {self.size} bytes, asynchronous>"

    @property
    def updates(self) -> Awaitable[int]:
        return self._updates()

    async def _updates(self) -> int:
        return cast(int, self._area.updates)

    async def read(self, pos: int, len: int | None = None) -> bytes:
        length = self.size if len is None else len
        return cast(bytes, await _apart(length, self._area.read, pos, len))

    async def write(self, pos: int, bytes: BytesLike, /, *, fence: int | None = None) -> None:
        await _apart(bytes_of(bytes).nbytes, functools.partial(self._area.write, fence=fence), pos, bytes)

    async def fill(self, pos: int, len: int, value: int, /, *, fence: int | None = None) -> None:
        await _apart(len, functools.partial(self._area.fill, fence=fence), pos, len, value)

    async def wait(self, since: int, timeout: float | None = None) -> bool:
        sound = 0 <= since < 1 << 64 and (timeout is None or timeout >= 0)
        if not sound:
            return self._area.wait(since, timeout)  # Refused, in the area's own words.
        if self._area.updates != since:
            return True

        def look(seconds: float) -> tuple[bool, bool]:
            changed = self._area.wait(since, seconds)
            return changed, changed

        return cast(bool, await wait_in_thread(look, timeout))

    def lock(self, pos: int = 0, len: int | None = None, **options: Any) -> AsyncLock:
        return AsyncLock(lambda on_lost: self._area.lock(pos, len, on_lost=on_lost, **options))


async def _apart(length: int, operation: Callable[..., Any], *args: Any) -> Any:
    """Runs an operation here when it is short, else in a thread."""
    if length < _LONG_RANGE_BYTES:
        return operation(*args)
    return await asyncio.to_thread(operation, *args)


class _AsyncNetworkSession:
    """The channel of one event loop, made at its first call."""

    def __init__(self, session: NetworkSession) -> None:
        self._session = session
        self.target = session.target
        self.tls = session.tls
        self.timeout = session.timeout
        self.metadata = session.metadata
        self._closed = False
        self._pid = 0
        self._channel: Any = None
        self._answered = False  # By the service, through this channel.
        self.batches = AsyncBatchLink(self)

    @property
    def closed(self) -> bool:
        return self._closed or self._session.closed

    async def close(self) -> None:
        """Later calls, and those under way, raise ClientClosed."""
        self._closed = True
        await self.batches.close()
        channel, self._channel = self._channel, None
        if channel is not None and self._pid == os.getpid():
            await channel.close()

    async def call(self, call: Call, timeout: float | None = None) -> Any:
        import grpc

        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        response = await self.batches.call_short(call, deadline)
        if response is not None:
            return response
        delays = RetryDelays()
        while True:
            if self.closed:
                raise closed_error(call.name)
            if time.monotonic() >= deadline:  # gRPC would still give it a millisecond.
                raise too_late_error(self.target, call)
            channel = self._channel_of_this_process()
            try:
                response = await channel.unary_unary(
                    call.method,
                    request_serializer=lambda request: request.SerializeToString(),
                    response_deserializer=call.response_type.FromString,
                )(
                    call.request,
                    timeout=max(deadline - time.monotonic(), 0.0),
                    metadata=self.metadata,
                    wait_for_ready=True,  # Nothing is sent before there is a connection.
                )
                self._answered = True
                return response
            except grpc.RpcError as rpc_error:
                error = error_of(rpc_error, call, self.target)
            except (asyncio.CancelledError, grpc.aio.UsageError):
                if not self.closed:
                    raise
                raise closed_error(call.name) from None
            if isinstance(error, errors.Timeout) and not self._answered:
                raise unreachable_error(self.target, call.name, self.tls)
            if not isinstance(error, errors.Unavailable) or error.reason == "STALLED":
                raise error
            self._answered = False
            delay = delays.next()
            if not call.idempotent or time.monotonic() + delay >= deadline:
                raise error
            await asyncio.sleep(delay)

    def stream(self, call: Call) -> Any:
        """Begins a streaming call, whose responses ``read()`` gives."""
        return self._channel_of_this_process().unary_stream(
            call.method,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=call.response_type.FromString,
        )(call.request, metadata=self.metadata, wait_for_ready=True)

    def _channel_of_this_process(self) -> Any:
        import grpc.aio

        if self._channel is not None and self._pid != os.getpid():
            raise errors.by_name(
                "CLIENT_FORKED",
                "this process was forked after the client had used the network door; connect again "
                "in the child",
            )
        self._pid = os.getpid()
        if self._channel is None:
            self._answered = False
            self._channel = make_channel(grpc.aio, self.target, self.tls)
        return self._channel


class NetworkAsyncArea(AsyncWatched):
    """An area over the network: the protocol is statehouse.types.AsyncArea."""

    transport = "network"

    def __init__(
        self, session: _AsyncNetworkSession, name: str, size: int, index: int, make_lock: Callable[..., AreaLock]
    ) -> None:
        self._session = self._streams = session
        self._calls = AreaCalls(name, size)
        self._make_lock = make_lock
        self.name = name
        self.size = size
        self.index = index

    def __repr__(self) -> str:
        return f"<statehouse network area {self.name}, {self.size} bytes, asynchronous>"

    @property
    def updates(self) -> Awaitable[int]:
        return self._updates()

    async def _updates(self) -> int:
        return cast(int, (await self._session.call(self._calls.wait(None, 0))).updates)

    async def read(self, pos: int, len: int | None = None) -> bytes:
        pieces = [(await self._session.call(call)).data for call in self._calls.reads(pos, len)]
        return b"".join(pieces)

    async def write(self, pos: int, bytes: BytesLike, /, *, fence: int | None = None) -> None:
        for call in self._calls.writes(pos, bytes_of(bytes), fence):
            await self._session.call(call)

    async def fill(self, pos: int, len: int, value: int, /, *, fence: int | None = None) -> None:
        await self._session.call(self._calls.fill(pos, len, value, fence))

    async def wait(self, since: int, timeout: float | None = None) -> bool:
        deadline = time.monotonic() + self._calls.wait_timeout(timeout)
        while True:
            seconds = wait_slice(deadline)
            call = self._calls.wait(since, seconds)
            response = await self._session.call(call, seconds + self._session.timeout)
            if response.changed or time.monotonic() >= deadline:
                return cast(bool, response.changed)

    def lock(self, pos: int = 0, len: int | None = None, **options: Any) -> AsyncLock:
        return AsyncLock(lambda on_lost: self._make_lock(self, pos, len, on_lost=on_lost, **options))

    async def _word(self, call: Call) -> int:
        return number_of((await self._session.call(call)).value)


def _add_local_method(method: str) -> None:
    async def operate(self: LocalAsyncArea, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._area, method)(*args, **kwargs)

    operate.__name__ = method
    setattr(LocalAsyncArea, method, operate)


def _add_network_methods(word_type: str) -> None:
    async def load(self: NetworkAsyncArea, pos: int, /) -> int:
        return await self._word(self._calls.load(word_type, pos))

    async def store(self: NetworkAsyncArea, pos: int, value: int, /, *, fence: int | None = None) -> None:
        await self._session.call(self._calls.store(word_type, pos, value, fence))

    async def add(self: NetworkAsyncArea, pos: int, delta: int = 1, /, *, fence: int | None = None) -> int:
        return await self._word(self._calls.add(word_type, pos, delta, fence))

    async def compare_exchange(
        self: NetworkAsyncArea, pos: int, expected: int, desired: int, *, fence: int | None = None
    ) -> CompareExchangeResult:
        call = self._calls.compare_exchange(word_type, pos, expected, desired, fence)
        response = await self._session.call(call)
        return CompareExchangeResult(response.exchanged, number_of(response.found))

    def bitwise(operator: str) -> Callable[..., Awaitable[int]]:
        async def combine(self: NetworkAsyncArea, pos: int, operand: int, /, *, fence: int | None = None) -> int:
            return await self._word(self._calls.bitwise(operator, word_type, pos, operand, fence))

        return combine

    setattr(NetworkAsyncArea, f"load_{word_type}", load)
    setattr(NetworkAsyncArea, f"store_{word_type}", store)
    setattr(NetworkAsyncArea, f"add_{word_type}", add)
    setattr(NetworkAsyncArea, f"compare_exchange_{word_type}", compare_exchange)
    for operator in ("and", "or", "xor"):
        setattr(NetworkAsyncArea, f"bitwise_{operator}_{word_type}", bitwise(operator))


for _word_type in WORD_TYPES:
    _add_network_methods(_word_type)
    for _verb in (
        "load",
        "store",
        "add",
        "compare_exchange",
        "bitwise_and",
        "bitwise_or",
        "bitwise_xor",
    ):
        _add_local_method(f"{_verb}_{_word_type}")
