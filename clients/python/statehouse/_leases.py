"""Keeping leases: a thread that renews each at a third of its ttl, one for all locks of a client."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from . import errors

_HEARTBEAT_S = 3.0
_AGAIN_S = 0.1  # After a renewal that failed because the service is away.


class ForkCount:
    """How many forks lie behind this process: what was made under another count is its parent's."""

    value = 0

    @classmethod
    def _count(cls) -> None:
        cls.value += 1


os.register_at_fork(after_in_child=ForkCount._count)


class Holder(Protocol):
    """What a keeper keeps: an object that holds a lease now and then."""

    ttl_s: float
    manual_renewal: bool  # The holder renews; the keeper only looks whether the lease is over.
    lease: Any  # None while it holds none.
    thread_id: int  # Of whoever took it.

    def on_lease_over(self, lease: Any) -> None: ...


class LeaseKeeper:
    """Threads: any at once. In a forked child it keeps nothing: the leases are the parent's.

    It looks at each holder every third of its ttl and renews what it finds there, so that taking and giving back a lock costs it nothing. A
    lease whose thread ended without releasing it is not renewed any more, and passes on at its ttl.
    """

    def __init__(self, heartbeat: Callable[[], None]) -> None:
        self._heartbeat = heartbeat
        self._begin()

    def _begin(self) -> None:
        self._fork_count = ForkCount.value
        self._changed = threading.Condition()  # Guards what follows.
        self._holders: weakref.WeakSet[Any] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, holder: Holder) -> None:
        """Keeps the holder's leases from now on, as long as it lives."""
        self.start()
        with self._changed:
            self._holders.add(holder)
            self._changed.notify_all()

    def start(self) -> None:
        """Begins the heartbeat, which goes on without leases too."""
        if self._fork_count != ForkCount.value:
            self._begin()
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="statehouse-leases", daemon=True)
                self._thread.start()

    def close(self) -> None:
        if self._fork_count != ForkCount.value:
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        heartbeat_due = time.monotonic() + _HEARTBEAT_S
        again_s = _HEARTBEAT_S
        while True:
            with self._changed:
                if not self._closed:
                    holders = list(self._holders)
                    self._changed.wait(min([again_s, *(holder.ttl_s / 3 for holder in holders)]))
                if self._closed:
                    return
                holders = list(self._holders)
            again_s = _HEARTBEAT_S
            for holder in holders:
                lease = holder.lease
                if lease is not None and not self._renew(holder, lease):
                    again_s = _AGAIN_S
            if heartbeat_due <= time.monotonic():
                heartbeat_due = time.monotonic() + _HEARTBEAT_S
                self._heartbeat()
            holders = []  # Nothing is kept alive while this thread sleeps.
            holder = lease = None

    def _renew(self, holder: Holder, lease: Any) -> bool:
        """False where it should be tried again soon."""
        if not holder.manual_renewal and any(thread.ident == holder.thread_id for thread in threading.enumerate()):
            try:
                lease.renew(0)
            except errors.LockLost:
                pass  # Or released meanwhile.
            except errors.Error:
                if lease.left() > 0:
                    return False
        if lease.left() <= 0 and holder.lease is lease:
            holder.on_lease_over(lease)
        return True
