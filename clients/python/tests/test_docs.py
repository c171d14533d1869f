"""The Python of README.md and docs/PYTHON.md runs as it stands."""

from __future__ import annotations

import pathlib
import re
import socket
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import pytest
import websockets.sync.client

import statehouse
from statehouse.compat import managers

from conftest import PATIENCE_S, Service, asgi, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[3]


def blocks(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def environment(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATEHOUSE_URL", service.url)
    monkeypatch.setenv("STATEHOUSE_TOKEN", service.token)


@pytest.mark.usefixtures("environment")
def test_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = blocks("README.md")
    exec(program, {})
    assert capsys.readouterr().out.count("visit 1") == 2
    with statehouse.connect() as c:
        assert c.dict("config")["web"] == {"ports": [80, 8443]}
        c.dicts.delete("config")
        c.areas.delete("counters")


def follow_until_the_dict_ends(c: statehouse.Client, follow: Callable[..., None]) -> None:
    d = c.dict("routes")
    d["web/a"] = 1
    d["db"] = 2
    routes: dict[str, int] = {}
    ready = threading.Event()
    ended: list[Exception] = []

    def run() -> None:
        try:
            follow(d, routes, ready)
        except statehouse.NotFound as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(PATIENCE_S) and routes == {"web/a": 1}
    d["web/b"] = 3
    del d["web/a"]
    wait_until(lambda: routes == {"web/b": 3}, "the change")
    c.dicts.delete("routes")
    thread.join(PATIENCE_S)
    assert len(ended) == 1


def mirror_until_the_area_ends(c: statehouse.Client, mirror: Callable[..., None]) -> None:
    area = c.area("mirrored", size=64)
    area.write(0, b"hello")
    copy = bytearray(32)
    ready = threading.Event()
    ended: list[Exception] = []

    def run() -> None:
        try:
            mirror(area, copy, ready)
        except statehouse.NotFound as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(PATIENCE_S) and copy == area.read(0, 32)
    area.write(4, b"y")
    wait_until(lambda: copy.startswith(b"helly"), "the change")
    c.areas.delete("mirrored")
    thread.join(PATIENCE_S)
    assert len(ended) == 1


def serve_scores(c: statehouse.Client, app: Any) -> None:
    area = c.area("scores", size=16)
    area.write(0, b"home 1:0 away   ")
    with asgi(app) as url, websockets.sync.client.connect(url) as browser:
        assert browser.recv(PATIENCE_S) == "home 1:0 away   "
        area.write(5, b"2")
        assert browser.recv(PATIENCE_S) == "home 2:0 away   "
    c.areas.delete("scores")


@pytest.mark.usefixtures("environment")
def test_the_guide_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    first, transfer, plan, batch, locks, ranges, presence, watch, *rest = blocks("docs/PYTHON.md")
    wait, mirror, websocket, recipe = rest
    exec(first, {})
    with statehouse.connect() as c:
        d = c.dict("config")
        assert d == {"web": {"ports": [80, 8443, 9000], "debug": False}, "visits": 1}
        d.update(anna=10, bela=0)
        names: dict[str, Any] = {"d": d, "statehouse": statehouse}
        exec(transfer, names)
        names["transfer"]("anna", "bela", 4)
        assert (d["anna"], d["bela"]) == (6, 4)
        d["stock"] = 1
        for compared, stock in ((False, 0), (True, 0)):
            exec(plan, names)
            assert names["outcome"].compared is compared and d["stock"] == stock
        c.dict("jobs")
        c.area("hits", size=8)
        capsys.readouterr()
        exec(batch, {"c": c})
        assert capsys.readouterr().out == "1 1\n" and c.dict("jobs")["queues"] == {"mail": ["job 1"]}
        c.dicts.delete("jobs")
        c.areas.delete("hits")
        exec(locks, {})
        assert d["release"] == "1.4" and not list(c.locks.list("deploy"))
        exec(ranges, {})
        assert c.area("board").read(4096, 4) == b"mine" and not list(c.locks.list("area/board/"))
        c.areas.delete("board")
        capsys.readouterr()
        exec(presence, {"statehouse": statehouse})
        assert capsys.readouterr().out.endswith("delete web/1 False\n")
        c.dicts.delete("services")
        exec(watch, names)
        follow_until_the_dict_ends(c, names["follow"])
        c.dicts.delete("config")
        waited = c.dict("waited", create=True)
        waited.update(config={"a": 1}, leader="me")
        exec(wait, names)
        config, leader, newer = names["wait_for_config"](waited)
        assert config == {"a": 1} and leader.value == "me" and newer.value == config
        c.dicts.delete("waited")
        exec(mirror, names)
        mirror_until_the_area_ends(c, names["mirror"])
        exec(websocket, names)
        serve_scores(c, names["app"])
    with tempfile.TemporaryDirectory(prefix="sh-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        address = re.search(r'get_shared_state\("([^"]+)", (\d+), b"([^"]+)"\)', recipe)
        assert address is not None
        with socket.socket() as probe:
            probe.bind((address[1], 0))
            port = probe.getsockname()[1]
        state = (address[1], port, address[3])
        try:
            exec(recipe.replace(address[2], str(port)), names)
            assert names["shared_dict"]["number"] == 1
        finally:
            managers.stop(*state)
