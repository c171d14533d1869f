"""Where a tracked value stands: the entry that it was read from, and the steps to it."""

from __future__ import annotations

from typing import Any, cast

from . import _local, errors

_END = (1 << 63) - 1


class Root:
    """An entry that was read: the shared dict, the key's text, and the version that the copy agrees with."""

    __slots__ = ("shared", "key", "version", "stale")
    parent = None
    step = None

    def __init__(self, shared: Any, key: str, version: int) -> None:
        self.shared = shared
        self.key = key
        self.version = version
        self.stale = False  # Others changed the entry since: positions may mean other items.

    def edit(
        self,
        path: tuple[Any, ...],
        kind: str,
        wire: bytes | None = None,
        start: int = 0,
        stop: int = _END,
        *,
        by_position: bool = False,
    ) -> Any:
        """Carries out one edit. What `pop`, `delete` and `set_default` give: wire bytes or None."""
        if by_position or any(isinstance(step, int) for step in path):
            if self.stale:
                raise errors.by_name(
                    "CONFLICT",
                    f'dict "{self.shared.name}": others changed key {self.key!r} since it was read, so positions '
                    "may mean other items: read it again",
                    self.shared.name,
                )
            version, result, _ = self._send(path, kind, wire, start, stop, self.version)
        elif self.stale:
            version, result, _ = self._send(path, kind, wire, start, stop, 0)
        else:
            try:
                version, result, _ = self._send(path, kind, wire, start, stop, self.version)
            except errors.Conflict:
                self.stale = True
                version, result, _ = self._send(path, kind, wire, start, stop, 0)
        self.version = version
        return result

    def replace(self, path: tuple[Any, ...], wire: bytes, version: int) -> int:
        """Puts a value in place of what is at the path, if the entry still has that version. Its new version."""
        return cast(int, self._send(path, "set", wire, 0, _END, version)[0])

    def _send(
        self, path: tuple[Any, ...], kind: str, wire: bytes | None, start: int, stop: int, version: int
    ) -> Any:
        request = ("edit", self.key, path, kind, wire, start, stop, False, version, 0)
        return self.shared._do(request)

    def encode(self, value: Any) -> bytes:
        return _local.encode_value(value, self.shared._any_keys)


class Node:
    """Where a tracked container stands inside another one. `augmented`: it was changed by an operator such as +=, after which Python
    assigns it to the place that it came from."""

    __slots__ = ("parent", "step")

    def __init__(self, parent: Any, step: Any) -> None:
        self.parent = parent
        self.step = step
