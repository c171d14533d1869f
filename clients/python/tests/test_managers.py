"""statehouse.compat.managers: the recipe of the shared dict and lock, as it is used, and where it used to fail."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import statehouse
from statehouse.compat import _service, managers
from statehouse.compat.managers import AcquirerProxy, BaseManager, DictProxy, get_shared_state

from conftest import PATIENCE_S
from test_fork import in_child

HOST = "127.0.0.1"
KEY = b"a key of this test"


@pytest.fixture
def folder() -> Iterator[pathlib.Path]:
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="sh-") as name:
        yield pathlib.Path(name)


@pytest.fixture
def port(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port that was free a moment ago. What was started there is ended."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        number = int(probe.getsockname()[1])
    yield number
    managers.stop(HOST, number, KEY)


def run(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-B", "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    return output


def test_the_state_is_shared_and_behaves_as_the_proxies_do(port: int) -> None:
    shared_dict, shared_lock = get_shared_state(HOST, port, KEY)
    assert isinstance(shared_dict, DictProxy) and isinstance(shared_lock, AcquirerProxy)
    again, same_lock = get_shared_state("localhost", port, KEY.decode())
    with shared_lock:
        shared_dict["number"] = shared_dict.get("number", 0) + 1
        assert same_lock.locked() and not same_lock.acquire(False) and not same_lock.acquire(timeout=0.01)
    assert again["number"] == 1 and same_lock.acquire() and shared_lock.locked()
    same_lock.release()
    shared_dict.update({1: "int", b"b": [1]}, a=1)
    shared_dict[b"b"].append(2)
    assert shared_dict.keys() == ["number", 1, b"b", "a"] and shared_dict.values() == [1, "int", [1, 2], 1]
    assert shared_dict.items()[1] == (1, "int") and str(shared_dict) == str(dict(shared_dict.items()))
    assert (len(shared_dict), 1 in shared_dict, shared_dict.pop(1), shared_dict.popitem()) == (4, True, "int", ("a", 1))
    assert shared_dict.setdefault("x", 5) == 5 and shared_dict.copy() == {"number": 1, b"b": [1, 2], "x": 5} == shared_dict._getvalue()
    assert shared_dict._callmethod("get", ("x",)) == 5 and shared_dict.incr("x") == 6
    del shared_dict["x"]
    shared_dict.clear()
    assert list(shared_dict) == [] and shared_dict == {}


COUNT = """
import sys
from statehouse.compat.managers import get_shared_state
host, port, key, rounds = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode(), int(sys.argv[4])
print("up", flush=True)
sys.stdin.readline()
shared_dict, shared_lock = get_shared_state(host, port, key)
for _ in range(rounds):
    with shared_lock:
        shared_dict["number"] = shared_dict.get("number", 0) + 1
    shared_dict.incr("other")
print(shared_dict.name)
"""


def test_eight_processes_that_start_at_once_start_one_service(port: int) -> None:
    workers = [run(COUNT, HOST, port, KEY.decode(), 50) for _ in range(8)]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "up\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        assert finish(worker) == "managers/shared_dict\n"
    shared_dict, _ = get_shared_state(HOST, port, KEY)  # All of them have ended; the state has not.
    assert shared_dict["number"] == shared_dict["other"] == 8 * 50


def test_the_state_outlives_the_process_that_started_it(port: int) -> None:
    program = """
import os, signal, sys
from statehouse.compat.managers import get_shared_state
shared_dict, _ = get_shared_state(sys.argv[1], int(sys.argv[2]), sys.argv[3])
shared_dict["a"] = [1]
os.kill(os.getpid(), signal.SIGKILL)
"""
    first = run(program, HOST, port, KEY.decode())
    first.communicate(timeout=PATIENCE_S)
    assert first.returncode == -signal.SIGKILL
    shared_dict, _ = get_shared_state(HOST, port, KEY)
    assert shared_dict == {"a": [1]}


def test_other_programs_reach_the_same_state(port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        managers.connect(HOST, port, KEY)
    shared_dict, _ = get_shared_state(HOST, port, KEY)
    shared_dict["a"] = 1
    with managers.connect(HOST, port, KEY) as client:
        assert client.transport == "local" and client.area("an-area", size=8).add_u64(0, 1) == 1
    token = managers.access_token(HOST, port, KEY)
    with statehouse.connect(f"statehouse://{HOST}:{port}", token=token) as client:
        assert client.dict("managers/shared_dict", create=False)["a"] == 1


def test_another_key_is_refused(port: int) -> None:
    get_shared_state(HOST, port, KEY)
    with pytest.raises(PermissionError) as raised:
        get_shared_state(HOST, port, b"another key")
    assert isinstance(raised.value, statehouse.Unauthenticated)
    folder = _service.Address(HOST, port, KEY).folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and stat.S_IMODE((folder / "tokens.toml").stat().st_mode) == 0o600
    for path in folder.iterdir():
        if path.is_file():
            assert KEY not in path.read_bytes(), "the key is stored nowhere"


def test_a_service_of_another_user_is_used_over_the_network(
    port: int, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_dict, shared_lock = get_shared_state(HOST, port, KEY)
    shared_dict["a"] = 1
    (folder / "other").mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder / "other"))
        there, lock_there = get_shared_state(HOST, port, KEY)
        assert there.transport == "network" and there == {"a": 1} and there.keys() == ["a"]
        with lock_there:
            assert shared_lock.locked() and not shared_lock.acquire(False)
        with pytest.raises(statehouse.Unauthenticated):
            get_shared_state(HOST, port, b"another key")


def test_what_cannot_be_started_says_why(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for bad in ((HOST, 0, KEY), (HOST, 65536, KEY), (HOST, port, b"")):
        with pytest.raises(ValueError):
            get_shared_state(*bad)
    for wrong in ((5, port, KEY), (HOST, "7700", KEY)):
        with pytest.raises(TypeError):
            get_shared_state(*wrong)  # type: ignore[arg-type]
    with pytest.raises(ConnectionRefusedError, match="loopback"):
        _service._start(_service.Address("192.0.2.1", port, KEY))  # An address for documentation: nobody is there.
    with monkeypatch.context() as patch:
        patch.delenv("STATEHOUSED")
        patch.setenv("PATH", "/nonexistent")
        with pytest.raises(FileNotFoundError, match="statehoused is not on the PATH"):
            get_shared_state(HOST, port, KEY)
    with socket.socket() as taken:
        taken.bind((HOST, port))  # Bound, and nobody listens.
        with pytest.raises(OSError, match="did not start"):
            get_shared_state(HOST, port, KEY)


def test_a_folder_that_others_can_change_is_refused(
    port: int, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shady = folder / "shady"
    (shady / "statehouse-managers").mkdir(parents=True)
    (shady / "statehouse-managers").chmod(0o777)
    with monkeypatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(shady))
        with pytest.raises(PermissionError, match="0700"):
            get_shared_state(HOST, port, KEY)


def test_stopping_ends_the_state(port: int) -> None:
    shared_dict, _ = get_shared_state(HOST, port, KEY)
    shared_dict["a"] = 1
    folder = _service.Address(HOST, port, KEY).folder
    assert managers.stop(HOST, port, KEY) and not managers.stop(HOST, port, KEY) and not folder.exists()
    shared_dict, _ = get_shared_state(HOST, port, KEY)
    assert shared_dict == {}


def test_a_killed_holder_passes_the_lock_on(port: int) -> None:
    program = """
import sys
from statehouse.compat.managers import get_shared_state
_, shared_lock = get_shared_state(sys.argv[1], int(sys.argv[2]), sys.argv[3])
shared_lock.acquire()
print("held", flush=True)
sys.stdin.readline()
"""
    _, shared_lock = get_shared_state(HOST, port, KEY)
    holder = run(program, HOST, port, KEY.decode())
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    assert shared_lock.locked() and not shared_lock.acquire(timeout=0.3)
    assert f"pid {holder.pid} " in (shared_lock.holder() or {})["owner"]
    with pytest.raises(RuntimeError, match="another process"):
        shared_lock.release()
    os.kill(holder.pid, signal.SIGKILL)
    assert shared_lock.acquire(timeout=PATIENCE_S), "also while nobody waited for the holder"
    assert f"pid {os.getpid()} " in (shared_lock.holder() or {})["owner"] and shared_lock.token > 0
    shared_lock.release()
    holder.communicate()
    assert "unlocked" in repr(shared_lock)


def test_a_lock_excludes_threads_and_wakes_waiters(port: int) -> None:
    _, shared_lock = get_shared_state(HOST, port, KEY)
    inside = []
    order = []

    def work(number: int) -> None:
        for _ in range(20):
            with shared_lock as held:
                assert held is True
                inside.append(number)
                assert len(inside) == 1
                inside.pop()
        order.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(order) == [0, 1, 2, 3] and not shared_lock.locked()
    with pytest.raises(RuntimeError, match="nobody holds"):
        shared_lock.release()
    with pytest.raises(ValueError):
        shared_lock.acquire(False, 1)
    assert shared_lock.acquire(True, -1)
    assert shared_lock.force_release() and not shared_lock.force_release()
    with pytest.raises(statehouse.LockLost):
        shared_lock.release()


def test_a_child_does_not_hold_what_its_parent_holds(port: int) -> None:
    shared_dict, shared_lock = get_shared_state(HOST, port, KEY)
    with shared_lock:

        def check() -> None:
            assert not shared_lock.acquire(False)
            with pytest.raises(RuntimeError, match="another process"):
                shared_lock.release()
            shared_dict["child"] = 1

        in_child(check)
        assert shared_lock.locked() and shared_dict["child"] == 1
    assert not shared_lock.locked()


class _Primitives(BaseManager):
    pass


_Primitives.register("rlock", threading.RLock)
_Primitives.register("pool", lambda: threading.BoundedSemaphore(2))
_Primitives.register("ready", threading.Event)
_Primitives.register("changed", threading.Condition)
_Primitives.register("together", lambda: threading.Barrier(2))


def test_the_other_locks_behave_as_threadings(port: int) -> None:
    first, second = _Primitives((HOST, port), KEY), _Primitives((HOST, port), KEY)
    first.start()
    second.connect()
    mine, theirs = first.rlock(), second.rlock()  # type: ignore[attr-defined]
    with mine, mine:
        assert not theirs.acquire(False)
    assert theirs.acquire(False)
    with pytest.raises(RuntimeError):
        mine.release()
    theirs.release()
    pool, other_pool = first.pool(), second.pool()  # type: ignore[attr-defined]
    assert pool.acquire() and other_pool.acquire() and not pool.acquire(False) and pool.get_value() == 0
    pool.release()
    with pytest.raises(ValueError):
        pool.release()
    other_pool.release()
    assert pool.get_value() == 2


def test_events_conditions_and_barriers_wake_whom_they_should(port: int) -> None:
    first, second = _Primitives((HOST, port), KEY), _Primitives((HOST, port), KEY)
    first.start()
    second.connect()
    ready, other_ready = first.ready(), second.ready()  # type: ignore[attr-defined]
    assert not ready.is_set() and not ready.wait(0.01)
    results: list[Any] = []
    waiting = threading.Thread(target=lambda: results.append(other_ready.wait(PATIENCE_S)))
    waiting.start()
    ready.set()
    waiting.join()
    assert results == [True] and other_ready.is_set()
    ready.clear()
    assert not other_ready.is_set()

    changed, other_changed = first.changed(), second.changed()  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError):
        changed.notify()
    with changed:
        assert not changed.wait(0.01)
    started = threading.Event()

    def consume() -> None:
        with other_changed:
            started.set()
            results.append(other_changed.wait(PATIENCE_S))

    consumer = threading.Thread(target=consume)
    consumer.start()
    started.wait(PATIENCE_S)
    with changed:  # The consumer has let it go, so it waits.
        changed.notify_all()
    consumer.join()
    assert results == [True, True]

    together, other_together = first.together(), second.together()  # type: ignore[attr-defined]
    for _ in range(2):
        other = threading.Thread(target=lambda: results.append(other_together.wait(PATIENCE_S)))
        other.start()
        results.append(together.wait(PATIENCE_S))
        other.join()
    assert sorted(results[2:4]) == sorted(results[4:6]) == [0, 1]
    with pytest.raises(threading.BrokenBarrierError):
        together.wait(0.01)
    assert other_together.broken
    with pytest.raises(threading.BrokenBarrierError):
        other_together.wait()
    other_together.reset()
    assert not together.broken and together.n_waiting == 0


class _RecipeManager(BaseManager):
    pass


def recipe(port: int) -> tuple[Any, Any]:
    """The function as it is found in many applications."""
    shared_dict: dict[str, Any] = {"given": 1}
    shared_lock = threading.Lock()
    manager = _RecipeManager((HOST, port), KEY)
    manager.register("get_dict", lambda: shared_dict, DictProxy)
    manager.register("get_lock", lambda: shared_lock, AcquirerProxy)
    try:
        manager.get_server()
        manager.start()
    except OSError:
        manager.connect()
    return manager.get_dict(), manager.get_lock()  # type: ignore[attr-defined]


def _use_recipe(port: int) -> None:
    shared_dict, shared_lock = recipe(port)
    for _ in range(50):
        with shared_lock:
            shared_dict["number"] = shared_dict.get("number", 0) + 1


def test_the_well_known_recipe_works_as_it_stands(port: int) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_use_recipe, args=(port,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_S)
        assert worker.exitcode == 0
    shared_dict, shared_lock = recipe(port)
    assert shared_dict == {"given": 1, "number": 200} and not shared_lock.locked()


def test_managers_start_connect_and_shut_down(port: int) -> None:
    class Manager(BaseManager):
        pass

    Manager.register("numbers", lambda start=0: {"start": start})
    Manager.register("guard", threading.Lock)
    Manager.register("other", lambda: [1])
    assert "numbers" not in BaseManager._registry
    begun = []
    with pytest.raises(ConnectionRefusedError):
        Manager((HOST, port), KEY).connect()
    with pytest.raises(AssertionError):
        Manager((HOST, port), KEY).numbers()  # type: ignore[attr-defined]
    with Manager((HOST, port), KEY) as manager:
        assert manager.address == (HOST, port)
        assert manager.numbers(5) == {"start": 5} and manager.numbers(7) == {"start": 5}  # type: ignore[attr-defined]
        with manager.guard():  # type: ignore[attr-defined]
            with pytest.raises(OSError):
                Manager((HOST, port), KEY).get_server()
        with pytest.raises(TypeError, match="cannot be shared"):
            manager.other()  # type: ignore[attr-defined]
        second = Manager((HOST, port), KEY)
        second.connect()
        assert second.numbers() == {"start": 5}  # type: ignore[attr-defined]
        second.shutdown()  # It did not start the service.
        assert manager.numbers()["start"] == 5  # type: ignore[attr-defined]
        manager.join()
    with pytest.raises(ConnectionRefusedError):
        Manager((HOST, port), KEY).connect()
    third = Manager((HOST, port), KEY)
    server = third.get_server()
    assert server.address == (HOST, port)
    server.serve_forever()
    third.start(begun.append, (1,))
    assert begun == [1] and third.numbers() == {"start": 0}  # type: ignore[attr-defined]
    third.shutdown()
    with pytest.raises(ValueError):
        Manager()
    with pytest.raises(ValueError):
        Manager.register("no name")
    with pytest.raises(TypeError):
        Manager.register("queue", None, threading.Thread)
