"""A range of an area to a browser: a WebSocket message whenever it changed, for ASGI and WSGI servers.

    import statehouse.aio
    from statehouse.websocket import area_websocket_app

    app = area_websocket_app(statehouse.aio.connect(), "scores", pos=0, len=64)     # uvicorn module:app

``send_area`` is for an ASGI application of one's own, ``send_area_blocking`` for servers whose WSGI environment has a WebSocket object
(``simple_websocket``, gevent-websocket's ``wsgi.websocket``). Each message is the whole range, as uWSGI's websocket_send_from_sharedarea
sends it: the newest bytes, in one message for all that changed since the last one. A client that reads slowly gets fewer messages.

Text must be UTF-8. A range that begins or ends inside a letter, or that a writer is changing byte by byte, is none: with
``text_errors="strict"`` that is a UnicodeDecodeError (``area_websocket_app`` closes with the code 1007), with "replace" U+FFFD stands for
what is no letter. Bytes of zero are letters, too; ``binary=True`` sends any bytes as they are.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from . import errors
from ._area_watch import AreaEvent
from .types import Area, AsyncArea

__all__ = ["area_websocket_app", "send_area", "send_area_blocking"]

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
_GOING_AWAY = 1001
_INVALID_TEXT = 1007
_INTERNAL_ERROR = 1011
_POLICY_VIOLATION = 1008
_LOOK_S = 1.0  # How often a blocking sender looks whether its client is still there.


class _Range:
    """The bytes of a watched range, kept up to date by its events."""

    def __init__(self, area: Any, pos: int, len: int | None) -> None:
        self._pos = pos
        self._bytes = bytearray(area.size - pos if len is None else len)
        self._is_new = True

    def take(self, event: AreaEvent) -> bool:
        """Whether there is something to send: everything that belongs together was told."""
        if event.data is not None:
            begin = event.pos - self._pos
            self._bytes[begin : begin + event.len] = event.data
            self._is_new = True
        if event.more or not self._is_new or event.kind not in ("change", "synced"):
            return False
        self._is_new = False
        return True

    def message(self, binary: bool, text_errors: str) -> bytes | str:
        return bytes(self._bytes) if binary else self._bytes.decode("utf-8", text_errors)


def _check_text_errors(text_errors: str) -> None:
    if text_errors not in ("strict", "replace"):
        raise errors.by_name("INVALID_ARGUMENT", f"text_errors is {text_errors!r}; use strict or replace", "")


async def send_area(
    send: Send,
    area: AsyncArea,
    pos: int = 0,
    len: int | None = None,
    *,
    receive: Receive | None = None,
    binary: bool = False,
    window: Any = 0.01,
    text_errors: str = "strict",
) -> str:
    """Sends the range now and whenever it changed, over an accepted ASGI WebSocket, until that or the area ends.

    ``send`` and ``receive`` are those of the ASGI application. With ``receive`` it reads (and drops) what the client sends, and ends as
    soon as the client is gone; without, it ends when a message cannot be sent. ``len`` None: to the end of the area. ``window``: at
    most one message in so many seconds, 0 to 0.01.

    Returns "disconnect" (the client is gone) or "deleted" (the area is). Errors: OutOfBounds, InvalidArgument, UnicodeDecodeError (see
    ``text_errors``), and those of ``AreaWatch``.
    """
    _check_text_errors(text_errors)
    watch = area.watch(pos, len, window=window)
    held = _Range(area, pos, len)

    async def forward() -> str:
        try:
            async for event in watch:
                if not held.take(event):
                    continue
                message = held.message(binary, text_errors)
                await send({"type": "websocket.send", "bytes" if binary else "text": message})
        except errors.NotFound:
            return "deleted"
        except OSError:  # The server's way to say that the client is gone.
            return "disconnect"
        return "disconnect"

    async def listen(receive: Receive) -> str:
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return "disconnect"

    tasks = {asyncio.ensure_future(forward())}
    if receive is not None:
        tasks.add(asyncio.ensure_future(listen(receive)))
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await watch.close()


def area_websocket_app(
    client: Any,
    name: str,
    pos: int = 0,
    len: int | None = None,
    *,
    binary: bool = False,
    window: Any = 0.01,
    text_errors: str = "strict",
    origins: Collection[str] | None = None,
    allow: Callable[[Message], Any] | None = None,
) -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """An ASGI application whose WebSockets get the range of the area ``name``.

    ``client``: a statehouse.aio.AsyncClient of the server's loop, or what gives one when it is awaited, as statehouse.aio.connect() does:
    then the first WebSocket connects, and the server's shutdown closes it. ``origins``: the Origins whose pages may connect ("https://example.org");
    unless given, those of the host that is asked itself. A request without an Origin comes from no page and is let in. ``allow(scope)``,
    which may be a coroutine function, decides in addition. What is refused gets 403.

    Codes of closing: 1001 the area was deleted, 1007 the range is no UTF-8 (``text_errors="strict"``), 1008 no such area or not allowed to
    read it, 1011 anything else. Other requests than WebSockets get 426. Errors: InvalidArgument.
    """
    _check_text_errors(text_errors)
    connected: list[Any] = []  # The client, once it is there.
    connecting = asyncio.Lock()

    async def get_client() -> Any:
        async with connecting:
            if not connected:
                connected.append(await client if inspect.isawaitable(client) else client)
            return connected[0]

    async def is_allowed(scope: Message) -> bool:
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        origin = headers.get("origin")
        if origin is not None:
            same_host = urlsplit(origin).netloc == headers.get("host")
            if origin not in origins if origins is not None else not same_host:
                return False
        if allow is None:
            return True
        verdict = allow(scope)
        return bool(await verdict if inspect.isawaitable(verdict) else verdict)

    async def serve(scope: Message, receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        if not await is_allowed(scope):
            return await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        await send({"type": "websocket.accept"})
        try:
            area = await (await get_client()).area(name)
            end = await send_area(
                send,
                area,
                pos,
                len,
                receive=receive,
                binary=binary,
                window=window,
                text_errors=text_errors,
            )
            code = _GOING_AWAY
        except UnicodeDecodeError:
            end, code = "text", _INVALID_TEXT
        except (errors.NotFound, errors.PermissionDenied, errors.OutOfBounds):
            end, code = "refused", _POLICY_VIOLATION
        except errors.Error:
            end, code = "failed", _INTERNAL_ERROR
        if end != "disconnect":
            await send({"type": "websocket.close", "code": code})

    async def live(receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            if kind == "lifespan.shutdown" and connected and inspect.isawaitable(client):
                await connected[0].close()
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            return await serve(scope, receive, send)
        if scope["type"] == "lifespan":
            return await live(receive, send)
        headers = [(b"upgrade", b"websocket"), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 426, "headers": headers})
        await send({"type": "http.response.body", "body": b"This is a WebSocket.\n"})

    return app


def _is_open(websocket: Any) -> bool:
    """As simple-websocket (connected) and gevent-websocket (closed) tell it."""
    return bool(getattr(websocket, "connected", not getattr(websocket, "closed", False)))


def send_area_blocking(
    websocket: Any,
    area: Area,
    pos: int = 0,
    len: int | None = None,
    *,
    binary: bool = False,
    window: Any = 0.01,
    text_errors: str = "strict",
    is_open: Callable[[], bool] | None = None,
) -> str:
    """Sends the range now and whenever it changed, as ``websocket.send(str or bytes)``, until the client or the area is gone.

    For WSGI: simple_websocket.Server, or gevent-websocket's ``environ["wsgi.websocket"]``. ``is_open()`` tells whether the client is there;
    unless given, the object's ``connected`` or ``closed`` does. It is asked every second, so a client that leaves costs a thread no longer.
    The rest is as for ``send_area``: returns "disconnect" or "deleted".
    """
    _check_text_errors(text_errors)
    held = _Range(area, pos, len)
    is_there = is_open if is_open is not None else lambda: _is_open(websocket)
    with area.watch(pos, len, window=window) as watch:
        while is_there():
            try:
                event = watch.next(_LOOK_S)
            except errors.NotFound:
                return "deleted"
            if event is None or not held.take(event):
                continue
            message = held.message(binary, text_errors)
            try:
                websocket.send(message)
            except Exception:
                if is_there():
                    raise
                return "disconnect"
    return "disconnect"
