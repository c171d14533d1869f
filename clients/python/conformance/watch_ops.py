"""The operations on watches of the conformance program."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import statehouse
from dict_ops import settled
from value_json import to_json

_PATIENCE_S = 60.0
_QUIET_S = 0.1  # For what must not come.
WATCH_OPS = {"watch_area", "watch_dict", "next_event", "no_event", "watch_place", "close_watch"}


def told(event: Any) -> dict[str, Any]:
    """An event without what differs between runs."""
    facts = {"kind": event.kind}
    if isinstance(event, statehouse.AreaEvent):
        if event.kind in ("snapshot", "change"):
            facts |= {"pos": event.pos, "len": event.len, "more": event.more}
            if event.data is not None:
                facts["data"] = event.data.hex()
    elif event.key is not None:
        facts |= {"key": event.key}
        for field in ("value", "previous"):
            if getattr(event, field) is not None:
                facts[field] = json.loads(json.dumps(to_json(getattr(event, field))))
        if event.previous_gone:
            facts["previous_gone"] = True
    if event.reason:
        facts["reason"] = event.reason
    return facts


class WatchOps:
    """One watch at a time, of either client. What is wrong with it is told by next_event."""

    def __init__(self) -> None:
        self._watch: Any = None
        self._failure: statehouse.Error | None = None

    async def do(self, client: Any, op: str, name: str, request: dict[str, Any]) -> Any:
        if op in ("watch_area", "watch_dict"):
            await self.close()
            try:
                begin = self._watch_area if op == "watch_area" else self._watch_dict
                self._watch = await begin(client, name, request)
            except statehouse.Error as error:
                self._failure = error
            return None
        if op == "close_watch":
            return await self.close()
        if self._failure is not None:
            raise self._failure
        if op == "watch_place":
            return self._watch.updates if request["show"] == "updates" else self._watch.incarnation
        event = await self._next(_QUIET_S if op == "no_event" else _PATIENCE_S)
        return None if event is None else told(event)

    async def _next(self, seconds: float) -> Any:
        if isinstance(self._watch, (statehouse.AreaWatch, statehouse.Watch)):
            return self._watch.next(seconds)
        try:
            return await asyncio.wait_for(self._watch.next(), seconds)
        except asyncio.TimeoutError:
            return None

    async def _watch_area(self, client: Any, name: str, request: dict[str, Any]) -> Any:
        area = await settled(client.area(name))
        options = {option: bool(request[option]) for option in ("snapshot", "ranges_only") if option in request}
        options |= {f: request[f] for f in ("from_updates", "from_incarnation") if f in request}
        for option in ("window", "progress"):
            if f"{option}_ms" in request:
                options[option] = request[f"{option}_ms"] / 1000
        return area.watch(request.get("pos", 0), request.get("len"), **options)

    async def _watch_dict(self, client: Any, name: str, request: dict[str, Any]) -> Any:
        d = await settled(client.dict(name, create=False))
        options = {option: request[option] for option in ("key", "slow") if option in request}
        flags = ("snapshot", "keys_only", "previous")
        options |= {option: bool(request[option]) for option in flags if option in request}
        if "window_ms" in request:
            options["window"] = request["window_ms"] / 1000
        return d.watch(request.get("prefix", ""), **options)

    async def close(self) -> None:
        if self._watch is not None:
            await settled(self._watch.close())
        self._watch = self._failure = None
