#!/usr/bin/env python3
"""How late a watch of a dict tells a change, in Python through the local door: one that follows by itself, and one that keeps its stream.

    build/venv/bin/python tests/bench/python_watch_bench.py --build build [--rounds 3]

One process sets a key to the time every few milliseconds, another one waits for the event, blocking or in asyncio, in turns.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

WRITES = 400

PAIR = """
import asyncio, json, os, random, statehouse, statehouse.aio, sys, time
from statehouse import _dict_watch
folder, role, way = sys.argv[1:]
if "stream" in way:
    _dict_watch.opener = lambda *arguments: None
def publish(name, value):
    with open(os.path.join(folder, name + ".tmp"), "w") as file:
        json.dump(value, file)
    os.rename(os.path.join(folder, name + ".tmp"), os.path.join(folder, name))
late = []
def take(event):
    now = time.monotonic_ns()
    if event.kind == "put":
        if event.value == 1:
            return False
        late.append(now - event.value)
    return True
def run_blocking():
    with statehouse.connect() as client, client.dict("bench").watch(snapshot=False) as watch:
        watch.next()
        watch.next(0.2)  # It is handed over.
        assert (watch._follow is None) == ("stream" in way)
        publish("ready", 1)
        while take(watch.next()):
            pass
async def run_async():
    async with statehouse.aio.connect() as client:
        async with (await client.dict("bench")).watch(snapshot=False) as watch:
            await watch.next()
            first = asyncio.ensure_future(watch.next())
            await asyncio.sleep(0.2)
            assert (watch._follow is None) == ("stream" in way)
            publish("ready", 1)
            take(await first)
            while take(await watch.next()):
                pass
def run_writer():
    with statehouse.connect() as client:
        assert client.transport == "local", client.transport
        d = client.dict("bench")
        while not os.path.exists(os.path.join(folder, "ready")):
            time.sleep(0.01)
        for _ in range(WRITES):
            time.sleep(random.uniform(0.003, 0.007))
            d["n"] = time.monotonic_ns()
        time.sleep(0.1)
        d["n"] = 1
if role == "writer":
    run_writer()
else:
    run_blocking() if "blocking" in way else asyncio.run(run_async())
    publish("result", late)
"""
WAYS = ("blocking, follows", "blocking, stream", "asyncio, follows", "asyncio, stream")


def run_pair(python, folder, environment, way):
    script = folder / "pair.py"
    script.write_text(PAIR.replace("WRITES", str(WRITES)))
    processes = [subprocess.Popen([python, script, folder, role, way], env=environment) for role in ("watcher", "writer")]
    for process in processes:
        if process.wait(120) != 0:
            sys.exit(f"python_watch_bench: {way}: a process ended with {process.returncode}")
    return json.loads((folder / "result").read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path, help="write the samples here")
    options = parser.parse_args()
    python = options.build / "venv/bin/python"
    rounds = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="statehouse-bench-") as name:
        top = pathlib.Path(name)
        daemon = subprocess.Popen([options.build / "bin/statehoused", "--dev", "--runtime-dir", top / "run", "--log-level", "error"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not (top / "run/dev.json").exists():
                time.sleep(0.01)
            dev = json.loads((top / "run/dev.json").read_text())
            environment = dict(os.environ, STATEHOUSE_URL=dev["url"], STATEHOUSE_TOKEN=dev["token"])
            for turn in range(options.rounds):
                for i, way in enumerate(WAYS):
                    folder = top / f"{turn}-{i}"
                    folder.mkdir()
                    rounds[way].append(sorted(run_pair(python, folder, environment, way)))
        finally:
            daemon.terminate()
            daemon.wait()
    if options.json is not None:
        options.json.write_text(json.dumps(rounds))
    print("microseconds from the set to the event")
    for way, each in rounds.items():
        middles = [late[len(late) // 2] / 1e3 for late in each]
        late = sorted(sum(each, []))
        print(f"  {way:<18} p50 {late[len(late) // 2] / 1e3:7.1f} ({min(middles):.1f} to {max(middles):.1f})"
              f"  p99 {late[len(late) * 99 // 100] / 1e3:7.1f}  of {len(late)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
