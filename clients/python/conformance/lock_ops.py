"""The operations on locks of the conformance program."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import statehouse
import statehouse.aio
from dict_ops import Inexpressible, settled

_PATIENCE_S = 60.0
_LOOK_S = 0.005

OF_CLIENTS = {"acquire_lock", "start_acquire", "describe_lock", "list_locks", "force_release_lock"}
OF_HANDLES = {"finish_acquire", "release_lock", "renew_lock", "await_loss", "show_lock"}
LOCK_OPS = OF_CLIENTS | OF_HANDLES | {"open_client", "close_client", "let_go"}


def seconds(request: dict[str, Any], name: str) -> float | None:
    return request[name] / 1000 if name in request else None


class Handle:
    """A lock of either client, and a request for it that may still wait."""

    def __init__(self, client: Any, name: str, request: dict[str, Any], area: Any) -> None:
        self.told = threading.Event()
        self.waiting: Any = None
        options: dict[str, Any] = {"manual_renewal": bool(request.get("manual_renewal", 0)), "owner": request.get("owner")}
        for option in ("ttl", "hold_max"):
            if f"{option}_ms" in request:
                options[option] = request[f"{option}_ms"] / 1000
        if not isinstance(client, statehouse.aio.AsyncClient):
            options["on_lost"] = lambda _: self.told.set()
        shared = bool(request.get("shared", 0))
        if shared and "limit" in request:
            raise Inexpressible
        if "limit" in request:
            self.lock: Any = client.semaphore(name, request["limit"], **options)
        elif area is not None:
            self.lock = area.lock(request["pos"], request["len"], shared=shared, **options)
        else:
            self.lock = client.lock(name, shared=shared, **options)
        self._timeout = seconds(request, "timeout_ms")
        self._tries = bool(request.get("try", 0))

    def acquire(self) -> Any:
        """Whether it was had; of an asyncio client it is to be awaited."""
        if self._tries:
            return self.lock.acquire(False)
        return self.lock.acquire(timeout=-1 if self._timeout is None else self._timeout)

    async def start(self) -> None:
        if isinstance(self.lock, statehouse.aio.AsyncLock):
            self.waiting = asyncio.create_task(self.acquire())
            await asyncio.sleep(0)  # Lets it hand its wait to a thread.
        else:
            self.waiting = asyncio.get_running_loop().run_in_executor(None, self.acquire)

    async def finish(self) -> Any:
        waiting, self.waiting = self.waiting, None
        return await waiting

    async def release(self) -> bool:
        """Whether it was held: Python raises where it was not."""
        try:
            await settled(self.lock.release())
        except statehouse.LockLost:
            return False
        except RuntimeError:
            raise Inexpressible from None  # This object holds no lease.
        return True

    async def renew(self, ttl: float | None) -> None:
        try:
            await settled(self.lock.renew(ttl))
        except RuntimeError:
            raise Inexpressible from None

    async def loss(self) -> bool:
        """Until it is told: by the callback, or of an asyncio client by `lost`."""
        if not isinstance(self.lock, statehouse.aio.AsyncLock):
            return await asyncio.to_thread(self.told.wait, _PATIENCE_S)
        while not self.lock.lost:
            await asyncio.sleep(_LOOK_S)
        return True

    def show(self, what: str) -> Any:
        if what == "left_ms":
            return int(self.lock.expires_in * 1000)
        return getattr(self.lock, what)


def parties(shown: tuple[statehouse.LockParty, ...]) -> list[dict[str, Any]]:
    return [{"owner": party.owner, "shared": party.shared} for party in shown]


def show_info(info: statehouse.LockInfo, show: str) -> Any:
    if show in ("holder_count", "waiter_count", "name"):
        return getattr(info, show)
    if not show:
        return {"limit": info.limit, "holders": parties(info.holders), "waiters": parties(info.waiters)}
    first = next(iter((*info.holders, *info.waiters)), None)
    if first is None:
        return None
    if show == "has_session":
        return first.session_id != 0
    if show == "token":
        return first.token
    return int(1000 * ((first.expires_in or 0) if show == "left_ms" else first.since))


class LockOps:
    """Other clients, and the locks that any of them took or waits for."""

    def __init__(self, connect: Callable[[str | None], Awaitable[Any]]) -> None:
        self._connect = connect
        self._clients: dict[str, Any] = {}
        self._handles: dict[str, Handle] = {}

    async def do(self, client: Any, op: str, name: str, request: dict[str, Any]) -> Any:
        if op == "let_go":
            return await self.let_go()
        if op in OF_HANDLES:
            return await self._do_handle(op, self._handles[request["as"]], request)
        if op == "open_client":
            self._clients[request["client"]] = await self._connect(request.get("token"))
            return None
        if "client" in request:
            client = self._clients[request["client"]]
        if op == "close_client":
            return await settled(client.close())
        return await self._do_client(client, op, name, request)

    async def _do_client(self, client: Any, op: str, name: str, request: dict[str, Any]) -> Any:
        if op == "describe_lock":
            return show_info(await settled(client.locks.describe(name)), request.get("show", ""))
        if op == "force_release_lock":
            return await settled(client.locks.force_release(name, request.get("token", 0)))
        if op == "list_locks":
            found = client.locks.list(request.get("prefix", ""))
            listed = [info async for info in found] if hasattr(found, "__aiter__") else list(found)
            return len(listed) if request.get("show") == "count" else sorted(info.name for info in listed)
        area = await settled(client.area(name)) if "pos" in request else None
        handle = self._handles[request["as"]] = Handle(client, name, request, area)
        if op == "start_acquire":
            return await handle.start()
        return await settled(handle.acquire())

    async def _do_handle(self, op: str, handle: Handle, request: dict[str, Any]) -> Any:
        if op == "finish_acquire":
            return await handle.finish()
        if op == "release_lock":
            return await handle.release()
        if op == "renew_lock":
            return await handle.renew(seconds(request, "ttl_ms"))
        if op == "await_loss":
            return await handle.loss()
        return handle.show(request.get("show", "token"))

    async def let_go(self) -> None:
        """Gives every lock back, in the order in which they were asked for, and closes the other clients."""
        for handle in self._handles.values():
            try:
                if handle.waiting is not None:
                    await handle.finish()
                await handle.release()
            except (statehouse.Error, Inexpressible):
                pass  # It holds none, or its client was closed.
        self._handles.clear()
        for client in self._clients.values():
            await settled(client.close())
        self._clients.clear()
