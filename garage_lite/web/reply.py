"""Answers and how they reach the wire.

A `Reply` is a status, headers, and a body that is bytes or a stream of known length. It is
written straight to the transport: one write for a small answer. Must not know S3.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Protocol

from garage_lite.core.errors import InvariantBroken
from garage_lite.core.store.reading import ByteStream

STALL_SECONDS_MAX: Final = 300
"""A client that takes in none of a full buffer for so long is let go."""
_JOIN_BYTES_MAX: Final = 65_536
"""Up to here copying the body costs less than a second write."""
_NO_BODY: Final = frozenset([204, 304])
_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus
}
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(slots=True)
class Reply:
    """An answer; `stream`, where there is one, takes the place of `body`."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    stream: ByteStream | None = None
    length: int | None = None
    """Content-Length where it is not that of `body`: of a stream, or of what HEAD leaves out."""
    error_code: str = ""
    """For the log."""
    close: bool = False
    """Whether the connection must end after this answer."""


class Connection(Protocol):
    """What is used of the protocol behind a request."""

    @property
    def transport(self) -> asyncio.Transport | None: ...
    @property
    def writing_paused(self) -> bool: ...
    async def _drain_helper(self) -> None: ...


def head_of(reply: Reply, *, keep_alive: bool, common: str) -> bytes:
    """Status line and headers. `common` are whole lines that every answer carries.

    Control characters can't come in with a header, and would forge headers if they went out:
    they become spaces.
    """
    headers = reply.headers
    if not "".join([value for _, value in headers]).isprintable():
        headers = [(name, _UNSAFE.sub(" ", value)) for name, value in headers]
    lines = [_STATUS_LINES[reply.status], common]
    lines += [f"{name}: {value}\r\n" for name, value in headers]
    if reply.status not in _NO_BODY:
        length = len(reply.body) if reply.length is None else reply.length
        lines.append(f"Content-Length: {length}\r\n")
    lines.append("\r\n" if keep_alive else "Connection: close\r\n\r\n")
    return "".join(lines).encode("utf-8", "replace")


async def send(
    connection: Connection, reply: Reply, *, keep_alive: bool, common: str, with_body: bool
) -> int:
    """Write an answer; the number of body bytes that went out.

    Raises ConnectionError when the client has gone. A stream that fails midway aborts the
    connection, so that nobody takes half an object for a whole one; its error is raised.
    """
    head = head_of(reply, keep_alive=keep_alive, common=common)
    transport = connection.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has gone")
    if not with_body or reply.status in _NO_BODY:
        transport.write(head)
        return 0
    if reply.stream is None:
        if len(reply.body) < _JOIN_BYTES_MAX:
            transport.write(head + reply.body)
        else:
            transport.write(head)
            transport.write(reply.body)
        await drain(connection)
        return len(reply.body)
    return await _send_stream(connection, transport, head, reply)


async def _send_stream(
    connection: Connection, transport: asyncio.Transport, head: bytes, reply: Reply
) -> int:
    assert reply.stream is not None
    sent = 0
    try:
        transport.write(head)
        async with aclosing(reply.stream) as stream:
            async for chunk in stream:
                transport.write(chunk)
                sent += len(chunk)
                await drain(connection)
        if sent != reply.length:
            raise InvariantBroken(f"sent {sent} bytes of {reply.length}")
    except BaseException:
        transport.abort()
        raise
    return sent


async def drain(connection: Connection) -> None:
    """Wait until the client has taken in most of what was written.

    Raises ConnectionError when it has gone, or takes nothing in.
    """
    if not connection.writing_paused and connection.transport is not None:
        return
    try:
        async with asyncio.timeout(STALL_SECONDS_MAX):
            await connection._drain_helper()
    except TimeoutError as error:
        raise ConnectionResetError("the client takes nothing in") from error
