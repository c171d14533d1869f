#!/usr/bin/env python3
"""Four Python processes that take one lock again and again: ours, through the local door, against BaseManager's, in turns.

    build/venv/bin/python tests/bench/python_lock_bench.py --build build [--rounds 5]

Each process holds the lock for as long as it takes to add to a counter that the lock alone protects; nothing may be lost. Ours is the
drop-in of statehouse.compat.managers, BaseManager's a threading.Lock of the server's process, reached through a unix socket. What counts
is how often the lock changes hands in a second, by all processes together; told as well is how long a process waited for it.
"""
import argparse
import json
import multiprocessing
import pathlib
import statistics
import struct
import subprocess
import sys
import tempfile
import time

from python_peers import PeerManager

BAR = 5
PROCESSES = 4
OUR_CALLS = 10_000
PEER_CALLS = 1_000
COUNTER = struct.Struct("q")


def connect(kind, where):
    """The lock, and what has to live as long as it."""
    if kind == "manager":
        manager = PeerManager(where["socket"], b"key")
        manager.connect()
        return manager.get_lock(), manager
    import statehouse
    from statehouse.compat.managers import AcquirerProxy

    client = statehouse.connect(where["url"], token=where["token"], transport="local")
    return AcquirerProxy(client, "contended"), client


def work(kind, where, calls, page, gate, results):
    lock, owner = connect(kind, where)
    waits = []
    gate.wait()
    begin = time.monotonic()
    for _ in range(calls):
        asked = time.perf_counter()
        lock.acquire()
        waits.append(time.perf_counter() - asked)
        COUNTER.pack_into(page, 0, COUNTER.unpack_from(page)[0] + 1)
        lock.release()
    results.put((begin, time.monotonic(), waits))
    del owner


def contend(kind, where, calls):
    """Grants a second, and every wait in seconds."""
    processes = multiprocessing.get_context("spawn")
    page = processes.RawArray("B", COUNTER.size)
    gate, results = processes.Barrier(PROCESSES), processes.Queue()
    workers = [processes.Process(target=work, args=(kind, where, calls, page, gate, results)) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    parts = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    counted = COUNTER.unpack_from(page)[0]
    if counted != PROCESSES * calls:
        sys.exit(f"python_lock_bench: {kind}: counted {counted} of {PROCESSES * calls}: two were inside at once")
    seconds = max(end for _, end, _ in parts) - min(begin for begin, _, _ in parts)
    return PROCESSES * calls / seconds, sorted(wait for _, _, waits in parts for wait in waits)


def report(samples):
    print(f"{PROCESSES} processes on one lock, median of the rounds")
    for kind, rounds in samples.items():
        at = {part: statistics.median(waits[int(part * (len(waits) - 1))] * 1e6 for _, waits in rounds) for part in (0.5, 0.99)}
        rates = [rate for rate, _ in rounds]
        print(f"  {kind:<12} {statistics.median(rates):9.0f} grants/s ({min(rates):.0f} to {max(rates):.0f})"
              f"   waited {at[0.5]:8.1f} us p50, {at[0.99]:8.1f} us p99")
    ratio = statistics.median(ours / peer for (ours, _), (peer, _) in zip(samples["statehouse"], samples["manager"]))
    print(f"  {'met   ' if ratio >= BAR else 'MISSED'} {ratio:.1f} x BaseManager's, bar {BAR} x")
    return ratio < BAR


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path, help="write the samples here")
    options = parser.parse_args()
    samples = {}
    with tempfile.TemporaryDirectory(prefix="sh-bench-") as name:
        top = pathlib.Path(name)
        manager = PeerManager(str(top / "manager.sock"), b"key")
        manager.start()
        daemon = subprocess.Popen([options.build / "bin/statehoused", "--dev", "--runtime-dir", top / "run", "--log-level", "error"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not (top / "run/dev.json").exists():
                if daemon.poll() is not None:
                    sys.exit("python_lock_bench: statehoused did not start")
                time.sleep(0.01)
            where = {**json.loads((top / "run/dev.json").read_text()), "socket": str(top / "manager.sock")}
            for _ in range(options.rounds):
                for kind, calls in (("statehouse", OUR_CALLS), ("manager", PEER_CALLS)):
                    samples.setdefault(kind, []).append(contend(kind, where, calls))
        finally:
            daemon.terminate()
            daemon.wait()
            manager.shutdown()
    missed = report(samples)
    if options.json is not None:
        options.json.write_text(json.dumps({kind: [rate for rate, _ in rounds] for kind, rounds in samples.items()}, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
