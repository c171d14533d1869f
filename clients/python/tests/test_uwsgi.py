"""statehouse.compat.uwsgi keeps what uWSGI's SharedArea promises, and has none of its crashes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import statehouse
import statehouse.compat.uwsgi as compat


@pytest.fixture
def uwsgi(client: statehouse.Client) -> Iterator[Any]:
    before = sys.modules.pop("uwsgi", None)
    yield compat.install(client)
    compat.use(None)
    sys.modules.pop("uwsgi", None)
    if before is not None:
        sys.modules["uwsgi"] = before


def test_install_makes_the_module_importable(uwsgi: Any) -> None:
    import uwsgi as imported  # type: ignore[import-not-found]

    assert imported is uwsgi
    for name in ("read", "write", "inc64", "dec8", "readlong", "wait", "rlock", "memoryview"):
        assert callable(getattr(imported, f"sharedarea_{name}"))


def test_install_keeps_the_rest_of_a_module_that_exists(client: statehouse.Client) -> None:
    module = type(sys)("uwsgi")
    module.__dict__["version"] = "2.0"
    sys.modules["uwsgi"] = module
    try:
        assert compat.install(client) is module
        assert module.__dict__["version"] == "2.0"
        assert callable(module.__dict__["sharedarea_read"])
    finally:
        compat.use(None)
        del sys.modules["uwsgi"]


def test_areas_go_by_index_and_by_name(uwsgi: Any, area: statehouse.Area) -> None:
    assert uwsgi.sharedarea_write(area.index, 0, "hello") is None
    assert uwsgi.sharedarea_read(area.name, 0, 5) == b"hello"
    assert uwsgi.sharedarea_read(area.index, 0, 5) == b"hello"


def test_text_is_written_as_utf8_and_bytes_as_they_are(uwsgi: Any, area: statehouse.Area) -> None:
    uwsgi.sharedarea_write(area.index, 0, "ä")
    assert uwsgi.sharedarea_read(area.index, 0, 3) == b"\xc3\xa4\0"
    for data in (b"ab", bytearray(b"cd"), memoryview(b"ef")):
        uwsgi.sharedarea_write(area.index, 8, data)
        assert uwsgi.sharedarea_read(area.index, 8, 2) == bytes(data)


def test_a_missing_or_zero_length_reads_to_the_end(uwsgi: Any, area: statehouse.Area) -> None:
    assert uwsgi.sharedarea_read(area.index, 4090) == bytes(6)
    assert uwsgi.sharedarea_read(area.index, 4090, 0) == bytes(6)


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_numbers_are_read_signed_and_wrap_around(
    uwsgi: Any, area: statehouse.Area, bits: int
) -> None:
    index = area.index
    read = getattr(uwsgi, f"sharedarea_read{bits}")
    write = getattr(uwsgi, f"sharedarea_write{bits}")
    top = (1 << bits - 1) - 1
    for number, seen in ((top, top), (top + 1, -top - 1), (-1, -1), ((1 << bits) - 1, -1)):
        assert write(index, 3, number) is None
        assert read(index, 3) == seen
    write(index, 3, top)
    assert getattr(uwsgi, f"sharedarea_inc{bits}")(index, 3) is None
    assert read(index, 3) == -top - 1
    getattr(uwsgi, f"sharedarea_dec{bits}")(index, 3, 2)
    assert read(index, 3) == top - 1
    getattr(uwsgi, f"sharedarea_inc{bits}")(index, 3, -5)
    assert read(index, 3) == top - 6
    before = area.updates
    for bad in (1 << bits, -top - 2, 10**30):
        with pytest.raises(OverflowError):
            write(index, 3, bad)
    assert read(index, 3) == top - 6
    assert area.updates == before


def test_aliases_do_the_same(uwsgi: Any, area: statehouse.Area) -> None:
    uwsgi.sharedarea_writebyte(area.index, 0, 200)
    assert uwsgi.sharedarea_readbyte(area.index, 0) == -56
    uwsgi.sharedarea_writelong(area.index, 8, 1 << 40)
    uwsgi.sharedarea_inclong(area.index, 8, 3)
    assert uwsgi.sharedarea_readlong(area.index, 8) == (1 << 40) + 3


@pytest.mark.parametrize("area_id", [-1, -(1 << 63), 1 << 31, 1 << 32, 1 << 70, "no-such-area"])
def test_unknown_areas_are_value_errors(uwsgi: Any, area: statehouse.Area, area_id: Any) -> None:
    for call in (
        lambda: uwsgi.sharedarea_read(area_id, 0),
        lambda: uwsgi.sharedarea_write(area_id, 0, b"x"),
        lambda: uwsgi.sharedarea_inc64(area_id, 0),
        lambda: uwsgi.sharedarea_rlock(area_id),
        lambda: uwsgi.sharedarea_wait(area_id),
        lambda: uwsgi.sharedarea_update(area_id),
    ):
        with pytest.raises(ValueError) as raised:
            call()
        assert isinstance(raised.value, statehouse.NotFound)


@pytest.mark.parametrize("pos", [-1, -(1 << 63), 4096, 4097, (1 << 64) - 1, 1 << 64])
def test_positions_outside_are_value_errors_also_for_no_bytes(
    uwsgi: Any, area: statehouse.Area, pos: int
) -> None:
    for call in (
        lambda: uwsgi.sharedarea_read(area.index, pos),
        lambda: uwsgi.sharedarea_read(area.index, pos, 0),
        lambda: uwsgi.sharedarea_write(area.index, pos, b""),
        lambda: uwsgi.sharedarea_read8(area.index, pos),
        lambda: uwsgi.sharedarea_write16(area.index, pos, 1),
        lambda: uwsgi.sharedarea_inc32(area.index, pos),
    ):
        with pytest.raises(ValueError):
            call()


def test_what_crashes_elsewhere_is_an_error(uwsgi: Any, area: statehouse.Area) -> None:
    before = area.read(0)
    for length in (-1, 4097, 1 << 62, (1 << 63) - 1, 1 << 64):
        with pytest.raises(ValueError):
            uwsgi.sharedarea_read(area.index, 0, length)
    with pytest.raises(ValueError):
        uwsgi.sharedarea_inc64(area.index, 4092)
    with pytest.raises(OverflowError):
        uwsgi.sharedarea_write16(area.index, 0, 65542)
    for bad in (None, 1.5):
        with pytest.raises(TypeError):
            uwsgi.sharedarea_read(bad, 0)
        with pytest.raises(TypeError):
            uwsgi.sharedarea_read(area.index, bad)
    assert area.read(0) == before


def test_update_counts_and_wakes(uwsgi: Any, area: statehouse.Area) -> None:
    before = area.updates
    waiting = threading.Thread(target=lambda: area.wait(before, 60))
    waiting.start()
    assert uwsgi.sharedarea_update(area.index) is None
    waiting.join()
    assert area.updates == before + 1
    assert area.read(0) == bytes(4096)


def test_wait_returns_none_for_an_update_and_times_out(uwsgi: Any, area: statehouse.Area) -> None:
    seen = area.updates
    area.add_u8(0)
    assert uwsgi.sharedarea_wait(area.index, -5, 60, since=seen) is None
    with pytest.raises(TimeoutError):
        uwsgi.sharedarea_wait(area.index, 0, 0.01)


def test_locks_are_for_those_who_take_them(uwsgi: Any, area: statehouse.Area, client: statehouse.Client) -> None:
    writer = client.lock(f"area/{area.name}")
    uwsgi.sharedarea_rlock(area.index)
    uwsgi.sharedarea_rlock(area.index)
    assert not writer.acquire(False) and uwsgi.sharedarea_write8(area.index, 0, 1) is None
    with pytest.raises(statehouse.InvalidArgument, match="wait for itself"):
        uwsgi.sharedarea_wlock(area.index)
    uwsgi.sharedarea_unlock(area.index)
    assert not writer.acquire(False)
    uwsgi.sharedarea_unlock(area.index)
    with pytest.raises(RuntimeError):
        uwsgi.sharedarea_unlock(area.index)
    uwsgi.sharedarea_wlock(area.index)
    uwsgi.sharedarea_wlock(area.index)
    uwsgi.sharedarea_rlock(area.index)
    assert not client.lock(f"area/{area.name}", shared=True).acquire(False)
    for _ in range(3):
        uwsgi.sharedarea_unlock(area.index)
    assert writer.acquire(False)
    writer.release()


def test_memoryview_and_object_are_the_memory(
    uwsgi: Any, area: statehouse.Area, door: str
) -> None:
    if door != "local":
        with pytest.raises(statehouse.TransportError):
            uwsgi.sharedarea_memoryview(area.index)
        return
    view = uwsgi.sharedarea_memoryview(area.index)
    view[5] = 77
    assert uwsgi.sharedarea_read8(area.index, 5) == 77
    for _ in range(5):
        assert uwsgi.sharedarea_object(area.index)[5] == 77


def test_an_area_that_was_created_again_is_found_by_name(
    uwsgi: Any, client: statehouse.Client, area: statehouse.Area
) -> None:
    uwsgi.sharedarea_write(area.name, 0, b"old")
    client.areas.delete(area.name)
    client.areas.create(area.name, size=4096)
    assert uwsgi.sharedarea_read(area.name, 0, 3) == bytes(3)


class Socket:
    def __init__(self) -> None:
        self.sent: list[bytes | str] = []

    def send(self, message: bytes | str) -> None:
        self.sent.append(message)


def test_websocket_send_from_sharedarea(uwsgi: Any, area: statehouse.Area) -> None:
    area.write(4090, "héllo".encode())
    socket = Socket()
    compat.use_websocket(socket)
    try:
        uwsgi.websocket_send_from_sharedarea(area.index, 4090, 3)
        uwsgi.websocket_send_from_sharedarea(area.index, 4090)
        uwsgi.websocket_send_binary_from_sharedarea(area.name, 4091, 1)
        assert socket.sent == ["hé", "héllo", b"\xc3"]
        for send in (uwsgi.websocket_send_from_sharedarea, uwsgi.websocket_send_binary_from_sharedarea):
            for pos, length in ((4096, 0), (4095, 2), (0, 4097), (-1, 1)):
                with pytest.raises(ValueError, match="4096"):
                    send(area.index, pos, length)
        with pytest.raises(UnicodeDecodeError):
            uwsgi.websocket_send_from_sharedarea(area.index, 4091, 1)
        assert len(socket.sent) == 3
    finally:
        compat.use_websocket(None)
    with pytest.raises(RuntimeError, match="use_websocket"):
        uwsgi.websocket_send_from_sharedarea(area.index, 0, 1)


def test_websocket_send_inside_uwsgi(client: statehouse.Client, area: statehouse.Area) -> None:
    sent: list[tuple[str, bytes | str]] = []
    module: Any = type(sys)("uwsgi")
    module.websocket_send = lambda message: sent.append(("text", message))
    module.websocket_send_binary = lambda message: sent.append(("binary", message))
    sys.modules["uwsgi"] = module
    try:
        compat.install(client)
        area.write(0, b"ab")
        module.websocket_send_from_sharedarea(area.index, 0, 2)
        module.websocket_send_binary_from_sharedarea(area.index, 0, 2)
        assert sent == [("text", "ab"), ("binary", b"ab")]
    finally:
        compat.use(None)
        del sys.modules["uwsgi"]
