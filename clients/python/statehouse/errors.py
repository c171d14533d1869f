"""The exceptions of every door. Branch on the class or on ``reason``, never on the text.

Each class also inherits the built-in exception that Python code expects, so ``except KeyError`` and
``except TimeoutError`` work.
"""

from __future__ import annotations

from . import _local

_REASON_NAMES: tuple[str, ...] = _local.reason_names()


class Error(Exception):
    """The base of all of them.

    ``reason`` is the catalogue's name ("OUT_OF_BOUNDS"), ``retryable`` says whether the same call may succeed later
    without a change, ``name`` is the area's name or "". ``retry_after`` is when it may, in seconds, where the service
    says so (RATE_LIMITED), else None.
    """

    reason: str
    retryable: bool
    name: str
    retry_after: float | None

    def __init__(
        self,
        message: str,
        *,
        reason: str = "INTERNAL",
        retryable: bool = False,
        name: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.retryable = retryable
        self.name = name
        self.retry_after = retry_after

    def __str__(self) -> str:
        # KeyError and OSError would otherwise show it in their own ways.
        return f"{self.reason}: {self.message}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.reason, self.retryable, self.name, self.retry_after))


def _rebuild(
    cls: type[Error], message: str, reason: str, retryable: bool, name: str, retry_after: float | None = None
) -> Error:
    return cls(message, reason=reason, retryable=retryable, name=name, retry_after=retry_after)


class InvalidArgument(Error, ValueError):
    """A malformed argument: INVALID_ARGUMENT, NAME_INVALID, SIZE_INVALID, WIDTH_INVALID."""


class OutOfBounds(Error, IndexError, ValueError):
    """The bytes are not inside the area, or a position is negative: OUT_OF_BOUNDS."""


class ValueOutOfRange(Error, OverflowError):
    """The number does not fit the word: VALUE_OUT_OF_RANGE."""


class NotFound(Error, KeyError):
    """No such area, or it was deleted: AREA_NOT_FOUND."""


class AlreadyExists(Error):
    """The area or dict exists otherwise than asked for: AREA_EXISTS, DICT_EXISTS."""


class KeyNotFound(NotFound):
    """The dict has no such key: KEY_NOT_FOUND."""


class PathNotFound(NotFound):
    """A step of the path leads nowhere: PATH_NOT_FOUND."""


class TypeMismatch(Error, TypeError):
    """The value is of another kind than the call needs: TYPE_MISMATCH."""


class Conflict(Error):
    """A condition does not hold, or what was read has changed since: CONFLICT."""


class Fenced(Error):
    """A newer fencing token wrote the entry; the caller's lease is over: FENCED."""


class LimitExceeded(Error):
    """A named limit is reached: LIMIT_EXCEEDED, LANES_EXHAUSTED, MESSAGE_TOO_LARGE."""


class MemoryExhausted(Error, MemoryError):
    """The service's memory limit is reached: MEMORY_EXHAUSTED."""


class RateLimited(Error):
    """Too many failed authentications, or more calls than the token may make: RATE_LIMITED. Nothing was done; ``retry_after``."""


class Unauthenticated(Error, PermissionError):
    """The access token is missing, unknown or expired: UNAUTHENTICATED, TOKEN_EXPIRED."""


class PermissionDenied(Error, PermissionError):
    """The access token has no grant for this: PERMISSION_DENIED."""


class ReadOnly(PermissionDenied):
    """A mutation through a read-only attachment: READ_ONLY."""


class Timeout(Error, TimeoutError):
    """The deadline passed: TIMEOUT. A mutation over the network may have happened."""


class Unavailable(Error, ConnectionError):
    """The service cannot be reached: UNAVAILABLE. A mutation over the network may have happened."""


class Draining(Unavailable):
    """The service is about to stop: DRAINING."""


class Stalled(Unavailable):
    """Another worker holds the bytes and makes no progress: STALLED."""


class Cancelled(Error):
    """The caller gave up: CANCELLED."""


class DataLoss(Error):
    """The object's control memory was damaged and is quarantined: DATA_LOSS."""


class VersionMismatch(Error):
    """Client and service are of releases that do not fit: VERSION_MISMATCH."""


class ClientClosed(Error, ValueError):
    """The client was closed before the call: CLIENT_CLOSED."""


class ClientForked(Error):
    """The handle belongs to the parent process: CLIENT_FORKED."""


class BackingInvalid(Error):
    """The file behind the area is missing, too short or not allowed: BACKING_INVALID."""


class LockLost(Error):
    """A lock's lease was over before it was released: LOCK_LOST. What was done under it may have met somebody else's work."""


class Unimplemented(Error, NotImplementedError):
    """The service, or this door, does not have it: UNIMPLEMENTED."""


class TransportError(Unimplemented, BufferError):
    """It needs the local door, and this client uses calls: UNIMPLEMENTED."""


class InternalError(Error):
    """A defect of the service; please report it: INTERNAL."""


class ConfigInvalid(Error, ValueError):
    """A configuration is wrong: CONFIG_INVALID."""


_CLASSES: dict[str, type[Error]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "OUT_OF_BOUNDS": OutOfBounds,
    "NAME_INVALID": InvalidArgument,
    "AREA_NOT_FOUND": NotFound,
    "AREA_EXISTS": AlreadyExists,
    "WIDTH_INVALID": InvalidArgument,
    "SIZE_INVALID": InvalidArgument,
    "LIMIT_EXCEEDED": LimitExceeded,
    "MEMORY_EXHAUSTED": MemoryExhausted,
    "UNAUTHENTICATED": Unauthenticated,
    "TOKEN_EXPIRED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "READ_ONLY": ReadOnly,
    "STALLED": Stalled,
    "TIMEOUT": Timeout,
    "UNAVAILABLE": Unavailable,
    "DRAINING": Draining,
    "DATA_LOSS": DataLoss,
    "VERSION_MISMATCH": VersionMismatch,
    "CLIENT_CLOSED": ClientClosed,
    "CLIENT_FORKED": ClientForked,
    "BACKING_INVALID": BackingInvalid,
    "LANES_EXHAUSTED": LimitExceeded,
    "UNIMPLEMENTED": Unimplemented,
    "INTERNAL": InternalError,
    "MESSAGE_TOO_LARGE": LimitExceeded,
    "RATE_LIMITED": RateLimited,
    "VALUE_OUT_OF_RANGE": ValueOutOfRange,
    "CANCELLED": Cancelled,
    "CONFIG_INVALID": ConfigInvalid,
    "DICT_NOT_FOUND": NotFound,
    "DICT_EXISTS": AlreadyExists,
    "KEY_NOT_FOUND": KeyNotFound,
    "CONFLICT": Conflict,
    "FENCED": Fenced,
    "PATH_NOT_FOUND": PathNotFound,
    "TYPE_MISMATCH": TypeMismatch,
    "KEY_INVALID": InvalidArgument,
    "VALUE_INVALID": InvalidArgument,
    "DICT_MOVED": Unavailable,
    "LOCK_LOST": LockLost,
    "SESSION_NOT_FOUND": NotFound,
}


def from_reason(reason: int, message: str, name: str = "", retry_after_ms: int = 0) -> Error:
    """The exception for a reason's number; a number of a later release becomes InternalError."""
    known = 0 < reason < len(_REASON_NAMES)
    text = _REASON_NAMES[reason] if known else f"REASON_{reason}"
    return _CLASSES.get(text, InternalError)(
        message,
        reason=text,
        retryable=_local.reason_is_retryable(reason),
        name=name,
        retry_after=retry_after_ms / 1000 if retry_after_ms else None,
    )


def by_name(reason: str, message: str, name: str = "") -> Error:
    """The exception for a reason's name."""
    return from_reason(_REASON_NAMES.index(reason), message, name)
