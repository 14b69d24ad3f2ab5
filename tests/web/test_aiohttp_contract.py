"""What fast_path.py relies on inside aiohttp 3.14, pinned: when this fails after an upgrade, read
that file again before touching the version."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler

GET = b"GET /a%2F..//b?c HTTP/1.1\r\nHost: h\r\nX: \xff\r\n\r\n"


class Transport(asyncio.Transport):
    """Swallows what is written."""

    def write(self, data: Any) -> None: ...

    def close(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return False


async def connection() -> RequestHandler:
    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response()

    server = web.Server(handler, access_log=None, auto_decompress=False)
    protocol = server()
    protocol.connection_made(Transport())
    await asyncio.sleep(0)
    return protocol


async def test_an_idle_connection_waits_for_its_waiter() -> None:
    protocol = await connection()
    waiter = protocol._waiter
    assert isinstance(waiter, asyncio.Future)
    assert not waiter.done()
    # With the waiter out of sight, what arrives is parsed and queued, and nobody is woken.
    protocol._waiter = None
    protocol.data_received(GET + GET[:10])
    assert not waiter.done()
    assert len(protocol._messages) == 1
    message, payload = protocol._messages[0]
    assert isinstance(message, RawRequestMessage)
    assert payload is EMPTY_PAYLOAD and payload.is_eof()
    assert message.path == "/a%2F..//b?c"
    assert message.headers["X"] == "\udcff"
    assert protocol._upgraded is False
    protocol._waiter = waiter
    protocol.force_close()
    assert waiter.cancelled()


async def test_a_body_that_has_arrived_is_at_its_end() -> None:
    protocol = await connection()
    waiter, protocol._waiter = protocol._waiter, None
    protocol.data_received(b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
    _, payload = protocol._messages[0]
    assert payload.is_eof() and not payload.at_eof()
    assert payload.read_nowait() == b"abc"
    assert payload.at_eof()
    protocol.data_received(b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab")
    _, payload = protocol._messages[1]
    assert not payload.is_eof()
    protocol._waiter = waiter
    protocol.force_close()


def test_names_that_are_used_are_there() -> None:
    slots = {name for kind in (RequestHandler, BaseProtocol) for name in kind.__slots__}
    used = "_waiter _messages _parser _manager _upgraded _close _force_close _keepalive_handle"
    assert set(used.split()) <= slots
    assert {"_keepalive_timeout", "_next_keepalive_close_time", "_loop"} <= slots
    assert hasattr(HttpRequestParser, "message_consumed")
    assert inspect.iscoroutinefunction(BaseProtocol._drain_helper)
    for name in ("_process_keepalive", "force_close", "handle_error", "shutdown"):
        assert callable(getattr(RequestHandler, name))
    loop_source = inspect.getsource(RequestHandler.start)
    assert "await self._waiter" in loop_source
    assert "self._messages.popleft()" in loop_source
