"""Areas over WebSockets: real ASGI and WSGI servers, real clients."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import simple_websocket
import websockets.exceptions
import websockets.sync.client
from werkzeug.serving import make_server

import statehouse
import statehouse.aio
from statehouse import errors
from statehouse.websocket import area_websocket_app, send_area, send_area_blocking

from conftest import DOORS_OF_ASYNCIO, PATIENCE_S, Service, asgi, wait_until


@pytest.fixture(params=DOORS_OF_ASYNCIO)
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def connect(url: str, **options: Any) -> Any:
    return websockets.sync.client.connect(url, open_timeout=PATIENCE_S, **options)


def code_of_close(browser: Any) -> int:
    with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
        while True:
            browser.recv(PATIENCE_S)
    assert closed.value.rcvd is not None
    return int(closed.value.rcvd.code)


def app_of(service: Service, door: str, name: str, **options: Any) -> Any:
    return area_websocket_app(
        statehouse.aio.connect(service.url, token=service.token, transport=door), name, **options
    )


def test_the_range_is_sent_now_and_whenever_it_changed(service: Service, door: str, area: statehouse.Area) -> None:
    area.write(4, b"hello")
    with asgi(app_of(service, door, area.name, pos=4, len=5)) as url:
        with connect(url) as browser, connect(url) as another:
            assert browser.recv(PATIENCE_S) == another.recv(PATIENCE_S) == "hello"
            area.write(4, b"J")
            assert browser.recv(PATIENCE_S) == another.recv(PATIENCE_S) == "Jello"
            browser.send("what the client says is dropped")
            area.write(100, b"beside it")
            area.write(8, b"y")
            assert browser.recv(PATIENCE_S) == "Jelly"


def test_bytes_as_they_are(service: Service, door: str, area: statehouse.Area) -> None:
    area.write(0, b"\xff\x00\xfe")
    with asgi(app_of(service, door, area.name, len=3, binary=True)) as url, connect(url) as browser:
        assert browser.recv(PATIENCE_S) == b"\xff\x00\xfe"


def test_half_a_letter(service: Service, door: str, area: statehouse.Area) -> None:
    area.write(0, "aé".encode())
    with asgi(app_of(service, door, area.name, len=2)) as url, connect(url) as browser:
        assert code_of_close(browser) == 1007
    app = app_of(service, door, area.name, len=2, text_errors="replace")
    with asgi(app) as url, connect(url) as browser:
        assert browser.recv(PATIENCE_S) == "a\ufffd"


def test_a_deleted_or_missing_area_closes(service: Service, door: str, client: statehouse.Client, area_name: str) -> None:
    client.area(area_name, size=16)
    with asgi(app_of(service, door, area_name)) as url:
        with connect(url) as browser:
            browser.recv(PATIENCE_S)
            client.areas.delete(area_name)
            assert code_of_close(browser) == 1001
        with connect(url) as browser:
            assert code_of_close(browser) == 1008
    client.area(area_name, size=16)
    with asgi(app_of(service, door, area_name, pos=16)) as url, connect(url) as browser:
        assert code_of_close(browser) == 1008
    client.areas.delete(area_name)


@pytest.mark.parametrize(
    ("options", "origin", "is_let_in"),
    [
        ({}, None, True),
        ({}, "own", True),
        ({}, "http://example.org", False),
        ({"origins": ["http://example.org"]}, "http://example.org", True),
        ({"origins": ["http://example.org"]}, "own", False),
        ({"allow": lambda scope: scope["path"] == "/other"}, None, False),
    ],
)
def test_who_is_let_in(
    service: Service, area_name: str, options: dict[str, Any], origin: str | None, is_let_in: bool
) -> None:
    with service.connect("network") as client:
        client.area(area_name, size=16)
        with asgi(app_of(service, "network", area_name, **options)) as url:
            sent = url.replace("ws:", "http:").rstrip("/") if origin == "own" else origin
            if is_let_in:
                with connect(url, origin=sent) as browser:
                    assert browser.recv(PATIENCE_S) == "\0" * 16
            else:
                with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
                    connect(url, origin=sent)
                assert refused.value.response.status_code == 403
        client.areas.delete(area_name)


def test_a_client_that_goes_ends_its_watch(service: Service, door: str, area: statehouse.Area) -> None:
    ends: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            raise RuntimeError("no lifespan here")
        await receive()
        await send({"type": "websocket.accept"})
        async with statehouse.aio.connect(service.url, token=service.token, transport=door) as client:
            ends.append(await send_area(send, await client.area(area.name), 0, 4, receive=receive))

    with asgi(app) as url:
        with connect(url) as browser:
            browser.recv(PATIENCE_S)
        wait_until(lambda: ends, "the end of the sender")
    assert ends == ["disconnect"]


def test_a_send_that_fails_ends_it_without_receive(service: Service, door: str, area: statehouse.Area) -> None:
    async def run() -> str:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) > 1:
                raise ConnectionResetError
            area.write(0, b"x")

        async with statehouse.aio.connect(service.url, token=service.token, transport=door) as client:
            end = await send_area(send, await client.area(area.name), 0, 4)
        assert sent[0] == {"type": "websocket.send", "text": "\0" * 4}
        return end

    assert asyncio.run(run()) == "disconnect"


def test_what_no_service_would_take_is_refused(area: statehouse.Area) -> None:
    with pytest.raises(errors.InvalidArgument, match="text_errors"):
        area_websocket_app(None, "a", text_errors="ignore")
    with pytest.raises(errors.OutOfBounds, match="pos 4096"):
        send_area_blocking(None, area, 4096)


@contextlib.contextmanager
def wsgi(app: Any) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join(PATIENCE_S)
        server.server_close()
        assert not thread.is_alive()


def test_wsgi(service: Service, door: str, area: statehouse.Area) -> None:
    ends: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        websocket = simple_websocket.Server.accept(environ)
        with contextlib.suppress(simple_websocket.ConnectionClosed):
            ends.append(send_area_blocking(websocket, area, 0, 5, binary=environ["PATH_INFO"] == "/bytes"))
            websocket.close()
        return []

    area.write(0, b"hello")
    with wsgi(app) as url:
        with connect(url) as browser:
            assert browser.recv(PATIENCE_S) == "hello"
            area.write(0, b"J")
            assert browser.recv(PATIENCE_S) == "Jello"
        with connect(url + "bytes") as browser:
            assert browser.recv(PATIENCE_S) == b"Jello"
        wait_until(lambda: len(ends) == 2, "the end of both senders")
    assert ends == ["disconnect", "disconnect"]


def test_wsgi_ends_with_the_area(client: statehouse.Client, area_name: str) -> None:
    class Socket:
        """As gevent-websocket's."""

        closed = False
        sent: list[Any] = []

        def send(self, message: Any) -> None:
            self.sent.append(message)
            client.areas.delete(area_name)

    area = client.area(area_name, size=2)
    assert send_area_blocking(Socket(), area) == "deleted"
    assert Socket.sent == ["\0\0"]
    area = client.area(area_name, size=2)
    area.write(0, b"\xff")
    with pytest.raises(UnicodeDecodeError):
        send_area_blocking(Socket(), area)
    client.areas.delete(area_name)
