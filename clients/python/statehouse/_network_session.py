"""The network door: gRPC calls, unary ones and streams.

grpcio is imported at the first call, and a channel is made then, so a process may fork until that moment; a child
makes a channel of its own, whatever its parent did.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

from . import _wire, errors
from ._batch_link import BatchLink
from ._control import Call

_UNIX = "unix:"  # Of a target.
_HEALTH = "/grpc.health.v1.Health/Check"
_MESSAGE_BYTES_MAX = (16 << 20) + 4096
CHANNEL_OPTIONS = [
    # A child of a fork must not share its parent's connection, which grpcio would otherwise find by address.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
# Authorities, key and certificate as PEM, None where there is none.
Tls = tuple["bytes | None", "bytes | None", "bytes | None"]


def make_channel(module: Any, target: str, tls: Tls | None) -> Any:
    """A channel of ``grpc`` or ``grpc.aio``."""
    if tls is None:
        return module.insecure_channel(target, options=CHANNEL_OPTIONS)
    import grpc

    return module.secure_channel(target, grpc.ssl_channel_credentials(*tls), options=CHANNEL_OPTIONS)


# For failures that come from gRPC itself and not from the service.
_REASON_OF_CODE = {
    "CANCELLED": "CANCELLED",
    "DEADLINE_EXCEEDED": "TIMEOUT",
    "UNAUTHENTICATED": "UNAUTHENTICATED",
    "PERMISSION_DENIED": "PERMISSION_DENIED",
    "UNIMPLEMENTED": "UNIMPLEMENTED",
    "RESOURCE_EXHAUSTED": "MESSAGE_TOO_LARGE",
    "UNAVAILABLE": "UNAVAILABLE",
    "INVALID_ARGUMENT": "INVALID_ARGUMENT",
}


def error_of(rpc_error: Any, call: Call, target: str) -> errors.Error:
    """The exception for a grpc.RpcError."""
    for key, value in rpc_error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        from .v1 import error_pb2

        for serialized in _wire.error_details(value):
            detail = error_pb2.ErrorDetail.FromString(serialized)
            return errors.from_reason(
                detail.reason, rpc_error.details() or "", call.name, detail.retry_after_ms
            )
    reason = _REASON_OF_CODE.get(rpc_error.code().name, "INTERNAL")
    return errors.by_name(
        reason, f"{call.method} at {target}: {rpc_error.details()}", call.name
    )


def closed_error(name: str) -> errors.Error:
    return errors.by_name(
        "CLIENT_CLOSED", "the client was closed before this call; connect again", name
    )


def unreachable_error(target: str, name: str, tls: Tls | None = None) -> errors.Error:
    certificate = "" if tls is None else ", with a certificate for this name of an authority that is trusted"
    return errors.by_name(
        "UNAVAILABLE",
        f"no answer from {target} before the deadline; is statehoused listening there{certificate}?",
        name,
    )


def too_late_error(target: str, call: Call) -> errors.Error:
    return errors.by_name(
        "TIMEOUT", f"{call.method} at {target}: the deadline passed, so it was not sent", call.name
    )


class _Nothing:
    """A message without fields, or one that nobody reads."""

    def SerializeToString(self) -> bytes:
        return b""

    @staticmethod
    def FromString(serialized: bytes) -> _Nothing:
        return _Nothing()  # Not None, which grpcio takes for a failure.


class RetryDelays:
    """The pauses between tries: 5 ms growing to 200 ms, with jitter."""

    def __init__(self) -> None:
        self._length = 0.005

    def next(self) -> float:
        length = self._length
        self._length = min(length * 2, 0.2)
        return random.uniform(length / 2, length)


class NetworkSession:
    """One channel for each process, made at its first call.

    Threads: any at once. fork(): grpcio does not survive it, so before os.fork() the session lets its channel go (calls that
    may be sent twice are cut short and repeated after the fork, the others are awaited), and parent and child make new ones.
    """

    transport = "network"

    def __init__(self, target: str, token: str, timeout: float, tls: Tls | None = None) -> None:
        self.target = target
        self.tls = tls
        self.timeout = timeout
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._closed = False
        # Guards what follows.
        self._condition = threading.Condition()
        self._forking = False
        self._in_flight = 0
        self._mutations_in_flight = 0
        self._channels_let_go = 0
        self._pid = 0
        self._channel: Any = None
        self._methods: dict[str, Any] = {}
        self._answered = False  # By the service, through this channel.
        # Of a parent that forked without Python's knowledge: closing them here would hang or disturb it.
        self._inherited: list[Any] = []
        self.batches = BatchLink(self)
        _sessions.add(self)

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def address(self) -> str:
        """Where the service is, as connect() takes it; never with a token."""
        if self.target.startswith(_UNIX):
            return f"statehouse+unix://{os.path.dirname(self.target.removeprefix(_UNIX))}"
        return f"{'statehouse' if self.tls is None else 'statehouse+tls'}://{self.target}"

    def close(self) -> None:
        """Later calls, and those under way, raise ClientClosed."""
        with self._condition:
            self._closed = True
            channel = self._channel if self._pid == os.getpid() else None
        self.batches.close()
        if channel is not None:
            channel.close()

    def call(self, call: Call, timeout: float | None = None, long_running: bool = False) -> Any:
        """Carries one call out. Only idempotent ones are sent again, and only after Unavailable. ``long_running``: its deadline may pass
        with a service that is there."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        if not long_running:
            response = self.batches.call_short(call, deadline)
            if response is not None:
                return response
        delays = RetryDelays()
        while True:
            response = None
            error = self._reach(call, deadline) if long_running else None
            if error is None:
                response, error = self._call_once(call, deadline)
            if error is None:
                return response
            again = isinstance(error, errors.Unavailable) and error.reason != "STALLED"
            if not again or not call.idempotent:
                raise error
            delay = delays.next()
            if time.monotonic() + delay >= deadline:
                raise error
            time.sleep(delay)
            if not isinstance(error, errors.Draining):  # Who says that did not begin it.
                call.note_again()

    def _reach(self, call: Call, deadline: float) -> errors.Error | None:
        """Asks for a sign of life where there was none through this channel: else a call whose deadline passes looks unreachable."""
        if self._answered and self._pid == os.getpid():
            return None
        _, error = self._call_once(Call(_HEALTH, _Nothing(), _Nothing, True, call.name), deadline)
        if isinstance(error, errors.Unavailable | errors.Timeout | errors.Cancelled | errors.ClientClosed):
            return error
        self._answered = True
        return None

    def _call_once(self, call: Call, deadline: float) -> tuple[Any, errors.Error | None]:
        import grpc

        while True:
            if time.monotonic() >= deadline:  # gRPC would still give it a millisecond.
                return None, too_late_error(self.target, call)
            method, let_go = self._begin(call)
            try:
                # Nothing is sent before there is a connection, so waiting for one is safe for every call.
                response = method(
                    call.request,
                    timeout=max(deadline - time.monotonic(), 0.0),
                    metadata=self.metadata,
                    wait_for_ready=True,
                )
                self._answered = True
                return response, None
            except grpc.RpcError as rpc_error:
                error = error_of(rpc_error, call, self.target)
            except ValueError as closed:  # grpcio's way to say that another thread closed the channel.
                if not self._closed and self._channels_let_go == let_go:
                    raise
                error = errors.by_name("CANCELLED", str(closed), call.name)
            finally:
                method = None
                self._end(call)
            if self._closed:
                return None, closed_error(call.name)
            if isinstance(error, errors.Timeout) and not self._answered:
                return None, unreachable_error(self.target, call.name, self.tls)
            if isinstance(error, errors.Cancelled) and self._channels_let_go != let_go:
                call.note_again()
                continue  # Cut short for a fork; only calls that may be sent twice are.
            if isinstance(error, errors.Unavailable):
                self._answered = False
            return None, error

    def _begin(self, call: Call) -> tuple[Any, int]:
        """The method to call. _end must follow."""
        with self._condition:
            while self._forking:
                self._condition.wait()
            if self._closed:
                raise closed_error(call.name)
            method = self._method(call)
            self._in_flight += 1
            self._mutations_in_flight += not call.idempotent
            return method, self._channels_let_go

    def _end(self, call: Call) -> None:
        with self._condition:
            self._in_flight -= 1
            self._mutations_in_flight -= not call.idempotent
            if self._forking:
                self._condition.notify_all()

    def _method(self, call: Call) -> Any:
        self._make_channel()
        method = self._methods.get(call.method)
        if method is None:
            method = self._channel.unary_unary(
                call.method,
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=call.response_type.FromString,
            )
            self._methods[call.method] = method
        return method

    def _make_channel(self) -> None:
        if self._pid != os.getpid():
            if self._channel is not None:
                self._inherited.append((self._channel, self._methods))
            self._channel = None
            self._pid = os.getpid()
        if self._channel is None:
            import grpc

            self._methods = {}
            self._answered = False
            with _grpc_start():
                self._channel = make_channel(grpc, self.target, self.tls)

    def stream(self, call: Call) -> Any:
        """Begins a streaming call: its responses, which can be iterated and cancelled. A fork of this process cuts it short (CANCELLED).
        It waits for the service as long as that takes."""
        with self._condition:
            while self._forking:
                self._condition.wait()
            if self._closed:
                raise closed_error(call.name)
            self._make_channel()
            return self._channel.unary_stream(
                call.method,
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=call.response_type.FromString,
            )(call.request, metadata=self.metadata, wait_for_ready=True)

    def before_fork(self) -> None:
        with self._condition:
            self._forking = True
            while self._mutations_in_flight:
                self._condition.wait()
            channel, self._channel = self._channel, None
            self._methods = {}
            self._answered = False
            self._channels_let_go += 1
        if channel is not None and self._pid == os.getpid():
            channel.close()
        with self._condition:
            while self._in_flight:
                self._condition.wait()

    def after_fork_in_parent(self) -> None:
        with self._condition:
            self._forking = False
            self._condition.notify_all()

    def after_fork_in_child(self) -> None:
        # A thread that is not here may have held the old one.
        self._condition = threading.Condition()
        self._forking = False
        self._in_flight = 0
        self._mutations_in_flight = 0
        self.batches.after_fork_in_child()


_sessions: weakref.WeakSet[NetworkSession] = weakref.WeakSet()
_forking: list[NetworkSession] = []  # Those of the fork under way.


# grpcio's own threads, by the names that it gives them. Its fork handlers deadlock while these are still ending.
_GRPC_THREADS = {
    "default-executo",
    "event_engine",
    "grpc_global_tim",
    "grpc_shutdown",
    "resolver-execut",
    "timer_manager",
}
_GRPC_ENDS_WITHIN_S = 0.5  # It takes less than a millisecond, unless somebody else in the process uses grpcio.


_STRATEGY = "GRPC_POLL_STRATEGY"


@contextlib.contextmanager
def _grpc_start() -> Iterator[None]:
    """Around the making of a channel, which starts the gRPC library when it does not run.

    One time in a hundred its default way of polling (epoll1) loses an answer in a forked child whose parent had used it; the
    plain poll does not, and is as fast for a few connections. The library chooses once, so a choice of the user's, or of
    whoever used it earlier in this process, stays.
    """
    choose = _STRATEGY not in os.environ
    if choose:
        os.environ[_STRATEGY] = "poll"
    try:
        yield
    finally:
        if choose:
            os.environ.pop(_STRATEGY, None)


def _before_fork() -> None:
    _forking[:] = _sessions
    for session in _forking:
        session.before_fork()
    if "grpc" in sys.modules:
        deadline = time.monotonic() + _GRPC_ENDS_WITHIN_S
        while time.monotonic() < deadline and not _GRPC_THREADS.isdisjoint(_thread_names()):
            time.sleep(0.0002)


def _thread_names() -> Iterator[str]:
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/comm") as comm:
                yield comm.read().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue  # It just ended.


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().after_fork_in_parent()


def _after_fork_in_child() -> None:
    _forking.clear()
    for session in list(_sessions):
        session.after_fork_in_child()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
