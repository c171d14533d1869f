"""Requests and responses of the calls on locks and sessions, for every door."""

from __future__ import annotations

from typing import Any

from ._control import Call
from .errors import InvalidArgument
from .types import LockInfo, LockParty

LOCKS = "/statehouse.v1.Locks/"
SESSIONS = "/statehouse.v1.Sessions/"
NS_PER_S = 1_000_000_000
TTL_DEFAULT = 10.0


def lock_pb2() -> Any:
    from .v1 import lock_pb2 as module

    return module


def session_pb2() -> Any:
    from .v1 import session_pb2 as module

    return module


def check_lock_name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a lock's name must be a str, not {type(name).__name__}")
    return name


def nanoseconds(value: Any, what: str, name: str) -> int:
    """Seconds or a timedelta as whole nanoseconds, 0 or more."""
    seconds = value.total_seconds() if hasattr(value, "total_seconds") else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{what} must be seconds or a timedelta, not {type(value).__name__}")
    if not 0 <= seconds <= 1e9:  # Refuses nan too.
        raise InvalidArgument(f"{what} is {value!r}; it must be 0 to 1e9 seconds", reason="INVALID_ARGUMENT", name=name)
    return round(seconds * NS_PER_S)


def some_nanoseconds(value: Any, what: str, name: str) -> int:
    """As nanoseconds, more than 0: 0 has a meaning of its own in the calls."""
    ns = nanoseconds(value, what, name)
    if ns == 0:
        raise InvalidArgument(f"{what} is {value!r}; it must be 100 ms or more", reason="INVALID_ARGUMENT", name=name)
    return ns


def _set(duration: Any, ns: int) -> None:
    duration.seconds, duration.nanos = divmod(ns, NS_PER_S)


def seconds_of(duration: Any) -> float:
    """A protobuf Duration in seconds."""
    return float(duration.seconds + duration.nanos / NS_PER_S)


def acquire(
    name: str, session_id: int, request_id: int, shared: bool, limit: int, ttl_ns: int, hold_ns: int, timeout_ns: int, owner: str
) -> Call:
    pb = lock_pb2()
    request = pb.AcquireLockRequest(
        name=name,
        session_id=session_id,
        request_id=request_id,
        mode=pb.LOCK_MODE_SHARED if shared else pb.LOCK_MODE_EXCLUSIVE,
        limit=limit,
        owner=owner,
    )
    _set(request.ttl, ttl_ns)
    if hold_ns:
        _set(request.hold_max, hold_ns)
    _set(request.timeout, timeout_ns)
    return Call(LOCKS + "AcquireLock", request, pb.AcquireLockResponse, True, name)


def renew(name: str, session_id: int, token: int, ttl_ns: int) -> Call:
    pb = lock_pb2()
    request = pb.RenewLockRequest(name=name, session_id=session_id, token=token)
    if ttl_ns:
        _set(request.ttl, ttl_ns)
    return Call(LOCKS + "RenewLock", request, pb.RenewLockResponse, True, name)


def release(name: str, session_id: int, token: int) -> Call:
    pb = lock_pb2()
    request = pb.ReleaseLockRequest(name=name, session_id=session_id, token=token)
    return Call(LOCKS + "ReleaseLock", request, pb.ReleaseLockResponse, True, name)


def describe(name: str) -> Call:
    pb = lock_pb2()
    return Call(LOCKS + "DescribeLock", pb.DescribeLockRequest(name=check_lock_name(name)), pb.DescribeLockResponse, True, name)


def list_locks(prefix: str, page_token: str) -> Call:
    pb = lock_pb2()
    request = pb.ListLocksRequest(prefix=prefix, page_size=1000, page_token=page_token)
    return Call(LOCKS + "ListLocks", request, pb.ListLocksResponse, True)


def force_release(name: str, token: int) -> Call:
    pb = lock_pb2()
    request = pb.ForceReleaseLockRequest(name=check_lock_name(name), token=token)
    return Call(LOCKS + "ForceReleaseLock", request, pb.ForceReleaseLockResponse, False, name)


def open_session(client_name: str, ttl_ns: int) -> Call:
    pb = session_pb2()
    request = pb.OpenSessionRequest(client_name=client_name)
    _set(request.ttl, ttl_ns)
    # Asking twice is harmless: a session that nobody knows of ends by itself.
    return Call(SESSIONS + "OpenSession", request, pb.OpenSessionResponse, True)


def renew_session(session_id: int) -> Call:
    pb = session_pb2()
    return Call(SESSIONS + "RenewSession", pb.RenewSessionRequest(session_id=session_id), pb.RenewSessionResponse, True)


def hold_session(session_id: int) -> Call:
    pb = session_pb2()
    return Call(SESSIONS + "HoldSession", pb.HoldSessionRequest(session_id=session_id), pb.HoldSessionResponse, True)


def close_session(session_id: int) -> Call:
    pb = session_pb2()
    return Call(SESSIONS + "CloseSession", pb.CloseSessionRequest(session_id=session_id), pb.CloseSessionResponse, True)


def _party_of(party: Any) -> LockParty:
    waits = party.token == 0
    return LockParty(
        owner=party.owner,
        shared=party.mode == lock_pb2().LOCK_MODE_SHARED,
        session_id=party.session_id,
        token=party.token,
        since=seconds_of(party.since),
        expires_in=None if waits else seconds_of(party.expires_in),
    )


def info_of(lock: Any) -> LockInfo:
    """A message Lock as a LockInfo."""
    return LockInfo(
        name=lock.name,
        limit=lock.limit,
        holder_count=lock.holder_count,
        waiter_count=lock.waiter_count,
        holders=tuple(_party_of(party) for party in lock.holders),
        waiters=tuple(_party_of(party) for party in lock.waiters),
    )
