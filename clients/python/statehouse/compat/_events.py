"""Event, Condition and Barrier of multiprocessing.managers, on areas to wait for and dicts to agree in. Nobody polls."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any

from .. import errors
from .._client import Client
from ._lock import AcquirerProxy, RLock

_AREA_BYTES = 64
_SLICE_S = 1.0  # How often a waiter says that it is still there.
_WAITER_TTL_S = 10.0  # A killed waiter counts as one for so long.


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()


class Event:
    """threading.Event between processes."""

    def __init__(self, client: Client, name: str) -> None:
        """Not for users: BaseManager makes it."""
        self.name = name
        self._area = client.area(f"managers/event/{name}", size=_AREA_BYTES)

    def is_set(self) -> bool:
        return bool(self._area.load_u64(0))

    def set(self) -> None:
        """Wakes everybody who waits."""
        self._area.store_u64(0, 1)

    def clear(self) -> None:
        self._area.store_u64(0, 0)

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is set. False where ``timeout`` seconds passed first."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            seen = self._area.updates
            if self.is_set():
                return True
            left = _left(deadline)
            if left is not None and left <= 0:
                return False
            self._area.wait(seen, left)


class Condition:
    """threading.Condition between processes, with a lock of its own or another one of the same manager.

    A waiter that was killed may be counted by ``notify`` for another ten seconds.
    """

    def __init__(self, client: Client, name: str, lock: AcquirerProxy | None = None) -> None:
        """Not for users: BaseManager makes it."""
        self.name = name
        self._lock = lock if lock is not None else RLock(client, f"condition/{name}")
        self._waiters = client.dict(f"managers/condition/{name}")
        self._area = client.area(f"managers/condition/{name}", size=_AREA_BYTES)

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Lets the lock go, waits to be notified, and takes the lock again. False where ``timeout`` seconds passed first."""
        if not self._lock._lock.held:
            raise RuntimeError("cannot wait on un-acquired lock")
        me = uuid.uuid4().hex
        deadline = None if timeout is None else time.monotonic() + timeout
        self._waiters.set(me, True, ttl=_WAITER_TTL_S)
        try:
            self._lock.release()
        except errors.LockLost:
            self._waiters.delete(me)
            raise
        try:
            while True:
                seen = self._area.updates
                if me not in self._waiters:
                    return True
                left = _left(deadline)
                if left is not None and left <= 0:
                    # Whoever deletes it decides: a notification that came at the last moment is not lost.
                    return not self._waiters.delete(me)
                if not self._area.wait(seen, _SLICE_S if left is None else min(left, _SLICE_S)):
                    self._waiters.touch(me, _WAITER_TTL_S)
        finally:
            self._lock.acquire()

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Waits until the predicate is true; its last value."""
        deadline = None if timeout is None else time.monotonic() + timeout
        result = predicate()
        while not result:
            left = _left(deadline)
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """Wakes the ``n`` that have waited longest."""
        if not self._lock._lock.held:
            raise RuntimeError("cannot notify on un-acquired lock")
        woken = 0
        for waiter in list(self._waiters):
            if woken == n:
                break
            woken += bool(self._waiters.delete(waiter))
        if woken:
            self._area.add_u64(0, 1)

    def notify_all(self) -> None:
        self.notify(len(self._waiters))

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.release()
        except errors.LockLost:
            if exc is None:
                raise


class Barrier:
    """threading.Barrier between processes, without an action: everybody waits until ``parties`` have come."""

    def __init__(self, client: Client, name: str, parties: int, timeout: float | None = None) -> None:
        """Not for users: BaseManager makes it."""
        if parties < 1:
            raise ValueError("parties must be > 0")
        self.name = name
        self.parties = parties
        self._timeout = timeout
        self._state = client.dict(f"managers/barrier/{name}")
        self._guard = AcquirerProxy(client, f"barrier/{name}")
        self._area = client.area(f"managers/barrier/{name}", size=_AREA_BYTES)

    def _change(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Changes the state as one step, and wakes whoever waits for a change of it."""
        with self._guard:
            state = self._now()
            change(state)
            self._state["state"] = state
        self._area.add_u64(0, 1)

    def _now(self) -> dict[str, Any]:
        begin = {"round": 0, "waiting": 0, "resets": 0, "broken": False}
        return begin | dict(self._state.snapshot().get("state", {}))

    def wait(self, timeout: float | None = None) -> int:
        """Until all have come: 0 to parties - 1, another number for each. threading.BrokenBarrierError where somebody gave up first."""
        timeout = self._timeout if timeout is None else timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        mine: dict[str, Any] = {}

        def arrive(state: dict[str, Any]) -> None:
            mine.update(state, index=state["waiting"])
            if state["broken"]:
                return
            state["waiting"] += 1
            if state["waiting"] == self.parties:
                state.update(round=state["round"] + 1, waiting=0)

        self._change(arrive)
        while True:
            seen = self._area.updates
            state = self._now()
            if mine["broken"] or state["resets"] != mine["resets"]:
                raise threading.BrokenBarrierError
            if state["round"] != mine["round"]:
                return int(mine["index"])
            if state["broken"]:
                raise threading.BrokenBarrierError
            left = _left(deadline)
            if left is not None and left <= 0:
                self.abort()
                raise threading.BrokenBarrierError
            self._area.wait(seen, left)

    def abort(self) -> None:
        """Everybody who waits or comes gets BrokenBarrierError, until ``reset``."""
        self._change(lambda state: state.update(broken=True))

    def reset(self) -> None:
        """As new; whoever waits gets BrokenBarrierError."""

        self._change(lambda state: state.update(resets=state["resets"] + 1, waiting=0, broken=False))

    @property
    def n_waiting(self) -> int:
        return int(self._now()["waiting"])

    @property
    def broken(self) -> bool:
        return bool(self._now()["broken"])
