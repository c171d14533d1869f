"""Every method of an area, through both doors."""

from __future__ import annotations

import array
import threading

import pytest

import statehouse

BITS = {"u8": 8, "u16": 16, "u32": 32, "u64": 64, "i8": 8, "i16": 16, "i32": 32, "i64": 64}
WORD_TYPES = list(BITS)


def limits(word_type: str) -> tuple[int, int]:
    bits = BITS[word_type]
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if word_type[0] == "i" else (0, (1 << bits) - 1)


@pytest.mark.parametrize("word_type", WORD_TYPES)
def test_words_hold_their_whole_range_at_any_alignment(area: statehouse.Area, word_type: str) -> None:
    load = getattr(area, f"load_{word_type}")
    store = getattr(area, f"store_{word_type}")
    for pos in (0, 3, 61, 4096 - BITS[word_type] // 8):
        for number in (*limits(word_type), 1, 100):
            assert store(pos, number) is None
            assert load(pos) == number


@pytest.mark.parametrize("word_type", WORD_TYPES)
def test_add_returns_the_new_value_and_wraps_around(area: statehouse.Area, word_type: str) -> None:
    add = getattr(area, f"add_{word_type}")
    low, high = limits(word_type)
    getattr(area, f"store_{word_type}")(8, high)
    assert add(8, 1) == low
    assert add(8, -1) == high
    assert add(8) == low
    assert add(8, 0) == low
    assert add(8, (1 << 64) - 1) == high
    assert add(8, -(1 << 63)) == (high if BITS[word_type] < 64 else high - (1 << 63))


@pytest.mark.parametrize("word_type", WORD_TYPES)
def test_compare_exchange_tells_what_it_found(area: statehouse.Area, word_type: str) -> None:
    exchange = getattr(area, f"compare_exchange_{word_type}")
    low, high = limits(word_type)
    getattr(area, f"store_{word_type}")(16, low)
    refused = exchange(16, expected=high, desired=1)
    assert not refused and refused.exchanged is False and refused.found == low
    done = exchange(16, expected=low, desired=high)
    assert done and done.exchanged is True and done.found == low
    assert exchange(16, high, 3).found == high
    assert getattr(area, f"load_{word_type}")(16) == 3


@pytest.mark.parametrize("word_type", WORD_TYPES)
def test_bitwise_operations_return_the_new_value(area: statehouse.Area, word_type: str) -> None:
    getattr(area, f"store_{word_type}")(0, 0b1100)
    assert getattr(area, f"bitwise_and_{word_type}")(0, 0b0110) == 0b0100
    assert getattr(area, f"bitwise_or_{word_type}")(0, 0b0011) == 0b0111
    assert getattr(area, f"bitwise_xor_{word_type}")(0, 0b0101) == 0b0010
    low, _ = limits(word_type)
    assert getattr(area, f"bitwise_or_{word_type}")(0, low) == (low | 0b0010)


@pytest.mark.parametrize("word_type", WORD_TYPES)
def test_numbers_that_do_not_fit_are_refused_and_change_nothing(
    area: statehouse.Area, word_type: str
) -> None:
    low, high = limits(word_type)
    before = area.updates
    for number in (low - 1, high + 1, 1 << 64, -(1 << 64), 10**30):
        for refused in (
            lambda: getattr(area, f"store_{word_type}")(0, number),
            lambda: getattr(area, f"compare_exchange_{word_type}")(0, expected=number, desired=0),
            lambda: getattr(area, f"compare_exchange_{word_type}")(0, expected=0, desired=number),
            lambda: getattr(area, f"bitwise_or_{word_type}")(0, number),
        ):
            with pytest.raises(statehouse.ValueOutOfRange) as raised:
                refused()
            assert isinstance(raised.value, OverflowError)
            assert raised.value.reason == "VALUE_OUT_OF_RANGE"
            assert raised.value.name == area.name
    for delta in (1 << 64, -(1 << 63) - 1):
        with pytest.raises(OverflowError):
            getattr(area, f"add_{word_type}")(0, delta)
    assert area.updates == before


@pytest.mark.parametrize("pos", [-1, -(1 << 63), -(1 << 70), 4096, 4089, 1 << 63, (1 << 64) - 1, 1 << 64, 10**40])
def test_positions_outside_are_refused_and_change_nothing(area: statehouse.Area, pos: int) -> None:
    before = area.updates
    calls = [
        lambda: area.load_u64(pos),
        lambda: area.store_u64(pos, 1),
        lambda: area.add_i64(pos, 1),
        lambda: area.compare_exchange_u64(pos, 0, 1),
        lambda: area.bitwise_or_u64(pos, 1),
        lambda: area.read(pos, 8),
        lambda: area.write(pos, b"12345678"),
        lambda: area.fill(pos, 8, 1),
    ]
    for call in calls:
        with pytest.raises(statehouse.OutOfBounds) as raised:
            call()
        assert isinstance(raised.value, IndexError)
        assert raised.value.reason == "OUT_OF_BOUNDS"
        assert not raised.value.retryable
    assert area.updates == before


@pytest.mark.parametrize("length", [-1, -(1 << 63), 4097, 1 << 62, (1 << 63) - 1, (1 << 64) - 1, 1 << 64])
def test_lengths_outside_are_refused(area: statehouse.Area, length: int) -> None:
    before = area.updates
    with pytest.raises(statehouse.OutOfBounds):
        area.read(0, length)
    with pytest.raises(statehouse.OutOfBounds):
        area.fill(0, length, 1)
    assert area.updates == before


def test_arguments_of_other_types_are_type_errors(area: statehouse.Area) -> None:
    bad = [
        lambda: area.load_u64(1.5),  # type: ignore[arg-type]
        lambda: area.load_u64("0"),  # type: ignore[arg-type]
        lambda: area.load_u64(),  # type: ignore[call-arg]
        lambda: area.store_u64(0, None),  # type: ignore[arg-type]
        lambda: area.store_u64(0),  # type: ignore[call-arg]
        lambda: area.add_u64(0, 1.0),  # type: ignore[arg-type]
        lambda: area.add_u64(0, 1, 2),  # type: ignore[call-arg]
        lambda: area.compare_exchange_u64(0, expected=1),  # type: ignore[call-arg]
        lambda: area.compare_exchange_u64(0, 1, 2, other=3),  # type: ignore[call-arg]
        lambda: area.read(None),  # type: ignore[arg-type]
        lambda: area.write(0, "text"),  # type: ignore[arg-type]
        lambda: area.write(0, 5),  # type: ignore[arg-type]
        lambda: area.fill(0, 1),  # type: ignore[call-arg]
        lambda: area["x"],  # type: ignore[call-overload]
        lambda: area.wait("x"),  # type: ignore[arg-type]
    ]
    for call in bad:
        with pytest.raises(TypeError):
            call()


def test_ranges_are_read_and_written(area: statehouse.Area) -> None:
    area.write(16, b"hello")
    assert area.read(16, 5) == b"hello"
    assert area.read(4094) == b"\0\0"
    assert area.read(4096) == b""
    assert area.read(0, 0) == b""
    assert area.read(pos=16, len=1) == b"h"
    assert area.read(0) == bytes(16) + b"hello" + bytes(4096 - 21)
    for data in (bytearray(b"ab"), memoryview(b"ab"), array.array("B", b"ab")):
        area.write(0, data)  # type: ignore[arg-type]
        assert area.read(0, 3) == b"ab\0"
    area.fill(100, 3, 255)
    assert area.read(99, 5) == b"\0\xff\xff\xff\0"
    with pytest.raises(OverflowError):
        area.fill(0, 1, 256)
    with pytest.raises(statehouse.OutOfBounds):
        area.write(4095, b"ab")


def test_long_ranges_travel_whole(client: statehouse.Client, area_name: str) -> None:
    area = client.area(area_name, size=3 << 20)
    data = bytes(range(256)) * ((5 << 19) // 256)
    area.write(1000, data)
    assert area.read(1000, len(data)) == data
    area.fill(0, area.size, 7)
    assert area.read(0) == bytes([7]) * area.size
    client.areas.delete(area_name)


def test_subscripts_are_those_of_a_bytearray(area: statehouse.Area) -> None:
    area[16:21] = b"hello"
    assert area[16:21] == b"hello"
    assert area[16] == ord("h")
    area[5] = 200
    assert area[5] == 200
    area[-1] = 9
    assert area[-1] == 9 and area[4095] == 9
    assert area[-1:] == b"\x09"
    assert area[4090:9999] == bytes(5) + b"\x09"
    assert area[20:10] == b""
    assert len(area) == area.size == 4096
    area[0:0] = b""
    for bad_index in (4096, -4097, 1 << 70):
        with pytest.raises(IndexError):
            area[bad_index]
        with pytest.raises(IndexError):
            area[bad_index] = 1
    with pytest.raises(ValueError):
        area[0:4] = b"12345"
    with pytest.raises(ValueError):
        area[0:4:2]
    with pytest.raises(OverflowError):
        area[0] = 256


def test_iterating_gives_every_byte(client: statehouse.Client, area_name: str) -> None:
    area = client.area(area_name, size=3)
    area.write(0, b"abc")
    assert list(area) == [97, 98, 99]  # type: ignore[call-overload]
    client.areas.delete(area_name)


def test_updates_count_every_mutation_and_only_those(area: statehouse.Area) -> None:
    before = area.updates
    area.load_u8(0)
    area.read(0, 10)
    assert area.updates == before
    for mutate in (
        lambda: area.store_u8(0, 0),
        lambda: area.add_u8(0, 0),
        lambda: area.write(0, b""),
        lambda: area.fill(0, 1, 0),
    ):
        mutate()
        assert area.updates > before
        before = area.updates


def test_wait_returns_true_for_an_update_and_false_for_a_timeout(area: statehouse.Area) -> None:
    since = area.updates
    assert area.wait(since, timeout=0) is False
    assert area.wait(since, 0.01) is False
    writer = threading.Thread(target=lambda: area.add_u64(0, 1))
    writer.start()
    assert area.wait(since, timeout=60) is True
    writer.join()
    assert area.wait(since) is True, "an update before the wait is not missed"
    for bad in (-1, float("nan")):
        with pytest.raises(ValueError):
            area.wait(since, timeout=bad)
    for bad_since in (-1, 1 << 64):
        with pytest.raises(ValueError):
            area.wait(bad_since, timeout=0)


def test_wait_ends_when_the_area_is_deleted(
    service: object, client: statehouse.Client, area: statehouse.Area
) -> None:
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            area.wait(area.updates, timeout=60)
        except BaseException as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    client.areas.delete(area.name)
    waiting.join()
    assert isinstance(errors[0], statehouse.NotFound)


def test_an_area_tells_its_name_size_index_and_door(
    area: statehouse.Area, client: statehouse.Client, area_name: str, door: str
) -> None:
    info = client.areas.describe(area_name)
    assert (area.name, area.size, area.index) == (area_name, 4096, info.index)
    assert area.transport == door
    assert area_name in repr(area)
    assert client.area(f"#{info.index}").name == area_name


def test_threads_count_exactly(area: statehouse.Area, door: str) -> None:
    adds = 5000 if door == "local" else 50
    threads = [
        threading.Thread(target=lambda: [area.add_u64(0, 1) for _ in range(adds)]) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert area.load_u64(0) == 12 * adds


def test_both_doors_see_the_same_bytes(service: object, area_name: str) -> None:
    with service.connect("local") as l, service.connect("network") as n:  # type: ignore[attr-defined]
        local = l.area(area_name, size=100)
        network = n.area(area_name)
        local.store_i32(1, -5)
        assert network.load_i32(1) == -5
        assert network.add_i32(1, 1) == -4
        assert local.load_i32(1) == -4
        assert local.updates == network.updates
        l.areas.delete(area_name)


def test_a_memoryview_is_the_memory_itself(service: object, area_name: str) -> None:
    with service.connect("local") as c:  # type: ignore[attr-defined]
        area = c.area(area_name, size=16)
        area.store_u64(8, 0x0807060504030201)
        view = area.memoryview()
        assert (view.readonly, view.nbytes, view.format) == (False, 16, "B")
        assert view[8:].tobytes() == bytes(range(1, 9))
        view.cast("Q")[0] = 77
        assert area.load_u64(0) == 77
        c.areas.delete(area_name)
    assert view[0] == 77, "it outlives the client"


def test_numpy_reads_an_area_without_a_copy(service: object, area_name: str) -> None:
    numpy = pytest.importorskip("numpy")
    with service.connect("local") as c:  # type: ignore[attr-defined]
        area = c.area(area_name, size=64)
        numbers = numpy.frombuffer(area, dtype="<u8")
        area.store_u64(8, 5)
        assert numbers[1] == 5
        numbers[2] = 6
        assert area.load_u64(16) == 6
        c.areas.delete(area_name)


def test_there_is_no_memoryview_over_the_network(service: object, area_name: str) -> None:
    with service.connect("network") as c:  # type: ignore[attr-defined]
        area = c.area(area_name, size=64)
        with pytest.raises(statehouse.TransportError) as raised:
            area.memoryview()
        assert raised.value.reason == "UNIMPLEMENTED"
        with pytest.raises(TypeError):
            memoryview(area)  # type: ignore[arg-type]
        c.areas.delete(area_name)
