"""statehouse.aio's batches: operations are noted as by the blocking client, and carried out by an awaited run()."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import statehouse
import statehouse.aio
from statehouse import _batch, errors
from statehouse._control import Call

from conftest import DOORS_OF_ASYNCIO, Service
from test_aio_dict import run
from test_batch import AREA_CALLS, CONTENT, DICT_CALLS, PLACE_CALLS, outcome

Client = statehouse.aio.AsyncClient
Dict = statehouse.aio.AsyncSharedDict


async def awaited(call: Callable[[], Awaitable[Any]]) -> Any:
    """What an awaited call gives or raises, comparable."""
    try:
        result = await call()
    except statehouse.Error as error:
        raised = error
        return outcome(lambda: (_ for _ in ()).throw(raised))
    return outcome(lambda: result)


async def alone(client: Client, note: Callable[[Any], Any], on: str, name: str) -> Any:
    """The operation in a batch of its own."""
    batch = client.batch()
    operation = note(getattr(batch, on)(name))
    results = await batch.run(raise_errors=False)
    result = operation.result()
    assert results == [result]
    return result


@pytest.fixture(params=DOORS_OF_ASYNCIO)
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_each_operation_does_what_its_call_does(service: Service, door: str, area_name: str) -> None:
    async def check(client: Client, d: Dict) -> None:
        for method, note, *_ in [*DICT_CALLS, *PLACE_CALLS]:
            found = []
            for call in (lambda: note(d), lambda: alone(client, note, "dict", area_name)):
                await d.clear()
                await d.update(CONTENT)
                found.append((await awaited(call), await d.copy()))
            assert found[0] == found[1], method
        area = await client.area(area_name, size=4096)
        for method, note in AREA_CALLS:
            found = []
            for call in (lambda: note(area), lambda: alone(client, note, "area", area_name)):
                await area.fill(0, 4096, 1)
                found.append((await awaited(call), await area.read(0)))
            assert found[0] == found[1], method
        await client.areas.delete(area_name)

    run(service, door, area_name, check)


def test_blocks_failures_and_using_it_again(service: Service, door: str, area_name: str) -> None:
    async def check(client: Client, d: Dict) -> None:
        async with client.batch() as batch:
            mine = batch.dict(area_name)
            first = mine.incr("n", 2)
            with pytest.raises(RuntimeError, match="only noted"):
                first.result()
        assert first.result() == 2
        with pytest.raises(ZeroDivisionError):
            async with batch:
                mine.incr("n")
                raise ZeroDivisionError
        assert len(batch) == 0 and await d.get("n") == 2
        noted = [mine.incr("n"), mine.incr(""), mine.incr("n")]
        with pytest.raises(statehouse.InvalidArgument):
            await batch.run()
        assert [noted[0].result(), noted[2].result()] == [3, 4]
        stopping = client.batch(stop_at_failure=True)
        mine = stopping.dict(area_name)
        for number in range(5000):
            mine.incr("" if number == 10 else "n")
        results = await stopping.run(raise_errors=False)
        assert results[:10] == [*range(5, 15)] and isinstance(results[10], statehouse.InvalidArgument)
        assert {type(result) for result in results[11:]} == {statehouse.Cancelled} and await d.get("n") == 14
        for number in range(9000):
            mine.incr("n")
        assert await stopping.run() == [*range(15, 9015)]

    run(service, door, area_name, check)


def test_large_answers_and_large_batches(service: Service, door: str, area_name: str) -> None:
    async def check(client: Client, d: Dict) -> None:
        async with client.batch() as batch:
            mine = batch.dict(area_name)
            for number in range(20):
                mine.set(str(number), bytes([number]) * 900_000)
        async with batch:
            mine.incr("n")
            got = [mine.get(str(number)) for number in range(15)]
        assert [operation.result() for operation in got] == [bytes([number]) * 900_000 for number in range(15)]
        got = [mine.get(str(number)) for number in range(3)]
        assert await batch.run() == [bytes([number]) * 900_000 for number in range(3)]

    run(service, door, area_name, check)


def test_many_tasks_count_exactly(service: Service, door: str, area_name: str) -> None:
    async def check(client: Client, d: Dict) -> None:
        async def count() -> None:
            async with client.batch() as batch:
                mine = batch.dict(area_name)
                for _ in range(64):
                    mine.incr("n")

        await asyncio.gather(*(count() for _ in range(50)))
        assert await d.get("n") == 3200

    run(service, door, area_name, check)


def test_a_repeated_batch_counts_once(service: Service, area_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(client: Client, d: Dict) -> None:
        original = statehouse.aio._AsyncNetworkSession._channel_of_this_process
        lost: list[Any] = []

        def channel(session: Any) -> Any:
            """Loses the answer of the first batch."""
            real = original(session)

            class Lossy:
                def unary_unary(self, method: str, **options: Any) -> Any:
                    send = real.unary_unary(method, **options)

                    async def call(*args: Any, **more: Any) -> Any:
                        answer = await send(*args, **more)
                        if method == _batch.RUN_BATCH and not lost:
                            lost.append(answer)
                            return await real.unary_unary("/statehouse.v1.Batches/None")(b"", wait_for_ready=True)
                        return answer

                    return call

            return Lossy()

        def unavailable(rpc_error: Any, call: Call, target: str) -> errors.Error:
            return errors.by_name("UNAVAILABLE", "the answer was lost", call.name)

        monkeypatch.setattr(statehouse.aio._AsyncNetworkSession, "_channel_of_this_process", channel)
        monkeypatch.setattr(statehouse.aio, "error_of", unavailable)
        batch = client.batch()
        mine = batch.dict(area_name)
        for _ in range(10):
            mine.incr("n"), mine.append("l", 1)
        results = await batch.run()
        assert len(lost) == 1 and results[-2:] == [10, 10] and await d.length() == 2
        for _ in range(65):
            mine.incr("n")
        lost.clear()
        with pytest.raises(statehouse.Unavailable, match="may have been carried out"):
            await batch.run()
        assert len(lost) == 1 and await d.get("n") == 75

    run(service, "network", area_name, check)


def test_a_task_that_is_cancelled_leaves_operations_that_say_so(service: Service, door: str, area_name: str) -> None:
    async def check(client: Client, d: Dict) -> None:
        batch = client.batch()
        operation = batch.dict(area_name).incr("n")

        async def never(call: Call) -> Any:
            await asyncio.Event().wait()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client, "_call_batch", never)
            task = asyncio.create_task(batch.run())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        with pytest.raises(statehouse.Cancelled, match="broken off"):
            operation.result()
        assert await batch.run() == []

    run(service, door, area_name, check)
