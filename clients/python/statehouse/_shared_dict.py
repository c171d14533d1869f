"""SharedDict: a dict that every worker sees, through either door."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, NoReturn, TypeVar, cast

from . import _local, _tracked, _tracked_root, errors
from ._cursor import Cursor
from ._dict_calls import DictCalls, Entry, call_timeout, named
from ._dict_verbs import MISSING, VALUES_PAGE, DictEntry, DictVerbs, Verb, _parts, condition_of
from ._dict_views import SharedItemsView, SharedKeysView, SharedValuesView
from ._plan import Plan, PlanOutcome
from ._transaction import Transaction, rerun
from ._dict_watch import Reader, Watch, WatchEvent, check_options

_Result = TypeVar("_Result")
_REPR_ENTRIES = 100  # More are shown as "…".
_SCAN_PAGE = 256


class SharedDict(DictVerbs, MutableMapping[Any, Any]):
    """A dict whose entries every process that opens its name shares. Each method is one atomic operation unless it says otherwise.

    It behaves as dict does: insertion order, ``in``, ``len``, ``==``, ``|``, views, ``popitem`` from the end. What differs: values are
    stored, not referenced, so a list comes back as a tracked list of this entry (``d["a"].append(1)`` changes the entry), and what others
    do shows at once. ``d["n"] += 1`` reads and then writes; use ``incr``.

    Iterating never fails because of others: it yields the keys that were there when it began, without those deleted meanwhile.
    ``len`` counts entries whose time to live ended and that were not removed yet.

    Who owns it: whoever opened it; it needs no closing. Threads and forked children: any at once. Errors: KeyNotFound (a KeyError),
    InvalidArgument for keys and values that cannot be stored, NotFound when the dict was deleted, LimitExceeded and MemoryExhausted
    when it is full, ReadOnly and PermissionDenied, ClientClosed; over the network also Timeout and Unavailable, after which a
    mutation may have happened once. A refused call changed nothing.
    """

    transport = ""
    __hash__ = None  # type: ignore[assignment]
    _streams: Any = None  # Of the client that opened it.
    _binder: Any = None  # The same.
    _mapped: _local.Dict | None = None  # This, through the local door.

    def _do(self, request: tuple[Any, ...]) -> Any:
        """Carries one request of a verb out."""
        raise NotImplementedError

    def _run(self, verb: Verb[_Result]) -> _Result:
        try:
            request = next(verb)
            while True:
                try:
                    answer = self._do(request)
                except Exception as error:
                    request = verb.throw(error)
                else:
                    request = verb.send(answer)
        except StopIteration as stop:
            return cast(_Result, stop.value)

    def _value(self, text: str, entry: Entry) -> Any:
        return _local.decode_value(entry[0], _tracked_root.Root(self, text, entry[1]))

    def watch(
        self,
        prefix: str = "",
        *,
        key: Any = None,
        snapshot: bool = True,
        from_revision: int | None = None,
        keys_only: bool = False,
        kinds: Iterable[str] | None = None,
        slow: str = "resync",
        progress: Any = None,
        window: Any = 0,
        previous: bool = False,
        on_resync: Callable[[WatchEvent], None] | None = None,
    ) -> Watch:
        """Every change as it is made, in order: ``for event in d.watch("web/")``.

        First come the entries that are there ("entry" events; not with ``snapshot=False``), then "synced", then changes. ``prefix`` or
        ``key`` choose the entries; with ``keys="any"`` a prefix is one of the stored text. ``from_revision``: go on after the revision
        of an earlier watch. ``keys_only``: without values. ``kinds``: of "put", "delete", "expire", "evict" only these. ``slow``: what
        happens when this program reads more slowly than the dict changes: "resync" tells everything as long as the service has it, then
        "resync"; "latest" leaves out older changes of a key; "cancel" ends the watch with LimitExceeded. ``progress`` (seconds or a
        timedelta, 0.1 to 3600): a "progress" event when nothing came for so long. ``window`` (seconds or a timedelta, 0 to 0.01): changes
        are told at most so often, together, and with ``slow="latest"`` only the newest of each key. ``previous``: each change comes with
        the value that the key had before it; not with ``keys_only``. ``on_resync(event)`` is called as a "resync" is read.

        It begins over the network door, also where the dict is mapped. There, once it is "synced", this process reads the changes in
        memory by itself (not with ``slow="latest"``, ``window`` and ``previous``). Errors: InvalidArgument here; the rest as Watch says.
        """
        options = check_options(
            prefix,
            None if key is None else self._key(key),
            snapshot,
            from_revision,
            keys_only,
            kinds,
            slow,
            progress,
            window,
            previous,
        )
        return Watch(self._streams, Reader(self.name, options, self._from_key, self._mapped), on_resync)

    # What dict has.

    def __getitem__(self, key: Any) -> Any:
        return self._run(self._getitem(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, _tracked._Tracked) and self._is_stored(key, value):
            return  # `d["a"] += [1]` has extended the entry already.
        self._run(self._set(key, value))

    def _is_stored(self, key: Any, value: Any) -> bool:
        """Whether a tracked container was changed by an operator such as += just now, and is this key's."""
        root = value._node
        if not isinstance(root, _tracked_root.Root) or not value._take_augmented():
            return False
        return root.shared is self and root.key == self._key(key) and self.version(key) != 0

    def __delitem__(self, key: Any) -> None:
        self._run(self._delitem(key))

    def __contains__(self, key: object) -> bool:
        return self._run(self._contains(key))

    def __len__(self) -> int:
        return cast(int, self._do(("length",)))

    def __iter__(self) -> Iterator[Any]:
        return map(self._from_key, self._texts())

    def __reversed__(self) -> Iterator[Any]:
        return map(self._from_key, reversed(self._texts()))

    def _texts(self) -> list[str]:
        return [text for text, _ in self._run(self._keys_by_ordinal())]

    def _pairs(self, backwards: bool = False) -> Iterator[tuple[Any, Any]]:
        """Keys and values a page at a time."""
        texts = self._texts()
        if backwards:
            texts.reverse()
        for part in _parts(texts, VALUES_PAGE):
            for text, entry in self._run(self._page(part)):
                yield self._from_key(text), self._value(text, entry)

    def keys(self) -> SharedKeysView:
        """A live view of the keys."""
        return SharedKeysView(self)

    def values(self) -> SharedValuesView:
        """A live view of the values; iterating reads them a page at a time."""
        return SharedValuesView(self)

    def items(self) -> SharedItemsView:
        """A live view of the items; iterating reads them a page at a time."""
        return SharedItemsView(self)

    def get(self, key: Any, default: Any = None) -> Any:
        """The value, or ``default`` where there is none."""
        return self._run(self._get(key, default))

    def pop(self, key: Any, default: Any = MISSING) -> Any:
        """Deletes an entry and returns its value, as an ordinary object."""
        return self._run(self._pop(key, default))

    def popitem(self) -> tuple[Any, Any]:
        """Deletes the entry that was inserted last and returns it. Each entry goes to one caller. Looks at every key first, so one that
        others insert meanwhile may stay."""
        return self._run(self._popitem())

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The value; where there is none it is set to ``default`` first."""
        return self._run(self._setdefault(key, default))

    def update(self, other: Any = (), /, **more: Any) -> None:
        """Sets entries. Up to 1,024 are set all at once or not at all; more are set 1,024 at a time."""
        if isinstance(other, SharedDict):
            other = other.copy()
        self._run(self._set_many(other, more, None, None))

    def clear(self) -> None:
        """Deletes every entry at once."""
        self._do(("clear",))

    def copy(self) -> dict[Any, Any]:
        """An ordinary dict of ordinary values, read a page at a time; ``snapshot()`` is of one moment."""
        return self._run(self._copy())

    @classmethod
    def fromkeys(cls, iterable: Iterable[Any], value: Any = None) -> NoReturn:
        """Not for shared dicts, which have a name."""
        raise TypeError("a SharedDict is opened by name; use d.update(dict.fromkeys(keys, value))")

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, SharedDict):
            return self.copy() == other.copy()
        if isinstance(other, Mapping):
            return len(self) == len(other) and self.copy() == dict(other)
        return NotImplemented

    def __or__(self, other: Any) -> dict[Any, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self.copy() | (other.copy() if isinstance(other, SharedDict) else dict(other))

    def __ror__(self, other: Any) -> dict[Any, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(other) | self.copy()

    def __ior__(self, other: Any) -> SharedDict:
        self.update(other)
        return self

    def __repr__(self) -> str:
        texts = self._texts()
        shown = self._run(self._page(texts[:_REPR_ENTRIES])) if texts else []
        items = [f"{self._from_key(text)!r}: {_local.decode_value(entry[0])!r}" for text, entry in shown]
        if len(texts) > _REPR_ENTRIES:
            items.append("…")
        return f"SharedDict({self.name!r}, {{{', '.join(items)}}})"

    def __copy__(self) -> dict[Any, Any]:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        return self.copy()

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f'the dict "{self.name}" is a handle and cannot be pickled; pickle d.copy(), or open it by name in the other process'
        )

    # What dict does not have.

    def set(
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
        bound: bool = False,
    ) -> bool:
        """Sets an entry if the condition holds; False where it does not.

        ``ttl`` is in seconds or a timedelta: without it the dict's default, math.inf for ever, KEEP_TTL as the entry before. With a
        ``fence`` (the token of a lock) it raises Fenced where a higher one wrote. ``if_version=0`` means that there must be none,
        ``if_value`` that it must hold exactly this value (see ``replace``).

        ``bound``: the entry ends with this client, as a delete that watches see: when the client is closed, this process ends or is
        killed, or the service does not hear of it for 10 s. As with ``ttl`` the next set decides anew, whoever makes it: without
        ``bound`` it unbinds. What changes a part (``incr``, ``append``, ``at``, tracked values, ``touch``) keeps it. It takes a call to
        the service, through the local door too. A forked child binds for itself; over the network os.fork() ends what is bound (it
        closes the connection). LimitExceeded beyond 16,384 entries.
        """
        verb = self._set(key, value, ttl, if_absent, if_present, if_version, fence, if_value)
        return self._binder.run(verb) if bound else self._run(verb)

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
        bound: bool = False,
    ) -> tuple[bool, DictEntry | None]:
        """``set`` that also gives the entry as it was before, None where there was none. The first says whether it was set."""
        condition = condition_of("exchange()", if_absent, if_present, if_version, if_value)
        verb = self._exchange(key, value, ttl, fence, condition)
        return self._binder.run(verb) if bound else self._run(verb)

    def add(self, key: Any, value: Any, *, ttl: Any = None, bound: bool = False) -> bool:
        """Sets an entry that does not exist; False where it does. ``bound``: see ``set``."""
        verb = self._set(key, value, ttl, if_absent=True)
        return self._binder.run(verb) if bound else self._run(verb)

    def replace(self, key: Any, old: Any, new: Any) -> bool:
        """Sets an entry that holds exactly ``old``; False where it does not. Its time to live stays.

        Exactly means the same when stored: 1 is not 1.0, and dicts have their keys in the same order.
        """
        return self._run(self._replace(key, old, new))

    def delete(
        self, key: Any, *, if_version: int | None = None, if_value: Any = MISSING, fence: int | None = None
    ) -> bool:
        """Deletes an entry; False where there is none, or it has another version, or does not hold exactly ``if_value``."""
        return self._run(self._delete(key, if_version, fence, if_value))

    def incr(
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
    ) -> Any:
        """Adds to a number and returns the new one; an absent one counts as ``default`` (None: KeyNotFound).

        With ``path`` the number is inside the value. A sum outside ``min`` and ``max`` raises ValueOutOfRange, a float that is added to
        an int TypeMismatch, floats beside an int ``delta`` InvalidArgument. ``ttl`` is for an entry that this call makes.
        """
        return self._run(self._incr(key, delta, path, default, min, max, ttl, fence))

    def append(self, key: Any, value: Any, *, create: bool = True) -> int:
        """Adds to the end of the list that the key holds, and returns its length. With ``create`` an absent one is made."""
        return self._run(self._edit(key, (), "append", value, create=create)).length

    def get_many(self, keys: Iterable[Any], *, consistent: bool = False) -> dict[Any, Any]:
        """The entries that exist, by key. With ``consistent`` (the right to write is needed, 1,024 keys at most) as of one moment."""
        return self._run(self._get_many(keys, consistent))

    def set_many(
        self, mapping: Any, *, ttl: Any = None, fence: int | None = None, bound: bool = False
    ) -> None:
        """``update`` with a ttl and a fence. ``bound``: see ``set``."""
        verb = self._set_many(mapping, {}, ttl, fence)
        self._binder.run(verb) if bound else self._run(verb)

    def touch(self, key: Any, ttl: Any) -> bool:
        """Changes how long an entry lives from now on; False where there is none."""
        return self._run(self._touch(key, ttl))

    def ttl(self, key: Any) -> float | None:
        """How many seconds an entry will live; None: for ever."""
        return self._run(self._ttl(key))

    def version(self, key: Any) -> int:
        """The entry's version, which grows with each change of the key; 0 where there is none."""
        return self._run(self._version(key))

    def entry(self, key: Any) -> DictEntry | None:
        """All that is known of an entry, with its value as an ordinary object."""
        return self._run(self._get_entry(key))

    def wait(
        self,
        key: Any,
        *,
        absent: bool = False,
        version_above: int | None = None,
        version_differs: int | None = None,
        value: Any = MISSING,
        path: Sequence[Any] = (),
        timeout: Any = None,
    ) -> DictEntry | None:
        """Sleeps until the entry is there, and returns it: ``d.wait("ready", timeout=5).value``.

        Instead: ``absent``: until it is gone (returns None). ``version_above``: until it has a higher version. ``version_differs``:
        until its version is another one or it is gone; 0 stands for no entry. ``value``: until it equals this value, by its stored
        form. ``path``: all but the versions ask for the part of the value there. ``timeout``: seconds or a timedelta; None: no limit.

        Through the local door whoever changes the entry wakes this thread, without the service. What holds only for a moment may be
        missed; ``watch`` tells every change. Errors: Timeout when it was not so in time, LimitExceeded when too many wait.
        """
        return self._run(self._wait(key, absent, version_above, version_differs, value, path, timeout))

    def at(self, key: Any, *path: Any) -> Cursor:
        """A place inside the dict, to read and change it where it is without reading the entry first."""
        return Cursor(self, key, path)

    def fetch(self, key: Any, *path: Any) -> Any:
        """A value or a part of it, as an ordinary object. KeyNotFound, PathNotFound."""
        return self._run(self._fetch(key, path))

    def snapshot(self) -> dict[Any, Any]:
        """An ordinary dict of the values of one moment. A key that comes and goes during the call may be missing. Needs the right to write.

        Up to 1,024 entries are read at once. A larger dict is read until nothing changed from one reading to the next; Conflict where
        others change it all the time. ``copy`` takes what it finds.
        """
        return self._run(self._snapshot())

    def scan(self, prefix: str = "") -> Iterator[tuple[Any, Any]]:
        """Every item whose key begins with ``prefix``, a page at a time and in no order: for dicts of any size."""
        cursor = None
        while True:
            page, cursor = self._run(self._scan_page(cursor, prefix, _SCAN_PAGE))
            yield from page
            if cursor is None:
                return

    def delete_all(self) -> int:
        """``clear`` that returns how many entries there were."""
        return cast(int, self._do(("clear",)))

    def delete_prefix(self, prefix: str) -> int:
        """Deletes every entry whose key begins with ``prefix``, each by itself, and returns how many."""
        return cast(int, self._do(("delete_prefix", prefix)))

    def transact(self, plan: Plan) -> PlanOutcome:
        """Carries a plan out as one operation: where all its comparisons hold the first list of steps, else the other one. All or nothing.

        Conflict where the own condition of a step does not hold. Over the network, when an answer was lost and the call was sent again,
        the results hold numbers and versions, but no entries.
        """
        return self._run(plan._carry_out(self))

    def transaction(self) -> Transaction:
        """``with d.transaction() as t:`` — reads remember versions, writes are kept back, and at the end all of it happens at once, or
        raises Conflict where anybody changed what was read. Nobody is held up meanwhile."""
        return Transaction(self)

    def transactional(self, retries: int = 10) -> Callable[[Callable[..., _Result]], Callable[..., _Result]]:
        """A decorator: the function gets a transaction as its first argument, and runs again, up to ``retries`` times, on Conflict."""

        def decorate(function: Callable[..., _Result]) -> Callable[..., _Result]:
            @functools.wraps(function)
            def run(*args: Any, **kwargs: Any) -> _Result:
                return rerun(self, retries, function, args, kwargs)

            return run

        return decorate


class NetworkSharedDict(SharedDict):
    """A dict that is reached by calls: over the network door, or the service's local socket."""

    def __init__(self, session: Any, name: str, any_keys: bool) -> None:
        """Not for users: Client.dict() makes it."""
        self.transport = session.transport
        self._takes_any_keys = any_keys
        self._session = session
        self._calls = DictCalls(name)

    @property
    def name(self) -> str:
        return self._calls.name

    @property
    def _any_keys(self) -> bool:
        return self._takes_any_keys

    def _do(self, request: tuple[Any, ...]) -> Any:
        call, read = getattr(self._calls, request[0])(*request[1:])
        with named(call):
            timeout = call_timeout(request, self._session.timeout)
            return read(self._session.call(call, timeout, request[0] == "wait" and request[-1] > 0))


class LocalSharedDict(_local.Dict, SharedDict):
    """A dict of the local door, in memory that this process maps. What is called all the time is the extension's; it calls back what it
    leaves to Python."""

    transport = "local"
    _set_with = SharedDict.set
    _incr_with = SharedDict.incr
    _delete_item = SharedDict.__delitem__

    @property
    def _mapped(self) -> _local.Dict:  # type: ignore[override]
        return self
