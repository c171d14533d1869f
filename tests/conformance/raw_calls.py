#!/usr/bin/env python3
"""Sends any request message to any verb, also those that no client can make. Usage: raw_calls.py local|network.

Reads one JSON object per line and answers like a client's program (README.md). {"op": "call", "verb": "Areas/LoadWord",
"request": {the message as protobuf's JSON}, "timeout_ms": n}; "bytes" (hexadecimal digits) in place of "request" is sent as
it is. {"op": "connect", "token": ...} as in every program. A success gives {"ok": null}.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import statehouse
from google.protobuf import json_format
from statehouse._control import Call
from statehouse.v1 import admin_pb2, area_pb2

SERVICES = {"Areas": area_pb2, "Admin": admin_pb2}


class Bytes:
    """A request that is no message."""

    def __init__(self, text: str) -> None:
        self._bytes = bytes.fromhex(text)

    def SerializeToString(self) -> bytes:
        return self._bytes


def call_of(request: dict[str, Any]) -> Call:
    service, verb = request["verb"].split("/")
    module: Any = SERVICES[service]
    known = hasattr(module, f"{verb}Request")
    response_type = getattr(module, f"{verb}Response") if known else admin_pb2.GetStatusResponse
    if "bytes" in request:
        message: Any = Bytes(request["bytes"])
    else:
        message = json_format.ParseDict(request["request"], getattr(module, f"{verb}Request")())
    return Call(f"/statehouse.v1.{service}/{verb}", message, response_type, False)


class Program:
    """Holds the client."""

    def __init__(self, door: str) -> None:
        self._door = door
        self._token = os.environ["STATEHOUSE_TOKEN"]
        self._client: Any = None

    def connect(self, token: str | None) -> None:
        if self._client is not None:
            self._client.close()
        self._client = statehouse.connect(transport=self._door, token=token or self._token)
        self._client.status()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            if request["op"] == "connect":
                self.connect(request.get("token"))
            else:
                self._send(call_of(request), request.get("timeout_ms", 5000) / 1000)
            return {"ok": None}
        except statehouse.Error as error:
            return {"error": error.reason, "retryable": error.retryable}

    def close(self) -> None:
        self._client.close()

    def _send(self, call: Call, timeout: float) -> None:
        session = self._client._session
        if self._door == "local":
            session.call(call.method, call.request.SerializeToString(), timeout, False, "")
        else:
            session.call(call, timeout)


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
