"""The service behind a host, a port and a key: started by whoever comes first, found by everybody else, outliving all of them."""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import ipaddress
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator

from .. import errors
from .._client import Client, connect

START_TIMEOUT_S = 30.0
_LOOK_S = 0.01
_KEY_ROUNDS = 100_000  # Of PBKDF2: a guess at the key costs as much.
_GRANTS = ", ".join(
    f'{{kind = "{kind}", pattern = "*", verbs = [{", ".join(verbs)}]}}'
    for kind, verbs in [
        ("area", ('"read"', '"write"', '"create"')),
        ("dict", ('"read"', '"write"', '"create"')),
        ("lock", ('"read"', '"lock"', '"admin"')),
        ("service", ('"admin"',)),
    ]
)
# Services that this process started. They go on without it; while it lives, it must take note of their end.
_started: list[subprocess.Popen[bytes]] = []


class Address:
    """Where a service is meant to be, and the access token that the key stands for.

    The token's secret is derived from the key, the host and the port, and the service knows its hash only; who has another key is refused
    with Unauthenticated. The key itself is stored nowhere.
    """

    def __init__(self, host: str, port: int, key: bytes | str) -> None:
        if not isinstance(host, str) or isinstance(port, bool) or not isinstance(port, int):
            raise TypeError(f"an address is a host (str) and a port (int), not {host!r} and {port!r}")
        if not 0 < port < 65536:
            raise ValueError(f"the port is {port}; workers find each other by it, so it must be 1 to 65535")
        secret = key.encode() if isinstance(key, str) else bytes(key)
        if not secret:
            raise ValueError("the key is empty; whoever has it has the state, so choose a long one")
        self.host = _numeric(host)
        self.port = port
        derived = hashlib.pbkdf2_hmac("sha256", secret, f"statehouse {self.host} {port}".encode(), _KEY_ROUNDS, 37)
        self._id = derived[32:36].hex()
        self._secret = base64.urlsafe_b64encode(derived[:32]).rstrip(b"=").decode()
        self.token = f"sh1_{self._id}_{self._secret}"
        name = hashlib.sha256(f"{self.host} {port}".encode()).hexdigest()[:16]
        self.folder = _base_folder() / name

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def tokens_file(self) -> str:
        digest = hashlib.sha256(self._secret.encode()).hexdigest()
        return (
            "# Written by statehouse.compat.managers. The token is derived from the key that the workers have.\n"
            f'[[token]]\nid = "{self._id}"\nhash = "{digest}"\ndescription = "compat.managers"\ngrants = [{_GRANTS}]\n'
        )


def _numeric(host: str) -> str:
    """The loopback address, or whatever else the name stands for."""
    if host in ("", "localhost"):
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return socket.gethostbyname(host)


def _base_folder() -> pathlib.Path:
    """This user's folder for services of this kind; nobody else may write to it."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = pathlib.Path(runtime) / "statehouse-managers" if runtime else pathlib.Path(f"/tmp/statehouse-managers-{os.getuid()}")
    path.mkdir(mode=0o700, exist_ok=True)
    facts = path.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or stat.S_IMODE(facts.st_mode) & 0o077:
        raise PermissionError(f"{path} must be a folder of this user that nobody else can use (mode 0700); remove it")
    return path


def connect_running(address: Address) -> Client | None:
    """A client of the service that is there, by the local door where it is this user's; None where there is none."""
    client = _connect_local(address)
    if client is not None:
        return client
    try:
        with socket.create_connection((address.host, address.port), timeout=5.0):
            pass
    except OSError:
        return None
    client = connect(f"statehouse://{address}", token=address.token, transport="network")
    try:
        client.status()
    except errors.Error:
        client.close()
        raise
    return client


def _connect_local(address: Address) -> Client | None:
    try:  # A socket without a listener is what a killed service leaves behind.
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            probe.connect(str(address.folder / "attach.sock"))
    except OSError:
        return None
    return connect(f"statehouse+unix://{address.folder}", token=address.token, timeout=START_TIMEOUT_S, transport="local")


def connect_or_start(address: Address) -> Client:
    """A client of the service, which is started where there is none. However many come at once, one of them starts it."""
    client = connect_running(address)
    if client is not None:
        return client
    with _turn(address):
        return connect_running(address) or _start(address)


@contextlib.contextmanager
def _turn(address: Address) -> Iterator[None]:
    """One process at a time; the kernel ends the turn of one that dies."""
    path = address.folder.with_suffix(".lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def find_binary() -> str:
    """The path of statehoused."""
    beside = pathlib.Path(sys.executable).parent / "statehoused"
    found = os.environ.get("STATEHOUSED") or shutil.which("statehoused") or (str(beside) if beside.exists() else None)
    if found is None:
        raise FileNotFoundError(
            errno.ENOENT, "the program statehoused is not on the PATH; install it, or name it in STATEHOUSED"
        )
    return found


def _start(address: Address) -> Client:
    if not ipaddress.ip_address(address.host).is_loopback:
        raise ConnectionRefusedError(
            errno.ECONNREFUSED,
            f"no service answers at {address}, and this process can start one on a loopback address only; start it there",
        )
    address.folder.mkdir(mode=0o700, exist_ok=True)
    tokens = address.folder / "tokens.toml"
    tokens.unlink(missing_ok=True)
    descriptor = os.open(tokens, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w") as file:
        file.write(address.tokens_file())
    log_path = address.folder / "statehoused.log"
    command = [find_binary(), "--runtime-dir", str(address.folder), "--listen", str(address), "--http-listen", "none"]
    command += ["--drain-linger", "0"]  # Nobody balances load over it, and `stop` waits for its end.
    with open(log_path, "wb") as log:
        # A session of its own: neither the end of this process nor Ctrl-C in its terminal ends it.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    _started.append(process)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        client = _connect_local(address)
        if client is not None:
            return client
        if process.poll() is not None:
            _started.remove(process)
            tail = log_path.read_text(errors="replace")[-1000:].strip()
            raise OSError(
                errno.EADDRINUSE if process.returncode == 69 else errno.EIO,
                f"statehoused did not start at {address} (exit code {process.returncode}): {tail}",
            )
        time.sleep(_LOOK_S)
    process.terminate()
    raise TimeoutError(f"statehoused did not start at {address} within {START_TIMEOUT_S:.0f} s; see {log_path}")


def stop(address: Address) -> bool:
    """Ends the service of this user at the address, and with it the state. False where there is none. Waits until it is gone."""
    with _turn(address):
        client = _connect_local(address)
        if client is None:
            return False
        with client:
            keeper = client.status().keeper_pid
        descriptor = os.pidfd_open(keeper)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            _wait_for_end(descriptor)
        finally:
            os.close(descriptor)
        for process in [process for process in _started if process.pid == keeper]:
            process.wait()
            _started.remove(process)
        shutil.rmtree(address.folder, ignore_errors=True)
        return True


def _wait_for_end(descriptor: int) -> None:
    import select

    ended, _, _ = select.select([descriptor], [], [], START_TIMEOUT_S)
    if not ended:
        raise TimeoutError(f"the service did not end within {START_TIMEOUT_S:.0f} s after SIGTERM")
