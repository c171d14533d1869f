"""The conformance program of the Python client: operations as JSON lines on stdin, results on stdout.

tests/conformance/README.md describes them. Usage: main.py local|socket|network [--aio]
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import statehouse
import statehouse.aio
from batch_ops import run_batch
from dict_ops import OPS, DictOps, Inexpressible, settled
from lock_ops import LOCK_OPS, LockOps
from watch_ops import WATCH_OPS, WatchOps


class Program:
    """Carries operations out on a blocking or an asyncio client: what it gets is awaited when it can be."""

    def __init__(self, door: str, asynchronous: bool) -> None:
        self.door = door
        self.asynchronous = asynchronous
        self.token = os.environ["STATEHOUSE_TOKEN"]
        self.client: Any = None  # None between a connect that failed and the next one.
        self.areas: dict[str, Any] = {}
        self.dicts = DictOps()
        self.locks = LockOps(self.open)
        self.watches = WatchOps()

    async def open(self, token: str | None = None) -> Any:
        module: Any = statehouse.aio if self.asynchronous else statehouse
        return await settled(module.connect(token=token, transport=self.door))

    async def connect(self, url: str | None = None, timeout: float | None = None) -> None:
        module: Any = statehouse.aio if self.asynchronous else statehouse
        self.client = await settled(module.connect(url, transport=self.door, timeout=timeout))

    async def connect_again(self, url: str | None, token: str, timeout_ms: int | None) -> None:
        """A new client in place of the one before, and its first call, so that each door tells what is wrong."""
        self.areas.clear()
        self.dicts = DictOps()
        await self.locks.let_go()
        await self.watches.close()
        if self.client is not None:
            await settled(self.client.close())
        self.client = None
        os.environ["STATEHOUSE_TOKEN"] = token
        if not token:
            del os.environ["STATEHOUSE_TOKEN"]
        await self.connect(url, None if timeout_ms is None else timeout_ms / 1000)
        await settled(self.client.status())

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": await self.do(request.pop("op"), request)}
        except statehouse.Error as error:
            return {"error": error.reason, "retryable": error.retryable}
        except (AttributeError, Inexpressible):
            return {"inexpressible": True}  # No method has that type.

    async def do(self, op: str, request: dict[str, Any]) -> Any:
        name = request.pop("name", "")
        if op in OPS:
            return await self.dicts.do(self.client, op, name, request)
        if op == "batch":
            return await run_batch(self.client, request)
        if op in LOCK_OPS:
            return await self.locks.do(self.client, op, name, request)
        if op in WATCH_OPS:
            return await self.watches.do(self.client, op, name, request)
        if op == "connect":
            token = request.get("token", self.token)
            timeout_ms = request.get("timeout_ms")
            return await self.connect_again(request.get("url"), token, timeout_ms)
        if op == "close":
            return await settled(self.client.close())
        if op == "open":
            self.areas[name] = await settled(self.client.area(name, request.get("size")))
            return self.areas[name].size
        if op == "create":
            request["exclusive"] = bool(request.pop("exclusive", 0))
            return (await settled(self.client.areas.create(name, **request))).size
        if op == "describe":
            return (await settled(self.client.areas.describe(name))).size
        if op == "delete":
            return await settled(self.client.areas.delete(name))
        if op == "list":
            return [info.name for info in await settled(self.client.areas.list(**request))]
        if op == "transport":
            return self.client.transport
        if op == "status":
            return "draining" if (await settled(self.client.status())).draining else "serving"
        return await self.do_area(op, self.areas[name], request)

    async def do_area(self, op: str, area: Any, request: dict[str, Any]) -> Any:
        if op == "updates":
            return await settled(area.updates)
        if op == "wait":
            timeout_ms = request.get("timeout_ms")
            timeout = None if timeout_ms is None else timeout_ms / 1000
            return await settled(area.wait(request["since"], timeout))
        pos = request["pos"]
        if op == "read":
            return (await settled(area.read(pos, request.get("len")))).hex()
        fence = request.get("fence")
        if op == "write":
            return await settled(area.write(pos, bytes.fromhex(request["data"]), fence=fence))
        if op == "fill":
            return await settled(area.fill(pos, request["len"], request["value"], fence=fence))
        return await self.do_word(op, area, pos, request)

    async def do_word(self, op: str, area: Any, pos: int, request: dict[str, Any]) -> Any:
        word_type = request["type"]
        fence = request.get("fence")
        if op == "bitwise":
            method = getattr(area, f"bitwise_{request['operator']}_{word_type}")
            return await settled(method(pos, request["operand"], fence=fence))
        method = getattr(area, f"{op}_{word_type}")
        if op == "load":
            return await settled(method(pos))
        if op == "store":
            return await settled(method(pos, request["value"], fence=fence))
        if op == "add":
            return await settled(method(pos, *([request["delta"]] if "delta" in request else []), fence=fence))
        result = await settled(
            method(pos, expected=request["expected"], desired=request["desired"], fence=fence)
        )
        return {"exchanged": result.exchanged, "found": result.found}


async def serve(program: Program) -> None:
    await program.connect()
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "end":
            break
        print(json.dumps(await program.answer(request)), flush=True)
    await program.watches.close()
    if program.client is not None:
        await settled(program.client.close())


if __name__ == "__main__":
    asyncio.run(serve(Program(sys.argv[1], "--aio" in sys.argv)))
