"""Keeping leases: a thread that renews each at a third of its ttl, one for all locks of a client."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from . import errors

_HEARTBEAT_S = 3.0
_AGAIN_S = 0.1  # After a renewal that failed because the service is away.


class _Kept:
    def __init__(self, lease: Any, ttl_s: float, holder: threading.Thread, lost: Callable[[], None]) -> None:
        self.lease = lease
        self.ttl_s = ttl_s
        self.holder = holder
        self.lost = lost
        self.due = time.monotonic() + ttl_s / 3


class LeaseKeeper:
    """Threads: any at once. In a forked child it keeps nothing: the leases are the parent's.

    A lease whose thread ended without releasing it is not renewed any more, so that it passes on at its ttl.
    """

    def __init__(self, heartbeat: Callable[[], None]) -> None:
        self._heartbeat = heartbeat
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()  # Guards what follows.
        self._kept: dict[int, _Kept] = {}
        self._thread: threading.Thread | None = None
        self._sleeps_until = 0.0
        self._closed = False

    def _here(self) -> None:
        if self._pid != os.getpid():
            self._begin()

    def keep(self, lease: Any, ttl_s: float, lost: Callable[[], None]) -> None:
        """Renews the lease until ``forget``; calls ``lost`` once, on this keeper's thread, when it is over."""
        self._here()
        kept = _Kept(lease, ttl_s, threading.current_thread(), lost)
        with self._changed:
            self._kept[id(lease)] = kept
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="statehouse-leases", daemon=True)
                self._thread.start()
            elif kept.due < self._sleeps_until:
                self._changed.notify_all()

    def forget(self, lease: Any) -> None:
        self._here()
        with self._changed:
            self._kept.pop(id(lease), None)

    def close(self) -> None:
        self._here()
        with self._changed:
            self._closed = True
            self._kept.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        heartbeat_due = time.monotonic() + _HEARTBEAT_S
        while True:
            with self._changed:
                if self._closed:
                    return
                kept = min(self._kept.values(), key=lambda one: one.due, default=None)
                now = time.monotonic()
                if kept is None:
                    self._sleeps_until = float("inf")
                    self._changed.wait()
                    continue
                if kept.due > now and heartbeat_due > now:
                    self._sleeps_until = min(kept.due, heartbeat_due)
                    self._changed.wait(self._sleeps_until - now)
                    continue
            if heartbeat_due <= time.monotonic():
                heartbeat_due = time.monotonic() + _HEARTBEAT_S
                self._heartbeat()
            if kept.due <= time.monotonic():
                self._renew(kept)

    def _renew(self, kept: _Kept) -> None:
        again_s = kept.ttl_s / 3
        if kept.holder.is_alive():
            try:
                kept.lease.renew(0)
            except errors.LockLost:
                pass
            except errors.Error:
                again_s = _AGAIN_S
        with self._changed:
            if self._kept.get(id(kept.lease)) is not kept:
                return  # It was released meanwhile.
            if kept.lease.left() > 0:
                kept.due = time.monotonic() + again_s
                return
            del self._kept[id(kept.lease)]
        kept.lost()
