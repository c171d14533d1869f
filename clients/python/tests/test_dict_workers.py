"""One dict, many workers: threads, forked children and processes count exactly and lose nothing."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import statehouse

from conftest import PATIENCE_S, Service, wait_until
from test_fork import in_child

WORKERS = 8


def run_threads(*functions: Callable[[], object]) -> None:
    """Runs them at once; a failure of one is a failure of the test."""
    failures: list[BaseException] = []

    def guarded(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_threads_count_exactly(shared: statehouse.SharedDict) -> None:
    shared.update(deep={"n": 0, "l": []}, s=set())
    rounds = 50

    def work(number: int) -> Callable[[], None]:
        def run() -> None:
            for i in range(rounds):
                shared.incr("n")
                shared.incr("deep", path=("n",))
                shared["deep"]["l"].append(number)
                if i % 10 == 0:
                    shared["s"].add((number, i))

        return run

    run_threads(*(work(number) for number in range(WORKERS)))
    assert shared["n"] == shared["deep"]["n"] == len(shared["deep"]["l"]) == WORKERS * rounds
    assert len(shared["s"]) == WORKERS * rounds // 10


def test_threads_follow_a_dict_that_moves(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    def fill(number: int) -> Callable[[], None]:
        def run() -> None:
            for i in range(0, 10_000, 100):
                shared.update({f"{number}/{at}": "x" * 500 for at in range(i, i + 100)})
                shared.incr("n")

        return run

    def ask() -> None:  # Calls that are carried out without the GIL, while others keep it.
        for _ in range(200):
            assert client.dicts.describe(shared.name).entries >= 0

    run_threads(fill(0), fill(1), fill(2), ask)
    assert shared["n"] == 300 and len(shared) == 30_001 and client.dicts.describe(shared.name).moves > 0


def test_transactions_of_threads_keep_the_sum(shared: statehouse.SharedDict) -> None:
    accounts = [f"account {i}" for i in range(5)]
    shared.update(dict.fromkeys(accounts, 1000))

    @shared.transactional(retries=1000)
    def move(t: statehouse.Transaction, a: str, b: str, amount: int) -> None:
        t[a] -= amount
        t[b] += amount

    def work(seed: int) -> Callable[[], None]:
        def run() -> None:
            chance = random.Random(seed)
            for _ in range(40):
                a, b = chance.sample(accounts, 2)
                move(a, b, chance.randint(1, 10))

        return run

    run_threads(*(work(seed) for seed in range(4)))
    assert sum(shared.get_many(accounts).values()) == 5000


def test_a_child_uses_the_dict_of_its_parent(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    assert shared.incr("n") == 1
    shared["l"] = [1]
    stored = shared["l"]

    def check() -> None:
        assert shared["n"] == 1 and shared.incr("n", 10) == 11
        stored.append(2)
        shared["child"] = {"pid": os.getpid()}
        shared["child"]["more"] = [1]
        assert len(shared) == 3 and shared.popitem()[0] == "child"
        with shared.transaction() as t:
            t["t"] = t["n"] + 1
        assert client.dict(shared.name).copy() == shared.copy()

    in_child(check)
    assert shared.copy() == {"n": 11, "l": [1, 2], "t": 12}
    assert shared.incr("n") == 12


def _count(shared: statehouse.SharedDict, rounds: int) -> None:
    for i in range(rounds):
        shared.incr("n")
        shared["l"].append(i)


def test_forked_workers_share_an_inherited_dict(shared: statehouse.SharedDict) -> None:
    shared["l"] = []
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_count, args=(shared, 50)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_S)
        assert worker.exitcode == 0
    assert shared["n"] == len(shared["l"]) == 50 * WORKERS


PROGRAM = """
import sys, statehouse
url, door, name, number, rounds = sys.argv[1:]
with statehouse.connect(url, transport=door, timeout=30) as c:
    d = c.dict(name)
    d[f"worker {number}"] = {"seen": []}
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(int(rounds)):
        d.incr("n")
        d["all"].append(int(number))
        d[f"worker {number}"]["seen"].append(i)
        with d.transaction() as t:
            t[f"twin {number} a"] = i
            t[f"twin {number} b"] = i
    print("done", flush=True)
"""


def start_workers(service: Service, doors: list[str], name: str, rounds: int) -> list[subprocess.Popen[str]]:
    workers = [
        subprocess.Popen(
            [sys.executable, "-B", "-c", PROGRAM, service.url, door, name, str(number), str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "STATEHOUSE_TOKEN": service.token},
        )
        for number, door in enumerate(doors)
    ]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    return workers


def begin(worker: subprocess.Popen[str]) -> None:
    assert worker.stdin is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()


def test_eight_processes_through_both_doors_count_exactly(service: Service, shared: statehouse.SharedDict) -> None:
    shared["all"] = []
    rounds = 50
    workers = start_workers(service, ["local", "network"] * (WORKERS // 2), shared.name, rounds)
    for worker in workers:
        begin(worker)
    for worker in workers:
        assert worker.communicate(timeout=PATIENCE_S)[0] == "done\n" and worker.returncode == 0
    assert shared["n"] == rounds * WORKERS
    assert sorted(shared["all"]) == sorted(list(range(WORKERS)) * rounds)
    for number in range(WORKERS):
        assert shared[f"worker {number}"] == {"seen": list(range(rounds))}
        assert shared[f"twin {number} a"] == shared[f"twin {number} b"] == rounds - 1


def test_killed_workers_leave_whole_values(service: Service, shared: statehouse.SharedDict) -> None:
    shared["all"] = []
    workers = start_workers(service, ["local"] * 4, shared.name, 1_000_000)
    for worker in workers:
        begin(worker)
    for number, worker in enumerate(workers):
        wait_until(lambda: len(shared.fetch(f"worker {number}", "seen")) > 20 * (number + 1), "some work")
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        for stream in (worker.stdin, worker.stdout):
            assert stream is not None
            stream.close()
    for number in range(4):
        seen = shared[f"worker {number}"]["seen"]
        assert seen == list(range(len(seen)))
        assert len(seen) - shared[f"twin {number} a"] in (1, 2)  # Killed behind its transaction, or before.
        assert shared[f"twin {number} a"] == shared[f"twin {number} b"]
    assert shared["n"] - len(shared["all"]) in range(5)
    shared["all"].append("usable")
    assert shared.incr("n") > 0


@pytest.mark.parametrize("kills", [3])
def test_daemon_kills_under_threads_count_each_addition_once(
    service: Service, client: statehouse.Client, shared: statehouse.SharedDict, kills: int
) -> None:
    rounds = 150
    done = threading.Event()

    def count() -> None:
        for i in range(rounds):
            shared.incr("n")
            shared.append("l", i)

    def kill() -> None:
        for _ in range(kills):
            pid = client.status().daemon_pid
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: _daemon_pid(client) not in (0, pid), "a new daemon")
            if done.is_set():
                return

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        run_threads(*[count] * 4)
    finally:
        done.set()
        killer.join()
    assert shared["n"] == len(shared["l"]) == 4 * rounds


def _daemon_pid(client: Any) -> int:
    try:
        return int(client.status().daemon_pid)
    except (statehouse.Unavailable, statehouse.Timeout):
        return 0
