#!/usr/bin/env python3
"""A shared dict in Python, through the local door, against BaseManager's dict and lock and python-redis, in turns.

    build/venv/bin/python tests/bench/python_dict_bench.py --build build [--rounds 5]

All servers run at the same time, and the same loops run on each in one client process. BaseManager and Redis are reached through unix
sockets, their faster transport. Values are texts of 64 bytes. A bar is the ratio of medians, taken in the same run. Also measured,
without a bar: nested edits, tracked values, and the same operations by calls: transport="socket" and, over the service's unix socket,
transport="network". The lock is the drop-in for BaseManager's, taken and given back without contention.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from python_peers import TEXT, PeerManager, redis_server

BAR = 50
OURS_CALLS = 100_000
PEER_CALLS = 2_000
DOORS_BY_CALLS = ("socket", "network")
SLOW_CALLS = 1_000


def bound(statement, **names):
    """The statement in a loop, as a user writes it, without the cost of a wrapper: a function of the number of rounds."""
    scope = dict(names)
    exec(f"""
def timed(n):
    import time
    begin = time.perf_counter_ns()
    for _ in range(n):
        {statement}
    return (time.perf_counter_ns() - begin) / n
""", scope)
    return scope["timed"]


def peer_loops(manager):
    d, lock = manager.get_dict(), manager.get_lock()
    d["n"] = 0
    return {
        "get": bound('d["a"]', d=d),
        "set": bound('d["a"] = text', d=d, text=TEXT),
        "in": bound('"a" in d', d=d),
        "incr": bound('\n        with lock:\n            d["n"] = d["n"] + 1', d=d, lock=lock),
        "lock": bound("\n        with lock:\n            pass", lock=lock),
    }


def redis_loops(client):
    client.set("a", TEXT)
    return {
        "get": bound('r.get("a")', r=client),
        "set": bound('r.set("a", text)', r=client, text=TEXT),
        "in": bound('r.exists("a")', r=client),
        "incr": bound('r.incr("n")', r=client),
        "lock": bound("\n        with r.lock('lock'):\n            pass", r=client),
    }


def our_loops(d, lock):
    d.update(a=TEXT, n=0, nested={"list": [1, 2, 3], "inner": {"n": 0}})
    return {
        "get": bound('d["a"]', d=d),
        "set": bound('d["a"] = text', d=d, text=TEXT),
        "in": bound('"a" in d', d=d),
        "incr": bound('d.incr("n")', d=d),
        "lock": bound("\n        with lock:\n            pass", lock=lock),
        "get int": bound('d["n"]', d=d),
        "get nested": bound('d["nested"]', d=d),
        "edit nested": bound('d["nested"]["list"][1] = 5', d=d),
        "at().set": bound('d.at("nested", "inner", "n").set(5)', d=d),
        "transaction": bound('\n        with d.transaction() as t:\n            t["n"] = t["n"] + 1', d=d),
    }


def call_loops(d):
    d.update(a=TEXT, n=0)
    return {
        "get": bound('d["a"]', d=d),
        "set": bound('d["a"] = text', d=d, text=TEXT),
        "incr": bound('d.incr("n")', d=d),
    }


def measure(options, manager, redis_socket, client, by_calls):
    from statehouse.compat.managers import AcquirerProxy

    groups = [
        ("statehouse", our_loops(client.dict("bench"), AcquirerProxy(client, "bench")), OURS_CALLS),
        ("manager", peer_loops(manager), PEER_CALLS),
        *((door, call_loops(other.dict(f"bench/{door}")), SLOW_CALLS) for door, other in by_calls.items()),
    ]
    if redis_socket is not None:
        import redis

        groups.append(("redis", redis_loops(redis.Redis(unix_socket_path=redis_socket)), PEER_CALLS))
    samples = {}
    for _ in range(options.rounds):
        for name, loops, calls in groups:
            for op, timed in loops.items():
                slow = name == "statehouse" and op not in ("get", "set", "in", "incr", "lock", "get int")
                samples.setdefault((name, op), []).append(timed(calls // 20 if slow else calls))
    return samples


def report(samples):
    missed = 0
    print("nanoseconds a call, median of the rounds")
    for (name, op), values in samples.items():
        if name != "statehouse":
            continue
        ours = statistics.median(values)
        line = f"  {op:<12} statehouse {ours:9.0f}"
        if ("manager", op) in samples:
            peer = statistics.median(samples["manager", op])
            ratio = peer / ours
            line += f"   BaseManager {peer:9.0f}   {ratio:6.1f} x"
            if op in ("get", "set", "incr", "lock"):
                missed += ratio < BAR
                line += f", bar {BAR} x: {'met' if ratio >= BAR else 'MISSED'}"
        if ("redis", op) in samples:
            peer = statistics.median(samples["redis", op])
            line += f"   python-redis {peer:9.0f}   {peer / ours:6.1f} x"
        if ("network", op) in samples:
            line += "".join(f"   ({door} {statistics.median(samples[door, op]):.0f})" for door in DOORS_BY_CALLS)
        print(line)
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path, help="write the samples here")
    options = parser.parse_args()
    import statehouse

    with tempfile.TemporaryDirectory(prefix="sh-bench-") as name:
        top = pathlib.Path(name)
        manager = PeerManager(str(top / "manager.sock"), b"key")
        manager.start()
        daemon = subprocess.Popen([options.build / "bin/statehoused", "--dev", "--runtime-dir", top / "run", "--log-level", "error"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not (top / "run/dev.json").exists():
                if daemon.poll() is not None:
                    sys.exit("python_dict_bench: statehoused did not start")
                time.sleep(0.01)
            dev = json.loads((top / "run/dev.json").read_text())
            with (statehouse.connect(dev["url"], token=dev["token"], transport="local") as client,
                  statehouse.connect(dev["url"], token=dev["token"], transport="socket") as socket,
                  statehouse.connect(dev["url"], token=dev["token"], transport="network") as network,
                  redis_server(top) as redis_socket):
                by_calls = dict(zip(DOORS_BY_CALLS, (socket, network)))
                samples = measure(options, manager, redis_socket, client, by_calls)
        finally:
            daemon.terminate()
            daemon.wait()
            manager.shutdown()
    missed = report(samples)
    if options.json is not None:
        options.json.write_text(json.dumps({" ".join(key): values for key, values in samples.items()}, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
