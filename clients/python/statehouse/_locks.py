"""Lock: a named lease, with threading.Lock's ways; and the calls that concern locks as wholes."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _local, _lock_calls, errors
from ._leases import ForkCount, Holder, LeaseKeeper
from ._lock_calls import NS_PER_S, TTL_DEFAULT
from ._remote_leases import RemoteLeases
from .types import LockInfo

if TYPE_CHECKING:
    from ._client import Client

_LIMIT_MAX = 1 << 20
OWNER_BYTES_MAX = 40
_STOP_SLICE_S = 0.25  # How soon a wait among the users of one object sees that it is to stop.


class Leasing:
    """How a client gets its leases: from memory that it maps, or by calls. Threads: any at once. A forked child begins anew."""

    def __init__(self, client: Client) -> None:
        self._client = client
        name = f"python {os.path.basename(sys.argv[0] or 'python')}"
        self._remote = RemoteLeases(client._call_timed, name[:128], client._timeout)
        self._keeper = LeaseKeeper(self._remote.heartbeat)
        self._local: Any = None
        self._by_calls = client.transport != "local"
        self._owner = ""
        self._owner_fork_count = -1

    def owner(self) -> str:
        """Who this process is, for people."""
        if self._owner_fork_count != ForkCount.value:
            self._owner_fork_count = ForkCount.value
            program = os.path.basename(sys.argv[0] or "python")
            self._owner = f"pid {os.getpid()} {program}"[:OWNER_BYTES_MAX]
        return self._owner

    def acquire(
        self,
        name: str,
        shared: bool,
        limit: int,
        ttl_ns: int,
        hold_ns: int,
        timeout_ns: int,
        owner: str,
        stop: bytearray | None = None,
    ) -> Any:
        if not self._by_calls:
            try:
                if self._local is None:
                    self._local = _local.Locks(self._client._session)
                return self._local.acquire(name, shared, limit, ttl_ns, hold_ns, timeout_ns, owner, stop)
            except errors.PermissionDenied:
                self._by_calls = True
            except errors.Unavailable:
                # The service that kept the locks is gone; another one may have its place.
                self._local = None
                raise
        return self._remote.acquire(name, shared, limit, ttl_ns, hold_ns, timeout_ns, owner, stop)

    def session_id(self) -> int:
        """This process's session of the service, kept alive from now on."""
        session_id = self._remote.session_id()
        self._keeper.start()
        return session_id

    def lose_session(self, session_id: int) -> None:
        """The service says that it is over."""
        self._remote.lose(session_id)

    def keep(self, holder: Holder) -> None:
        self._keeper.add(holder)

    def close(self) -> None:
        self._keeper.close()
        self._remote.close()


class Lock:
    """A lock that one holder has at a time, or as many as ``limit``, or any number of shared ones.

        with c.lock("deploy", ttl=10) as lock:
            d.set("state", "done", fence=lock.token)

    It is a lease: it ends when it is released, when this process ends, and ``ttl`` seconds after this process was last able to renew it
    (which the client does by itself, from a thread, at a third of the ttl). A process that was stopped past that end goes on without
    knowing, so a lock alone does not exclude: pass ``token`` as ``fence`` to what you write, which refuses who is late. Where the lease was
    lost the ``with`` block ends with LockLost, and ``lost`` is true at once.

    Requests are served in the order of their arrival, in every process. One object holds one lease at a time; ``acquire``, ``release`` and
    ``locked`` are those of threading.Lock. Threads: any at once, any of them may release. A forked child does not hold what its parent
    holds.
    """

    def __init__(
        self,
        leasing: Leasing,
        client: Client,
        name: str,
        *,
        ttl: Any,
        shared: bool,
        limit: int,
        hold_max: Any,
        timeout: Any,
        owner: str | None,
        on_lost: Callable[[Lock], None] | None,
        manual_renewal: bool,
    ) -> None:
        """Not for users: Client.lock() and Client.semaphore() make it."""
        self._leasing = leasing
        self._client = client
        self.name = _lock_calls.check_lock_name(name)
        self._ttl_ns = _lock_calls.nanoseconds(ttl, "ttl", name)
        self.ttl_s = self._ttl_ns / NS_PER_S
        self._hold_ns = 0 if hold_max is None else _lock_calls.some_nanoseconds(hold_max, "hold_max", name)
        self._timeout_ns = -1 if timeout is None else _lock_calls.nanoseconds(timeout, "timeout", name)
        self._shared = bool(shared)
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"limit must be an int, not {type(limit).__name__}")
        if not 1 <= limit <= _LIMIT_MAX or (shared and limit != 1):
            raise errors.by_name(
                "INVALID_ARGUMENT", f"limit is {limit}; it must be 1 to {_LIMIT_MAX}, and 1 for a shared lock", name
            )
        self._limit = limit
        self._owner = None if owner is None else owner[:OWNER_BYTES_MAX]
        self._on_lost = on_lost
        self.manual_renewal = manual_renewal
        self._begin()

    def _begin(self) -> None:
        self._fork_count = ForkCount.value
        # Held from an acquire to its release: threads that share this object wait for each other here.
        self._mine = threading.Lock()
        self._kept = False
        self._over: Any = None  # The lease whose end was told.
        self.lease: Any = None
        self.thread_id = 0
        self._token = 0
        self._lost = False

    def _here(self) -> None:
        if self._fork_count != ForkCount.value:
            self._begin()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Takes the lock. False where it was not to be had: at once with ``blocking=False``, else within ``timeout`` seconds (-1 waits for
        ever). Errors: InvalidArgument, Conflict (in use with another limit), LimitExceeded, PermissionDenied, Unavailable."""
        if not blocking and timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        if blocking and timeout != -1 and timeout < 0:
            raise ValueError("timeout value must be a non-negative number")
        return self._acquire(blocking, timeout, None)

    def _acquire(self, blocking: bool, timeout: float, stop: bytearray | None) -> bool:
        """``stop``: once its first byte is set the wait ends soon, with False."""
        self._here()
        if not self._acquire_mine(blocking, timeout, stop):
            return False
        try:
            if not blocking:
                timeout_ns = 0
            else:
                timeout_ns = -1 if timeout == -1 else _lock_calls.nanoseconds(timeout, "timeout", self.name)
            owner = self._owner if self._owner is not None else self._leasing.owner()
            lease = self._take(timeout_ns, owner, stop)
            if lease is None:
                self._mine.release()
                return False
        except errors.Cancelled:
            self._mine.release()
            if stop is None or not stop[0]:
                raise
            return False
        except BaseException:
            self._mine.release()
            raise
        self._lost = False
        self._token = lease.token
        self.thread_id = threading.get_ident()
        self.lease = lease
        if not self._kept:
            self._kept = True
            self._leasing.keep(self)
        return True

    def _acquire_mine(self, blocking: bool, timeout: float, stop: bytearray | None) -> bool:
        """Among the threads and tasks that share this object."""
        if stop is None or not blocking:
            return self._mine.acquire(blocking, timeout)
        deadline = None if timeout == -1 else time.monotonic() + timeout
        while True:
            left = _STOP_SLICE_S if deadline is None else deadline - time.monotonic()
            if self._mine.acquire(True, max(0.0, min(left, _STOP_SLICE_S))):
                return True
            if stop[0] or left <= _STOP_SLICE_S and deadline is not None:
                return False

    def _take(self, timeout_ns: int, owner: str, stop: bytearray | None) -> Any:
        return self._leasing.acquire(
            self.name, self._shared, self._limit, self._ttl_ns, self._hold_ns, timeout_ns, owner, stop
        )

    def on_lease_over(self, lease: Any) -> None:
        """For the client's keeper of leases."""
        if self._over is lease:
            return
        self._over = lease
        self._lost = True
        if self._on_lost is not None:
            self._on_lost(self)

    def release(self) -> None:
        """Gives the lock back. LockLost where the lease was over before, as the service says, also where an operator took it away and
        nobody has told this process; RuntimeError where this object holds none. Where the call was sent again because its first answer
        was lost, this process's clock decides, because the lease may have been over by the first sending."""
        self._here()
        lease, self.lease = self.lease, None
        if lease is None:
            raise RuntimeError(f"release of the lock {self.name!r}, which this object does not hold")
        try:
            held = lease.release()
        finally:
            self._mine.release()
        if not held:
            self._lost = True
            raise errors.by_name(
                "LOCK_LOST", f"the lease of lock {self.name!r} was over before it was released; others may have had it", self.name
            )

    def renew(self, ttl: Any = None) -> None:
        """Lengthens the lease to ``ttl`` seconds from now (as it was taken with, if None). LockLost where it is over."""
        self._here()
        lease = self.lease
        if lease is None:
            raise RuntimeError(f"renewal of the lock {self.name!r}, which this object does not hold")
        lease.renew(0 if ttl is None else _lock_calls.some_nanoseconds(ttl, "ttl", self.name))

    def locked(self) -> bool:
        """Whether anybody holds it, as of now: this object, or another one in any process."""
        return self.held or self._client.locks.describe(self.name).holder_count > 0

    @property
    def held(self) -> bool:
        """Whether this object holds it and the lease is good."""
        self._here()
        lease = self.lease
        return lease is not None and lease.left() > 0

    @property
    def lost(self) -> bool:
        """Whether a lease that this object took last was over before its release."""
        self._here()
        if self.lease is not None and not self._lost and self.lease.left() <= 0:
            self._lost = True
        return self._lost

    @property
    def token(self) -> int:
        """The fencing token of the latest grant: higher than every token before it, of any lock. 0 before the first one."""
        self._here()
        return self._token

    @property
    def expires_in(self) -> float:
        """Seconds that the lease has left; 0.0 where it holds none."""
        self._here()
        lease = self.lease
        return 0.0 if lease is None else float(lease.left())

    @property
    def timeout(self) -> float | None:
        """How long ``with`` waits, in seconds; for ever if None."""
        return None if self._timeout_ns < 0 else self._timeout_ns / NS_PER_S

    def __enter__(self) -> Lock:
        timeout = self.timeout
        if not self.acquire(timeout=-1 if timeout is None else timeout):
            raise errors.by_name("TIMEOUT", f"the lock {self.name!r} was not to be had within {timeout} s", self.name)
        return self

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
                raise  # Else what the block raised says more, and `lost` tells the rest.

    def __repr__(self) -> str:
        return f"<statehouse.Lock {self.name!r}, {'held' if self.held else 'not held'}>"


class Locks:
    """``client.locks``: the calls that concern locks as wholes."""

    def __init__(self, client: Client) -> None:
        """Not for users: Client.locks is one."""
        self._client = client

    def describe(self, name: str) -> LockInfo:
        """Who holds a lock and who waits for it; without any where nobody uses it."""
        return _lock_calls.info_of(self._client._call(_lock_calls.describe(name)).lock)

    def list(self, prefix: str = "") -> Iterator[LockInfo]:
        """The locks in use whose names begin with ``prefix`` and that the access token may see, in no order."""
        page_token = ""
        while True:
            response = self._client._call(_lock_calls.list_locks(prefix, page_token))
            for lock in response.locks:
                yield _lock_calls.info_of(lock)
            page_token = response.next_page_token
            if not page_token:
                return

    def force_release(self, name: str, token: int = 0) -> int:
        """For operators: takes the lock from the holder with this token, 0 from all; from how many. Verb admin."""
        return int(self._client._call(_lock_calls.force_release(name, token)).released)


__all__ = ["TTL_DEFAULT", "Leasing", "Lock", "Locks"]
