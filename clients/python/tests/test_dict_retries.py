"""Over the network a mutation is sent again when its answer was lost, and counts once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import statehouse
import statehouse.aio
from statehouse import _dict_calls, errors
from statehouse._network_session import NetworkSession

from conftest import Service
from test_fork import in_child


@pytest.fixture
def far(service: Service, area_name: str) -> Iterator[statehouse.SharedDict]:
    """An empty dict over the network door."""
    with service.connect("network") as client:
        yield client.dict(area_name)
        client.dicts.delete(area_name)


class LostAnswers:
    """Carries each mutation out, and says that its connection broke `losses` times before it lets an answer through."""

    def __init__(self, patch: pytest.MonkeyPatch, losses: int) -> None:
        self.sent: list[tuple[int, int]] = []
        self.lost = 0
        original = NetworkSession._call_once

        def call_once(session: NetworkSession, call: Any, deadline: float) -> Any:
            response, error = original(session, call, deadline)
            if hasattr(call.request, "operation_id") and error is None:
                self.sent.append((call.request.operation_id.session, call.request.operation_id.sequence))
                if self.lost < losses:
                    self.lost += 1
                    return None, errors.by_name("UNAVAILABLE", "the answer was lost", call.name)
                self.lost = 0
            return response, error

        patch.setattr(NetworkSession, "_call_once", call_once)


MUTATIONS: list[Callable[[Any], Any]] = [
    lambda d: d.incr("n"), lambda d: d.incr("f", 2.5),
    lambda d: d.append("l", 5), lambda d: d.pop("p"), lambda d: d.pop("p", "none"), lambda d: d.setdefault("new", [1]),
    lambda d: d.add("added", 1), lambda d: d.replace("p", "x", "y"), lambda d: d.set("p", 5, if_version=d.version("p")),
    lambda d: d.delete("p"), lambda d: d.update(a=1, b=2), lambda d: d.touch("p", 100), lambda d: d.popitem(),
    lambda d: d["m"]["in"].insert(1, "x"), lambda d: d["m"]["in"].pop(), lambda d: d["m"].pop("in"), lambda d: d.at("m", "k").incr(),
    lambda d: d["m"].setdefault("in", 0), lambda d: d["m"]["in"].sort(reverse=True), lambda d: add_both(d),
    lambda d: d.exchange("p", 5)[1].value, lambda d: d.delete("p", if_value="x"), lambda d: d.at("m", "in").edit("pop").result,
    lambda d: d.at("m", "k").replace(1, 2), lambda d: d.transact(statehouse.Plan().when("n", value=10).incr("n").set("new", 1)).results,
]  # fmt: skip


def add_both(d: Any) -> Any:
    with d.transaction() as t:
        t.incr("n")
        return t.incr("o")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=range(len(MUTATIONS)))
def test_a_repeated_mutation_counts_once(
    far: statehouse.SharedDict, monkeypatch: pytest.MonkeyPatch, mutation: Callable[[Any], Any]
) -> None:
    results = []
    for losses in (0, 2):
        far.clear()
        far.update({"n": 10, "l": [1], "p": "x", "m": {"in": [1, 2, 3], "k": 1}})
        with monkeypatch.context() as patch:
            answers = LostAnswers(patch, losses)
            results.append((mutation(far), far.copy()))
            assert len(set(answers.sent)) == len(answers.sent) // (1 + losses)
    assert results[0] == results[1]


def test_a_mutation_is_remembered_whatever_others_do_meanwhile(
    far: statehouse.SharedDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service remembers 64 of a session: 200 of another thread come between the two sendings of one."""
    original = NetworkSession._call_once
    nested = []

    def call_once(session: NetworkSession, call: Any, deadline: float) -> Any:
        response, error = original(session, call, deadline)
        if getattr(call.request, "key", "") == "slow" and not nested:
            nested.append(True)
            thread = threading.Thread(target=lambda: [far.incr("quick") for _ in range(200)])
            thread.start()
            thread.join()
            return None, errors.by_name("UNAVAILABLE", "the answer was lost", call.name)
        return response, error

    monkeypatch.setattr(NetworkSession, "_call_once", call_once)
    assert far.incr("slow") == 1
    assert far.copy() == {"slow": 1, "quick": 200}


def test_names_are_used_again_and_not_shared(far: statehouse.SharedDict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dict_calls, "_idle_sessions", [])
    for _ in range(20):
        far.incr("n")
    assert len(_dict_calls._idle_sessions) == 1 and _dict_calls._idle_sessions[0].sequence == 20
    threads = [threading.Thread(target=lambda: [far.incr("n") for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_dict_calls._idle_sessions) <= 4 and far["n"] == 100


def test_a_child_has_names_of_its_own(far: statehouse.SharedDict) -> None:
    far.incr("n")
    before = {session.number for session in _dict_calls._idle_sessions}
    assert before

    def check() -> None:
        assert far.incr("n") == 2
        assert before.isdisjoint(session.number for session in _dict_calls._idle_sessions)

    in_child(check)
    assert far.incr("n") == 3


def test_many_tasks_have_names_of_their_own(service: Service, area_name: str) -> None:
    async def main() -> None:
        async with statehouse.aio.connect(service.url, token=service.token, transport="network") as client:
            d = await client.dict(area_name)
            assert sorted(await asyncio.gather(*(d.incr("n") for _ in range(300)))) == list(range(1, 301))
            await client.dicts.delete(area_name)

    asyncio.run(main())
