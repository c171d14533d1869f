"""AcquirerProxy: a lock between processes that passes on when its holder's process is gone."""

from __future__ import annotations

import functools
import os
import socket
import time
from types import TracebackType
from typing import Any

from .._client import Client

_LOOK_S = 0.1  # How soon a waiter notices that the holder's process has ended.
_AREA_BYTES = 64


class Holder(dict[str, Any]):
    """Who holds a lock: host, boot and PID namespace, and there a process id and when that process started."""


@functools.lru_cache(maxsize=4)
def _place(pid: int) -> str:
    """Where process ids mean the same as here. `pid` is this process's, so that a forked child asks again."""
    with open("/proc/sys/kernel/random/boot_id") as boot:
        return f"{socket.gethostname()} {boot.read().strip()} {os.stat('/proc/self/ns/pid').st_ino}"


def _start_of(pid: int) -> int | None:
    """When a process started, in ticks since boot; None for one that ended, waited for or not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


@functools.lru_cache(maxsize=4)
def _own_start(pid: int) -> int:
    start = _start_of(pid)
    return 0 if start is None else start


def _me() -> dict[str, Any]:
    pid = os.getpid()
    return {"place": _place(pid), "pid": pid, "start": _own_start(pid)}


def _is_gone(holder: Any) -> bool:
    """Whether the holder's process has ended. Unknown, so False, for one of another host or container."""
    if not isinstance(holder, dict) or holder.get("place") != _place(os.getpid()):
        return False
    if not isinstance(holder.get("pid"), int) or not isinstance(holder.get("start"), int):
        return False
    return bool(_start_of(holder["pid"]) != holder["start"])


class AcquirerProxy:
    """A lock that one thread of one process holds at a time, as multiprocessing's proxy of a threading.Lock.

    What it promises: at most one process holds it as long as each holder ends by ``release`` or by the end of its process; when a holder's
    process ends, killed or not, a waiter gets the lock within a tenth of a second. That is told by process id and start time, so only
    among processes of one host and one container; a holder elsewhere that vanishes keeps the lock until somebody calls ``force_release``.
    A holder that is stopped or hangs keeps it too.

    Any thread of the holding process may release it, no other process can. Not reentrant, not fair. Threads and forked children: any at
    once; a child does not hold what its parent holds. It works on an entry of a dict and an area to wait on. Lock leases will replace it.
    """

    def __init__(self, client: Client, name: str) -> None:
        """Not for users: get_shared_state() and BaseManager make it."""
        self.name = name
        self._locks = client.dict("managers/locks")
        self._area = client.area(f"managers/lock/{name}", size=_AREA_BYTES)

    def __repr__(self) -> str:
        return f"<AcquirerProxy {self.name!r}, {'locked' if self.locked() else 'unlocked'}>"

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Takes the lock. False where somebody holds it and ``blocking`` is false, or ``timeout`` seconds passed."""
        if not blocking and timeout is not None and timeout >= 0:
            raise ValueError("can't specify a timeout for a non-blocking call")
        deadline = None if timeout is None or timeout < 0 else time.monotonic() + timeout
        while True:
            seen = self._area.updates
            if self._try():
                return True
            left = _LOOK_S if deadline is None else min(_LOOK_S, deadline - time.monotonic())
            if not blocking or left <= 0:
                return False
            self._area.wait(seen, left)

    def _try(self) -> bool:
        if self._locks.add(self.name, _me()):
            return True
        entry = self._locks.entry(self.name)
        if entry is None:
            return self._locks.add(self.name, _me())
        return _is_gone(entry.value) and self._locks.set(self.name, _me(), if_version=entry.version)

    def release(self) -> None:
        """Gives the lock back. RuntimeError where this process does not hold it."""
        entry = self._locks.entry(self.name)
        if entry is None:
            raise RuntimeError(f"release of the lock {self.name!r}, which nobody holds")
        if entry.value != _me():
            raise RuntimeError(f"release of the lock {self.name!r}, which another process holds: {entry.value}")
        if not self._locks.delete(self.name, if_version=entry.version):
            raise RuntimeError(f"release of the lock {self.name!r}: another thread released it at the same time")
        self._area.add_u64(0, 1)  # Wakes those that wait.

    def locked(self) -> bool:
        """Whether anybody holds it."""
        entry = self._locks.entry(self.name)
        return entry is not None and not _is_gone(entry.value)

    def holder(self) -> Holder | None:
        """Who holds it, as it wrote itself down."""
        entry = self._locks.entry(self.name)
        return None if entry is None or not isinstance(entry.value, dict) else Holder(entry.value)

    def force_release(self) -> bool:
        """Takes the lock away from whoever holds it; False where nobody does. For people, when a holder of another host is gone."""
        released = self._locks.delete(self.name)
        self._area.add_u64(0, 1)
        return released

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
