"""The operations of a batch that the extension has no form of its own for, and how they read their results."""

from __future__ import annotations

from typing import Any

from . import _batch_wire, errors
from ._control import Call
from ._dict_calls import Read
from ._dict_verbs import Verb
from ._local import Noted, Operation

# Traits of operations: it changes something, and a name makes it repeatable; it changes something that remembers no names; its answer
# may have any size.
CHANGES, ONCE, WIDE = 1, 2, 4
# Fields of Operation in batch.proto, by method.
KINDS = {
    "ReadArea": 20, "WriteArea": 21, "FillArea": 22, "LoadWord": 23, "StoreWord": 24, "AddWord": 25, "CompareExchangeWord": 26,
    "BitwiseWord": 27, "DescribeDict": 33, "ClearDict": 36, "GetEntry": 37, "GetEntries": 38, "SetEntry": 39, "SetEntries": 40,
    "DeleteEntry": 41, "DeletePrefix": 42, "IncrementEntry": 43, "EditEntry": 44, "TouchEntry": 45, "TransactDict": 47,
}  # fmt: skip


class OtherOperation(Operation[Any]):
    """One whose result is read here."""

    kind: int  # Field of OperationResult.

    def take(self, kind: int, result: bytes) -> None:
        """Ends it by its result, or by a failure."""
        if kind != self.kind:
            end_by_failure(self, kind, result)
            return
        try:
            self._end(self._read(result))
        except Exception as error:  # What reading it raises is its result: KeyNotFound, or what a class's decode raises.
            self._fail(error)

    def _read(self, result: bytes) -> Any:
        raise NotImplementedError


class Add(OtherOperation):
    """WordAdd."""

    kind = _batch_wire.ADD

    def _read(self, result: bytes) -> int:
        return _batch_wire.word_of(result)


class Long(OtherOperation):
    """The request of a verb: reads its answer as the call of its own would. ``verb`` is the generator that asked for it, if any."""

    def __init__(self, call: Call, read: Read, verb: Verb[Any] | None) -> None:
        self.kind = KINDS[call.method.rpartition("/")[2]]
        self._call = call
        self._read_answer = read
        self._verb = verb
        self.is_named = hasattr(call.request, "operation_id")

    def _read(self, result: bytes) -> Any:
        answer = self._read_answer(self._call.response_type.FromString(result))
        if self._verb is None:
            return answer
        try:
            self._verb.send(answer)
        except StopIteration as stop:
            return stop.value
        raise RuntimeError(f"{self._call.method} is not all that its verb asks for")

    def _fail(self, error: Exception) -> None:
        try:
            if self._verb is not None:
                self._verb.throw(error)
            super()._fail(error)  # A verb that would ask for more is told no more.
        except StopIteration as stop:
            self._end(stop.value)  # It takes the error for an answer.
        except Exception as raised:
            super()._fail(raised)

    def encoded(self, session: int = 0, sequence: int = 0) -> bytes:
        """As an operation of a Batch; with a session, under a name of its own where it takes one."""
        if session and self.is_named:
            self._call.request.operation_id.session = session
            self._call.request.operation_id.sequence = sequence
        return _batch_wire.operation(self.kind, self._call.request.SerializeToString())


def note_call(noted: Noted, call: Call, read: Read, verb: Verb[Any] | None = None) -> Operation[Any]:
    """Notes a verb's request."""
    operation = Long(call, read, verb)
    change = CHANGES if operation.is_named else 0 if call.idempotent else ONCE
    return noted.note(operation, operation.encoded(), change | WIDE)


def note_answer(noted: Noted, answer: Any) -> Operation[Any]:
    """Notes what needs nothing to be sent: it has no bytes."""
    operation: Operation[Any] = Operation()
    operation._end(answer)
    return noted.note(operation, b"", 0)


def end_by_failure(operation: Operation[Any], kind: int, result: bytes) -> None:
    """A result that is none of the operation's own kind."""
    if kind == _batch_wire.FAILURE:
        operation._fail(errors.from_reason(*_batch_wire.failure_of(result)))
    else:
        operation._fail(errors.by_name("INTERNAL", f"the service answered with a result of kind {kind}; it may have been carried out"))
