"""Entries that end with their client: carries out what binds them to its session, over every door by calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import errors
from ._dict_calls import DictCalls, named
from ._dict_verbs import Verb

if TYPE_CHECKING:
    from ._client import Client

_Result = TypeVar("_Result")


class Binder:
    """For one dict of a client. Threads: any at once. In a forked child it binds to the child's own session."""

    def __init__(self, client: Client, name: str) -> None:
        """Not for users: Client.dict() makes it."""
        self._client = client
        self._calls = DictCalls(name)

    def run(self, verb: Verb[_Result]) -> _Result:
        """Carries a verb out whose requests set entries, all of them bound."""
        try:
            request = next(verb)
            while True:
                request = verb.send(self._do(request))
        except StopIteration as stop:
            return cast(_Result, stop.value)

    def _do(self, request: tuple[Any, ...]) -> Any:
        leasing = self._client._leases()
        session_id = leasing.session_id()
        try:
            return self._set(request, session_id)
        except errors.NotFound as error:
            if error.reason != "SESSION_NOT_FOUND":
                raise
        # It ended meanwhile, because the service did not hear of this process for long.
        leasing.lose_session(session_id)
        return self._set(request, leasing.session_id())

    def _set(self, request: tuple[Any, ...], session_id: int) -> Any:
        method: Callable[..., Any] = getattr(self._calls, request[0])
        call, read = method(*request[1:], bind_session=session_id)
        with named(call):
            return read(self._client._call(call))
