"""The stream that carries small batches of statehouse.aio over the network door: its tasks, its end, and its event loops."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

import statehouse
import statehouse.aio
from statehouse import _batch, _batch_stream
from statehouse._async_batch_link import IN_FLIGHT_MAX, AsyncBatchLink, Connection

from conftest import PATIENCE_S, Service, wait_until
from test_aio_dict import run
from test_fork import in_child

Client = statehouse.aio.AsyncClient
Dict = statehouse.aio.AsyncSharedDict


async def until(condition: Callable[[], Any], what: str) -> None:
    """Lets the event loop go on until the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)  # A pause between looks; the condition decides.


async def count(client: Client, name: str, operations: int = 3) -> Any:
    """Increments as one batch: what the last gave."""
    return (await counts(client, name, operations))[-1]


async def counts(client: Client, name: str, operations: int) -> list[Any]:
    """What all of them gave."""
    batch = client.batch()
    d = batch.dict(name)
    for _ in range(operations):
        d.incr("n")
    return await batch.run()


def link_of(client: Client) -> AsyncBatchLink:
    return client._streams.batches


async def begun(client: Client, name: str) -> Connection:
    """The connection of a client, after at least three batches of three increments."""
    for _ in range(3):
        await count(client, name)
    await until(lambda: link_of(client)._connection is not None, "the beginning of a stream")
    connection = link_of(client)._connection
    assert connection is not None
    return connection


def sockets() -> int:
    """How many this process has open."""
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
        except FileNotFoundError:
            continue  # The folder's own.
    return found


@pytest.fixture
def no_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The batches that went by calls from now on."""
    calls: list[Any] = []
    original = statehouse.aio._AsyncNetworkSession.call

    async def call(session: Any, call: Any, timeout: float | None = None) -> Any:
        if call.method.endswith("/RunBatch"):
            calls.append(call)
        return await original(session, call, timeout)

    monkeypatch.setattr(statehouse.aio._AsyncNetworkSession, "call", call)
    return calls


@pytest.mark.parametrize("scheme", ["url", "tcp_url"])
def test_it_begins_after_a_few_batches(service: Service, area_name: str, scheme: str, no_calls: list[Any]) -> None:
    async def check() -> None:
        url = getattr(service, scheme)
        async with statehouse.aio.connect(url, token=service.token, transport="network", timeout=10.0) as client:
            await client.dict(area_name)
            link = link_of(client)
            for number in (1, 2):
                assert await count(client, area_name) == 3 * number and link._beginning is link._connection is None
            used = await begun(client, area_name)
            no_calls.clear()
            assert [await count(client, area_name) for _ in range(5)] == [18, 21, 24, 27, 30] and not no_calls
            # What is too large for it goes by a call, and does not end it.
            async with client.batch() as batch:
                for number in range(64):
                    batch.dict(area_name).set(str(number), bytes(1000))
            assert await count(client, area_name, 4000) == 4030 and len(no_calls) == 2
            async with client.batch() as batch:
                large = [batch.dict(area_name).get(str(number % 64)) for number in range(1000)]
            assert all(operation.result() == bytes(1000) for operation in large)
            assert link._connection is used and not used.retired and len(no_calls) == 2
            await client.dicts.delete(area_name)
        assert link._connection is None and used.retired and not link._connections - {used}

    before = sockets()
    asyncio.run(check())
    wait_until(lambda: sockets() <= before, "the end of gRPC's connections")


def test_a_local_client_uses_it_where_packets_are_too_small(
    service: Service, area_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batch_stream, "BEGINS_AFTER", 0)

    async def check(client: Client, d: Dict) -> None:
        await d.set("large", bytes(200_000))
        assert await count(client, area_name) == 3 and link_of(client)._beginning is link_of(client)._connection is None
        async with client.batch() as batch:
            got = batch.dict(area_name).get("large")
        # An answer comes in as many packets as it takes; so many changes are not sent by packets.
        assert got.result() == bytes(200_000) and link_of(client)._beginning is None
        for _ in range(2):
            async with client.batch() as batch:
                for _ in range(_batch.PACKET_OPERATIONS_MAX + 1):
                    batch.dict(area_name).incr("many")
            await until(lambda: link_of(client)._connection is not None, "the beginning of a stream")

    run(service, "local", area_name, check)


def test_tasks_share_it_and_have_their_answers_in_order(service: Service, area_name: str, no_calls: list[Any]) -> None:
    async def check(client: Client, d: Dict) -> None:
        used = await begun(client, area_name)
        first = await d.get("n")
        no_calls.clear()
        answers: list[int] = []

        async def work() -> None:
            answers.append(await count(client, area_name))

        # More than are in flight at once.
        await asyncio.gather(*(work() for _ in range(10 * IN_FLIGHT_MAX)))
        assert answers == [first + 3 * number for number in range(1, 10 * IN_FLIGHT_MAX + 1)]
        assert not no_calls and link_of(client)._connection is used and not used._sent and not used._waiting

    run(service, "network", area_name, check)


def test_cancelled_tasks_leave_it_in_step(service: Service, area_name: str, no_calls: list[Any]) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    choose = random.Random(seed)

    async def check(client: Client, d: Dict) -> None:
        used = await begun(client, area_name)
        first = await d.get("n")
        no_calls.clear()
        before = sockets()
        tasks: list[asyncio.Task[int]] = []
        for number in range(1000):
            tasks.append(asyncio.create_task(count(client, area_name)))
            if choose.random() < 0.2:
                await asyncio.sleep(0)
            if choose.random() < 0.6:
                choose.choice(tasks[-40:]).cancel()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE_S)
        done = [result for result in results if not isinstance(result, BaseException)]
        assert {type(result) for result in results} == {int, asyncio.CancelledError} and 100 < len(done) < 900
        # Each batch counted as a whole or not at all, and each answer is its own batch's.
        end = await count(client, area_name)
        assert (end - first) % 3 == 0 and len(done) < (end - first) // 3 <= 1001
        assert len(set(done)) == len(done) and all(first < number < end and (number - first) % 3 == 0 for number in done)
        assert done == sorted(done)
        assert link_of(client)._connection is used and not used._sent and not used._waiting and not no_calls
        assert sockets() == before and len(link_of(client)._connections) == 1

    run(service, "network", area_name, check)


def test_a_killed_daemon_costs_nothing(
    service: Service, area_name: str, monkeypatch: pytest.MonkeyPatch, no_calls: list[Any]
) -> None:
    monkeypatch.setattr(_batch_stream, "TRIED_AGAIN_AFTER_S", 0.0)

    async def check(client: Client, d: Dict) -> None:
        used = await begun(client, area_name)
        first = await d.get("n")
        answers: list[list[int]] = []

        async def work() -> None:
            for _ in range(40):
                answers.append(await counts(client, area_name, 10))

        async def kill() -> None:
            for number in (100, 400):
                await until(lambda: len(answers) > number, "so many batches")
                await asyncio.to_thread(service.kill_daemon)

        await asyncio.gather(kill(), *(work() for _ in range(20)))
        # A batch that goes by a call may come between the operations of another one, but each counts once and in its order.
        assert all(answer == sorted(answer) for answer in answers)
        assert sorted(number for answer in answers for number in answer) == list(range(first + 1, first + 8001))
        assert await d.get("n") == first + 8000
        assert used.retired and no_calls
        await until(lambda: link_of(client)._connection not in (None, used), "another stream")

    run(service, "network", area_name, check)


def test_a_token_that_is_taken_away_is_told(service: Service, area_name: str) -> None:
    async def check(client: Client, d: Dict) -> None:
        token = await asyncio.to_thread(service.add_token, "aiolinkx", {("dict", "*"): ("read", "write")})
        async with statehouse.aio.connect(service.url, token=token, transport="network", timeout=10.0) as limited:
            used = await begun(limited, area_name)
            first = await count(limited, area_name)
            await asyncio.to_thread(service.remove_token, "aiolinkx")
            with pytest.raises(statehouse.Unauthenticated):
                await count(limited, area_name, 100)  # May not be repeated, but was not carried out.
            assert used.retired and await d.get("n") == first

    run(service, "network", area_name, check)


def test_closing_under_batches_refuses_them(service: Service, area_name: str) -> None:
    async def check(client: Client, d: Dict) -> None:
        other = await statehouse.aio.connect(service.url, token=service.token, transport="network", timeout=10.0)
        used = await begun(other, area_name)
        first = await d.get("n")
        tasks = [asyncio.create_task(count(other, area_name)) for _ in range(100)]
        while not used._sent:
            await asyncio.sleep(0)
        await other.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [result for result in results if isinstance(result, BaseException)]
        assert refused and {type(error) for error in refused} == {statehouse.ClientClosed}
        assert 100 - len(refused) <= (await d.get("n") - first) // 3 <= 100
        with pytest.raises(statehouse.ClientClosed):
            await count(other, area_name)

    run(service, "network", area_name, check)


def test_each_event_loop_has_a_client_of_its_own(service: Service, area_name: str) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        async def many() -> None:
            async with statehouse.aio.connect(service.url, token=service.token, transport="network", timeout=10.0) as mine:
                await begun(mine, area_name)
                for _ in range(47):
                    await asyncio.gather(count(mine, area_name), count(mine, area_name))
                await count(mine, area_name)

        try:
            asyncio.run(many())
        except BaseException as error:
            failures.append(error)

    async def check(client: Client, d: Dict) -> None:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join, PATIENCE_S)
        assert not failures and await d.get("n") == 4 * 3 * 98

    run(service, "network", area_name, check)


def test_a_forked_child_leaves_its_parents_alone(service: Service, area_name: str) -> None:
    async def check(client: Client, d: Dict) -> None:
        used = await begun(client, area_name)
        first = await count(client, area_name)
        descriptor = used._socket.fileno()

        def as_child() -> None:
            assert used._socket.fileno() == -1 and link_of(client)._connection is None
            with pytest.raises(OSError):
                os.fstat(descriptor)

            async def refused() -> None:
                for _ in range(4):
                    with pytest.raises(statehouse.Error) as raised:
                        await count(client, area_name)
                    assert raised.value.reason == "CLIENT_FORKED"

            asyncio.run(refused())

        pending = asyncio.create_task(count(client, area_name))
        await asyncio.sleep(0)
        assert used._sent
        in_child(as_child)
        assert await pending == first + 3 and await count(client, area_name) == first + 6
        assert link_of(client)._connection is used

    run(service, "network", area_name, check)
