"""Plans: comparisons and two lists of steps that a dict carries out as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import errors
from ._dict_verbs import MISSING, DictVerbs, Verb, check_numbers, condition_of, fence_of, ttl_ms


@dataclass(frozen=True)
class PlanOutcome:
    """What a plan did. ``compared`` tells which of its lists was carried out: True the first.

    ``results`` has an item for each step of that list: for ``get`` the DictEntry or None, for ``set`` and ``delete`` the entry as it was
    before or None, for ``incr`` the new number. ``versions`` has the entries' versions now, 0 where there is none.
    """

    compared: bool
    results: list[Any]
    versions: list[int]


class Plan:
    """What must hold, what happens then, and what happens otherwise, all as one operation of ``SharedDict.transact``.

        plan = Plan().when("stock", value=0).get("price").otherwise().incr("stock", -1).set("sold", True)

    Each method adds to the plan and gives it back. A list names no key twice; there are at most 1,024 comparisons and steps. A plan holds
    Python's values until it is carried out, and can be carried out again. Threads: one at a time.
    """

    def __init__(self) -> None:
        self._compares: list[tuple[Any, tuple[str, Any] | None]] = []
        self._lists: tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]] = ([], [])
        self._at = 0

    def when(
        self,
        key: Any,
        *,
        absent: bool = False,
        present: bool = False,
        version: int | None = None,
        value: Any = MISSING,
    ) -> Plan:
        """What an entry must be for the first list to be carried out: one of the four. ``value`` is exactly this value: 1 is not 1.0."""
        self._compares.append((key, condition_of("when()", absent, present, version, value)))
        return self

    def otherwise(self) -> Plan:
        """The steps that follow are carried out where a comparison does not hold."""
        self._at = 1
        return self

    def get(self, key: Any) -> Plan:
        """Reads an entry."""
        return self._add("get", key)

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
    ) -> Plan:
        """Sets an entry. Where its own condition does not hold the plan raises Conflict, and nothing of it happens."""
        condition = condition_of("set()", if_absent, if_present, if_version, if_value)
        return self._add("set", key, value, condition, ttl_ms(ttl), fence_of(fence))

    def delete(self, key: Any, *, if_version: int | None = None, if_value: Any = MISSING, fence: int | None = None) -> Plan:
        """Deletes an entry, if there is one. The conditions are as those of ``set``."""
        condition = condition_of("delete()", False, False, if_version, if_value)
        return self._add("delete", key, condition, fence_of(fence))

    def incr(
        self,
        key: Any,
        delta: Any = 1,
        *,
        default: Any = 0,
        min: Any = None,
        max: Any = None,
        ttl: Any = None,
        fence: int | None = None,
    ) -> Plan:
        """Adds to a number, as ``SharedDict.incr`` does."""
        numbers = check_numbers(delta, default, min, max)
        return self._add("increment", key, *numbers, ttl_ms(ttl), fence_of(fence))

    def _add(self, kind: str, key: Any, *rest: Any) -> Plan:
        self._lists[self._at].append((kind, key, *rest))
        return self

    def _steps_for(self, shared: DictVerbs, steps: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """The steps as a dict's requests have them."""
        made: list[tuple[Any, ...]] = []
        for kind, key, *rest in steps:
            if kind == "set":
                rest[:2] = shared._wire(rest[0]), shared._condition(rest[1])
            elif kind == "delete":
                rest[0] = shared._condition(rest[0])
            made.append((kind, shared._key(key), *rest))
        return made

    def _carry_out(self, shared: DictVerbs) -> Verb[PlanOutcome]:
        compares = []
        for key, wanted in self._compares:
            if wanted is None:
                message = f'dict "{shared.name}": when({key!r}) needs one of absent, present, version and value'
                raise errors.by_name("INVALID_ARGUMENT", message, shared.name)
            compares.append((shared._key(key), shared._condition(wanted)))
        lists = [self._steps_for(shared, steps) for steps in self._lists]
        compared, answers = yield "transact", compares, *lists
        results = []
        for (kind, text, *_), (_, entry, number) in zip(lists[0 if compared else 1], answers, strict=True):
            if kind == "increment":
                results.append(number)
            else:
                results.append(None if entry is None else shared._entry(text, entry))
        return PlanOutcome(compared, results, [version for version, _, _ in answers])
