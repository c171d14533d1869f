"""What is stored in a dict is changed where it is: each change of a list, dict or set is one atomic edit, and none is lost."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import statehouse


class Requests:
    """The requests of one dict that change it, as they are carried out."""

    def __init__(self, shared: Any, patch: pytest.MonkeyPatch) -> None:
        self.kinds: list[str] = []
        original = type(shared)._do

        def record(target: Any, request: tuple[Any, ...]) -> Any:
            if request[0] not in ("get", "get_many", "scan", "length"):
                self.kinds.append(request[3] if request[0] == "edit" else request[0])
            return original(target, request)

        patch.setattr(type(shared), "_do", record)

    def take(self) -> list[str]:
        kinds, self.kinds = self.kinds, []
        return kinds


@pytest.fixture
def requests(shared: statehouse.SharedDict, monkeypatch: pytest.MonkeyPatch) -> Requests:
    return Requests(shared, monkeypatch)


def test_nested_items_are_edited_where_they_are(shared: statehouse.SharedDict, requests: Requests) -> None:
    shared["a"] = {"b": [1, 2, 3], "c": {"d": {}}}
    requests.take()
    shared["a"]["b"][1] = 0
    shared["a"]["c"]["d"]["e"] = "new"
    shared["a"]["b"].append({"x": []})
    shared["a"]["b"][-1]["x"].append(5)
    del shared["a"]["b"][0]
    del shared["a"]["c"]["d"]["e"]
    assert shared.copy() == {"a": {"b": [0, 3, {"x": [5]}], "c": {"d": {}}}}
    assert requests.take() == ["set", "set", "append", "append", "delete", "delete"]


LIST = [3, 1, 2, [0], {"k": 1}, "s"]
LIST_CHANGES: list[Callable[[Any], Any]] = [
    lambda x: x.append(4), lambda x: x.append([5]), lambda x: x.extend([7, {"z": 1}]), lambda x: x.extend(iter(())),
    lambda x: x.insert(0, "first"), lambda x: x.insert(-1, [1]), lambda x: x.insert(99, 1), lambda x: x.insert(-99, 1),
    lambda x: x.pop(), lambda x: x.pop(0), lambda x: x.pop(-2), lambda x: x.remove(1), lambda x: x.remove(1.0),
    lambda x: x.remove([0]), lambda x: x.clear(), lambda x: x.reverse(), lambda x: x.sort(key=str),
    lambda x: x.sort(key=str, reverse=True), lambda x: x.__setitem__(0, {"new": [1]}), lambda x: x.__setitem__(-1, None),
    lambda x: x.__setitem__(slice(1, 3), [8, [9], 10]), lambda x: x.__setitem__(slice(None), []),
    lambda x: x.__setitem__(slice(None, None, 2), ["a", "b", "c"]), lambda x: x.__setitem__(slice(4, 2), [1]),
    lambda x: x.__setitem__(slice(0, 0), x[1:4]), lambda x: x.__delitem__(2), lambda x: x.__delitem__(slice(1, -1)),
    lambda x: x.__delitem__(slice(None, None, 3)), lambda x: x.__iadd__([1, [2]]), lambda x: x.__imul__(2), lambda x: x.__imul__(0),
]  # fmt: skip


@pytest.mark.parametrize("change", LIST_CHANGES, ids=range(len(LIST_CHANGES)))
@pytest.mark.parametrize("place", [(), ("in",), ("in", 1)], ids=["top", "dict", "list"])
def test_every_change_of_a_list_is_one_edit(
    shared: statehouse.SharedDict, requests: Requests, change: Callable[[Any], Any], place: tuple[Any, ...]
) -> None:
    expected = copy.deepcopy(LIST)
    if place == ():
        shared["k"] = LIST
        stored = shared["k"]
    elif place == ("in",):
        shared["k"] = {"in": LIST}
        stored = shared["k"]["in"]
    else:
        shared["k"] = {"in": [0, LIST]}
        stored = shared["k"]["in"][1]
    requests.take()

    result, expected_result = change(stored), change(expected)

    assert requests.take() in ([["append"], ["extend"], ["insert"], ["pop"], ["delete"], ["remove"], ["clear"], ["slice"], ["set"]])
    assert stored == expected and shared.fetch("k", *place) == expected
    assert result == expected_result
    for i, item in enumerate(stored):  # Every item still knows where it stands.
        if isinstance(item, list):
            item.append("later")
            assert shared.fetch("k", *place, i)[-1] == "later"
        elif isinstance(item, dict):
            item["later"] = i
            assert shared.fetch("k", *place, i)["later"] == i


DICT = {"a": 1, "b": {"c": [1]}, "d": [2]}
DICT_CHANGES: list[Callable[[Any], Any]] = [
    lambda x: x.__setitem__("a", [9]), lambda x: x.__setitem__("new", {"y": {}}), lambda x: x.__delitem__("b"),
    lambda x: x.pop("b"), lambda x: x.pop("none", 7), lambda x: x.popitem(), lambda x: x.setdefault("a", 5),
    lambda x: x.setdefault("b", 5), lambda x: x.setdefault("n", {"z": []}), lambda x: x.update({"a": 2}, z=[1]), lambda x: x.update(),
    lambda x: x.update([("q", {})]), lambda x: x.__ior__({"b": {}}), lambda x: x.clear(),
]  # fmt: skip


@pytest.mark.parametrize("change", DICT_CHANGES, ids=range(len(DICT_CHANGES)))
@pytest.mark.parametrize("place", [(), ("in",)], ids=["top", "dict"])
def test_every_change_of_a_dict_is_one_edit(
    shared: statehouse.SharedDict, requests: Requests, change: Callable[[Any], Any], place: tuple[Any, ...]
) -> None:
    expected = copy.deepcopy(DICT)
    shared["k"] = {"in": DICT} if place else DICT
    stored = shared["k"]["in"] if place else shared["k"]
    requests.take()

    result, expected_result = change(stored), change(expected)

    assert requests.take() in (["set"], ["delete"], ["set_default"], ["merge"], ["clear"])
    assert stored == expected and list(stored) == list(expected)
    assert shared.fetch("k", *place) == expected and list(shared.fetch("k", *place)) == list(expected)
    assert result == expected_result
    for key, item in stored.items():
        if isinstance(item, list):
            item.append("later")
            assert shared.fetch("k", *place, key)[-1] == "later"


SET_CHANGES: list[Callable[[Any], Any]] = [
    lambda x: x.add("new"), lambda x: x.discard(1), lambda x: x.discard(99), lambda x: x.remove(2), lambda x: x.clear(),
    lambda x: x.update([7], [8]), lambda x: x.__ior__({5}), lambda x: x.__iand__({1, 5}), lambda x: x.__isub__({1}),
    lambda x: x.__ixor__({1, 6}), lambda x: x.difference_update([1]), lambda x: x.intersection_update([1]),
    lambda x: x.symmetric_difference_update([1, 9]),
]  # fmt: skip


@pytest.mark.parametrize("change", SET_CHANGES, ids=range(len(SET_CHANGES)))
def test_a_set_is_changed_as_a_whole(shared: statehouse.SharedDict, change: Callable[[Any], Any]) -> None:
    expected = {1, 2, "s"}
    shared["k"] = {"in": [{1, 2, "s"}], "top": {1, 2, "s"}}
    shared["t"] = {1, 2, "s"}
    change(expected)
    for stored in (shared["k"]["in"][0], shared["k"]["top"], shared["t"]):
        result = change(stored)
        assert stored == expected and (result is None or result == expected)
    assert shared.copy() == {"k": {"in": [expected], "top": expected}, "t": expected}
    popped = shared["t"].pop() if expected else None
    assert popped is None or shared.fetch("t") == expected - {popped}


def test_augmented_assignment_writes_once(
    client: statehouse.Client, shared: statehouse.SharedDict, requests: Requests
) -> None:
    shared["a"] = {"n": {"x": 1}, "b": [1], "l": [[1]], "s": {1}}
    shared["l"] = [1]
    shared["d"] = {"x": 1}
    revision = client.dicts.describe(shared.name).revision
    requests.take()
    shared["a"]["n"] |= {"y": 2}
    shared["a"]["b"] += [7]
    shared["a"]["l"][0] += [2]
    shared["a"]["s"] |= {2}
    shared["l"] += [2]
    shared["l"] *= 2
    shared["d"] |= {"y": 2}
    assert requests.take() == ["merge", "extend", "extend", "set", "extend", "slice", "merge"]
    assert client.dicts.describe(shared.name).revision == revision + 7
    assert shared.copy() == {
        "a": {"n": {"x": 1, "y": 2}, "b": [1, 7], "l": [[1, 2]], "s": {1, 2}},
        "l": [1, 2, 1, 2],
        "d": {"x": 1, "y": 2},
    }


def test_augmented_assignment_keeps_what_others_wrote(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    other = client.dict(shared.name)
    shared["a"] = {"b": [1]}
    mine = shared["a"]
    other["a"]["b"].append(2)
    mine["b"] += [3]  # By key: nothing needs to be as it was read.
    mine["c"] = 4
    assert shared["a"] == {"b": [1, 2, 3], "c": 4}


def test_assigning_a_tracked_value_elsewhere_stores_a_copy(shared: statehouse.SharedDict) -> None:
    shared["a"] = {"x": [1]}
    stored, version = shared["a"], shared.version("a")
    shared["a"] = stored  # Without an operator it is an assignment like any other.
    assert shared.version("a") > version
    shared["b"] = stored["x"]
    stored["y"] = stored["x"]
    stored = shared["a"]
    stored["x"].append(2)
    assert shared.copy() == {"a": {"x": [1, 2], "y": [1]}, "b": [1]}
    listed = shared["b"]
    listed += [5]
    del shared["b"]
    shared["b"] = listed  # Its entry is gone, so it is stored again.
    assert shared["b"] == [1, 5]


def test_values_are_ordinary_to_others(shared: statehouse.SharedDict) -> None:
    shared["a"] = content = {"b": [1, {"c": None}], "d": {"e": 2.5}}
    stored = shared["a"]
    assert isinstance(stored, dict) and isinstance(stored["b"], list)
    assert json.dumps(stored) == json.dumps(content) and repr(stored) == repr(content)
    assert {**stored} == content and stored == content and [*stored["b"]] == content["b"]
    match stored:
        case {"b": [first, {"c": None}]}:
            assert first == 1
        case _:
            raise AssertionError
    for duplicate in (copy.deepcopy(stored), pickle.loads(pickle.dumps(stored))):
        assert duplicate == content
        assert type(duplicate) is dict and type(duplicate["b"]) is list and type(duplicate["b"][1]) is dict
    assert type(copy.copy(stored)) is dict and type(stored.copy()) is dict and type(stored | {}) is dict
    assert type(copy.copy(stored["b"])) is list and type(stored["b"] + []) is list and type(stored["b"][:]) is list
    shared["s"] = {1, 2}
    assert type(shared["s"].copy()) is set and type(copy.deepcopy(shared["s"])) is set
    assert pickle.loads(pickle.dumps(shared["s"])) == {1, 2} and type(shared["s"] | {3}) is set


def test_what_is_taken_out_is_ordinary(shared: statehouse.SharedDict, requests: Requests) -> None:
    shared["a"] = {"b": [1], "c": [[2], [3]], "d": {}}
    stored = shared["a"]
    b, first, second, d = stored["b"], stored["c"][0], stored["c"][1], stored["d"]
    assert stored.pop("b") == [1]
    stored["c"].pop(0)
    stored["c"][0] = "other"
    stored["d"] = {"new": 1}
    requests.take()
    b.append(5)
    first.append(5)
    second[0] = 5
    d["x"] = 5
    d.update(y=1)
    assert d.setdefault("z", 1) == 1 and d.pop("z") == 1 and d.popitem() == ("y", 1)
    assert (b, first, second, d) == ([1, 5], [2, 5], [5], {"x": 5})
    assert requests.take() == [] and shared["a"] == {"c": ["other"], "d": {"new": 1}}
    first += [6]
    first *= 2
    first.insert(0, 1), first.extend([1]), first.sort(), first.reverse(), first.remove(6), first.pop(), first.clear()
    del second[0]
    second.clear()
    d |= {"q": 1}
    del d["q"]
    d.clear()
    assert first == [] and d == {} and requests.take() == []


def test_errors_are_those_of_dict_and_list(shared: statehouse.SharedDict) -> None:
    shared["d"] = {}
    shared["l"] = []
    with pytest.raises(KeyError):
        shared["d"].pop("none")
    with pytest.raises(KeyError):
        del shared["d"]["none"]
    with pytest.raises(KeyError):
        shared["d"].popitem()
    for call in (lambda: shared["l"].pop(), lambda: shared["l"].pop(0), lambda: shared["l"].__setitem__(0, 1)):
        with pytest.raises(IndexError):
            call()
    with pytest.raises(ValueError):
        shared["l"].remove(1)
    with pytest.raises(TypeError, match="texts as keys"):
        shared["d"][5] = 1
    with pytest.raises(TypeError, match="cannot be stored"):
        shared["l"].append(object())
    with pytest.raises(ValueError):
        shared["l"] = list(range(10))
        shared["l"][::2] = [1]
    assert shared["l"] == list(range(10))


def test_positions_conflict_when_the_entry_moved(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    other = client.dict(shared.name)
    changes: list[Callable[[Any], Any]] = [
        lambda x: x.__setitem__(0, 5), lambda x: x.pop(0), lambda x: x.insert(0, 1), lambda x: x.sort(key=str),
        lambda x: x.reverse(), lambda x: x.__delitem__(slice(0, 1)), lambda x: x[1].append(1), lambda x: x.__imul__(2),
    ]  # fmt: skip
    for change in changes:
        shared["a"] = [1, [2]]
        stored = shared["a"]
        other["a"].insert(0, "other")
        with pytest.raises(statehouse.Conflict):
            change(stored)
        assert shared["a"] == ["other", 1, [2]]


def test_a_copy_that_was_overtaken_stays_overtaken(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    other = client.dict(shared.name)
    shared["a"] = {"l": [1, 2], "n": 0}
    stored = shared["a"]
    other["a"]["l"].insert(0, 0)
    stored["n"] = 5  # By key, and it tells that others were here.
    stored["l"].append(3)
    with pytest.raises(statehouse.Conflict, match="read it again"):
        stored["l"][0] = "wrong item"
    assert shared["a"] == {"l": [0, 1, 2, 3], "n": 5}
    shared["a"]["l"][0] = "right item"
    assert shared["a"]["l"][0] == "right item"


def test_sets_lose_no_change_of_others(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    other = client.dict(shared.name)
    shared["a"] = {"s": {1}, "l": [1]}
    stored = shared["a"]
    other["a"]["s"].add(2)
    other["a"]["l"].insert(0, 0)
    stored["s"].add(3)
    assert stored["s"] == {1, 2, 3} == shared["a"]["s"]
    with pytest.raises(statehouse.Conflict):
        stored["l"][0] = 5  # What it read before is as old as it was.
    other["a"]["s"] = [1]
    with pytest.raises(statehouse.Conflict, match="not there any more"):
        stored["s"].add(4)


def test_changing_what_is_gone_is_a_key_error(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    shared["a"] = {"b": {"c": 1}, "l": [1]}
    stored = shared["a"]
    client.dict(shared.name)["a"].pop("b")
    with pytest.raises(statehouse.PathNotFound):
        stored["b"]["c"] = 2
    del shared["a"]
    with pytest.raises(statehouse.KeyNotFound):
        stored["l"].append(1)
    with pytest.raises(statehouse.KeyNotFound):
        stored["x"] = 1
    assert "a" not in shared


def test_dicts_with_other_keys_are_changed_as_a_whole(client: statehouse.Client, area_name: str) -> None:
    shared = client.dict(area_name, keys="any")
    shared["a"] = {1: "x", "in": {(2, 3): [1]}}
    shared["a"][5] = "y"
    shared["a"] |= {6: "z"}
    assert shared["a"].pop(1) == "x" and shared["a"].setdefault(7, 8) == 8
    del shared["a"][6]
    assert shared["a"] == {"in": {(2, 3): [1]}, 5: "y", 7: 8}
    assert type(copy.deepcopy(shared["a"])) is dict and pickle.loads(pickle.dumps(shared["a"])) == shared["a"]
    client.dicts.delete(area_name)


def test_iterating_gives_tracked_values(shared: statehouse.SharedDict) -> None:
    shared.update({f"k{i}": [i] for i in range(300)})
    for key, value in shared.items():
        value.append(key)
    for value in shared.values():
        value.append("again")
    assert shared["k299"] == [299, "k299", "again"]
    shared.get_many(["k1"])["k1"].append("many")
    assert shared["k1"][-1] == "many"


def test_edits_keep_the_time_to_live(shared: statehouse.SharedDict) -> None:
    shared.set("a", [1], ttl=1000)
    shared["a"].append(2)
    ttl = shared.ttl("a")
    assert ttl is not None and 900 < ttl <= 1000
