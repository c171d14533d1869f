"""A real service for the tests: one statehoused for the session, on free ports, in a temporary folder.

STATEHOUSED names the binary.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

import statehouse

PATIENCE_S = 60.0  # For what must happen.


@dataclass
class Service:
    process: subprocess.Popen[bytes]
    url: str
    tcp_url: str
    token: str
    runtime_dir: pathlib.Path

    def connect(self, door: str, **options: Any) -> statehouse.Client:
        options.setdefault("timeout", 10.0)
        options.setdefault("token", self.token)
        return statehouse.connect(self.url, transport=door, **options)

    def add_token(self, identity: str, grants: dict[tuple[str, str], tuple[str, ...]], **limits: int) -> str:
        """A new access token; ``grants`` has the verbs by kind and pattern. ``identity`` is eight letters and digits, new ones."""
        secret = (identity * 6)[:43]
        digest = hashlib.sha256(secret.encode()).hexdigest()
        rows = ", ".join(
            f'{{kind = "{kind}", pattern = "{pattern}", verbs = {json.dumps(verbs)}}}' for (kind, pattern), verbs in grants.items()
        )
        with (self.runtime_dir / "tokens.toml").open("a") as file:
            file.write(f'\n[[token]]\nid = "{identity}"\nhash = "{digest}"\ngrants = [{rows}]\n')
            file.writelines(f"{name} = {limit}\n" for name, limit in limits.items())
        os.kill(self.process.pid, signal.SIGHUP)
        token = f"sh1_{identity}_{secret}"
        wait_until(lambda: self.accepts(token), "the reading of the tokens file")
        return token

    def remove_token(self, identity: str) -> None:
        """Takes away what add_token gave."""
        path = self.runtime_dir / "tokens.toml"
        tokens = path.read_text().split("\n[[token]]\n")
        path.write_text("\n[[token]]\n".join(token for token in tokens if f'id = "{identity}"' not in token))
        os.kill(self.process.pid, signal.SIGHUP)
        wait_until(lambda: not self.accepts(f"sh1_{identity}_{(identity * 6)[:43]}"), "the reading of the tokens file")

    def accepts(self, token: str) -> bool:
        """Whether the service knows a token."""
        try:
            with self.connect("network", token=token) as c:
                return bool(c.status().version)
        except statehouse.Unauthenticated:
            return False

    def kill_daemon(self) -> None:
        """SIGKILLs the daemon; the keeper starts the next one."""
        with self.connect("network") as c:
            os.kill(c.status().daemon_pid, signal.SIGKILL)


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Polls until the condition holds, and returns what it gave."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {PATIENCE_S} s")
        time.sleep(0.005)  # A pause between looks; the condition decides.


@contextlib.contextmanager
def asgi(app: Any) -> Iterator[str]:
    """uvicorn with the application, on a port of its own: the URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, "the start of uvicorn")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with run_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@contextlib.contextmanager
def run_service(folder: pathlib.Path, *flags: str) -> Iterator[Service]:
    """A statehoused of its own, with everything it leaves in ``folder``."""
    binary = os.environ.get("STATEHOUSED")
    if not binary:
        pytest.fail("STATEHOUSED is not set; it must name the statehoused binary")
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [binary, "--dev", *flags],
        stdout=log,
        stderr=log,
        env={**os.environ, "TMPDIR": str(folder)},
    )

    def started() -> pathlib.Path | None:
        assert process.poll() is None, (folder / "log").read_text()
        return next(iter(folder.glob("*/dev.json")), None)

    try:
        facts = json.loads(wait_until(started, "the start of the service").read_text())
        yield Service(
            process,
            facts["url"],
            facts["tcp_url"],
            facts["token"],
            pathlib.Path(facts["url"].removeprefix("statehouse+unix://")),
        )
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


DOORS_OF_ASYNCIO = ["local", "network"]


@pytest.fixture(params=["local", "socket", "network"])
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(service: Service, door: str) -> Iterator[statehouse.Client]:
    with service.connect(door) as c:
        assert c.transport == door
        yield c


_numbers = itertools.count()


@pytest.fixture
def area_name() -> str:
    """A name that no other test uses."""
    return f"test/{os.getpid()}/{next(_numbers)}"


@pytest.fixture
def area(client: statehouse.Client, area_name: str) -> Iterator[statehouse.Area]:
    yield client.area(area_name, size=4096)
    if not client.closed:
        try:
            client.areas.delete(area_name)
        except statehouse.NotFound:
            pass  # The test deleted it.


@pytest.fixture
def shared(client: statehouse.Client, area_name: str) -> Iterator[statehouse.SharedDict]:
    """An empty dict."""
    yield client.dict(area_name)
    if not client.closed:
        try:
            client.dicts.delete(area_name)
        except statehouse.NotFound:
            pass  # The test deleted it.
