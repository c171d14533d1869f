"""Requests and responses of the control calls, for every door: build the message, take the answer apart."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from .errors import InvalidArgument
from .types import AreaInfo, ServiceStatus

AREAS = "/statehouse.v1.Areas/"
ADMIN = "/statehouse.v1.Admin/"
_BACKINGS = {1: "memory", 2: "file", 3: "descriptor"}
_U64_END = 1 << 64


class Call(NamedTuple):
    """One unary call: what to send, how to read the answer, and whether it may be sent twice."""

    method: str
    request: Any
    response_type: Any
    idempotent: bool
    name: str = ""
    # For who has to know: its first byte is set once a blocking session sends the call again, so that the answer may be about a sending
    # after the one that was carried out. Not of short calls and batches, where nobody has to.
    again: bytearray | None = None

    def note_again(self) -> None:
        if self.again is not None:
            self.again[0] = 1


@functools.cache
def area_pb2() -> Any:
    """The generated messages, imported at the first control or network call."""
    from .v1 import area_pb2 as module

    return module


def check_name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"an area's name must be a str, not {type(name).__name__}")
    return name


def check_count(number: int, what: str, name: str = "") -> int:
    """An int of 0 … 2^64 - 1."""
    if not isinstance(number, int):
        raise TypeError(f"{what} must be an int, not {type(number).__name__}")
    if not 0 <= number < _U64_END:
        raise InvalidArgument(
            f"{what} is {number}; it must be 0 or more and below 2^64",
            reason="INVALID_ARGUMENT",
            name=name,
        )
    return number


def create(
    name: str, size: int | None, pages: int | None, file: str | None, offset: int, exclusive: bool
) -> Call:
    pb = area_pb2()
    request = pb.CreateAreaRequest(
        name=check_name(name),
        size=check_count(0 if size is None else size, "size", name),
        pages=check_count(0 if pages is None else pages, "pages", name),
        file="" if file is None else file,
        offset=check_count(offset, "offset", name),
        exclusive=exclusive,
    )
    return Call(AREAS + "CreateArea", request, pb.CreateAreaResponse, not exclusive, name)


def describe(name: str) -> Call:
    pb = area_pb2()
    request = pb.DescribeAreaRequest(name=check_name(name))
    return Call(AREAS + "DescribeArea", request, pb.DescribeAreaResponse, True, name)


def delete(name: str) -> Call:
    pb = area_pb2()
    request = pb.DeleteAreaRequest(name=check_name(name))
    return Call(AREAS + "DeleteArea", request, pb.DeleteAreaResponse, False, name)


def list_page(prefix: str, page_token: str) -> Call:
    pb = area_pb2()
    request = pb.ListAreasRequest(prefix=prefix, page_token=page_token)
    return Call(AREAS + "ListAreas", request, pb.ListAreasResponse, True)


def status() -> Call:
    from .v1 import admin_pb2

    return Call(
        ADMIN + "GetStatus", admin_pb2.GetStatusRequest(), admin_pb2.GetStatusResponse, True
    )


def area_info(area: Any) -> AreaInfo:
    return AreaInfo(
        name=area.name,
        index=area.index,
        size=area.size,
        updates=area.updates,
        atomic_range_bytes=area.atomic_range_bytes,
        backing=_BACKINGS.get(area.backing, "unknown"),
        file=area.file,
        offset=area.offset,
        create_time=area.create_time.seconds + area.create_time.nanos / 1e9,
        attached_processes=area.attached_processes,
        memory_bytes=area.memory_bytes,
    )


def service_status(response: Any) -> ServiceStatus:
    return ServiceStatus(
        version=response.version,
        draining=response.state == 2,
        start_time=response.start_time.seconds + response.start_time.nanos / 1e9,
        generation=response.generation,
        daemon_pid=response.daemon_pid,
        keeper_pid=response.keeper_pid,
        areas=response.areas,
        memory_bytes=response.memory_bytes,
        memory_limit_bytes=response.memory_limit_bytes,
        attached_processes=response.attached_processes,
        recoveries=response.recoveries,
        runtime_dir=response.runtime_dir,
        listen_addresses=tuple(response.listen_addresses),
        http_address=response.http_address,
        dicts=response.dicts,
        dict_entries=response.dict_entries,
        locks_held=response.locks_held,
        lock_waiters=response.lock_waiters,
        sessions=response.sessions,
    )
