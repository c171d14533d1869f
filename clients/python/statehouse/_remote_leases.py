"""Leases by calls: for the network door, and for local clients whose access token may not lock every name."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from . import _lock_calls, errors
from ._control import Call
from ._network_session import RetryDelays

_SESSION_TTL_S = 10.0
_WAIT_SLICE_S = 1.0  # One call of a wait: then Python looks at its signals, and asks again for the same place.
_STOP_SLICE_S = 0.25  # The same where somebody may stop it.
_FOR_EVER_S = 3e8
_HELD_PAUSE_MIN_S = 0.0001  # Between two looks whether the session is held.
_HELD_PAUSE_MAX_S = 0.02
_HOLD_SLICE_S = 20.0
_SPARE = 0.9  # Of what the service says is left; the rest is for the answer's way.

# call(call, timeout, long_running) -> response
Caller = Callable[[Call, float, bool], Any]


class RemoteLease:
    """A lock that is held by this process's session."""

    def __init__(self, leases: RemoteLeases, name: str, session_id: int, token: int, valid_until: float) -> None:
        self._leases = leases
        self._name = name
        self.session_id = session_id
        self.token = token
        self._mutex = threading.Lock()
        self._valid_until = valid_until
        self._over = False

    def left(self) -> float:
        """Seconds that the lease has left by this process's clock; 0.0 once it is lost."""
        left = 0.0 if self._over else max(0.0, self._valid_until - time.monotonic())
        if left == 0.0:
            self._over = True  # Whoever was told so is not told otherwise later.
        return left

    def lose(self) -> None:
        self._over = True

    def renew(self, ttl_ns: int) -> None:
        self._leases.check_open()
        if self.left() <= 0:
            raise errors.by_name("LOCK_LOST", f"the lease of lock {self._name!r} is over", self._name)
        before = time.monotonic()
        try:
            response = self._leases.call(_lock_calls.renew(self._name, self.session_id, self.token, ttl_ns))
        except (errors.LockLost, errors.NotFound) as lost:
            self._over = True
            raise errors.by_name("LOCK_LOST", str(lost), self._name) from None
        valid_until = before + _lock_calls.seconds_of(response.expires_in)
        # A lease is never made shorter: the answer to an earlier renewal may come later.
        with self._mutex:
            self._valid_until = max(self._valid_until, valid_until)

    def release(self) -> bool:
        """Whether it was held until now."""
        told = self._over  # That it is lost.
        valid = self.left() > 0
        self._over = True
        self._leases.forget(self)
        again = bytearray(1)
        call = _lock_calls.release(self._name, self.session_id, self.token)._replace(again=again)
        try:
            response = self._leases.call(call)
        except errors.NotFound:  # The session is over, and its locks have passed on, nobody knows when.
            return False
        # What the service says of a release that was sent once is so, whatever this process's clock says of the lease. "Not held" of one
        # that was sent again may be because of the first sending: then it was held if the lease was good before that.
        return (bool(response.held) and not told) or (bool(again[0]) and valid)


class RemoteLeases:
    """The session of this process and its leases. Threads: any at once; one of its own, once there is a session.

    In a forked child it begins anew: what the parent holds is the parent's.
    """

    def __init__(self, caller: Caller, client_name: str, timeout: float) -> None:
        self._caller = caller
        self._client_name = client_name
        self._timeout = timeout
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()  # Guards what follows.
        self._session_id = 0
        self._is_held = False  # That session, as the service said since the last break.
        self._closed = False
        self._leases: dict[int, RemoteLease] = {}
        self._request_ids = itertools.count(1)

    def call(self, call: Call) -> Any:
        return self._caller(call, self._timeout, False)

    def _here(self) -> None:
        if self._pid != os.getpid():
            self._begin()

    def check_open(self) -> None:
        self._here()
        if self._closed:
            raise errors.by_name("CLIENT_CLOSED", "the client was closed before this call; connect again", "")

    def session_id(self) -> int:
        """This process's session, opened where there is none. Somebody has to renew it (heartbeat).

        The service has said that this client's connection holds it: whatever it has ends with this process.
        """
        self._here()
        deadline = time.monotonic() + self._timeout
        pause = _HELD_PAUSE_MIN_S
        while True:
            with self._lock:
                self.check_open()
                if self._session_id == 0:
                    self._open()
                if self._is_held:
                    return self._session_id
                session_id = self._session_id
            if self._look_held(session_id):
                continue
            if time.monotonic() >= deadline:
                message = f"the service did not say in time that this client's connection holds session {session_id}"
                raise errors.by_name("TIMEOUT", message, "")
            time.sleep(pause)
            pause = min(2 * pause, _HELD_PAUSE_MAX_S)

    def _open(self) -> None:
        """With the lock held."""
        opened = self.call(_lock_calls.open_session(self._client_name, round(_SESSION_TTL_S * _lock_calls.NS_PER_S)))
        self._session_id = opened.session_id
        self._is_held = False
        threading.Thread(target=self._hold, args=(self._session_id,), name="statehouse-session", daemon=True).start()

    def _look_held(self, session_id: int) -> bool:
        try:
            held = bool(self.call(_lock_calls.renew_session(session_id)).held)
        except errors.NotFound:
            self.lose(session_id)
            return False
        with self._lock:
            if held and self._session_id == session_id:
                self._is_held = True
        return held

    def _hold(self, session_id: int) -> None:
        """The session's thread: learns of lost locks and of the session's end, and tells the service that this process lives."""
        delays = RetryDelays()
        away_since: float | None = None
        while True:
            ended = False
            lost: tuple[int, ...] = ()
            try:
                response = self._caller(_lock_calls.hold_session(session_id), _HOLD_SLICE_S, True)
                ended = response.ended
                lost = tuple(lock.token for lock in response.lost_locks)
                away_since = None
            except errors.Timeout:
                away_since = None
            except (errors.Unavailable, errors.Draining, errors.Cancelled):
                # The service is away, or a fork was under way. Its next daemon knows the session for a while.
                with self._lock:
                    if self._session_id == session_id:
                        self._is_held = False
                now = time.monotonic()
                away_since = now if away_since is None else away_since
                if now - away_since > _SESSION_TTL_S:
                    ended = True
                else:
                    time.sleep(delays.next())
            except errors.Error:
                ended = True
            if self._pid != os.getpid():
                return
            with self._lock:
                if self._session_id != session_id:
                    return
                for token in lost:
                    if token in self._leases:
                        self._leases[token].lose()
            if ended:
                self.lose(session_id)
                return

    def lose(self, session_id: int) -> None:
        """The session is over, as the service says."""
        with self._lock:
            for lease in self._leases.values():
                if lease.session_id == session_id:
                    lease.lose()
            if self._session_id == session_id:
                self._session_id = 0

    def heartbeat(self) -> None:
        """Lengthens the session, where there is one."""
        self._here()
        session_id = self._session_id
        if session_id == 0:
            return
        try:
            self.call(_lock_calls.renew_session(session_id))
        except errors.NotFound:
            self.lose(session_id)
        except errors.Error:
            pass  # The service is away; the next heartbeat may find it.

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
    ) -> RemoteLease | None:
        """As _local.Locks.acquire; with ``stop`` set it asks once more, without waiting, and then gives up its place."""
        deadline = None if timeout_ns < 0 else time.monotonic() + timeout_ns / _lock_calls.NS_PER_S
        self._here()
        request_id = next(self._request_ids)
        slice_s = _WAIT_SLICE_S if stop is None else _STOP_SLICE_S
        while True:
            # The wait goes on after a call's end, and keeps its place until the next one.
            if stop is not None and stop[0]:
                deadline = time.monotonic()
            left = _FOR_EVER_S if deadline is None else max(0.0, deadline - time.monotonic())
            is_last = left <= slice_s
            session_id = 0
            try:
                session_id = self.session_id()
                call = _lock_calls.acquire(
                    name, session_id, request_id, shared, limit, ttl_ns, hold_ns, round(left * _lock_calls.NS_PER_S), owner
                )
                response = self._caller(call, left + self._timeout if is_last else slice_s, left > 0)
            except errors.Timeout:
                if is_last:
                    raise
                continue
            except errors.NotFound:
                self.lose(session_id)
                continue
            if response.acquired:
                valid_until = time.monotonic() + _SPARE * _lock_calls.seconds_of(response.expires_in)
                lease = RemoteLease(self, name, session_id, response.token, valid_until)
                with self._lock:
                    self._leases[lease.token] = lease
                return lease
            if deadline is not None and time.monotonic() >= deadline:
                return None

    def forget(self, lease: RemoteLease) -> None:
        with self._lock:
            self._leases.pop(lease.token, None)

    def close(self) -> None:
        """Ends the session: its locks pass on."""
        if self._pid != os.getpid():
            return
        with self._lock:
            session_id, self._session_id = self._session_id, 0
            self._closed = True
            for lease in self._leases.values():
                lease.lose()
            self._leases.clear()
        if session_id:
            try:
                self.call(_lock_calls.close_session(session_id))
            except errors.Error:
                pass  # It ends by itself.
