"""Statehouse: shared state for worker processes, in memory they map and over the network.

    import statehouse

    with statehouse.connect() as c:
        visits = c.area("counters", size=4096)
        print("visit", visits.add_u64(0, 1))
        config = c.dict("config")
        config["web"] = {"ports": [80, 443]}
        config["web"]["ports"][1] = 8443          # changes that item, for everybody

``connect()`` without arguments finds the service of this host. ``statehouse.aio`` has the same names for asyncio.
"""

from __future__ import annotations

from ._area_locks import AreaLock
from ._area_watch import AreaEvent, AreaWatch
from ._batch import Batch
from ._batch_area import BatchArea
from ._batch_dict import BatchDict, BatchPlace
from ._client import Areas, Client, connect
from ._cursor import Cursor
from ._dict_verbs import KEEP_TTL, DictEntry, Edited
from ._dicts import Dicts
from ._local import CompareExchangeResult, Operation
from ._locks import Lock, Locks
from ._plan import Plan, PlanOutcome
from ._shared_dict import SharedDict
from ._transaction import Transaction
from ._values import Tagged, Tensor, register
from ._dict_watch import Watch, WatchEvent
from .errors import (
    AlreadyExists,
    BackingInvalid,
    Cancelled,
    ClientClosed,
    ClientForked,
    ConfigInvalid,
    Conflict,
    DataLoss,
    Draining,
    Error,
    Fenced,
    InternalError,
    InvalidArgument,
    KeyNotFound,
    LimitExceeded,
    LockLost,
    MemoryExhausted,
    NotFound,
    OutOfBounds,
    PathNotFound,
    PermissionDenied,
    RateLimited,
    ReadOnly,
    Stalled,
    Timeout,
    TransportError,
    TypeMismatch,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    ValueOutOfRange,
    VersionMismatch,
)
from .types import Area, AreaInfo, DictInfo, LockInfo, LockParty, ServiceStatus

__version__ = "0.1.0"

__all__ = [
    "AlreadyExists",
    "Area",
    "AreaEvent",
    "AreaInfo",
    "AreaLock",
    "AreaWatch",
    "Areas",
    "BackingInvalid",
    "Batch",
    "BatchArea",
    "BatchDict",
    "BatchPlace",
    "Cancelled",
    "Client",
    "ClientClosed",
    "ClientForked",
    "CompareExchangeResult",
    "ConfigInvalid",
    "Conflict",
    "Cursor",
    "DataLoss",
    "DictEntry",
    "DictInfo",
    "Dicts",
    "Draining",
    "Edited",
    "Error",
    "Fenced",
    "InternalError",
    "InvalidArgument",
    "KEEP_TTL",
    "KeyNotFound",
    "LimitExceeded",
    "Lock",
    "LockInfo",
    "LockLost",
    "LockParty",
    "Locks",
    "MemoryExhausted",
    "NotFound",
    "Operation",
    "OutOfBounds",
    "PathNotFound",
    "PermissionDenied",
    "Plan",
    "PlanOutcome",
    "RateLimited",
    "ReadOnly",
    "ServiceStatus",
    "SharedDict",
    "Stalled",
    "Tagged",
    "Tensor",
    "Timeout",
    "Transaction",
    "TransportError",
    "TypeMismatch",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "ValueOutOfRange",
    "VersionMismatch",
    "Watch",
    "WatchEvent",
    "connect",
    "register",
]
