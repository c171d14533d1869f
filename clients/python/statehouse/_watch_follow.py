"""Watches that read a dict's follow log by themselves (docs/formats/follow_log.md), once their stream has handed over to it:

    stream --handed over--> follow --cannot go on, or the stream broke--> stream

The stream stays open and brings nothing but its end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from . import _local, errors

# What a request says (watch.proto, LocalFollow).
OFFERED = 1
RETURNED = 2
DECLINED = 3
# How long a stream that goes on after following is refused before that ends the watch: the service may still count the stream before it,
# which was cancelled, as one of too many.
RETURN_PATIENCE_S = 10.0
# What is handed over may be no more when it is opened: another service has taken over, or it was cut off for a new one. A stream that
# finds it so often in a row is not handed over again.
OPENS_MAX = 3


class Open:
    """Makes what is followed of the message that hands over."""

    def __init__(self, mapped: _local.Dict, key: str | None, prefix: str, kinds: int, keys_only: bool, progress: float | None) -> None:
        """``kinds`` has bit n for the change kind n; 0: all."""
        self._mapped = mapped
        self._selection = (key, prefix, kinds, keys_only, progress)
        # What the request says of it.
        self.follows_rings = _local.DictFollow.may_follow_rings(mapped)

    def __call__(self, message: Any) -> _local.DictFollow:
        place = message.handed_over
        return _local.DictFollow(
            self._mapped, place.log_id, place.position, message.revision, *self._selection, self.follows_rings
        )


def opener(
    mapped: _local.Dict | None, key: str | None, prefix: str, kinds: int, keys_only: bool, progress: float | None
) -> Open | None:
    """None where a watch of this dict stays with its stream."""
    if mapped is None or not _local.DictFollow.is_supported():
        return None
    return Open(mapped, key, prefix, kinds, keys_only, progress)


class Offers:
    """What one stream after another is told of following, and what of them is not told to the watcher."""

    def __init__(self, may_follow: bool) -> None:
        self.may_follow = may_follow
        self._offer = OFFERED
        self._is_synced = False  # What comes next needs no "synced" to be told again.
        self._failed_opens = 0  # In a row.
        # Until then a refused return is tried again; None: something came since.
        self._returning_until: float | None = None

    def put(self, request: Any) -> None:
        if self.may_follow:
            request.local_follow = self._offer

    def is_told(self, message: Any) -> bool:
        """Whether the watcher is told a message of the stream."""
        if not self.may_follow:
            return True
        self._returning_until = None
        if message.HasField("synced") and self._is_synced:
            self._is_synced = False
            return False
        if message.HasField("resync"):
            self._is_synced = False
        return True

    def hands_over(self, message: Any) -> bool:
        return self.may_follow and bool(message.HasField("handed_over"))

    def was_opened(self, error: errors.Error | None) -> None:
        """What is followed was opened, or why not: then another stream goes on."""
        if error is None:
            self._failed_opens = 0
            return
        self._failed_opens += 1
        may_pass = isinstance(error, (errors.Timeout, errors.Unavailable))
        self.fall_back(is_broken=not may_pass or self._failed_opens >= OPENS_MAX)

    def fall_back(self, is_broken: bool) -> None:
        """Another stream goes on, for a while or for good."""
        self._offer = DECLINED if is_broken else RETURNED
        self._is_synced = True
        self._returning_until = time.monotonic() + RETURN_PATIENCE_S

    def after_break(self) -> None:
        """The next stream may be of another service, which may do better."""
        self._offer = OFFERED
        self._failed_opens = 0
        self._is_synced = False
        self._returning_until = None

    def is_refused_return(self, error: errors.Error | None) -> bool:
        """Whether the stream that goes on is to be tried again. What it waits for tells it from the end of a slow watcher."""
        return (
            isinstance(error, errors.LimitExceeded)
            and bool(error.retry_after)
            and self._returning_until is not None
            and time.monotonic() < self._returning_until
        )


class AsyncFollow:
    """What an event loop's watch follows, and the stream that handed over. Threads: the loop's, but ``forget``."""

    def __init__(self, follow: _local.DictFollow, stream: Any, end_of: Callable[[Any], errors.Error | None]) -> None:
        """``end_of(task)``: why reading the stream ended, None where another stream follows."""
        self._follow = follow
        self._end_of = end_of
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._is_over = False
        self.end: errors.Error | None = None
        self._fd = follow.ready_fd()
        self._reading = asyncio.ensure_future(stream.read())
        self._reading.add_done_callback(self._on_end)
        self._loop.add_reader(self._fd, self._on_ready)

    async def read(self) -> Any:
        """What DictFollow.read tells. Cancelling it loses nothing."""
        while True:
            found = self._follow.read(0)
            if found is not None:
                return found
            waiter = self._waiter = self._loop.create_future()
            try:
                await waiter
            finally:
                self._waiter = None

    def _on_ready(self) -> None:
        self._follow.clear_ready()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _on_end(self, reading: asyncio.Future[Any]) -> None:
        """What was committed by now is told before an error, and nothing that comes later: a token may have been revoked."""
        self.end = self._end_of(reading)
        if self.end is None:
            self._follow.stop()
        else:
            self._follow.end_here()

    def close(self) -> int:
        """Nothing is read any more; everything up to this revision was."""
        revision = self._follow.stop()
        if not self._is_over:
            self._is_over = True
            if not self._loop.is_closed():
                self._loop.remove_reader(self._fd)
            self._reading.remove_done_callback(self._on_end)
            self._reading.cancel()
        self._on_ready()
        return revision

    def forget(self) -> None:
        """Closes it, of a watch that nobody has any more."""
        try:
            self._loop.call_soon_threadsafe(self.close)
        except RuntimeError:
            pass  # The loop is closed.
