"""What repr tells of clients and of what they hand out: kind, service, door and name, and never the access token."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

import statehouse
import statehouse.aio

from conftest import Service


def told_without_token(service: Service, *things: Any) -> list[str]:
    """Their reprs, as the log of a program would have them; those of the parts that a debugger shows are looked at as well."""
    secret = service.token.split("_", 2)[2]
    assert len(secret) > 20
    for thing in things:
        assert secret not in repr(thing) and secret not in f"{thing}" and secret not in repr(getattr(thing, "_session", None))
    return [repr(thing) for thing in things]


@pytest.mark.parametrize("door", ["local", "socket", "network"])
def test_a_client_tells_its_service_and_its_door(service: Service, door: str) -> None:
    with service.connect(door) as client:
        assert told_without_token(service, client) == [f"<statehouse {door} client of statehouse+unix://{service.runtime_dir}>"]
    assert told_without_token(service, client) == [f"<statehouse {door} client of statehouse+unix://{service.runtime_dir}, closed>"]


def test_of_another_host_it_tells_the_address(service: Service) -> None:
    with statehouse.connect(service.tcp_url + "?timeout=9s", token=service.token) as client:
        assert told_without_token(service, client) == [f"<statehouse network client of {service.tcp_url}>"]
    with statehouse.connect("statehouse+tls://db.example?transport=network", token=service.token) as client:
        assert told_without_token(service, client) == ["<statehouse network client of statehouse+tls://db.example:7700>"]


@pytest.mark.parametrize("door", ["local", "socket", "network"])
def test_what_a_client_hands_out_tells_its_name(service: Service, door: str, area_name: str) -> None:
    with service.connect(door) as client:
        shared = client.dict(area_name)
        shared["k"] = 1
        area = client.area(area_name, 64)
        lock = client.lock(area_name)
        with shared.watch() as watch, area.watch() as area_watch:
            told = told_without_token(service, shared, shared.at("k"), area, lock, area.lock(0, 8), client.batch(), watch, area_watch)
        told += told_without_token(service, watch)
        client.dicts.delete(area_name)
        client.areas.delete(area_name)
    assert told.pop(5) == "<statehouse batch, 0 operations noted>"
    assert all(area_name in each for each in told), told
    assert told[-3:] == [f"<statehouse watch of {area_name}>"] * 2 + [f"<statehouse watch of {area_name}, closed>"]


@pytest.mark.parametrize("door", ["local", "network"])
def test_of_asyncio_everything_says_so(service: Service, door: str, area_name: str) -> None:
    async def tell() -> list[str]:
        async with statehouse.aio.connect(service.url, token=service.token, transport=door) as client:
            shared = await client.dict(area_name)
            area = await client.area(area_name, 64)
            async with shared.watch() as watch:
                told = told_without_token(service, client, shared, area, client.lock(area_name), watch)
            await client.dicts.delete(area_name)
            await client.areas.delete(area_name)
            return told

    told = asyncio.run(tell())
    assert told[0] == f"<statehouse {door} client of statehouse+unix://{service.runtime_dir}, asynchronous>"
    assert told[3] == f"<statehouse.Lock {area_name!r}, not held, asynchronous>"
    assert all(re.search(rf"{area_name}.*asynchronous>", each) for each in told[1:]), told
