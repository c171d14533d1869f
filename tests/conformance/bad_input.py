"""The table of bad input, bad_input.json, as cases: see README.md, "Bad input"."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from service import HERE

Case = tuple[str, dict[str, Any]]
TABLE: dict[str, Any] = json.loads((HERE / "bad_input.json").read_text())
BOUNDS = {"$n255": "n" * 255, "$n256": "n" * 256}


def spelled_out(value: Any) -> Any:
    """Names at the limit are written as $n255 and $n256."""
    if isinstance(value, dict):
        return {key: spelled_out(item) for key, item in value.items()}
    return BOUNDS.get(value, value) if isinstance(value, str) else value


def case_of(row: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
    then = {key: row[key] for key in ("error", "or_inexpressible", "retryable") if key in row}
    return {"given": TABLE["given"], "when": spelled_out(step), "then": then, "unchanged": "$area"}


def client_cases() -> list[Case]:
    """For every client's program."""
    cases = []
    for row in TABLE["clients"]:
        for op in row["ops"]:
            step = {"op": op, "name": "$area", **row["with"]}
            cases.append((f"bad_input: {op}: {row['why']}", case_of(row, step)))
    return cases


def raw_cases() -> list[Case]:
    """For raw_calls.py: whole messages. Fails when a field of a request is in no row."""
    cases = []
    for row in TABLE["messages"]:
        for verb in row["verbs"]:
            step: dict[str, Any] = {"op": "call", "verb": verb}
            if "bytes" in row:
                step["bytes"] = row["bytes"]
            else:
                step["request"] = {**TABLE["good"].get(verb, {}), **row["with"]}
                step["request"] = {k: v for k, v in step["request"].items() if v is not None}
            if "timeout_ms" in row:
                step["timeout_ms"] = row["timeout_ms"]
            case = case_of(row, step)
            of_locks = verb.startswith(("Locks/", "Sessions/"))
            made = TABLE["messages_given"] + (TABLE["locks_given"] if of_locks else []) + row.get("given", [])
            case["given"] = [{"op": "call", "verb": verb, "request": message, **dict(*more)} for verb, message, *more in made]
            if "token" in row:
                case["given"].append({"op": "connect", "token": row["token"]})
            cases.append((f"bad_input: {verb}: {row['why']}", case))
    return cases


def uncovered() -> Iterator[str]:
    """Every field of every request that no row spoils, nor `harmless` excuses; and excuses of nothing."""
    from statehouse.v1 import admin_pb2, area_pb2, lock_pb2, session_pb2

    spoiled = {(verb, field) for row in TABLE["messages"] for verb in row["verbs"] for field in row.get("with", {})}
    harmless = {tuple(entry.rsplit(".", 1)) for entry in TABLE["harmless"]}
    fields = set()
    for module, name in ((area_pb2, "Areas"), (admin_pb2, "Admin"), (lock_pb2, "Locks"), (session_pb2, "Sessions")):
        for method in module.DESCRIPTOR.services_by_name[name].methods:
            verb = f"{name}/{method.name}"
            if method.server_streaming:
                continue  # Calls do not reach it; watch_cases/ has its bad input.
            if not any(verb in row["verbs"] for row in TABLE["messages"]):
                yield f"{verb} has no row"
            fields |= {(verb, field.name) for field in method.input_type.fields}
    for verb, field in sorted(fields - spoiled - harmless):
        yield f"{verb}: no row spoils the field {field}"
    for verb, field in sorted((spoiled | harmless) - fields):
        yield f"{verb}: there is no field {field}"
    for verb, field in sorted(spoiled & harmless):
        yield f"{verb}: the field {field} is called harmless, and a row spoils it"
