"""Batches: many operations that are noted one by one and sent together."""

from __future__ import annotations

import builtins
import time
from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _batch_wire, _dicts, _local, errors
from ._batch_area import BatchArea
from ._batch_dict import BatchDict
from ._batch_operations import CHANGES, ONCE, WIDE, Long, OtherOperation, end_by_failure
from ._control import Call, check_name
from ._dict_calls import numbered
from ._local import Noted, Operation

if TYPE_CHECKING:
    from ._client import Client
    from .aio import AsyncClient

RUN_BATCH = "/statehouse.v1.Batches/RunBatch"
MESSAGE_OPERATIONS_MAX = 4096
MESSAGE_BYTES_MAX = (16 << 20) - (64 << 10)  # Of its operations; their names and what is around them come on top.
NAMED_OPERATIONS_MAX = 64  # As many as a dict remembers of a session.
_DRAINING = 17  # ERROR_REASON_DRAINING.
# The reasons of a refusal after which a batch may have been carried out all the same.
_DOUBTFUL = {"TIMEOUT", "UNAVAILABLE", "CANCELLED", "INTERNAL"}


# The local door's packets hold 128 KiB. Answers of so many operations that are not wide fit, also where all of them are refused.
PACKET_BYTES_MAX = 120 << 10
PACKET_OPERATIONS_MAX = 64


class _Request:
    """A serialized RunBatchRequest, as the doors take messages. ``by_packet``: the local door has room for it, and for its answer unless
    ``reads_only``: then it may be tried."""

    __slots__ = ("_bytes", "by_packet", "reads_only")

    def __init__(self, serialized: bytes, operations: int, traits: int) -> None:
        self._bytes = serialized
        self.reads_only = not traits & (CHANGES | ONCE)
        is_narrow = operations <= PACKET_OPERATIONS_MAX and not traits & WIDE
        self.by_packet = len(serialized) <= PACKET_BYTES_MAX and (is_narrow or self.reads_only)

    def SerializeToString(self) -> bytes:
        return self._bytes


class _Response:
    """A RunBatchResponse, left as it came."""

    @staticmethod
    def FromString(serialized: bytes) -> bytes:
        return serialized


class BatchBase:
    """What Batch and AsyncBatch have in common: notes operations, and makes messages of them. Nothing here touches a connection."""

    def __init__(self, timeout: float, stop_at_failure: bool) -> None:
        """Not for users: Client.batch() makes it."""
        self._timeout = timeout
        self._stop_at_failure = stop_at_failure
        self._noted = Noted()
        self._places: builtins.dict[str, int] = {}

    def __len__(self) -> int:
        """How many operations are noted."""
        return len(self._noted)

    def __repr__(self) -> str:
        return f"<statehouse batch, {len(self)} operations noted>"

    def dict(self, name: str, *, keys: str = "str") -> BatchDict:
        """A dict of this batch. It must exist when the batch is run; each of its operations is refused with NotFound otherwise. ``keys``
        is as for Client.dict. Errors: TypeError, ValueError."""
        any_keys = _dicts.check_keys(keys)
        return BatchDict(self._noted, _dicts.check_dict_name(name), self._place(name), any_keys)

    def area(self, name: str) -> BatchArea:
        """An area of this batch. It must exist when the batch is run; each of its operations is refused with NotFound otherwise."""
        return BatchArea(self._noted, check_name(name), self._place(name))

    def _place(self, name: str) -> int:
        """What short operations call it by; further names than a message has room for go without (-1)."""
        if name not in self._places and len(self._places) == _batch_wire.NAMES_MAX:
            return -1
        return self._places.setdefault(name, len(self._places))

    def clear(self) -> None:
        """Forgets what was noted and not run."""
        self._noted.take()

    def _carry_out(self, operations: list[Operation[Any]], parts: list[bytes], traits: int) -> Generator[Call, bytes, None]:
        """Yields the calls that carry operations out one after another, and is sent their answers, or thrown their errors."""
        if not all(parts):  # Some need nothing to be sent.
            operations = [operation for operation, part in zip(operations, parts, strict=True) if part]
            parts = list(filter(None, parts))
        is_named = traits & (CHANGES | ONCE) == CHANGES and len(parts) <= NAMED_OPERATIONS_MAX
        begin = 0
        why_not = ""
        try:
            while begin < len(parts) and not why_not:
                end = _message_end(parts, begin)
                message = _Message(operations[begin:end], parts[begin:end], traits, is_named)
                why_not = yield from self._send(message)
                begin = end
            for operation in operations[begin:]:
                operation._fail(errors.by_name("CANCELLED", f"it was not sent: {why_not}"))
        except BaseException:
            for operation in operations:
                if not operation._is_over:
                    operation._fail(errors.by_name("CANCELLED", "its batch was broken off; it may have been carried out"))
            raise

    def _send(self, message: _Message) -> Generator[Call, bytes, str]:
        """Why nothing after it may be sent, or ""."""
        deadline = time.monotonic() + self._timeout
        left = message
        while left.operations:
            try:
                if left.is_named:
                    with numbered(len(left.parts)) as (session, sequence):
                        left.name(session, sequence)
                        answer = yield self._call(left, session, sequence)
                else:
                    answer = yield self._call(left)
            except errors.Error as error:
                return left.refuse(error)
            # What the service did not come to before it stopped its successor does, as with a call of its own.
            left = left.take(answer)
            if left.operations and not (left.repeatable and time.monotonic() < deadline):
                return left.refuse(errors.by_name("DRAINING", "the service stopped before it came to this operation"))
        if self._stop_at_failure and _local.batch_results(message.operations)[1] >= 0:
            return "an operation before it was refused"
        return ""

    def _call(self, message: _Message, session: int = 0, sequence: int = 0) -> Call:
        names = b"".join([_batch_wire.field(b"\x0a", name.encode()) for name in self._places])
        request = _batch_wire.request(names, session, sequence, self._stop_at_failure, b"".join(message.parts))
        return Call(RUN_BATCH, _Request(request, len(message.parts), message.traits), _Response, message.repeatable)


class _Message:
    """Operations that are sent together. ``repeatable``: it may be sent again when the answer was lost, and counts once."""

    __slots__ = ("operations", "parts", "traits", "is_named", "repeatable")

    def __init__(self, operations: list[Operation[Any]], parts: list[bytes], traits: int, is_named: bool) -> None:
        self.operations = operations
        self.parts = parts
        self.traits = traits
        self.is_named = is_named
        self.repeatable = is_named or not traits & (CHANGES | ONCE)

    def name(self, session: int, sequence: int) -> None:
        """Gives the longer operations names of their own; the others have theirs by the batch."""
        if not self.traits & WIDE:  # There are none.
            return
        for at, operation in enumerate(self.operations):
            if isinstance(operation, Long) and operation.is_named:
                self.parts[at] = operation.encoded(session, sequence + at)

    def take(self, answer: bytes) -> _Message:
        """Gives the operations their results. What is left was not carried out, because the service stops."""
        others = []
        try:
            others = _local.take_results(self.operations, answer)
        except ValueError as damage:
            error = errors.by_name("INTERNAL", f"{RUN_BATCH}: {damage}; it may have been carried out")
            for operation in self.operations:
                if not operation._is_over:
                    operation._fail(error)
        end = len(self.operations)
        while others and others[-1][0] == end - 1 and _batch_wire.is_failure(*others[-1][1:], _DRAINING):
            end, _, _ = others.pop()
        for at, kind, result in others:
            operation = self.operations[at]
            if isinstance(operation, OtherOperation):
                operation.take(kind, result)
            else:
                end_by_failure(operation, kind, result)
        return _Message(self.operations[end:], self.parts[end:], self.traits, self.is_named)

    def refuse(self, error: errors.Error) -> str:
        """It failed as a whole. Why nothing after it may be sent."""
        if error.reason in _DOUBTFUL:
            message = f"{error.message}; the operations of the batch may have been carried out"
            error = errors.by_name(error.reason, message, error.name)
        for operation in self.operations:
            operation._fail(error)
        return f"what was sent before it failed: {error}"


def _message_end(parts: list[bytes], begin: int) -> int:
    """Where the next message ends: one operation of any size, or as many as it has room for."""
    end = min(begin + MESSAGE_OPERATIONS_MAX, len(parts))
    size = sum(map(len, parts[begin:end]))
    while size > MESSAGE_BYTES_MAX and end - begin > 1:
        end -= 1
        size -= len(parts[end])
    return end


def fits_no_packet(error: errors.Error, call: Call) -> bool:
    """Whether a batch that the local door refused is one to send through the network door: nothing of it changed anything."""
    return error.reason == "MESSAGE_TOO_LARGE" and bool(call.request.reads_only)


def _results(operations: list[Operation[Any]], raise_errors: bool) -> list[Any]:
    results, failed = _local.batch_results(operations)
    if failed >= 0 and raise_errors:
        raise results[failed]
    return results


class Batch(BatchBase):
    """Operations on dicts and areas that are noted, and sent together in one message: ``client.batch()``.

        with client.batch() as batch:
            jobs = batch.dict("jobs")
            number = jobs.incr("number")
            jobs.set("last", time.time(), ttl=60)
        print(number.result())

    They are carried out in their order, each as its call of its own would be. It is no transaction: others may come between them, and
    one that is refused leaves the rest alone, unless the batch has ``stop_at_failure``. More than 4,096 operations, or 16 MiB, are sent as
    several messages, in order. A batch can be used again after it was run.

    Threads: one at a time. See ``run`` for errors.
    """

    def __init__(self, client: Client, stop_at_failure: bool) -> None:
        """Not for users: Client.batch() makes it."""
        super().__init__(client._timeout, stop_at_failure)
        self._client = client

    def run(self, *, raise_errors: bool = True) -> list[Any]:
        """Carries out what was noted. A list with what each operation gave, in their order.

        The first failure is raised after everything was done; without ``raise_errors`` the list holds the exceptions. Either way each
        operation knows its own result. Errors: those of the operations; with a message of its own Timeout, Unavailable and the like where
        the batch as a whole failed. Up to 64 operations that only read or change entries are sent again when a connection breaks, until the
        client's timeout, and count once; others are not, and the error says that they may have been carried out.
        """
        noted = self._noted.take()
        steps = self._carry_out(*noted)
        try:
            call = next(steps)
            while True:
                try:
                    answer = self._client._call_batch(call)
                except errors.Error as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(answer)
        except StopIteration:
            return _results(noted[0], raise_errors)
        finally:
            steps.close()

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self.run()
        else:
            self.clear()


class AsyncBatch(BatchBase):
    """Batch for asyncio: operations are noted as there, and ``run`` is awaited. ``async with`` runs it at the end of the block."""

    def __init__(self, client: AsyncClient, stop_at_failure: bool) -> None:
        """Not for users: AsyncClient.batch() makes it."""
        super().__init__(client._blocking._timeout, stop_at_failure)
        self._client = client

    async def run(self, *, raise_errors: bool = True) -> list[Any]:
        """See Batch.run."""
        noted = self._noted.take()
        steps = self._carry_out(*noted)
        try:
            call = next(steps)
            while True:
                try:
                    answer = await self._client._call_batch(call)
                except errors.Error as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(answer)
        except StopIteration:
            return _results(noted[0], raise_errors)
        finally:
            steps.close()

    async def __aenter__(self) -> AsyncBatch:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            await self.run()
        else:
            self.clear()
