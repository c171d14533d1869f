"""SharedDict behaves as dict does, through both doors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping, MutableMapping

import pytest

import statehouse


def test_it_is_a_mutable_mapping(shared: statehouse.SharedDict) -> None:
    assert isinstance(shared, MutableMapping) and isinstance(shared, Mapping)
    with pytest.raises(TypeError):
        hash(shared)


def test_items_are_set_read_and_deleted(shared: statehouse.SharedDict) -> None:
    shared["a"] = 1
    assert shared["a"] == 1 and shared.get("a") == 1 and "a" in shared
    shared["a"] = "other"
    assert shared["a"] == "other"
    del shared["a"]
    assert "a" not in shared and shared.get("a") is None and shared.get("a", 7) == 7
    assert 5 not in {} and shared.get("a", default=8) == 8


def test_a_missing_key_is_a_key_error_with_the_key(shared: statehouse.SharedDict) -> None:
    for call in (
        lambda: shared["gone"],
        lambda: shared.pop("gone"),
        lambda: shared.__delitem__("gone"),
        lambda: shared.fetch("gone"),
        lambda: shared.ttl("gone"),
    ):
        with pytest.raises(KeyError) as raised:
            call()
        assert raised.value.args == ("gone",)
        assert isinstance(raised.value, statehouse.KeyNotFound)
        assert raised.value.reason == "KEY_NOT_FOUND" and "gone" in str(raised.value)


def test_length_and_truth(shared: statehouse.SharedDict) -> None:
    assert len(shared) == 0 and not shared
    shared.update(a=1, b=2)
    assert len(shared) == 2 and shared


def test_iteration_is_in_order_of_insertion(shared: statehouse.SharedDict) -> None:
    names = [f"key-{i * 7919 % 101}" for i in range(101)]
    for name in names:
        shared[name] = len(name)
    shared[names[3]] = "set again, and stays where it is"
    assert list(shared) == names
    assert list(reversed(shared)) == names[::-1]
    assert list(shared.keys()) == names
    assert list(reversed(shared.keys())) == names[::-1]
    assert [key for key, _ in shared.items()] == names
    assert list(reversed(shared.values())) == [shared[name] for name in reversed(names)]
    del shared[names[0]]
    shared[names[0]] = 1
    assert list(shared) == [*names[1:], names[0]]


def test_iteration_survives_changes(shared: statehouse.SharedDict) -> None:
    shared.update({f"k{i}": i for i in range(600)})
    seen = []
    for key, value in shared.items():
        seen.append(key)
        if key == "k3":
            for gone in range(500, 600):
                del shared[f"k{gone}"]
        shared[f"new-{key}"] = value
    assert seen == [f"k{i}" for i in range(500)]
    for key in shared:
        del shared[key]
    assert len(shared) == 0


def test_views_are_live_sets(shared: statehouse.SharedDict) -> None:
    keys, values, items = shared.keys(), shared.values(), shared.items()
    shared.update(a=1, b=[2])
    assert len(keys) == len(values) == len(items) == 2
    assert "a" in keys and 1 in values and ("b", [2]) in items
    assert "c" not in keys and 3 not in values and ("a", 2) not in items and "a" not in items
    assert keys & {"a", "c"} == {"a"}
    assert keys == {"a", "b"}
    assert sorted(keys | {"c"}) == ["a", "b", "c"]
    assert repr(values) == "SharedValuesView([1, [2]])"
    assert keys.mapping is shared


def test_pop_popitem_and_setdefault(shared: statehouse.SharedDict) -> None:
    shared.update(a=1, b=2, c=3)
    assert shared.pop("a") == 1 and shared.pop("a", None) is None
    assert shared.popitem() == ("c", 3)
    assert shared.popitem() == ("b", 2)
    with pytest.raises(KeyError):
        shared.popitem()
    assert shared.setdefault("d", 4) == 4 and shared.setdefault("d", 5) == 4
    assert shared.setdefault("n") is None and shared.setdefault("n", 1) is None
    shared.setdefault("list", []).append(1)
    shared.setdefault("list", []).append(2)
    assert shared["list"] == [1, 2]


def test_update_takes_what_dict_takes(shared: statehouse.SharedDict, client: statehouse.Client) -> None:
    shared.update({"a": 1}, b=2)
    shared.update([("c", 3), ("c", 4)])
    shared.update()
    assert shared.copy() == {"a": 1, "b": 2, "c": 4}
    shared |= {"d": 5}
    shared |= [("e", 6)]
    other = client.dict(shared.name + "/other")
    other.update(shared)
    assert other == shared and other.copy() == {"a": 1, "b": 2, "c": 4, "d": 5, "e": 6}
    client.dicts.delete(other.name)


def test_a_refused_update_changes_nothing(shared: statehouse.SharedDict) -> None:
    with pytest.raises(TypeError, match="cannot be stored"):
        shared.update({"a": 1, "b": object()})
    with pytest.raises(statehouse.InvalidArgument):
        shared.update({"a": 1, "x" * 1025: 1})
    assert shared.copy() == {}


def test_an_update_beyond_a_call_is_carried_out_in_several(shared: statehouse.SharedDict) -> None:
    shared.update({f"k{i}": i for i in range(1025)})
    assert len(shared) == 1025 and shared["k1024"] == 1024
    assert shared.get_many([f"k{i}" for i in range(1025)])["k1024"] == 1024


def test_clear_and_copy(shared: statehouse.SharedDict) -> None:
    shared.update(a=[1], b={"x": 1})
    plain = shared.copy()
    assert type(plain) is dict and type(plain["a"]) is list and type(plain["b"]) is dict
    shared.clear()
    assert shared.copy() == {} and plain == {"a": [1], "b": {"x": 1}}


def test_equality_and_operators(shared: statehouse.SharedDict) -> None:
    shared.update(a=1, b=[1, {"c": 2}])
    assert shared == {"b": [1, {"c": 2}], "a": 1} and {"a": 1, "b": [1, {"c": 2}]} == shared
    assert shared != {"a": 1} and shared != {"a": 2, "b": [1, {"c": 2}]} and shared != 5
    assert shared == shared
    assert shared | {"a": 0, "z": 1} == {"a": 0, "b": [1, {"c": 2}], "z": 1}
    assert {"a": 0, "z": 1} | shared == {"a": 1, "z": 1, "b": [1, {"c": 2}]}
    assert type(shared | {}) is dict and type({} | shared) is dict
    with pytest.raises(TypeError):
        shared | [1]
    assert dict(shared) == {**shared} == shared.copy()


def test_repr_shows_the_content(shared: statehouse.SharedDict) -> None:
    shared.update(a=1, b=[2])
    assert repr(shared) == f"SharedDict({shared.name!r}, {{'a': 1, 'b': [2]}})"
    shared.update({f"k{i}": i for i in range(200)})
    assert repr(shared).endswith(", …})")


def test_copies_are_ordinary_and_handles_are_not_pickled(shared: statehouse.SharedDict) -> None:
    shared["a"] = [1]
    assert type(copy.copy(shared)) is dict and copy.deepcopy(shared) == {"a": [1]}
    assert pickle.loads(pickle.dumps(shared.copy())) == {"a": [1]}
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(shared)
    with pytest.raises(TypeError, match="opened by name"):
        statehouse.SharedDict.fromkeys(["a"])


@pytest.mark.parametrize("key", [5, b"a", None, ("a",), 1.5])
def test_keys_that_are_no_texts_are_refused_with_a_hint(shared: statehouse.SharedDict, key: object) -> None:
    for call in (
        lambda: shared[key],
        lambda: shared.__setitem__(key, 1),
        lambda: shared.__delitem__(key),
        lambda: shared.get(key),
        lambda: shared.set(key, 1),
        lambda: shared.incr(key),
        lambda: key in shared,
    ):
        with pytest.raises(TypeError, match='keys="any"'):
            call()


@pytest.mark.parametrize("key", ["", "x" * 1025, "ü" * 513, "half \ud800"])
def test_texts_that_no_key_can_be_are_refused(shared: statehouse.SharedDict, key: str) -> None:
    for call in (
        lambda: shared.__setitem__(key, 1),
        lambda: shared.get(key),
        lambda: shared.incr(key),
    ):
        with pytest.raises(ValueError):
            call()


def test_the_longest_key_is_taken(shared: statehouse.SharedDict) -> None:
    for key in ("x" * 1024, "ü" * 512, "\0", " "):
        shared[key] = key
        assert shared[key] == key and key in shared
    assert set(shared) == {"x" * 1024, "ü" * 512, "\0", " "}


KEYS = [
    "text", "", "\0i5", "\0", "5", 5, -5, 0, 10**30, b"", b"text", b"\0\xff", (), ("a",), ("a", 1),
    (1, (b"x", ("y", -1)), ""), ("1:a",), (b"text", 5),
]  # fmt: skip


def test_keys_of_any_kind_keep_their_kind(client: statehouse.Client, area_name: str) -> None:
    shared = client.dict(area_name, keys="any")
    for i, key in enumerate(KEYS):
        shared[key] = i
    assert list(shared) == KEYS
    assert [type(key) for key in shared] == [type(key) for key in KEYS]
    assert shared.copy() == dict(zip(KEYS, range(len(KEYS))))
    for i, key in enumerate(KEYS):
        assert shared[key] == i and key in shared and shared.incr(key) == i + 1
        assert shared.pop(key) == i + 1 and key not in shared
    shared[True] = "one"
    assert shared[1] == "one" and shared.popitem() == (1, "one")
    shared["nested"] = {1: {2: "x"}, (1, 2): b"y"}
    assert shared["nested"] == {1: {2: "x"}, (1, 2): b"y"}
    for key in (1.5, None, (1, None), [1]):
        with pytest.raises(TypeError, match="must mean the same"):
            shared[key] = 1
    client.dicts.delete(area_name)


def test_two_handles_share_one_dict(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    other = client.dict(shared.name)
    shared["a"] = {"x": [1]}
    assert other["a"] == {"x": [1]} and other == shared
    with pytest.raises(ValueError):
        client.dict(shared.name, keys="int")
    with pytest.raises(TypeError):
        client.dict(5)  # type: ignore[arg-type]
