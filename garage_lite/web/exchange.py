"""One HTTP request as it came off the wire, with the connection to answer on.

Stands in for aiohttp's request object, of which only the parsed message, the body's stream and
the protocol are used: building the full one costs more than the rest of a small request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import StreamReader
from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDictProxy

if TYPE_CHECKING:
    from garage_lite.web.fast_path import S3Protocol


class Exchange:
    """`writer`, `_task`, `_finish` and `_cancel` are there for aiohttp's own loop."""

    __slots__ = ("_task", "continued", "headers", "message", "method", "payload", "protocol")

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: S3Protocol,
        writer: object = None,
        task: asyncio.Task[None] | None = None,
    ) -> None:
        self.message = message
        self.method: str = message.method
        self.headers: CIMultiDictProxy[str] = message.headers
        self.payload = payload
        self.protocol = protocol
        self.continued = False
        """Whether the client was told to go on and send the body."""
        self._task = task

    @property
    def target(self) -> str:
        return self.message.path

    @property
    def expects_continue(self) -> bool:
        return (
            self.message.version >= (1, 1)
            and (self.headers.get("Expect") or "").lower() == "100-continue"
        )

    def go_on(self) -> None:
        """Answer 100 Continue, once, if the client waits for it: not where the body is here."""
        if self.continued or self.payload.is_eof() or not self.expects_continue:
            return
        transport = self.protocol.transport
        if transport is not None:
            self.continued = True
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def may_keep_alive(self) -> bool:
        """Whether the connection may serve another request after this one.

        Not where a client waits for a 100 Continue that never came: it may or may not send the
        body now.
        """
        if self.message.should_close or self.message.version < (1, 1):
            return False
        return self.continued or self.payload.is_eof() or not self.expects_continue

    def _finish(self) -> None:
        """Called by aiohttp when the handler has returned."""

    def _cancel(self, error: BaseException) -> None:
        """Called by aiohttp when the client has gone: the body will not come."""
        if not self.payload.is_eof():
            self.payload.set_exception(error)


class Answered:
    """What the handler hands to aiohttp: the answer is on the wire already."""

    __slots__ = ("keep_alive",)

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, request: Any) -> None:
        """Nothing is left to prepare."""

    async def write_eof(self) -> None:
        """Nothing is left to write."""
