"""What a SharedDict has beyond dict: conditions, counters, time to live, places, transactions, snapshots, limits, access."""

from __future__ import annotations

import datetime
import math
import os
import signal
import threading
from typing import Any

import pytest

import statehouse

from conftest import Service, wait_until


def test_set_honours_its_conditions(shared: statehouse.SharedDict) -> None:
    assert not shared.set("a", 1, if_present=True) and "a" not in shared
    assert shared.set("a", 1, if_absent=True) and not shared.set("a", 2, if_absent=True)
    version = shared.version("a")
    assert version > 0 and shared.set("a", 3, if_version=version) and not shared.set("a", 4, if_version=version)
    assert shared.set("b", 1, if_version=0) and not shared.set("b", 2, if_version=0)
    assert shared.copy() == {"a": 3, "b": 1} and shared.version("a") > version and shared.version("none") == 0
    with pytest.raises(TypeError, match="one of"):
        shared.set("a", 1, if_absent=True, if_version=1)
    with pytest.raises(TypeError):
        shared.set("a", 1, if_version="1")  # type: ignore[arg-type]
    for version in (-1, 1 << 64):
        with pytest.raises(statehouse.InvalidArgument):
            shared.set("a", 1, if_version=version)


def test_add_replace_and_delete(shared: statehouse.SharedDict) -> None:
    assert shared.add("a", [1]) and not shared.add("a", [2])
    assert not shared.replace("a", [2], 0) and shared.replace("a", [1], {"x": (1,)}) and shared.replace("a", {"x": (1,)}, 5)
    assert not shared.replace("a", 5.0, 6) and not shared.replace("none", None, 1)
    version = shared.version("a")
    assert not shared.delete("a", if_version=version + 1) and shared.delete("a", if_version=version)
    assert not shared.delete("a")


def test_fences_refuse_what_is_older(shared: statehouse.SharedDict) -> None:
    assert shared.set("a", 1, fence=7)
    assert shared.entry("a").fence == 7  # type: ignore[union-attr]
    for call in (lambda: shared.set("a", 2, fence=6), lambda: shared.delete("a", fence=6), lambda: shared.incr("a", fence=6)):
        with pytest.raises(statehouse.Fenced):
            call()
    assert shared.set("a", 3, fence=7) and shared["a"] == 3


def test_incr_counts(shared: statehouse.SharedDict) -> None:
    assert shared.incr("n") == 1 and shared.incr("n", 5) == 6 and shared.incr("n", -10) == -4
    assert shared.incr("m", default=100) == 101 and shared.incr("f", 0.5) == 0.5 and shared.incr("f", 1.0, default=9) == 1.5
    assert type(shared["n"]) is int and type(shared["f"]) is float
    assert shared.incr("n", delta=4, max=0) == 0
    for call in (lambda: shared.incr("n", max=0), lambda: shared.incr("n", -1, min=0)):
        with pytest.raises(statehouse.ValueOutOfRange):
            call()
    with pytest.raises(OverflowError):
        shared.incr("n", 1 << 63)
    shared["big"] = (1 << 63) - 1
    with pytest.raises(OverflowError):
        shared.incr("big")
    with pytest.raises(statehouse.KeyNotFound):
        shared.incr("none", default=None)
    shared["t"] = "text"
    for call in (lambda: shared.incr("t"), lambda: shared.incr("n", "1"), lambda: shared.incr("n", 0.5)):
        with pytest.raises(TypeError):
            call()
    assert shared["n"] == 0 and shared["big"] == (1 << 63) - 1


def test_incr_reaches_inside(shared: statehouse.SharedDict) -> None:
    shared["a"] = {"n": 1, "l": [1, 2.5]}
    assert shared.incr("a", path=("n",)) == 2 and shared.incr("a", 0.5, path=["l", 1]) == 3.0
    assert shared.incr("a", path=("new",), default=10) == 11 and shared.incr("a", path=("l", -2), max=5) == 2
    assert shared["a"] == {"n": 2, "l": [2, 3.0], "new": 11}
    with pytest.raises(statehouse.PathNotFound):
        shared.incr("a", path=("none", "n"))
    with pytest.raises(TypeError, match="sequence of steps"):
        shared.incr("a", path="n")
    with pytest.raises(TypeError, match="step of a path"):
        shared.incr("a", path=(1.5,))


def test_many_at_once(shared: statehouse.SharedDict) -> None:
    shared.set_many({"a": 1, "b": [2]}, ttl=1000)
    assert shared.get_many(["b", "none", "a", "b"]) == {"b": [2], "a": 1}
    assert shared.get_many(["a", "b"], consistent=True) == {"a": 1, "b": [2]} and shared.get_many([]) == {}
    assert shared.ttl("a") is not None
    keys = [f"k{i}" for i in range(1024)]
    assert shared.get_many(keys, consistent=True) == {}
    with pytest.raises(statehouse.LimitExceeded):
        shared.get_many([*keys, "one more"], consistent=True)


def test_time_to_live(shared: statehouse.SharedDict, client: statehouse.Client) -> None:
    shared["for ever"] = 1
    assert shared.ttl("for ever") is None
    shared.set("short", 1, ttl=0.02)
    shared.set("long", 1, ttl=datetime.timedelta(hours=1))
    wait_until(lambda: "short" not in shared, "the end of an entry")
    with pytest.raises(KeyError):
        shared.ttl("short")
    assert 3500 < (shared.ttl("long") or 0) <= 3600
    assert shared.touch("long", 10_000) and 9000 < (shared.ttl("long") or 0) <= 10_000
    assert shared.touch("long", math.inf) and shared.ttl("long") is None and not shared.touch("none", 1)
    shared.set("long", 2, ttl=50)
    shared.set("long", 3, ttl=statehouse.KEEP_TTL)
    assert (shared.ttl("long") or 0) > 40 and shared.incr("long") == 4 and (shared.ttl("long") or 0) > 40
    assert shared.incr("window", ttl=60) == 1 and shared.incr("window", ttl=9999) == 2 and (shared.ttl("window") or 99) <= 60
    for ttl in (0, -1, math.nan, 1e12):
        with pytest.raises(statehouse.InvalidArgument):
            shared.set("bad", 1, ttl=ttl)
    for ttl in ("1", True):
        with pytest.raises(TypeError):
            shared.set("bad", 1, ttl=ttl)
    with pytest.raises(TypeError):
        shared.touch("long", None)
    assert "bad" not in shared
    brief = client.dict(shared.name + "/brief", default_ttl=30)
    brief["a"] = 1
    brief.set("b", 1, ttl=math.inf)
    assert (brief.ttl("a") or 99) <= 30 and brief.ttl("b") is None
    assert client.dicts.describe(brief.name).default_ttl == 30
    client.dicts.delete(brief.name)


def test_an_entry_tells_all_of_itself(shared: statehouse.SharedDict) -> None:
    shared.set("a", {"x": [1]}, ttl=60, fence=3)
    entry = shared.entry("a")
    assert entry is not None and entry.key == "a" and entry.value == {"x": [1]} and type(entry.value) is dict
    assert entry.version == shared.version("a") and entry.fence == 3 and 0 < (entry.ttl or 0) <= 60 and entry.ordinal > 0
    assert shared.entry("none") is None


def test_places_are_read_and_changed_where_they_are(shared: statehouse.SharedDict) -> None:
    shared["a"] = {"b": [1, {"c": 2}], "t": "x", "y": b"x"}
    place = shared.at("a", "b", 1)
    assert place.get() == {"c": 2} and place.fetch() == {"c": 2} and place.exists() and "['a']['b'][1]" in repr(place)
    assert shared.at("a", "none").get() is None and shared.at("none").get(5) == 5 and not shared.at("a", "b", 9).exists()
    assert place.at("c").incr(5) == 7 and shared.at("a", "n").incr(default=1) == 2
    place.at("d").set([0])
    assert place.at("d").append(1) == 2 and place.at("d").extend([2, 3]) == 4 and place.at("d").insert(0, -1) == 5
    place.at("d").remove(0)
    assert place.at("d", -1).pop() == 3 and place.at("d").get() == [-1, 1, 2]
    place.update({"c": 0}, e=1)
    assert place.setdefault({}) == {"c": 0, "d": [-1, 1, 2], "e": 1} and place.at("f").setdefault("new") == "new"
    assert place.at("d").delete() and not place.at("d").delete() and place.at("e").pop() == 1 and place.at("e").pop(None) is None
    assert shared.at("a", "t").append_text("yz") == 3 and shared.at("a", "y").append_bytes(b"yz") == 3
    place.clear()
    assert shared["a"] == {"b": [1, {}], "t": "xyz", "y": b"xyz", "n": 2}
    shared.at("deep", "x", "y").set(1, create=True)
    assert shared.at("list").append(1, create=True) == 1 and shared.at("text").append_text("a", create=True) == 1
    assert shared["deep"] == {"x": {"y": 1}} and shared["list"] == [1]
    version = shared.version("list")
    shared.at("list").insert(0, 0, if_version=version)
    with pytest.raises(statehouse.Conflict):
        shared.at("list", 0).set(9, if_version=version)
    whole = shared.at("top")
    whole.set([1])
    assert whole.setdefault([2]) == [1] and whole.pop() == [1] and not whole.delete() and whole.setdefault(3) == 3
    whole.set(4, if_version=shared.version("top"))
    assert whole.delete(if_version=shared.version("top")) and whole.pop("gone") == "gone"


def test_places_that_are_not_there_are_errors(shared: statehouse.SharedDict) -> None:
    shared["a"] = {"l": [1], "n": 5, "t": (1, [2])}
    for call in (
        lambda: shared.at("none", "x").set(1),
        lambda: shared.at("a", "x", "y").set(1),
        lambda: shared.at("a", "l", 5).set(1),
        lambda: shared.at("a", "x").pop(),
        lambda: shared.at("none").append(1),
        lambda: shared.fetch("a", "x"),
        lambda: shared.at("a", "x").remove(1),
    ):
        with pytest.raises(KeyError):
            call()
    for call in (
        lambda: shared.at("a", "n", "x").set(1),
        lambda: shared.at("a", "n").append(1),
        lambda: shared.at("a", "t", 1).append(3),
        lambda: shared.at("a", "l").append_text(5),  # type: ignore[arg-type]
        lambda: shared.at("a", 1.5),
        lambda: shared.at("a").pop(if_version=1),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(ValueError):
        shared.at("a", "l").remove(2)
    with pytest.raises(IndexError):
        shared.at("a", 1 << 63)
    assert shared.fetch("a", "t", 1, 0) == 2 and shared["a"] == {"l": [1], "n": 5, "t": (1, [2])}


def test_append_makes_lists(shared: statehouse.SharedDict) -> None:
    assert shared.append("l", {"x": 1}) == 1 and shared.append("l", 2) == 2 and shared["l"] == [{"x": 1}, 2]
    with pytest.raises(statehouse.KeyNotFound):
        shared.append("none", 1, create=False)


def test_scans_and_prefixes(shared: statehouse.SharedDict) -> None:
    shared.update({f"user/{i}": [i] for i in range(1000)}, other=1)
    found = dict(shared.scan("user/"))
    assert len(found) == 1000 and found["user/7"] == [7] and len(dict(shared.scan())) == 1001
    assert shared.delete_prefix("user/99") == 11 and shared.delete_prefix("none") == 0 and len(dict(shared.scan("user/"))) == 989
    with pytest.raises(statehouse.InvalidArgument):
        shared.delete_prefix("")


def test_snapshots_are_ordinary(shared: statehouse.SharedDict) -> None:
    assert shared.snapshot() == {}
    shared.update(a=[1], b={"x": 1})
    found = shared.snapshot()
    assert found == {"a": [1], "b": {"x": 1}} and type(found["a"]) is list
    shared.update({f"k{i}": i for i in range(1100)})
    assert len(shared.snapshot()) == 1102


def test_snapshots_are_of_one_moment(service: Service, shared: statehouse.SharedDict) -> None:
    shared.update(a=500, b=500)
    stop = threading.Event()

    def move() -> None:
        with service.connect("network") as mine:
            dict_of_mine = mine.dict(shared.name)
            while not stop.is_set():
                with dict_of_mine.transaction() as t:
                    t.incr("a", -1)
                    t.incr("b", 1)

    mover = threading.Thread(target=move)
    mover.start()
    try:
        for _ in range(200):
            found = shared.snapshot()
            assert found["a"] + found["b"] == 1000
    finally:
        stop.set()
        mover.join()


def test_a_transaction_writes_all_or_nothing(shared: statehouse.SharedDict) -> None:
    shared.update(a=10, b=5, gone=1, l=[1], d={"x": {}})
    with shared.transaction() as t:
        t["a"] -= 3
        t["b"] = t["b"] + 3
        assert (t["a"], t.get("none"), "none" in t, t.setdefault("new", []), t.pop("gone"), t.pop("gone", 0)) == (7, None, False, [], 1, 0)
        t.setdefault("new").append("kept")
        t["l"].append(2)
        t["d"]["x"]["y"] = 1
        t.update({"u": 1}, v=2)
        assert t.incr("counter", 5) == 5
        t.set("brief", 1, ttl=60)
        t.delete("not there")
        assert shared["a"] == 10, "nothing is written before the end"
    assert shared.copy() == {
        "a": 7, "b": 8, "l": [1, 2], "d": {"x": {"y": 1}}, "new": ["kept"], "u": 1, "v": 2, "counter": 5, "brief": 1,
    }  # fmt: skip
    assert shared.ttl("brief") is not None
    with pytest.raises(ZeroDivisionError):
        with shared.transaction() as t:
            t["a"] = 0
            1 / 0
    with pytest.raises(TypeError):
        with shared.transaction() as t:
            t["a"] = 0
            t["b"] = object()
    with shared.transaction() as t:
        t["a"]
    with pytest.raises(RuntimeError):
        t["a"]
    with shared.transaction() as t:
        with pytest.raises(TypeError):
            list(t)
        with pytest.raises(KeyError):
            t["none"]
        with pytest.raises(KeyError):
            del t["none"]
        del t["u"]
        with pytest.raises(RuntimeError):
            t.__enter__()
    assert shared["a"] == 7 and "u" not in shared


def test_a_transaction_conflicts_with_others(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    other = client.dict(shared.name)
    shared.update(a=1, b=1)
    for interfere in (
        lambda: other.incr("a"),
        lambda: other.set("none", 1),
        lambda: other.delete("a"),
    ):
        with pytest.raises(statehouse.Conflict):
            with shared.transaction() as t:
                t.get("a"), t.get("none")
                interfere()
                t["b"] = 2
        other.delete("none")
        assert shared["b"] == 1
    with pytest.raises(statehouse.Conflict):
        with shared.transaction() as t:  # Two reads are of one moment, or it says so.
            t.get("b"), t.get("c")
            other.incr("b")


def test_transactional_functions_run_again(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    other = client.dict(shared.name)
    shared["a"] = 0
    runs = []

    @shared.transactional(retries=3)
    def add(t: statehouse.Transaction, amount: int, fail: int = 0) -> int:
        runs.append(t["a"])
        if len(runs) <= fail:
            other.incr("a", 100)
        t["a"] += amount
        return int(t["a"])

    assert add(5) == 5 and len(runs) == 1
    runs.clear()
    assert add(amount=1, fail=3) == 306 and len(runs) == 4 and shared["a"] == 306
    runs.clear()
    with pytest.raises(statehouse.Conflict):
        add(1, fail=4)
    assert len(runs) == 4 and add.__name__ == "add"
    with pytest.raises(ValueError):
        shared.transactional(retries=-1)(add.__wrapped__)(1)  # type: ignore[attr-defined]


def test_a_full_dict_refuses_or_evicts(client: statehouse.Client, area_name: str) -> None:
    full = client.dict(area_name, max_entries=64)
    full.update({f"k{i}": i for i in range(64)})
    with pytest.raises(statehouse.LimitExceeded):
        full["one more"] = 1
    assert len(full) == 64
    client.dicts.delete(area_name)
    cache = client.dict(area_name, max_entries=64, evict=True)
    for i in range(500):
        cache[f"k{i}"] = i
    assert len(cache) <= 64 and client.dicts.describe(area_name).evictions > 0 and cache["k499"] == 499
    client.dicts.delete(area_name)


def test_dicts_as_wholes(client: statehouse.Client, area_name: str) -> None:
    with pytest.raises(statehouse.NotFound):
        client.dict(area_name, create=False)
    info = client.dicts.create(area_name, max_entries=1000, max_bytes=1 << 20)
    assert (info.name, info.max_entries, info.full_policy, info.entries) == (area_name, 1000, "error", 0)
    before = client.status()
    client.dict(area_name)["a"] = 1
    assert before.dicts > 0 and client.status().dict_entries == before.dict_entries + 1
    assert client.dict(area_name, create=False).name == area_name
    assert client.dict(f"#{info.index}", create=False).name == area_name
    assert client.dicts.create(area_name, max_entries=1000).index == info.index
    for options in ({"max_entries": 1001}, {"exclusive": True}):
        with pytest.raises(statehouse.AlreadyExists):
            client.dicts.create(area_name, **options)  # type: ignore[arg-type]
    with pytest.raises(statehouse.InvalidArgument):
        client.dicts.create("not a name")
    for i in range(105):
        client.dicts.create(f"{area_name}/{i}")
    assert [found.name for found in client.dicts.list(prefix=area_name + "/")] == [f"{area_name}/{i}" for i in range(105)]
    for found in client.dicts.list(prefix=area_name):
        client.dicts.delete(found.name)
    assert client.dicts.list(prefix=area_name) == []
    with pytest.raises(statehouse.NotFound):
        client.dicts.delete(area_name)


def test_a_deleted_dict_is_reported(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    shared["a"] = 1
    client.dicts.delete(shared.name)
    calls: list[Any] = [
        lambda: shared["a"], lambda: shared.set("a", 2), lambda: shared.incr("n"), lambda: len(shared), lambda: list(shared),
        lambda: shared.clear(), lambda: shared.append("l", 1),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(statehouse.NotFound) as raised:
            call()
        assert raised.value.reason == "DICT_NOT_FOUND"
    assert client.dict(shared.name).copy() == {}


def test_a_closed_client_is_reported(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    shared["a"] = [1]
    stored = shared["a"]
    client.close()
    calls: list[Any] = [
        lambda: shared["a"], lambda: shared.get("a"), lambda: shared.set("a", 2), lambda: shared.incr("n"), lambda: len(shared),
        lambda: list(shared), lambda: "a" in shared, lambda: stored.append(2), lambda: shared.pop("a"), lambda: client.dict("x"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(statehouse.ClientClosed):
            call()


def test_a_dict_grows(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    value = "x" * 1000
    for start in range(0, 20_000, 100):
        shared.update({f"k{i}": value for i in range(start, start + 100)})
    assert len(shared) == 20_000 and client.dicts.describe(shared.name).moves > 0 and shared["k19999"] == value
    assert sum(1 for _ in shared) == 20_000


def test_a_killed_daemon_costs_nothing(service: Service, client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    pid = client.status().daemon_pid
    shared["l"] = []
    for i in range(300):
        if i == 100:
            os.kill(pid, signal.SIGKILL)
        assert shared.incr("n") == i + 1
        shared["l"].append(i)
    assert shared.copy() == {"n": 300, "l": list(range(300))}
    wait_until(lambda: client.status().daemon_pid != pid, "a new daemon")
    assert shared.incr("n") == 301


@pytest.fixture(scope="module")
def reader_token(service: Service) -> str:
    """A token that may read dicts and nothing else."""
    return service.add_token("reader01", {("dict", "*"): ("read",)})


def test_a_reader_reads_and_changes_nothing(
    service: Service, door: str, shared: statehouse.SharedDict, reader_token: str
) -> None:
    shared.update(a={"l": [1]}, n=1)
    with service.connect(door, token=reader_token) as client:
        mine = client.dict(shared.name, create=False)
        stored = mine["a"]
        assert mine.copy() == {"a": {"l": [1]}, "n": 1} and list(mine) == ["a", "n"] and len(mine) == 2
        assert mine.fetch("a", "l", 0) == 1 and mine.get_many(["n"]) == {"n": 1} and mine == shared
        calls: list[Any] = [
            lambda: mine.set("a", 1), lambda: mine.incr("n"), lambda: mine.pop("a"), lambda: mine.clear(), lambda: mine.update(a=1),
            lambda: stored["l"].append(2), lambda: stored.__setitem__("x", 1), lambda: mine.delete_prefix("a"), lambda: mine.snapshot(),
            lambda: mine.touch("a", 5), lambda: mine.__setitem__("b", 1), lambda: client.dict(shared.name),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(statehouse.PermissionDenied):
                call()
    assert shared == {"a": {"l": [1]}, "n": 1}
