"""The main job: four gunicorn workers share a counter, another program reads it, and then processes are killed under load.

    main_job.py --build build        prints the totals that each program saw; exit 0 only when all are exact
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import statehouse
from load import Load

HERE = pathlib.Path(__file__).resolve().parent
PLAIN_REQUESTS = 10_000
ONCE_REQUESTS = 6_000
CONNECTIONS = 8


class Failure(Exception):
    """Something that the job needs is missing or wrong; the text says what."""


def wait_for(what, probe, seconds=30.0):
    """The first true answer of `probe`, or a Failure after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = probe()
        if answer:
            return answer
        time.sleep(0.01)
    raise Failure(f"{what} did not happen within {seconds:.0f} s")


class Job:
    def __init__(self, build):
        self.build = build
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="statehouse-quickstart-"))
        self.daemon = None
        self.gunicorn = None
        self.client = None
        self.dev = {}

    def start_service(self):
        runtime = self.folder / "run"
        log = open(self.folder / "statehoused.log", "w")
        self.daemon = subprocess.Popen([self.build / "bin/statehoused", "--dev", "--runtime-dir", runtime],
                                       stdout=log, stderr=log)
        path = runtime / "dev.json"
        wait_for("the start of statehoused", lambda: path.exists() or self._service_ended())
        self.dev = json.loads(path.read_text())
        self.client = statehouse.connect(self.dev["url"], token=self.dev["token"])

    def _service_ended(self):
        if self.daemon.poll() is not None:
            raise Failure("statehoused ended: " + (self.folder / "statehoused.log").read_text()[-2000:])
        return False

    def start_gunicorn(self):
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        log = open(self.folder / "gunicorn.log", "w")
        environment = dict(os.environ, STATEHOUSE_URL=self.dev["url"], STATEHOUSE_TOKEN=self.dev["token"])
        self.gunicorn = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-w", "4", "--threads", "4", "--preload",
             "--bind", f"fd://{listener.fileno()}", "--chdir", HERE, "app:app"],
            pass_fds=[listener.fileno()], stdout=log, stderr=log, env=environment)
        port = listener.getsockname()[1]
        listener.close()
        wait_for("the start of four gunicorn workers", lambda: len(self.workers()) == 4)
        return port

    def workers(self):
        """Process ids of gunicorn's workers."""
        if self.gunicorn.poll() is not None:
            raise Failure("gunicorn ended: " + (self.folder / "gunicorn.log").read_text()[-2000:])
        path = pathlib.Path(f"/proc/{self.gunicorn.pid}/task/{self.gunicorn.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def read_over_tcp(self):
        """What the second program sees: (hits, sum of the slots)."""
        address = self.dev["tcp_url"].split("://")[1]
        result = subprocess.run([self.build / "bin/quickstart_reader", address], capture_output=True, text=True,
                                env=dict(os.environ, STATEHOUSE_TOKEN=self.dev["token"]), timeout=60)
        if result.returncode != 0:
            raise Failure("the reader failed: " + result.stderr)
        return tuple(int(number) for number in result.stdout.split())

    def stop(self):
        if self.client is not None:
            self.client.close()
        for process in (self.gunicorn, self.daemon):
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def count_plain(job, port):
    print(f"    {PLAIN_REQUESTS} requests over {CONNECTIONS} connections to four gunicorn workers …", flush=True)
    begin = time.monotonic()
    load = Load(port, ["/"] * PLAIN_REQUESTS, CONNECTIONS).start().join()
    took = time.monotonic() - begin
    numbers = sorted(int(answer) for answer in load.answers)
    hits, _ = job.read_over_tcp()
    mine = job.client.area("quickstart").load_u64(0)
    print(f"      requests answered                     {len(numbers):>8}   ({len(numbers) / took:.0f} per second)")
    print(f"      different numbers answered            {len(set(numbers)):>8}   from {numbers[0]} to {numbers[-1]}")
    print(f"      counter seen by this Python program   {mine:>8}   through the {job.client.transport} door")
    print(f"      counter seen by the C++ program       {hits:>8}   over TCP, generated stubs and a token")
    return numbers == list(range(1, PLAIN_REQUESTS + 1)) and hits == mine == PLAIN_REQUESTS and not load.failed


def count_under_kills(job, port):
    print(f"    {ONCE_REQUESTS} requests more; a worker and then the daemon are killed in the middle …", flush=True)
    load = Load(port, [f"/once/{number}" for number in range(1, ONCE_REQUESTS + 1)], CONNECTIONS).start()
    wait_for("a third of the requests", lambda: load.answered() > ONCE_REQUESTS // 3, 120)
    worker = job.workers()[0]
    os.kill(worker, signal.SIGKILL)
    wait_for("two thirds of the requests", lambda: load.answered() > 2 * ONCE_REQUESTS // 3, 120)
    before = job.client.status()
    os.kill(before.daemon_pid, signal.SIGKILL)
    begin = time.monotonic()
    after = wait_for("the daemon's return", lambda: new_daemon(job, before.daemon_pid))
    away = time.monotonic() - begin
    load.join()
    hits, total = job.read_over_tcp()
    print(f"      worker {worker} and daemon {before.daemon_pid} were killed with SIGKILL; daemon {after.daemon_pid} "
          f"answered after {away * 1000:.0f} ms")
    print(f"      requests answered                     {len(load.answers):>8}   ({load.retried} sent again)")
    print(f"      requests counted, by the C++ program  {total:>8}")
    print(f"      counter of the first part             {hits:>8}")
    for failure in load.failed[:5]:
        print(f"      failed: {failure}")
    return len(load.answers) == total == ONCE_REQUESTS and hits == PLAIN_REQUESTS and not load.failed


def new_daemon(job, old_pid):
    try:
        status = job.client.status()
    except statehouse.Error as error:
        if not error.retryable:
            raise
        return None
    return status if status.daemon_pid != old_pid else None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, required=True, help="the build folder")
    job = Job(parser.parse_args().build.resolve())
    exact = False
    try:
        job.start_service()
        port = job.start_gunicorn()
        exact = count_plain(job, port)
        exact = count_under_kills(job, port) and exact
    except (Failure, statehouse.Error) as error:
        print(f"statehouse: {error}", file=sys.stderr)
    finally:
        job.stop()
    print("    every total is exact" if exact else "    TOTALS ARE NOT EXACT")
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
