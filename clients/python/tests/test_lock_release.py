"""What a lock's release says: the service's word where it was sent once, and this process's clock only where the first answer was lost."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

import statehouse
from statehouse import _lock_calls, errors
from statehouse._network_session import NetworkSession
from statehouse.compat._events import Condition
from statehouse.compat._lock import BoundedSemaphore
from statehouse.v1 import lock_pb2, session_pb2

from conftest import Service
from test_socket_peer import Asked, FakeDaemon, lose

ROUNDS = 20  # A client may hear of the loss before it gives the lock back.


def release_all_taken_away(holder: statehouse.Client, operator: statehouse.Client, name: str) -> None:
    lock = holder.lock(name, ttl=600)
    for _ in range(ROUNDS):
        lock.acquire()
        assert operator.locks.force_release(name) == 1
        with pytest.raises(statehouse.LockLost, match="before it was released"):
            lock.release()
        assert lock.lost
    with lock:
        pass
    assert not lock.lost


def test_a_lock_that_an_operator_took_away_was_not_held(client: statehouse.Client, service: Service, door: str, area_name: str) -> None:
    with service.connect(door) as operator:
        release_all_taken_away(client, operator, area_name)


def test_the_same_where_a_session_has_the_lock(client: statehouse.Client, service: Service, door: str, area_name: str) -> None:
    """Through each door: the token may not lock every name."""
    token = service.add_token(f"relea{door[:3]}", {("lock", f"{area_name}*"): ("lock",)})
    with service.connect(door, token=token) as holder:
        release_all_taken_away(holder, client, area_name)


def test_a_semaphore_gives_all_back_where_one_lease_was_lost(
    client: statehouse.Client, area_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = BoundedSemaphore(client, area_name, 3)
    assert all(pool.acquire() for _ in range(3))
    lost = pool._taken[0]
    original = statehouse.Lock.release

    def release(lock: statehouse.Lock) -> None:
        original(lock)
        if lock is lost:
            raise errors.by_name("LOCK_LOST", "an operator took it away", area_name)

    monkeypatch.setattr(statehouse.Lock, "release", release)
    with pytest.raises(statehouse.LockLost, match="took it away"):
        pool.release(3)
    assert pool.get_value() == 3


@pytest.mark.parametrize("kind", [BoundedSemaphore, Condition])
def test_a_lease_that_was_lost_does_not_hide_what_the_block_raised(
    client: statehouse.Client, area_name: str, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    lose_all_at_release(monkeypatch)
    with pytest.raises(statehouse.LockLost), kind(client, area_name):
        pass
    with pytest.raises(KeyError), kind(client, area_name):
        raise KeyError


def test_a_wait_that_finds_its_lock_lost_leaves_no_waiter(
    client: statehouse.Client, area_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    condition = Condition(client, area_name)
    condition.acquire()
    lose_all_at_release(monkeypatch)
    with pytest.raises(statehouse.LockLost):
        condition.wait(timeout=60)
    assert len(client.dict(f"managers/condition/{area_name}")) == 0


def lose_all_at_release(monkeypatch: pytest.MonkeyPatch) -> None:
    original = statehouse.Lock.release

    def release(lock: statehouse.Lock) -> None:
        original(lock)
        raise errors.by_name("LOCK_LOST", "an operator took it away", "")

    monkeypatch.setattr(statehouse.Lock, "release", release)


def test_a_release_over_grpc_whose_first_answer_was_lost_was_held(
    service: Service, area_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = NetworkSession._call_once
    answers: list[bool] = []

    def call_once(session: NetworkSession, call: Any, deadline: float) -> Any:
        response, error = original(session, call, deadline)
        if error is None and call.method.endswith("/ReleaseLock"):
            answers.append(response.held)
            if len(answers) == 1:
                return None, errors.by_name("UNAVAILABLE", "the answer was lost", call.name)
        return response, error

    monkeypatch.setattr(NetworkSession, "_call_once", call_once)
    with service.connect("network") as client:
        with client.lock(area_name) as lock:
            pass
    assert answers == [True, False] and not lock.lost


class LockDaemon:
    """Answers for one lock, whose session hears of nothing."""

    def __init__(self, fake: FakeDaemon) -> None:
        self.connect = fake.connect
        self.held = False
        self.lost_releases = 0  # Answers to lose.
        self.released: list[bool] = []
        fake.answer = self.answer

    def answer(self, asked: Asked) -> None:
        if asked.method == "OpenSession":
            asked.answer(session_pb2.OpenSessionResponse(session_id=1))
        elif asked.method == "RenewSession":
            asked.answer(session_pb2.RenewSessionResponse(held=True))
        elif asked.method == "AcquireLock":
            self.held = True
            response = lock_pb2.AcquireLockResponse(acquired=True, token=1)
            response.expires_in.FromSeconds(600)
            asked.answer(response)
        elif asked.method == "ReleaseLock":
            self.released.append(self.held)
            self.held = False
            if self.lost_releases > 0:
                self.lost_releases -= 1
                lose(asked)
            else:
                asked.answer(lock_pb2.ReleaseLockResponse(held=self.released[-1]))
        else:
            asked.refuse("SESSION_NOT_FOUND", "there is none")


@pytest.fixture
def locks() -> Iterator[LockDaemon]:
    with tempfile.TemporaryDirectory(prefix="sh-") as folder:  # A path that a socket's address has room for.
        fake = FakeDaemon(pathlib.Path(folder))
        yield LockDaemon(fake)
        fake.close()


def test_a_release_over_the_socket_is_believed_unless_its_first_answer_was_lost(locks: LockDaemon) -> None:
    with locks.connect() as client:
        lock = client.lock("a", ttl=600)
        assert lock.acquire(False)  # What may wait goes by gRPC.
        locks.held = False  # Taken away.
        assert lock.held
        with pytest.raises(statehouse.LockLost):
            lock.release()
        assert lock.acquire(False)
        locks.lost_releases = 1
        lock.release()
        assert locks.released == [False, True, False] and not lock.lost


def test_a_session_of_the_extension_tells_what_was_sent_again(locks: LockDaemon) -> None:
    with locks.connect() as client:
        session: Any = client._session._local
        call = _lock_calls.release("a", 1, 1)
        arguments = (call.method, call.request.SerializeToString(), 60.0, True, "a")
        for lost in (0, 1):
            for method in (
                lambda again: session.call(*arguments, again=again),
                lambda again: session.call_if_free(*arguments, again),
            ):
                locks.lost_releases = lost
                again = bytearray(1)
                assert method(again) is not None
                assert again[0] == lost
