"""Batches: the bytes of their messages, answers that no service gives, and what is sent again when an answer was lost."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import statehouse
from statehouse import _batch, _batch_stream, _local, errors
from statehouse._batch_link import BatchLink
from statehouse._batch_stream import Lost
from statehouse._batch_wire import add as add_part
from statehouse._control import Call
from statehouse._network_session import NetworkSession

from conftest import Service


def test_the_bytes_are_those_of_the_messages() -> None:
    from statehouse.v1 import batch_pb2, value_pb2

    choose = random.Random(1)
    noted = _local.Noted()
    expected: list[Any] = []
    for _ in range(2000):
        place = choose.choice((0, 1, 63))
        key = choose.choice("aé\0") * choose.choice((1, 30, 120, 128, 300))
        number = choose.choice((0, 1, -1, 63, -64, 64, 127, 128, 1 << 40, (1 << 63) - 1, -(1 << 63)))
        value = choose.choice(("", "x" * choose.randrange(300), number, None, [1, {"a": b"b"}]))
        ttl = choose.choice((0, 1, 127, 128, 1 << 35))
        d = _local.BatchDict(noted, place, False)
        wire = value_pb2.Value.FromString(_local.encode_value(value))
        operation = batch_pb2.Operation()
        kind = choose.choice(("get", "set", "set_for", "increment", "add"))
        if kind == "get":
            d.get(key)
            operation.get.CopyFrom(batch_pb2.EntryGet(dict=place, key=key))
        elif kind == "set":
            d.set(key, value)
            operation.set.CopyFrom(batch_pb2.EntrySet(dict=place, key=key, value=wire))
        elif kind == "set_for":
            d._set_for(key, value, ttl)
            operation.set.CopyFrom(batch_pb2.EntrySet(dict=place, key=key, value=wire, ttl_ms=ttl))
        elif kind == "increment":
            d.incr(key, number)
            operation.increment.CopyFrom(batch_pb2.EntryIncrement(dict=place, key=key, delta=None if number == 1 else number))
        else:
            noted.note(_local.Operation(), add_part(place, abs(number), 7, number), 2)
            operation.add.CopyFrom(batch_pb2.WordAdd(area=place, pos=abs(number), type=7, delta=number))
        expected.append(operation.SerializeToString(deterministic=True))
    operations, parts, traits = noted.take()
    assert len(operations) == 2000 and traits == 7 and noted.take() == ([], [], 0)
    assert [batch_pb2.Batch.FromString(part).operations[0].SerializeToString(deterministic=True) for part in parts] == expected
    assert [part[-len(expected[at]) :] for at, part in enumerate(parts)] == expected


@pytest.fixture
def answers(service: Service, area_name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Any]]]:
    """Runs a batch of three increments of which the service would say what is given: bytes, exceptions, or functions of the request."""
    with service.connect("network", timeout=0.5) as client:

        def run(*given: Any, operations: int = 3) -> list[Any]:
            left = [*given]

            def call(client: statehouse.Client, call: Call) -> Any:
                answer = left.pop(0) if len(left) > 1 else left[0]
                answer = answer(call) if callable(answer) else answer
                if isinstance(answer, Exception):
                    raise answer
                return answer

            monkeypatch.setattr(statehouse.Client, "_call_batch", call)
            batch = client.batch()
            for _ in range(operations):
                batch.dict(area_name).incr("n")
            return batch.run(raise_errors=False)

        yield run


def response(*numbers: int, refused: int = 0, times: int = 0) -> bytes:
    from statehouse.v1 import batch_pb2

    result = batch_pb2.BatchResult()
    for number in numbers:
        result.results.add().increment.number = number
    for _ in range(times):
        failure = result.results.add().failure
        failure.detail.reason = refused
        failure.message = "why"
    serialized: bytes = batch_pb2.RunBatchResponse(result=result).SerializeToString()
    return serialized


def test_an_answer_that_cannot_be_read_is_an_error_of_every_operation_behind(answers: Callable[..., list[Any]]) -> None:
    whole = response(1, -1, 1 << 40)
    assert answers(whole) == [1, -1, 1 << 40]
    for size in range(len(whole)):
        results = answers(whole[:size])
        assert [isinstance(result, statehouse.InternalError) for result in results] == [True] * 3
    # Sound as far as it goes, with a result too few or too many.
    assert answers(response(1, 2))[:2] == [1, 2] and isinstance(answers(response(1, 2))[2], statehouse.InternalError)
    assert answers(response(1, 2, 3, 4)) == [1, 2, 3]
    nothing_in_it, no_message = b"\x0a\x02\x0a\x00", b"\x0a\x04\x0a\x02\x18\x01"
    for damaged in (b"\x12\0", nothing_in_it, no_message, b"\x0a\x80", b"\x0a\x03\x0a\x01\x1a"):
        assert all(isinstance(result, statehouse.InternalError) for result in answers(damaged)), damaged


def test_a_result_of_another_kind_is_an_error(answers: Callable[..., list[Any]]) -> None:
    from statehouse.v1 import batch_pb2

    result = batch_pb2.BatchResult()
    result.results.add().set.version = 1
    result.results.add().increment.number = 4
    result.results.add().get_entry.SetInParent()
    first, second, third = answers(batch_pb2.RunBatchResponse(result=result).SerializeToString())
    assert second == 4
    assert isinstance(first, statehouse.InternalError) and isinstance(third, statehouse.InternalError)


def test_what_a_draining_service_did_not_do_its_successor_does(answers: Callable[..., list[Any]]) -> None:
    requests: list[Any] = []

    def asked(answer: bytes) -> Callable[[Call], bytes]:
        def note(call: Call) -> bytes:
            from statehouse.v1 import batch_pb2

            requests.append(batch_pb2.RunBatchRequest.FromString(call.request.SerializeToString()).batch)
            return answer

        return note

    draining = errors._REASON_NAMES.index("DRAINING")
    assert answers(asked(response(1, refused=draining, times=2)), asked(response(2, 3))) == [1, 2, 3]
    assert [len(request.operations) for request in requests] == [3, 2]
    names = [(request.operation_id.session, request.operation_id.sequence) for request in requests]
    assert names[0][0] == names[1][0] and names[1][1] >= names[0][1] + 3
    # It never gets better.
    first, *rest = answers(response(1, refused=draining, times=2), response(refused=draining, times=2))
    assert first == 1 and [type(result) for result in rest] == [statehouse.Draining] * 2
    # More than have names are not sent again.
    results = answers(response(*range(60), refused=draining, times=10), ZeroDivisionError("sent again"), operations=70)
    assert results[:60] == [*range(60)] and [type(result) for result in results[60:]] == [statehouse.Draining] * 10


def test_longer_operations_that_were_not_come_to_are_asked_for_again(
    far: tuple[statehouse.Client, statehouse.SharedDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, shared = far
    original = statehouse.Client._call_batch
    requests: list[Any] = []

    def call(client: statehouse.Client, call: Call) -> Any:
        """The service stops behind the first operation of the first message."""
        from statehouse.v1 import batch_pb2

        requests.append(batch_pb2.RunBatchRequest.FromString(call.request.SerializeToString()).batch)
        if len(requests) > 1:
            return original(client, call)
        request = batch_pb2.RunBatchRequest.FromString(call.request.SerializeToString())
        del request.batch.operations[1:]
        answer = original(client, call._replace(request=request))
        return answer_with(answer, errors._REASON_NAMES.index("DRAINING"), 3)

    def answer_with(answer: bytes, reason: int, times: int) -> bytes:
        from statehouse.v1 import batch_pb2

        whole = batch_pb2.RunBatchResponse.FromString(answer)
        for _ in range(times):
            whole.result.results.add().failure.detail.reason = reason
        serialized: bytes = whole.SerializeToString()
        return serialized

    monkeypatch.setattr(statehouse.Client, "_call_batch", call)
    with client.batch() as batch:
        d = batch.dict(shared.name)
        results = [d.append("l", 1), d.append("l", 2), d.pop("none", 5), d.get("l")]
    assert [result.result() for result in results] == [1, 2, 5, [1, 2]]
    assert [len(request.operations) for request in requests] == [4, 3] and shared.copy() == {"l": [1, 2]}
    names = [operation.edit_entry.operation_id.sequence for request in requests for operation in request.operations[:2]]
    assert names[1] == names[0] + 1 and names[2] > names[0] + 3


def test_a_batch_that_is_refused_as_a_whole(answers: Callable[..., list[Any]]) -> None:
    for reason, doubtful in (("DRAINING", False), ("TIMEOUT", True), ("UNAVAILABLE", True), ("UNAUTHENTICATED", False)):
        results = answers(errors.by_name(reason, "why"))
        assert len(results) == 3 and {(type(result), result.reason) for result in results} == {(type(errors.by_name(reason, "")), reason)}
        assert ("may have been carried out" in str(results[0])) is doubtful
    results = answers(errors.by_name("UNAVAILABLE", "why"), ZeroDivisionError("sent again"), operations=5000)
    assert {type(result) for result in results[:4096]} == {statehouse.Unavailable}
    assert {type(result) for result in results[4096:]} == {statehouse.Cancelled} and "UNAVAILABLE: why" in str(results[4999])


# What is sent again.


class LostAnswers:
    """Carries each batch out, and says that its connection broke `losses` times before it lets an answer through."""

    def __init__(self, patch: pytest.MonkeyPatch, losses: int) -> None:
        self.sent: list[bytes] = []
        call_once, exchange = NetworkSession._call_once, BatchLink._exchange

        def lossy_call(session: NetworkSession, call: Any, deadline: float) -> Any:
            response, error = call_once(session, call, deadline)
            if call.method == _batch.RUN_BATCH and error is None and self._is_lost(call.request.SerializeToString(), losses):
                return None, errors.by_name("UNAVAILABLE", "the answer was lost", call.name)
            return response, error

        def lossy_exchange(link: BatchLink, serialized: bytes, deadline: float) -> bytes:
            answer = exchange(link, serialized, deadline)
            if serialized and self._is_lost(serialized, losses):
                raise Lost("the answer was lost")
            return answer

        patch.setattr(NetworkSession, "_call_once", lossy_call)
        patch.setattr(BatchLink, "_exchange", lossy_exchange)

    def _is_lost(self, serialized: bytes, losses: int) -> bool:
        self.sent.append(serialized)
        return len(self.sent) <= losses


@pytest.fixture(params=["call", "stream"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How batches go over the network door: small ones after the first few by a stream of their own."""
    monkeypatch.setattr(_batch_stream, "BEGINS_AFTER", 0 if request.param == "stream" else 1_000_000)
    return str(request.param)


@pytest.fixture
def far(service: Service, area_name: str, way: str) -> Iterator[tuple[statehouse.Client, statehouse.SharedDict]]:
    """A client over the network door, and an empty dict."""
    with service.connect("network") as client:
        yield client, client.dict(area_name)
        client.dicts.delete(area_name)


def test_a_repeated_batch_counts_once(
    far: tuple[statehouse.Client, statehouse.SharedDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, shared = far
    outcomes = []
    for losses in (0, 2):
        shared.clear()
        shared.update({"n": 10, "l": [1], "p": "x", "m": {"in": [1, 2, 3]}})
        batch = client.batch()
        d = batch.dict(shared.name)
        for _ in range(8):
            d.incr("n"), d.append("l", 5), d.at("m", "in").pop(), d.add("new", 1), d.get("n"), d.pop("p", "none"), d.set("p", "y")
            d.transact(statehouse.Plan().incr("t"))
        assert len(batch) == 64
        with monkeypatch.context() as patch:
            answers = LostAnswers(patch, losses)
            results = batch.run(raise_errors=False)
            assert len(answers.sent) == 1 + losses and len(set(answers.sent)) == 1
        assert shared["n"] == 18 and shared["t"] == 8 and len(shared["l"]) == 9
        # What only reads is read again.
        assert results[4::8] == ([*range(11, 19)] if losses == 0 else [18] * 8)
        del results[4::8]
        outcomes.append(([repr(result).partition("versions")[0] for result in results], shared.copy()))
    assert outcomes[0] == outcomes[1]


def test_names_go_on_where_the_last_batch_ended(
    far: tuple[statehouse.Client, statehouse.SharedDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches and calls of their own share the sessions that name mutations."""
    client, shared = far
    for round_ in range(5):
        with monkeypatch.context() as patch:
            LostAnswers(patch, 1)
            with client.batch() as batch:
                d = batch.dict(shared.name)
                numbers = [d.incr("n") for _ in range(64)]
        assert [number.result() for number in numbers] == [*range(round_ * 65 + 1, round_ * 65 + 65)]
        assert shared.incr("n") == round_ * 65 + 65


@pytest.mark.parametrize(("kind", "again"), [("reads", True), ("many", False), ("words", False), ("whole", False)])
def test_what_would_count_twice_is_not_sent_again(
    far: tuple[statehouse.Client, statehouse.SharedDict], monkeypatch: pytest.MonkeyPatch, kind: str, again: bool
) -> None:
    client, shared = far
    client.area(shared.name, size=8)
    batch = client.batch()
    d = batch.dict(shared.name)
    for _ in range(65 if kind == "many" else 3):
        d.get("n") if kind == "reads" else d.incr("n")
    if kind == "reads":
        for _ in range(100):
            d.get("n"), d.entry("n"), d.length(), batch.area(shared.name).load_u8(0)
    if kind == "words":
        batch.area(shared.name).add_u8(0)
    if kind == "whole":
        d.delete_prefix("x")
    count = len(batch)
    answers = LostAnswers(monkeypatch, 1)
    results = batch.run(raise_errors=False)
    assert len(answers.sent) == 1 + again and len(results) == count
    if not again:
        assert {type(result) for result in results} == {statehouse.Unavailable} and "may have been carried out" in str(results[0])
        assert shared["n"] == (65 if kind == "many" else 3)
    client.areas.delete(shared.name)
