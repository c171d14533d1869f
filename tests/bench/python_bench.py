#!/usr/bin/env python3
"""Python on an area, one worker and two, against uWSGI's own sharedarea functions, in turns.

    build/venv/bin/python tests/bench/python_bench.py --build build [--rounds 5]

uWSGI (packages uwsgi-core and uwsgi-plugin-python3) runs the loops in mules, which are processes of its own with the same
embedded CPython that build/venv uses. A bar is the ratio of medians, taken in the same run.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

CALLS = 1_000_000

# Run by each worker. `op` is bound by the two preludes below; every worker waits for the start file, then times its loops.
LOOP = """
import json, os, time
def loop(op, n):
    begin = time.perf_counter_ns()
    for _ in range(n):
        op()
    return (time.perf_counter_ns() - begin) / n
def bound(function, *arguments):
    # The call with its arguments written out, as a user writes it, without the cost of a wrapper.
    scope = {"function": function}
    text = ", ".join(repr(argument) for argument in arguments)
    exec(f'''
def timed(n):
    import time
    f = function
    begin = time.perf_counter_ns()
    for _ in range(n):
        f({text})
    return (time.perf_counter_ns() - begin) / n
''', scope)
    return scope["timed"]
def run(folder, worker, ops, calls):
    open(os.path.join(folder, f"ready.{worker}"), "w").close()
    while not os.path.exists(os.path.join(folder, "go")):
        time.sleep(0.001)
    result = {name: timed(calls) for name, timed in ops.items()}
    with open(os.path.join(folder, f"result.{worker}.tmp"), "w") as file:
        json.dump(result, file)
    os.rename(os.path.join(folder, f"result.{worker}.tmp"), os.path.join(folder, f"result.{worker}"))
"""

OURS = LOOP + """
import statehouse, sys
folder, worker, names = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",")
client = statehouse.connect()
assert client.transport == "local", client.transport
area = client.area("bench", size=4096)
ops = {"add": bound(area.add_u64, 0, 1), "load": bound(area.load_u64, 0), "store": bound(area.store_u64, 8, 7)}
run(folder, worker, {name: ops[name] for name in names}, CALLS)
"""

UWSGI = LOOP + """
import uwsgi
folder, names = os.environ["BENCH_FOLDER"], os.environ["BENCH_NAMES"].split(",")
ops = {"add": bound(uwsgi.sharedarea_inc64, 0, 0, 1), "load": bound(uwsgi.sharedarea_read64, 0, 0),
       "store": bound(uwsgi.sharedarea_write64, 0, 8, 7)}
run(folder, uwsgi.mule_id() - 1, {name: ops[name] for name in names}, CALLS)
while True:
    time.sleep(60)
"""


def collect(folder, workers, processes):
    """Starts the loops at once and returns each worker's result."""
    deadline = time.monotonic() + 120

    def have(stem):
        return all((folder / f"{stem}.{worker}").exists() for worker in range(workers))

    while not have("ready"):
        if time.monotonic() > deadline or any(p.poll() is not None for p in processes):
            sys.exit("python_bench: a worker did not start; see " + str(folder))
        time.sleep(0.005)
    (folder / "go").touch()
    while not have("result"):
        if time.monotonic() > deadline:
            sys.exit("python_bench: a worker did not finish")
        time.sleep(0.005)
    return [json.loads((folder / f"result.{worker}").read_text()) for worker in range(workers)]


def run_ours(python, folder, workers, names, environment):
    script = folder / "ours.py"
    script.write_text(OURS.replace("CALLS", str(CALLS)))
    processes = [subprocess.Popen([python, script, folder, str(worker), ",".join(names)], env=environment)
                 for worker in range(workers)]
    time.sleep(0)
    results = collect(folder, workers, [])
    for process in processes:
        process.wait()
    return results


def run_uwsgi(folder, workers, names):
    script = folder / "mule.py"
    script.write_text(UWSGI.replace("CALLS", str(CALLS)))
    command = ["uwsgi_python3", "--master", "--socket", str(folder / "uwsgi.sock"), "--processes", "1", "--sharedarea", "1",
               "--disable-logging"] + ["--mule=" + str(script)] * workers
    with open(folder / "uwsgi.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log,
                                   env=dict(os.environ, BENCH_FOLDER=str(folder), BENCH_NAMES=",".join(names)))
        try:
            return collect(folder, workers, [process])
        finally:
            process.send_signal(3)
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path, help="write the samples here")
    options = parser.parse_args()
    if shutil.which("uwsgi_python3") is None:
        print("skipped: not installed: uwsgi-core and uwsgi-plugin-python3")
        return 0
    python = options.build / "venv/bin/python"
    samples = {}
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
                for workers, names in ((1, ["add", "load", "store"]), (2, ["add"]), (2, ["load"])):
                    for peer in ("statehouse", "uwsgi"):
                        folder = top / f"{turn}-{workers}-{names[0]}-{len(names)}-{peer}"
                        folder.mkdir()
                        results = (run_ours(python, folder, workers, names, environment) if peer == "statehouse"
                                   else run_uwsgi(folder, workers, names))
                        for op in names:
                            total = sum(1e3 / result[op] for result in results)  # Million calls a second.
                            samples.setdefault((workers, op, peer), []).append(total)
        finally:
            daemon.terminate()
            daemon.wait()
    missed = report(samples)
    if options.json is not None:
        options.json.write_text(json.dumps({" ".join(map(str, key)): values for key, values in samples.items()}, indent=1))
    return 1 if missed else 0


def report(samples):
    missed = 0
    print("million calls a second, median of the rounds (nanoseconds a call with one worker)")
    for workers, op in sorted({key[:2] for key in samples}):
        ours = statistics.median(samples[workers, op, "statehouse"])
        peer = statistics.median(samples[workers, op, "uwsgi"])
        # One worker: time at most 0.75 x uWSGI's. Two workers: total at least 5 x uWSGI's.
        met = peer / ours <= 0.75 if workers == 1 else ours / peer >= 5
        missed += 0 if met else 1
        bar = f"time {peer / ours:.2f} x, bar 0.75 x" if workers == 1 else f"total {ours / peer:.1f} x, bar 5 x"
        nanoseconds = f" ({1e3 / ours:.0f} and {1e3 / peer:.0f} ns)" if workers == 1 else ""
        print(f"  {'met   ' if met else 'MISSED'} {workers} worker(s) {op:<6} statehouse {ours:6.2f}  uwsgi {peer:6.2f}"
              f"  {bar}{nanoseconds}")
    return missed


if __name__ == "__main__":
    sys.exit(main())
