"""What one call does as a whole: plans, exchanges, edits with all options, snapshots of large dicts, popitem beside others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import statehouse
import statehouse.aio

from conftest import DOORS_OF_ASYNCIO, Service


def test_a_plan_reads_and_writes_as_one(shared: statehouse.SharedDict) -> None:
    shared.update(a=10, b="x")
    plan = statehouse.Plan().set("k", [1]).get("a").delete("b").incr("n", 5).get("none")
    outcome = shared.transact(plan)
    k, a, b, n, none = outcome.results
    assert outcome.compared and k is None and none is None and n == 5
    assert (a.key, a.value, a.version) == ("a", 10, shared.version("a")) and (b.key, b.value) == ("b", "x")
    assert outcome.versions == [shared.version("k"), a.version, 0, shared.version("n"), 0]
    assert shared.copy() == {"a": 10, "k": [1], "n": 5}
    assert shared.transact(statehouse.Plan()) == statehouse.PlanOutcome(True, [], [])


@pytest.mark.parametrize(
    ("key", "condition", "holds"),
    [
        ("a", {"value": 10}, True), ("a", {"value": 10.0}, False), ("none", {"absent": True}, True), ("a", {"absent": True}, False),
        ("a", {"present": True}, True), ("none", {"present": True}, False), ("none", {"version": 0}, True), ("a", {"version": 1}, False),
        ("none", {"value": None}, False),
    ],
)  # fmt: skip
def test_a_plan_decides_by_what_holds(shared: statehouse.SharedDict, key: str, condition: dict[str, Any], holds: bool) -> None:
    shared.update(a=10, b="x")
    shared["a"] = 10
    plan = statehouse.Plan().when("b", present=True).when(key, **condition).incr("a").otherwise().get("b").set("c", 1)
    for _ in range(1 if holds else 2):  # It can be carried out again.
        outcome = shared.transact(plan)
        assert outcome.compared is holds
    assert shared["a"] == (11 if holds else 10) and ("c" in shared) is not holds
    assert outcome.results[0] == 11 if holds else (outcome.results[0].value, outcome.results[1].value) == ("x", 1)


def test_a_refused_plan_changes_nothing(shared: statehouse.SharedDict) -> None:
    shared.set("a", 1, fence=5)
    new = statehouse.Plan
    for plan, error in (
        (new().set("k", 1).set("a", 2, if_absent=True), statehouse.Conflict),
        (new().set("k", 1).set("a", 2, if_value=1.0), statehouse.Conflict),
        (new().set("k", 1).delete("a", if_version=1 << 40), statehouse.Conflict),
        (new().set("k", 1).delete("a", fence=4), statehouse.Fenced),
        (new().set("k", 1).incr("a", 0.5), statehouse.TypeMismatch),
        (new().set("k", 1).incr("a", max=1), statehouse.ValueOutOfRange),
        (new().set("k", 1).incr("n", default=None), statehouse.KeyNotFound),
        (new().set("k", 1).delete("k"), statehouse.InvalidArgument),
        (new().when("a").set("k", 1), statehouse.InvalidArgument),
        (new().set("k", object()), TypeError),
        (new().get(""), statehouse.InvalidArgument),
    ):
        with pytest.raises(error):
            shared.transact(plan)
    too_many = new()
    for i in range(1025):
        too_many.get(str(i))
    with pytest.raises(statehouse.LimitExceeded):
        shared.transact(too_many)
    with pytest.raises(TypeError):
        new().when("a", absent=True, version=0)
    assert shared.copy() == {"a": 1}


def test_plans_honour_ttl_and_keys_of_any_kind(client: statehouse.Client, area_name: str) -> None:
    d = client.dict(area_name, keys="any")
    plan = statehouse.Plan().set(1, "one", ttl=60).set((1, b"x"), 2).incr("n", 0.5, default=1)
    assert d.transact(plan).results[2] == 1.5 and d.ttl(1) is not None and d.ttl((1, b"x")) is None
    (found,) = d.transact(statehouse.Plan().get(1)).results
    assert found.key == 1 and found.ttl > 50
    client.dicts.delete(area_name)


def test_exchange_gives_what_was_there(shared: statehouse.SharedDict) -> None:
    assert shared.exchange("a", [1]) == (True, None)
    version = shared.version("a")
    applied, before = shared.exchange("a", 2, ttl=60)
    assert applied and before is not None and (before.key, before.value, before.version, before.ttl) == ("a", [1], version, None)
    applied, before = shared.exchange("a", 3, if_absent=True)
    assert not applied and before is not None and before.value == 2 and shared["a"] == 2
    assert shared.exchange("none", 1, if_present=True) == (False, None) and "none" not in shared


def test_writes_may_ask_for_a_value(shared: statehouse.SharedDict) -> None:
    shared.set("a", {"x": 1, "y": 2}, ttl=60)
    assert not shared.set("a", 2, if_value={"x": 1}) and not shared.delete("a", if_value={"x": 1, "y": 2.0})
    assert not shared.set("a", None, if_value={"y": 2, "x": 1}), "the order of keys is part of a value"
    assert shared.set("a", None, if_value={"x": 1, "y": 2}) and shared.ttl("a") is None
    assert not shared.set("none", 1, if_value=None) and shared.set("a", 3, if_value=None) and shared.delete("a", if_value=3)
    with pytest.raises(TypeError):
        shared.set("a", 1, if_value=1, if_absent=True)


def test_the_delta_says_in_what_is_counted(shared: statehouse.SharedDict) -> None:
    for call in (
        lambda: shared.incr("n", default=0.5), lambda: shared.incr("n", 1, max=2.0), lambda: shared.at("n").incr(1, min=0.0),
    ):  # fmt: skip
        with pytest.raises(statehouse.InvalidArgument):
            call()
    assert shared.incr("f", 1.0, default=0, max=5) == 1.0 and shared.incr("f", 1) == 2.0 and "n" not in shared


def test_an_edit_takes_every_option(shared: statehouse.SharedDict) -> None:
    shared.set("a", {"l": [1, 2, 3, 4], "d": {}, "t": "x"}, fence=5)
    a, items = shared.at("a"), shared.at("a", "l")
    popped = items.edit("pop")
    assert (popped.result, popped.length, popped.version) == (4, 3, shared.version("a"))
    assert items.edit("slice", [7, 8, 9], start=0, stop=2, if_version=popped.version).length == 4
    assert items.edit("remove", 9).length == 3 and items.edit("insert", 0, start=-1).length == 4 and items.fetch() == [7, 8, 0, 3]
    assert a.at("d").edit("merge", {"x": 1, "y": 2}).length == 2 and a.at("d", "x").edit("delete").result == 1
    assert a.at("n", "m").edit("append", 1, create=True).length == 1 and a.at("t").edit("append_string", "yz", fence=5).length == 3
    assert a.at("d", "z").edit("set_default", 5).result == 5 and items.edit("clear").length == 0
    for call, error in (
        (lambda: items.edit("pop"), statehouse.PathNotFound), (lambda: items.edit("remove", 1), statehouse.PathNotFound),
        (lambda: items.edit("append", 1, fence=4), statehouse.Fenced),
        (lambda: items.edit("append", 1, if_version=popped.version), statehouse.Conflict), (lambda: items.edit("sort"), ValueError),
        (lambda: items.edit("append"), TypeError), (lambda: items.edit("pop", 1), TypeError),
        (lambda: items.edit("extend", "ab"), TypeError),
    ):  # fmt: skip
        with pytest.raises(error):
            call()
    assert shared["a"] == {"l": [], "d": {"y": 2, "z": 5}, "t": "xyz", "n": {"m": [1]}}


def test_a_place_is_replaced_where_it_is_as_expected(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    shared["a"] = {"n": 1, "d": {"x": 1, "y": [1.0, float("nan")]}}
    place = shared.at("a", "n")
    assert not place.replace(1.0, 2) and not place.replace(True, 2) and place.replace(1, 2) and not place.replace(1, 3)
    assert not shared.at("a", "d").replace({"y": [1.0, float("nan")], "x": 1}, None)
    assert shared.at("a", "d").replace({"x": 1, "y": [1.0, float("nan")]}, None) and shared["a"] == {"n": 2, "d": None}
    assert not shared.at("a", "none").replace(None, 1) and not shared.at("none", "x").replace(None, 1)
    assert shared.at("b").replace(1, 2) is False and shared.at("a").replace({"n": 2, "d": None}, 5) and shared["a"] == 5


def test_replacing_a_place_loses_no_change_of_others(service: Service, shared: statehouse.SharedDict) -> None:
    shared["a"] = {"n": 0, "others": 0}

    def count() -> None:
        with service.connect("network") as mine:
            place = mine.dict(shared.name).at("a", "n")
            for _ in range(50):
                while True:
                    found = place.get()
                    if place.replace(found, found + 1):
                        break

    counters = [threading.Thread(target=count) for _ in range(3)]
    for counter in counters:
        counter.start()
    for _ in range(100):
        shared.at("a", "others").incr()
    for counter in counters:
        counter.join()
    assert shared["a"] == {"n": 150, "others": 100}


def test_what_was_read_tells_its_age_and_is_read_again(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    other = client.dict(shared.name)
    shared["a"] = {"l": [1, {"x": 1}], "s": {1}}
    value = shared["a"]
    items = value["l"]
    assert not value.stale and not items.stale
    items[1]["x"] = 2
    assert not value.stale
    other["a"]["l"].insert(0, 0)
    assert value.stale and items.stale and value["s"].stale
    with pytest.raises(statehouse.Conflict):
        items[0] = 9
    items.refresh()
    assert items == [0, 1, {"x": 2}] and not items.stale and value.stale
    items[0] = 9
    items[2]["x"] = 3
    assert shared["a"]["l"] == [9, 1, {"x": 3}]
    value.refresh()
    value["s"].add(2)
    assert value == {"l": [9, 1, {"x": 3}], "s": {1, 2}} == shared["a"] and type(value["l"][2]) is type(value)
    other["a"]["s"] = []
    with pytest.raises(statehouse.TypeMismatch):
        value["s"].refresh()
    del other["a"]["l"]
    with pytest.raises(KeyError):
        items.refresh()
    del other["a"]
    with pytest.raises(KeyError):
        value.refresh()
    assert value.stale


def in_threads(service: Service, count: int, work: Callable[[statehouse.Client], None]) -> None:
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            with service.connect("local" if number % 2 else "network") as mine:
                work(mine)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def test_popitem_gives_each_entry_to_one_caller(service: Service, shared: statehouse.SharedDict) -> None:
    shared.update({f"k{i}": i for i in range(300)})
    taken: list[int] = []

    def take(client: statehouse.Client) -> None:
        mine = client.dict(shared.name)
        found: list[int] = []
        while True:
            try:
                found.append(mine.popitem()[1])
            except KeyError:
                break
        assert found == sorted(found, reverse=True), "from the end"
        taken.extend(found)

    in_threads(service, 4, take)
    assert sorted(taken) == list(range(300))


def test_a_large_snapshot_is_of_one_moment(service: Service, shared: statehouse.SharedDict) -> None:
    """Pairs of entries that stand in different pages change together: what is read a page at a time sees some of them apart."""
    shared.update({f"{side}{i}": 0 for side in "lr" for i in range(1500)})

    def move(client: statehouse.Client) -> None:
        mine = client.dict(shared.name)
        pause = threading.Event()
        for number in range(1, 201):
            mine.update({f"{side}{i}": number for i in (0, 700, 1499) for side in "lr"})
            if number % 20 == 0:
                pause.wait(0.1)  # Without pauses a snapshot is a Conflict.

    mover = threading.Thread(target=in_threads, args=(service, 1, move))
    mover.start()
    try:
        while mover.is_alive():
            try:
                found = shared.snapshot()
            except statehouse.Conflict:
                continue
            assert len(found) == 3000 and all(found[f"l{i}"] == found[f"r{i}"] for i in range(1500))
    finally:
        mover.join()
    assert shared.snapshot()["l0"] == 200


def test_delete_all_counts(shared: statehouse.SharedDict) -> None:
    shared.update(a=1, b=2)
    assert shared.delete_all() == 2 and shared.delete_all() == 0 and shared == {}


@pytest.mark.parametrize("door", DOORS_OF_ASYNCIO)
def test_asyncio_has_the_same(service: Service, door: str, area_name: str) -> None:
    async def main() -> None:
        async with statehouse.aio.connect(service.url, token=service.token, transport=door, timeout=10.0) as client:
            d = await client.dict(area_name)
            outcome = await d.transact(statehouse.Plan().when("a", absent=True).set("a", {"n": 1, "l": [1]}).incr("n"))
            assert outcome.compared and outcome.results == [None, 1]
            applied, before = await d.exchange("n", 5)
            assert applied and before is not None and (before.value, before.version) == (1, outcome.versions[1])
            assert await d.set("n", 6, if_value=5) and not await d.delete("n", if_value=5)
            edited = await d.at("a", "l").edit("pop")
            assert (edited.result, edited.length) == (1, 0)
            assert await d.at("a", "n").replace(1, 2) and not await d.at("a", "n").replace(1, 3)
            await d.update({f"k{i}": i for i in range(1200)})
            found = await d.snapshot()
            assert len(found) == 1202 and list(found)[:3] == ["a", "n", "k0"] and await d.delete_all() == 1202
            await client.dicts.delete(area_name)

    asyncio.run(main())
