"""The verbs of a dict, once for every door and for asyncio.

A verb is a generator: it yields requests (the name of a method of DictCalls and its arguments), is sent their answers, and
returns the result. SharedDict carries requests out where they are yielded; AsyncSharedDict awaits them.
"""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from . import _keys, _local, errors
from ._dict_calls import OPERATIONS_MAX, TTL_DEFAULT, TTL_KEEP, TTL_NONE, Entry

_Result = TypeVar("_Result")
Verb = Generator[tuple[Any, ...], Any, _Result]

KEYS_PAGE = 10_000  # Keys of one page of a scan.
VALUES_PAGE = 256  # Entries of one page of an iteration.
TRIES = 50  # Of what others can make fail by being faster.
_INT64 = range(-(1 << 63), 1 << 63)
MISSING: Any = object()


class _Keep:
    def __repr__(self) -> str:
        return "statehouse.KEEP_TTL"


KEEP_TTL: Any = _Keep()
"""A ttl: as long as the entry that is replaced would have lived."""


@dataclass(frozen=True)
class Edited:
    """What one edit did: ``result`` is what ``delete`` and ``pop`` took away and what ``set_default`` found or put there (None for the
    other kinds), ``length`` that of the list, dict, text or bytes that was edited (0 where it is none), ``version`` the entry's now."""

    result: Any
    length: int
    version: int


@dataclass(frozen=True)
class DictEntry:
    """An entry: its value as an ordinary object, its version, how many seconds it will live (None: for ever), and the number of the
    session that it ends with (0: it is not bound)."""

    key: Any
    value: Any
    version: int
    ttl: float | None
    fence: int
    ordinal: int
    bound_session: int = 0


def ttl_ms(ttl: Any) -> int:
    """None is the dict's default, math.inf for ever."""
    if ttl is None:
        return TTL_DEFAULT
    if ttl is KEEP_TTL:
        return TTL_KEEP
    seconds = ttl.total_seconds() if isinstance(ttl, datetime.timedelta) else ttl
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"a ttl must be a number of seconds or a timedelta, not {type(ttl).__name__}")
    if seconds == math.inf:
        return TTL_NONE
    if not 0 < seconds < 1 << 33:
        raise errors.by_name(
            "INVALID_ARGUMENT", f"a ttl of {ttl!r}: it must be more than 0 and at most 2^33 seconds; for ever is math.inf"
        )
    return max(1, math.ceil(seconds * 1000))


def timeout_seconds(timeout: Any) -> float:
    """Infinite for None."""
    if timeout is None:
        return math.inf
    seconds = timeout.total_seconds() if isinstance(timeout, datetime.timedelta) else timeout
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"a timeout must be a number of seconds or a timedelta, not {type(timeout).__name__}")
    if not seconds >= 0:
        raise errors.by_name("INVALID_ARGUMENT", f"a timeout of {timeout!r}: it must be 0 or more seconds")
    return float(seconds)


def whole(number: Any, what: str) -> int:
    """A version or fence: an int of 0 … 2^64 - 1."""
    if not isinstance(number, int):
        raise TypeError(f"{what} must be an int, not {type(number).__name__}")
    if not 0 <= number < 1 << 64:
        raise errors.by_name("INVALID_ARGUMENT", f"{what} is {number}; it must be 0 or more and below 2^64")
    return int(number)


def condition_of(
    verb: str, absent: bool, present: bool, version: int | None, value: Any
) -> tuple[str, Any] | None:
    """The condition of a write as requests have it, but for the value, which is not encoded yet; None: there is none."""
    if bool(absent) + bool(present) + (version is not None) + (value is not MISSING) > 1:
        raise TypeError(f"{verb} takes one of its conditions, not several")
    if absent or present:
        return "absent" if absent else "present", True
    if version is not None:
        return "version", whole(version, "the version")
    return None if value is MISSING else ("value", value)


def check_numbers(delta: Any, default: Any, low: Any, high: Any) -> tuple[Any, Any, bool, Any, Any]:
    """What an increment's request takes: delta, initial, must_exist, low and high, all of delta's kind."""
    made: list[Any] = []
    for number in (delta, default, low, high):
        if number is not None and not isinstance(number, (int, float)):
            raise TypeError(f"incr() takes numbers, not {type(number).__name__}")
        if number is not None and isinstance(delta, float):
            number = float(number)
        elif isinstance(number, float):
            raise errors.by_name(
                "INVALID_ARGUMENT", f"incr(): delta {delta!r} is an int, and {number!r} is not; to count in floats write {delta}.0"
            )
        elif number is not None and number not in _INT64:
            raise errors.by_name("VALUE_OUT_OF_RANGE", f"incr() by {number}: it must fit 64 bits")
        made.append(number if number is None or isinstance(number, float) else int(number))
    return made[0], made[1], made[1] is None, made[2], made[3]


class DictVerbs:
    """Verbs on one dict. Nothing here touches a connection. Threads: any at once; there is no state but the name."""

    @property
    def name(self) -> str:
        """The dict's name."""
        raise NotImplementedError

    @property
    def _any_keys(self) -> bool:
        """Whether keys may be other than texts."""
        raise NotImplementedError

    def _key(self, key: Any) -> str:
        return _keys.encode_key(key) if self._any_keys else _keys.check_key(key)

    def _from_key(self, text: str) -> Any:
        return _keys.decode_key(text) if self._any_keys else text

    def _wire(self, value: Any) -> bytes:
        return _local.encode_value(value, self._any_keys)

    def _value(self, text: str, entry: Entry) -> Any:
        """What reading an entry gives; a client that tracks changes overrides it."""
        return _local.decode_value(entry[0])

    def _entry(self, text: str, entry: Entry) -> DictEntry:
        return DictEntry(self._from_key(text), _local.decode_value(entry[0]), *entry[1:])

    def _condition(self, condition: tuple[str, Any] | None) -> tuple[str, Any] | None:
        """A condition with its value encoded."""
        if condition is None or condition[0] != "value":
            return condition
        return "value", self._wire(condition[1])

    def _missing(self, key: Any) -> errors.Error:
        return _keys.missing(self.name, key)

    # One entry.

    def _get(self, key: Any, default: Any) -> Verb[Any]:
        text = self._key(key)
        entry = yield "get", text
        return default if entry is None else self._value(text, entry)

    def _getitem(self, key: Any) -> Verb[Any]:
        found = yield from self._get(key, MISSING)
        if found is MISSING:
            raise self._missing(key)
        return found

    def _contains(self, key: Any) -> Verb[bool]:
        entry = yield "get", self._key(key)
        return entry is not None

    def _get_entry(self, key: Any) -> Verb[DictEntry | None]:
        text = self._key(key)
        entry = yield "get", text
        return None if entry is None else self._entry(text, entry)

    def _fetch(self, key: Any, path: Sequence[Any]) -> Verb[Any]:
        entry = yield "get", self._key(key), check_path(path)
        if entry is None:
            raise self._missing(key)
        return _local.decode_value(entry[0])

    def _set(
        self,
        key: Any,
        value: Any,
        ttl: Any = None,
        if_absent: bool = False,
        if_present: bool = False,
        if_version: int | None = None,
        fence: int | None = None,
        if_value: Any = MISSING,
    ) -> Verb[bool]:
        condition = condition_of("set()", if_absent, if_present, if_version, if_value)
        applied, _, _ = yield from self._set_request(key, value, condition, ttl, fence, False)
        return bool(applied)

    def _exchange(
        self, key: Any, value: Any, ttl: Any, fence: int | None, condition: tuple[str, Any] | None
    ) -> Verb[tuple[bool, DictEntry | None]]:
        applied, _, previous = yield from self._set_request(key, value, condition, ttl, fence, True)
        return bool(applied), None if previous is None else self._entry(self._key(key), previous)

    def _set_request(
        self, key: Any, value: Any, condition: tuple[str, Any] | None, ttl: Any, fence: int | None, previous: bool
    ) -> Verb[Any]:
        request = self._key(key), self._wire(value), self._condition(condition), ttl_ms(ttl), fence_of(fence)
        return (yield "set", *request, previous)

    def _setdefault(self, key: Any, default: Any) -> Verb[Any]:
        text, wire = self._key(key), self._wire(default)
        applied, version, previous = yield "set", text, wire, ("absent", True), TTL_DEFAULT, 0, True
        if applied or previous is None:
            return self._value(text, (wire, version, None, 0, 0, 0))
        return self._value(text, previous)

    def _replace(self, key: Any, old: Any, new: Any) -> Verb[bool]:
        return (yield from self._set(key, new, KEEP_TTL, if_value=old))

    def _delete(
        self, key: Any, if_version: int | None, fence: int | None, if_value: Any = MISSING
    ) -> Verb[bool]:
        condition = self._condition(condition_of("delete()", False, False, if_version, if_value))
        applied, _, _ = yield "delete", self._key(key), condition, fence_of(fence), False
        return bool(applied)

    def _delitem(self, key: Any) -> Verb[None]:
        if not (yield from self._delete(key, None, None)):
            raise self._missing(key)

    def _pop(self, key: Any, default: Any) -> Verb[Any]:
        _, _, previous = yield "delete", self._key(key), None, 0, True
        if previous is not None:
            return _local.decode_value(previous[0])
        if default is MISSING:
            raise self._missing(key)
        return default

    def _popitem(self) -> Verb[tuple[Any, Any]]:
        # From the end: what others took meanwhile is passed over, so that each entry goes to one caller and nobody has to begin again
        # while there is anything left.
        for _ in range(TRIES):
            keys = yield from self._keys_by_ordinal()
            if not keys:
                raise KeyError(f'popitem(): dict "{self.name}" is empty')
            for text, _ in reversed(keys):
                applied, _, previous = yield "delete", text, None, 0, True
                if applied and previous is not None:
                    return self._from_key(text), _local.decode_value(previous[0])
        raise self._too_busy("popitem()")

    def _incr(
        self,
        key: Any,
        delta: Any = 1,
        path: Sequence[Any] = (),
        default: Any = 0,
        min: Any = None,
        max: Any = None,
        ttl: Any = None,
        fence: int | None = None,
    ) -> Verb[Any]:
        request = self._key(key), check_path(path), *check_numbers(delta, default, min, max)
        number, _ = yield "increment", *request, ttl_ms(ttl), fence_of(fence)
        return number

    def _touch(self, key: Any, ttl: Any) -> Verb[bool]:
        if ttl is None:
            raise TypeError("touch() takes a ttl; math.inf is for ever")
        applied, _ = yield "touch", self._key(key), ttl_ms(ttl)
        return bool(applied)

    def _ttl(self, key: Any) -> Verb[float | None]:
        entry = yield "get", self._key(key)
        if entry is None:
            raise self._missing(key)
        ttl: float | None = entry[2]
        return ttl

    def _version(self, key: Any) -> Verb[int]:
        return (yield from self._version_of(self._key(key)))

    def _version_of(self, text: str) -> Verb[int]:
        entry = yield "get", text
        return 0 if entry is None else entry[1]

    def _wait(
        self,
        key: Any,
        absent: bool,
        version_above: int | None,
        version_differs: int | None,
        value: Any,
        path: Sequence[Any],
        timeout: Any,
    ) -> Verb[DictEntry | None]:
        """Each request waits as long as its door sees fit, and at most as long as it says."""
        text = self._key(key)
        kind, what = self._wait_of(absent, version_above, version_differs, value)
        steps = check_path(path)
        deadline = time.monotonic() + timeout_seconds(timeout)
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            met, entry = yield "wait", text, kind, what, steps, left
            if met:
                return None if entry is None else self._entry(text, entry)
            if time.monotonic() >= deadline:
                raise errors.by_name(
                    "TIMEOUT", f'dict "{self.name}": key {key!r} was not as asked within {timeout} s', self.name
                )

    def _wait_of(
        self, absent: bool, version_above: int | None, version_differs: int | None, value: Any
    ) -> tuple[str, Any]:
        if bool(absent) + (version_above is not None) + (version_differs is not None) + (value is not MISSING) > 1:
            raise TypeError("wait() takes one of absent, version_above, version_differs and value, not several")
        if absent:
            return "absent", True
        if version_above is not None:
            return "version_above", whole(version_above, "version_above")
        if version_differs is not None:
            return "version_differs", whole(version_differs, "version_differs")
        return ("present", True) if value is MISSING else ("value", self._wire(value))

    def _edit(
        self,
        key: Any,
        path: Sequence[Any],
        kind: str,
        value: Any = MISSING,
        start: int = 0,
        stop: int = (1 << 63) - 1,
        create: bool = False,
        if_version: int | None = None,
        fence: int | None = None,
    ) -> Verb[Edited]:
        """One edit at a path."""
        wire = None if value is MISSING else self._wire(value)
        version = 0 if if_version is None else whole(if_version, "if_version")
        request = self._key(key), check_path(path), kind, wire, start, stop, create, version
        version, result, length = yield "edit", *request, fence_of(fence)
        return Edited(None if result is None else _local.decode_value(result), length, version)

    # Many entries.

    def _get_many(self, keys: Iterable[Any], consistent: bool) -> Verb[dict[Any, Any]]:
        texts = list(dict.fromkeys(self._key(key) for key in keys))
        found: dict[Any, Any] = {}
        if consistent and len(texts) > OPERATIONS_MAX:
            raise errors.by_name(
                "LIMIT_EXCEEDED",
                f'dict "{self.name}": {len(texts)} keys as of one moment; at most {OPERATIONS_MAX:,} are allowed',
                self.name,
            )
        for part in _parts(texts, OPERATIONS_MAX):
            entries = yield "get_many", part, consistent
            for text, entry in entries:
                found[self._from_key(text)] = self._value(text, entry)
        return found

    def _set_many(self, mapping: Any, more: Mapping[str, Any], ttl: Any, fence: int | None) -> Verb[None]:
        # A mapping or pairs, as dict takes them; the last of equal keys wins.
        items = {self._key(key): self._wire(value) for key, value in dict(mapping, **more).items()}
        for part in _parts(list(items.items()), OPERATIONS_MAX):
            yield "set_many", part, ttl_ms(ttl), fence_of(fence)

    def _keys_by_ordinal(self, prefix: str = "") -> Verb[list[tuple[str, int]]]:
        """(text, version) of every key in the order of insertion."""
        found: dict[str, tuple[int, int]] = {}
        cursor: Any = None
        while True:
            entries, cursor = yield "scan", cursor, prefix, KEYS_PAGE, True
            for text, entry in entries:
                found[text] = (entry[4], entry[1])
            if cursor is None:
                break
        return [(text, found[text][1]) for text in sorted(found, key=found.__getitem__)]

    def _page(self, texts: Sequence[str]) -> Verb[list[tuple[str, Entry]]]:
        """The entries of some keys that are still there."""
        entries: list[tuple[str, Entry]] = yield "get_many", texts, False
        return entries

    def _scan_page(self, cursor: Any, prefix: str, limit: int) -> Verb[tuple[list[tuple[Any, Any]], Any]]:
        entries, cursor = yield "scan", cursor, prefix, limit, False
        return [(self._from_key(text), self._value(text, entry)) for text, entry in entries], cursor

    def _copy(self) -> Verb[dict[Any, Any]]:
        keys = yield from self._keys_by_ordinal()
        copy: dict[Any, Any] = {}
        for part in _parts([text for text, _ in keys], VALUES_PAGE):
            for text, entry in (yield from self._page(part)):
                copy[self._from_key(text)] = _local.decode_value(entry[0])
        return copy

    def _snapshot(self) -> Verb[dict[Any, Any]]:
        keys = yield from self._keys_by_ordinal()
        before: list[tuple[str, Entry]] | None = None
        for _ in range(TRIES):
            texts = [text for text, _ in keys]
            entries: list[tuple[str, Entry]] = []
            for part in _parts(texts, OPERATIONS_MAX):
                entries += yield "get_many", part, True
            # Keys that came or went meanwhile would be missing in it, or from it.
            keys = yield from self._keys_by_ordinal()
            is_whole = [text for text, _ in keys] == texts and len(entries) == len(texts)
            # One page is of one moment. Several are when each entry is as it was in the round before: then they were all so between the
            # rounds.
            if is_whole and (len(texts) <= OPERATIONS_MAX or (before is not None and _versions(before) == _versions(entries))):
                return {self._from_key(text): _local.decode_value(entry[0]) for text, entry in entries}
            before = entries
        raise self._too_busy("snapshot()")

    def _too_busy(self, what: str) -> errors.Error:
        return errors.by_name(
            "CONFLICT", f'dict "{self.name}": {what}: others add and delete keys all the time; try again', self.name
        )


def check_path(path: Sequence[Any]) -> tuple[Any, ...]:
    """Steps into a value: texts for the keys of dicts, ints for the positions of lists."""
    if isinstance(path, str):
        raise TypeError(f'a path is a sequence of steps; write ("{path}",)')
    for step in path:
        if isinstance(step, bool) or not isinstance(step, (str, int)):
            raise TypeError(f"a step of a path must be a str or an int, not {type(step).__name__}")
        if isinstance(step, int) and step not in _INT64:
            raise IndexError(f"the step {step} of a path is no position")
    return tuple(path)


def _versions(entries: list[tuple[str, Entry]]) -> list[tuple[str, int]]:
    return [(text, entry[1]) for text, entry in entries]


def fence_of(fence: int | None) -> int:
    return 0 if fence is None else whole(fence, "fence")


def _parts(items: list[Any], size: int) -> Iterable[list[Any]]:
    return (items[at : at + size] for at in range(0, len(items), size))
