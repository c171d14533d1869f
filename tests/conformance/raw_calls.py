#!/usr/bin/env python3
"""Sends any request message to any verb, also those that no client can make. Usage: raw_calls.py local|network.

Reads one JSON object per line and answers like a client's program (README.md). {"op": "call", "verb": "Areas/LoadWord",
"request": {the message as protobuf's JSON}, "timeout_ms": n}; "bytes" (hexadecimal digits) in place of "request" is sent as
it is. {"op": "connect", "token": ...} as in every program. A success gives {"ok": null}, or with "show": "locks.*.name" what
stands there in the response: durations in ms, "*" for each of a list, with "only": {"name": "a"} for those that are so.

{"op": "begin", "as": "a", ...} is such a call by a thread of its own; {"op": "answer", "as": "a"} waits for it and tells its result.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import statehouse
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from statehouse._control import Call
from statehouse.v1 import admin_pb2, area_pb2, batch_pb2, dict_pb2, lock_pb2, session_pb2, transaction_pb2

SERVICES = {
    "Admin": admin_pb2, "Areas": area_pb2, "Batches": batch_pb2, "Dicts": dict_pb2, "Locks": lock_pb2, "Sessions": session_pb2,
}  # fmt: skip
CALLS_MAX = 8  # That wait at once.


class Bytes:
    """A request that is no message."""

    def __init__(self, text: str) -> None:
        self._bytes = bytes.fromhex(text)

    def SerializeToString(self) -> bytes:
        return self._bytes


def call_of(request: dict[str, Any]) -> Call:
    service, verb = request["verb"].split("/")
    module: Any = transaction_pb2 if verb == "TransactDict" else SERVICES[service]
    known = hasattr(module, f"{verb}Request")
    response_type = getattr(module, f"{verb}Response") if known else admin_pb2.GetStatusResponse
    if "bytes" in request:
        message: Any = Bytes(request["bytes"])
    else:
        message = json_format.ParseDict(request["request"], getattr(module, f"{verb}Request")())
    return Call(f"/statehouse.v1.{service}/{verb}", message, response_type, False)


def shown(response: Any, path: list[str], only: dict[str, Any]) -> Any:
    """What stands at a path of a response."""
    if not path:
        return response.ToMilliseconds() if isinstance(response, Duration) else response
    if path[0] == "*":
        wanted = [item for item in response if all(getattr(item, field) == value for field, value in only.items())]
        return [shown(item, path[1:], {}) for item in wanted]
    item = response[int(path[0])] if path[0].isdigit() else getattr(response, path[0])
    return shown(item, path[1:], only)


class Program:
    """Holds the client."""

    def __init__(self, door: str) -> None:
        self._door = door
        self._token = os.environ["STATEHOUSE_TOKEN"]
        self._client: Any = None
        self._threads = ThreadPoolExecutor(CALLS_MAX)
        self._begun: dict[str, Future[Any]] = {}

    def connect(self, token: str | None) -> None:
        if self._client is not None:
            self._client.close()
        self._client = statehouse.connect(transport=self._door, token=token or self._token)
        self._client.status()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": self.do(request["op"], request)}
        except statehouse.Error as error:
            return {"error": error.reason, "retryable": error.retryable}

    def do(self, op: str, request: dict[str, Any]) -> Any:
        if op == "connect":
            return self.connect(request.get("token"))
        if op == "begin":
            self._begun[request["as"]] = self._threads.submit(self._send, request, True)
            return None
        response = self._begun.pop(request["as"]).result() if op == "answer" else self._send(request, False)
        return shown(response, request["show"].split("."), request.get("only", {})) if "show" in request else None

    def close(self) -> None:
        self._client.close()
        self._threads.shutdown()

    def _send(self, request: dict[str, Any], long_running: bool) -> Any:
        call = call_of(request)
        timeout = request.get("timeout_ms", 5000) / 1000
        session = self._client._session
        if self._door == "network":
            return session.call(call, timeout)
        response = session.call(call.method, call.request.SerializeToString(), timeout, False, "", long_running)
        return call.response_type.FromString(response)


def main() -> None:
    program = Program(sys.argv[1])
    program.connect(None)
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "end":
            break
        print(json.dumps(program.answer(request)), flush=True)
    program.close()


if __name__ == "__main__":
    main()
