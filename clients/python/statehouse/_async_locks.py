"""Lock for asyncio: statehouse.Lock, awaited. What waits does so in a thread of its own, so that the loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _lock_calls, errors
from ._locks import Lock
from .types import LockInfo

if TYPE_CHECKING:
    from .aio import AsyncClient


class AsyncLock:
    """See statehouse.Lock. ``async with c.lock("deploy") as lock:`` cancels the task that runs the block when the lease is lost, and
    the block ends with LockLost."""

    def __init__(self, make: Any) -> None:
        """Not for users: AsyncClient.lock() and AsyncClient.semaphore() make it."""
        self._blocking: Lock = make(self._on_lost)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelled_for_loss = False

    def __repr__(self) -> str:
        return f"{repr(self._blocking)[:-1]}, asynchronous>"

    @property
    def name(self) -> str:
        return self._blocking.name

    @property
    def token(self) -> int:
        return self._blocking.token

    @property
    def held(self) -> bool:
        return self._blocking.held

    @property
    def lost(self) -> bool:
        return self._blocking.lost

    @property
    def expires_in(self) -> float:
        return self._blocking.expires_in

    def _on_lost(self, lock: Lock) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None and not self._task.done():
            self._cancelled_for_loss = True
            self._task.cancel()

    async def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As statehouse.Lock.acquire. A task that is cancelled while it waits leaves nothing behind."""
        if not blocking:
            return await asyncio.to_thread(self._blocking.acquire, False)
        if timeout != -1 and timeout < 0:
            raise ValueError("timeout value must be a non-negative number")
        stop = bytearray(1)

        def wait() -> bool:
            if not self._blocking._acquire(True, timeout, stop):
                return False
            if stop[0]:
                self._blocking.release()
                return False
            return True

        try:
            return await asyncio.to_thread(wait)
        except asyncio.CancelledError:
            stop[0] = 1
            raise

    async def release(self) -> None:
        """As statehouse.Lock.release."""
        await asyncio.to_thread(self._blocking.release)

    async def renew(self, ttl: Any = None) -> None:
        await asyncio.to_thread(self._blocking.renew, ttl)

    async def locked(self) -> bool:
        return await asyncio.to_thread(self._blocking.locked)

    async def __aenter__(self) -> AsyncLock:
        wanted = self._blocking.timeout
        if not await self.acquire(timeout=-1 if wanted is None else wanted):
            raise errors.by_name("TIMEOUT", f"the lock {self.name!r} was not to be had within {wanted} s", self.name)
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._cancelled_for_loss = False
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        try:
            await self.release()
        except errors.LockLost as lost:
            if exc is None:
                raise
            if isinstance(exc, asyncio.CancelledError) and self._cancelled_for_loss and task is not None:
                task.uncancel()
                raise lost from None


class AsyncLocks:
    """``client.locks``: see statehouse.Locks."""

    def __init__(self, client: AsyncClient) -> None:
        """Not for users: AsyncClient.locks is one."""
        self._client = client

    async def describe(self, name: str) -> LockInfo:
        return _lock_calls.info_of((await self._client._call(_lock_calls.describe(name))).lock)

    async def list(self, prefix: str = "") -> AsyncIterator[LockInfo]:
        page_token = ""
        while True:
            response = await self._client._call(_lock_calls.list_locks(prefix, page_token))
            for lock in response.locks:
                yield _lock_calls.info_of(lock)
            page_token = response.next_page_token
            if not page_token:
                return

    async def force_release(self, name: str, token: int = 0) -> int:
        return int((await self._client._call(_lock_calls.force_release(name, token))).released)
