"""Connecting, closing, access, areas as wholes, and a daemon that dies."""

from __future__ import annotations

import pathlib
import pickle
import signal
import socket
import subprocess
import sys
import threading

import pytest

import statehouse

from conftest import PATIENCE_S, Service, wait_until


def test_areas_are_created_described_listed_and_deleted(
    client: statehouse.Client, area_name: str
) -> None:
    created = client.areas.create(area_name + "/b", pages=2)
    other = client.areas.create(area_name + "/a", size=100)
    assert (created.size, created.backing, created.file) == (8192, "memory", "")
    assert other.index > created.index
    assert created.create_time > 0
    assert [i.name for i in client.areas.list(prefix=area_name + "/")] == [
        area_name + "/b",
        area_name + "/a",
    ]
    assert client.areas.describe(area_name + "/a").size == 100
    client.areas.delete(area_name + "/a")
    client.areas.delete(area_name + "/b")
    assert client.areas.list(prefix=area_name) == []
    with pytest.raises(statehouse.NotFound) as raised:
        client.areas.delete(area_name + "/a")
    assert isinstance(raised.value, KeyError)
    assert raised.value.name == area_name + "/a"


def test_listing_goes_beyond_a_page(client: statehouse.Client, area_name: str) -> None:
    names = [f"{area_name}/{i}" for i in range(105)]
    for name in names:
        client.areas.create(name, size=8)
    assert [i.name for i in client.areas.list(prefix=area_name + "/")] == names
    for name in names:
        client.areas.delete(name)


def test_creating_agrees_or_refuses(client: statehouse.Client, area_name: str) -> None:
    client.areas.create(area_name, size=64)
    assert client.areas.create(area_name, size=64).size == 64
    assert client.area(area_name, size=64).size == 64
    with pytest.raises(statehouse.AlreadyExists):
        client.areas.create(area_name, size=65)
    with pytest.raises(statehouse.AlreadyExists):
        client.areas.create(area_name, size=64, exclusive=True)
    client.areas.delete(area_name)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"name": "", "size": 1}, "NAME_INVALID"),
        ({"name": "#1", "size": 1}, "NAME_INVALID"),
        ({"name": "a b", "size": 1}, "NAME_INVALID"),
        ({"name": "x" * 256, "size": 1}, "NAME_INVALID"),
        ({"name": "bad-size", "size": 0}, "SIZE_INVALID"),
        ({"name": "bad-size"}, "SIZE_INVALID"),
        ({"name": "bad-size", "size": (1 << 64) - 1}, "SIZE_INVALID"),
        ({"name": "bad-size", "pages": (1 << 64) - 1}, "SIZE_INVALID"),
        ({"name": "bad-size", "size": 5, "pages": 1}, "SIZE_INVALID"),
        ({"name": "bad-size", "size": -1}, "INVALID_ARGUMENT"),
        ({"name": "bad-size", "size": 1 << 64}, "INVALID_ARGUMENT"),
    ],
)
def test_bad_areas_are_refused_by_reason(
    client: statehouse.Client, options: dict[str, object], reason: str
) -> None:
    with pytest.raises(statehouse.InvalidArgument) as raised:
        client.areas.create(**options)  # type: ignore[arg-type]
    assert raised.value.reason == reason
    assert isinstance(raised.value, ValueError)


def test_names_of_other_types_are_type_errors(client: statehouse.Client) -> None:
    for call in (
        lambda: client.area(5),  # type: ignore[arg-type]
        lambda: client.areas.describe(None),  # type: ignore[arg-type]
        lambda: client.areas.create("x", size="5"),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            call()


def test_a_deleted_area_is_reported_and_its_name_opens_the_new_one(
    client: statehouse.Client, area: statehouse.Area
) -> None:
    area.store_u64(0, 1)
    client.areas.delete(area.name)
    for call in (
        lambda: area.load_u64(0),
        lambda: area.add_u64(0, 1),
        lambda: area.read(0, 1),
        lambda: area.updates,
        lambda: area.wait(0, 0),
    ):
        with pytest.raises(statehouse.NotFound):
            call()
    new = client.area(area.name, size=4096)
    assert new.load_u64(0) == 0


def test_status_tells_of_the_service(client: statehouse.Client) -> None:
    status = client.status()
    assert status.version and not status.draining
    assert status.daemon_pid > 0 and status.generation >= 1
    assert status.start_time > 0


def test_status_counts_locks_their_waiters_and_sessions(service: Service, client: statehouse.Client, area_name: str) -> None:
    wait_until(lambda: client.status().lock_waiters == 0, "nobody waits any more")
    with service.connect("network") as other:
        held = [client.lock(f"{area_name}/{number}") for number in range(100)]
        waiting = threading.Thread(target=other.lock(held[0].name).acquire, daemon=True)
        for lock in held:
            lock.acquire()
        waiting.start()
        wait_until(lambda: client.status().lock_waiters == 1, "the waiter is counted")
        wait_until(lambda: client.status().locks_held >= 100, "the holders are counted")
        assert client.status().sessions >= 1
        for lock in held:
            lock.release()
        waiting.join(PATIENCE_S)
        assert not waiting.is_alive()
    wait_until(lambda: client.status().locks_held < 100, "what was given back is not counted")


def test_everything_refuses_after_close(
    service: Service, client: statehouse.Client, area: statehouse.Area
) -> None:
    assert not client.closed
    client.close()
    client.close()
    assert client.closed
    for call in (
        client.status,
        client.areas.list,
        lambda: client.area(area.name),
        lambda: area.load_u64(0),
        lambda: area.add_u64(0, 1),
        lambda: area.store_u8(0, 1),
        lambda: area.read(0),
        lambda: area.write(0, b"x"),
        lambda: area.fill(0, 1, 1),
        lambda: area[0],
        lambda: area[0:1],
        lambda: area.updates,
        lambda: area.wait(0, 0),
    ):
        with pytest.raises(statehouse.ClientClosed) as raised:
            call()
        assert raised.value.reason == "CLIENT_CLOSED"
    with service.connect("local") as other:
        other.areas.delete(area.name)


def test_closing_ends_the_waits_of_other_threads(
    service: Service, client: statehouse.Client, area: statehouse.Area
) -> None:
    outcome: list[object] = []
    began = threading.Event()

    def wait() -> None:
        since = area.updates
        began.set()
        try:
            outcome.append(area.wait(since))
        except statehouse.Error as error:
            outcome.append(error.reason)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert began.wait(PATIENCE_S)
    client.close()
    waiting.join(PATIENCE_S)
    assert outcome == ["CLIENT_CLOSED"]
    with service.connect("local") as other:
        other.areas.delete(area.name)


def test_a_wrong_token_is_unauthenticated(service: Service, door: str) -> None:
    with pytest.raises(statehouse.Unauthenticated) as raised:
        service.connect(door, token="sh1_aaaaaaaa_" + "b" * 43).status()
    assert raised.value.reason == "UNAUTHENTICATED"
    assert isinstance(raised.value, PermissionError)


def test_the_token_may_come_from_a_file_or_the_environment(
    service: Service, door: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(service.token + "\n")
    monkeypatch.delenv("STATEHOUSE_TOKEN", raising=False)
    with statehouse.connect(service.url, token_file=str(file), transport=door) as c:
        assert c.status().version
    monkeypatch.setenv("STATEHOUSE_URL", service.url)
    monkeypatch.setenv("STATEHOUSE_TOKEN_FILE", str(file))
    with statehouse.connect(transport=door) as c:
        assert c.status().version
    monkeypatch.setenv("STATEHOUSE_TOKEN", service.token)
    monkeypatch.setenv("STATEHOUSE_TOKEN_FILE", "/nowhere")
    with statehouse.connect(transport=door) as c:
        assert c.status().version


def test_auto_takes_the_local_door_and_tcp_the_network(service: Service) -> None:
    with statehouse.connect(service.url, token=service.token) as c:
        assert c.transport == "local"
    with statehouse.connect(service.tcp_url, token=service.token) as c:
        assert c.transport == "network"
        assert c.status().version


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "http://x"},
        {"url": "statehouse://"},
        {"url": "statehouse://h", "transport": "local"},
        {"url": "statehouse://h", "transport": "pigeon"},
        {"url": "statehouse://h?color=red"},
        {"url": "statehouse://h", "timeout": -1},
        {"url": "statehouse://h", "timeout": float("nan")},
        {"url": "statehouse://h", "token_file": "/nowhere/token"},
    ],
)
def test_bad_arguments_of_connect_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(statehouse.InvalidArgument):
        statehouse.connect(**arguments)  # type: ignore[arg-type]


def test_nobody_there_is_unavailable(tmp_path: pathlib.Path) -> None:
    with pytest.raises(statehouse.Unavailable) as raised:
        statehouse.connect(f"statehouse+unix://{tmp_path}", timeout=0.05)
    assert isinstance(raised.value, ConnectionError) and raised.value.retryable
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # Bound and not listening: nobody else gets the port.
        port = unused.getsockname()[1]
        with pytest.raises(statehouse.Unavailable):
            statehouse.connect(f"statehouse://127.0.0.1:{port}", timeout=0.2).status()


def test_a_killed_daemon_is_not_noticed_for_long(service: Service, client: statehouse.Client, area: statehouse.Area, door: str) -> None:
    area.store_u64(0, 41)
    generation = client.status().generation
    service.kill_daemon()
    if door == "local":
        assert area.add_u64(0, 1) == 42
    wait_until(lambda: client.status().generation == generation + 1, "the next daemon's start")
    if door != "local":
        assert area.add_u64(0, 1) == 42
    assert client.area(area.name).load_u64(0) == 42
    assert client.area(area.name + "/later", size=8).add_u64(0, 1) == 1
    assert area.add_u64(0, 1) == 43
    client.areas.delete(area.name + "/later")


def test_a_signal_interrupts_a_wait(service: Service, door: str, area_name: str) -> None:
    program = f"""
import signal, sys, statehouse
c = statehouse.connect({service.url!r}, token={service.token!r}, transport={door!r})
a = c.area({area_name!r}, size=8)
def handler(number, frame):
    raise SystemExit(7)
signal.signal(signal.SIGUSR1, handler)
print("ready", flush=True)
a.wait(a.updates)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGUSR1)
    try:
        assert process.wait(PATIENCE_S) == 7
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with service.connect("local") as c:
        c.areas.delete(area_name)


def test_errors_survive_pickling() -> None:
    error = statehouse.errors.by_name("OUT_OF_BOUNDS", "too far", "a")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is statehouse.OutOfBounds
    assert (copy.reason, copy.name, str(copy)) == ("OUT_OF_BOUNDS", "a", str(error))


def test_every_reason_has_an_exception_class() -> None:
    from statehouse import _local, errors

    for number, name in enumerate(_local.reason_names()):
        if number == 0:
            continue
        error = errors.from_reason(number, "m", "n")
        assert (error.reason, error.name) == (name, "n")
        assert type(error) is errors._CLASSES[name]
        assert str(error) == f"{name}: m"
    assert errors.from_reason(999, "later").reason == "REASON_999"


def test_importing_loads_neither_grpc_nor_protobuf() -> None:
    program = (
        "import sys, statehouse, statehouse.aio, statehouse.compat.uwsgi\n"
        "assert not any(m.split('.')[0] in ('grpc', 'google') for m in sys.modules), 'loaded'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
