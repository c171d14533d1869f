"""The stream that carries small batches over the network door: its frames, and when it is given up for calls."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import statehouse
from statehouse import _batch, _batch_stream
from statehouse._batch_link import BatchLink
from statehouse._batch_stream import ANSWER_BYTES_MAX, BatchStream, Lost, address_of, frame

from conftest import PATIENCE_S, Service, wait_until
from test_fork import in_child

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8


def message(content: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(content)) + content


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


@pytest.fixture
def stream() -> BatchStream:
    """One whose beginning was sent."""
    made = BatchStream("localhost", ())
    made.outgoing()
    return made


def test_it_begins_as_http2_does() -> None:
    token = "t" * 300
    made = BatchStream("host:7700", (("authorization", token),))
    assert made.takes(b"batch")
    made.send(b"batch")
    begin = made.outgoing()
    assert begin.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") and made.outgoing() == b""
    settings, window, headers, data = frames(begin[24:])
    assert settings[:3] == (SETTINGS, 0, 0) and window[:3] == (WINDOW, 0, 0) and headers[:3] == (HEADERS, 4, 1)
    assert (0x5348, 1) in struct.iter_unpack(">HI", settings[3])  # The connection carries nothing else.
    assert token.encode() in headers[3] and b"/statehouse.v1.Batches/RunBatches" in headers[3]
    # The token is longer than a byte of length can say: 127, and what is beyond it.
    assert b"\x0dauthorization\x7f\xad\x01" + token.encode() in headers[3]
    assert data == (DATA, 0, 1, message(b"batch"))


def test_messages_come_in_pieces_of_any_size(stream: BatchStream) -> None:
    contents = [b"", b"short", b"x" * 40_000]
    whole = b"".join(map(message, contents))
    sent = frame(HEADERS, 4, 1, b"\x88")
    for at in range(0, len(whole), 16_000):
        sent += frame(DATA, 0, 1, whole[at : at + 16_000])
    for size in (1, 7, 1000, len(sent)):
        fresh = BatchStream("localhost", ())
        got = [fresh.receive(sent[at : at + size]) for at in range(0, len(sent), size)]
        while (left := fresh.receive(b"")) is not None:
            got.append(left)
        assert [content for content in got if content is not None] == contents
    assert stream.receive(frame(DATA, 8, 1, b"\x03" + message(b"padded") + b"\0\0\0")) == b"padded"
    assert stream.receive(frame(DATA, 0, 3, message(b"another stream"))) is None


def test_settings_and_pings_are_answered_and_windows_kept(stream: BatchStream) -> None:
    assert stream.receive(frame(SETTINGS, 0, 0, struct.pack(">HIHI", 4, 100, 5, 20_000)) + frame(PING, 0, 0, b"12345678")) is None
    assert frames(stream.outgoing()) == [(SETTINGS, 1, 0, b""), (PING, 1, 0, b"12345678")]
    assert stream.receive(frame(SETTINGS, 1, 0, b"") + frame(PING, 1, 0, b"12345678")) is None and stream.outgoing() == b""
    assert stream.takes(b"x" * 95) and not stream.takes(b"x" * 96)
    stream.receive(frame(WINDOW, 0, 1, struct.pack(">I", 1 << 20)))
    assert stream.takes(b"x" * 16_379) and not stream.takes(b"x" * 16_380)
    for _ in range(3):
        stream.send(b"x" * 16_379)
    assert stream.takes(b"x" * 16_378) and not stream.takes(b"x" * 16_379)  # What is left of the connection's window.
    stream.receive(frame(WINDOW, 0, 0, struct.pack(">I", 1)))
    assert stream.takes(b"x" * 16_379)
    # A smaller window than was used: nothing goes until it is open again.
    stream.receive(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
    stream.receive(frame(WINDOW, 0, 0, struct.pack(">I", 1 << 20)))
    assert stream.takes(b"x" * 1000)
    fresh = BatchStream("localhost", ())
    fresh.receive(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
    assert not fresh.takes(b"")


@pytest.mark.parametrize(
    ("sent", "refused"),
    [
        (frame(HEADERS, 5, 1, b"\x88\x00\x0bgrpc-status\x0214"), False),
        (frame(HEADERS, 5, 1, b"\x88\x00\x0bgrpc-status\x0216"), True),
        (frame(HEADERS, 5, 1, b"\x88\x10\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x0214"), False),
        (frame(HEADERS, 5, 1, b"\x88\x10\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x0216"), True),
        (frame(DATA, 1, 1, b""), False),
        (frame(RESET, 0, 1, b"\0\0\0\x08"), False),
        (frame(GOAWAY, 0, 0, bytes(8)), False),
        (frame(5, 4, 1, bytes(4)), False),
        (frame(DATA, 0, 1, b"\x01\0\0\0\0"), False),
        (frame(GOAWAY, 0, 0, b"\0\0\0\x01\0\0\0\x02"), False),
        # What HTTP/2 does not allow.
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
        (b"\0\x40\x01\0\0\0\0\0\x01", False),
        (frame(DATA, 8, 1, b""), False),
        (frame(DATA, 8, 1, b"\x04abc"), False),
        (frame(SETTINGS, 0, 0, bytes(5)), False),
        (frame(SETTINGS, 0, 0, b"\0\x04\x80\0\0\0"), False),
        (frame(PING, 0, 0, bytes(7)), False),
        (frame(GOAWAY, 0, 0, bytes(7)), False),
        (frame(WINDOW, 0, 1, bytes(3)), False),
        (frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff"), False),
        (frame(DATA, 0, 1, b"\0" + struct.pack(">I", ANSWER_BYTES_MAX + 1)), False),
    ],
)
def test_the_end_is_told(stream: BatchStream, sent: bytes, refused: bool) -> None:
    with pytest.raises(Lost) as raised:
        stream.receive(sent)
    assert raised.value.refused is refused


def test_what_is_at_a_limit_is_taken(stream: BatchStream) -> None:
    assert stream.receive(frame(DATA, 0, 1, message(bytes(16_384 - 5)))) == bytes(16_384 - 5)
    assert stream.receive(frame(DATA, 8, 1, b"\x03\0\0\0")) is None
    assert stream.receive(frame(WINDOW, 0, 0, struct.pack(">I", (1 << 31) - 1 - 65_535))) is None
    largest = BatchStream("localhost", ())
    assert largest.receive(frame(DATA, 0, 1, b"\0" + struct.pack(">I", ANSWER_BYTES_MAX))) is None


def test_answers_before_the_end_are_given(stream: BatchStream) -> None:
    ends = frame(DATA, 0, 1, message(b"one") + message(b"two")) + frame(RESET, 0, 1, bytes(4)) + frame(DATA, 0, 1, message(b"three"))
    assert stream.receive(ends) == b"one" and stream.is_used_up and not stream.takes(b"")
    assert stream.receive(b"") == b"two"
    for _ in range(2):
        with pytest.raises(Lost):
            stream.receive(frame(DATA, 0, 1, message(b"four")))


def test_a_service_that_goes_away_gives_its_last_answers(stream: BatchStream) -> None:
    stream.send(b"batch")
    assert stream.receive(frame(GOAWAY, 0, 0, b"\x7f\xff\xff\xff\0\0\0\0")) is None
    assert stream.is_used_up and not stream.takes(b"")
    assert stream.receive(frame(DATA, 0, 1, message(b"answer"))) == b"answer"


# Everything that a service may send, twice over.
SENT = (
    frame(SETTINGS, 0, 0, struct.pack(">HIHI", 4, 100_000, 5, 20_000))
    + frame(WINDOW, 0, 0, struct.pack(">I", 1 << 20))
    + frame(HEADERS, 4, 1, b"\x88")
    + frame(DATA, 0, 1, message(b"answer") + message(b"\x12\0") + b"\0\0")
    + frame(PING, 0, 0, bytes(8))
    + frame(DATA, 8, 1, b"\x02\0\0\x03abc\0\0")
    + frame(DATA, 0, 1, message(b"x" * 500))
    + frame(GOAWAY, 0, 0, b"\x7f\xff\xff\xff\0\0\0\0")
    + frame(HEADERS, 5, 1, b"\x00\x0bgrpc-status\x0214")
)


def drained(stream: BatchStream, received: bytes, size: int) -> tuple[list[bytes], bool]:
    """The messages in what comes in pieces of this size, and whether the stream ended. Nothing but Lost is raised."""
    got = []
    try:
        for at in range(0, max(len(received), 1), size):
            found = stream.receive(received[at : at + size])
            while found is not None:
                got.append(found)
                found = stream.receive(b"")
    except Lost as lost:
        assert str(lost)
        return got, True
    stream.takes(b"batch"), stream.outgoing()
    return got, False


def test_what_is_cut_off_anywhere_is_waited_for() -> None:
    answers = [b"answer", b"\x12\0", b"abc", b"x" * 500]
    assert drained(BatchStream("localhost", ()), SENT, len(SENT)) == (answers, True)
    for cut in range(len(SENT)):
        for size in (1, 13, len(SENT)):
            got, has_ended = drained(BatchStream("localhost", ()), SENT[:cut], size)
            assert got == answers[: len(got)] and not has_ended


def test_changed_bytes_end_it_or_are_taken_and_never_more() -> None:
    choose = random.Random(7)
    ended = 0
    for _ in range(20_000):
        damaged = bytearray(SENT)
        for _ in range(choose.randrange(1, 4)):
            at = choose.randrange(len(damaged))
            change = choose.randrange(4)
            if change == 0:
                damaged[at] = choose.randrange(256)
            elif change == 1:
                damaged[at] ^= 1 << choose.randrange(8)
            elif change == 2:
                del damaged[at : at + choose.randrange(1, 20)]
            else:
                damaged[at:at] = choose.randbytes(choose.randrange(1, 20))
        whole = drained(BatchStream("localhost", ()), bytes(damaged), len(damaged))
        assert drained(BatchStream("localhost", ()), bytes(damaged), choose.randrange(1, 30)) == whole
        ended += whole[1]
    assert ended > 1000
    for _ in range(2000):
        drained(BatchStream("localhost", ()), choose.randbytes(choose.randrange(200)), 50)


def test_targets_that_it_does_not_know_have_no_address() -> None:
    assert address_of("unix:/run/x/grpc.sock") == address_of("unix:///run/x/grpc.sock") == (socket.AF_UNIX, "/run/x/grpc.sock")
    assert address_of("localhost:7700") == (socket.AF_UNSPEC, ("localhost", 7700))
    assert address_of("[::1]:7700") == (socket.AF_UNSPEC, ("::1", 7700))
    for target in ("host", "::1", "dns:///host:1", "ipv6:[::1]:1", "host:port", "unix-abstract:x"):
        assert address_of(target) is None


# With a service.


@pytest.fixture
def far(service: Service, area_name: str) -> Iterator[tuple[statehouse.Client, statehouse.SharedDict]]:
    """A client over the network door, and an empty dict."""
    with service.connect("network") as client:
        yield client, client.dict(area_name)
        if not client.closed:
            client.dicts.delete(area_name)


def count(client: statehouse.Client, name: str, operations: int = 3) -> Any:
    batch = client.batch()
    d = batch.dict(name)
    for _ in range(operations):
        d.incr("n")
    return batch.run()[-1]


def link_of(client: statehouse.Client) -> BatchLink:
    link: BatchLink = client._streams.batches
    return link


@pytest.mark.parametrize("scheme", ["url", "tcp_url"])
def test_it_begins_after_a_few_batches(service: Service, area_name: str, scheme: str) -> None:
    with statehouse.connect(getattr(service, scheme), token=service.token, transport="network") as client:
        client.dict(area_name)
        for number in range(1, 6):
            assert count(client, area_name) == 3 * number
            assert (link_of(client)._socket is not None) is (number > 2)
        used = link_of(client)._socket
        # What is too large for it goes by a call, and does not end it.
        with client.batch() as batch:
            for number in range(64):
                batch.dict(area_name).set(str(number), bytes(1000))
        assert count(client, area_name, 5000) == 5015 and count(client, area_name) == 5018
        assert link_of(client)._socket is used
        with client.batch() as batch:
            large = [batch.dict(area_name).get(str(number % 64)) for number in range(1000)]
        assert all(operation.result() == bytes(1000) for operation in large) and link_of(client)._socket is used
        client.dicts.delete(area_name)
    assert link_of(client)._socket is None


def test_a_local_client_uses_it_where_packets_are_too_small(
    service: Service, area_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batch_stream, "BEGINS_AFTER", 0)
    with service.connect("local") as client:
        shared = client.dict(area_name)
        shared["large"] = bytes(200_000)
        with client.batch() as batch:
            got = batch.dict(area_name).get("large")
        # An answer comes in as many packets as it takes; so many changes are not sent by packets.
        assert got.result() == bytes(200_000)
        assert count(client, area_name) == 3 and link_of(client)._socket is None
        with client.batch() as batch:
            for _ in range(_batch.PACKET_OPERATIONS_MAX + 1):
                batch.dict(area_name).incr("many")
        assert shared["many"] == _batch.PACKET_OPERATIONS_MAX + 1 and link_of(client)._socket is not None
        client.dicts.delete(area_name)


def test_threads_share_it_and_calls(far: tuple[statehouse.Client, statehouse.SharedDict]) -> None:
    client, shared = far
    threads = [threading.Thread(target=lambda: [count(client, shared.name) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert shared["n"] == 4 * 50 * 3 and link_of(client)._socket is not None


def test_a_killed_daemon_costs_nothing(
    service: Service, far: tuple[statehouse.Client, statehouse.SharedDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, shared = far
    monkeypatch.setattr(_batch_stream, "TRIED_AGAIN_AFTER_S", 0.0)
    for number in range(1, 201):
        if number in (50, 120):
            assert link_of(client)._socket is not None
            service.kill_daemon()
        assert count(client, shared.name) == 3 * number
    wait_until(lambda: count(client, shared.name) and link_of(client)._socket is not None, "another stream")


def test_a_forked_child_has_its_own(far: tuple[statehouse.Client, statehouse.SharedDict]) -> None:
    client, shared = far
    for _ in range(3):
        count(client, shared.name)
    used = link_of(client)._socket
    assert used is not None

    def check() -> None:
        assert link_of(client)._socket is None
        for number in range(4, 8):
            assert count(client, shared.name) == 3 * number
        assert link_of(client)._socket is not None

    in_child(check)
    assert count(client, shared.name) == 24 and link_of(client)._socket is used


def test_a_token_that_is_taken_away_is_told(
    service: Service, far: tuple[statehouse.Client, statehouse.SharedDict], area_name: str
) -> None:
    token = service.add_token("linkgone", {("area", "*"): ("write",)})
    client = far[0]
    client.area(area_name, size=8)
    with service.connect("network", token=token) as limited:
        batch = limited.batch()
        for _ in range(4):
            batch.area(area_name).add_u8(0)
            batch.run()
        assert link_of(limited)._socket is not None
        service.remove_token("linkgone")
        batch.area(area_name).add_u8(0)
        with pytest.raises(statehouse.Unauthenticated):
            batch.run()
    assert client.area(area_name).load_u8(0) == 4
    client.areas.delete(area_name)


# With a service that misbehaves.


@contextlib.contextmanager
def misbehaving(serve: Callable[[socket.socket, int], None], folder: Any) -> Iterator[tuple[BatchLink, list[Any]]]:
    """A link to a server that is told each connection and its number; the calls that were made in its place."""
    path = str(folder / "s")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    connections: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):  # Shut down.
            while True:
                connections.append(listener.accept()[0])
                serve(connections[-1], len(connections))

    class Session:
        def __init__(self) -> None:
            self.target = f"unix:{path}"
            self.tls = None
            self.metadata = ()
            self.timeout = 0.5
            self.closed = False
            self.calls: list[Any] = []

        def call(self, call: Any, timeout: float | None = None) -> bytes:
            self.calls.append(timeout)
            return b"by a call"

    session = Session()
    thread = threading.Thread(target=accept)
    thread.start()
    link = BatchLink(session)  # type: ignore[arg-type]
    try:
        yield link, session.calls
    finally:
        link.close()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(PATIENCE_S)
        for connection in connections:
            connection.close()
        assert not thread.is_alive()


def call(idempotent: bool) -> Any:
    return statehouse._control.Call("RunBatch", _Request(), None, idempotent)


class _Request:
    def SerializeToString(self) -> bytes:
        return b"batch"


def answering(*answers: bytes) -> Callable[[socket.socket, int], None]:
    """Gives these answers, one for each batch that comes, the first for the empty one; then it closes."""

    def serve(connection: socket.socket, number: int) -> None:
        received = b""
        for at, answer in enumerate(answers):
            wanted = message(b"batch" if at else b"")
            while wanted not in received:
                chunk = connection.recv(1 << 16)
                if not chunk:
                    return
                received += chunk
            received = received.partition(wanted)[2]
            connection.sendall(answer)
        connection.shutdown(socket.SHUT_RDWR)

    return serve


def silent(done: threading.Event) -> Callable[[socket.socket, int], None]:
    """Opens the stream, and says nothing more until it is told to end."""

    def serve(connection: socket.socket, number: int) -> None:
        open_stream(connection)
        done.wait(PATIENCE_S)

    return serve


def open_stream(connection: socket.socket) -> bytes:
    """Answers the empty batch; what was received."""
    received = b""
    while message(b"") not in received:
        received += connection.recv(1 << 16)
    connection.sendall(OPENED)
    return received


OPENED = frame(HEADERS, 4, 1, b"\x88") + frame(DATA, 0, 1, message(b"\x0a\0"))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batch_stream, "BEGINS_AFTER", 0)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("answer", [b"", frame(GOAWAY, 0, 0, bytes(8)), frame(DATA, 0, 1, b"\0\0")], ids=["closed", "goaway", "cut off"])
def test_a_lost_answer_is_asked_for_by_a_call_where_that_is_safe(tmp_path: Any, answer: bytes) -> None:
    with misbehaving(answering(OPENED, answer), tmp_path) as (link, calls):
        assert link.call(call(True)) == b"by a call" and len(calls) == 1 and 0 < calls[0] <= 0.5


@pytest.mark.usefixtures("at_once")
def test_a_lost_answer_of_what_may_not_be_repeated_is_an_error(tmp_path: Any) -> None:
    with misbehaving(answering(OPENED, b""), tmp_path) as (link, calls):
        with pytest.raises(statehouse.Unavailable):
            link.call(call(False))
        assert not calls and link.call(call(False)) == b"by a call"  # It is not begun again at once.
    (tmp_path / "s").unlink()
    refused = frame(HEADERS, 5, 1, b"\x00\x0bgrpc-status\x0216")
    with misbehaving(answering(OPENED, refused), tmp_path) as (link, calls):
        assert link.call(call(False)) == b"by a call" and len(calls) == 1


@pytest.mark.usefixtures("at_once")
def test_a_stream_that_does_not_begin_is_not_used(tmp_path: Any) -> None:
    for answer in (b"", frame(HEADERS, 5, 1, b"\x88"), frame(DATA, 0, 1, message(b"\x12\0")), b"HTTP/1.1 400 Bad Request\r\n\r\n"):
        with misbehaving(answering(answer), tmp_path) as (link, calls):
            for _ in range(3):
                assert link.call(call(False)) == b"by a call"
            assert len(calls) == 3 and link._socket is None
        (tmp_path / "s").unlink()


@pytest.mark.usefixtures("at_once")
def test_what_came_meanwhile_is_seen_before_anything_is_sent(tmp_path: Any) -> None:
    end, ended = threading.Event(), threading.Event()

    def serve(connection: socket.socket, number: int) -> None:
        received = b""
        for wanted in (message(b""), message(b"batch")):
            while wanted not in received:
                received += connection.recv(1 << 16)
            connection.sendall(OPENED if wanted == message(b"") else frame(DATA, 0, 1, message(b"answer")))
        assert end.wait(PATIENCE_S)
        connection.sendall(frame(PING, 0, 0, bytes(8)) + frame(GOAWAY, 0, 0, bytes(8)))
        ended.set()

    with misbehaving(serve, tmp_path) as (link, calls):
        assert link.call(call(False)) == b"answer" and link._socket is not None
        end.set()
        assert ended.wait(PATIENCE_S)
        assert link.call(call(False)) == b"by a call" and link._socket is None and len(calls) == 1


@pytest.mark.usefixtures("at_once")
def test_an_answer_beside_the_end_is_an_answer(tmp_path: Any) -> None:
    for end in (frame(GOAWAY, 0, 0, b"\x7f\xff\xff\xff\0\0\0\0"), frame(RESET, 0, 1, bytes(4)), b"HTTP/1.1 400 Bad Request"):
        with misbehaving(answering(OPENED, frame(DATA, 0, 1, message(b"answer")) + end), tmp_path) as (link, calls):
            assert link.call(call(False)) == b"answer" and link._socket is None and not calls
        (tmp_path / "s").unlink()


@pytest.mark.usefixtures("at_once")
def test_a_window_that_stays_shut_is_for_calls(tmp_path: Any) -> None:
    with misbehaving(answering(frame(SETTINGS, 0, 0, b"\0\x04\0\0\0\0") + OPENED), tmp_path) as (link, calls):
        assert link.call(call(False)) == b"by a call" and len(calls) == 1


@pytest.mark.usefixtures("at_once")
def test_no_answer_is_a_timeout_and_ends_the_stream(tmp_path: Any) -> None:
    done = threading.Event()
    with misbehaving(silent(done), tmp_path) as (link, calls):
        with pytest.raises(statehouse.Timeout):
            link.call(call(True))
        done.set()
        assert not calls and link._socket is None


@pytest.mark.usefixtures("at_once")
def test_closing_wakes_who_waits_for_an_answer(tmp_path: Any) -> None:
    asked = threading.Event()
    done = threading.Event()

    def serve(connection: socket.socket, number: int) -> None:
        received = open_stream(connection)
        while message(b"batch") not in received:
            received += connection.recv(1 << 16)
        asked.set()
        done.wait(PATIENCE_S)

    with misbehaving(serve, tmp_path) as (link, calls):
        link._session.timeout = PATIENCE_S  # type: ignore[misc]
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(link.call(call(True))))
        thread.start()
        assert asked.wait(PATIENCE_S)
        link._session.closed = True  # type: ignore[misc]
        link.close()
        thread.join(PATIENCE_S)
        done.set()
        assert answers == [b"by a call"] and link._socket is None and os.getpid() == link._pid
