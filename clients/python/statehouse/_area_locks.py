"""AreaLock: the lock of a range of an area, several leases that are one."""

from __future__ import annotations

import contextlib
import operator
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import errors
from ._locks import Leasing, Lock

if TYPE_CHECKING:
    from ._client import Client

_STRIPE_BYTES_MIN = 4096
_STRIPES_MAX = 1024
_LOCKED_STRIPES_MAX = 32  # A longer range locks the area as a whole.


class AreaLock(Lock):
    """The lock of ``len`` bytes of an area from ``pos`` on: a Lock whose ``token`` is for that area's writes.

    A range is locked by the stripes that it touches, because they carry the fences: shared ``area/<name>``, then ``area/<name>/#<stripe>``
    in rising order, in the mode that was asked for. As everybody takes them in this order, two that ask for ranges never wait for each
    other in a circle. All or nothing: what was taken is given back where the rest is not had in time.
    """

    def __init__(
        self,
        leasing: Leasing,
        client: Client,
        area: str,
        size: int,
        pos: int,
        len: int | None,
        *,
        ttl: Any,
        shared: bool,
        hold_max: Any,
        timeout: Any,
        owner: str | None,
        on_lost: Callable[[Lock], None] | None,
        manual_renewal: bool,
    ) -> None:
        """Not for users: Area.lock() makes it."""
        super().__init__(
            leasing,
            client,
            f"area/{area}",
            ttl=ttl,
            shared=shared,
            limit=1,
            hold_max=hold_max,
            timeout=timeout,
            owner=owner,
            on_lost=on_lost,
            manual_renewal=manual_renewal,
        )
        self.pos = operator.index(pos)
        self.len = size - self.pos if len is None else operator.index(len)
        if not 0 <= self.len <= size or not 0 <= self.pos <= size - self.len:
            raise errors.by_name(
                "OUT_OF_BOUNDS", f'area "{area}": [{self.pos}, +{self.len}) is not inside its {size} bytes', area
            )
        if self.len == 0:
            raise errors.by_name("INVALID_ARGUMENT", f'area "{area}": a range of no bytes cannot be locked', area)
        self._parts = self._parts_of(size)

    def _parts_of(self, size: int) -> list[tuple[str, bool]]:
        """The names to lock, each with whether it is shared, in their order."""
        stripe = max(_STRIPE_BYTES_MIN, 1 << (-(-size // _STRIPES_MAX) - 1).bit_length())
        stripes = range(self.pos // stripe, (self.pos + self.len - 1) // stripe + 1)
        is_all = len(stripes) == -(-size // stripe)
        if len(stripes) > _LOCKED_STRIPES_MAX or (is_all and not self._shared):
            return [(self.name, False)]
        return [(self.name, True), *((f"{self.name}/#{number}", self._shared) for number in stripes)]

    def _take(self, timeout_ns: int, owner: str, stop: bytearray | None) -> Any:
        deadline_ns = time.monotonic_ns() + timeout_ns
        gathered = _Gathered(self.ttl_s)
        try:
            for name, shared in self._parts:
                request = name, shared, 1, self._ttl_ns, self._hold_ns
                lease = self._leasing.acquire(*request, 0, owner)
                if lease is None and timeout_ns != 0:
                    self._leasing.keep(gathered)  # What was taken is renewed while the rest is waited for.
                    left_ns = timeout_ns if timeout_ns < 0 else max(0, deadline_ns - time.monotonic_ns())
                    lease = self._leasing.acquire(*request, left_ns, owner, stop)
                if lease is None:
                    gathered.give_back()
                    return None
                gathered.add(lease)
            # That all are held after the last was granted is what makes the highest token higher than those of everybody before, and lower
            # than those of everybody after.
            if gathered.joined.left() <= 0:
                raise errors.by_name(
                    "LOCK_LOST", f"a part of the range of {self.name!r} was lost while the rest was waited for; ask again", self.name
                )
        except BaseException:
            gathered.give_back()
            raise
        return gathered.hand_over()

    def locked(self) -> bool:
        """Whether anybody holds a part of the range, as of now: this object, or another one in any process."""
        if self.held:
            return True
        infos = [self._client.locks.describe(name) for name, _ in self._parts]
        if any(info.holder_count > 0 for info in infos[1:]):
            return True
        return any(len(self._parts) == 1 or not holder.shared for holder in infos[0].holders)

    def __repr__(self) -> str:
        return f"<statehouse.AreaLock {self.name!r} [{self.pos}, +{self.len}), {'held' if self.held else 'not held'}>"


class _JoinedLease:
    """Leases as one: held while all of them are."""

    def __init__(self) -> None:
        self.leases: list[Any] = []  # In the order in which they were taken.

    @property
    def token(self) -> int:
        return max(lease.token for lease in self.leases)

    def left(self) -> float:
        return min((float(lease.left()) for lease in tuple(self.leases)), default=0.0)

    def renew(self, ttl_ns: int, /) -> None:
        for lease in tuple(self.leases):
            lease.renew(ttl_ns)

    def release(self) -> bool:
        held = True
        failure: errors.Error | None = None
        for lease in reversed(self.leases):
            try:
                held = lease.release() and held
            except errors.Error as error:
                failure = failure or error
                if isinstance(error, (errors.Unavailable, errors.Timeout)):
                    break  # The rest passes on at its ttl: nobody waits for a time-out each.
        if failure is not None:
            raise failure
        return held


class _Gathered:
    """Leases that were taken while the rest is still to be had, as a Holder that the client's keeper of leases keeps."""

    manual_renewal = False  # Whoever gathers waits and cannot renew.

    def __init__(self, ttl_s: float) -> None:
        self.ttl_s = ttl_s
        self.thread_id = threading.get_ident()
        self.joined = _JoinedLease()
        self.lease: _JoinedLease | None = None

    def add(self, lease: Any) -> None:
        self.joined.leases.append(lease)
        self.lease = self.joined

    def on_lease_over(self, lease: Any) -> None:
        """Found out by whoever gathers, when all are there."""

    def give_back(self) -> None:
        self.lease = None
        # What cannot be given back now passes on at its ttl.
        with contextlib.suppress(errors.Error):
            self.joined.release()

    def hand_over(self) -> _JoinedLease:
        self.lease = None
        return self.joined
