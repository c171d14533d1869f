"""AcquirerProxy and the other locks of multiprocessing.managers, as leases: what a killed, stuck or cut-off holder had passes on."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from .. import errors
from .._client import Client
from .._locks import Lock

TTL_S = 30.0  # How long a holder that hangs as a whole keeps a lock: one that ends passes it on at once.


def _name(name: str) -> str:
    return f"managers/{name}"


class _Proxies:
    """The locks of one client, one object a name: so any proxy of the process may release what another one took."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[tuple[str, int], Lock] = {}

    def lock(self, client: Client, name: str) -> Lock:
        with self._guard:
            key = (name, id(client))
            lock = self._locks.get(key)
            if lock is None or lock._client is not client:
                lock = self._locks[key] = client.lock(_name(name), ttl=TTL_S)
            return lock


_proxies = _Proxies()


def _timeout_of(blocking: bool, timeout: float | None) -> float:
    """As multiprocessing's proxies: None and negative times wait for ever."""
    if timeout is None or timeout < 0:
        return -1
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    return timeout


class AcquirerProxy:
    """A lock that one thread of one process holds at a time, as multiprocessing's proxy of a threading.Lock.

    It is a lease (statehouse.Lock): when the process that holds it ends, killed or not, the next waiter has it within milliseconds; a
    process that is stopped or hangs as a whole keeps it for 30 seconds. Then the late ``release`` raises LockLost. Waiters are served in
    the order in which they came. Any thread of the holding process may release it, no other process can. Not reentrant. A forked child
    does not hold what its parent holds.
    """

    def __init__(self, client: Client, name: str) -> None:
        """Not for users: get_shared_state() and BaseManager make it."""
        self.name = name
        self._client = client
        self._lock = _proxies.lock(client, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, {'locked' if self.locked() else 'unlocked'}>"

    @property
    def token(self) -> int:
        """The fencing token of this process's latest grant, for ``fence=``."""
        return self._lock.token

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Takes the lock. False where somebody holds it and ``blocking`` is false, or ``timeout`` seconds passed."""
        return self._lock.acquire(blocking, _timeout_of(blocking, timeout))

    def release(self) -> None:
        """Gives the lock back. RuntimeError where this process does not hold it, LockLost where it lost it before."""
        try:
            self._lock.release()
        except RuntimeError:
            holder = self.holder()
            who = "nobody holds" if holder is None else f"another process holds: {holder['owner']}"
            raise RuntimeError(f"release of the lock {self.name!r}, which {who}") from None

    def locked(self) -> bool:
        """Whether anybody holds it."""
        return self._lock.locked()

    def holder(self) -> dict[str, Any] | None:
        """Who holds it: ``owner`` (process id and program), ``token``, ``since`` and ``expires_in`` in seconds; None where nobody does."""
        holders = self._client.locks.describe(_name(self.name)).holders
        if not holders:
            return None
        first = holders[0]
        return {"owner": first.owner, "token": first.token, "since": first.since, "expires_in": first.expires_in}

    def force_release(self) -> bool:
        """Takes the lock away from whoever holds it, who is told by LockLost; False where nobody does. For people."""
        return self._client.locks.force_release(_name(self.name)) > 0

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


class RLock(AcquirerProxy):
    """A lock that the thread that holds it may take again, as threading.RLock between processes."""

    def __init__(self, client: Client, name: str) -> None:
        """Not for users: BaseManager makes it."""
        super().__init__(client, name)
        self._lock = client.lock(_name(name), ttl=TTL_S)
        self._thread = 0
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        if self._lock.held and self._thread == threading.get_ident():
            self._count += 1
            return True
        if not super().acquire(blocking, timeout):
            return False
        self._thread = threading.get_ident()
        self._count = 1
        return True

    def release(self) -> None:
        if self._thread != threading.get_ident():
            raise RuntimeError(f"release of the lock {self.name!r}, which this thread does not hold")
        if self._count > 1 and self._lock.held:
            self._count -= 1
            return
        self._thread = 0
        self._count = 0
        super().release()


class Semaphore:
    """A semaphore between processes: at most ``value`` leases at once.

    What differs from threading.Semaphore: ``release`` gives back what this process took, no more, because what a process took comes back by
    itself when it ends.
    """

    def __init__(self, client: Client, name: str, value: int = 1) -> None:
        """Not for users: BaseManager makes it."""
        self.name = name
        self._client = client
        self._value = value
        self._guard = threading.Lock()
        self._taken: list[Lock] = []

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Takes one of the leases. False where there was none in time."""
        lease = self._client.semaphore(_name(self.name), self._value, ttl=TTL_S)
        if not lease.acquire(blocking, _timeout_of(blocking, timeout)):
            return False
        with self._guard:
            self._taken.append(lease)
        return True

    def release(self, n: int = 1) -> None:
        """Gives ``n`` leases back. ValueError where this process has fewer; LockLost where one of them was lost before: the others are
        given back all the same."""
        if n < 1:
            raise ValueError("n must be one or more")
        with self._guard:
            held = [lease for lease in self._taken if lease.held]
            if len(held) < n:
                raise ValueError(f"the semaphore {self.name!r} was released more often than this process acquired it")
            back = held[-n:]
            self._taken = [lease for lease in self._taken if lease not in back and lease.held]
        failed: errors.Error | None = None
        for lease in back:
            try:
                lease.release()
            except errors.Error as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def get_value(self) -> int:
        """How many leases are free, as of now."""
        return self._value - self._client.locks.describe(_name(self.name)).holder_count

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


BoundedSemaphore = Semaphore
"""Every semaphore is bounded here."""
