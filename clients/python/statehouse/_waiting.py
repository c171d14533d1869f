"""Waiting outside an event loop's thread, for awaitables over calls that block."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

_SLICE_S = 0.25  # How soon a wait's thread notices that nobody wants it any more.


async def wait_in_thread(look: Callable[[float], tuple[bool, Any]], timeout: float | None) -> Any:
    """Calls ``look(seconds)``, which waits at most that long and says (whether it is over, what it found), until it is over or
    ``timeout`` seconds have passed, and gives what was found last. In a thread of its own, so that no number of waits can use up a
    pool. It ends soon after a cancellation."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    unwanted = threading.Event()

    def settle(found: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(found)

    def run() -> None:
        found: Any = None
        failure: BaseException | None = None
        try:
            deadline = None if timeout is None else time.monotonic() + timeout
            while not unwanted.is_set():
                left = _SLICE_S if deadline is None else max(deadline - time.monotonic(), 0.0)
                over, found = look(min(left, _SLICE_S))
                if over or (deadline is not None and time.monotonic() >= deadline):
                    break
        except BaseException as error:  # Handed to whoever awaits.
            failure = error
        if not unwanted.is_set():
            try:
                loop.call_soon_threadsafe(settle, found, failure)
            except RuntimeError:
                return  # The loop was closed: nobody awaits any more.

    threading.Thread(target=run, name="statehouse-wait", daemon=True).start()
    try:
        return await future
    finally:
        unwanted.set()
