"""The conformance program of the Python package: one request a line on stdin, one answer a line on stdout.

clients/SPEC.md describes the lines; tests/conformance/run.py writes and judges them.
"""

from __future__ import annotations

import sys
from typing import Any

import statehouse

_PLAIN = frozenset(range(0x21, 0x7F)) - frozenset(b"%,=")
_BACKINGS = {"memory": 1, "file": 2, "descriptor": 3}

clients: dict[str, statehouse.Client] = {}
areas: dict[str, Any] = {}


def encode(text: str) -> str:
    return "".join(chr(b) if b in _PLAIN else f"%{b:02x}" for b in text.encode())


def decode(text: str) -> str:
    out = bytearray()
    at = 0
    while at < len(text):
        if text[at] == "%":
            out.append(int(text[at + 1 : at + 3], 16))
            at += 3
        else:
            out += text[at].encode()
            at += 1
    return out.decode()


def optional(text: str) -> int | None:
    return None if text == "-" else int(text)


def info_fields(info: statehouse.AreaInfo) -> dict[str, Any]:
    return {
        "name": encode(info.name),
        "size": info.size,
        "index": info.index,
        "updates": info.updates,
        "atomic_range_bytes": info.atomic_range_bytes,
        "offset": info.offset,
        "backing": _BACKINGS[info.backing],
    }


def connect(slot: str, url: str, token: str, timeout_ms: str) -> dict[str, Any]:
    clients[slot] = statehouse.connect(
        decode(url),
        token=None if token == "-" else decode(token),
        timeout=int(timeout_ms) / 1000,
    )
    return {"transport": clients[slot].transport}


def close(slot: str) -> dict[str, Any]:
    clients[slot].close()
    return {}


def reset() -> dict[str, Any]:
    for client in clients.values():
        client.close()
    clients.clear()
    areas.clear()
    return {}


def create(
    slot: str, name: str, size: str, pages: str, exclusive: str, file: str
) -> dict[str, Any]:
    info = clients[slot].areas.create(
        decode(name),
        size=optional(size),
        pages=optional(pages),
        exclusive=exclusive == "1",
        file=None if file == "-" else decode(file),
    )
    return info_fields(info)


def describe(slot: str, name: str) -> dict[str, Any]:
    return info_fields(clients[slot].areas.describe(decode(name)))


def delete(slot: str, name: str) -> dict[str, Any]:
    clients[slot].areas.delete(decode(name))
    return {}


def list_areas(slot: str, prefix: str) -> dict[str, Any]:
    infos = clients[slot].areas.list(prefix=decode(prefix))
    return {"names": ",".join(encode(info.name) for info in infos)}


def status(slot: str) -> dict[str, Any]:
    found = clients[slot].status()
    return {
        "daemon_pid": found.daemon_pid,
        "generation": found.generation,
        "draining": found.draining,
    }


def open_area(slot: str, handle: str, name: str, size: str) -> dict[str, Any]:
    areas[handle] = clients[slot].area(decode(name), size=optional(size))
    return {"name": encode(areas[handle].name), "size": areas[handle].size}


def read(handle: str, pos: str, length: str) -> dict[str, Any]:
    return {"bytes": areas[handle].read(int(pos), int(length)).hex()}


def write(handle: str, pos: str, data: str) -> dict[str, Any]:
    areas[handle].write(int(pos), bytes.fromhex(data))
    return {}


def fill(handle: str, pos: str, length: str, value: str) -> dict[str, Any]:
    areas[handle].fill(int(pos), int(length), int(value))
    return {}


def word(handle: str, verb: str, word_type: str) -> Any:
    if not hasattr(areas[handle], f"{verb}_{word_type}"):
        raise InexpressibleError(f"{verb}_{word_type}")
    return getattr(areas[handle], f"{verb}_{word_type}")


def load(handle: str, word_type: str, pos: str) -> dict[str, Any]:
    return {"value": word(handle, "load", word_type)(int(pos))}


def store(handle: str, word_type: str, pos: str, value: str) -> dict[str, Any]:
    word(handle, "store", word_type)(int(pos), int(value))
    return {}


def add(handle: str, word_type: str, pos: str, delta: str) -> dict[str, Any]:
    return {"value": word(handle, "add", word_type)(int(pos), int(delta))}


def compare_exchange(
    handle: str, word_type: str, pos: str, expected: str, desired: str
) -> dict[str, Any]:
    result = word(handle, "compare_exchange", word_type)(int(pos), int(expected), int(desired))
    return {"exchanged": result.exchanged, "found": result.found}


def bitwise(
    handle: str, word_type: str, pos: str, operator: str, operand: str
) -> dict[str, Any]:
    return {"value": word(handle, f"bitwise_{operator}", word_type)(int(pos), int(operand))}


def updates(handle: str) -> dict[str, Any]:
    return {"updates": areas[handle].updates}


def wait(handle: str, since: str, timeout_ms: str) -> dict[str, Any]:
    changed = areas[handle].wait(int(since), timeout=int(timeout_ms) / 1000)
    return {"changed": changed, "updates": areas[handle].updates}


def view(handle: str, pos: str, length: str) -> dict[str, Any]:
    data = areas[handle].memoryview()
    return {"bytes": bytes(data[int(pos) : int(pos) + int(length)]).hex()}


class InexpressibleError(Exception):
    """The request has no counterpart in this client's interface."""


_VERBS = {
    "connect": connect,
    "close": close,
    "reset": reset,
    "create": create,
    "describe": describe,
    "delete": delete,
    "list": list_areas,
    "status": status,
    "open": open_area,
    "read": read,
    "write": write,
    "fill": fill,
    "load": load,
    "store": store,
    "add": add,
    "compare_exchange": compare_exchange,
    "bitwise": bitwise,
    "updates": updates,
    "wait": wait,
    "view": view,
}


def answer(line: str) -> str:
    verb, *arguments = line.split("\t")
    try:
        results = _VERBS[verb](*arguments)
    except InexpressibleError as error:
        return f"error\tINEXPRESSIBLE\tmessage={encode(str(error))}"
    except statehouse.Error as error:
        facts = [
            f"name={encode(error.name)}",
            f"retryable={int(error.retryable)}",
            f"message={encode(error.message)}",
        ]
        return "\t".join(["error", error.reason, *facts])
    shown = (
        f"{key}={int(value) if isinstance(value, bool) else value}"
        for key, value in results.items()
    )
    return "\t".join(["ok", *shown])


def main() -> None:
    for line in sys.stdin:
        print(answer(line.rstrip("\n")), flush=True)
    reset()


if __name__ == "__main__":
    main()
