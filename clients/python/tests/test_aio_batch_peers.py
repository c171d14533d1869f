"""The stream that carries small batches of statehouse.aio, with services that misbehave: what is lost, what is asked for by a call."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import statehouse
from statehouse import _async_batch_link, _batch_stream
from statehouse._async_batch_link import IN_FLIGHT_MAX, AsyncBatchLink
from statehouse._batch_stream import frame
from statehouse._control import Call

from conftest import PATIENCE_S
from test_aio_batch_link import sockets, until
from test_batch_link import DATA, GOAWAY, HEADERS, OPENED, RESET, SENT, SETTINGS, call, message

GRACEFUL = frame(GOAWAY, 0, 0, b"\x7f\xff\xff\xff\0\0\0\0")
ANSWER = frame(DATA, 0, 1, message(b"answer"))


class Peer:
    """A service that does what the test says. ``received`` is what its connections were sent, the first one first."""

    def __init__(self, opening: bytes) -> None:
        self._opening = opening
        self.received: list[bytearray] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = bytearray()
        self.received.append(mine)
        self.writers.append(writer)
        is_open = False
        while chunk := await reader.read(1 << 16):
            mine += chunk
            if not is_open and mine.endswith(frame(DATA, 0, 1, message(b""))):
                is_open = True
                self.send(self._opening)
        writer.close()

    def send(self, data: bytes) -> None:
        self.writers[-1].write(data)

    def batches(self) -> int:
        return self.received[-1].count(message(b"batch"))


class Far:
    """What a link sees of its session; ``calls`` are the timeouts of the calls made in place of the stream."""

    def __init__(self, path: str) -> None:
        self.target = f"unix:{path}"
        self.tls = None
        self.metadata = ()
        self.timeout = PATIENCE_S
        self.closed = False
        self.calls: list[float | None] = []

    async def call(self, call: Call, timeout: float | None = None) -> bytes:
        self.calls.append(timeout)
        return b"by a call"


Misbehave = Callable[[AsyncBatchLink, Far, Peer], Awaitable[None]]


@pytest.fixture
def misbehaving(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a body with a link, its session and its service; the link has begun unless ``begins`` is False."""
    monkeypatch.setattr(_batch_stream, "BEGINS_AFTER", 0)

    async def main(body: Misbehave, opening: bytes, begins: bool) -> None:
        path = str(tmp_path / "s")
        peer, far = Peer(opening), Far(path)
        server = await asyncio.start_unix_server(peer.serve, path)
        link = AsyncBatchLink(far)  # type: ignore[arg-type]
        try:
            if begins:
                assert await link.call(call(False)) == b"by a call"
                await until(lambda: link._connection is not None, "the beginning of a stream")
                far.calls.clear()
            async with asyncio.timeout(PATIENCE_S):
                await body(link, far, peer)
        finally:
            await link.close()
            assert link._connection is link._beginning is None and all(old.retired for old in link._connections)
            for writer in peer.writers:
                writer.close()
            server.close()
            os.unlink(path)

    def start(body: Misbehave, opening: bytes = OPENED, begins: bool = True) -> None:
        before = sockets()
        asyncio.run(main(body, opening, begins), debug=True)
        assert sockets() <= before

    return start


def start(link: AsyncBatchLink, idempotent: bool = False) -> asyncio.Task[Any]:
    return asyncio.create_task(link.call(call(idempotent)))


@pytest.mark.parametrize(
    "end",
    [b"", frame(GOAWAY, 0, 0, bytes(8)), frame(RESET, 0, 1, bytes(4)), frame(DATA, 0, 1, b"\1\0\0\0\0"), b"HTTP/1.1 400 Bad Request"],
    ids=["closed", "goaway", "reset", "compressed", "another protocol"],
)
def test_a_lost_answer_is_asked_for_by_a_call_where_that_is_safe(misbehaving: Callable[..., None], end: bytes) -> None:
    async def body(link: AsyncBatchLink, far: Far, peer: Peer) -> None:
        tasks = [start(link, idempotent=number % 2 == 0) for number in range(6)]
        await until(lambda: peer.batches() == 6, "the batches")
        peer.send(ANSWER + ANSWER + end)  # Answers before the end are answers.
        if not end:
            peer.writers[-1].close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[:3] == [b"answer", b"answer", b"by a call"] and results[4] == b"by a call"
        assert {type(results[3]), type(results[5])} == {statehouse.Unavailable} and len(far.calls) == 2
        assert all(timeout is not None and 0 < timeout <= PATIENCE_S for timeout in far.calls)
        assert await link.call(call(False)) == b"by a call" and link._beginning is None  # It is not begun again at once.

    misbehaving(body)


def test_what_was_refused_or_not_sent_goes_by_calls(misbehaving: Callable[..., None]) -> None:
    async def body(link: AsyncBatchLink, far: Far, peer: Peer) -> None:
        tasks = [start(link) for _ in range(IN_FLIGHT_MAX + 8)]
        await until(lambda: peer.batches() == IN_FLIGHT_MAX, "the batches")
        peer.send(ANSWER + frame(DATA, 0, 1, message(b"\x12\0")) + frame(HEADERS, 5, 1, b"\x00\x0bgrpc-status\x0216"))
        assert await asyncio.gather(*tasks) == [b"answer", *[b"by a call"] * (IN_FLIGHT_MAX + 7)]

    misbehaving(body)


def test_only_so_many_are_in_flight_and_wait(misbehaving: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_async_batch_link, "WAITING_MAX", 10)

    async def body(link: AsyncBatchLink, far: Far, peer: Peer) -> None:
        tasks = [start(link) for _ in range(IN_FLIGHT_MAX + 10)]
        await until(lambda: peer.batches() == IN_FLIGHT_MAX, "the batches")
        assert not far.calls
        assert await link.call(call(False)) == b"by a call"  # One more than may wait.
        for task in tasks[-5:]:
            task.cancel()
        peer.send(3 * ANSWER)
        await until(lambda: peer.batches() == IN_FLIGHT_MAX + 3, "three more")
        peer.send(IN_FLIGHT_MAX * ANSWER)
        await until(lambda: peer.batches() == IN_FLIGHT_MAX + 5, "the last two")
        peer.send(2 * ANSWER)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[:-5] == (IN_FLIGHT_MAX + 5) * [b"answer"] and {type(result) for result in results[-5:]} == {asyncio.CancelledError}
        assert peer.batches() == IN_FLIGHT_MAX + 5 and len(far.calls) == 1  # Those that were cancelled before that were not sent.

    misbehaving(body)


def test_a_window_that_stays_shut_is_for_calls(misbehaving: Callable[..., None]) -> None:
    async def body(link: AsyncBatchLink, far: Far, peer: Peer) -> None:
        assert await asyncio.gather(*(start(link) for _ in range(3))) == 3 * [b"by a call"]
        assert link._connection is not None and not link._connection._waiting and peer.batches() == 0

    misbehaving(body, frame(SETTINGS, 0, 0, b"\0\x04\0\0\0\0") + OPENED)


def test_a_cancelled_task_has_its_answer_dropped(misbehaving: Callable[..., None]) -> None:
    async def body(link: AsyncBatchLink, far: Far, peer: Peer) -> None:
        first, second, third = start(link), start(link), start(link)
        await until(lambda: peer.batches() == 3, "the batches")
        second.cancel()
        for number in (b"1", b"2", b"3"):
            peer.send(frame(DATA, 0, 1, message(number)))
        assert await first == b"1" and await third == b"3" and second.cancelled()
        assert link._connection is not None and not link._connection._sent

    misbehaving(body)


def test_a_service_that_goes_away_gives_its_last_answers(misbehaving: Callable[..., None]) -> None:
    async def body(link: AsyncBatchLink, far: Far, peer: Peer) -> None:
        used = link._connection
        assert used is not None
        first, second = start(link), start(link)
        await until(lambda: peer.batches() == 2, "the batches")
        peer.send(GRACEFUL)
        await until(lambda: used.retired, "the goodbye")
        assert await link.call(call(False)) == b"by a call"
        peer.send(ANSWER)
        assert await first == b"answer" and used._transport is not None
        second.cancel()
        await until(lambda: used._transport is None, "its end with the last that is waited for")
        assert len(far.calls) == 1

    misbehaving(body)


@pytest.mark.parametrize("end", [GRACEFUL, frame(GOAWAY, 0, 0, bytes(8)), b"", ANSWER])
def test_what_came_while_the_loop_was_busy_is_seen_first(misbehaving: Callable[..., None], end: bytes) -> None:
    async def body(link: AsyncBatchLink, far: Far, peer: Peer) -> None:
        peer.send(end)
        if not end:
            peer.writers[-1].get_extra_info("socket").shutdown(1)
        # The bytes are there, and the loop has not looked.
        assert await link.call(call(False)) == b"by a call" and peer.batches() == 0 and len(far.calls) == 1

    misbehaving(body)


def test_a_batch_that_is_not_answered_in_time_ends_the_stream_for_later_ones(misbehaving: Callable[..., None]) -> None:
    async def body(link: AsyncBatchLink, far: Far, peer: Peer) -> None:
        patient = start(link)
        await until(lambda: peer.batches() == 1, "the batch")
        far.timeout = 0.05
        late = [start(link) for _ in range(IN_FLIGHT_MAX + 3)]
        results = await asyncio.gather(*late, return_exceptions=True)
        assert {type(result) for result in results[: IN_FLIGHT_MAX - 1]} == {statehouse.Timeout}
        # They were not sent.
        assert results[IN_FLIGHT_MAX - 1 :] == 4 * [b"by a call"] and all(timeout is not None and timeout < 0.05 for timeout in far.calls)
        assert await link.call(call(False)) == b"by a call" and not patient.done()
        peer.send(ANSWER)
        assert await patient == b"answer" and link._connection is None

    misbehaving(body)


def test_behind_batches_that_nobody_waits_for_none_waits_for_ever(misbehaving: Callable[..., None]) -> None:
    async def body(link: AsyncBatchLink, far: Far, peer: Peer) -> None:
        tasks = [start(link) for _ in range(IN_FLIGHT_MAX)]
        await until(lambda: peer.batches() == IN_FLIGHT_MAX, "the batches")
        for task in tasks:
            task.cancel()
        far.timeout = 0.05
        assert await link.call(call(False)) == b"by a call"  # It was not sent: the call says that it is late.
        assert far.calls[0] is not None and far.calls[0] <= 0 and peer.batches() == IN_FLIGHT_MAX
        assert await link.call(call(False)) == b"by a call" and link._connection is None

    misbehaving(body)


def test_closing_wakes_who_waits(misbehaving: Callable[..., None]) -> None:
    async def body(link: AsyncBatchLink, far: Far, peer: Peer) -> None:
        tasks = [start(link) for _ in range(IN_FLIGHT_MAX + 3)]
        await until(lambda: peer.batches() == IN_FLIGHT_MAX, "the batches")
        far.closed = True
        await link.close()
        assert await asyncio.gather(*tasks) == [b"by a call"] * (IN_FLIGHT_MAX + 3)  # Which say that the client was closed.

    misbehaving(body)


@pytest.mark.parametrize(
    "opening",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", frame(HEADERS, 5, 1, b"\x88"), frame(DATA, 0, 1, message(b"\x12\0")), OPENED + GRACEFUL],
)
def test_a_stream_that_does_not_begin_is_not_used(misbehaving: Callable[..., None], opening: bytes) -> None:
    async def body(link: AsyncBatchLink, far: Far, peer: Peer) -> None:
        assert await link.call(call(False)) == b"by a call" and link._beginning is not None
        await link._beginning
        assert await link.call(call(False)) == b"by a call" and len(far.calls) == 2 and link._connection is link._beginning is None

    misbehaving(body, opening, begins=False)


def test_nobody_waits_for_a_stream_that_does_not_begin(misbehaving: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(link: AsyncBatchLink, far: Far, peer: Peer) -> None:
        for _ in range(3):
            assert await link.call(call(False)) == b"by a call"
        await until(lambda: peer.received, "a connection")
        assert link._beginning is not None
        await link.close()
        monkeypatch.setattr(_async_batch_link, "BEGIN_S", 0.02)
        link._not_before = 0.0
        assert await link.call(call(False)) == b"by a call" and link._beginning is not None
        await link._beginning
        assert link._connection is None

    misbehaving(body, b"", begins=False)


def test_bytes_cut_off_or_changed_anywhere_end_in_answers_or_errors(misbehaving: Callable[..., None]) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    choose = random.Random(seed)

    async def body(link: AsyncBatchLink, far: Far, peer: Peer) -> None:
        for number in range(300):
            if number:
                link._not_before = 0.0
                assert await link.call(call(False)) == b"by a call"
                await until(lambda: link._connection is not None, "another stream")
            used = link._connection
            assert used is not None
            tasks = [start(link, idempotent=number % 2 == 0) for _ in range(4)]
            await until(lambda: len(used._sent) == 4, "the batches")
            damaged = bytearray(SENT)
            for _ in range(number % 3):
                damaged[choose.randrange(len(damaged))] = choose.randrange(256)
            cut = choose.randrange(len(damaged) + 1)
            peer.send(bytes(damaged[:cut]))
            peer.writers[-1].close()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(result, bytes) or (number % 2 and type(result) is statehouse.Unavailable), result
            assert used.retired and not used._sent and not used._waiting

    misbehaving(body)


def test_a_client_outlives_its_event_loop_and_is_left_alone_by_others(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batch_stream, "BEGINS_AFTER", 0)
    path = str(tmp_path / "s")
    far = Far(path)
    link = AsyncBatchLink(far)  # type: ignore[arg-type]

    async def use(meanwhile: Callable[[], None]) -> None:
        peer = Peer(OPENED)
        server = await asyncio.start_unix_server(peer.serve, path)
        assert await link.call(call(False)) == b"by a call"
        await until(lambda: link._connection is not None, "the beginning of a stream")
        pending = start(link)
        await until(lambda: peer.batches() == 1, "the batch")
        await asyncio.to_thread(meanwhile)
        peer.send(ANSWER)
        assert await pending == b"answer"
        for writer in peer.writers:
            writer.close()
        server.close()
        os.unlink(path)

    def elsewhere() -> None:
        used = link._connection
        assert asyncio.run(link.call(call(False))) == b"by a call" and link._connection is used

    asyncio.run(use(elsewhere))
    first = link._connection
    assert first is not None and first.loop.is_closed()
    asyncio.run(use(lambda: None))
    assert link._connection is not first and first._socket.fileno() == -1
    asyncio.run(link.close())
    assert link._connection is None and all(connection.retired for connection in link._connections)
