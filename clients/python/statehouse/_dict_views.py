"""The views of a shared dict: live, as those of dict, and read a page at a time."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any, cast

_MISSING: Any = object()


class SharedKeysView(KeysView[Any]):
    """The keys, in order of insertion. Also a set: ``d.keys() & other``."""

    _mapping: Any

    @property
    def mapping(self) -> Any:
        return self._mapping

    def __reversed__(self) -> Iterator[Any]:
        return cast("Iterator[Any]", reversed(self._mapping))

    @classmethod
    def _from_iterable(cls, it: Any) -> set[Any]:
        return set(it)

    def __repr__(self) -> str:
        return f"SharedKeysView({list(self)!r})"


class SharedValuesView(ValuesView[Any]):
    """The values, in order of insertion of their keys."""

    _mapping: Any

    @property
    def mapping(self) -> Any:
        return self._mapping

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping._pairs())

    def __reversed__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping._pairs(backwards=True))

    def __contains__(self, value: object) -> bool:
        return any(item is value or item == value for item in self)

    def __repr__(self) -> str:
        return f"SharedValuesView({list(self)!r})"


class SharedItemsView(ItemsView[Any, Any]):
    """The items, in order of insertion."""

    _mapping: Any

    @property
    def mapping(self) -> Any:
        return self._mapping

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return iter(self._mapping._pairs())

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return iter(self._mapping._pairs(backwards=True))

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        found = self._mapping.get(item[0], _MISSING)
        return found is not _MISSING and bool(found == item[1])

    @classmethod
    def _from_iterable(cls, it: Any) -> set[Any]:
        return set(it)

    def __repr__(self) -> str:
        return f"SharedItemsView({list(self)!r})"
