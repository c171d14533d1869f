"""Calls of one entry or word that go over the stream of batches: the same answers and errors as by grpcio, each carried out once."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import statehouse
import statehouse.aio
from statehouse import _async_batch_link, _batch_link, _batch_stream, _batch_wire, _short_calls
from statehouse._batch_link import BatchLink
from statehouse._batch_stream import frame
from statehouse._control import Call
from statehouse._wire import put_varint

from conftest import PATIENCE_S, Service, wait_until
from test_aio_batch_link import until
from test_aio_dict import run
from test_batch_link import DATA, PING, message, misbehaving, open_stream, silent
from test_fork import in_child

GET = "/statehouse.v1.Dicts/GetEntry"
GET_KIND = 37


def link_of(client: statehouse.Client) -> BatchLink:
    link: BatchLink = client._streams.batches
    return link


class Calls:
    """What goes by grpcio."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    def of(self, method: str) -> int:
        return sum(one.endswith("/" + method) for one in self.methods)


@pytest.fixture
def by_grpc(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    blocking = statehouse._network_session.NetworkSession._call_once

    def call_once(session: Any, call: Call, deadline: float) -> Any:
        calls.methods.append(call.method)
        return blocking(session, call, deadline)

    monkeypatch.setattr(statehouse._network_session.NetworkSession, "_call_once", call_once)
    channel_of = statehouse.aio._AsyncNetworkSession._channel_of_this_process

    class Channel:
        def __init__(self, channel: Any) -> None:
            self._channel = channel

        def unary_unary(self, method: str, **options: Any) -> Any:
            calls.methods.append(method)
            return self._channel.unary_unary(method, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._channel, name)

    monkeypatch.setattr(statehouse.aio._AsyncNetworkSession, "_channel_of_this_process", lambda session: Channel(channel_of(session)))
    return calls


@pytest.fixture
def far(service: Service, area_name: str) -> Iterator[tuple[statehouse.Client, statehouse.SharedDict]]:
    """A client over the network door whose stream has begun, and a dict."""
    with service.connect("network") as client:
        shared = client.dict(area_name)
        for _ in range(_short_calls.BEGINS_AFTER + 1):
            shared.get("nothing")
        assert link_of(client)._socket is not None
        yield client, shared
        if not client.closed:
            client.dicts.delete(area_name)


@pytest.mark.parametrize("scheme", ["url", "tcp_url"])
def test_it_begins_after_a_number_of_calls(service: Service, area_name: str, scheme: str, by_grpc: Calls) -> None:
    with statehouse.connect(getattr(service, scheme), token=service.token, transport="network") as client:
        shared = client.dict(area_name)
        for number in range(1, 30):
            assert shared.incr("n") == number
            assert (link_of(client)._socket is not None) is (number > _short_calls.BEGINS_AFTER)
        assert by_grpc.of("IncrementEntry") == _short_calls.BEGINS_AFTER
        client.dicts.delete(area_name)


def test_every_short_call_goes_over_it(far: tuple[statehouse.Client, statehouse.SharedDict], by_grpc: Calls) -> None:
    client, shared = far
    area = client.area(shared.name, size=64)
    by_grpc.methods.clear()
    assert shared.set("k", {"a": [1]}, ttl=100) and shared.get("k") == {"a": [1]} and shared.incr("n", 5) == 5
    assert shared.touch("k", ttl=50) and "k" in shared and shared.pop("n") == 5 and "n" not in shared
    shared["k"]["a"].append(2)
    assert shared["k"] == {"a": [1, 2]}
    shared.update({"x": 1, "y": 2})
    with shared.transaction() as transaction:
        transaction.set("x", transaction.get("x") + 1)
    assert shared.get("x") == 2
    area.store_u32(8, 7)
    assert area.add_u32(8, -8) == 2**32 - 1 and area.load_u32(8) == 2**32 - 1 and area.bitwise_and_u32(8, 15) == 15
    assert area.compare_exchange_u32(8, 15, 3).exchanged
    assert {one.rpartition("/")[2] for one in by_grpc.methods} <= {"SetEntries"}
    client.areas.delete(shared.name)


def test_errors_are_those_of_grpc(service: Service, far: tuple[statehouse.Client, statehouse.SharedDict]) -> None:
    client, shared = far
    area = client.area(shared.name, size=64)
    token = service.add_token("shortrea", {("dict", shared.name): ("read",), ("area", shared.name): ("read",)})
    shared["text"] = "a"
    shared.set("fenced", 1, fence=7)
    shared["full"] = 2**63 - 1

    def errors_of(made: statehouse.Client, limited: statehouse.Client) -> list[tuple[Any, ...]]:
        d, a, narrow = made.dict(shared.name), made.area(shared.name), limited.dict(shared.name, create=False)
        gone = made.dict(shared.name + "-gone")
        made.dicts.delete(gone.name)
        tries: list[Callable[[], Any]] = [
            lambda: d["nothing"],
            lambda: d.incr("text"),
            lambda: d.incr("full"),
            lambda: d.set("fenced", 2, fence=6),
            lambda: d.set("k" * 5000, 1),
            lambda: a.load_u64(60),
            lambda: a.add_u64(2**40),
            lambda: narrow.set("k", 1),
            lambda: narrow.incr("n"),
            lambda: limited.area(shared.name).add_u8(0),
            lambda: gone.get("k"),
        ]
        found = []
        for attempt in tries:
            with pytest.raises(statehouse.Error) as raised:
                attempt()
            error = raised.value
            found.append((type(error), error.reason, error.message, error.name, error.retryable))
        return found

    with service.connect("network", token=token) as limited, service.connect("network") as plain:
        with service.connect("network", token=token) as plain_limited:
            for made in (plain, plain_limited):
                made._streams.batches._address = None  # It has grpcio only.
            for _ in range(_short_calls.BEGINS_AFTER + 1):
                limited.dict(shared.name, create=False).get("nothing")
            expected = errors_of(plain, plain_limited)
            assert errors_of(client, limited) == expected
            assert link_of(client)._socket is not None and link_of(limited)._socket is not None
            assert link_of(plain)._socket is None
    client.areas.delete(shared.name)


def test_long_requests_go_by_grpc_and_long_answers_do_not(far: tuple[statehouse.Client, statehouse.SharedDict], by_grpc: Calls) -> None:
    _, shared = far

    def bytes_that_fit() -> int:
        size = _short_calls.REQUEST_BYTES_MAX
        while True:
            by_grpc.methods.clear()
            shared["k"] = bytes(size)
            if not by_grpc.methods:
                return size
            size -= 1

    size = bytes_that_fit()
    assert _short_calls.REQUEST_BYTES_MAX - 100 < size < _short_calls.REQUEST_BYTES_MAX
    shared["k"] = bytes(size + 1)
    assert by_grpc.of("SetEntry") == 1
    shared["large"] = bytes(1 << 19)
    by_grpc.methods.clear()
    assert shared["large"] == bytes(1 << 19) and not by_grpc.methods


def test_threads_share_it_and_grpc(far: tuple[statehouse.Client, statehouse.SharedDict]) -> None:
    client, shared = far
    threads = [threading.Thread(target=lambda: [shared.incr("n") for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert shared["n"] == 800 and link_of(client)._socket is not None


def test_a_killed_daemon_costs_nothing(
    service: Service, far: tuple[statehouse.Client, statehouse.SharedDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, shared = far
    monkeypatch.setattr(_batch_stream, "TRIED_AGAIN_AFTER_S", 0.0)
    link_of(client)._not_before = 0.0
    for number in range(1, 301):
        if number in (50, 120, 200):
            assert link_of(client)._socket is not None
            service.kill_daemon()
        assert shared.incr("n") == number
    wait_until(lambda: shared.incr("n") and link_of(client)._socket is not None, "another stream")


def test_an_idle_client_notices_that_the_daemon_was_killed(
    service: Service, far: tuple[statehouse.Client, statehouse.SharedDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What adds to a word is not sent again, so it must not be sent to a service that has left, also behind a ping that nobody read."""
    client, shared = far
    area = client.area(shared.name, size=8)
    monkeypatch.setattr(_batch_stream, "TRIED_AGAIN_AFTER_S", 0.0)
    link_of(client)._not_before = 0.0
    for number in range(1, 6):
        assert area.add_u64(0) == 2 * number - 1
        wait_until(lambda: shared.get("nothing") is None and link_of(client)._socket is not None, "the stream")
        has_ended = select.poll()
        has_ended.register(link_of(client)._socket, select.POLLRDHUP)
        service.kill_daemon()
        wait_until(lambda: has_ended.poll(0), "the end of the connection")
        with service.connect("network") as other:
            other.status()  # Of the next daemon: this client's other connection has ended, too.
        assert area.add_u64(0) == 2 * number
    client.areas.delete(shared.name)


def test_a_time_that_is_over_sends_nothing(far: tuple[statehouse.Client, statehouse.SharedDict]) -> None:
    client, shared = far
    used = link_of(client)._socket
    increment = Call("/statehouse.v1.Dicts/IncrementEntry", _Request(), _Response, True)
    assert link_of(client).call_short(increment, time.monotonic()) is None and link_of(client)._socket is used
    assert shared.get("n") is None


def test_a_client_that_is_closed_while_it_connects_sends_nothing(service: Service, area_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with service.connect("network") as other:
        other.area(area_name, size=8)
        client = service.connect("network")
        area = client.area(area_name)
        for number in range(1, _short_calls.BEGINS_AFTER + 1):
            assert area.add_u64(0) == number
        connect = socket.socket.connect

        def close_and_connect(made: socket.socket, address: Any) -> None:
            client.close()
            connect(made, address)

        monkeypatch.setattr(_batch_link.socket, "socket", type("Socket", (socket.socket,), {"connect": close_and_connect}))
        with pytest.raises(statehouse.ClientClosed):
            area.add_u64(0)
        assert link_of(client)._socket is None and other.area(area_name).load_u64(0) == _short_calls.BEGINS_AFTER
        other.areas.delete(area_name)


def test_a_forked_child_has_its_own(far: tuple[statehouse.Client, statehouse.SharedDict]) -> None:
    client, shared = far
    used = link_of(client)._socket

    def check() -> None:
        assert link_of(client)._socket is None
        for number in range(1, 6):
            assert shared.incr("n") == number
        assert link_of(client)._socket is not None

    in_child(check)
    assert shared.incr("n") == 6 and link_of(client)._socket is used


def test_a_token_that_is_taken_away_is_told(service: Service, far: tuple[statehouse.Client, statehouse.SharedDict]) -> None:
    _, shared = far
    token = service.add_token("shortgon", {("dict", shared.name): ("read", "write")})
    with service.connect("network", token=token) as limited:
        d = limited.dict(shared.name, create=False)
        for number in range(1, 30):
            assert d.incr("n") == number
        assert link_of(limited)._socket is not None
        service.remove_token("shortgon")
        with pytest.raises(statehouse.Unauthenticated):
            d.incr("n")
    assert shared["n"] == 29


# With a service that misbehaves.


class _Response:
    @staticmethod
    def FromString(serialized: bytes) -> bytes:
        return serialized


class _Request:
    def SerializeToString(self) -> bytes:
        return b"request"


def get(idempotent: bool) -> Call:
    return Call(GET, _Request(), _Response, idempotent, "an object")


POP = Call("/statehouse.v1.Dicts/DeleteEntry", _Request(), _Response, True)


def answer(*results: tuple[int, bytes]) -> bytes:
    """A RunBatchesResponse."""
    field = _batch_wire.field
    return field(b"\x0a", b"".join(field(b"\x0a", field(put_varint(kind << 3 | 2), one)) for kind, one in results))


def failure(reason: int, text: bytes = b"why") -> bytes:
    return _batch_wire.field(b"\x0a", bytes((8, reason))) + _batch_wire.field(b"\x12", text)


def serving(data: bytes, then: bytes = b"", when: threading.Event | None = None) -> Callable[[socket.socket, int], None]:
    """Opens the stream, then sends this for the first call, the rest when it is told to, and closes."""

    def serve(connection: socket.socket, number: int) -> None:
        received = open_stream(connection)
        while b"request" not in received:
            chunk = connection.recv(1 << 16)
            if not chunk:
                return
            received += chunk
        if data:
            connection.sendall(data)
        if when is not None:
            assert when.wait(PATIENCE_S)
            connection.sendall(then)
        connection.shutdown(socket.SHUT_RDWR)

    return serve


def framed(content: bytes) -> bytes:
    return frame(DATA, 0, 1, message(content))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_short_calls, "BEGINS_AFTER", 0)


DRAINING, UNIMPLEMENTED, TOO_LARGE, MOVED, STALLED, NO_KEY = (
    statehouse.errors._REASON_NAMES.index(name)
    for name in ("DRAINING", "UNIMPLEMENTED", "MESSAGE_TOO_LARGE", "DICT_MOVED", "STALLED", "KEY_NOT_FOUND")
)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("sent", "idempotent", "outcome"),
    [
        (framed(answer((GET_KIND, b"the answer"))), False, b"the answer"),
        (framed(answer((15, failure(NO_KEY)))), True, "KEY_NOT_FOUND"),
        (framed(answer((15, failure(STALLED)))), True, "STALLED"),
        # What was not carried out, or may be repeated, is left to a call.
        (framed(b"\x12\0"), False, None),
        (framed(answer((15, failure(DRAINING)))), False, None),
        (framed(answer((15, failure(UNIMPLEMENTED)))), False, None),
        (framed(answer((15, failure(TOO_LARGE)))), True, None),
        (framed(answer((15, failure(TOO_LARGE)))), False, "MESSAGE_TOO_LARGE"),
        (framed(answer((15, failure(MOVED)))), True, None),
        (framed(answer((15, failure(MOVED)))), False, "DICT_MOVED"),
        (b"", True, None),
        (b"", False, "UNAVAILABLE"),
        # Answers that are none.
        (framed(answer((38, b""))), True, "INTERNAL"),
        (framed(answer()), True, "INTERNAL"),
        (framed(answer((GET_KIND, b""), (GET_KIND, b""))), True, "INTERNAL"),
        (framed(b"\x0a\x05abc"), True, "INTERNAL"),
    ],
)
def test_what_becomes_of_an_answer(tmp_path: Any, sent: bytes, idempotent: bool, outcome: Any) -> None:
    with misbehaving(serving(sent), tmp_path) as (link, calls):
        deadline = time.monotonic() + PATIENCE_S
        if isinstance(outcome, str):
            with pytest.raises(statehouse.Error) as raised:
                link.call_short(get(idempotent), deadline)
            assert raised.value.reason == outcome and raised.value.name == "an object"
            assert outcome in ("KEY_NOT_FOUND", "STALLED", "MESSAGE_TOO_LARGE", "DICT_MOVED") or GET in raised.value.message
        else:
            assert link.call_short(get(idempotent), deadline) == outcome
        assert not calls


@pytest.mark.usefixtures("at_once")
def test_the_end_behind_a_ping_is_seen_before_anything_is_sent(tmp_path: Any) -> None:
    answered, was_read = framed(answer((GET_KIND, b"the answer"))), threading.Event()
    with misbehaving(serving(answered, frame(PING, 0, 0, bytes(8)), was_read), tmp_path) as (link, _):
        assert link.call_short(get(False), time.monotonic() + PATIENCE_S) == b"the answer"
        was_read.set()
        has_ended = select.poll()
        has_ended.register(link._socket, select.POLLRDHUP)
        wait_until(lambda: has_ended.poll(0), "the end of the connection")
        assert link.call_short(get(False), time.monotonic() + PATIENCE_S) is None and link._socket is None


@pytest.mark.usefixtures("at_once")
def test_no_answer_in_time_is_a_timeout(tmp_path: Any) -> None:
    done = threading.Event()
    with misbehaving(silent(done), tmp_path) as (link, _):
        with pytest.raises(statehouse.Timeout, match="GetEntry"):
            link.call_short(get(True), time.monotonic() + 0.3)
        done.set()
        assert link._socket is None


# asyncio.

Client = statehouse.aio.AsyncClient
Dict = statehouse.aio.AsyncSharedDict


async def begun(client: Client, d: Dict) -> Any:
    link = client._streams.batches
    for _ in range(_short_calls.BEGINS_AFTER + 1):
        await d.get("nothing")
    await until(lambda: link._connection is not None, "the beginning of a stream")
    return link._connection


def test_tasks_of_a_turn_share_a_message(service: Service, area_name: str, by_grpc: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    original = statehouse._async_batch_link.Connection.start

    def start(connection: Any, content: bytes) -> Any:
        sent.append(len(content))
        return original(connection, content)

    async def check(client: Client, d: Dict) -> None:
        await begun(client, d)
        monkeypatch.setattr(statehouse._async_batch_link.Connection, "start", start)
        by_grpc.methods.clear()
        assert await d.incr("n") == 1 and len(sent) == 1
        sent.clear()
        numbers = await asyncio.gather(*[d.incr("n") for _ in range(100)])
        assert numbers == list(range(2, 102)) and not by_grpc.methods
        assert len(sent) == 1, "they had room in one message"
        sent.clear()
        # More than a message holds.
        values = [str(number) * 200 for number in range(100)]
        await asyncio.gather(*[d.set(str(number), value) for number, value in enumerate(values)])
        assert 1 < len(sent) < 10 and max(sent) <= _batch_stream.MESSAGE_BYTES_MAX and not by_grpc.methods
        assert await asyncio.gather(*[d.get(str(number)) for number in range(100)]) == values

    run(service, "network", area_name, check)


def test_a_message_takes_as_many_values_as_its_answer_has_room_for() -> None:
    async def check() -> None:
        connection: Any = type("Far", (), {"loop": asyncio.get_running_loop()})()
        read, changed, word = (_short_calls.answer_of(one) for one in (get(True), POP, get(True)._replace(method="AddWord")))
        assert (read, changed, word) == ((1, False), (1, True), (0, False))
        # Of reads any number: one that has no room goes by a call.
        reads = _async_batch_link._Gathered(connection)
        for _ in range(_short_calls.VALUES_MAX + 1):
            assert reads.takes(b"", read)
            reads.add(b"", read)
        assert reads.takes(b"", word) and not reads.takes(b"", changed)
        changes = _async_batch_link._Gathered(connection)
        for _ in range(_short_calls.VALUES_MAX):
            assert changes.takes(b"", changed)
            changes.add(b"", changed)
        assert changes.takes(b"", word) and not changes.takes(b"", changed) and not changes.takes(b"", read)

    asyncio.run(check())


def test_each_task_has_its_own_error(service: Service, area_name: str) -> None:
    async def check(client: Client, d: Dict) -> None:
        await begun(client, d)
        await d.set("text", "a")
        found = await asyncio.gather(d.incr("n"), d.incr("text"), d.incr("n"), d.set("k", 1), return_exceptions=True)
        assert found[0] == 1 and isinstance(found[1], statehouse.TypeMismatch) and found[2] == 2 and found[3] is True

    run(service, "network", area_name, check)


def test_a_cancelled_task_leaves_the_others_alone(service: Service, area_name: str) -> None:
    async def check(client: Client, d: Dict) -> None:
        connection = await begun(client, d)
        for _ in range(50):
            tasks = [asyncio.ensure_future(d.incr("n")) for _ in range(4)]
            await asyncio.sleep(0)
            tasks[1].cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(done[1], asyncio.CancelledError)
            assert [type(one) for one in done].count(int) == 3
        assert not connection.retired and await d.get("n") in range(150, 201)

    run(service, "network", area_name, check)


def test_a_task_that_is_cancelled_before_its_turn_ends_sends_nothing(service: Service, area_name: str) -> None:
    async def check(client: Client, d: Dict) -> None:
        await begun(client, d)
        for number in range(1, 11):
            kept, cancelled = asyncio.ensure_future(d.incr("kept")), asyncio.ensure_future(d.incr("cancelled"))
            asyncio.get_running_loop().call_soon(cancelled.cancel)  # Behind the tasks' first steps, before what they asked for.
            assert await kept == number
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        assert await d.get("cancelled") is None

    run(service, "network", area_name, check)


def test_what_is_told_once_has_room_beside_large_values(service: Service, area_name: str) -> None:
    async def check(client: Client, d: Dict) -> None:
        large = bytes((1 << 20) - 64)
        for number in range(20):
            await d.set(str(number), large)
        await begun(client, d)
        gets = [d.get(str(number)) for number in range(18)]
        pops = [d.pop("18"), d.pop("19")]
        *values, popped, other = await asyncio.gather(*gets, *pops)
        assert popped == other == large and all(value == large for value in values)

    run(service, "network", area_name, check)


def test_tasks_lose_nothing_when_the_daemon_is_killed(service: Service, area_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batch_stream, "TRIED_AGAIN_AFTER_S", 0.0)

    async def check(client: Client, d: Dict) -> None:
        await begun(client, d)
        done = 0

        async def work() -> None:
            nonlocal done
            for _ in range(100):
                await d.incr("n")
                done += 1

        workers = [asyncio.ensure_future(work()) for _ in range(8)]
        for share in (100, 400):
            await until(lambda: done >= share, "some of the work")
            await asyncio.to_thread(service.kill_daemon)
        await asyncio.gather(*workers)
        assert await d.get("n") == 800

    run(service, "network", area_name, check)


def test_a_client_that_is_closed_tells_its_tasks(service: Service, area_name: str) -> None:
    async def check() -> None:
        client = await statehouse.aio.connect(service.url, token=service.token, transport="network")
        d = await client.dict(area_name)
        await begun(client, d)
        tasks = [asyncio.ensure_future(d.incr("n")) for _ in range(10)]
        await asyncio.sleep(0)
        await client.close()
        for one in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(one, int | statehouse.ClientClosed), one
        with pytest.raises(statehouse.ClientClosed):
            await d.incr("n")

    asyncio.run(check())
    with service.connect("network") as client:
        client.dicts.delete(area_name)

