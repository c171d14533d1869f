#!/usr/bin/env python3
"""The Flask counter of the quickstart under gunicorn with four workers, against the same on BaseManager and on Redis, in turns.

    build/venv/bin/python tests/bench/flask_bench.py --build build [--rounds 5]

Requests over 8 kept connections, by the quickstart's load generator. Every answer must be another number, without a gap; else the
benchmark fails. BaseManager and Redis are reached through unix sockets, their faster transport. All applications run at the same time
and the ones that are not measured are idle. A bar is the ratio of the requests per second, round by round, then its median.
"""
import argparse
import contextlib
import json
import os
import pathlib
import statistics
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1] / "deploy/quickstart"))

import main_job  # noqa: E402
from load import Load  # noqa: E402
from python_peers import PeerManager, redis_server  # noqa: E402

BAR = 1.5
REQUESTS = 2_000
WARM_UP_REQUESTS = 400
CONNECTIONS = 8
LOCKED = "statehouse, under its lock"
INCR = "statehouse, incr"
MANAGER = "BaseManager, under its lock"


class Contender:
    """One application and one path. `first`: the number that the next request must answer; None where nothing is counted."""

    def __init__(self, name, port, path, first=1):
        self.name = name
        self.port = port
        self.path = path
        self.first = first
        self.rates = []

    def run(self, requests):
        begin = time.monotonic()
        load = Load(self.port, [self.path] * requests, CONNECTIONS).start().join()
        took = time.monotonic() - begin
        if load.failed or load.retried:
            raise main_job.Failure(f"{self.name}: {load.retried} requests failed: {load.failed[:3]}")
        if self.first is not None:
            numbers = sorted(map(int, load.answers))
            if numbers != list(range(self.first, self.first + requests)):
                raise main_job.Failure(f"{self.name}: {requests} counts are {len(set(numbers))} numbers from {numbers[0]} to "
                                       f"{numbers[-1]}, not from {self.first}")
            self.first += requests
        return requests / took


def start_peer(job, peer, socket):
    os.environ.update(PEER=peer, PEER_SOCKET=socket)
    _, port = job.start(peer, lambda fd: [
        "-m", "gunicorn", "-w", "4", "--threads", "4", "--bind", f"fd://{fd}", "--chdir", str(HERE), "flask_peers:app"])
    return port


def start_all(job, manager_socket, redis_socket):
    ours = job.start_gunicorn()
    contenders = [
        Contender(LOCKED, ours, "/"),
        Contender(INCR, ours, "/incr"),
        Contender(MANAGER, start_peer(job, "manager", manager_socket), "/"),
        Contender("no state: a constant", start_peer(job, "plain", ""), "/", first=None),
    ]
    if redis_socket is not None:
        redis = start_peer(job, "redis", redis_socket)
        contenders += [Contender("Redis, under its lock", redis, "/"), Contender("Redis, INCR", redis, "/incr")]
    return {contender.name: contender for contender in contenders}


def measure(contenders, rounds):
    for contender in contenders.values():
        contender.run(WARM_UP_REQUESTS)
    for _ in range(rounds):
        for contender in contenders.values():
            contender.rates.append(contender.run(REQUESTS))


def report(contenders):
    print("requests per second, median of the rounds; every count is exact")
    for name, contender in contenders.items():
        print(f"  {name:<30} {statistics.median(contender.rates):7.0f}   ({min(contender.rates):.0f} to {max(contender.rates):.0f})")
    missed = 0
    for name in (LOCKED, INCR):
        ratio = statistics.median(a / b for a, b in zip(contenders[name].rates, contenders[MANAGER].rates))
        met = ratio >= BAR
        missed += not met
        print(f"  {'met   ' if met else 'MISSED'} {name}: {ratio:.2f} x BaseManager, bar {BAR} x")
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path, help="write the samples here")
    options = parser.parse_args()
    job = main_job.Job(options.build.resolve())
    try:
        with contextlib.ExitStack() as stack:
            manager = PeerManager(str(job.folder / "manager.sock"), b"key")
            manager.start()
            stack.callback(manager.shutdown)
            redis_socket = stack.enter_context(redis_server(job.folder))
            stack.callback(job.stop)
            contenders = start_all(job, str(job.folder / "manager.sock"), redis_socket)
            measure(contenders, options.rounds)
    except main_job.Failure as failure:
        sys.exit(f"flask_bench: {failure}")
    missed = report(contenders)
    if options.json is not None:
        options.json.write_text(json.dumps({name: contender.rates for name, contender in contenders.items()}, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
