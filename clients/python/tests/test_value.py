"""The codec: objects come back as they went in, in the bytes that protobuf writes, and what cannot be stored is refused with a hint."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import math
import random
import subprocess
import sys
import uuid
from typing import Any

import numpy
import pytest

import statehouse
from statehouse import _local
from statehouse.v1 import value_pb2

BERLIN_SUMMER = dt.timezone(dt.timedelta(hours=2))
ODD_ZONE = dt.timezone(dt.timedelta(hours=-3, minutes=-7, seconds=-11, microseconds=5))

SAMPLES: list[Any] = [
    None, True, False, 0, 1, -1, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**64, 10**300, -(10**300),
    0.0, -0.0, 1.5, -1e308, 5e-324, math.inf, -math.inf, "", "text", "ü€🐍\0", "x" * 300, b"", b"\0\xff", b"x" * 300,
    [], [1, [2, [3]]], {}, {"": 1, "a": {"b": [None, {"c": b"d"}]}}, (), (1, (2, [3])), set(), {1, "a", b"a", (1, 2)},
    frozenset(), frozenset({1, frozenset({2})}), {frozenset({1, 2})}, [(), set(), {}, []],
    decimal.Decimal("1.10"), decimal.Decimal("-Infinity"), decimal.Decimal(10) ** 50, uuid.UUID(int=5),
    dt.date(2024, 2, 29), dt.date.min, dt.date.max, dt.time(1, 2, 3, 4), dt.time(1, 2, tzinfo=BERLIN_SUMMER),
    dt.time(1, fold=1), dt.timedelta(days=-3, seconds=7, microseconds=9), dt.timedelta.max, dt.timedelta.min,
    dt.datetime(2024, 2, 29, 12, 30, 1, 5), dt.datetime.min, dt.datetime.max, dt.datetime(2024, 10, 27, 2, 30, fold=1),
    dt.datetime(2024, 7, 1, 12, tzinfo=dt.timezone.utc), dt.datetime(1, 1, 1, tzinfo=dt.timezone.utc),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.timezone.utc),
    dt.datetime(2024, 7, 1, 12, tzinfo=BERLIN_SUMMER), dt.datetime(1969, 7, 1, 12, 0, 0, 7, tzinfo=ODD_ZONE),
    statehouse.Tagged("money", ["EUR", 5]), [statehouse.Tagged("a.b-c_1", statehouse.Tagged("x", None))],
]  # fmt: skip


def round_trip(value: Any, any_keys: bool = False) -> Any:
    wire = _local.encode_value(value, any_keys)
    message = value_pb2.Value.FromString(wire)
    assert message.SerializeToString() == wire, "protobuf writes the same bytes"
    return _local.decode_value(wire)


def same(a: Any, b: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return a.hex() == b.hex()
    if isinstance(a, (dt.datetime, dt.time)):
        return a == b and a.utcoffset() == b.utcoffset() and a.fold == b.fold
    return bool(a == b)


@pytest.mark.parametrize("value", SAMPLES, ids=lambda value: repr(value)[:40])
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    assert same(round_trip(value), value)


def test_a_nan_comes_back() -> None:
    assert math.isnan(round_trip(math.nan))


def random_value(chance: random.Random, depth: int = 0) -> Any:
    simple = [
        lambda: chance.choice(SAMPLES),
        lambda: chance.randint(-(2 ** chance.randint(1, 200)), 2 ** chance.randint(1, 200)),
        lambda: chance.uniform(-1e9, 1e9),
        lambda: "".join(chr(chance.choice([65, 233, 0x20AC, 0x1F40D])) for _ in range(chance.randint(0, 200))),
        lambda: chance.randbytes(chance.randint(0, 300)),
        lambda: dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc) + dt.timedelta(microseconds=chance.randint(-(10**15), 10**15)),
    ]
    if depth > 4 or chance.random() < 0.5:
        return chance.choice(simple)()
    items = [random_value(chance, depth + 1) for _ in range(chance.randint(0, 6))]
    if chance.random() < 0.4:
        return {f"k{i}" * chance.randint(0, 60) + str(i): item for i, item in enumerate(items)}
    return chance.choice([list, tuple])(items)


def test_random_values_come_back() -> None:
    seed = random.SystemRandom().randint(0, 2**32)
    chance = random.Random(seed)
    for _ in range(2000):
        value = random_value(chance)
        assert same(round_trip(value), value), f"seed {seed}: {value!r}"


def test_damaged_bytes_are_an_error_and_never_a_crash() -> None:
    seed = random.SystemRandom().randint(0, 2**32)
    chance = random.Random(seed)
    for _ in range(5000):
        wire = bytearray(_local.encode_value(random_value(chance)))
        for _ in range(chance.randint(1, 4)):
            wire[chance.randrange(len(wire))] = chance.randrange(256)
        try:
            _local.decode_value(bytes(wire[: chance.randint(0, len(wire))]))
        except (statehouse.DataLoss, statehouse.InvalidArgument):
            pass
        except Exception as error:
            raise AssertionError(f"seed {seed}: {bytes(wire)!r}") from error
    with pytest.raises(statehouse.DataLoss):
        _local.decode_value(b"")


def test_what_derives_from_a_plain_type_is_stored_as_that() -> None:
    Point = collections.namedtuple("Point", "x y")
    ordered = collections.OrderedDict(a=1, b=2)
    ordered.move_to_end("a")
    text = type("Text", (str,), {})("a")
    assert same(round_trip([Point(1, 2), collections.defaultdict(list, a=[1]), text]), [(1, 2), {"a": [1]}, "a"])
    assert list(round_trip(ordered)) == ["b", "a"]
    assert same(round_trip({text: bytearray(b"x")}), {"a": b"x"})
    assert same(round_trip(memoryview(b"abcdef")[::2]), b"ace")


def test_equal_sets_have_equal_bytes() -> None:
    a = {f"item {i}" for i in range(100)}
    b = set(sorted(a, reverse=True))
    assert _local.encode_value(a) == _local.encode_value(b)


@dataclasses.dataclass
class Order:
    number: int
    lines: list[str]
    total: decimal.Decimal = decimal.Decimal(0)
    checked: bool = dataclasses.field(default=False, init=False)


@dataclasses.dataclass(frozen=True)
class Unknown:
    x: int


class Color(enum.Enum):
    RED = 1
    BLUE = "b"


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


class Temperature:
    def __init__(self, degrees: float) -> None:
        self.degrees = degrees


def test_registered_classes_come_back_as_themselves() -> None:
    statehouse.register(Order)
    statehouse.register(Color, name="shop.Color")
    statehouse.register(Permission)
    statehouse.register(Temperature, encode=lambda t: t.degrees, decode=Temperature)
    order = Order(5, ["a"], decimal.Decimal("1.5"))
    order.checked = True
    assert round_trip({"order": order}) == {"order": order}
    assert round_trip([Color.RED, Color.BLUE]) == [Color.RED, Color.BLUE]
    both = Permission.READ | Permission.WRITE
    assert round_trip((Permission.READ, both, Permission(0))) == (Permission.READ, both, Permission(0))
    assert round_trip(Temperature(3.5)).degrees == 3.5
    wire = _local.encode_value(Color.RED)
    assert b"shop.Color" in wire and b"RED" in wire


def test_an_unknown_dataclass_survives_as_tagged() -> None:
    found = round_trip([Unknown(5)])[0]
    assert found == statehouse.Tagged("dataclass", [f"{__name__}.Unknown", {"x": 5}])
    assert round_trip(found) == found
    assert repr(found).startswith("Tagged('dataclass'") and found != 5
    assert hash(statehouse.Tagged("a", 1)) == hash(statehouse.Tagged("a", 1))


def test_a_class_that_changed_is_a_clear_error() -> None:
    statehouse.register(Order)
    wire = _local.encode_value(statehouse.Tagged("dataclass", [f"{__name__}.Order", {"other": 1}]))
    with pytest.raises(statehouse.InvalidArgument, match="did the class change"):
        _local.decode_value(wire)


def test_a_known_tag_with_foreign_content_stays_tagged() -> None:
    for tag, content in [
        ("decimal", "abc"), ("uuid", 5), ("datetime", [1]), ("date", "x"), ("timedelta", "x"), ("tuple", 5),
        ("set", [[1]]), ("dict", [1]), ("dict", [[1, 2, 3]]), ("dict", [[[], 1]]), ("dataclass", 5), ("enum", ["no", "no"]),
    ]:  # fmt: skip
        value = statehouse.Tagged(tag, content)
        assert round_trip(value) == value


def test_registering_is_checked() -> None:
    with pytest.raises(TypeError, match="takes a class"):
        statehouse.register(5)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="give encode and decode"):
        statehouse.register(fractions.Fraction)
    with pytest.raises(TypeError, match="both encode and decode"):
        statehouse.register(fractions.Fraction, encode=str)
    statehouse.register(Color, name="taken")
    with pytest.raises(ValueError, match="is registered for"):
        statehouse.register(Permission, name="taken")


class Plain:
    pass


class Level(enum.IntEnum):
    LOW = 1


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (Plain(), "statehouse.register"),
        ([1, {"a": (0, Plain())}], r"at \[1\]\['a'\]\[1\]"),
        (Level.LOW, "not registered"),
        ({"a": Level.LOW}, r"at \['a'\].*not registered"),
        ({1: 2}, 'keys="any"'),
        ({"a": [{b"x": 1}]}, r"at \['a'\]\[0\]\[b'x'\].*must be of type str, not bytes"),
        (print, "cannot be stored"),
        (1j, "cannot be stored"),
        (numpy.array([object()]), "cannot be stored"),
        (numpy.array(["text"]), "cannot be stored"),
        (numpy.array([1], dtype=">i4"), "this machine's byte order"),
        (numpy.datetime64("2024-01-01"), None),
        (range(5), "cannot be stored"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_cannot_be_stored_is_a_type_error_that_says_where(value: Any, hint: str | None) -> None:
    if hint is None:
        assert round_trip(value) == value.item()
        return
    with pytest.raises(TypeError, match=hint):
        _local.encode_value(value)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("half \ud800", "half a surrogate"),
        ({"half \udfff": 1}, "half a surrogate"),
        ({"k" * 1025: 1}, "1,024"),
        ({"a": "x" * (1 << 20)}, "1 MiB"),
        (b"x" * (1 << 20), "1 MiB"),
        ([b"x" * 1000] * 1100, "1 MiB"),
        ({f"item {i}" * 100 for i in range(2000)}, "1 MiB"),
        (1 << (1 << 23), "1 MiB"),
        (numpy.zeros(1 << 17), "1 MiB"),
        (statehouse.Tagged("Tag", 1), "tag"),
        (statehouse.Tagged("", 1), "tag"),
        (statehouse.Tagged("t" * 65, 1), "tag"),
    ],
    ids=range(12),
)
def test_values_beyond_a_limit_are_refused_by_name(value: Any, hint: str) -> None:
    with pytest.raises(statehouse.InvalidArgument, match=hint) as raised:
        _local.encode_value(value)
    assert raised.value.reason == "VALUE_INVALID"


def nested(levels: int, kind: str) -> Any:
    value: Any = 1
    for _ in range(levels - 1):
        value = {"list": [value], "dict": {"k": value}, "tuple": (value,), "any": {1: value}}[kind]
    return value


@pytest.mark.parametrize(("kind", "levels"), [("list", 32), ("dict", 32), ("tuple", 16), ("any", 11)])
def test_values_are_at_most_32_levels_deep(kind: str, levels: int) -> None:
    # A tuple is a tag around a list: two levels; a dict with other keys is a tag, a list and pairs: three.
    assert round_trip(nested(levels, kind), any_keys=True) == nested(levels, kind)
    with pytest.raises(statehouse.InvalidArgument, match="32 levels"):
        _local.encode_value(nested(levels + 1, kind), True)


def test_the_largest_value_is_taken() -> None:
    largest = b"x" * ((1 << 20) - 4)  # And a tag and its length.
    assert round_trip(largest) == largest
    with pytest.raises(statehouse.InvalidArgument):
        _local.encode_value(largest + b"x")


def test_a_container_that_holds_itself_is_refused() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    cycle: dict[str, Any] = {}
    cycle["a"] = [{"b": cycle}]
    for value in (loop, cycle, (loop,)):
        with pytest.raises(statehouse.InvalidArgument, match="holds itself"):
            _local.encode_value(value)


def test_keys_of_any_kind_are_a_tagged_list() -> None:
    value = {1: "a", ("x", 2): {b"y": None}, "text": {3}}
    assert same(round_trip(value, any_keys=True), value)
    assert same(round_trip({"a": {"b": 1}}, any_keys=True), {"a": {"b": 1}})


DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "complex64", "complex128",
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_come_back_read_only(dtype: str) -> None:
    for shape in [(), (0,), (3,), (2, 3), (2, 0, 2), (1, 2, 3, 4)]:
        numbers = numpy.arange(math.prod(shape)).reshape(shape).astype(dtype)
        for given in (numbers, numbers.T, numpy.asfortranarray(numbers)):
            found = round_trip(given)
            assert found.dtype == given.dtype and found.shape == given.shape and (found == given).all()
            assert not found.flags.writeable
            with pytest.raises(ValueError):
                found[...] = 0


def test_numpy_numbers_are_numbers_and_other_buffers_are_arrays() -> None:
    assert same(round_trip([numpy.int32(5), numpy.float32(0.5), numpy.bool_(True), numpy.float64(2.5)]), [5, 0.5, True, 2.5])
    found = round_trip(array.array("H", [1, 2]))
    assert found.dtype == numpy.uint16 and list(found) == [1, 2]
    assert round_trip(numpy.zeros((1,) * 32)).shape == (1,) * 32
    with pytest.raises(statehouse.InvalidArgument, match="32 dimensions"):
        _local.encode_value(numpy.zeros((1,) * 33))


def test_without_numpy_arrays_are_tensors() -> None:
    program = """
import sys
sys.modules["numpy"] = None
import array, statehouse
from statehouse import _local
found = _local.decode_value(_local.encode_value(array.array("i", [1, 2, 3])))
assert found == statehouse.Tensor("int32", (3,), array.array("i", [1, 2, 3]).tobytes()), found
assert found.memoryview().tolist() == [1, 2, 3] and hash(found) == hash(found) and found != 1
assert _local.decode_value(_local.encode_value(found)) == found
grid = statehouse.Tensor("float64", (2, 2), bytes(32))
assert grid.memoryview().tolist() == [[0.0, 0.0], [0.0, 0.0]] and "float64" in repr(grid)
assert statehouse.Tensor("float32", (), bytes(4)).memoryview().nbytes == 4
"""
    ran = subprocess.run([sys.executable, "-B", "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_times_below_a_microsecond_are_cut() -> None:
    message = value_pb2.Value()
    message.timestamp_value.seconds, message.timestamp_value.nanos = -1, 999_999_999
    found = _local.decode_value(message.SerializeToString())
    assert found == dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.timezone.utc)


def test_nothing_unpickles() -> None:
    program = (
        "import sys; before = set(sys.modules); import statehouse, statehouse.compat.uwsgi; "
        "print('pickle' in set(sys.modules) - before)"
    )
    ran = subprocess.run([sys.executable, "-B", "-c", program], capture_output=True, text=True)
    assert ran.stdout.strip() == "False", ran.stderr
