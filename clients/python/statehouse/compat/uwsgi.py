"""uWSGI's SharedArea functions over Statehouse, in any process: under uWSGI, gunicorn or none.

    import statehouse.compat.uwsgi
    statehouse.compat.uwsgi.install()      # before the application's own "import uwsgi"

    import uwsgi
    uwsgi.sharedarea_write(0, 0, "hello")

An area is named by its index (0, 1, 2 … in order of creation, as uWSGI counts them) or by its name. What is kept: ids by
order, a missing or zero length means "to the end", all-or-nothing range errors (also for a position at the very end), host
byte order, any alignment, wrap-around arithmetic, signed reads, None on success, ValueError for a bad range or id, str
written as UTF-8, one update counted for each mutation, a writable memoryview.

What is better: wait() sleeps until there is an update instead of polling (``freq`` is accepted and not needed), and misses
none with ``since``; a killed worker leaves no lock behind; inc8/16 and dec8/16 exist; negative ids, huge lengths and numbers
that do not fit are errors (OverflowError) and touch nothing.

What differs: sharedarea_object() gives a memoryview, because no bytearray can be shared. The explicit locks are leases for those who
take them: reads and writes do not wait for them (single calls are atomic by themselves), so nobody deadlocks with itself.
"""

from __future__ import annotations

import builtins
import contextvars
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, TypeVar

from .. import errors
from .._client import Client, connect
from .._locks import Lock
from ..types import Area, BytesLike

AreaId = int | str
Result = TypeVar("Result")
_FUNCTIONS = (
    *(f"sharedarea_{verb}{bits}" for verb in ("read", "write", "inc", "dec") for bits in (8, 16, 32, 64)),
    *(f"sharedarea_{name}" for name in ("read", "write", "readbyte", "writebyte", "readlong")),
    *(f"sharedarea_{name}" for name in ("writelong", "inclong", "wait", "update", "memoryview")),
    *(f"sharedarea_{name}" for name in ("object", "rlock", "wlock", "unlock")),
    "websocket_send_from_sharedarea",
    "websocket_send_binary_from_sharedarea",
)


class UnknownArea(errors.NotFound, ValueError):
    """No area has this id or name. A ValueError, as in uWSGI."""


class _State:
    """The client that the functions use, and the areas they opened. Threads: any."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.client: Client | None = None
        self.areas: dict[AreaId, Area] = {}


_state = _State()


def install(client: Client | None = None) -> types.ModuleType:
    """Makes ``import uwsgi`` give a module with the sharedarea_* functions, and returns it.

    ``client`` is what they use; without one, statehouse.connect() is called at the first use. Where a module uwsgi exists
    already (inside uWSGI), its sharedarea_* functions are replaced and the rest stays.
    """
    use(client)
    module = sys.modules.get("uwsgi")
    if module is None:
        module = types.ModuleType("uwsgi", "SharedArea functions by Statehouse.")
        sys.modules["uwsgi"] = module
    for name in _FUNCTIONS:
        setattr(module, name, globals()[name])
    return module


def use(client: Client | None) -> None:
    """The client that the functions use from now on; None: connect at the first use."""
    with _state.lock:
        _state.client = client
        _state.areas = {}


def _open(area_id: AreaId) -> Area:
    if isinstance(area_id, str):
        name = area_id
    elif isinstance(area_id, int):
        name = f"#{area_id}"
    else:
        raise TypeError(f"an area's id must be an int or a str, not {type(area_id).__name__}")
    with _state.lock:
        if _state.client is None:
            _state.client = connect()
        client = _state.client
        known = _state.areas.get(area_id)
    if known is not None:
        return known
    if isinstance(area_id, int) and not 0 <= area_id < 1 << 32:
        raise _unknown(name)
    try:
        area = client.area(name)
    except errors.NotFound:
        raise _unknown(name) from None
    with _state.lock:
        return _state.areas.setdefault(area_id, area)


def _unknown(name: str) -> UnknownArea:
    return UnknownArea(
        f'no area "{name}" exists; create it first, or declare it in the service\'s configuration',
        reason="AREA_NOT_FOUND",
        name=name,
    )


def _with_area(area_id: AreaId, operation: Callable[[Area], Result]) -> Result:
    """Runs an operation on an area; one that was deleted and created again meanwhile is opened anew."""
    try:
        return operation(_open(area_id))
    except UnknownArea:
        raise
    except errors.NotFound:
        with _state.lock:
            _state.areas.pop(area_id, None)
        return operation(_open(area_id))


def _check_pos(area: Area, pos: int) -> None:
    """A position at the end is an error even for no bytes."""
    if not isinstance(pos, int):
        raise TypeError(f"pos must be an int, not {type(pos).__name__}")
    if not 0 <= pos < area.size:
        raise errors.by_name(
            "OUT_OF_BOUNDS",
            f'area "{area.name}": pos {pos} is not inside its {area.size} bytes',
            area.name,
        )


def sharedarea_read(id: AreaId, pos: int, len: int = 0, /) -> bytes:
    """``len`` bytes from ``pos`` on; to the end of the area when ``len`` is 0 or missing."""

    def operate(area: Area) -> bytes:
        _check_pos(area, pos)
        return area.read(pos, len or None)

    return _with_area(id, operate)


def sharedarea_write(id: AreaId, pos: int, value: BytesLike | str, /) -> None:
    """Writes bytes, or a str as UTF-8: all of it or nothing."""
    data = value.encode() if isinstance(value, str) else value

    def operate(area: Area) -> None:
        _check_pos(area, pos)
        area.write(pos, data)

    _with_area(id, operate)


def sharedarea_wait(
    id: AreaId, freq: int = 0, timeout: int = 0, /, *, since: int | None = None
) -> None:
    """Waits for an update. ``timeout`` is in seconds, 0 for no limit; statehouse.Timeout when it passes first.

    ``since`` is an update counter that was seen before; without it, updates count from now on.
    """

    def operate(area: Area) -> None:
        seen = area.updates if since is None else since
        if not area.wait(seen, timeout or None):
            raise errors.by_name(
                "TIMEOUT", f'area "{area.name}" was not updated within {timeout} s', area.name
            )

    _with_area(id, operate)


def sharedarea_update(id: AreaId, /) -> None:
    """Counts an update and wakes the waiters, without changing a byte."""
    _with_area(id, lambda area: area.write(0, b""))


def sharedarea_memoryview(id: AreaId, /) -> builtins.memoryview:
    """The bytes themselves, writable: not locked, not counted. Local door only."""
    return _with_area(id, lambda area: area.memoryview())


def sharedarea_object(id: AreaId, /) -> builtins.memoryview:
    """As sharedarea_memoryview."""
    return sharedarea_memoryview(id)


_websocket: contextvars.ContextVar[Any] = contextvars.ContextVar("statehouse.compat.uwsgi.websocket")


def use_websocket(websocket: Any) -> None:
    """What websocket_send_*_from_sharedarea send to in this thread (or task) from now on, outside uWSGI: an object with ``send(str or
    bytes)``, as simple_websocket.Server and gevent-websocket's ``wsgi.websocket`` are. Inside uWSGI it is not needed."""
    _websocket.set(websocket)


def _send(message: bytes | str) -> None:
    websocket = _websocket.get(None)
    if websocket is not None:
        websocket.send(message)
        return
    binary = "_binary" if isinstance(message, bytes) else ""
    send = getattr(sys.modules.get("uwsgi"), f"websocket_send{binary}", None)
    if send is None:
        raise RuntimeError("there is no WebSocket here; call use_websocket() with the server's first")
    send(message)


def websocket_send_from_sharedarea(id: AreaId, pos: int, len: int = 0, /) -> None:
    """Sends ``len`` bytes from ``pos`` on as a text message; to the end of the area when ``len`` is 0 or missing.

    Errors: OutOfBounds where the range is not inside the area (uWSGI sends what lies behind it), UnicodeDecodeError where it is no UTF-8,
    RuntimeError without a WebSocket. To send whenever the range changes: statehouse.websocket.
    """
    _send(sharedarea_read(id, pos, len).decode())


def websocket_send_binary_from_sharedarea(id: AreaId, pos: int, len: int = 0, /) -> None:
    """As websocket_send_from_sharedarea, any bytes as a binary message."""
    _send(sharedarea_read(id, pos, len))


class _ThreadLocks(threading.local):
    """What a thread has locked, by the area's name: the lock, whether it is shared, and how often it was taken."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[Lock, bool, int]] = {}


_thread_locks = _ThreadLocks()
_LOCK_TTL_S = 30.0


def _lock(area_id: AreaId, shared: bool) -> None:
    name = _open(area_id).name
    held = _thread_locks.held.get(name)
    if held is not None and held[0].held:
        lock, is_shared, count = held
        if is_shared and not shared:
            raise errors.by_name(
                "INVALID_ARGUMENT", f'area "{name}": this thread holds its read lock; the write lock would wait for itself', name
            )
        _thread_locks.held[name] = (lock, is_shared, count + 1)
        return
    with _state.lock:
        client = _state.client
    assert client is not None  # _open made it.
    lock = client.lock(f"area/{name}", ttl=_LOCK_TTL_S, shared=shared)
    lock.acquire()
    _thread_locks.held[name] = (lock, shared, 1)


def sharedarea_rlock(id: AreaId, /) -> None:
    """Takes the area's read lock: any number of readers have it, and no writer. A thread that has a lock already keeps it until as many
    unlocks. The lock is a lease: it passes on when its process ends, and after 30 seconds when that hangs."""
    _lock(id, True)


def sharedarea_wlock(id: AreaId, /) -> None:
    """Takes the area's write lock: one has it. statehouse.InvalidArgument where this thread has the read lock, and would wait for itself.

    Reads and writes of the area do not wait for either lock: single calls are atomic without one. Locks are for those who take them."""
    _lock(id, False)


def sharedarea_unlock(id: AreaId, /) -> None:
    """Gives the lock back that this thread took last. RuntimeError where it has none, statehouse.LockLost where it lost it before."""
    name = _open(id).name
    held = _thread_locks.held.get(name)
    if held is None:
        raise RuntimeError(f'unlock of area "{name}", which this thread has not locked')
    lock, is_shared, count = held
    if count > 1 and lock.held:
        _thread_locks.held[name] = (lock, is_shared, count - 1)
        return
    del _thread_locks.held[name]
    lock.release()


def _reader(bits: int) -> Callable[[AreaId, int], int]:
    def read(id: AreaId, pos: int, /) -> int:
        number: int = _with_area(id, lambda area: getattr(area, f"load_i{bits}")(pos))
        return number

    read.__name__ = f"sharedarea_read{bits}"
    read.__doc__ = f"The {bits}-bit number at pos, signed."
    return read


def _writer(bits: int) -> Callable[[AreaId, int, int], None]:
    def write(id: AreaId, pos: int, value: int, /) -> None:
        kind = "i" if isinstance(value, int) and value < 0 else "u"
        _with_area(id, lambda area: getattr(area, f"store_{kind}{bits}")(pos, value))

    write.__name__ = f"sharedarea_write{bits}"
    write.__doc__ = f"Writes a {bits}-bit number, signed or unsigned. OverflowError if it does not fit."
    return write


def _counter(bits: int, sign: int) -> Callable[..., None]:
    def count(id: AreaId, pos: int, amount: int = 1, /) -> None:
        _with_area(id, lambda area: getattr(area, f"add_i{bits}")(pos, sign * amount))

    count.__name__ = f"sharedarea_{'inc' if sign > 0 else 'dec'}{bits}"
    count.__doc__ = f"{'Adds' if sign > 0 else 'Subtracts'} amount; wraps around at {bits} bits."
    return count


sharedarea_read8 = sharedarea_readbyte = _reader(8)
sharedarea_read16 = _reader(16)
sharedarea_read32 = _reader(32)
sharedarea_read64 = sharedarea_readlong = _reader(64)
sharedarea_write8 = sharedarea_writebyte = _writer(8)
sharedarea_write16 = _writer(16)
sharedarea_write32 = _writer(32)
sharedarea_write64 = sharedarea_writelong = _writer(64)
sharedarea_inc8 = _counter(8, 1)
sharedarea_inc16 = _counter(16, 1)
sharedarea_inc32 = _counter(32, 1)
sharedarea_inc64 = sharedarea_inclong = _counter(64, 1)
sharedarea_dec8 = _counter(8, -1)
sharedarea_dec16 = _counter(16, -1)
sharedarea_dec32 = _counter(32, -1)
sharedarea_dec64 = _counter(64, -1)
