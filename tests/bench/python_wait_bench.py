#!/usr/bin/env python3
"""How late sharedarea_wait wakes: statehouse.compat.uwsgi against uWSGI, in turns.

    build/venv/bin/python tests/bench/python_wait_bench.py --build build [--rounds 3]

One process writes the time into an area every few milliseconds, another one waits and reads it. uWSGI (packages uwsgi-core and
uwsgi-plugin-python3) has no sharedarea_wait in Python: its core's function is called as its Perl plugin does, with its shortest
interval, 1 ms. A bar is the ratio of medians, taken in the same run. Beside them a bare futex in shared memory, called in the same way:
nothing that sleeps can be faster on this machine.
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

WRITES = 400
BAR = 20

# `wait()`, `read()` and `write(number)` are bound by the two preludes below.
LOOP = """
import json, os, random, time
def publish(name, value):
    with open(os.path.join(folder, name + ".tmp"), "w") as file:
        json.dump(value, file)
    os.rename(os.path.join(folder, name + ".tmp"), os.path.join(folder, name))
def run_waiter():
    late, last = [], 0
    publish("ready", 1)
    while last != 1:
        wait()
        now, last = time.monotonic_ns(), read()
        if last > 1:
            late.append(now - last)
    publish("result", late)
def run_writer():
    while not os.path.exists(os.path.join(folder, "ready")):
        time.sleep(0.01)
    for _ in range(WRITES):
        time.sleep(random.uniform(0.003, 0.007))
        write(time.monotonic_ns())
    while not os.path.exists(os.path.join(folder, "result")):
        write(1)
        time.sleep(0.01)
"""

OURS = LOOP + """
import statehouse, sys
import statehouse.compat.uwsgi as compat
folder, role = sys.argv[1:]
client = statehouse.connect()
assert client.transport == "local", client.transport
area = client.area("bench-wait", size=4096)
compat.use(client)
seen = area.updates
def wait():
    global seen
    compat.sharedarea_wait("bench-wait", 1, since=seen)
    seen = area.updates
def read():
    return compat.sharedarea_read64("bench-wait", 0)
def write(number):
    compat.sharedarea_write64("bench-wait", 0, number)
run_waiter() if role == "waiter" else run_writer()
"""

FUTEX = LOOP + """
import ctypes, mmap, platform, sys
folder, role = sys.argv[1:]
FUTEX_CALL = {"x86_64": 202, "aarch64": 98}[platform.machine()]
with open(os.path.join(folder, "memory"), "a+b") as file:
    file.truncate(4096)
    memory = mmap.mmap(file.fileno(), 4096)
word, number = ctypes.c_uint32.from_buffer(memory), ctypes.c_int64.from_buffer(memory, 8)
libc, seen = ctypes.CDLL(None), 0
def wait():
    global seen
    while word.value == seen:
        libc.syscall(FUTEX_CALL, ctypes.byref(word), 0, seen, None)
    seen = word.value
def read():
    return number.value
def write(value):
    number.value = value
    word.value += 1
    libc.syscall(FUTEX_CALL, ctypes.byref(word), 1, 1)
run_waiter() if role == "waiter" else run_writer()
"""

UWSGI = LOOP + """
import ctypes, uwsgi
folder = os.environ["BENCH_FOLDER"]
core = ctypes.CDLL(None)
def wait():
    assert core.uwsgi_sharedarea_wait(0, 1, 0) == 0
def read():
    return uwsgi.sharedarea_read64(0, 0)
def write(number):
    uwsgi.sharedarea_write64(0, 0, number)
run_waiter() if uwsgi.mule_id() == 1 else run_writer()
while True:
    time.sleep(60)
"""


def result_of(folder, processes):
    deadline = time.monotonic() + 120
    while not (folder / "result").exists():
        if time.monotonic() > deadline or any(p.poll() not in (None, 0) for p in processes):
            sys.exit(f"python_wait_bench: no result in {folder}")
        time.sleep(0.01)
    return json.loads((folder / "result").read_text())


def run_pair(text, python, folder, environment):
    script = folder / "pair.py"
    script.write_text(text.replace("WRITES", str(WRITES)))
    processes = [subprocess.Popen([python, script, folder, role], env=environment) for role in ("waiter", "writer")]
    result = result_of(folder, processes)
    for process in processes:
        process.wait()
    return result


def run_uwsgi(folder):
    script = folder / "mule.py"
    script.write_text(UWSGI.replace("WRITES", str(WRITES)))
    command = ["uwsgi_python3", "--master", "--socket", str(folder / "uwsgi.sock"), "--processes", "1", "--sharedarea", "1",
               "--disable-logging", "--mule=" + str(script), "--mule=" + str(script)]
    with open(folder / "uwsgi.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ, BENCH_FOLDER=str(folder)))
        try:
            return result_of(folder, [process])
        finally:
            process.send_signal(3)
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path, help="write the samples here")
    options = parser.parse_args()
    if shutil.which("uwsgi_python3") is None:
        print("skipped: not installed: uwsgi-core and uwsgi-plugin-python3")
        return 0
    python = options.build / "venv/bin/python"
    samples = {"statehouse": [], "uwsgi": [], "bare futex": []}
    pairs = {"statehouse": OURS, "bare futex": FUTEX}
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
                for peer in samples:
                    folder = top / f"{turn}-{peer}"
                    folder.mkdir()
                    samples[peer] += run_pair(pairs[peer], python, folder, environment) if peer in pairs else run_uwsgi(folder)
        finally:
            daemon.terminate()
            daemon.wait()
    if options.json is not None:
        options.json.write_text(json.dumps(samples))
    print("microseconds from the write to the waiter")
    for peer, late in samples.items():
        late.sort()
        print(f"  {peer:<10} p50 {late[len(late) // 2] / 1e3:9.1f}  p99 {late[len(late) * 99 // 100] / 1e3:9.1f}  of {len(late)}")
    median = {peer: statistics.median(late) for peer, late in samples.items()}
    ratio = median["uwsgi"] / median["statehouse"]
    bare = median["uwsgi"] / median["bare futex"]
    print(f"  {'met   ' if ratio >= BAR else 'MISSED'} {ratio:.1f} x, bar {BAR} x; a bare futex {bare:.1f} x")
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
