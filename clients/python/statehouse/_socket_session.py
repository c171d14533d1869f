"""The service's local socket, for processes of its host that map no memory: small calls go over the attach socket, all others over gRPC."""

from __future__ import annotations

import time
from typing import Any

from . import _local, errors
from ._control import Call
from ._network_session import NetworkSession, closed_error, too_late_error


class SocketSession:
    """One connection to the attach socket for each process, and the network door of the same service beside it.

    A call goes one way only: over gRPC where its request is too long for a packet, where it may take long, or where other threads' calls
    keep the socket busy for 2 ms. Threads: any at once. fork(): a child connects anew at its first call.
    """

    transport = "socket"

    def __init__(self, local: _local.Session, network: NetworkSession) -> None:
        self._local = local
        self.network = network
        self.timeout = network.timeout

    @property
    def closed(self) -> bool:
        return self._local.closed

    def close(self) -> None:
        """Later calls, and those under way, raise ClientClosed. The network door is closed by whoever made it."""
        self._local.close()

    def call(self, call: Call, timeout: float | None = None, long_running: bool = False) -> Any:
        """Carries one call out. Only idempotent ones are sent again, and only after the connection broke."""
        seconds = self.timeout if timeout is None else timeout
        if not long_running:
            deadline = time.monotonic() + seconds
            answer = self._by_socket(call, seconds)
            if answer is not None:
                return call.response_type.FromString(answer)
            seconds = deadline - time.monotonic()
        return self.network.call(call, seconds, long_running)

    def call_batch(self, call: Call) -> Any:
        """Carries a batch out, as the network door's stream of batches does."""
        deadline = time.monotonic() + self.timeout
        answer = self._by_socket(call, self.timeout)
        if answer is not None:
            return call.response_type.FromString(answer)
        return self.network.batches.call(call, deadline - time.monotonic())

    def _by_socket(self, call: Call, seconds: float) -> bytes | None:
        """None where the call is to go over gRPC."""
        if seconds <= 0:
            raise too_late_error("the attach socket", call)
        try:
            return self._local.call_if_free(
                call.method, call.request.SerializeToString(), seconds, call.idempotent, call.name, call.again
            )
        except errors.Cancelled:
            if self._local.closed:  # Meanwhile, by another thread.
                raise closed_error(call.name) from None
            raise
