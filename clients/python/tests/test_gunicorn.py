"""gunicorn is told to reload (SIGHUP) while a worker holds a lock: the lock is neither lost nor stuck."""

from __future__ import annotations

import http.client
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

import statehouse

from conftest import PATIENCE_S, Service, wait_until

APPLICATION = """
import os, time
import statehouse

client = statehouse.connect(os.environ["URL"], token=os.environ["TOKEN"], transport=os.environ["DOOR"])
lock = client.lock(os.environ["NAME"], ttl=600)
flags = client.dict(os.environ["NAME"])

def app(environ, start_response):
    token = 0
    if environ["PATH_INFO"] != "/pid":
        with lock:
            token = lock.token
            while environ["PATH_INFO"] == "/hold" and "go" not in flags:
                time.sleep(0.005)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {token}".encode()]
"""


class UnixConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(self.host)


@dataclass
class Answer:
    pid: int = 0
    token: int = 0
    failed: bool = False


@dataclass
class Gunicorn:
    process: subprocess.Popen[bytes]
    path: pathlib.Path

    def get(self, target: str) -> Answer:
        connection = UnixConnection(str(self.path))
        try:
            connection.request("GET", target, headers={"Host": "test"})
            response = connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException):
            return Answer(failed=True)  # The worker was killed, or none listens yet.
        finally:
            connection.close()
        if response.status != 200:
            return Answer(failed=True)  # It was made to end.
        pid, token = text.split()
        return Answer(int(pid), int(token))

    def begin(self, target: str) -> Callable[[], Answer]:
        """Asks in a thread; the result waits for the answer."""
        answers: list[Answer] = []
        thread = threading.Thread(target=lambda: answers.append(self.get(target)), daemon=True)
        thread.start()

        def finish() -> Answer:
            thread.join(PATIENCE_S)
            return answers[0]

        return finish


@pytest.fixture
def start(service: Service, door: str, area_name: str, tmp_path: pathlib.Path) -> Iterator[Callable[..., Gunicorn]]:
    (tmp_path / "held_app.py").write_text(APPLICATION)
    started: list[Gunicorn] = []

    def start(*options: str) -> Gunicorn:
        path = tmp_path / "gunicorn.sock"
        # fmt: off
        command = [sys.executable, "-B", "-m", "gunicorn", "-w", "1", "--bind", f"unix:{path}", "--no-control-socket",
                   "--worker-tmp-dir", str(tmp_path), *options, "held_app:app"]
        # fmt: on
        environment = {**os.environ, "URL": service.url, "TOKEN": service.token, "DOOR": door, "NAME": area_name}
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        gunicorn = Gunicorn(process, path)
        started.append(gunicorn)
        wait_until(lambda: gunicorn.get("/pid").pid, "the start of gunicorn")
        return gunicorn

    yield start
    for gunicorn in started:
        gunicorn.process.send_signal(signal.SIGTERM)
        gunicorn.process.wait(PATIENCE_S)


def new_worker(gunicorn: Gunicorn, old: int) -> int:
    """Reloads, and waits for a worker that is not `old`."""
    gunicorn.process.send_signal(signal.SIGHUP)
    return int(wait_until(lambda: (pid := gunicorn.get("/pid").pid) != old and pid, "a new worker"))


def test_a_reload_leaves_the_lock_to_the_request_that_holds_it(
    start: Callable[..., Gunicorn], client: statehouse.Client, area_name: str
) -> None:
    flags = client.dict(area_name)
    gunicorn = start()
    old = gunicorn.get("/pid").pid
    holding = gunicorn.begin("/hold")
    wait_until(lambda: client.locks.describe(area_name).holder_count == 1, "a holder")
    token = client.locks.describe(area_name).holders[0].token

    new = new_worker(gunicorn, old)
    taking = gunicorn.begin("/take")
    wait_until(lambda: client.locks.describe(area_name).waiter_count == 1, "the new worker's waiting")
    assert client.locks.describe(area_name).holders[0].token == token
    flags["go"] = True

    assert holding() == Answer(old, token)
    taken = taking()
    assert taken.pid == new and taken.token > token
    assert client.locks.describe(area_name).holder_count == 0
    client.dicts.delete(area_name)


def test_the_lock_of_a_worker_that_a_reload_kills_is_free(
    start: Callable[..., Gunicorn], client: statehouse.Client, area_name: str
) -> None:
    # So long may its request take, and so long the new worker to begin, beside whatever else the machine does.
    gunicorn = start("--timeout", "4", "--graceful-timeout", "1")
    old = gunicorn.get("/pid").pid
    holding = gunicorn.begin("/hold")
    wait_until(lambda: client.locks.describe(area_name).holder_count == 1, "a holder")
    token = client.locks.describe(area_name).holders[0].token

    new = new_worker(gunicorn, old)
    taken = gunicorn.get("/take")

    assert holding().failed
    assert taken.pid == new and taken.token > token
    assert client.locks.describe(area_name).holder_count == 0
    client.dicts.delete(area_name)
