#!/usr/bin/env python3
"""Batches in Python, through both doors and with asyncio over the network, against pipelines of python-redis, in turns.

    build/venv/bin/python tests/bench/python_batch_bench.py --build build [--rounds 7]

A batch is 64 operations on 64 keys; values are texts of 64 bytes. Both servers run at the same time, and the same loops run on each in
one client process. Redis and the network door are reached through unix sockets. Pipelines are without MULTI and EXEC, which is faster.
A bar is the ratio of medians, taken in the same run. asyncio's batches are held against the blocking pipelines; those of redis.asyncio,
which are slower, stand beside them.
"""
import argparse
import asyncio
import contextlib
import inspect
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
WARMING_BATCHES = 20


def bound(setup, statement, run, **names):
    """Batches as a user writes them, without the cost of a wrapper: a function of how many that gives nanoseconds an operation. It is
    asynchronous where the batches are awaited."""
    scope = {"keys": KEYS, "text": TEXT, **names}
    exec(f"""
{"async def" if run.startswith("await") else "def"} timed(n):
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


def our_loops(client, run="batch.run()"):
    setup = "batch = client.batch(); d = batch.dict(name)"
    return {op: bound(setup, call.format("d"), run, client=client, name=f"bench/{op}") for op, call in LOOPS.items()}


def redis_loops(client, run="p.execute()"):
    loops = {}
    for op, call in LOOPS.items():
        # Keys as long as ours, so that those of one loop are not those of another.
        keys = [key.replace("key", op) for key in KEYS]
        loops[op] = bound("p = client.pipeline(transaction=False)", call.format("p"), run, client=client, keys=keys)
    return loops


async def measure(options, doors, far, redis_socket):
    for op in LOOPS:
        doors["network"].dict(f"bench/{op}").update(dict.fromkeys(KEYS, 0 if op == "incr" else TEXT))
    groups = [(door, our_loops(client)) for door, client in doors.items()]
    groups.append(("asyncio", our_loops(far, "await batch.run()")))
    async with contextlib.AsyncExitStack() as stack:
        if redis_socket is not None:
            import redis.asyncio

            client = stack.enter_context(redis.Redis(unix_socket_path=redis_socket))
            for op in LOOPS:
                client.mset({key.replace("key", op): 0 if op == "incr" else TEXT for key in KEYS})
            groups.append(("redis", redis_loops(client)))
            awaited = await stack.enter_async_context(redis.asyncio.Redis(unix_socket_path=redis_socket))
            groups.append(("redis.asyncio", redis_loops(awaited, "await p.execute()")))
        for _, loops in groups:  # Connections, and our streams of batches.
            for loop in loops.values():
                await timed(loop, WARMING_BATCHES)
        samples = {}
        for _ in range(options.rounds):
            for op in LOOPS:
                for name, loops in groups:
                    samples.setdefault((name, op), []).append(await timed(loops[op], options.batches))
    return samples


async def measured(options, doors, connecting, redis_socket):
    async with connecting as far:
        return await measure(options, doors, far, redis_socket)


async def timed(loop, batches):
    taken = loop(batches)
    return await taken if inspect.isawaitable(taken) else taken


def report(samples):
    missed = 0
    print(f"nanoseconds an operation in batches of {OPERATIONS}, median of the rounds")
    for (name, op), values in samples.items():
        if name == "redis":
            continue
        ours = statistics.median(values)
        line = f"  {name:<13} {op:<5} {ours:8.0f}"
        if ("redis", op) in samples and name != "redis.asyncio":
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
    import statehouse.aio

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
                far = statehouse.aio.connect(dev["url"], token=dev["token"], transport="network")
                samples = asyncio.run(measured(options, {"local": local, "network": network}, far, redis_socket))
        finally:
            daemon.terminate()
            daemon.wait()
    missed = report(samples)
    if options.json is not None:
        options.json.write_text(json.dumps({" ".join(key): values for key, values in samples.items()}, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
