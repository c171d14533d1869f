"""Drop-ins for multiprocessing.managers: the shared dict and lock that several worker processes find by host, port and key.

    from statehouse.compat.managers import get_shared_state

    HOST, PORT, KEY = "127.0.0.1", 35791, b"secret"
    shared_dict, shared_lock = get_shared_state(HOST, PORT, KEY)
    with shared_lock:
        shared_dict["number"] = shared_dict.get("number", 0) + 1

The first process starts the service, the others find it, and it goes on when the first one ends. The well-known recipe works as it
stands, too, with BaseManager, DictProxy and AcquirerProxy imported from here:

    manager = BaseManager((HOST, PORT), KEY)
    manager.register("get_dict", lambda: {}, DictProxy)
    manager.register("get_lock", Lock, AcquirerProxy)
    try:
        manager.get_server()
        manager.start()
    except OSError:
        manager.connect()

What is better: the state outlives every worker; a worker that is killed with the lock passes it on; changes inside values are kept
(``shared_dict["a"].append(3)``); proxies work in forked children and in threads; nothing is unpickled, so who has the key can read and
write the state but run nothing; and ``shared_dict.incr("number")`` needs no lock.

What differs: values must be of the kinds that statehouse stores (no pickled objects); callables given to register() say what a name is (a
dict, a lock, one of threading's RLock, Semaphore, Condition, Event, Barrier), and what a new dict begins with, and run in the process that
calls; a lock can be released by the process that holds it only. ``stop(host, port, key)`` ends the service; nothing else does.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from .._client import Client
from .._shared_dict import LocalSharedDict, NetworkSharedDict, SharedDict
from . import _service
from ._events import Barrier, Condition, Event
from ._lock import AcquirerProxy, BoundedSemaphore, RLock, Semaphore
from ._service import Address

__all__ = [
    "AcquirerProxy",
    "Barrier",
    "BaseManager",
    "BoundedSemaphore",
    "Condition",
    "DictProxy",
    "Event",
    "RLock",
    "Semaphore",
    "access_token",
    "connect",
    "get_shared_state",
    "stop",
]
_RLOCK = type(threading.RLock())


class DictProxy(SharedDict):
    """A shared dict with the ways of multiprocessing's DictProxy: ``keys``, ``values`` and ``items`` are lists, and keys may be ints, bytes
    and tuples, too. It has everything else that a SharedDict has."""

    def keys(self) -> list[Any]:  # type: ignore[override]
        return list(self)

    def values(self) -> list[Any]:  # type: ignore[override]
        return [value for _, value in self._pairs()]

    def items(self) -> list[tuple[Any, Any]]:  # type: ignore[override]
        return list(self._pairs())

    def __str__(self) -> str:
        return str(self.copy())

    def _callmethod(self, methodname: str, args: tuple[Any, ...] = (), kwds: Mapping[str, Any] | None = None) -> Any:
        """As every proxy of multiprocessing has it."""
        return getattr(self, methodname)(*args, **(kwds or {}))

    def _getvalue(self) -> dict[Any, Any]:
        """As every proxy of multiprocessing has it: a copy."""
        return self.copy()


class _LocalDictProxy(LocalSharedDict, DictProxy):
    """Through the local door."""


class _NetworkDictProxy(NetworkSharedDict, DictProxy):
    """Over the network door."""


def _open_dict(client: Client, name: str, content: Mapping[Any, Any]) -> DictProxy:
    """The dict of a name. What it begins with is set by whoever makes it, before anybody else can have seen it as empty for long."""
    created = client.dicts.create(name)
    proxy: DictProxy
    if client.transport == "local":
        proxy = _LocalDictProxy(client._session, created.name, True)
    else:
        proxy = _NetworkDictProxy(client._session, created.name, True)
    for key, value in content.items():
        proxy.setdefault(key, value)
    return proxy


def get_shared_state(host: str, port: int, key: bytes | str) -> tuple[DictProxy, AcquirerProxy]:
    """The dict and the lock that every process shares that has the same host, port and key.

    The first process starts the service (the program statehoused, from STATEHOUSED or the PATH), however many come at once. Errors:
    Unauthenticated (a PermissionError) for another key than the one the service was started with, OSError where it cannot be started,
    for example because another program has the port.
    """
    client = _service.connect_or_start(Address(host, port, key))
    return _open_dict(client, "managers/shared_dict", {}), AcquirerProxy(client, "shared_lock")


def connect(host: str, port: int, key: bytes | str) -> Client:
    """A client of the service behind ``get_shared_state``, for its areas and other dicts. ConnectionRefusedError where there is none."""
    where = Address(host, port, key)
    client = _service.connect_running(where)
    if client is None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"no service answers at {where}; get_shared_state() starts one")
    return client


def access_token(host: str, port: int, key: bytes | str) -> str:
    """The access token that the key stands for: for programs of other languages, which reach the same state at host:port over gRPC. The
    shared dict's name there is "managers/shared_dict"."""
    return Address(host, port, key).token


def stop(host: str, port: int, key: bytes | str) -> bool:
    """Ends the service that this user started at the address, and with it the state; False where there is none."""
    return _service.stop(Address(host, port, key))


class BaseManager:
    """The part of multiprocessing's BaseManager that concerns dicts and locks.

    ``register`` a name with a callable that returns a dict or a lock; after ``start`` or ``connect`` the manager has a method of that name,
    which gives the shared one. Threads: any at once, after that. The service and the state stay when the manager goes; ``shutdown`` of
    the manager that started the service ends both, as does leaving its ``with`` block.
    """

    _registry: dict[str, tuple[Callable[..., Any] | None, type | None]] = {}

    def __init__(
        self,
        address: tuple[str, int] | None = None,
        authkey: bytes | str | None = None,
        serializer: str = "pickle",
        ctx: Any = None,
        *,
        shutdown_timeout: float = 1.0,
    ) -> None:
        if address is None or authkey is None:
            raise ValueError("a manager needs an address (host, port) and an authkey, by which the workers find each other")
        self._where = Address(address[0], address[1], authkey)
        self._client: Client | None = None
        self._has_started = False

    @property
    def address(self) -> tuple[str, int]:
        return self._where.host, self._where.port

    @classmethod
    def register(
        cls,
        typeid: str,
        callable: Callable[..., Any] | None = None,
        proxytype: type | None = None,
        exposed: Any = None,
        method_to_typeid: Any = None,
        create_method: bool = True,
    ) -> None:
        """Gives the managers of this class a method ``typeid`` that returns what the callable makes one of, shared: a dict (DictProxy), a
        lock (AcquirerProxy), or threading's RLock, Semaphore, Condition, Event and Barrier."""
        if not typeid.isidentifier():
            raise ValueError(f"{typeid!r} is no name of a method")
        if proxytype is not None and not issubclass(proxytype, (DictProxy, AcquirerProxy)):
            raise TypeError(
                f"{proxytype!r}: dicts (DictProxy) and locks (AcquirerProxy) have proxies; for semaphores, conditions, events and "
                "barriers give a callable that makes one of threading's and no proxytype"
            )
        if "_registry" not in cls.__dict__:
            cls._registry = dict(cls._registry)
        cls._registry[typeid] = (callable, proxytype)

        def get(self: BaseManager, /, *args: Any, **kwargs: Any) -> Any:
            return self._open(typeid, *args, **kwargs)

        if create_method:
            get.__name__ = typeid
            setattr(cls, typeid, get)

    def _open(self, typeid: str, *args: Any, **kwargs: Any) -> Any:
        if self._client is None:
            raise AssertionError("server not yet started")
        create, proxytype = self._registry[typeid]
        made = create(*args, **kwargs) if create is not None else None
        client = self._client
        if isinstance(made, threading.Event):
            return Event(client, typeid)
        if isinstance(made, threading.Condition):
            return Condition(client, typeid)
        if isinstance(made, threading.Barrier):
            return Barrier(client, typeid, made.parties, made._timeout)  # type: ignore[attr-defined]
        if isinstance(made, threading.Semaphore):
            return Semaphore(client, typeid, made._value)
        if isinstance(made, _RLOCK) and proxytype in (None, AcquirerProxy, RLock):
            return RLock(client, typeid)
        is_lock = issubclass(proxytype, AcquirerProxy) if proxytype is not None else hasattr(made, "acquire")
        if is_lock:
            return AcquirerProxy(client, typeid)
        if made is not None and not isinstance(made, Mapping):
            raise TypeError(
                f"{typeid}: {type(made).__name__} objects cannot be shared; dicts, locks, semaphores, conditions, events and barriers can"
            )
        return _open_dict(client, f"managers/{typeid}", made or {})

    def get_server(self) -> Server:
        """What would serve here. OSError where somebody does already."""
        running = _service.connect_running(self._where)
        if running is not None:
            running.close()
            raise OSError(errno.EADDRINUSE, f"a service is running at {self._where}; connect() to it")
        return Server(self)

    def start(self, initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = ()) -> None:
        """Starts the service, or finds the one that another process has just started."""
        self._client = _service.connect_or_start(self._where)
        self._has_started = True
        if initializer is not None:
            initializer(*initargs)

    def connect(self) -> None:
        """Finds the service. ConnectionRefusedError where there is none."""
        self._client = _service.connect_running(self._where)
        if self._client is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"no service answers at {self._where}; start() one")

    def shutdown(self) -> None:
        """Ends the service, where this manager started it, and the state."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._has_started:
            self._has_started = False
            _service.stop(self._where)

    def join(self, timeout: float | None = None) -> None:
        """Nothing to wait for: the service is no child of this process."""

    def __enter__(self) -> BaseManager:
        if self._client is None:
            self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()


class Server:
    """What get_server() gives: an address where nobody serves yet."""

    def __init__(self, manager: BaseManager) -> None:
        self._manager = manager
        self.address = manager.address

    def serve_forever(self) -> None:
        """Starts the service and returns; it goes on by itself."""
        self._manager.start()
