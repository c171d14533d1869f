"""Statehouse: shared state for worker processes, in memory they map and over the network.

    import statehouse

    with statehouse.connect() as c:
        visits = c.area("counters", size=4096)
        print("visit", visits.add_u64(0, 1))

``connect()`` without arguments finds the service of this host. ``statehouse.aio`` has the same names for asyncio.
"""

from __future__ import annotations

from ._client import Areas, Client, connect
from ._local import CompareExchangeResult
from .errors import (
    AlreadyExists,
    BackingInvalid,
    Cancelled,
    ClientClosed,
    ClientForked,
    ConfigInvalid,
    DataLoss,
    Draining,
    Error,
    InternalError,
    InvalidArgument,
    LimitExceeded,
    MemoryExhausted,
    NotFound,
    OutOfBounds,
    PermissionDenied,
    RateLimited,
    ReadOnly,
    Stalled,
    Timeout,
    TransportError,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    ValueOutOfRange,
    VersionMismatch,
)
from .types import Area, AreaInfo, ServiceStatus

__version__ = "0.1.0"

__all__ = [
    "AlreadyExists",
    "Area",
    "AreaInfo",
    "Areas",
    "BackingInvalid",
    "Cancelled",
    "Client",
    "ClientClosed",
    "ClientForked",
    "CompareExchangeResult",
    "ConfigInvalid",
    "DataLoss",
    "Draining",
    "Error",
    "InternalError",
    "InvalidArgument",
    "LimitExceeded",
    "MemoryExhausted",
    "NotFound",
    "OutOfBounds",
    "PermissionDenied",
    "RateLimited",
    "ReadOnly",
    "ServiceStatus",
    "Stalled",
    "Timeout",
    "TransportError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "ValueOutOfRange",
    "VersionMismatch",
    "connect",
]
