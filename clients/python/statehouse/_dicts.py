"""Dicts as wholes: requests and answers of the calls that create, describe, list and delete them."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any

from ._control import Call, check_count
from ._dict_calls import DICTS, dict_pb2
from ._dict_verbs import ttl_ms
from .types import DictInfo

_POLICIES = {1: "error", 2: "evict"}


def check_dict_name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a dict's name must be a str, not {type(name).__name__}")
    return name


def create(
    name: str,
    max_entries: int | None,
    max_bytes: int | None,
    default_ttl: Any,
    evict: bool,
    exclusive: bool,
) -> Call:
    pb = dict_pb2()
    request = pb.CreateDictRequest(
        name=check_dict_name(name),
        max_entries=check_count(0 if max_entries is None else max_entries, "max_entries", name),
        max_bytes=check_count(0 if max_bytes is None else max_bytes, "max_bytes", name),
        full_policy=pb.FULL_POLICY_EVICT if evict else pb.FULL_POLICY_UNSPECIFIED,
        exclusive=exclusive,
    )
    milliseconds = ttl_ms(default_ttl)
    if milliseconds > 0:
        request.default_ttl.FromMilliseconds(milliseconds)
    return Call(DICTS + "CreateDict", request, pb.CreateDictResponse, not exclusive, name)


def describe(name: str) -> Call:
    pb = dict_pb2()
    request = pb.DescribeDictRequest(name=check_dict_name(name))
    return Call(DICTS + "DescribeDict", request, pb.DescribeDictResponse, True, name)


def delete(name: str) -> Call:
    pb = dict_pb2()
    request = pb.DeleteDictRequest(name=check_dict_name(name))
    return Call(DICTS + "DeleteDict", request, pb.DeleteDictResponse, False, name)


def list_page(prefix: str, page_token: str) -> Call:
    pb = dict_pb2()
    request = pb.ListDictsRequest(prefix=prefix, page_token=page_token)
    return Call(DICTS + "ListDicts", request, pb.ListDictsResponse, True)


def dict_info(found: Any) -> DictInfo:
    ttl = found.default_ttl
    return DictInfo(
        name=found.name,
        index=found.index,
        entries=found.entries,
        revision=found.revision,
        max_entries=found.max_entries,
        max_bytes=found.max_bytes,
        entry_bytes=found.entry_bytes,
        memory_bytes=found.memory_bytes,
        default_ttl=ttl.seconds + ttl.nanos / 1e9 if found.HasField("default_ttl") else None,
        full_policy=_POLICIES.get(found.full_policy, "unknown"),
        evictions=found.evictions,
        expirations=found.expirations,
        create_time=found.create_time.seconds + found.create_time.nanos / 1e9,
        attached_processes=found.attached_processes,
        moves=found.moves,
        bound_entries=found.bound_entries,
    )


class Dicts:
    """The dicts of a service as wholes: ``client.dicts``."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def create(
        self,
        name: str,
        *,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        default_ttl: Any = None,
        evict: bool = False,
        exclusive: bool = False,
    ) -> DictInfo:
        """Creates a dict, or finds the one that agrees. What is not given may be anything in one that exists.

        Without limits a new one has room for 16,777,216 entries and 1 GiB. When it is full, an insert is refused, or with ``evict``
        the oldest entries make room. ``exclusive`` refuses a name that exists. Errors: AlreadyExists, InvalidArgument, LimitExceeded,
        MemoryExhausted, PermissionDenied.
        """
        call = create(name, max_entries, max_bytes, default_ttl, evict, exclusive)
        return dict_info(self._client._call(call).dict)

    def describe(self, name: str) -> DictInfo:
        """What the service knows of a dict. ``name`` may be "#<index>". Errors: NotFound."""
        return dict_info(self._client._call(describe(name)).dict)

    def delete(self, name: str) -> None:
        """Deletes a dict with its entries; whoever has it open gets NotFound at the next operation. Errors: NotFound."""
        self._client._call(delete(name))

    def list(self, *, prefix: str = "") -> builtins.list[DictInfo]:
        """Every readable dict whose name begins with ``prefix``, in order of creation."""
        return [*self._pages(prefix)]

    def _pages(self, prefix: str) -> Iterator[DictInfo]:
        page_token = ""
        while True:
            response = self._client._call(list_page(prefix, page_token))
            yield from map(dict_info, response.dicts)
            page_token = response.next_page_token
            if not page_token:
                return


def check_keys(keys: str) -> bool:
    """Whether a dict takes keys that are no texts."""
    if keys not in ("str", "any"):
        raise ValueError(f'keys is {keys!r}; it must be "str" or "any"')
    return keys == "any"
