"""Locks: the same through both doors, among threads, processes and clients."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import statehouse

from conftest import PATIENCE_S, Service, wait_until

LONG_S = 60.0


@pytest.fixture
def other(service: Service, door: str) -> Iterator[statehouse.Client]:
    with service.connect(door) as c:
        yield c


def in_thread(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def hold_in_process(service: Service, door: str, name: str, then: str = "sys.stdin.readline()") -> subprocess.Popen[str]:
    program = f"""
import sys, time
import statehouse
c = statehouse.connect({service.url!r}, token={service.token!r}, transport={door!r})
lock = c.lock({name!r}, ttl=60)
lock.acquire()
print(lock.token, flush=True)
{then}
"""
    return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_one_holds_it_at_a_time(client: statehouse.Client, other: statehouse.Client, area_name: str) -> None:
    mine, theirs = client.lock(area_name), other.lock(area_name)
    with mine as lock:
        assert lock is mine and mine.held and mine.locked() and theirs.locked() and not theirs.held
        assert 0 < mine.expires_in <= 10.1 and not mine.lost
        assert not theirs.acquire(False) and not theirs.acquire(timeout=0.05)
    assert not mine.held and not mine.locked() and mine.expires_in == 0
    assert theirs.acquire(False) and theirs.token > mine.token > 0
    theirs.release()
    assert client.locks.describe(area_name).holder_count == 0


def test_it_has_the_ways_of_a_threading_lock(client: statehouse.Client, area_name: str) -> None:
    lock = client.lock(area_name)
    with pytest.raises(RuntimeError, match="does not hold"):
        lock.release()
    with pytest.raises(ValueError):
        lock.acquire(False, 1)
    with pytest.raises(ValueError):
        lock.acquire(timeout=-2)
    assert lock.acquire() and lock.acquire(blocking=False) is False and lock.acquire(timeout=0.01) is False
    lock.release()
    assert lock.acquire(True, -1)
    assert "held" in repr(lock)
    lock.release()
    with pytest.raises(RuntimeError):
        lock.renew()


def test_bad_arguments_ask_nothing(client: statehouse.Client, area_name: str) -> None:
    for ttl in (0, 0.05, 8 * 86_400):
        with pytest.raises(statehouse.InvalidArgument):
            client.lock(area_name, ttl=ttl).acquire(False)
    for options in ({"ttl": -1}, {"ttl": float("nan")}, {"hold_max": -1}, {"hold_max": 0}, {"timeout": -1}):
        with pytest.raises(statehouse.InvalidArgument):
            client.lock(area_name, **options)
    for wrong in ({"ttl": "1"}, {"ttl": True}):
        with pytest.raises(TypeError):
            client.lock(area_name, **wrong)
    with pytest.raises(TypeError):
        client.lock(5)  # type: ignore[arg-type]
    for limit in (0, (1 << 20) + 1):
        with pytest.raises(statehouse.InvalidArgument):
            client.semaphore(area_name, limit)
    for name in ("", "n" * 256):
        with pytest.raises(statehouse.InvalidArgument):
            client.lock(name).acquire(False)
    longest = client.lock("n" * 255)
    assert longest.acquire(False)
    longest.release()


def test_shared_holders_are_together(client: statehouse.Client, other: statehouse.Client, area_name: str) -> None:
    first, second, writer = client.lock(area_name, shared=True), other.lock(area_name, shared=True), other.lock(area_name)
    assert first.acquire(False) and second.acquire(False) and not writer.acquire(False)
    info = client.locks.describe(area_name)
    assert info.holder_count == 2 and all(party.shared for party in info.holders)
    first.release()
    second.release()
    assert writer.acquire(False) and not first.acquire(False)
    writer.release()


def test_a_semaphore_has_a_limit_that_all_agree_on(client: statehouse.Client, other: statehouse.Client, area_name: str) -> None:
    taken = [client.semaphore(area_name, 2), other.semaphore(area_name, 2)]
    third = client.semaphore(area_name, 2)
    assert all(lock.acquire(False) for lock in taken) and not third.acquire(False)
    with pytest.raises(statehouse.Conflict):
        other.semaphore(area_name, 3).acquire(False)
    taken[0].release()
    assert third.acquire(False)
    third.release()
    taken[1].release()


def test_waiters_come_in_their_order(client: statehouse.Client, service: Service, door: str, area_name: str) -> None:
    order: list[int] = []
    lock = client.lock(area_name)
    lock.acquire()
    threads = []
    with service.connect(door) as others:
        for number in range(3):

            def wait(number: int = number) -> None:
                with others.lock(area_name):
                    order.append(number)

            threads.append(in_thread(wait))
            wait_until(lambda n=number: client.locks.describe(area_name).waiter_count == n + 1, "a waiter's arrival")
        lock.release()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert order == [0, 1, 2]


def test_a_long_wait_keeps_its_place(client: statehouse.Client, other: statehouse.Client, area_name: str) -> None:
    lock = client.lock(area_name)
    lock.acquire()
    first, second = other.lock(area_name, owner="first"), client.lock(area_name, owner="second")
    threads = [in_thread(first.acquire)]
    wait_until(lambda: client.locks.describe(area_name).waiter_count == 1, "the first waiter")
    begin = time.monotonic()
    wait_until(lambda: time.monotonic() > begin + 0.4, "the passing of time")
    threads.append(in_thread(second.acquire))
    wait_until(lambda: client.locks.describe(area_name).waiter_count == 2, "the second waiter")

    def owners() -> list[str]:
        return [party.owner for party in client.locks.describe(area_name).waiters]

    while time.monotonic() < begin + 2.0:  # Some calls of a wait over the network.
        assert owners() == ["first", "second"]
    lock.release()
    threads[0].join(PATIENCE_S)
    assert owners() == ["second"]
    client.locks.force_release(area_name)
    threads[1].join(PATIENCE_S)


def test_a_lease_is_renewed_while_its_thread_lives(client: statehouse.Client, other: statehouse.Client, area_name: str) -> None:
    with client.lock(area_name, ttl=0.6) as lock:
        seen = time.monotonic()
        wait_until(lambda: time.monotonic() > seen + 1.5, "the passing of time")
        assert lock.held and not other.lock(area_name).acquire(False)

    def leave() -> None:
        client.lock(area_name + "/left", ttl=0.6).acquire()

    left = other.lock(area_name + "/left")
    in_thread(leave).join()
    assert left.acquire(timeout=LONG_S), "its thread ended: nobody renews it"
    left.release()


def test_who_renews_by_hand_keeps_it_so_long_as_it_does(
    client: statehouse.Client, other: statehouse.Client, area_name: str
) -> None:
    told = threading.Event()
    lock = client.lock(area_name, ttl=0.3, manual_renewal=True, on_lost=lambda _: told.set())
    assert lock.acquire(False)
    with pytest.raises(statehouse.InvalidArgument):
        lock.renew(0)
    lock.renew(LONG_S)
    assert lock.expires_in > LONG_S / 2
    lock.release()
    assert lock.acquire(False)
    wait_until(lambda: other.lock(area_name).acquire(False), "its lease is over, because nobody renewed it")
    assert told.wait(PATIENCE_S) and lock.lost
    with pytest.raises(statehouse.LockLost):
        lock.release()


def test_a_bound_on_holding_ends_a_lease_that_is_renewed(client: statehouse.Client, other: statehouse.Client, area_name: str) -> None:
    lost = threading.Event()
    lock = client.lock(area_name, ttl=0.3, hold_max=0.6, on_lost=lambda _: lost.set())
    lock.acquire()
    assert other.lock(area_name).acquire(timeout=LONG_S) and lock.lost and not lock.held
    assert lost.wait(LONG_S)
    with pytest.raises(statehouse.LockLost):
        lock.release()


def test_who_lost_it_is_told_and_refused(client: statehouse.Client, other: statehouse.Client, area_name: str) -> None:
    d = client.dict(area_name)
    with pytest.raises(statehouse.LockLost):
        with client.lock(area_name) as lock:
            d.set("state", "first", fence=lock.token)
            assert client.locks.force_release(area_name, lock.token) == 1
            with other.lock(area_name) as newer:
                assert newer.token > lock.token
                other.dict(area_name).set("state", "second", fence=newer.token)
            with pytest.raises(statehouse.Fenced):
                d.set("state", "late", fence=lock.token)
            wait_until(lambda: lock.lost, "the news of the loss")
    assert d["state"] == "second" and client.locks.force_release(area_name) == 0
    client.dicts.delete(area_name)


def test_what_the_block_raised_goes_before_the_loss(client: statehouse.Client, area_name: str) -> None:
    with pytest.raises(ZeroDivisionError):
        with client.lock(area_name):
            client.locks.force_release(area_name)
            1 / 0


def test_a_with_block_waits_for_its_timeout(client: statehouse.Client, other: statehouse.Client, area_name: str) -> None:
    with client.lock(area_name):
        with pytest.raises(statehouse.Timeout):
            with other.lock(area_name, timeout=0.05):
                pytest.fail("it is held")
    with other.lock(area_name, timeout=LONG_S):
        pass


def test_describe_and_list_tell_who(client: statehouse.Client, other: statehouse.Client, area_name: str) -> None:
    name = area_name + "/described"
    with client.lock(name, owner="the first"):
        waiting = in_thread(lambda: other.lock(name, owner="the second").acquire())
        wait_until(lambda: client.locks.describe(name).waiter_count == 1, "a waiter")
        info = client.locks.describe(name)
        assert (info.name, info.limit, info.holder_count) == (name, 1, 1)
        assert info.holders[0].owner == "the first" and info.holders[0].token > 0 and (info.holders[0].expires_in or 0) > 0
        assert info.waiters[0].owner == "the second" and info.waiters[0].token == 0 and info.waiters[0].expires_in is None
        assert (info.holders[0].session_id == 0) == (client.transport == "local")
        assert [lock.name for lock in client.locks.list(area_name)] == [name]
    waiting.join(PATIENCE_S)
    assert not list(client.locks.list(area_name + "/none"))


def test_a_killed_holder_passes_it_on(client: statehouse.Client, service: Service, door: str, area_name: str) -> None:
    holder = hold_in_process(service, door, area_name)
    assert holder.stdout is not None
    token = int(holder.stdout.readline())
    lock = client.lock(area_name)
    assert not lock.acquire(False)
    os.kill(holder.pid, signal.SIGKILL)
    assert lock.acquire(timeout=LONG_S) and lock.token > token
    lock.release()
    holder.communicate()


def test_a_process_that_ends_without_releasing_passes_it_on(client: statehouse.Client, service: Service, door: str, area_name: str) -> None:
    holder = hold_in_process(service, door, area_name, "")
    holder.communicate(timeout=PATIENCE_S)
    assert client.lock(area_name).acquire(timeout=LONG_S)


def test_a_stopped_holder_loses_it_at_its_ttl(client: statehouse.Client, service: Service, door: str, area_name: str) -> None:
    program = hold_in_process(service, door, area_name + "/unused")
    assert program.stdout is not None and program.stdin is not None
    program.stdout.readline()
    program.communicate("\n", timeout=PATIENCE_S)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"""
import sys
import statehouse
c = statehouse.connect({service.url!r}, token={service.token!r}, transport={door!r})
lock = c.lock({area_name!r}, ttl=0.5)
lock.acquire()
print("held", flush=True)
sys.stdin.readline()
try:
    lock.release()
except statehouse.LockLost:
    print("lost", flush=True)
""",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    os.kill(holder.pid, signal.SIGSTOP)
    lock = client.lock(area_name)
    assert lock.acquire(timeout=LONG_S)
    os.kill(holder.pid, signal.SIGCONT)
    output, _ = holder.communicate("\n", timeout=PATIENCE_S)
    assert output == "lost\n"
    lock.release()


def test_a_forked_child_does_not_hold_it(service: Service, area_name: str) -> None:
    with service.connect("local") as c:
        lock = c.lock(area_name)
        lock.acquire()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                again = c.lock(area_name)
                if not lock.held and not lock.acquire(False) and not again.acquire(False) and lock.locked():
                    code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert lock.held
        lock.release()


def test_closing_the_client_gives_everything_back(client: statehouse.Client, service: Service, door: str, area_name: str) -> None:
    closing = service.connect(door)
    held = closing.lock(area_name)
    held.acquire()
    closing.close()
    assert client.lock(area_name).acquire(timeout=LONG_S)
    with pytest.raises(statehouse.ClientClosed):
        closing.lock(area_name).acquire(False)


def test_a_lease_outlives_the_daemon(service: Service, door: str, area_name: str) -> None:
    with service.connect(door, timeout=30.0) as c:
        lock = c.lock(area_name, ttl=20)
        lock.acquire()
        service.kill_daemon()
        with service.connect("network", timeout=30.0) as looking:
            assert looking.locks.describe(area_name).holders[0].token == lock.token
        assert lock.held
        lock.renew()
        lock.release()
        with service.connect(door, timeout=30.0) as after:
            assert after.lock(area_name).acquire(timeout=LONG_S)


def test_threads_of_many_clients_count_exactly(service: Service, door: str, area_name: str) -> None:
    rounds = 50 if door == "local" else 15
    with service.connect(door) as c:
        d = c.dict(area_name)
        d["n"] = 0

        def work() -> None:
            with service.connect(door) as mine:
                own = mine.dict(area_name)
                lock = mine.lock(area_name)
                for _ in range(rounds):
                    with lock:
                        own["n"] = own["n"] + 1

        threads = [in_thread(work) for _ in range(4)]
        for thread in threads:
            thread.join(PATIENCE_S)
        assert d["n"] == 4 * rounds
        c.dicts.delete(area_name)
