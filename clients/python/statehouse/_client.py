"""The client: connect(), and the calls that concern areas as wholes."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, cast

from . import _control, _dicts, _local, errors
from ._area_locks import AreaLock
from ._area_watch import AreaEvent, AreaWatch, area_reader
from ._batch import Batch, fits_no_packet
from ._bound import Binder
from ._control import Call
from ._dicts import Dicts
from ._locks import TTL_DEFAULT, Leasing, Lock, Locks
from ._network_area import NetworkArea
from ._network_session import NetworkSession, Tls, closed_error
from ._shared_dict import LocalSharedDict, NetworkSharedDict, SharedDict
from ._socket_session import SocketSession
from .types import Area, AreaInfo, ServiceStatus


# As _local.resolve gives it.
Endpoint = tuple[str, bool, str, str, str, float, "Tls | None"]


def connect(
    url: str | None = None,
    *,
    token: str | None = None,
    token_file: str | None = None,
    timeout: float | None = None,
    transport: str = "auto",
) -> Client:
    """Connects to a service.

    ``url`` is ``statehouse+unix://<runtime dir>``, ``statehouse://host[:port]`` or, with TLS, ``statehouse+tls://host[:port]``,
    with ``?transport=local|socket|network&timeout=2s`` if wanted. Without it: STATEHOUSE_URL, else this user's default runtime dir, else
    127.0.0.1:7700.

    TLS takes PEM files from the URL's ``ca_file`` (who signed the service's certificate), ``certificate_file`` and ``key_file`` (the
    client's own), else from STATEHOUSE_TLS_CA_FILE, STATEHOUSE_TLS_CERTIFICATE_FILE and STATEHOUSE_TLS_KEY_FILE; without authorities
    it trusts the system's.

    ``token`` or the content of ``token_file`` is the access token; else STATEHOUSE_TOKEN or the file that
    STATEHOUSE_TOKEN_FILE names.

    ``timeout`` is in seconds, 5.0 unless given here or in the URL. It bounds each call that needs the service: control
    calls, and every operation of the network door. The local door's own operations need no service and are not bound by it.
    It also bounds how long a call waits for a service that is restarting; ``Area.wait`` has its own.

    ``transport`` is "auto" (the fastest door that is there), "local", "socket" or "network". "socket" is for processes of the service's
    host that map no memory: small calls go over the service's local socket, what is larger, waits or streams over gRPC. "auto" takes it
    where this process gets no lanes of the service's memory. "local" and "socket" connect now, the network door at its first call.
    """
    return open_client(_local.resolve(url, token, token_file, timeout, transport), has_socket=True)


def open_client(endpoint: Endpoint, *, has_socket: bool) -> Client:
    """A client of what _local.resolve found. Without ``has_socket`` the network door takes the place of the socket, unless that was asked
    for by name."""
    door, chosen, runtime_dir, target, token, seconds, tls = endpoint
    name = f"python/0.1.0 {os.path.basename(sys.argv[0] or 'python')}"[:128]
    if door == "local":
        try:
            return Client(_local.Session(runtime_dir, token, name, seconds), seconds, target, token)
        except errors.LimitExceeded as error:
            # Calls need no lanes. Any other limit is the socket's, too.
            if chosen or error.reason != "LANES_EXHAUSTED":
                raise
            door = "socket"
    network = NetworkSession(target, token, seconds, tls)
    if door == "network" or not has_socket:
        return Client(network, seconds, target, token)
    session = _local.Session(runtime_dir, token, name, seconds, lanes=False)
    return Client(SocketSession(session, network), seconds, target, token)


class Client:
    """A connection to a service. Close it, or use it in a ``with`` statement. Threads: any at once.

    fork(): it goes on in the child, which attaches (or connects) by itself at its first operation.
    """

    def __init__(self, session: Any, timeout: float, target: str, token: str) -> None:
        """Not for users: connect() makes clients."""
        self._session = session
        self._timeout = timeout
        # Only the network door carries streams: other doors have it beside them, of the same service.
        self._streams: NetworkSession
        if isinstance(session, SocketSession):
            self._streams = session.network
        elif isinstance(session, NetworkSession):
            self._streams = session
        else:
            self._streams = NetworkSession(target, token, timeout)
        self.areas = Areas(self)
        self.dicts = Dicts(self)
        self.locks = Locks(self)
        self._leasing: Leasing | None = None

    def __repr__(self) -> str:
        closed = ", closed" if self.closed else ""
        return f"<statehouse {self.transport} client of {self._streams.address}{closed}>"

    @property
    def transport(self) -> str:
        """The door in use: "local", "socket" or "network"."""
        return "local" if isinstance(self._session, _local.Session) else str(self._session.transport)

    def area(self, name: str, size: int | None = None) -> Area:
        """Opens an area. With ``size`` (bytes) it is created when it does not exist; without, it must exist.

        A name that was deleted and created again opens the new one. Errors: NotFound, AlreadyExists (another size),
        InvalidArgument, LimitExceeded, MemoryExhausted, PermissionDenied.
        """
        if size is not None:
            info = self.areas.create(name, size=size)
        if self.transport == "local":
            checked = _control.check_name(name)
            return cast(Area, self._session.open(checked, self._area_lock, self._area_watch))
        if size is None:
            info = self.areas.describe(name)
        return cast(
            Area,
            NetworkArea(self._session, info.name, info.size, info.index, self._area_lock, self._area_watch),
        )

    def dict(
        self,
        name: str,
        *,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        default_ttl: Any = None,
        evict: bool = False,
        create: bool = True,
        keys: str = "str",
    ) -> SharedDict:
        """Opens a dict, which is created when it does not exist; with ``create=False`` it must exist.

        The limits are those of ``dicts.create``. ``default_ttl`` (seconds or a timedelta) is how long entries live that are set without
        a ttl. With ``keys="any"`` keys may also be ints, bytes and tuples of these and texts; every program that uses the dict must
        then say so. Errors: NotFound, AlreadyExists (other limits), InvalidArgument, LimitExceeded, MemoryExhausted,
        PermissionDenied.
        """
        any_keys = _dicts.check_keys(keys)
        if create:
            name = self.dicts.create(
                name, max_entries=max_entries, max_bytes=max_bytes, default_ttl=default_ttl, evict=evict
            ).name
        elif self.transport != "local":
            name = self.dicts.describe(name).name
        shared: SharedDict
        if self.transport == "local":
            shared = LocalSharedDict(self._session, _dicts.check_dict_name(name), any_keys)
        else:
            shared = NetworkSharedDict(self._session, name, any_keys)
        shared._streams = self._streams
        shared._binder = Binder(self, name)
        return shared

    def lock(
        self,
        name: str,
        *,
        ttl: Any = TTL_DEFAULT,
        shared: bool = False,
        hold_max: Any = None,
        timeout: Any = None,
        owner: str | None = None,
        on_lost: Callable[[Lock], None] | None = None,
        manual_renewal: bool = False,
    ) -> Lock:
        """A lock by its name; nothing is asked before ``acquire`` or ``with``.

        ``ttl`` (seconds or a timedelta, 0.1 s to 7 days): how long the lease outlives the last renewal, which the client does at a third
        of it, unless ``manual_renewal``: then the caller does, with ``renew``. ``shared``: held together with other shared holders.
        ``hold_max`` (0.1 s or more): renewals reach at most so far after the grant, so that a process that hangs while its renewing
        thread goes on loses the lock in the end. ``timeout``: how long ``with`` waits; for ever if None. ``owner``: who this is, for
        ``locks.describe``. ``on_lost(lock)`` is called once, from a thread of the client, when the lease is over before its release.
        """
        return self._lock(name, ttl, shared, 1, hold_max, timeout, owner, on_lost, manual_renewal)

    def semaphore(
        self,
        name: str,
        limit: int,
        *,
        ttl: Any = TTL_DEFAULT,
        hold_max: Any = None,
        timeout: Any = None,
        owner: str | None = None,
        on_lost: Callable[[Lock], None] | None = None,
        manual_renewal: bool = False,
    ) -> Lock:
        """A lock that ``limit`` holders (1 to 1,048,576) have at once. Everybody who uses it says the same limit, else Conflict."""
        return self._lock(name, ttl, False, limit, hold_max, timeout, owner, on_lost, manual_renewal)

    def _lock(
        self,
        name: str,
        ttl: Any,
        shared: bool,
        limit: int,
        hold_max: Any,
        timeout: Any,
        owner: str | None,
        on_lost: Callable[[Lock], None] | None,
        manual_renewal: bool,
    ) -> Lock:
        return Lock(
            self._leases(),
            self,
            name,
            ttl=ttl,
            shared=shared,
            limit=limit,
            hold_max=hold_max,
            timeout=timeout,
            owner=owner,
            on_lost=on_lost,
            manual_renewal=manual_renewal,
        )

    def _leases(self) -> Leasing:
        if self._leasing is None:
            self._leasing = Leasing(self)
        return self._leasing
    def _area_watch(
        self,
        area: Any,
        pos: int = 0,
        len: int | None = None,
        *,
        on_resync: Callable[[AreaEvent], None] | None = None,
        **options: Any,
    ) -> AreaWatch:
        return AreaWatch(self._streams, area_reader(area, pos, len, **options), on_resync)

    def _area_lock(
        self,
        area: Any,
        pos: int = 0,
        len: int | None = None,
        *,
        ttl: Any = TTL_DEFAULT,
        shared: bool = False,
        hold_max: Any = None,
        timeout: Any = None,
        owner: str | None = None,
        on_lost: Callable[[Lock], None] | None = None,
        manual_renewal: bool = False,
    ) -> AreaLock:
        """For areas: see statehouse.types.Area.lock."""
        return AreaLock(
            self._leases(),
            self,
            area.name,
            area.size,
            pos,
            len,
            ttl=ttl,
            shared=shared,
            hold_max=hold_max,
            timeout=timeout,
            owner=owner,
            on_lost=on_lost,
            manual_renewal=manual_renewal,
        )

    def batch(self, stop_at_failure: bool = False) -> Batch:
        """Many operations in one message: they are noted with ``batch.dict(name).incr(key)`` and the like, and carried out by
        ``batch.run()`` or at the end of ``with client.batch() as batch``. With ``stop_at_failure`` those after the first that is refused
        are not carried out (Cancelled)."""
        return Batch(self, stop_at_failure)

    def status(self) -> ServiceStatus:
        """What the service tells of itself. Errors: Unauthenticated, Unavailable."""
        return _control.service_status(self._call(_control.status()))

    def close(self) -> None:
        """Gives the connection back, and every lock that is held. Later calls, also on its areas, raise ClientClosed; memoryviews stay
        valid."""
        if self._leasing is not None and not self._session.closed:
            self._leasing.close()
        self._session.close()
        self._streams.close()

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return bool(self._session.closed)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, call: Call) -> Any:
        return self._call_timed(call, self._timeout, False)

    def _call_batch(self, call: Call) -> Any:
        """A batch. What may be too large for the local door's packets goes through the service's unix socket, as streams do."""
        if isinstance(self._session, SocketSession):
            return self._session.call_batch(call)
        if self.transport == "local" and call.request.by_packet:
            try:
                return self._call(call)
            except errors.LimitExceeded as error:
                if not fits_no_packet(error, call):
                    raise
        return self._streams.batches.call(call)

    def _call_timed(self, call: Call, timeout: float, long_running: bool) -> Any:
        """``long_running``: it keeps no other call waiting."""
        if self._session.closed:
            raise closed_error(call.name)
        if isinstance(self._session, NetworkSession | SocketSession):
            return self._session.call(call, timeout, long_running)
        response = self._session.call(
            call.method, call.request.SerializeToString(), timeout, call.idempotent, call.name, long_running, call.again
        )
        return call.response_type.FromString(response)


class Areas:
    """The areas of a service as wholes: ``client.areas``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(
        self,
        name: str,
        *,
        size: int | None = None,
        pages: int | None = None,
        file: str | None = None,
        offset: int = 0,
        exclusive: bool = False,
    ) -> AreaInfo:
        """Creates an area of ``size`` bytes or ``pages`` pages of 4,096, or finds the one that agrees.

        ``file`` is a file of the service's host that holds the bytes from ``offset`` on. ``exclusive`` refuses a name
        that exists. Errors: AlreadyExists, InvalidArgument, BackingInvalid, LimitExceeded, MemoryExhausted,
        PermissionDenied.
        """
        call = _control.create(name, size, pages, file, offset, exclusive)
        return _control.area_info(self._client._call(call).area)

    def describe(self, name: str) -> AreaInfo:
        """What the service knows of an area. ``name`` may be "#<index>". Errors: NotFound."""
        return _control.area_info(self._client._call(_control.describe(name)).area)

    def delete(self, name: str) -> None:
        """Deletes an area; whoever has it open gets NotFound at the next operation. Errors: NotFound."""
        self._client._call(_control.delete(name))

    def list(self, *, prefix: str = "") -> builtins.list[AreaInfo]:
        """Every readable area whose name begins with ``prefix``, in order of creation."""
        return [*self._pages(prefix)]

    def _pages(self, prefix: str) -> Iterator[AreaInfo]:
        page_token = ""
        while True:
            response = self._client._call(_control.list_page(prefix, page_token))
            yield from map(_control.area_info, response.areas)
            page_token = response.next_page_token
            if not page_token:
                return
