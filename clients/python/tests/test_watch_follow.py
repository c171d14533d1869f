"""Watches that a process of the service's host follows by itself: that it does, that nothing of a stream is missing, and when it goes back
to one."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

import statehouse
from conftest import Service, run_service, wait_until
from statehouse import _local, _watch_follow, errors
from statehouse._dict_watch import Reader, check_options
from statehouse.v1 import watch_pb2
from test_watch import PATIENCE_S, take, until_synced

HISTORY_BYTES = 64 << 10  # The least there is.


def mapped_logs() -> int:
    """Follow logs that this process has mapped."""
    lines = [line for line in pathlib.Path("/proc/self/maps").read_text().splitlines() if "statehouse-follow" in line]
    assert all(" r--s " in line for line in lines), lines
    return len(lines)


def check_alike(followed: list[statehouse.WatchEvent], streamed: list[statehouse.WatchEvent]) -> None:
    """But for the time: a follower may take a change a little before the service sees it."""
    assert [event._replace(time=None) for event in followed] == [event._replace(time=None) for event in streamed]
    for mine, theirs in zip(followed, streamed, strict=True):
        assert mine.time is not None and theirs.time is not None
        assert abs(mine.time - theirs.time) < timedelta(seconds=1)


def threads(name: str) -> int:
    names = []
    for task in pathlib.Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.append((task / "comm").read_text().strip())
    return names.count(name)


def follows(watch: statehouse.Watch) -> bool:
    """Reads what is there first, and no change."""
    assert watch.next(0.01) is None
    return watch._follow is not None


def following(d: statehouse.SharedDict, **options: Any) -> statehouse.Watch:
    """A watch that is synced and follows."""
    watch = d.watch(**options)
    until_synced(watch)
    wait_until(lambda: follows(watch), "the handing over")
    return watch


@contextlib.contextmanager
def configured(folder: pathlib.Path, text: str) -> Iterator[Service]:
    """A service with these settings."""
    config = folder / "statehouse.toml"
    config.write_text(text)
    with run_service(folder, "--config", str(config)) as service:
        yield service


@pytest.fixture
def door() -> str:
    return "local"


@pytest.fixture
def d(client: statehouse.Client, area_name: str) -> Iterator[statehouse.SharedDict]:
    yield client.dict(area_name)
    assert mapped_logs() == 0 or wait_until(lambda: mapped_logs() == 0, "the end of all following") is not None


def test_tells_what_a_stream_tells(d: statehouse.SharedDict) -> None:
    with d.watch(slow="latest") as stream:  # Which stays with the stream.
        until_synced(stream)
        with following(d) as watch:
            d["list"] = [1, {"a": b"x"}]
            d["n"] = 1
            d.incr("n", -5)
            d["f"] = 1.5
            d["none"] = None
            d["big"] = 1 << 80
            d["bytes"] = b"\x08\x01"
            d.set("brief", "text", ttl=0.05)
            del d["list"]
            d["é" * 512] = "the longest key"
            followed = take(watch, 11)
            check_alike(followed, take(stream, 11))
            assert [e.kind for e in followed].count("expire") == 1
            assert watch.revision == followed[-1].revision == stream.revision
            assert follows(watch) and mapped_logs() == 1


def test_what_the_service_does_for_a_watch_stays_with_the_stream(d: statehouse.SharedDict) -> None:
    for options in ({"previous": True}, {"window": 0.001}, {"slow": "latest"}):
        with d.watch(**options) as watch:
            until_synced(watch)
            assert watch.next(0.1) is None
            assert mapped_logs() == 0
    with following(d, slow="cancel", keys_only=True, snapshot=False, progress=3600, prefix="a"):
        assert mapped_logs() == 1


def test_key_prefix_kinds_and_keys_only_choose_what_is_told(d: statehouse.SharedDict) -> None:
    with (
        following(d, key="web/b", keys_only=True) as one,
        following(d, prefix="web/") as prefix,
        following(d, kinds=["delete", "evict", "delete"]) as ends,
    ):
        for key in ("db", "web/a", "web/b", "web/bb"):
            d[key] = 1
        del d["db"]
        assert [(e.kind, e.key, e.value) for e in take(one, 1)] == [("put", "web/b", None)]
        assert [(e.kind, e.key, e.value) for e in take(prefix, 3)] == [
            ("put", "web/a", 1),
            ("put", "web/b", 1),
            ("put", "web/bb", 1),
        ]
        assert [(e.kind, e.key) for e in take(ends, 1)] == [("delete", "db")]
        assert all(watch.next(0) is None and follows(watch) for watch in (one, prefix, ends))


def test_keys_of_any_kind(client: statehouse.Client, area_name: str) -> None:
    d = client.dict(area_name, keys="any")
    with following(d, key=(1, "a")) as watch:
        d[(1, "b")] = 1
        d[(1, "a")] = b"x"
        assert [(e.key, e.value) for e in take(watch, 1)] == [((1, "a"), b"x")]


def test_progress_is_told_where_nothing_concerns_it(d: statehouse.SharedDict) -> None:
    with following(d, key="other", progress=0.1) as watch:
        d["a"] = 1
        (first,) = take(watch, 1)
        assert first.kind == "progress" and first.revision == watch.revision
        d["a"] = 2
        # The one after the next is of a time after the change.
        assert take(watch, 2)[1].revision > first.revision


def test_watches_of_a_process_share_a_mapping_and_leave_nothing(client: statehouse.Client, d: statehouse.SharedDict) -> None:
    with following(d), following(d, key="a") as one, following(client.dict(d.name), prefix="b"):
        assert mapped_logs() == 1
        d["a"] = 1
        take(one, 1)
    assert mapped_logs() == 0
    assert threads("statehouse-flw") == 0  # Whoever waits reads in his own thread.
    wait_until(lambda: not any(t.name == "statehouse-watch" for t in threading.enumerate()), "the end of the threads")


def test_a_cleared_dict_is_told_by_the_stream_and_then_followed_again(d: statehouse.SharedDict) -> None:
    d["a"] = 1
    with following(d) as watch:
        d.clear()
        assert [(e.kind, e.reason) for e in until_synced(watch)] == [("resync", "replaced"), ("synced", "")]
        wait_until(lambda: follows(watch), "the handing over")
        d["a"] = 2
        assert [(e.kind, e.value) for e in take(watch, 1)] == [("put", 2)]


def test_on_resync_is_called(d: statehouse.SharedDict) -> None:
    resyncs: list[statehouse.WatchEvent] = []
    with following(d, on_resync=resyncs.append) as watch:
        d.clear()
        events = until_synced(watch)
    assert resyncs == events[:1]


def test_a_slow_reader_is_told_resync(tmp_path: pathlib.Path) -> None:
    with (
        configured(tmp_path, f"[watches]\nhistory_bytes = {HISTORY_BYTES}\n") as service,
        service.connect("local") as client,
    ):
        d = client.dict("d")
        with following(d) as watch, following(d, slow="cancel") as cancelled, following(d, key="wanted") as other:
            for i in range(3_000):
                d["n"] = i
                if i % 100 == 0:
                    time.sleep(0.002)  # No ring is written over.
            d["wanted"] = 1
            events = take(watch, 1)
            while events[-1].kind != "resync":
                events += take(watch, 1)
            assert events[-1].reason == "slow watcher"
            assert sorted((e.key, e.value) for e in until_synced(watch)[:-1]) == [("n", 2_999), ("wanted", 1)]
            with pytest.raises(errors.LimitExceeded):
                while True:
                    take(cancelled, 1)
            # Its changes were written over with the others'.
            assert take(other, 1)[0].reason == "slow watcher"
            wait_until(lambda: follows(watch), "the handing over")
            d["n"] = -1
            assert take(watch, 1)[0].value == -1


def test_a_value_too_large_for_the_log_is_taken_from_the_entry(tmp_path: pathlib.Path) -> None:
    with (
        configured(tmp_path, f"[watches]\nhistory_bytes = {HISTORY_BYTES}\n") as service,
        service.connect("local") as client,
    ):
        d = client.dict("d")
        large = "x" * (2 * HISTORY_BYTES)
        with following(d) as watch, following(d, keys_only=True) as keys, following(d, key="small") as mark:
            d["a"] = large
            assert [(e.value == large, e.value_gone) for e in take(watch, 1)] == [(True, False)]
            d["a"] = large
            d["a"] = 1
            d["small"] = 2
            take(mark, 1)  # All of it is in the log.
            told = [(e.key, e.value, e.value_gone) for e in take(watch, 3)]
            assert told == [("a", None, True), ("a", 1, False), ("small", 2, False)]
            assert [(e.value, e.value_gone) for e in take(keys, 4)] == [(None, False)] * 4
            assert follows(watch)


def test_what_is_no_value_is_gone(d: statehouse.SharedDict) -> None:
    options = check_options("", None, True, None, False, None, "resync", None, 0, False)
    reader = Reader(d.name, options, str)
    portion = (7, [(1, "a", b"\xff\xff\xff", 4, 6, False, 1_500), (1, "b", 1, 5, 7, False, 0)])
    gone, number = reader.events(portion)
    assert (gone.key, gone.value, gone.value_gone, gone.version, gone.revision) == ("a", None, True, 4, 6)
    assert gone.time is not None and gone.time.timestamp() == 1.5
    assert (number.value, number.value_gone, reader.revision) == (1, False, 7)


def test_a_signal_ends_a_wait_and_loses_nothing(d: statehouse.SharedDict) -> None:
    with following(d) as watch:
        timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            watch.next()
        timer.join()
        d["a"] = 1
        assert [(e.kind, e.key) for e in take(watch, 1)] == [("put", "a")]


def waiting(watch: statehouse.Watch) -> tuple[threading.Thread, list[Any]]:
    """A thread that reads to the end; what it was told, and how it ended."""
    told: list[Any] = []

    def read() -> None:
        try:
            told.extend(e.key for e in watch)
            told.append("closed")
        except errors.Error as error:
            told.append(error.reason)

    thread = threading.Thread(target=read)
    thread.start()
    return thread, told


def test_close_wakes_who_waits(service: Service, area_name: str) -> None:
    with service.connect("local") as client:
        watch = following(client.dict(area_name))
        thread, told = waiting(watch)
        time.sleep(0.05)  # It sleeps.
        watch.close()
        thread.join(PATIENCE_S)
        assert not thread.is_alive() and told == ["closed"]
        watch = following(client.dict(area_name))
        thread, told = waiting(watch)
        time.sleep(0.05)
        client.close()
        thread.join(PATIENCE_S)
        assert not thread.is_alive() and told == ["CLIENT_CLOSED"]


def end_by_deletion(service: Service, d: statehouse.SharedDict) -> str:
    with service.connect("local") as c:
        c.dicts.delete(d.name)
    return "DICT_NOT_FOUND"


def end_by_revocation(service: Service, d: statehouse.SharedDict) -> str:
    service.remove_token("followr1")
    return "UNAUTHENTICATED"


@pytest.mark.parametrize("end", [end_by_deletion, end_by_revocation])
def test_what_came_before_the_end_is_told_before_it(
    service: Service, area_name: str, end: Callable[[Service, statehouse.SharedDict], str]
) -> None:
    token = service.add_token("followr1", {("dict", area_name): ("read",)})
    try:
        with service.connect("local") as writer, service.connect("local", token=token) as reader:
            d = writer.dict(area_name)
            read = reader.dict(area_name, create=False)
            watch, sleeps, mark = following(read), following(read), following(d)
            thread, told = waiting(sleeps)
            for i in range(100):
                d["k"] = i
            take(mark, 100)  # All of it is in the log.
            reason = end(service, d)
            thread.join(PATIENCE_S)
            assert told == ["k"] * 100 + [reason]
            wait_until(lambda: watch._pump.messages.qsize(), "the end of the other one's stream")
            mark.close()
            with contextlib.suppress(errors.Error):
                d["k"] = "later"
            assert [e.value for e in take(watch, 100)] == list(range(100))
            for _ in range(2):
                with pytest.raises(errors.Error) as error:
                    watch.next(PATIENCE_S)
                assert error.value.reason == reason
            assert mapped_logs() == 0
    finally:
        with contextlib.suppress(AssertionError):
            service.remove_token("followr1")


def test_goes_on_and_follows_again_over_a_killed_daemon(service: Service, d: statehouse.SharedDict) -> None:
    with following(d) as watch:
        for i in range(3):
            service.kill_daemon()
            d["n"] = i  # Also while it is away.
            events = take(watch, 1)
            while events[-1].kind != "put":
                events += take(watch, 1)
            assert [e.kind for e in events if e.kind != "synced"] == ["put"] and events[-1].value == i
            wait_until(lambda: no_more(watch), "the handing over")


def test_what_was_handed_over_and_is_no_more_is_asked_for_again_but_not_for_ever() -> None:
    def asked(offers: _watch_follow.Offers) -> int:
        request = watch_pb2.WatchDictRequest()
        offers.put(request)
        return request.local_follow

    gone, late = errors.Unavailable("it is no more"), errors.Timeout("no answer")
    offers = _watch_follow.Offers(may_follow=True)
    assert asked(offers) == _watch_follow.OFFERED
    for _ in range(2):  # Having opened one it begins to count anew.
        for error in [gone, late, gone][: _watch_follow.OPENS_MAX - 1]:
            offers.was_opened(error)
            assert asked(offers) == _watch_follow.RETURNED
        offers.was_opened(None)
    for _ in range(_watch_follow.OPENS_MAX):
        offers.was_opened(gone)
    assert asked(offers) == _watch_follow.DECLINED
    offers.after_break()
    offers.was_opened(gone)
    assert asked(offers) == _watch_follow.RETURNED
    offers.was_opened(errors.DataLoss("of another dict"))
    assert asked(offers) == _watch_follow.DECLINED


def no_more(watch: statehouse.Watch) -> bool:
    """Reads "synced" of a stream that went on."""
    event = watch.next(0.01)
    assert event is None or event.kind == "synced"
    return watch._follow is not None


def test_a_child_follows_by_itself(d: statehouse.SharedDict) -> None:
    with following(d) as watch:
        d["a"] = 1
        (event,) = take(watch, 1)
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                wait_until(lambda: no_more(watch), "the handing over")
                os.write(write_end, b"ready")
                (after,) = take(watch, 1)
                os.write(write_end, f" {after.kind} {after.key} {after.revision - event.revision} {mapped_logs()}".encode())
                watch.close()
                code = 0
            finally:
                os._exit(code)
        os.close(write_end)
        assert os.read(read_end, 5) == b"ready"
        wait_until(lambda: no_more(watch), "the handing over")
        d["b"] = 2
        with os.fdopen(read_end) as told:
            # The parent's follow log is another one: its stream ended for the fork.
            assert told.read().startswith(" put b 1")
        assert os.waitpid(pid, 0)[1] == 0
        assert [(e.kind, e.key) for e in take(watch, 1)] == [("put", "b")]


def test_one_that_goes_back_at_the_limit_of_watches_keeps_its_place(tmp_path: pathlib.Path) -> None:
    with configured(tmp_path, "[watches]\ncount_max = 1\n") as service, service.connect("local") as client:
        d = client.dict("d")
        with following(d) as watch:
            for _ in range(20):
                d.clear()
                assert [(e.kind, e.reason) for e in until_synced(watch)] == [("resync", "replaced"), ("synced", "")]
                wait_until(lambda: follows(watch), "the handing over")
            with d.watch() as other, pytest.raises(errors.LimitExceeded) as refused:
                other.next(PATIENCE_S)
            assert refused.value.retry_after


@pytest.mark.parametrize(
    ("error", "opened"),
    [
        (errors.by_name("DATA_LOSS", "it makes no sense", ""), 1),
        (errors.by_name("TIMEOUT", "no answer", ""), _watch_follow.OPENS_MAX),
        (errors.by_name("UNAVAILABLE", "it is no more", ""), _watch_follow.OPENS_MAX),
    ],
)
def test_where_the_log_cannot_be_opened_the_stream_goes_on(
    d: statehouse.SharedDict, monkeypatch: pytest.MonkeyPatch, error: errors.Error, opened: int
) -> None:
    tries: list[int] = []

    class Refusing:
        is_supported = _local.DictFollow.is_supported
        may_follow_rings = _local.DictFollow.may_follow_rings

        def __new__(cls, *args: Any) -> Any:
            tries.append(args[1])
            raise error

    monkeypatch.setattr(_local, "DictFollow", Refusing)
    with d.watch() as watch:
        until_synced(watch)
        for i in range(3):
            d["a"] = i
            assert [(e.kind, e.value) for e in take(watch, 1)] == [("put", i)]
            wait_until(lambda: len(tries) == opened, "the last try")
        assert len(tries) == opened
        assert mapped_logs() == 0


def test_a_kernel_without_futex_waitv_stays_with_the_stream(
    d: statehouse.SharedDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unsupported:
        is_supported = staticmethod(lambda: False)

    monkeypatch.setattr(_local, "DictFollow", Unsupported)
    with d.watch() as watch:
        until_synced(watch)
        d["a"] = 1
        assert [(e.kind, e.value) for e in take(watch, 1)] == [("put", 1)]
        assert watch.next(0.1) is None and mapped_logs() == 0


def test_a_change_is_told_while_the_service_stands_still(service: Service, d: statehouse.SharedDict) -> None:
    """It is taken from its ring. What is not must be told afterwards, and everything once."""
    wanted = 3
    early = 0
    with service.connect("network") as other:
        daemon = other.status().daemon_pid
    with d.watch() as watch:
        until_synced(watch)
        for i in range(30):
            os.kill(daemon, signal.SIGSTOP)
            try:
                d["k"] = i
                event = watch.next(0.3)
            finally:
                os.kill(daemon, signal.SIGCONT)
            early += event is not None
            if event is None:
                event = watch.next(PATIENCE_S)
            assert event is not None and (event.kind, event.key, event.value) == ("put", "k", i)
            assert watch.next(0.02) is None
            if early == wanted:
                break
    assert early == wanted
