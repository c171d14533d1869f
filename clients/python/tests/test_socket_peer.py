"""transport="socket" with a daemon that answers late, wrongly or never. It runs in threads of this process, so that nothing here would
get on if a call held the GIL while it waits."""

from __future__ import annotations

import pathlib
import signal
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import statehouse
from statehouse import _control, _local
from statehouse.v1 import admin_pb2, area_pb2, dict_pb2, value_pb2

from conftest import PATIENCE_S, Service
from test_fork import in_child

# docs/formats/attach.md.
HEADER = struct.Struct("<4sHHQQ")
FIELD = struct.Struct("<HHI")
HELLO, WELCOME, CALL, CALL_REPLY, ERROR, CALL_PART = 1, 2, 5, 6, 7, 12
NO_LANES = {1: b"\0" * 4, 2: b"\0" * 4, 3: b"\0" * 8, 4: b"\0" * 8, 5: b"0.1.0"}


def packet(kind: int, request_id: int, fields: dict[int, bytes]) -> bytes:
    body = b"".join(FIELD.pack(tag, 0, len(value)) + value for tag, value in fields.items())
    return HEADER.pack(b"STA1", kind, 1, request_id, len(body)) + body


def fields_of(bytes_: bytes) -> tuple[int, int, dict[int, bytes]]:
    """Kind, request id and fields of a packet."""
    _, kind, _, request_id, _ = HEADER.unpack_from(bytes_)
    fields = {}
    at = HEADER.size
    while at < len(bytes_):
        tag, _, length = FIELD.unpack_from(bytes_, at)
        at += FIELD.size
        fields[tag] = bytes_[at : at + length]
        at += length
    return kind, request_id, fields


class Asked:
    """A call that the daemon got, to be answered or not."""

    def __init__(self, connection: socket.socket, request_id: int, fields: dict[int, bytes]) -> None:
        self.connection = connection
        self.request_id = request_id
        self.method = fields[1].decode().rpartition("/")[2]
        self.deadline_ns = int.from_bytes(fields[2], "little")
        self.request = fields[3]

    def answer(self, response: Any) -> None:
        self.connection.send(packet(CALL_REPLY, self.request_id, {1: response.SerializeToString()}))

    def refuse(self, reason: str, message: str, retry_after_ms: int = 0) -> None:
        number = _local.reason_names().index(reason).to_bytes(2, "little")
        fields = {1: number, 2: retry_after_ms.to_bytes(4, "little"), 3: message.encode()}
        self.connection.send(packet(ERROR, self.request_id, fields))


Answerer = Callable[[Asked], None]


class FakeDaemon:
    """An attach socket whose calls go to ``answer``, each connection's in a thread of its own."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.answer: Answerer = lambda asked: asked.answer(status("fake"))
        self.asked: list[Asked] = []
        self.connections = 0
        self.lanes_refusal = ""  # The reason for which nobody gets lanes.
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(folder / "attach.sock"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def connect(self, timeout: float = PATIENCE_S) -> statehouse.Client:
        return statehouse.connect(f"statehouse+unix://{self.folder}", transport="socket", timeout=timeout)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while True:
                try:
                    received = connection.recv(1 << 18)
                except OSError:
                    return
                if not received:
                    return
                kind, request_id, fields = fields_of(received)
                if kind == HELLO:
                    if self.lanes_refusal and fields[3] != b"\0":
                        Asked(connection, request_id, {**fields, 2: b""}).refuse(self.lanes_refusal, "no lanes for this one")
                        return
                    assert fields[3] == b"\0"  # No lanes.
                    connection.send(packet(WELCOME, request_id, NO_LANES))
                    continue
                assert kind == CALL
                self.asked.append(Asked(connection, request_id, fields))
                self.answer(self.asked[-1])


def status(version: str) -> admin_pb2.GetStatusResponse:
    return admin_pb2.GetStatusResponse(version=version)


def lose(asked: Asked) -> None:
    """The connection breaks after the call was sent."""
    asked.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    with tempfile.TemporaryDirectory(prefix="sh-") as folder:  # A path that a socket's address has room for.
        made = FakeDaemon(pathlib.Path(folder))
        yield made
        made.close()


def test_errors_are_told_as_the_service_says_them(daemon: FakeDaemon) -> None:
    with daemon.connect() as client:
        daemon.answer = lambda asked: asked.refuse("RATE_LIMITED", "too many of them", 250)
        with pytest.raises(statehouse.RateLimited) as raised:
            client.areas.describe("an area")
        told = raised.value
        assert (told.reason, told.message, told.name, told.retryable, told.retry_after) == (
            "RATE_LIMITED", "too many of them", "an area", True, 0.25
        )  # fmt: skip
        daemon.answer = lambda asked: asked.refuse("AREA_NOT_FOUND", "there is none")
        with pytest.raises(statehouse.NotFound) as missing:
            client.areas.delete("gone")
        assert missing.value.retry_after is None and not missing.value.retryable
    assert daemon.connections == 1 and len(daemon.asked) == 2


def test_a_call_whose_answer_is_lost_is_sent_again_only_where_it_counts_once(daemon: FakeDaemon) -> None:
    def lose_the_first(response: Any) -> None:
        daemon.asked.clear()
        daemon.answer = lambda asked: lose(asked) if len(daemon.asked) == 1 else asked.answer(response)

    with daemon.connect() as client:
        lose_the_first(dict_pb2.DescribeDictResponse(dict=dict_pb2.Dict(name="d")))
        shared = client.dict("d", create=False)
        assert len(daemon.asked) == 2
        lose_the_first(dict_pb2.IncrementEntryResponse(value=value_pb2.Value(int_value=7)))
        assert shared.incr("n") == 7
        first, second = daemon.asked
        assert first.request == second.request  # With the same operation id.
        lose_the_first(area_pb2.DeleteAreaResponse())
        with pytest.raises(statehouse.Unavailable, match="whether the call was carried out is unknown"):
            client.areas.delete("an area")
        assert len(daemon.asked) == 1


def test_a_call_ends_at_its_deadline_and_its_late_answer_is_dropped(daemon: FakeDaemon) -> None:
    def answer(asked: Asked) -> None:
        if len(daemon.asked) > 1:
            daemon.asked[0].answer(status("late"))
            asked.answer(status("in time"))

    daemon.answer = answer
    with daemon.connect() as client:
        with pytest.raises(statehouse.Timeout, match="before the deadline"):
            client._call_timed(_control.status(), 0.2, False)
        assert client.status().version == "in time"
        assert 0 < daemon.asked[0].deadline_ns <= 200_000_000
        with pytest.raises(statehouse.Timeout, match="not sent"):
            client._call_timed(_control.status(), 0.0, False)
    assert daemon.connections == 1 and len(daemon.asked) == 2


class Interrupted(Exception):
    pass


@pytest.fixture
def interrupt() -> Iterator[Callable[[], None]]:
    """What sends a signal to this thread, whose handler raises Interrupted."""

    def raise_it(*_: Any) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, raise_it)
    this = threading.get_ident()
    yield lambda: signal.pthread_kill(this, signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_ends_a_call(daemon: FakeDaemon, interrupt: Callable[[], None]) -> None:
    daemon.answer = lambda asked: interrupt() if len(daemon.asked) == 1 else asked.answer(status("afterwards"))
    with daemon.connect() as client:
        with pytest.raises(Interrupted):
            client.status()
        assert client.status().version == "afterwards"


def test_a_signal_ends_the_wait_for_a_daemon_that_is_away(daemon: FakeDaemon, interrupt: Callable[[], None]) -> None:
    def answer(asked: Asked) -> None:
        (daemon.folder / "attach.sock").unlink()
        lose(asked)
        interrupt()

    daemon.answer = answer
    with daemon.connect() as client, pytest.raises(Interrupted):
        client.status()


def test_closing_ends_a_call_of_another_thread(daemon: FakeDaemon) -> None:
    is_asked = threading.Event()
    raised: list[BaseException] = []
    daemon.answer = lambda asked: is_asked.set()
    client = daemon.connect()

    def work() -> None:
        try:
            client.status()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert is_asked.wait(PATIENCE_S)
    client.close()
    thread.join(PATIENCE_S)
    assert [type(error) for error in raised] == [statehouse.ClientClosed] and client.closed
    with pytest.raises(statehouse.ClientClosed):
        client.status()


@pytest.mark.parametrize(("refusal", "connections"), [("LANES_EXHAUSTED", 2), ("LIMIT_EXCEEDED", 1), ("MEMORY_EXHAUSTED", 1)])
def test_auto_takes_the_socket_for_want_of_lanes_only(daemon: FakeDaemon, refusal: str, connections: int) -> None:
    daemon.lanes_refusal = refusal
    url = f"statehouse+unix://{daemon.folder}"
    if refusal == "LANES_EXHAUSTED":
        with statehouse.connect(url, timeout=PATIENCE_S) as client:
            assert client.transport == "socket" and client.status().version == "fake"
    else:
        with pytest.raises(statehouse.Error, match="no lanes for this one") as raised:
            statehouse.connect(url, timeout=PATIENCE_S)
        assert raised.value.reason == refusal
    assert daemon.connections == connections


def test_what_finds_the_socket_busy_goes_by_grpc(daemon: FakeDaemon, service: Service) -> None:
    is_asked, may_answer = threading.Event(), threading.Event()

    def answer(asked: Asked) -> None:
        is_asked.set()
        assert may_answer.wait(PATIENCE_S)
        asked.answer(status("fake"))

    daemon.answer = answer
    (daemon.folder / "grpc.sock").symlink_to(service.runtime_dir / "grpc.sock")
    url = f"statehouse+unix://{daemon.folder}"
    with statehouse.connect(url, token=service.token, transport="socket", timeout=PATIENCE_S) as client:
        versions: list[str] = []
        thread = threading.Thread(target=lambda: versions.append(client.status().version))
        thread.start()
        assert is_asked.wait(PATIENCE_S)
        assert client.status().version not in ("", "fake") and len(daemon.asked) == 1
        may_answer.set()
        thread.join(PATIENCE_S)
        assert versions == ["fake"] and client.status().version == "fake"


def test_a_child_of_a_fork_during_a_call_connects_anew(daemon: FakeDaemon) -> None:
    is_asked, may_answer = threading.Event(), threading.Event()

    def answer(asked: Asked) -> None:
        if len(daemon.asked) == 1:
            is_asked.set()
            assert may_answer.wait(PATIENCE_S)
        asked.answer(status(str(len(daemon.asked))))

    daemon.answer = answer
    with daemon.connect() as client:
        versions: list[str] = []
        thread = threading.Thread(target=lambda: versions.append(client.status().version))
        thread.start()
        assert is_asked.wait(PATIENCE_S)

        def in_the_child() -> None:
            assert client.status().version == "2"

        in_child(in_the_child)
        assert daemon.connections == 2
        may_answer.set()
        thread.join(PATIENCE_S)
        assert versions == ["2"] and client.status().version == "3"
    assert daemon.connections == 2


def test_an_answer_comes_in_parts(daemon: FakeDaemon) -> None:
    whole = status("v" * 300_000).SerializeToString()

    def answer(asked: Asked) -> None:
        for begin in (0, 100_000):
            asked.connection.send(packet(CALL_PART, asked.request_id, {1: whole[begin : begin + 100_000]}))
        asked.connection.send(packet(CALL_REPLY, asked.request_id, {1: whole[200_000:]}))

    daemon.answer = answer
    with daemon.connect() as client:
        assert client.status().version == "v" * 300_000


def test_a_wait_whose_time_is_over_is_no_service_that_is_away(service: Service, area_name: str) -> None:
    """Where nothing else has been answered by gRPC before."""
    with service.connect("socket") as client:
        area: Any = client.area(area_name, size=8)
        call = area._calls.wait(area.updates, PATIENCE_S)
        with pytest.raises(statehouse.Timeout):
            client._call_timed(call, 1.0, True)
        client.areas.delete(area_name)
