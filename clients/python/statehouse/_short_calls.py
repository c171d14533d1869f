"""Short calls as operations of a batch: over an open stream of batches (_batch_link.py, _async_batch_link.py) a call takes a third of what
it takes by grpcio. The service carries each out as the call that it would be, with its own authorisation, errors and metrics.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from . import _batch_wire, _local, errors
from ._batch_operations import KINDS
from ._control import Call
from ._dict_calls import DICTS
from ._local import Operation

# Of one entry or word, or of a number of keys that the request bounds: what may take long would keep those behind it waiting.
_SHORT = {
    "/statehouse.v1.Areas/": ("LoadWord", "StoreWord", "AddWord", "CompareExchangeWord", "BitwiseWord"),
    DICTS: ("GetEntry", "SetEntry", "DeleteEntry", "IncrementEntry", "EditEntry", "TouchEntry", "TransactDict"),
}
_KIND_OF = {service + method: KINDS[method] for service, methods in _SHORT.items() for method in methods}


class Answer(NamedTuple):
    """What an answer may hold: so many values of up to 1 MiB, and whether they are told once, because the call changes something."""

    values: int
    changes_value: bool


VALUES_MAX = 15  # For which an answer surely has room.
_WORD = Answer(0, False)
_ANSWERS = {
    "GetEntry": Answer(1, False),
    "SetEntry": Answer(1, True),
    "DeleteEntry": Answer(1, True),
    "EditEntry": Answer(1, True),
    "TransactDict": Answer(VALUES_MAX, True),
}
_ANSWER_OF = {DICTS + method: answer for method, answer in _ANSWERS.items()}
REQUEST_BYTES_MAX = 4096  # Of a longer one the copies cost as much as a call.
BEGINS_AFTER = 16  # Calls of a client: fewer are not worth a second connection.


def operation_of(call: Call) -> bytes | None:
    """The call as an operation of a batch; None where it is to go by itself."""
    kind = _KIND_OF.get(call.method)
    if kind is None:
        return None
    request = call.request.SerializeToString()
    return _batch_wire.operation(kind, request) if len(request) <= REQUEST_BYTES_MAX else None


def answer_of(call: Call) -> Answer:
    if getattr(call.request, "return_previous", True):
        return _ANSWER_OF.get(call.method, _WORD)
    return _WORD  # Versions always have room.


def message_of(operations: bytes) -> bytes:
    """A RunBatchesRequest."""
    return _batch_wire.field(b"\x0a", operations)


def results_of(answer: bytes, count: int) -> list[tuple[int, bytes]]:
    """Of a RunBatchesResponse that is no failure: kind and message of each operation's result. ValueError where there are not so many."""
    others = _local.take_results([Operation() for _ in range(count)], answer)
    if len(others) != count:
        raise ValueError("it has results of other kinds than what was asked for")
    return [(kind, result) for _, kind, result in others]


def response_of(call: Call, kind: int, result: bytes) -> Any:
    """The call's response, or None where it is to go by itself: it was not carried out, or may be repeated. Errors: the call's."""
    if kind == _KIND_OF[call.method]:
        return call.response_type.FromString(result)
    if kind != _batch_wire.FAILURE:
        raise broken_error(call, f"a result of kind {kind}")
    reason, message, _ = _batch_wire.failure_of(result)
    error = errors.from_reason(reason, message, call.name)
    # An older service does not know it; one that stops did not begin it; beside others there was no room for its answer.
    if isinstance(error, errors.Draining) or error.reason == "UNIMPLEMENTED":
        return None
    may_succeed = error.reason == "MESSAGE_TOO_LARGE" or (isinstance(error, errors.Unavailable) and error.reason != "STALLED")
    if call.idempotent and may_succeed:
        return None
    raise error


def broken_error(call: Call, what: str) -> errors.Error:
    return errors.by_name("INTERNAL", f"{call.method}: the service answered with {what}; it may have been carried out", call.name)


class Message:
    """A serialized RunBatchesRequest, as links take messages."""

    __slots__ = ("_serialized",)

    def __init__(self, serialized: bytes) -> None:
        self._serialized = serialized

    def SerializeToString(self) -> bytes:
        return self._serialized
