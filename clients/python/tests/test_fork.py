"""fork(): children go on with what their parent opened, through both doors."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable

import pytest

import statehouse

from conftest import Service, wait_until


def in_child(check: Callable[[], object]) -> None:
    """Runs `check` in a forked child, which must not fail."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            check()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_child_uses_the_area_of_its_parent(client: statehouse.Client, area: statehouse.Area) -> None:
    assert area.add_u64(0, 1) == 1

    def check() -> None:
        assert area.load_u64(0) == 1
        assert area.add_u64(0, 10) == 11
        assert client.status().version
        assert client.area(area.name).load_u64(0) == 11

    in_child(check)
    assert area.add_u64(0, 1) == 12
    assert client.status().version


def test_a_client_that_was_never_used_works_in_a_child(service: Service, door: str, area_name: str) -> None:
    with service.connect(door) as client:
        in_child(lambda: client.area(area_name, size=8).add_u64(0, 5))
        assert client.area(area_name).add_u64(0, 1) == 6
        client.areas.delete(area_name)


def test_grandchildren_and_siblings_count_exactly(area: statehouse.Area) -> None:
    area.add_u64(0, 1)
    pids = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for _ in range(20):
                    area.add_u64(0, 1)
                in_child(lambda: area.add_u64(0, 1))
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    for pid in pids:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert area.load_u64(0) == 1 + 4 * 21


def test_closing_in_a_child_leaves_the_parent_alone(client: statehouse.Client, area: statehouse.Area) -> None:
    area.add_u64(0, 1)

    def check() -> None:
        client.close()
        with pytest.raises(statehouse.ClientClosed):
            area.load_u64(0)

    in_child(check)
    assert area.add_u64(0, 1) == 2
    assert client.status().version


def test_forking_while_threads_work_leaves_a_usable_child(service: Service, area_name: str) -> None:
    with service.connect("local") as client:
        area = client.area(area_name, size=1 << 20)
        stop = threading.Event()
        block = bytes(256 << 10)

        def work() -> None:
            while not stop.is_set():
                area.write(0, block)
                area.add_u64(1 << 19, 1)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(10):
                in_child(lambda: (area.add_u64((1 << 20) - 8, 1), client.close()))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert area.load_u64((1 << 20) - 8) == 10
        client.areas.delete(area_name)


def _add_in_worker(area: statehouse.Area) -> int:
    return area.add_u64(0, 1)


def test_multiprocessing_workers_share_an_inherited_area(area: statehouse.Area) -> None:
    area.add_u64(0, 1)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add_in_worker, args=(area,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert area.load_u64(0) == 5


def test_ended_children_give_their_lanes_back(service: Service, area_name: str) -> None:
    with service.connect("local") as client:
        area = client.area(area_name, size=8)
        area.add_u64(0, 1)
        before = client.status().attached_processes
        for _ in range(10):
            in_child(lambda: area.add_u64(0, 1))
        wait_until(
            lambda: client.status().attached_processes <= before, "the recovery of ended children"
        )
        client.areas.delete(area_name)
