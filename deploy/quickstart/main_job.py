"""The main job: worker processes share a dict, a lock and an area; another program reads them; then processes are killed under load.

    main_job.py --build build        prints the totals that each program saw; exit 0 only when all are exact
"""
import argparse
import contextlib
import os
import pathlib
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import namedtuple

import statehouse
from load import Load
from statehouse.compat import managers

HERE = pathlib.Path(__file__).resolve().parent
HOST = "127.0.0.1"
PLAIN_REQUESTS = 10_000
ONCE_REQUESTS = 6_000
LOGINS = 300
LOGOUTS = 100
CONNECTIONS = 8

Totals = namedtuple("Totals", "number hits once users_count slots")


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
    """What the job starts, and ends again. Nobody starts the service: the first worker does, by HOST, PORT and KEY."""

    def __init__(self, build):
        self.build = build
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sh-quick-"))
        self.port = free_port()
        self.key = secrets.token_hex(32)
        self.state = (HOST, self.port, self.key)
        self.client = None
        self.processes = []
        os.environ["XDG_RUNTIME_DIR"] = str(self.folder)
        os.environ["STATEHOUSED"] = str(build / "bin/statehoused")

    def start(self, name, command):
        """Starts an application on a listening socket whose descriptor follows the command."""
        listener = socket.create_server((HOST, 0), backlog=128)
        environment = dict(os.environ, HOST=HOST, PORT=str(self.port), KEY=self.key)
        with open(self.folder / f"{name}.log", "w") as log:
            process = subprocess.Popen([sys.executable, *command(listener.fileno())], pass_fds=[listener.fileno()],
                                       cwd=HERE, stdout=log, stderr=log, env=environment)
        self.processes.append(process)
        port = listener.getsockname()[1]
        listener.close()
        return process, port

    def start_gunicorn(self):
        """Four workers that begin at once, each by itself."""
        self.gunicorn, port = self.start("gunicorn", lambda fd: [
            "-m", "gunicorn", "-w", "4", "--threads", "4", "--bind", f"fd://{fd}", "app:app"])
        wait_for("the start of four gunicorn workers", lambda: len(self.workers()) == 4)
        self.client = wait_for("the start of the service", self.connect)
        return port

    def start_users(self):
        return self.start("users", lambda fd: ["users.py", str(fd)])[1]

    def connect(self):
        self.workers()
        try:
            return managers.connect(*self.state)
        except ConnectionRefusedError:
            return None

    def workers(self):
        """Process ids of gunicorn's workers."""
        if self.gunicorn.poll() is not None:
            raise Failure("gunicorn ended: " + (self.folder / "gunicorn.log").read_text()[:3000])
        path = pathlib.Path(f"/proc/{self.gunicorn.pid}/task/{self.gunicorn.pid}/children")
        names = {int(pid): pathlib.Path(f"/proc/{pid}/comm") for pid in path.read_text().split()}
        return [pid for pid, comm in names.items() if not read_or_empty(comm).startswith("statehouse")]

    def read_over_tcp(self):
        """What the second program sees."""
        result = subprocess.run([self.build / "bin/quickstart_reader", f"{HOST}:{self.port}"], capture_output=True, text=True,
                                env=dict(os.environ, STATEHOUSE_TOKEN=managers.access_token(*self.state)), timeout=60)
        if result.returncode != 0:
            raise Failure("the reader failed: " + result.stderr)
        return Totals(*map(int, result.stdout.split()))

    def stop(self):
        if self.client is not None:
            self.client.close()
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        managers.stop(*self.state)
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port():
    with socket.create_server((HOST, 0)) as probe:
        return probe.getsockname()[1]


def read_or_empty(path):
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""


def count_plain(job, port):
    """Both ways of counting: under the lock, and by one operation."""
    exact = True
    shared_dict, _ = managers.get_shared_state(*job.state)
    for path, key, how in (("/", "number", "shared_lock, read and write"), ("/incr", "hits", "incr")):
        print(f"    {PLAIN_REQUESTS} requests over {CONNECTIONS} connections to four gunicorn workers: {how} …", flush=True)
        begin = time.monotonic()
        load = Load(port, [path] * PLAIN_REQUESTS, CONNECTIONS).start().join()
        took = time.monotonic() - begin
        numbers = sorted(int(answer) for answer in load.answers)
        seen = getattr(job.read_over_tcp(), key)
        print(f"      requests answered                     {len(numbers):>8}   ({len(numbers) / took:.0f} per second)")
        print(f"      different numbers answered            {len(set(numbers)):>8}   from {numbers[0]} to {numbers[-1]}")
        print(f"      shared_dict[{key!r}]".ljust(44) + f"{shared_dict[key]:>8}   in this Python program, {shared_dict.transport} door")
        print(f"      seen by the C++ program               {seen:>8}   over TCP, generated stubs and a token")
        exact = exact and numbers == list(range(1, PLAIN_REQUESTS + 1)) and not load.failed
        exact = exact and seen == shared_dict[key] == PLAIN_REQUESTS
    return exact


def count_users(job, port):
    print(f"    {LOGINS} logins and {LOGOUTS} logouts at a server that forks a process for each request …", flush=True)
    Load(port, [f"/login/user-{i}" for i in range(LOGINS)], CONNECTIONS).start().join()
    again = [f"/login/user-{random.randrange(LOGOUTS, LOGINS)}" for _ in range(LOGOUTS)]
    mixed = [f"/logout/user-{i}" for i in range(LOGOUTS)] + again
    random.shuffle(mixed)
    load = Load(port, mixed, CONNECTIONS).start().join()
    shown = Load(port, ["/show_users_count"], 1).start().join().answers
    shared_dict, _ = managers.get_shared_state(*job.state)
    processes = len(set(shared_dict["users"].values()))
    seen = job.read_over_tcp().users_count
    print(f"      show_users_count                      {shown[0] if shown else 'none':>8}   logged in by {processes} processes")
    print(f"      keys of shared_dict['users']          {len(shared_dict['users']):>8}")
    print(f"      seen by the C++ program               {seen:>8}")
    return shown == [str(LOGINS - LOGOUTS)] and seen == len(shared_dict["users"]) == LOGINS - LOGOUTS and not load.failed


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
    totals = job.read_over_tcp()
    print(f"      worker {worker} and daemon {before.daemon_pid} were killed with SIGKILL; daemon {after.daemon_pid} "
          f"answered after {away * 1000:.0f} ms")
    print(f"      requests answered                     {len(load.answers):>8}   ({load.retried} sent again)")
    print(f"      counted in the dict, by the C++ program  {totals.once:>5}   by transactions of two keys")
    print(f"      counted in the area, by the C++ program  {totals.slots:>5}   in one word for each worker thread")
    print(f"      counters of the first part            {totals.number:>8}   and {totals.hits}")
    for failure in load.failed[:5]:
        print(f"      failed: {failure}")
    exact = totals.once == totals.slots == len(load.answers) == ONCE_REQUESTS
    return exact and totals.number == totals.hits == PLAIN_REQUESTS and not load.failed


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
        port = job.start_gunicorn()
        exact = count_plain(job, port)
        exact = count_users(job, job.start_users()) and exact
        exact = count_under_kills(job, port) and exact
    except (Failure, OSError, statehouse.Error) as error:
        print(f"statehouse: {error}", file=sys.stderr)
    finally:
        job.stop()
    print("    every total is exact" if exact else "    TOTALS ARE NOT EXACT")
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
