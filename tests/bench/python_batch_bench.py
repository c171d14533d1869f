#!/usr/bin/env python3
"""Batches in Python, through both doors, against pipelines of python-redis, in turns.

    build/venv/bin/python tests/bench/python_batch_bench.py --build build [--rounds 7]

A batch is 64 operations on 64 keys; values are texts of 64 bytes. Both servers run at the same time, and the same loops run on each in
one client process. Redis and the network door are reached through unix sockets. Pipelines are without MULTI and EXEC, which is faster.
A bar is the ratio of medians, taken in the same run.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from python_peers import TEXT, redis_server

BAR = 3
OPERATIONS = 64
KEYS = [f"key/{number}" for number in range(OPERATIONS)]
LOOPS = {"incr": "{0}.incr(key)", "set": "{0}.set(key, text)", "get": "{0}.get(key)"}
BATCHES = 200


def bound(setup, statement, run, **names):
    """Batches as a user writes them, without the cost of a wrapper: a function of how many that gives nanoseconds an operation."""
    scope = {"keys": KEYS, "text": TEXT, **names}
    exec(f"""
def timed(n):
    import time
    begin = time.perf_counter_ns()
    for _ in range(n):
        {setup}
        for key in keys:
            {statement}
        {run}
    return (time.perf_counter_ns() - begin) / n / len(keys)
""", scope)
    return scope["timed"]


def our_loops(client):
    setup = "batch = client.batch(); d = batch.dict(name)"
    loops = {}
    for op, call in LOOPS.items():
        loops[op] = bound(setup, call.format("d"), "batch.run()", client=client, name=f"bench/{op}")
        client.dict(f"bench/{op}").update(dict.fromkeys(KEYS, 0 if op == "incr" else TEXT))
    return loops


def redis_loops(client):
    loops = {}
    for op, call in LOOPS.items():
        # Keys as long as ours, so that those of one loop are not those of another.
        keys = [key.replace("key", op) for key in KEYS]
        loops[op] = bound("p = client.pipeline(transaction=False)", call.format("p"), "p.execute()", client=client, keys=keys)
        client.mset(dict.fromkeys(keys, 0 if op == "incr" else TEXT))
    return loops


def measure(options, doors, redis_socket):
    groups = [(door, our_loops(client)) for door, client in doors.items()]
    if redis_socket is not None:
        import redis

        groups.append(("redis", redis_loops(redis.Redis(unix_socket_path=redis_socket))))
    samples = {}
    for _ in range(options.rounds):
        for op in LOOPS:
            for name, loops in groups:
                samples.setdefault((name, op), []).append(loops[op](options.batches))
    return samples


def report(samples):
    missed = 0
    print(f"nanoseconds an operation in batches of {OPERATIONS}, median of the rounds")
    for (name, op), values in samples.items():
        if name == "redis":
            continue
        ours = statistics.median(values)
        line = f"  {name:<8} {op:<5} {ours:8.0f}"
        if ("redis", op) in samples:
            peer = statistics.median(samples["redis", op])
            ratio = peer / ours
            missed += ratio < BAR
            line += f"   python-redis {peer:8.0f}   {ratio:5.1f} x, bar {BAR} x: {'met' if ratio >= BAR else 'MISSED'}"
        print(line)
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=BATCHES, help="in a round")
    parser.add_argument("--json", type=pathlib.Path, help="write the samples here")
    options = parser.parse_args()
    import statehouse

    with tempfile.TemporaryDirectory(prefix="sh-bench-") as name:
        top = pathlib.Path(name)
        daemon = subprocess.Popen([options.build / "bin/statehoused", "--dev", "--runtime-dir", top / "run", "--log-level", "error"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not (top / "run/dev.json").exists():
                if daemon.poll() is not None:
                    sys.exit("python_batch_bench: statehoused did not start")
                time.sleep(0.01)
            dev = json.loads((top / "run/dev.json").read_text())
            with (statehouse.connect(dev["url"], token=dev["token"], transport="local") as local,
                  statehouse.connect(dev["url"], token=dev["token"], transport="network") as network,
                  redis_server(top) as redis_socket):
                samples = measure(options, {"local": local, "network": network}, redis_socket)
        finally:
            daemon.terminate()
            daemon.wait()
    missed = report(samples)
    if options.json is not None:
        options.json.write_text(json.dumps({" ".join(key): values for key, values in samples.items()}, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
