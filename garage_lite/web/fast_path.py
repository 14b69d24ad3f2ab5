"""aiohttp's connection handler, with a shorter way for requests that have wholly arrived.

aiohttp parses, bounds and queues; requests whose body is still on its way take its own road: a
loop per connection, a task and a response object per request. One that is already complete, on a
connection that is idle, needs none of that: it gets one task and is answered on the transport.
Both ways end in the same `Endpoint.serve`, so they can't differ in meaning.

This relies on names that aiohttp does not promise (`_waiter`, `_messages`, `_parser`,
`_process_keepalive`); tests/web/test_aiohttp_contract.py pins what is expected of them.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from garage_lite.web.exchange import Answered, Exchange
from garage_lite.web.middleware import Endpoint
from garage_lite.web.reply import head_of
from garage_lite.web.s3.errors import S3Error

HEADER_SECONDS_MAX: Final = 20
"""From the first byte of a request to the end of its headers."""


class S3Protocol(RequestHandler):
    """One connection."""

    __slots__ = ("_direct", "_endpoint", "_header_timer", "_held")

    def __init__(self, manager: web.Server, endpoint: Endpoint, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._endpoint = endpoint
        self._direct: asyncio.Task[None] | None = None
        self._held: asyncio.Future[None] | None = None
        """What aiohttp's loop waits for, hidden from it while a direct request is served."""
        self._header_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done() or self._messages:
            super().data_received(data)
            return
        # Hide the waiter, so that aiohttp queues what it parses and wakes nobody.
        self._waiter = None
        try:
            super().data_received(data)
        finally:
            if not waiter.done():
                self._waiter = waiter
        if not self._messages:
            self._await_headers()
            return
        self._headers_arrived()
        message, payload = self._messages[0]
        if (
            len(self._messages) == 1
            and isinstance(message, RawRequestMessage)
            and payload.is_eof()
            and not self._upgraded
            and not (self._close or self._force_close)
        ):
            self._messages.popleft()
            self._serve_directly(Exchange(message, payload, self))
        elif self._waiter is not None:
            self._waiter.set_result(None)

    def _serve_directly(self, exchange: Exchange) -> None:
        assert self._parser is not None and self._manager is not None
        self._parser.message_consumed()
        self._manager.requests_count += 1
        self._held, self._waiter = self._waiter, None
        self._direct = self._loop.create_task(self._serve(exchange))

    async def _serve(self, exchange: Exchange) -> None:
        keep_alive = False
        try:
            keep_alive = (await self._endpoint.serve(exchange)).keep_alive
        finally:
            self._direct = None
            self._waiter, self._held = self._held, None
            if self._close or self._force_close or not keep_alive:
                self.force_close()
            else:
                self._go_on()

    def _go_on(self) -> None:
        """Wait for the next request, or let aiohttp serve those that came meanwhile."""
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(
                self._next_keepalive_close_time, self._process_keepalive
            )
        if self._messages and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _await_headers(self) -> None:
        if self._header_timer is None:
            self._header_timer = self._loop.call_later(HEADER_SECONDS_MAX, self._headers_late)

    def _headers_arrived(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _headers_late(self) -> None:
        self._header_timer = None
        if self._waiter is not None and not self._waiter.done():
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._headers_arrived()
        direct = self._direct
        super().connection_lost(exc)
        if direct is not None:
            direct.cancel()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109
        """Let a request that is being served end, for `timeout` seconds at most."""
        self._close = True
        if self._direct is not None:
            await asyncio.wait([self._direct], timeout=timeout)
        await super().shutdown(timeout)

    def handle_error(
        self,
        request: Any,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> Any:
        """What could not even be parsed is told so, and the connection ends."""
        exchange: Exchange = request
        request_id = "0" * 16
        error = S3Error("BadRequest", "An error occurred when parsing the HTTP request.")
        reply = self._endpoint.error_reply(error, None, exchange, request_id)
        head = head_of(reply, keep_alive=False, common=self._endpoint.common_headers(request_id))
        if self.transport is not None:
            self.transport.write(head + reply.body)
        return Answered(False)


class S3WebServer(web.Server):
    """aiohttp's low-level server, making our connections."""

    def __init__(self, endpoint: Endpoint, **settings: Any) -> None:
        self._endpoint = endpoint
        self._settings = settings
        super().__init__(
            endpoint.serve,  # type: ignore[arg-type]
            request_factory=Exchange,  # type: ignore[arg-type]
            handler_cancellation=True,
        )

    def __call__(self) -> RequestHandler:
        return S3Protocol(self, self._endpoint, loop=self._loop, **self._settings)
