"""Batches in the conformance program."""

from __future__ import annotations

from typing import Any

import statehouse
import value_json
from dict_ops import Request, settled

_AREA_STEPS = {"add": "add_u64", "load": "load_u64", "store": "store_u64"}


def note(batch: Any, step: Request) -> Any:
    """Notes one step: its operation, and whether its result is a value."""
    what, name = step.get("do"), step.get("name")
    if what in _AREA_STEPS:
        method = getattr(batch.area(name), _AREA_STEPS[what])
        amount = [step.get("amount", 0)] if what != "load" else []
        return method(step.get("pos", 0), *amount)
    shared, key = batch.dict(name), step.get("key")
    if what == "get":
        return shared.get(key)
    if what == "set":
        return shared.set(key, step.value("value"))
    if what == "delete":
        return shared.delete(key)
    if what == "append":
        return shared.append(key, step.value("value"))
    return shared.incr(key, step.value("delta") if step.has("delta") else 1)


async def run_batch(client: Any, members: dict[str, Any]) -> list[Any]:
    """What each step of a batch gave, or {"error": reason}."""
    steps = Request(members).each("steps")
    batch = client.batch(stop_at_failure=bool(members.get("stop", 0)))
    for step in steps:
        note(batch, step)
    results = await settled(batch.run(raise_errors=False))
    shown: list[Any] = []
    for step, result in zip(steps, results, strict=True):
        if isinstance(result, statehouse.Error):
            shown.append({"error": result.reason})
        elif step.get("do") == "get" and result is not None:
            shown.append(value_json.to_json(result))
        else:
            shown.append(result)
    return shown
