"""The S3 endpoint as a whole: listen, serve, drain, stop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import http_parser

from garage_lite.core.errors import ConfigError, StartupError
from garage_lite.core.limits import HEADER_BYTES_MAX, KIB
from garage_lite.web.fast_path import S3WebServer
from garage_lite.web.middleware import Endpoint
from garage_lite.web.s3.context import S3Context

KEEPALIVE_SECONDS: Final = 120
LINGER_SECONDS: Final = 5
"""How long the rest of a refused body is read, so that the client gets to see the answer."""
HEADERS_MAX: Final = 100
BACKLOG: Final = 512
READ_BUFFER_BYTES: Final = 64 * KIB
_AIOHTTP: Final = (3, 14)
_CANCEL_SECONDS: Final = 0.1
"""For what is left to notice that it is broken off."""


def check_aiohttp() -> None:
    """That HTTP is parsed by aiohttp's C parser (the other one has been smuggled past) and that
    aiohttp is the release whose inside `fast_path.py` knows. Raises StartupError."""
    if http_parser.HttpRequestParser.__module__ != "aiohttp._http_parser":
        raise StartupError("aiohttp came without its C parser; refusing to serve with the other.")
    version = tuple(int(part) for part in aiohttp.__version__.split(".")[:2])
    if version != _AIOHTTP:
        raise StartupError(f"aiohttp {aiohttp.__version__} is not the release this was made for.")


class S3Server:
    """A running endpoint; made by `serve_s3`."""

    def __init__(
        self, endpoint: Endpoint, web_server: S3WebServer, listeners: list[asyncio.Server]
    ) -> None:
        self._endpoint = endpoint
        self._web_server = web_server
        self._listeners = listeners

    @property
    def ports(self) -> list[int]:
        """The TCP ports listened on, in the order of the addresses."""
        names = [
            listened.getsockname() for server in self._listeners for listened in server.sockets
        ]
        return [name[1] for name in names if isinstance(name, tuple)]

    @property
    def in_flight(self) -> int:
        """Requests being served."""
        return self._endpoint.in_flight

    async def stop(self, drain_seconds: float) -> None:
        """Take no more connections, let requests end, break off what is left at the deadline."""
        self._endpoint.draining = True
        for listener in self._listeners:
            listener.close()
        self._web_server.pre_shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(drain_seconds):
                await self._endpoint.wait_idle()
        await self._web_server.shutdown(_CANCEL_SECONDS)


async def serve_s3(
    context: S3Context, addresses: Sequence[str], *, unix_mode: int | None = None
) -> S3Server:
    """Listen on every address: `host:port`, `[v6]:port` (`[::]` is IPv4 too) or a socket's path.

    Raises StartupError, ConfigError, OSError where an address can't be had.
    """
    check_aiohttp()
    endpoint = Endpoint(context)
    web_server = S3WebServer(
        endpoint,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=KEEPALIVE_SECONDS,
        lingering_time=LINGER_SECONDS,
        max_line_size=HEADER_BYTES_MAX,
        max_field_size=HEADER_BYTES_MAX,
        max_headers=HEADERS_MAX,
        read_bufsize=READ_BUFFER_BYTES,
    )
    listeners: list[asyncio.Server] = []
    try:
        for address in addresses:
            listener = await _listen(web_server, address)
            listeners.append(listener)
            if unix_mode is not None and address.startswith("/"):
                await asyncio.to_thread(Path(address).chmod, unix_mode)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return S3Server(endpoint, web_server, listeners)


async def _listen(web_server: S3WebServer, address: str) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    if address.startswith("/"):
        return await loop.create_unix_server(web_server, address, backlog=BACKLOG)
    host, port = split_address(address)
    return await loop.create_server(
        web_server, None if host == "::" else host, port, backlog=BACKLOG
    )


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port`. Raises ConfigError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ConfigError(f"{address!r} is not an address of the form host:port.")
    return host.removeprefix("[").removesuffix("]"), int(port)
