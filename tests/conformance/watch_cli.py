"""The command line as a conformance program for watches: `statehouse watch … -o json`; everything else is the Python client.

Usage: watch_cli.py PATH-OF-STATEHOUSE local|network
"""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "clients/python/conformance"))

import main as python_program  # noqa: E402
from dict_ops import Inexpressible  # noqa: E402
from watch_ops import _PATIENCE_S, _QUIET_S  # noqa: E402

import statehouse  # noqa: E402
from statehouse import errors  # noqa: E402

COMMAND, DOOR = sys.argv[1], sys.argv[2]


class CommandLine:
    """As WatchOps, by a process whose lines a thread reads."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._updates: int | None = None
        self._is_inexpressible = False
        self._said = ""  # On stderr.

    async def do(self, client: Any, op: str, name: str, request: dict[str, Any]) -> Any:
        if op in ("watch_area", "watch_dict"):
            await self.close()
            self._is_inexpressible = bool(request.get("from_incarnation"))  # It compares none.
            return None if self._is_inexpressible else self._begin(op.removeprefix("watch_"), name, request)
        if op == "close_watch":
            return await self.close()
        if op == "watch_place":
            return self._updates if request["show"] == "updates" else 0  # It tells no incarnation.
        if self._is_inexpressible:
            raise Inexpressible
        return self._next(_QUIET_S if op == "no_event" else _PATIENCE_S)

    def _begin(self, kind: str, name: str, request: dict[str, Any]) -> None:
        words = ["watch", kind, name] + ([request["prefix"]] if "prefix" in request else [])
        for option in ("pos", "len", "key", "slow", "from_updates"):
            if option in request:
                words += ["--" + option.replace("_", "-"), str(request[option])]
        for option in ("window", "progress"):
            if f"{option}_ms" in request:
                words += [f"--{option}", f"{request[f'{option}_ms']}ms"]
        words += [f"--{o.replace('_', '-')}" for o in ("ranges_only", "keys_only", "previous") if request.get(o)]
        words += ["--no-snapshot"] if request.get("snapshot") == 0 else []
        self._process = subprocess.Popen(
            [COMMAND, "--transport", DOOR, "-o", "json", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._lines = queue.Queue()
        self._said = ""
        threading.Thread(target=self._read, args=(self._process, self._lines), daemon=True).start()

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: queue.Queue[dict[str, Any] | None]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(json.loads(line))
        lines.put(None)

    def _next(self, seconds: float) -> Any:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            return None
        if line is None:
            assert self._process is not None and self._process.stderr is not None
            self._said += self._process.stderr.read()
            self._lines.put(None)  # It comes again and again.
            for reason in errors._REASON_NAMES[1:]:
                if reason in self._said:
                    raise errors.by_name(reason, self._said, "")
            raise AssertionError(f"the command line ended without a reason: {self._said}")
        self._updates = line.pop("updates", self._updates)
        for what in ("revision", "version"):
            line.pop(what, None)
        if "hex" in line:
            line["data"] = line.pop("hex")
        if "pos" in line:
            line.setdefault("more", False)
        return line

    async def close(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        self._process = None


async def run() -> None:
    program = python_program.Program(DOOR, False)
    program.watches = CommandLine()  # type: ignore[assignment]
    await python_program.serve(program)


if __name__ == "__main__":
    asyncio.run(run())
