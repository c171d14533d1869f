"""Watches of dicts: what changes in a dict, in order, from where one left off."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from . import _local, errors
from ._control import Call
from ._watch import RESYNC_REASONS, WINDOW_S_MAX, AsyncWatching, Watching
from ._watch_follow import opener

WATCH_DICT = "/statehouse.v1.Dicts/WatchDict"
KINDS = ("put", "delete", "expire", "evict")
SLOW_POLICIES = ("resync", "latest", "cancel")
CONNECTION_LOST = "connection lost"
_READ_AHEAD = 16  # Messages; beyond them the service keeps the changes.
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)

# Kind, key, value (None, a number or wire bytes), version, revision, value gone, Unix time in ms.
FollowedChange = tuple[int, str, Any, int, int, bool, int]


class WatchEvent(NamedTuple):
    """What a watch tells.

    ``kind``: "entry" (of the snapshot), "put", "delete", "expire", "evict", "synced" (everything as of ``revision`` was told), "resync"
    (changes are missing, ``reason`` says why: forget what was told; a snapshot and "synced" follow) or "progress".
    ``revision``: the change's place in the order of all changes of the dict; 0 for "entry" and "resync". ``value`` is None where there is
    none: ``value_gone`` says that it was not known any more. ``coalesced``: older changes of the key were left out. ``previous``, where it
    was asked for: the value that the key had before this change and those that were left out for it, None where it was absent;
    ``previous_gone`` says that it is not known.
    """

    kind: str
    key: Any = None
    value: Any = None
    version: int = 0
    revision: int = 0
    value_gone: bool = False
    coalesced: bool = False
    reason: str = ""
    time: datetime.datetime | None = None
    previous: Any = None
    previous_gone: bool = False


class WatchOptions(NamedTuple):
    prefix: str
    key: str | None
    snapshot: bool
    from_revision: int | None
    keys_only: bool
    kinds: tuple[str, ...]
    slow: str
    progress: float | None
    window: float
    previous: bool


def check_options(
    prefix: str,
    key: str | None,
    snapshot: bool,
    from_revision: int | None,
    keys_only: bool,
    kinds: Iterable[str] | None,
    slow: str,
    progress: Any,
    window: Any,
    previous: bool,
) -> WatchOptions:
    """Raises InvalidArgument or TypeError for what no service would take."""
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a str, not {type(prefix).__name__}")
    if prefix and key is not None:
        raise _invalid("give a key or a prefix, not both")
    if from_revision is not None and (not isinstance(from_revision, int) or not 0 < from_revision < 1 << 64):
        raise _invalid(f"from_revision is {from_revision!r}; use the revision of an earlier event")
    chosen = tuple(() if kinds is None else (kinds,) if isinstance(kinds, str) else kinds)
    for kind in chosen:
        if kind not in KINDS:
            raise _invalid(f"{kind!r} is no kind of change; use {', '.join(KINDS)}")
    if slow not in SLOW_POLICIES:
        raise _invalid(f"slow is {slow!r}; use {', '.join(SLOW_POLICIES)}")
    if isinstance(progress, datetime.timedelta):
        progress = progress.total_seconds()
    if progress is not None and not 0.1 <= progress <= 3600:
        raise _invalid(f"progress is {progress} s; use 0.1 to 3600 seconds")
    if isinstance(window, datetime.timedelta):
        window = window.total_seconds()
    if not 0 <= window <= WINDOW_S_MAX:
        raise _invalid(f"window is {window} s; use 0 to {WINDOW_S_MAX} seconds")
    if previous and keys_only:
        raise _invalid("previous values are none with keys_only; leave one of the two out")
    return WatchOptions(
        prefix, key, snapshot, from_revision, keys_only, chosen, slow, progress, window, previous
    )


def _invalid(why: str) -> errors.Error:
    return errors.by_name("INVALID_ARGUMENT", f"watching a dict: {why}", "")


def _watch_pb2() -> Any:
    from .v1 import watch_pb2 as module

    return module


class DictPoint(NamedTuple):
    revision: int  # 0: at the beginning.

    def take(self, message: Any) -> DictPoint:
        return DictPoint(message.revision) if message.revision or message.HasField("resync") else self

    def at(self, revision: int) -> DictPoint:
        return DictPoint(revision)

    def put(self, request: Any) -> None:
        if self.revision:
            request.from_revision = self.revision
        else:
            request.ClearField("from_revision")


class Reader:
    """What a watch of a dict knows of its place."""

    read_ahead = _READ_AHEAD

    def __init__(
        self, name: str, options: WatchOptions, from_key: Callable[[str], Any], mapped: _local.Dict | None = None
    ) -> None:
        """``mapped``: the dict through the local door."""
        self.name = name
        self._options = options
        self._from_key = from_key
        self.revision = options.from_revision or 0
        self._told_entries = False  # Since the snapshot began, and "synced" did not come yet.
        # The rest is what the service does for a watch.
        is_plain = not options.previous and not options.window and options.slow != "latest"
        self.open_follow = opener(
            mapped if is_plain else None,
            options.key,
            options.prefix,
            sum(1 << KINDS.index(kind) + 1 for kind in set(options.kinds)),
            options.keys_only,
            options.progress,
        )

    def call(self) -> Call:
        pb = _watch_pb2()
        options = self._options
        request = pb.WatchDictRequest(
            name=self.name,
            skip_snapshot=not options.snapshot,
            keys_only=options.keys_only,
            kinds=[KINDS.index(kind) + 1 for kind in options.kinds],
            slow_policy=SLOW_POLICIES.index(options.slow) + 1,
            previous=options.previous,
            follows_rings=self.open_follow is not None and self.open_follow.follows_rings,
        )
        if options.key is not None:
            request.key = options.key
        elif options.prefix:
            request.prefix = options.prefix
        self.point.put(request)
        if options.progress is not None:
            request.progress_interval.FromMilliseconds(round(options.progress * 1000))
        if options.window:
            request.window.FromMicroseconds(round(options.window * 1_000_000))
        return Call(WATCH_DICT, request, pb.WatchDictResponse, True, self.name)

    @property
    def point(self) -> DictPoint:
        return DictPoint(self.revision)

    def pass_by(self, revision: int) -> None:
        self.revision = revision

    def _followed(self, revision: int, changes: list[FollowedChange]) -> Iterator[WatchEvent]:
        """A portion of a DictFollow."""
        for kind, key, value, version, at, value_gone, time_ms in changes:
            self.revision = at
            if isinstance(value, bytes):
                try:
                    value = _local.decode_value(value)
                except errors.DataLoss:  # A worker of the host stored what is no value.
                    value, value_gone = None, True
            yield WatchEvent(
                KINDS[kind - 1],
                self._from_key(key),
                value,
                version,
                at,
                value_gone,
                time=_EPOCH + datetime.timedelta(milliseconds=time_ms),
            )
        self.revision = revision
        if not changes:
            yield WatchEvent("progress", revision=revision)

    def events(self, message: Any) -> Iterator[WatchEvent]:
        if isinstance(message, tuple):
            yield from self._followed(*message)
            return
        which = message.WhichOneof("event")
        if which == "snapshot":
            self._told_entries = True
            for entry in message.snapshot.entries:
                yield WatchEvent(
                    "entry", self._from_key(entry.key), self._value(entry, "value"), version=entry.version
                )
        elif which == "changes":
            self._told_entries = self._told_entries or not self.revision
            for change in message.changes.changes:
                if message.revision:
                    self.revision = change.revision
                yield WatchEvent(
                    KINDS[change.kind - 1],
                    self._from_key(change.key),
                    self._value(change, "value"),
                    version=change.version,
                    revision=change.revision,
                    value_gone=change.value_gone,
                    coalesced=change.coalesced,
                    time=change.time.ToDatetime(datetime.timezone.utc),
                    previous=self._value(change, "previous"),
                    previous_gone=change.previous_gone,
                )
        elif which == "synced":
            self._told_entries = False
            self.revision = message.revision
            yield WatchEvent("synced", revision=message.revision)
        elif which == "resync":
            self._told_entries = False
            self.revision = 0
            yield WatchEvent("resync", reason=RESYNC_REASONS[message.resync.reason])
        elif which == "progress" and self._options.progress is not None:
            self.revision = message.revision
            yield WatchEvent("progress", revision=message.revision)
        if message.revision:
            self.revision = message.revision

    def _value(self, holder: Any, field: str) -> Any:
        if not holder.HasField(field):
            return None
        return _local.decode_value(getattr(holder, field).SerializeToString())

    def after_break(self) -> Iterator[WatchEvent]:
        if self._told_entries and not self.revision:
            self._told_entries = False
            yield WatchEvent("resync", reason=CONNECTION_LOST)


class Watch(Watching[WatchEvent]):
    """The changes of a dict, as they are made: ``for event in d.watch("web/")``. Also a context manager, which closes it.

    It goes on by itself over a restart of the service and a broken connection, from its last ``revision``, without a gap or a repeat; where
    that cannot be it says "resync". Who owns it: whoever began it; close() or the end of ``with`` ends it. Threads: one at a time reads it;
    close() from any. In a forked child it goes on from the revision that it had, on a connection of its own.

    Errors, raised where the next event would be: NotFound (the dict was deleted), PermissionDenied, Unauthenticated, LimitExceeded (too
    many watches; or with ``slow="cancel"`` it fell behind), ClientClosed.
    """

    _reader: Reader

    @property
    def revision(self) -> int:
        """Where a later watch goes on (``from_revision``); 0 before "synced" and after "resync"."""
        return self._reader.revision


class AsyncWatch(AsyncWatching[WatchEvent]):
    """Watch for asyncio: ``async for event in d.watch("web/")``, ``async with``.

    Cancelling a task that waits for the next event loses none.
    """

    _reader: Reader

    @property
    def revision(self) -> int:
        """Where a later watch goes on (``from_revision``); 0 before "synced" and after "resync"."""
        return self._reader.revision
