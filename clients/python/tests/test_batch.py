"""Batches: what each operation gives is what its call of its own gives, through both doors."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import statehouse
from statehouse import _batch_stream
from statehouse._batch_area import BatchArea
from statehouse._batch_dict import BatchDict, BatchPlace
from statehouse._control import Call

from conftest import Service

CONTENT: dict[str, Any] = {"n": 10, "f": 1.5, "l": [1, 2], "p": "x", "m": {"in": [1, 2, 3], "k": 1, "t": "a", "b": b"a"}}
Plan = statehouse.Plan

# (method, on a dict of a batch, on a SharedDict where that is another call)
DICT_CALLS: list[tuple[Any, ...]] = [
    ("get", lambda d: d.get("m")), ("get", lambda d: d.get("none", 5)), ("get", lambda d: d.get(key="p", default=1)),
    ("get", lambda d: d.get("")), ("get", lambda d: d.get("k" * 1025)), ("contains", lambda d: d.contains("p"), lambda d: "p" in d),
    ("contains", lambda d: d.contains("none"), lambda d: "none" in d), ("version", lambda d: d.version("none")),
    ("entry", lambda d: d.entry("m")), ("entry", lambda d: d.entry("none")), ("fetch", lambda d: d.fetch("m", "in", -1)),
    ("fetch", lambda d: d.fetch("m", "none")), ("fetch", lambda d: d.fetch("none")), ("ttl", lambda d: d.ttl("p")),
    ("ttl", lambda d: d.ttl("none")), ("set", lambda d: d.set("new", {"a": (1, {2})})), ("set", lambda d: d.set("p", None, ttl=60)),
    ("set", lambda d: d.set("p", 1.0, ttl=math.inf)), ("set", lambda d: d.set("p", 1, ttl=statehouse.KEEP_TTL)),
    ("set", lambda d: d.set("p", 1, if_absent=True)), ("set", lambda d: d.set("p", 1, if_present=True, fence=3)),
    ("set", lambda d: d.set("p", 1, if_version=0)), ("set", lambda d: d.set("p", "y", if_value="x")), ("set", lambda d: d.set("", 1)),
    ("exchange", lambda d: d.exchange("p", 2)), ("exchange", lambda d: d.exchange("p", 2, if_absent=True)),
    ("add", lambda d: d.add("p", 2)), ("add", lambda d: d.add("new", 2, ttl=100)), ("replace", lambda d: d.replace("p", "x", "y")),
    ("replace", lambda d: d.replace("p", "z", "y")), ("setdefault", lambda d: d.setdefault("p", 2)),
    ("setdefault", lambda d: d.setdefault("new", [2])), ("delete", lambda d: d.delete("p")), ("delete", lambda d: d.delete("none")),
    ("delete", lambda d: d.delete("p", if_value="y")), ("pop", lambda d: d.pop("p")), ("pop", lambda d: d.pop("none")),
    ("pop", lambda d: d.pop("none", 7)), ("incr", lambda d: d.incr("n")), ("incr", lambda d: d.incr("n", -15)),
    ("incr", lambda d: d.incr("n", -10)), ("incr", lambda d: d.incr("n", delta=True)), ("incr", lambda d: d.incr("new", -(1 << 63))),
    ("incr", lambda d: d.incr("n", (1 << 63) - 1)), ("incr", lambda d: d.incr("p")), ("incr", lambda d: d.incr("f", 0.5)),
    ("incr", lambda d: d.incr("f")), ("incr", lambda d: d.incr("m", 2, path=("k",), max=3)), ("incr", lambda d: d.incr("n", 5, max=3)),
    ("incr", lambda d: d.incr("new", default=None)), ("incr", lambda d: d.incr("new", 1, default=5, ttl=50)),
    ("append", lambda d: d.append("l", [3])), ("append", lambda d: d.append("new", 3)), ("append", lambda d: d.append("p", 3)),
    ("touch", lambda d: d.touch("p", 100)), ("touch", lambda d: d.touch("none", 100)),
    ("get_many", lambda d: d.get_many(["p", "none", "l"])), ("get_many", lambda d: d.get_many([])),
    ("get_many", lambda d: d.get_many(iter("pn"), consistent=True)), ("set_many", lambda d: d.set_many({"p": 1, "q": 2}, ttl=60)),
    ("set_many", lambda d: d.set_many([])), ("update", lambda d: d.update({"p": 1}, q=2)), ("length", lambda d: d.length(), len),
    ("clear", lambda d: d.clear()), ("delete_all", lambda d: d.delete_all()), ("delete_prefix", lambda d: d.delete_prefix("p")),
    ("transact", lambda d: d.transact(Plan().when("n", value=10).incr("n").get("p").otherwise().get("l"))),
    ("transact", lambda d: d.transact(Plan().set("p", 1, if_absent=True))),
    ("at", lambda d: d.at("m").at("in", 0).get()),
]  # fmt: skip
PLACE_CALLS: list[tuple[str, Callable[[Any], Any]]] = [
    ("get", lambda d: d.at("m", "k").get()), ("get", lambda d: d.at("m", "none").get(4)), ("get", lambda d: d.at("none").get(4)),
    ("fetch", lambda d: d.at("m", "in").fetch()), ("fetch", lambda d: d.at("m", "in", 9).fetch()),
    ("exists", lambda d: d.at("m", "k").exists()), ("exists", lambda d: d.at("m", "none").exists()),
    ("set", lambda d: d.at("m", "k").set(2)), ("set", lambda d: d.at("m", "in", 9).set(2)), ("set", lambda d: d.at("new").set(2)),
    ("set", lambda d: d.at("m", "x", "y").set(2, create=True)), ("setdefault", lambda d: d.at("m", "k").setdefault(5)),
    ("setdefault", lambda d: d.at("m", "new").setdefault(5)), ("delete", lambda d: d.at("m", "k").delete()),
    ("delete", lambda d: d.at("m", "none").delete()), ("delete", lambda d: d.at("p").delete()), ("pop", lambda d: d.at("m", "k").pop()),
    ("pop", lambda d: d.at("m", "none").pop()), ("pop", lambda d: d.at("m", "none").pop(6)), ("incr", lambda d: d.at("m", "k").incr(5)),
    ("incr", lambda d: d.at("m", "t").incr()), ("append", lambda d: d.at("m", "in").append(4)),
    ("extend", lambda d: d.at("m", "in").extend((4, 5))), ("insert", lambda d: d.at("m", "in").insert(0, 9)),
    ("update", lambda d: d.at("m").update({"k": 2}, z=1)), ("clear", lambda d: d.at("m", "in").clear()),
    ("append_text", lambda d: d.at("m", "t").append_text("b")), ("append_bytes", lambda d: d.at("m", "b").append_bytes(b"b")),
    ("edit", lambda d: d.at("m", "in").edit("pop")), ("edit", lambda d: d.at("m", "in").edit("slice", [7], start=0, stop=2)),
    ("edit", lambda d: d.at("m", "in").edit("remove", 8)), ("at", lambda d: d.at("m").at("in").at(1).fetch()),
]  # fmt: skip
WORD_CALLS: list[tuple[str, Callable[[Any], Any]]] = [
    (f"{verb}_{kind}", call)
    for kind in ("u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64")
    for verb, call in {
        "load": lambda a, kind=kind: getattr(a, f"load_{kind}")(1),
        "store": lambda a, kind=kind: getattr(a, f"store_{kind}")(3, 100),
        "add": lambda a, kind=kind: getattr(a, f"add_{kind}")(5, -3),
        "compare_exchange": lambda a, kind=kind: getattr(a, f"compare_exchange_{kind}")(7, 0, 1),
        "bitwise_and": lambda a, kind=kind: getattr(a, f"bitwise_and_{kind}")(9, 3),
        "bitwise_or": lambda a, kind=kind: getattr(a, f"bitwise_or_{kind}")(9, 3, fence=2),
        "bitwise_xor": lambda a, kind=kind: getattr(a, f"bitwise_xor_{kind}")(9, 3),
    }.items()
]
AREA_CALLS: list[tuple[str, Callable[[Any], Any]]] = [
    *WORD_CALLS, ("add_u64", lambda a: a.add_u64(0)), ("add_u64", lambda a: a.add_u64(8, (1 << 64) - 1)),
    ("add_i64", lambda a: a.add_i64(8, -(1 << 63))), ("add_u8", lambda a: a.add_u8(4096)), ("add_u8", lambda a: a.add_u8(0, 1, fence=4)),
    ("load_u8", lambda a: a.load_u8(4096)), ("compare_exchange_u8", lambda a: a.compare_exchange_u8(0, 9, 1)),
    ("read", lambda a: a.read(0, 20)), ("read", lambda a: a.read(4090, 10)), ("read", lambda a: a.read(4096, 0)),
    ("write", lambda a: a.write(2, b"hello")), ("write", lambda a: a.write(4090, b"hello, area")),
    ("fill", lambda a: a.fill(0, 8, 255)), ("fill", lambda a: a.fill(4090, 8, 255, fence=1)),
]  # fmt: skip


@pytest.fixture(autouse=True)
def all_by_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the network door every small batch goes by the stream, not only those after the first few."""
    monkeypatch.setattr(_batch_stream, "BEGINS_AFTER", 0)


def plain(result: Any) -> Any:
    """A result without what differs from one run to the next."""
    if isinstance(result, statehouse.DictEntry):
        return result.key, result.value, result.ttl is None or round(result.ttl), result.fence
    if isinstance(result, statehouse.PlanOutcome):
        return result.compared, [plain(item) for item in result.results]
    if isinstance(result, statehouse.Edited):
        return result.result, result.length
    if isinstance(result, statehouse.CompareExchangeResult):
        return result.exchanged, result.found
    return tuple(map(plain, result)) if isinstance(result, tuple) else result


def outcome(call: Callable[[], Any]) -> Any:
    """What a call gives or raises, comparable."""
    try:
        result = copy.deepcopy(plain(call()))  # Ordinary values in the place of tracked ones.
        return type(result), result
    except statehouse.Error as error:
        return type(error), error.reason, error.retryable, error.name, error.args if isinstance(error, statehouse.KeyNotFound) else ()


def alone(client: statehouse.Client, note: Callable[[Any], Any], on: str = "dict", name: str = "") -> Callable[[], Any]:
    """The operation in a batch of its own."""

    def call() -> Any:
        batch = client.batch()
        operation = note(getattr(batch, on)(name))
        results = batch.run(raise_errors=False)
        result = operation.result()
        assert results == [result] and len(batch) == 0
        return result

    return call


@pytest.fixture
def filled(shared: statehouse.SharedDict) -> Callable[[], statehouse.SharedDict]:
    def fill() -> statehouse.SharedDict:
        shared.clear()
        shared.update(CONTENT)
        return shared

    return fill


@pytest.mark.parametrize("calls", [DICT_CALLS, PLACE_CALLS], ids=["dict", "place"])
def test_each_operation_of_a_dict_does_what_its_call_does(
    client: statehouse.Client, filled: Callable[[], statehouse.SharedDict], calls: list[tuple[Any, ...]]
) -> None:
    for method, note, *single in calls:
        shared = filled()
        expected = outcome(lambda: (single or [note])[0](shared)), shared.copy()
        filled()
        got = outcome(alone(client, note, "dict", shared.name)), shared.copy()
        assert got == expected, method


def test_each_operation_of_an_area_does_what_its_call_does(client: statehouse.Client, area: statehouse.Area) -> None:
    for method, call in AREA_CALLS:
        area.fill(0, 4096, 1)
        expected = outcome(lambda: call(area)), area.read(0)
        area.fill(0, 4096, 1)
        assert (outcome(alone(client, call, "area", area.name)), area.read(0)) == expected, method


def test_no_operation_is_missing_above() -> None:
    for cls, calls in ((BatchDict, DICT_CALLS), (BatchPlace, PLACE_CALLS), (BatchArea, AREA_CALLS)):
        methods = {name for name in dir(cls) if not name.startswith("_") and callable(getattr(cls, name))}
        assert {method for method, *_ in calls} == methods


def test_results_stand_in_order_and_see_what_was_before(
    client: statehouse.Client, shared: statehouse.SharedDict, area: statehouse.Area
) -> None:
    batch = client.batch()
    d, a = batch.dict(shared.name), batch.area(area.name)
    first = d.incr("n", 2)
    d.set("k", {"x": 1}, ttl=60)
    d.get("k")
    d.delete("gone")
    total = a.add_u64(0)
    a.add_u64(0, 5)
    d.at("k", "x").incr()
    d.get("k")
    assert len(batch) == 8 and "8 operations" in repr(batch) and "noted" in repr(first) and shared.name in repr(d) + repr(a)
    with pytest.raises(RuntimeError, match="only noted"):
        first.result()
    assert "n" not in shared
    assert batch.run() == [2, True, {"x": 1}, False, 1, 6, 2, {"x": 2}]
    assert (first.result(), total.result(), repr(first)) == (2, 1, "<statehouse operation, gave 2>")
    assert shared["n"] == 2 and 50 < (shared.ttl("k") or 0) <= 60 and area.load_u64(0) == 6


def test_a_failure_in_the_middle_leaves_the_rest_alone(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    batch = client.batch()
    d = batch.dict(shared.name)
    noted = [d.incr("n"), d.get(""), batch.dict(shared.name + "/none").get("k"), d.fetch("none"), d.incr("n")]
    with pytest.raises(statehouse.InvalidArgument) as raised:
        batch.run()
    assert raised.value.reason == "KEY_INVALID" and raised.value.name == shared.name and shared["n"] == 2
    assert [noted[0].result(), noted[4].result()] == [1, 2]
    for operation, expected in zip(noted[1:4], (statehouse.InvalidArgument, statehouse.NotFound, statehouse.KeyNotFound), strict=True):
        with pytest.raises(expected):
            operation.result()
    noted = [d.incr("n"), d.incr(""), d.incr("n")]
    results = batch.run(raise_errors=False)
    assert [results[0], results[2]] == [3, 4] and isinstance(results[1], statehouse.InvalidArgument)
    assert "raises" in repr(noted[1])


def test_stop_at_failure_carries_out_nothing_more(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    batch = client.batch(stop_at_failure=True)
    d = batch.dict(shared.name)
    noted = [d.incr("n"), d.incr(""), d.incr("n"), d.at("n").get()]
    with pytest.raises(statehouse.InvalidArgument):
        batch.run()
    for operation in noted[2:]:
        with pytest.raises(statehouse.Cancelled, match="operation 1 was refused"):
            operation.result()
    assert noted[0].result() == 1 and shared["n"] == 1


def test_a_batch_can_be_used_again(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    batch = client.batch()
    d = batch.dict(shared.name)
    for round_ in range(3):
        operations = [d.incr("n") for _ in range(5)]
        assert batch.run() == [round_ * 5 + i for i in range(1, 6)] and operations[4].result() == round_ * 5 + 5
        assert batch.run() == [] and len(batch) == 0
    d.incr("n")
    batch.clear()
    assert batch.run() == [] and shared["n"] == 15


def test_a_with_block_runs_it_unless_an_exception_leaves(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    with client.batch() as batch:
        d = batch.dict(shared.name)
        number = d.incr("n")
    assert number.result() == 1
    with pytest.raises(ZeroDivisionError), batch:
        d.incr("n")
        raise ZeroDivisionError
    assert shared["n"] == 1 and len(batch) == 0
    with pytest.raises(statehouse.TypeMismatch), batch:
        shared["text"] = "x"
        failed = d.incr("text")
        number = d.incr("n")
    assert number.result() == 2
    with pytest.raises(TypeError):
        failed.result()


def test_keys_of_any_kind(client: statehouse.Client, area_name: str) -> None:
    shared = client.dict(area_name, keys="any")
    keys: list[Any] = ["text", "", "\0", 5, b"bytes", (1, "a", (b"b",))]
    with client.batch() as batch:
        d = batch.dict(area_name, keys="any")
        for number, key in enumerate(keys):
            d.set(key, {key: number})
            d.incr((key, "n"), number)
        got = [d.get(key) for key in keys]
        many = d.get_many(keys)
    assert [operation.result() for operation in got] == [{key: n} for n, key in enumerate(keys)] == [*many.result().values()]
    assert shared[(5, "n")] == 3 and shared[b"bytes"] == {b"bytes": 4}
    client.dicts.delete(area_name)


class Messages:
    """Counts what a client sends as batches: (bytes, operations, whether it may be sent again) of each."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        from statehouse.v1 import batch_pb2

        self.sent: list[tuple[int, int, bool]] = []
        original = statehouse.Client._call_batch

        def call(client: statehouse.Client, call: Call) -> Any:
            serialized = call.request.SerializeToString()
            operations = len(batch_pb2.RunBatchRequest.FromString(serialized).batch.operations)
            self.sent.append((len(serialized), operations, call.idempotent))
            return original(client, call)

        patch.setattr(statehouse.Client, "_call_batch", call)


def test_many_operations_are_sent_in_several_messages(
    client: statehouse.Client, shared: statehouse.SharedDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = Messages(monkeypatch)
    batch = client.batch()
    d = batch.dict(shared.name)
    for _ in range(9000):
        d.incr("n")
    assert batch.run() == [*range(1, 9001)]
    assert [(operations, again) for _, operations, again in messages.sent] == [(4096, False), (4096, False), (808, False)]
    messages.sent.clear()
    for _ in range(4097):
        d.get("n")
    assert batch.run() == [9000] * 4097 and [operations for _, operations, _ in messages.sent] == [4096, 1]


def test_large_operations_are_sent_in_several_messages(
    client: statehouse.Client, shared: statehouse.SharedDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = Messages(monkeypatch)
    batch = client.batch()
    d = batch.dict(shared.name)
    large = [bytes([number]) * 1_000_000 for number in range(20)]
    for number, value in enumerate(large):
        d.set(f"large/{number}", value)
    batch.run()
    assert [operations for _, operations, _ in messages.sent] == [16, 4] and all(size <= 16 << 20 for size, _, _ in messages.sent)
    assert shared.get_many([f"large/{number}" for number in range(10)]) == {f"large/{n}": large[n] for n in range(10)}
    # One that no message can hold fails by itself.
    d.set_many({f"large/{number}": bytes(1_000_000) for number in range(18)})
    d.get("large/19")
    too_large, last = batch.run(raise_errors=False)
    assert isinstance(too_large, statehouse.LimitExceeded) and isinstance(last, statehouse.Cancelled)
    # An answer that has no room is refused; the operation was carried out.
    for number in range(20):
        d.get(f"large/{number}")
    results = batch.run(raise_errors=False)
    assert results[:16] == large[:16]
    assert [result.reason for result in results[16:]] == ["MESSAGE_TOO_LARGE"] * 4


def test_stop_at_failure_sends_nothing_more(
    client: statehouse.Client, shared: statehouse.SharedDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = Messages(monkeypatch)
    batch = client.batch(stop_at_failure=True)
    d = batch.dict(shared.name)
    for number in range(9000):
        d.incr("" if number == 4000 else "n")
    results = batch.run(raise_errors=False)
    assert len(messages.sent) == 1 and results[:4000] == [*range(1, 4001)] and results[4000].reason == "KEY_INVALID"
    assert {type(result) for result in results[4001:]} == {statehouse.Cancelled} and shared["n"] == 4000
    assert "not sent" in str(results[8999]) and "refused" in str(results[8999])


def test_more_names_than_a_message_has_room_for(client: statehouse.Client, area_name: str) -> None:
    names = [f"{area_name}/{number}" for number in range(67)]
    for name in names:
        client.dict(name)
    client.area(area_name, size=8)
    batch = client.batch()
    for name in names:
        d = batch.dict(name)
        d.set("k", name)
        assert d.incr("n", 3) and d.get("k") and d.contains("k") and d.version("none")
    area = batch.area(area_name)
    area.add_u64(0)
    assert batch.run() == [item for name in names for item in (True, 3, name, True, 0)] + [1]
    for name in names:
        client.dicts.delete(name)
    client.areas.delete(area_name)


BAD: list[tuple[Callable[[Any, Any], Any], type[Exception]]] = [
    (lambda d, a: d.get(5), TypeError), (lambda d, a: d.get(), TypeError), (lambda d, a: d.incr(None), TypeError),
    (lambda d, a: d.get("\ud800"), ValueError), (lambda d, a: d.set("k", object()), TypeError),
    (lambda d, a: d.set("k", "\ud800"), statehouse.InvalidArgument), (lambda d, a: d.set("k"), TypeError),
    (lambda d, a: d.set("k", bytes(1 << 20)), statehouse.InvalidArgument), (lambda d, a: d.set("k", 1, ttl=0), statehouse.InvalidArgument),
    (lambda d, a: d.set("k", 1, ttl="1"), TypeError), (lambda d, a: d.set("k", 1, if_absent=True, if_version=1), TypeError),
    (lambda d, a: d.set("k", 1, if_version=-1), statehouse.InvalidArgument), (lambda d, a: d.set("k", 1, bound=True), TypeError),
    (lambda d, a: d.set("k", 1, fence=1 << 64), statehouse.InvalidArgument), (lambda d, a: d.incr("k", "1"), TypeError),
    (lambda d, a: d.incr("k", 1 << 63), statehouse.ValueOutOfRange), (lambda d, a: d.incr("k", 1, default=0.5), statehouse.InvalidArgument),
    (lambda d, a: d.incr("k", path="x"), TypeError), (lambda d, a: d.touch("k", None), TypeError),
    (lambda d, a: d.get_many([str(n) for n in range(1025)]), statehouse.LimitExceeded), (lambda d, a: d.get_many([1]), TypeError),
    (lambda d, a: d.update({str(n): n for n in range(1025)}), statehouse.LimitExceeded), (lambda d, a: d.update({"k": object}), TypeError),
    (lambda d, a: d.transact(Plan().when("k")), statehouse.InvalidArgument), (lambda d, a: d.at("k", 1.5), TypeError),
    (lambda d, a: d.at("k").edit("none"), ValueError), (lambda d, a: a.add_u8(-1), statehouse.OutOfBounds),
    (lambda d, a: a.add_u8(1 << 64), statehouse.OutOfBounds), (lambda d, a: a.add_u8("0"), TypeError),
    (lambda d, a: a.add_u8(0, 1 << 64), statehouse.ValueOutOfRange), (lambda d, a: a.store_u8(0, 256), statehouse.ValueOutOfRange),
    (lambda d, a: a.load_i8(0.5), TypeError), (lambda d, a: a.read(0, 2 << 20), statehouse.LimitExceeded),
    (lambda d, a: a.write(0, "text"), TypeError), (lambda d, a: a.fill(0, 1, -1), statehouse.ValueOutOfRange),
]  # fmt: skip


def test_bad_arguments_are_refused_before_anything_is_noted(
    client: statehouse.Client, shared: statehouse.SharedDict, area: statehouse.Area
) -> None:
    batch = client.batch()
    d, a = batch.dict(shared.name), batch.area(area.name)
    for number, (call, expected) in enumerate(BAD):
        with pytest.raises(expected):
            call(d, a)
        assert len(batch) == 0, number
    for bad in (lambda: batch.dict(5), lambda: batch.area(None), lambda: batch.dict("d", keys="all")):  # type: ignore[arg-type]
        with pytest.raises((TypeError, ValueError)):
            bad()
    d.incr("n")
    assert batch.run() == [1] and shared.copy() == {"n": 1}


def test_a_closed_client_and_one_that_is_broken_off(
    service: Service, door: str, area_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service.connect(door) as client:
        client.dict(area_name)
        batch = client.batch()
        first = batch.dict(area_name).incr("n")
        with monkeypatch.context() as patch:

            def interrupted(client: statehouse.Client, call: Call) -> Any:
                raise KeyboardInterrupt

            patch.setattr(statehouse.Client, "_call_batch", interrupted)
            with pytest.raises(KeyboardInterrupt):
                batch.run()
        with pytest.raises(statehouse.Cancelled, match="may have been carried out"):
            first.result()
        assert batch.run() == []
        client.dicts.delete(area_name)
        operation = batch.dict(area_name).incr("n")
    with pytest.raises(statehouse.ClientClosed):
        batch.run()
    with pytest.raises(statehouse.ClientClosed):
        operation.result()


def test_what_a_class_cannot_be_made_from_is_its_operations_result(client: statehouse.Client, shared: statehouse.SharedDict) -> None:
    def decode(content: Any) -> Any:
        raise ArithmeticError("no")

    class Odd:
        pass

    statehouse.register(Odd, encode=lambda odd: 1, decode=decode, name=f"{shared.name}/odd")
    batch = client.batch()
    d = batch.dict(shared.name)
    d.set("odd", Odd())
    d.get("odd")
    d.at("odd").get()
    d.incr("n")
    done, short, long, number = batch.run(raise_errors=False)
    assert (done, number) == (True, 1)
    for result in (short, long):
        assert isinstance(result, statehouse.InvalidArgument) and isinstance(result.__cause__, ArithmeticError)


def test_each_operation_needs_its_own_right(service: Service, client: statehouse.Client, door: str) -> None:
    writable, readable, hidden = (client.dict(f"rights/{door}/{kind}").name for kind in ("write", "read", "none"))
    area = client.area(f"rights/{door}/area", size=8).name
    grants = {("dict", writable): ("read", "write"), ("dict", readable): ("read",), ("area", area): ("read",)}
    with service.connect(door, token=service.add_token(f"batch{door[:3]}", grants)) as limited:
        batch = limited.batch()
        for name in (writable, readable, hidden):
            d = batch.dict(name)
            d.set("k", 1), d.incr("n"), d.get("k"), d.delete("k"), d.entry("n")
        a = batch.area(area)
        a.add_u8(0), a.load_u8(0), a.store_u8(0, 1)
        results = batch.run(raise_errors=False)
    allowed = [not isinstance(result, statehouse.PermissionDenied) for result in results]
    assert allowed == [True] * 5 + [False, False, True, False, True] + [False] * 5 + [False, True, False]
    for name in (writable, readable, hidden):
        client.dicts.delete(name)
    client.areas.delete(area)


def test_short_operations_need_no_protobuf(
    service: Service, client: statehouse.Client, shared: statehouse.SharedDict, area: statehouse.Area
) -> None:
    program = """
import sys, statehouse
url, token, door, dict_name, area_name = sys.argv[1:]
with statehouse.connect(url, token=token, transport=door) as c:
    with c.batch() as batch:
        d, a = batch.dict(dict_name), batch.area(area_name)
        n, a, k, gone = d.incr("n"), a.add_u8(0), d.set("k", 1, ttl=5), batch.dict("none").get("k")
        try:
            batch.run()
        except statehouse.NotFound:
            print(n.result(), a.result(), k.result(), [name for name in sys.modules if name.startswith("google.protobuf")])
"""
    arguments = [service.url, service.token, client.transport, shared.name, area.name]
    ran = subprocess.run([sys.executable, "-B", "-c", program, *arguments], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("1 1 True []\n", "")
