"""The calls on one dict as messages: builds requests and takes answers apart, for every door that takes calls.

What goes in and out here is what the extension's own dict takes and gives as well, so that the verbs (_dict_verbs.py) work over
any door: keys as texts, values as wire bytes, an entry as a tuple (wire bytes, version, seconds to live or None, fence, ordinal, the
session that it is bound to or 0), a condition as (kind, what) or None, a time to live in milliseconds with the three special numbers
below, a path as a tuple of str and int.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ._control import Call

DICTS = "/statehouse.v1.Dicts/"
TTL_DEFAULT, TTL_NONE, TTL_KEEP = 0, -1, -2
WAIT_SLICE_S = 60.0  # A longer wait takes several calls.
OPERATIONS_MAX = 1024  # Compares and steps of one transaction, entries of one call.

Entry = tuple[bytes, int, "float | None", int, int, int]
Read = Callable[[Any], Any]


@functools.cache
def dict_pb2() -> Any:
    """The generated messages, imported at the first call."""
    from .v1 import dict_pb2 as module

    return module


def _module_of(method: str) -> Any:
    return _pb()[2 if method == "TransactDict" else 0]


@functools.cache
def _pb() -> tuple[Any, Any, Any, Any]:
    from .v1 import dict_pb2, entry_pb2, transaction_pb2, value_pb2

    return dict_pb2, entry_pb2, transaction_pb2, value_pb2


class _Session:
    """Names mutations one after another: the service remembers the last few of each session."""

    __slots__ = ("number", "sequence", "pid")

    def __init__(self) -> None:
        self.number = secrets.randbits(63) + 1
        self.sequence = 0
        self.pid = os.getpid()


# Sessions that no mutation is using. A mutation has one to itself until it is over, so that it is always among the last of its
# session, however many other threads and tasks do meanwhile. A forked child begins with none.
_idle_sessions: list[_Session] = []
os.register_at_fork(after_in_child=_idle_sessions.clear)


@contextlib.contextmanager
def numbered(count: int) -> Iterator[tuple[int, int]]:
    """Around the sending of mutations, however often they are sent: a session's number, and the first of ``count`` sequence numbers."""
    try:
        session = _idle_sessions.pop()
    except IndexError:
        session = _Session()
    first = session.sequence + 1
    session.sequence += count
    try:
        yield session.number, first
    finally:
        if session.pid == os.getpid():
            _idle_sessions.append(session)


@contextlib.contextmanager
def named(call: Call) -> Iterator[None]:
    """Around the sending of a call, however often it is sent: names the mutation, so that the service carries it out once."""
    if not hasattr(call.request, "operation_id"):
        yield
        return
    with numbered(1) as (session, sequence):
        call.request.operation_id.session = session
        call.request.operation_id.sequence = sequence
        yield


def call_timeout(request: tuple[Any, ...], timeout: float) -> float:
    """How long a request's call may take, where others may take ``timeout`` seconds."""
    return timeout + min(request[-1], WAIT_SLICE_S) if request[0] == "wait" else timeout


def _set_ttl(request: Any, ttl: int) -> None:
    if ttl == TTL_NONE:
        request.ttl.none = True
    elif ttl == TTL_KEEP:
        request.ttl.keep = True
    elif ttl != TTL_DEFAULT:
        request.ttl.duration.FromMilliseconds(ttl)


def _set_condition(condition: Any, wanted: tuple[str, Any] | None) -> None:
    if wanted is None:
        return
    kind, what = wanted
    if kind == "value":
        condition.value.MergeFromString(what)
    else:
        setattr(condition, kind, what)


def _entry(entry: Any) -> Entry:
    ttl = entry.ttl.seconds + entry.ttl.nanos / 1e9 if entry.HasField("ttl") else None
    return entry.value.SerializeToString(), entry.version, ttl, entry.fence, entry.ordinal, entry.bound_session


def _optional(message: Any, field: str) -> Entry | None:
    return _entry(getattr(message, field)) if message.HasField(field) else None


class DictCalls:
    """Each method is a request: (call, how to read the answer)."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _call(self, method: str, request: Any, read: Read, idempotent: bool) -> tuple[Call, Read]:
        response_type = getattr(_module_of(method), f"{method}Response")
        return Call(DICTS + method, request, response_type, idempotent, self.name), read

    def _mutation(self, method: str, request: Any, read: Read) -> tuple[Call, Read]:
        # It gets a name where it is sent (`named`), so it may be sent again.
        return self._call(method, request, read, True)

    def _path(self, path: Sequence[Any]) -> list[Any]:
        step = _pb()[3].PathStep
        return [step(key=at) if isinstance(at, str) else step(index=at) for at in path]

    def _value(self, wire: bytes) -> Any:
        return _pb()[3].Value.FromString(wire)

    def get(self, key: str, path: Sequence[Any] = ()) -> tuple[Call, Read]:
        request = dict_pb2().GetEntryRequest(name=self.name, key=key, path_steps=self._path(path))
        return self._call("GetEntry", request, lambda answer: _optional(answer, "entry"), True)

    def wait(self, key: str, kind: str, what: Any, path: Sequence[Any], seconds: float) -> tuple[Call, Read]:
        request = dict_pb2().WaitEntryRequest(name=self.name, key=key, path_steps=self._path(path))
        if kind == "value":
            request.value.MergeFromString(what)
        else:
            setattr(request, kind, what)
        request.timeout.FromNanoseconds(int(min(seconds, WAIT_SLICE_S) * 1e9))
        return self._call("WaitEntry", request, lambda answer: (answer.met, _optional(answer, "entry")), True)

    def get_many(self, keys: Sequence[str], consistent: bool) -> tuple[Call, Read]:
        request = dict_pb2().GetEntriesRequest(name=self.name, keys=keys, consistent=consistent)

        def read(answer: Any) -> Any:
            return [(entry.key, _entry(entry)) for entry in answer.entries]

        return self._call("GetEntries", request, read, True)

    def scan(self, cursor: Any, prefix: str, limit: int, keys_only: bool) -> tuple[Call, Read]:
        request = dict_pb2().ScanEntriesRequest(
            name=self.name, prefix=prefix, page_size=limit, page_token=cursor or "", keys_only=keys_only
        )

        def read(answer: Any) -> Any:
            entries = [(entry.key, _entry(entry)) for entry in answer.entries]
            return entries, answer.next_page_token or None

        return self._call("ScanEntries", request, read, True)

    def set(
        self,
        key: str,
        wire: bytes,
        condition: tuple[str, Any] | None,
        ttl: int,
        fence: int,
        previous: bool,
        bind_session: int = 0,
    ) -> tuple[Call, Read]:
        request = dict_pb2().SetEntryRequest(
            name=self.name,
            key=key,
            value=self._value(wire),
            fence=fence,
            return_previous=previous,
            bind_session=bind_session,
        )
        _set_condition(request.condition, condition)
        _set_ttl(request, ttl)
        return self._mutation("SetEntry", request, _applied)

    def set_many(
        self, items: Sequence[tuple[str, bytes]], ttl: int, fence: int, bind_session: int = 0
    ) -> tuple[Call, Read]:
        entry = _pb()[1].Entry
        request = dict_pb2().SetEntriesRequest(
            name=self.name,
            entries=[entry(key=key, value=self._value(wire)) for key, wire in items],
            fence=fence,
            bind_session=bind_session,
        )
        _set_ttl(request, ttl)
        return self._mutation("SetEntries", request, lambda answer: list(answer.versions))

    def delete(
        self, key: str, condition: tuple[str, Any] | None, fence: int, previous: bool
    ) -> tuple[Call, Read]:
        request = dict_pb2().DeleteEntryRequest(
            name=self.name, key=key, fence=fence, return_previous=previous
        )
        _set_condition(request.condition, condition)
        return self._mutation("DeleteEntry", request, _applied)

    def increment(
        self,
        key: str,
        path: Sequence[Any],
        delta: Any,
        initial: Any,
        must_exist: bool,
        low: Any,
        high: Any,
        ttl: int,
        fence: int,
    ) -> tuple[Call, Read]:
        request = dict_pb2().IncrementEntryRequest(
            name=self.name, key=key, path_steps=self._path(path), must_exist=must_exist, fence=fence
        )
        _set_numbers(request, delta, initial, low, high)
        _set_ttl(request, ttl)
        return self._mutation("IncrementEntry", request, _number_and_version)

    def edit(
        self,
        key: str,
        path: Sequence[Any],
        kind: str,
        wire: bytes | None,
        start: int,
        stop: int,
        create: bool,
        if_version: int,
        fence: int,
    ) -> tuple[Call, Read]:
        request = dict_pb2().EditEntryRequest(
            name=self.name,
            key=key,
            path_steps=self._path(path),
            create_parents=create,
            if_version=if_version,
            fence=fence,
        )
        _EDITS[kind](request.edit, None if wire is None else self._value(wire), start, stop)
        return self._mutation("EditEntry", request, _edited)

    def touch(self, key: str, ttl: int) -> tuple[Call, Read]:
        request = dict_pb2().TouchEntryRequest(name=self.name, key=key)
        _set_ttl(request, ttl)
        return self._mutation("TouchEntry", request, lambda answer: (answer.applied, answer.version))

    def delete_prefix(self, prefix: str) -> tuple[Call, Read]:
        request = dict_pb2().DeletePrefixRequest(name=self.name, prefix=prefix)
        return self._call("DeletePrefix", request, lambda answer: answer.deleted, False)

    def clear(self) -> tuple[Call, Read]:
        request = dict_pb2().ClearDictRequest(name=self.name)
        return self._call("ClearDict", request, lambda answer: answer.deleted, False)

    def length(self) -> tuple[Call, Read]:
        return self.describe(lambda answer: answer.dict.entries)

    def describe(self, read: Read = lambda answer: answer.dict) -> tuple[Call, Read]:
        request = dict_pb2().DescribeDictRequest(name=self.name)
        return self._call("DescribeDict", request, read, True)

    def transact(
        self,
        compares: Sequence[tuple[str, tuple[str, Any]]],
        then: Sequence[tuple[Any, ...]],
        otherwise: Sequence[tuple[Any, ...]],
    ) -> tuple[Call, Read]:
        """Steps: ("get", key), ("set", key, wire, condition, ttl, fence), ("delete", key, condition, fence) and ("increment", key, delta,
        initial, must_exist, low, high, ttl, fence). The answer: whether the compares held, and (version, entry or None, number or None)
        of each step that was carried out."""
        request = _pb()[2].TransactDictRequest(name=self.name)
        for key, condition in compares:
            compare = request.compares.add(key=key)
            _set_condition(compare.condition, condition)
        for steps, added in ((then, request.then_steps), (otherwise, request.else_steps)):
            for kind, *rest in steps:
                _STEPS[kind](added.add(), *rest)

        def read(answer: Any) -> Any:
            return answer.compared, [_step_result(result) for result in answer.results]

        return self._mutation("TransactDict", request, read)


def _applied(answer: Any) -> Any:
    return answer.applied, answer.version, _optional(answer, "previous")


def _number_and_version(answer: Any) -> Any:
    return getattr(answer.value, answer.value.WhichOneof("kind")), answer.version


def _edited(answer: Any) -> Any:
    result = answer.result.SerializeToString() if answer.HasField("result") else None
    return answer.version, result, answer.length


def _set_numbers(request: Any, delta: Any, initial: Any, low: Any, high: Any) -> None:
    for field, number in (("delta", delta), ("initial", initial), ("min", low), ("max", high)):
        if isinstance(number, int):
            getattr(request, field).int_value = number
        elif number is not None:
            getattr(request, field).float_value = number


def _step_result(result: Any) -> Any:
    kind = result.value.WhichOneof("kind")
    return result.version, _optional(result, "entry"), None if kind is None else getattr(result.value, kind)


def _get_step(step: Any, key: str) -> None:
    step.get = key


def _set_step(step: Any, key: str, wire: bytes, condition: Any, ttl: int, fence: int) -> None:
    step.set.key, step.set.fence = key, fence
    step.set.value.MergeFromString(wire)
    _set_condition(step.set.condition, condition)
    _set_ttl(step.set, ttl)


def _delete_step(step: Any, key: str, condition: Any, fence: int) -> None:
    step.delete.key, step.delete.fence = key, fence
    _set_condition(step.delete.condition, condition)


def _increment_step(
    step: Any, key: str, delta: Any, initial: Any, must_exist: bool, low: Any, high: Any, ttl: int, fence: int
) -> None:
    step.increment.key, step.increment.must_exist, step.increment.fence = key, must_exist, fence
    _set_numbers(step.increment, delta, initial, low, high)
    _set_ttl(step.increment, ttl)


_STEPS: dict[str, Callable[..., None]] = {
    "get": _get_step, "set": _set_step, "delete": _delete_step, "increment": _increment_step,
}  # fmt: skip


def _flag(field: str) -> Callable[[Any, Any, int, int], None]:
    return lambda edit, value, start, stop: setattr(edit, field, True)


def _copy(field: str) -> Callable[[Any, Any, int, int], None]:
    return lambda edit, value, start, stop: getattr(edit, field).CopyFrom(value)


def _insert(edit: Any, value: Any, start: int, stop: int) -> None:
    edit.insert.index = start
    edit.insert.value.CopyFrom(value)


def _slice(edit: Any, value: Any, start: int, stop: int) -> None:
    edit.slice.start, edit.slice.stop = start, stop
    edit.slice.values.extend(value.list_value.values)


def _extend(edit: Any, value: Any, start: int, stop: int) -> None:
    edit.extend.SetInParent()
    edit.extend.values.extend(value.list_value.values)


def _merge(edit: Any, value: Any, start: int, stop: int) -> None:
    edit.merge.SetInParent()
    edit.merge.MergeFrom(value.map_value)


_EDITS: dict[str, Callable[[Any, Any, int, int], None]] = {
    "set": _copy("set"),
    "delete": _flag("delete"),
    "append": _copy("append"),
    "extend": _extend,
    "insert": _insert,
    "pop": _flag("pop"),
    "remove": _copy("remove"),
    "merge": _merge,
    "clear": _flag("clear"),
    "slice": _slice,
    "set_default": _copy("set_default"),
    "append_string": lambda edit, value, *_: setattr(edit, "append_string", value.string_value),
    "append_bytes": lambda edit, value, *_: setattr(edit, "append_bytes", value.bytes_value),
}
