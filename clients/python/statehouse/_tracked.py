"""What ``d["a"]`` gives where a dict or a list is stored: a dict or list that knows where it stands.

Reading one is reading memory of this process. A change is first carried out in the shared dict, as one atomic edit of the part that it
concerns, and then in the copy. Changes by key need nothing to be as it was read: the last writer of a key wins. Changes by list
position carry the version of the entry that was read, and raise Conflict when anybody changed it since, because the position may
mean another item now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

from . import _local, _values, errors
from ._tracked_root import Node, Root

_WHOLE_TRIES = 20  # Of a change that replaces a set as a whole, before others are too busy.
_MISSING: Any = object()


class _Tracked:
    """What tracked containers have in common. `_node` is None once it was taken out: then it is an ordinary container."""

    __slots__ = ()
    if TYPE_CHECKING:  # Slots of those that derive from it.
        _node: Any
        _augmented: bool

        def __setattr__(self, name: str, value: Any) -> None: ...

    def _where(self) -> tuple[Root, tuple[Any, ...]]:
        node = self._node
        steps = []
        while node.parent is not None:
            steps.append(node.step)
            node = node.parent
        return cast(Root, node), tuple(reversed(steps))

    def _edit(
        self, kind: str, wire: bytes | None = None, *, at: tuple[Any, ...] = (), **options: Any
    ) -> Any:
        root, path = self._where()
        result = root.edit(path + at, kind, wire, **options)
        self._augmented = False
        return result

    @property
    def stale(self) -> bool:
        """Whether anybody changed the entry since this was read, other than through it. Asks the shared dict."""
        if self._node is None:
            return False
        root, _ = self._where()
        return bool(root.stale or root.shared._run(root.shared._version_of(root.key)) != root.version)

    def refresh(self) -> None:
        """Reads what is here again, in place. KeyNotFound and PathNotFound where it is gone, TypeMismatch where it is of another kind."""
        if self._node is None:
            return
        old, path = self._where()
        entry = old.shared._do(("get", old.key, path))
        if entry is None:
            raise old.shared._missing(old.shared._from_key(old.key))
        # A tree of its own: what was read with it is as old as before.
        node: Any = Root(old.shared, old.key, entry[1])
        for step in path:
            node = Node(node, step)
        content = _local.decode_value(entry[0], node)
        if type(content) is not type(self):
            raise errors.by_name(
                "TYPE_MISMATCH",
                f'dict "{old.shared.name}": what was read from key {old.key!r} is of another kind now: read it anew',
                old.shared.name,
            )
        self._load(content)
        self._node = node

    def _load(self, content: Any) -> None:
        """Makes the copy hold just this."""
        raise NotImplementedError

    def _encode(self, value: Any) -> bytes:
        return self._where()[0].encode(value)

    def _adopt(self, wire: bytes, step: Any) -> Any:
        """The value as an item of this container."""
        return _local.decode_value(wire, Node(self._node, step))

    def _take_augmented(self) -> bool:
        """Whether an operator such as += changed it just now."""
        augmented, self._augmented = self._augmented, False
        return augmented


def _is_item(item: Any, value: _Tracked) -> bool:
    """Whether a value that is assigned is the item that is there, which an operator changed just now."""
    return item is value and value._take_augmented()


def _detach(value: Any) -> Any:
    """A value that leaves its container is an ordinary one from then on."""
    if isinstance(value, _Tracked):
        value._node = None
    return value


class TrackedDict(_Tracked, dict[Any, Any]):
    """A dict that is stored in a shared dict. Each change is one atomic edit of the keys that it names."""

    __slots__ = ("_node", "_augmented")

    def __init__(self) -> None:
        super().__init__()
        self._node = None
        self._augmented = False

    def _load(self, content: Any) -> None:
        dict.clear(self)
        dict.update(self, content)

    def __setitem__(self, key: Any, value: Any) -> None:
        if self._node is None:
            return super().__setitem__(key, value)
        _check_text(key)
        if isinstance(value, _Tracked) and _is_item(self.get(key), value):
            return None  # The operator has changed it already.
        wire = self._encode(value)
        self._edit("set", wire, at=(key,))
        _detach(self.get(key))
        return super().__setitem__(key, self._adopt(wire, key))

    def __delitem__(self, key: Any) -> None:
        if self._node is None:
            return super().__delitem__(key)
        self.pop(key)
        return None

    def pop(self, key: Any, default: Any = _MISSING) -> Any:
        if self._node is None:
            return super().pop(key) if default is _MISSING else super().pop(key, default)
        try:
            removed = self._edit("delete", at=(_check_text(key),))
        except errors.PathNotFound:
            _detach(super().pop(key, None))
            if default is _MISSING:
                raise KeyError(key) from None
            return default
        _detach(super().pop(key, None))
        return _local.decode_value(removed)

    def popitem(self) -> tuple[Any, Any]:
        if self._node is None or not self:
            return super().popitem()
        key = next(reversed(self))
        return key, self.pop(key)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if self._node is None:
            return super().setdefault(key, default)
        found = self._edit("set_default", self._encode(default), at=(_check_text(key),))
        _detach(self.get(key))
        super().__setitem__(key, self._adopt(found, key))
        return self[key]

    def update(self, *args: Any, **kwargs: Any) -> None:
        if self._node is None:
            return super().update(*args, **kwargs)
        new = dict(*args, **kwargs)
        for key in new:
            _check_text(key)
        wires = {key: self._encode(value) for key, value in new.items()}
        self._edit("merge", self._encode(new))
        for key, wire in wires.items():
            _detach(self.get(key))
            super().__setitem__(key, self._adopt(wire, key))
        return None

    def __ior__(self, other: Any) -> TrackedDict:  # type: ignore[misc]
        self.update(other)
        self._augmented = self._node is not None
        return self

    def clear(self) -> None:
        if self._node is not None:
            self._edit("clear")
        for value in self.values():
            _detach(value)
        super().clear()

    @classmethod
    def fromkeys(cls, iterable: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(iterable, value)

    def __copy__(self) -> dict[Any, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        return cast("dict[Any, Any]", plain(self))

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return dict, (plain(self),)


class TrackedList(_Tracked, list[Any]):
    """A list that is stored in a shared dict. append, extend, remove, clear and pop() are edits that need nothing to be as it was read;
    what names a position or a slice raises Conflict when the entry changed since."""

    __slots__ = ("_node", "_augmented")

    def __init__(self) -> None:
        super().__init__()
        self._node = None
        self._augmented = False

    def _load(self, content: Any) -> None:
        list.__setitem__(self, slice(None), content)

    def _renumber(self) -> None:
        for i, item in enumerate(self):
            if isinstance(item, _Tracked) and item._node is not None:
                item._node.step = i

    def _replace(self, start: int, stop: int, new: list[Any]) -> None:
        """[start, stop) becomes the values of `new`: one edit. Items that were here already stay what they are."""
        self._edit("slice", self._encode(new), start=start, stop=stop, by_position=True)
        before = self[start:stop]
        mine = {id(item) for item in before if isinstance(item, _Tracked)}
        adopted = []
        for item in new:
            stays = id(item) in mine
            mine.discard(id(item))  # A second one of the same is a copy.
            adopted.append(item if stays else self._adopt(self._encode(item), 0))
        super().__setitem__(slice(start, stop), adopted)
        for item in before:
            if id(item) in mine:
                _detach(item)
        self._renumber()

    def __setitem__(self, index: Any, value: Any) -> None:
        if self._node is None:
            return super().__setitem__(index, value)
        if isinstance(index, slice):
            new = list(value)
            if index.step is None or index.step == 1:
                start, stop, _ = index.indices(len(self))
                return self._replace(start, max(start, stop), new)
            changed = list(self)
            changed[index] = new
            return self._replace(0, len(self), changed)
        at = range(len(self))[index]  # IndexError outside, as a list.
        if isinstance(value, _Tracked) and _is_item(self[at], value):
            return None
        wire = self._encode(value)
        self._edit("set", wire, at=(at,))
        _detach(self[at])
        return super().__setitem__(at, self._adopt(wire, at))

    def __delitem__(self, index: Any) -> None:
        if self._node is None:
            return super().__delitem__(index)
        if isinstance(index, slice):
            if index.step is None or index.step == 1:
                start, stop, _ = index.indices(len(self))
                return self._replace(start, max(start, stop), [])
            changed = list(self)
            del changed[index]
            return self._replace(0, len(self), changed)
        self.pop(index)
        return None

    def append(self, value: Any) -> None:
        if self._node is None:
            return super().append(value)
        wire = self._encode(value)
        self._edit("append", wire)
        return super().append(self._adopt(wire, len(self)))

    def extend(self, values: Iterable[Any]) -> None:
        if self._node is None:
            return super().extend(values)
        new = list(values)
        self._edit("extend", self._encode(new))
        for value in new:
            super().append(self._adopt(self._encode(value), len(self)))
        return None

    def insert(self, index: SupportsIndex, value: Any) -> None:
        if self._node is None:
            return super().insert(index, value)
        at, _, _ = slice(index, None).indices(len(self))
        wire = self._encode(value)
        self._edit("insert", wire, start=at, by_position=True)
        super().insert(at, self._adopt(wire, at))
        return self._renumber()

    def pop(self, index: SupportsIndex = -1) -> Any:
        if self._node is None:
            return super().pop(index)
        if index.__index__() == -1:
            try:
                removed = self._edit("pop")
            except errors.PathNotFound:
                raise IndexError("pop from empty list") from None
            if self:
                _detach(super().pop())
            return _local.decode_value(removed)
        at = _position(self, index, "pop index out of range")
        removed = self._edit("delete", at=(at,))
        _detach(super().pop(at))
        self._renumber()
        return _local.decode_value(removed)

    def remove(self, value: Any) -> None:
        if self._node is None:
            return super().remove(value)
        at = next((i for i, item in enumerate(self) if item is value or item == value), None)
        found = value if at is None else self[at]  # 1 == 1.0 here; on the wire they are two values.
        try:
            self._edit("remove", self._encode(found))
        except errors.PathNotFound:
            raise ValueError("list.remove(x): x not in list") from None
        if at is not None:
            _detach(super().pop(at))
            self._renumber()
        return None

    def clear(self) -> None:
        if self._node is not None:
            self._edit("clear")
        for item in self:
            _detach(item)
        super().clear()

    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> None:
        if self._node is None:
            return super().sort(key=key, reverse=reverse)
        return self._replace(0, len(self), sorted(self, key=key, reverse=reverse))

    def reverse(self) -> None:
        if self._node is None:
            return super().reverse()
        return self._replace(0, len(self), self[::-1])

    def __iadd__(self, values: Iterable[Any]) -> TrackedList:  # type: ignore[misc]
        self.extend(values)
        self._augmented = self._node is not None
        return self

    def __imul__(self, count: SupportsIndex) -> TrackedList:
        if self._node is None:
            super().__imul__(count)
            return self
        self._replace(0, len(self), [plain(item) for item in list(self) * count.__index__()])
        self._augmented = True
        return self

    def __copy__(self) -> list[Any]:
        return list(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return cast("list[Any]", plain(self))

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return list, (plain(self),)


class _Whole(_Tracked):
    """A container that is stored as one piece: a change reads it again where others were faster, and replaces it if nobody changed it
    meanwhile, so no change is lost."""

    __slots__ = ()
    _plain: type

    def _change(self, operation: Callable[[Any], Any]) -> Any:
        if self._node is None:
            return operation(self)
        root, path = self._where()
        by_position = any(isinstance(step, int) for step in path)
        version = None if root.stale and not by_position else root.version
        for _ in range(_WHOLE_TRIES):
            if version is None:
                version = self._read_again(root, path)
            changed = self._plain(self)
            result = operation(changed)
            try:
                version = root.replace(path, root.encode(changed), version)
            except errors.Conflict:
                root.stale = True
                if by_position:
                    raise  # Its place may be another one now.
                version = None
                continue
            if not root.stale or not path:  # Else the copies around it are older than it is.
                root.version, root.stale = version, False
            self._load(changed)
            self._augmented = False
            return result
        raise errors.by_name(
            "CONFLICT",
            f'dict "{root.shared.name}": others change key {root.key!r} all the time',
            root.shared.name,
        )

    def _read_again(self, root: Root, path: tuple[Any, ...]) -> int:
        entry = root.shared._do(("get", root.key, path))
        content = None if entry is None else _local.decode_value(entry[0])
        if not isinstance(content, self._plain):
            raise errors.by_name(
                "CONFLICT",
                f'dict "{root.shared.name}": what was read from key {root.key!r} is not there any more',
                root.shared.name,
            )
        self._load(content)
        return cast(int, entry[1])

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return plain(self)

    def __copy__(self) -> Any:
        return self._plain(self)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return self._plain, (list(self.items()) if isinstance(self, dict) else list(cast(Any, self)),)


class TrackedSet(_Whole, set[Any]):
    """A set that is stored in a shared dict. A change replaces it as a whole, and none is lost."""

    __slots__ = ("_node", "_augmented")
    _plain = set

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__(items)
        self._node = None
        self._augmented = False

    def _load(self, content: Any) -> None:
        set.clear(self)
        set.update(self, content)

    def pop(self) -> Any:
        return self._change(set.pop)

    def copy(self) -> set[Any]:
        return set(self)


class TrackedAnyDict(_Whole, dict[Any, Any]):
    """A dict whose keys are not all texts. A change replaces it as a whole, and none is lost."""

    __slots__ = ("_node", "_augmented")
    _plain = dict

    def __init__(self) -> None:
        super().__init__()
        self._node = None
        self._augmented = False

    def _load(self, content: Any) -> None:
        dict.clear(self)
        dict.update(self, content)


def _add_method(cls: Any, base: type, name: str) -> None:
    original = getattr(base, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._node is None:
            return original(self, *args, **kwargs)
        return self._change(lambda content: original(content, *args, **kwargs))

    method.__name__ = name
    method.__doc__ = original.__doc__
    setattr(cls, name, method)


def _add_operator(cls: Any, base: type, name: str) -> None:
    original = getattr(base, name)

    def operator(self: Any, other: Any) -> Any:
        if self._node is None:
            return original(self, other)
        self._change(lambda content: original(content, other))
        self._augmented = True
        return self

    operator.__name__ = name
    setattr(cls, name, operator)


for _name in (
    "add", "discard", "remove", "clear", "update", "difference_update", "intersection_update",
    "symmetric_difference_update",
):
    _add_method(TrackedSet, set, _name)
for _name in ("__ior__", "__iand__", "__isub__", "__ixor__"):
    _add_operator(TrackedSet, set, _name)
for _name in ("__setitem__", "__delitem__", "pop", "popitem", "setdefault", "update", "clear"):
    _add_method(TrackedAnyDict, dict, _name)
_add_operator(TrackedAnyDict, dict, "__ior__")


def _check_text(key: Any) -> str:
    if isinstance(key, str):
        return key
    raise TypeError(
        f"this dict is stored with texts as keys, and {key!r} is no str; use a text, or assign the dict as a whole in a dict that "
        'was opened with keys="any"'
    )


def _position(items: list[Any], index: SupportsIndex, problem: str) -> int:
    at = index.__index__()
    if not -len(items) <= at < len(items):
        raise IndexError(problem)
    return at % len(items)


def plain(value: Any) -> Any:
    """An ordinary copy of tracked containers, all the way down."""
    if isinstance(value, (TrackedDict, TrackedAnyDict)):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, TrackedList):
        return [plain(item) for item in value]
    return set(value) if isinstance(value, TrackedSet) else value


_local.set_value_hooks(
    _values.reduce,
    _values.restore,
    _values.timestamp,
    _values.tensor,
    Root,
    Node,
    TrackedDict,
    TrackedList,
    TrackedSet,
    TrackedAnyDict,
)
