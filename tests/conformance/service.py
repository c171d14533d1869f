"""A statehoused of our own for the conformance cases: its access tokens, its kills, its end."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
PATIENCE_S = 60.0  # For what must happen.


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Looks until it holds; ends the run when it does not."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"gave up waiting: {what}")
        time.sleep(0.005)


def state_of(pid: int) -> str:
    """The letter of /proc/<pid>/stat, or "" when there is no such process."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat[stat.rindex(")") + 2]


class Token:
    """An access token as tokens.json describes it, with a secret of this run."""

    def __init__(self, grants: list[str] | None = None, expires: str = "", listed: bool = True) -> None:
        token_id = secrets.token_hex(4)
        secret = secrets.token_urlsafe(32)
        self.text = f"sh1_{token_id}_{secret}"
        self.listed = listed
        lines = ["[[token]]", f'id = "{token_id}"', f'hash = "{hashlib.sha256(secret.encode()).hexdigest()}"']
        if expires:
            lines.append(f"expires = {expires}")
        rows = []
        for grant in grants or []:
            kind, pattern, verbs = grant.split(":")
            rows.append(f'{{kind = "{kind}", pattern = "{pattern}", verbs = {json.dumps(verbs.split(","))}}}')
        lines.append(f"grants = [{', '.join(rows)}]")
        self.entry = "\n".join(lines) + "\n"


class Service:
    """The service. It is ended and removed with the context. `process` is the keeper; it restarts the daemon."""

    def __init__(self, binary: pathlib.Path) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="statehouse-conformance-")
        self._folder = pathlib.Path(self._temporary.name)
        facts: dict[str, Any] = json.loads((HERE / "tokens.json").read_text())
        self.tokens = {name: Token(**what) for name, what in facts.items()}
        ids, secrets_of_all = zip(*(token.text.rsplit("_", 1) for token in self.tokens.values()))
        self.tokens["mixed"] = Token(listed=False)
        self.tokens["mixed"].text = f"{ids[0]}_{secrets_of_all[-1]}"
        self._revoked: set[str] = set()
        self._write_tokens()
        self._log = (self._folder / "log").open("wb")
        self._keeper_stopped = False
        self._process = subprocess.Popen(
            [
                binary,
                *("--runtime-dir", self._folder / "run"),
                *("--tokens-file", self._folder / "tokens.toml"),
                *("--listen", "none", "--http-listen", "none"),
            ],
            stdout=self._log,
            stderr=self._log,
            # The cases fail to authenticate on purpose.
            env={**os.environ, "STATEHOUSED_AUTH__FAILURES_PER_MINUTE_MAX": "1000000"},
        )
        self.environment = {
            **os.environ,
            "STATEHOUSE_URL": f"statehouse+unix://{self._folder / 'run'}",
            "STATEHOUSE_TOKEN": self.tokens["admin"].text,
        }
        try:
            eventually(lambda: self._starts() > 0 or self._process.poll() is not None, "statehoused starts")
            if self._process.poll() is not None:
                raise SystemExit(f"{binary} did not start:\n{self._log_text()}")
        except SystemExit:
            self.__exit__()
            raise

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self._continue_keeper()
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._temporary.cleanup()

    def act(self, step: dict[str, Any]) -> None:
        """Carries out a step that is the runner's: see README.md, "The runner's own steps"."""
        acts: dict[str, Callable[[], None]] = {
            "daemon gone": self._kill_daemon,
            "daemon back": self._bring_daemon_back,
            "revoke": lambda: self._revoke(step["token"]),
        }
        acts[step["do"]]()

    def mend(self) -> None:
        """Undoes what a case did."""
        self._bring_daemon_back()
        if self._revoked:
            self._revoked.clear()
            self._reload_tokens()

    def _log_text(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def _starts(self) -> int:
        """How many daemons have said that they serve: to their keeper, too, which lets one that was killed earlier wait before the next."""
        return self._log_text().count(f" serves {self._folder / 'run'} ")

    def _daemon(self) -> int:
        """The daemon that serves, or 0."""
        try:
            return int(json.loads((self._folder / "run/endpoints.json").read_text())["daemon_pid"])
        except (FileNotFoundError, ValueError):
            return 0

    def _kill_daemon(self) -> None:
        """The keeper is stopped, so that no other daemon comes before _bring_daemon_back."""
        self._process.send_signal(signal.SIGSTOP)
        self._keeper_stopped = True
        eventually(lambda: state_of(self._process.pid) == "T", "the keeper stands still")
        killed = self._daemon()
        self._starts_before = self._starts()
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: state_of(killed) in ("Z", ""), "the daemon has died")

    def _bring_daemon_back(self) -> None:
        if self._keeper_stopped:
            self._continue_keeper()
            eventually(lambda: self._starts() > self._starts_before, "another daemon serves")

    def _continue_keeper(self) -> None:
        if self._keeper_stopped:
            self._process.send_signal(signal.SIGCONT)
            self._keeper_stopped = False

    def _revoke(self, name: str) -> None:
        self._revoked.add(name)
        self._reload_tokens()

    def _write_tokens(self) -> None:
        entries = [t.entry for name, t in self.tokens.items() if t.listed and name not in self._revoked]
        new = self._folder / "tokens.new"
        new.write_text("\n".join(entries))
        new.replace(self._folder / "tokens.toml")

    def _reload_tokens(self) -> None:
        self._write_tokens()
        line = "access tokens reloaded"
        before = self._log_text().count(line)
        self._process.send_signal(signal.SIGHUP)
        eventually(lambda: self._log_text().count(line) > before, "the access tokens are reloaded")
