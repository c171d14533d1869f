"""An area that is reached by calls: over the network door, or the service's local socket."""

from __future__ import annotations

import builtins
import operator
import time
from collections.abc import Callable
from typing import Any

from . import errors
from ._area_calls import AreaCalls, bytes_of, number_of, wait_slice
from ._area_locks import AreaLock
from ._area_watch import AreaWatch
from ._control import Call
from ._local import CompareExchangeResult
from ._network_session import NetworkSession
from ._socket_session import SocketSession
from .types import WORD_TYPES, BytesLike


class NetworkArea:
    """Every operation is a call: the protocol is statehouse.types.Area. Threads: any at once."""

    def __init__(
        self,
        session: NetworkSession | SocketSession,
        name: str,
        size: int,
        index: int,
        make_lock: Callable[..., AreaLock],
        make_watch: Callable[..., AreaWatch],
    ) -> None:
        self._session = session
        self.transport = session.transport
        self._calls = AreaCalls(name, size)
        self._make_lock = make_lock
        self._make_watch = make_watch
        self.name = name
        self.size = size
        self.index = index

    def __repr__(self) -> str:
        return f"<statehouse {self.transport} area {self.name}, {self.size} bytes>"

    def __len__(self) -> int:
        return self.size

    @property
    def updates(self) -> int:
        updates: int = self._session.call(self._calls.wait(None, 0)).updates
        return updates

    def read(self, pos: int, len: int | None = None) -> bytes:
        return b"".join(self._session.call(call).data for call in self._calls.reads(pos, len))

    def write(self, pos: int, bytes: BytesLike, /, *, fence: int | None = None) -> None:
        for call in self._calls.writes(pos, bytes_of(bytes), fence):
            self._session.call(call)

    def fill(self, pos: int, len: int, value: int, /, *, fence: int | None = None) -> None:
        self._session.call(self._calls.fill(pos, len, value, fence))

    def wait(self, since: int, timeout: float | None = None) -> bool:
        deadline = time.monotonic() + self._calls.wait_timeout(timeout)
        while True:
            seconds = wait_slice(deadline)
            call = self._calls.wait(since, seconds)
            changed: bool = self._session.call(call, seconds + self._session.timeout, seconds > 0).changed
            if changed or time.monotonic() >= deadline:
                return changed

    def lock(self, pos: int = 0, len: int | None = None, **options: Any) -> AreaLock:
        return self._make_lock(self, pos, len, **options)

    def watch(self, pos: int = 0, len: int | None = None, **options: Any) -> AreaWatch:
        return self._make_watch(self, pos, len, **options)

    def memoryview(self) -> builtins.memoryview:
        raise errors.TransportError(
            f'area "{self.name}" is reached by calls (transport "{self.transport}"), so its bytes are not in '
            "this process; use read and write, or connect through the local door",
            reason="UNIMPLEMENTED",
            name=self.name,
        )

    def __getitem__(self, key: int | slice) -> int | bytes:
        if isinstance(key, slice):
            pos, length = self._range(key)
            return self.read(pos, length)
        return self.read(self._index(key), 1)[0]

    def __setitem__(self, key: int | slice, value: Any) -> None:
        if not isinstance(key, slice):
            self._session.call(self._calls.store("u8", self._index(key), value))
            return
        pos, length = self._range(key)
        data = bytes_of(value)
        if data.nbytes != length:
            raise errors.by_name(
                "INVALID_ARGUMENT",
                f'area "{self.name}": a slice of {length} bytes cannot take {data.nbytes}; an area '
                "does not change its size",
                self.name,
            )
        self.write(pos, data)

    def _word(self, call: Call) -> int:
        return number_of(self._session.call(call).value)

    def _index(self, key: int) -> int:
        index = operator.index(key)
        at = index + self.size if index < 0 else index
        if not 0 <= at < self.size:
            raise errors.by_name(
                "OUT_OF_BOUNDS",
                f'area "{self.name}": the index is not inside its {self.size} bytes',
                self.name,
            )
        return at

    def _range(self, key: slice) -> tuple[int, int]:
        start, stop, step = key.indices(self.size)
        if step != 1:
            raise errors.by_name(
                "INVALID_ARGUMENT", f'area "{self.name}": a slice must have step 1', self.name
            )
        return start, max(stop - start, 0)


def _add_word_methods(word_type: str) -> None:
    def load(self: NetworkArea, pos: int, /) -> int:
        return self._word(self._calls.load(word_type, pos))

    def store(self: NetworkArea, pos: int, value: int, /, *, fence: int | None = None) -> None:
        self._session.call(self._calls.store(word_type, pos, value, fence))

    def add(self: NetworkArea, pos: int, delta: int = 1, /, *, fence: int | None = None) -> int:
        return self._word(self._calls.add(word_type, pos, delta, fence))

    def compare_exchange(
        self: NetworkArea, pos: int, expected: int, desired: int, *, fence: int | None = None
    ) -> CompareExchangeResult:
        call = self._calls.compare_exchange(word_type, pos, expected, desired, fence)
        response = self._session.call(call)
        return CompareExchangeResult(response.exchanged, number_of(response.found))

    def bitwise(operator: str) -> Callable[..., int]:
        def combine(self: NetworkArea, pos: int, operand: int, /, *, fence: int | None = None) -> int:
            return self._word(self._calls.bitwise(operator, word_type, pos, operand, fence))

        return combine

    setattr(NetworkArea, f"load_{word_type}", load)
    setattr(NetworkArea, f"store_{word_type}", store)
    setattr(NetworkArea, f"add_{word_type}", add)
    setattr(NetworkArea, f"compare_exchange_{word_type}", compare_exchange)
    for operator in ("and", "or", "xor"):
        setattr(NetworkArea, f"bitwise_{operator}_{word_type}", bitwise(operator))


for _word_type in WORD_TYPES:
    _add_word_methods(_word_type)
