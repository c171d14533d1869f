"""The dicts of a batch: the verbs of SharedDict that are one operation, noted in place of carried out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast

from . import _local, errors
from ._batch_operations import note_answer, note_call
from ._cursor import Place, check_bytes, check_text
from ._dict_calls import OPERATIONS_MAX, DictCalls
from ._dict_verbs import MISSING, DictEntry, DictVerbs, Edited, Verb, condition_of, ttl_ms
from ._local import Noted, Operation
from ._plan import Plan, PlanOutcome

_Result = TypeVar("_Result")


class BatchDict(_local.BatchDict, DictVerbs):
    """A dict of a batch: ``batch.dict(name)``. The methods are those of SharedDict that are one operation each; they note it and give it
    back as an Operation, whose ``result()`` is what SharedDict's method would return or raise. Values are ordinary objects.

    What is wrong with an argument is raised at once, and then nothing is noted. There is no ``bound`` here, no ``wait``, and nothing
    that takes several calls. Threads: one at a time, as for the batch.
    """

    # What is noted all the time is the extension's; it calls back what it leaves to Python.

    def __new__(cls, noted: Noted, name: str, place: int, any_keys: bool) -> BatchDict:
        """Not for users: Batch.dict() makes it. ``place`` is that among the batch's names; -1: it has no room for this one."""
        made = super().__new__(cls, noted, place, any_keys)
        made._noted = noted
        made._calls = DictCalls(name)
        return made

    _noted: Noted
    _calls: DictCalls

    @property
    def name(self) -> str:
        return self._calls.name

    def __repr__(self) -> str:
        return f"<statehouse dict {self.name} of a batch>"

    def _run(self, verb: Verb[_Result]) -> Operation[_Result]:
        """Notes the one request of a verb."""
        try:
            request = next(verb)
        except StopIteration as stop:
            return note_answer(self._noted, stop.value)
        call, read = getattr(self._calls, request[0])(*request[1:])
        return note_call(self._noted, call, read, verb)

    # One entry.

    def _get_with(self, key: Any, default: Any = None) -> Operation[Any]:
        return self._run(self._get(key, default))

    def _contains_with(self, key: Any) -> Operation[bool]:
        return self._run(self._contains(key))

    def _version_with(self, key: Any) -> Operation[int]:
        return self._run(self._version(key))

    def entry(self, key: Any) -> Operation[DictEntry | None]:
        """All that is known of an entry."""
        return self._run(self._get_entry(key))

    def fetch(self, key: Any, *path: Any) -> Operation[Any]:
        """A value or a part of it. Its result: KeyNotFound, PathNotFound."""
        return self._run(self._fetch(key, path))

    def ttl(self, key: Any) -> Operation[float | None]:
        """How many seconds an entry will live; None: for ever. Its result: KeyNotFound."""
        return self._run(self._ttl(key))

    def _set_with(
        self,
        key: Any,
        value: Any,
        *,
        ttl: Any = None,
        if_absent: bool = False,
        if_present: bool = False,
        if_version: int | None = None,
        if_value: Any = MISSING,
        fence: int | None = None,
    ) -> Operation[bool]:
        condition = condition_of("set()", if_absent, if_present, if_version, if_value)
        milliseconds = ttl_ms(ttl)
        if self._is_short and condition is None and fence is None and milliseconds >= 0:
            return self._set_for(key, value, milliseconds)
        return self._run(self._set(key, value, ttl, if_absent, if_present, if_version, fence, if_value))

    def exchange(
        self,
        key: Any,
        value: Any,
        *,
        ttl: Any = None,
        if_absent: bool = False,
        if_present: bool = False,
        if_version: int | None = None,
        if_value: Any = MISSING,
        fence: int | None = None,
    ) -> Operation[tuple[bool, DictEntry | None]]:
        """``set`` that also gives the entry as it was before."""
        condition = condition_of("exchange()", if_absent, if_present, if_version, if_value)
        return self._run(self._exchange(key, value, ttl, fence, condition))

    def add(self, key: Any, value: Any, *, ttl: Any = None) -> Operation[bool]:
        """Sets an entry that does not exist; False where it does."""
        return self._run(self._set(key, value, ttl, if_absent=True))

    def replace(self, key: Any, old: Any, new: Any) -> Operation[bool]:
        """Sets an entry that holds exactly ``old``; False where it does not."""
        return self._run(self._replace(key, old, new))

    def setdefault(self, key: Any, default: Any = None) -> Operation[Any]:
        """The value; where there is none it is set to ``default`` first."""
        return self._run(self._setdefault(key, default))

    def delete(
        self, key: Any, *, if_version: int | None = None, if_value: Any = MISSING, fence: int | None = None
    ) -> Operation[bool]:
        """Deletes an entry; False where there is none, or it has another version or value."""
        return self._run(self._delete(key, if_version, fence, if_value))

    def pop(self, key: Any, default: Any = MISSING) -> Operation[Any]:
        """Deletes an entry and gives its value. Its result: KeyNotFound without a ``default``."""
        return self._run(self._pop(key, default))

    def _incr_with(
        self,
        key: Any,
        delta: Any = 1,
        *,
        path: Sequence[Any] = (),
        default: Any = 0,
        min: Any = None,
        max: Any = None,
        ttl: Any = None,
        fence: int | None = None,
    ) -> Operation[Any]:
        return self._run(self._incr(key, delta, path, default, min, max, ttl, fence))

    def append(self, key: Any, value: Any, *, create: bool = True) -> Operation[int]:
        """Adds to the end of the list that the key holds, and gives its length."""
        return self.at(key).append(value, create=create)

    def touch(self, key: Any, ttl: Any) -> Operation[bool]:
        """Changes how long an entry lives from now on, in seconds or a timedelta; False where there is none."""
        return self._run(self._touch(key, ttl))

    def at(self, key: Any, *path: Any) -> BatchPlace:
        """A place inside the dict."""
        return BatchPlace(self, key, path)

    # Many entries.

    def get_many(self, keys: Iterable[Any], *, consistent: bool = False) -> Operation[dict[Any, Any]]:
        """The entries that exist, by key; at most 1,024 keys. See SharedDict.get_many."""
        keys = list(keys)
        self._check_count(len(set(map(self._key, keys))))
        return self._run(self._get_many(keys, consistent))

    def set_many(self, mapping: Any, *, ttl: Any = None, fence: int | None = None) -> Operation[None]:
        """Sets up to 1,024 entries, all or none."""
        return self._set_all(dict(mapping), ttl, fence)

    def update(self, other: Any = (), /, **more: Any) -> Operation[None]:
        """Sets up to 1,024 entries, all or none."""
        return self._set_all(dict(other, **more), None, None)

    def _set_all(self, items: dict[Any, Any], ttl: Any, fence: int | None) -> Operation[None]:
        self._check_count(len(items))
        return self._run(self._set_many(items, {}, ttl, fence))

    def _check_count(self, count: int) -> None:
        if count > OPERATIONS_MAX:
            raise errors.by_name(
                "LIMIT_EXCEEDED",
                f'dict "{self.name}": {count} entries in one operation of a batch; at most {OPERATIONS_MAX:,} are allowed',
                self.name,
            )

    def length(self) -> Operation[int]:
        """How many entries there are: ``len(d)``."""
        return self._run(self._ask("length"))

    def clear(self) -> Operation[None]:
        """Deletes every entry at once."""
        return self._run(self._cleared())

    def delete_all(self) -> Operation[int]:
        """``clear`` that gives how many entries there were."""
        return self._run(self._ask("clear"))

    def delete_prefix(self, prefix: str) -> Operation[int]:
        """Deletes every entry whose key begins with ``prefix``, each by itself, and gives how many."""
        return self._run(self._ask("delete_prefix", prefix))

    def transact(self, plan: Plan) -> Operation[PlanOutcome]:
        """Carries a plan out as one operation, all or nothing. See SharedDict.transact."""
        return self._run(plan._carry_out(self))

    def _ask(self, *request: Any) -> Verb[Any]:
        return (yield request)

    def _cleared(self) -> Verb[None]:
        yield ("clear",)


class BatchPlace(Place):
    """A place inside a dict of a batch: the methods of Cursor that are one operation each, noted. ``edit("remove", value)`` is
    ``remove``, whose result is PathNotFound where there is no such item."""

    __slots__ = ()

    def _note(self, verb: Verb[_Result]) -> Operation[_Result]:
        return cast("Operation[_Result]", self._shared._run(verb))

    def at(self, *path: Any) -> BatchPlace:
        """A place further in."""
        return BatchPlace(self._shared, self._key, self._path + path)

    def get(self, default: Any = None) -> Operation[Any]:
        """What is there, or ``default`` where there is nothing."""
        return self._note(self._get(default))

    def fetch(self) -> Operation[Any]:
        """What is there. Its result: KeyNotFound, PathNotFound."""
        return self._note(self._fetch())

    def exists(self) -> Operation[bool]:
        """Whether there is anything."""
        return self._note(self._exists())

    def set(self, value: Any, *, create: bool = False, if_version: int | None = None) -> Operation[None]:
        """Puts a value there."""
        return self._note(self._set(value, create, if_version))

    def setdefault(self, default: Any = None, *, create: bool = False) -> Operation[Any]:
        """What is there; where there is nothing, ``default`` is put there first."""
        return self._note(self._setdefault(default, create))

    def delete(self, *, if_version: int | None = None) -> Operation[bool]:
        """Takes away what is there; False where there is nothing."""
        return self._note(self._delete(if_version))

    def pop(self, default: Any = MISSING, *, if_version: int | None = None) -> Operation[Any]:
        """Takes away what is there and gives it."""
        return self._note(self._pop(default, if_version))

    def incr(self, delta: Any = 1, *, default: Any = 0, min: Any = None, max: Any = None) -> Operation[Any]:
        """Adds to the number there and gives the new one."""
        return self._note(self._incr(delta, default, min, max))

    def append(self, value: Any, *, create: bool = False) -> Operation[int]:
        """Adds to the end of the list there, and gives its length."""
        return self._note(self._length("append", value, create=create))

    def extend(self, values: Iterable[Any], *, create: bool = False) -> Operation[int]:
        """Adds several to the end of the list there, and gives its length."""
        return self._note(self._length("extend", list(values), create=create))

    def insert(self, index: int, value: Any, *, if_version: int | None = None) -> Operation[int]:
        """Inserts before a position of the list there, and gives its length."""
        return self._note(self._length("insert", value, start=index, if_version=if_version))

    def update(self, other: Any = (), /, **more: Any) -> Operation[None]:
        """Sets keys of the dict there, all at once."""
        return self._note(self._change("merge", dict(other, **more)))

    def clear(self) -> Operation[None]:
        """Empties the list or dict there."""
        return self._note(self._change("clear"))

    def append_text(self, text: str, *, create: bool = False) -> Operation[int]:
        """Adds to the end of the text there, and gives its length in bytes of UTF-8."""
        return self._note(self._length("append_string", check_text(text), create=create))

    def append_bytes(self, data: bytes, *, create: bool = False) -> Operation[int]:
        """Adds to the end of the bytes there, and gives their number."""
        return self._note(self._length("append_bytes", check_bytes(data), create=create))

    def edit(
        self,
        kind: str,
        value: Any = MISSING,
        *,
        start: int = 0,
        stop: int | None = None,
        create: bool = False,
        if_version: int | None = None,
        fence: int | None = None,
    ) -> Operation[Edited]:
        """Any edit with all of its options. See Cursor.edit."""
        return self._note(self._edit_as(kind, value, start, stop, create, if_version, fence))
