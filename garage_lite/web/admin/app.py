"""The admin port: status page, health, and the Admin API v2 behind a bearer token.

    GET  /               the status page, for anybody
    GET  /health         200 or 503 and a sentence, for load balancers
    *    /v2/<Operation> JSON, for who has the admin token

Everything a request can make grow is bounded: headers, body, time, connections. Must not know
what the operations do.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from garage_lite.core.limits import HEADER_BYTES_MAX, KIB, MIB
from garage_lite.web.admin.cluster import health
from garage_lite.web.admin.context import AdminContext
from garage_lite.web.admin.errors import AdminError, bad_request
from garage_lite.web.admin.operations import BodyForm, Operation, call, operation
from garage_lite.web.admin.page import CONTENT_SECURITY_POLICY, status_page
from garage_lite.web.app import check_aiohttp, split_address

log = logging.getLogger(__name__)

BODY_BYTES_MAX: Final = MIB
"""A layout change of 256 nodes with all their tags fits."""
BODY_SECONDS_MAX: Final = 30
HEADER_SECONDS_MAX: Final = 20
"""From the opening of a connection, or the first idle moment after a request's keep-alive."""
KEEPALIVE_SECONDS: Final = 60
CONNECTIONS_MAX: Final = 256
HEADERS_MAX: Final = 100
QUERY_FIELDS_MAX: Final = 16
STOP_SECONDS: Final = 5.0
UNIX_SOCKET_MODE: Final = 0o220
"""Garage's: whoever may write to the socket may connect."""

_HEALTH_TEXT: Final = {
    "healthy": "Garage Lite is fully operational",
    "degraded": "Garage Lite is operational but some storage nodes are unavailable",
    "unavailable": "Quorum is not available for some/all partitions, reads and writes will fail",
}
_COMMON: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Server": "garage-lite",
}
_CORS: Final = {"Access-Control-Allow-Origin": "*"}
"""As Garage: a page elsewhere may call the API, but only with the token in its hand."""
_PREFLIGHT: Final = {
    **_CORS,
    "Allow": "OPTIONS,GET,POST",
    "Access-Control-Allow-Methods": "OPTIONS,GET,POST",
    "Access-Control-Allow-Headers": "authorization,content-type",
}


class _Connection(RequestHandler):
    """One connection, that ends when it sends no whole request in time."""

    __slots__ = ("_deadline", "_server")

    def __init__(self, manager: web.Server, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._server = manager
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.expect_request(HEADER_SECONDS_MAX)
        if len(self._server.connections) > CONNECTIONS_MAX:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.request_arrived()
        super().connection_lost(exc)

    def expect_request(self, seconds: float) -> None:
        if self.transport is not None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self.force_close)

    def request_arrived(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _WebServer(web.Server):
    """aiohttp's low-level server, making our connections."""

    def __call__(self) -> RequestHandler:
        return _Connection(
            self,
            loop=self._loop,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=1,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            max_headers=HEADERS_MAX,
            read_bufsize=64 * KIB,
        )


class AdminServer:
    """A running admin port; made by `serve_admin`."""

    def __init__(self, web_server: web.Server, listener: asyncio.Server) -> None:
        self._web_server = web_server
        self._listener = listener

    @property
    def port(self) -> int:
        """The TCP port listened on."""
        name = self._listener.sockets[0].getsockname()
        return int(name[1])

    async def stop(self) -> None:
        """Take no more connections; requests under way get STOP_SECONDS to end."""
        self._listener.close()
        self._web_server.pre_shutdown()
        await self._web_server.shutdown(STOP_SECONDS)


async def serve_admin(
    context: AdminContext, address: str, admin_token: str | None = None
) -> AdminServer:
    """Listen on `host:port`, `[v6]:port` (`[::]` is IPv4 too) or a socket's path.

    Without a token the API answers nobody. Raises StartupError, ConfigError, OSError.
    """
    check_aiohttp()
    web_server = _WebServer(AdminEndpoint(context, admin_token).serve)
    loop = asyncio.get_running_loop()
    if address.startswith("/"):
        listener = await loop.create_unix_server(web_server, address)
        await asyncio.to_thread(Path(address).chmod, UNIX_SOCKET_MODE)
    else:
        host, port = split_address(address)
        listener = await loop.create_server(web_server, None if host == "::" else host, port)
    return AdminServer(web_server, listener)


class AdminEndpoint:
    """Answers the requests of one admin port."""

    def __init__(self, context: AdminContext, admin_token: str | None) -> None:
        self._context = context
        self._token_digest = None if admin_token is None else _digest(admin_token.strip())

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        if isinstance(connection, _Connection):
            connection.request_arrived()
        try:
            return await self._answer(request)
        finally:
            if isinstance(connection, _Connection):
                connection.expect_request(KEEPALIVE_SECONDS + HEADER_SECONDS_MAX)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._route(request)
        except AdminError as error:
            return self._error(request, error)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            told = AdminError("InternalError", "An internal error; the node's log says more.")
            return self._error(request, told)

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "OPTIONS":
            return web.Response(headers={**_COMMON, **_PREFLIGHT})
        path = request.path
        if path in ("/", "/health"):
            if request.method not in ("GET", "HEAD"):
                raise AdminError("MethodNotAllowed", f"{path} answers GET only.")
            return await self._page() if path == "/" else self._health()
        if path.startswith("/v2/"):
            self._authorize(request)
            return await self._operation(request, path.removeprefix("/v2/"))
        raise AdminError("NoSuchEndpoint", "There is nothing at this path.")

    async def _page(self) -> web.Response:
        headers = {
            **_COMMON,
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "X-Frame-Options": "DENY",
        }
        text = await status_page(self._context)
        return web.Response(text=text, content_type="text/html", headers=headers)

    def _health(self) -> web.Response:
        status = health(self._context).status
        text = (
            f"{_HEALTH_TEXT[status]}\nConsult the full health check API endpoint at"
            " /v2/GetClusterHealth for more details\n"
        )
        code = 503 if status == "unavailable" else 200
        return web.Response(status=code, text=text, headers=_COMMON)

    def _authorize(self, request: web.BaseRequest) -> None:
        """Raises AdminError. Takes as long for a wrong token as for the right one."""
        header = request.headers.get("Authorization")
        if header is None:
            raise AdminError(
                "AccessDenied", "Bearer token must be provided in Authorization header"
            )
        if not header.startswith("Bearer "):
            raise AdminError("AccessDenied", "Invalid Authorization header")
        given = _digest(header.removeprefix("Bearer "))
        if self._token_digest is None or not hmac.compare_digest(given, self._token_digest):
            raise AdminError("AccessDenied", "Invalid bearer token")

    async def _operation(self, request: web.BaseRequest, name: str) -> web.Response:
        wanted = operation(name)
        if request.method != wanted.method:
            raise AdminError("MethodNotAllowed", f"{name} answers {wanted.method} only.")
        parameters: Any = _query(request, wanted)
        if wanted.body is not BodyForm.NONE:
            body = _parsed(await _read_body(request))
            parameters = {**parameters, "body": body} if wanted.body is BodyForm.MEMBER else body
        answer = await call(self._context, name, parameters)
        return _json(answer, 200)

    def _error(self, request: web.BaseRequest, error: AdminError) -> web.Response:
        told = {
            "code": error.code,
            "message": error.message,
            "region": self._context.facts.region,
            "path": request.path,
        }
        response = _json(told, error.status)
        if not request.content.is_eof():
            response.force_close()  # who has not sent all may be about to send it for ever
        return response


def _json(value: Any, status: int) -> web.Response:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    headers = {**_COMMON, **_CORS}
    return web.Response(status=status, text=text, content_type="application/json", headers=headers)


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def _query(request: web.BaseRequest, wanted: Operation) -> Mapping[str, Any]:
    """The members in the URL. Raises AdminError."""
    try:
        pairs = parse_qsl(
            request.rel_url.raw_query_string,
            keep_blank_values=True,
            errors="strict",
            max_num_fields=QUERY_FIELDS_MAX,
        )
    except ValueError as error:
        raise bad_request(f"the query can't be read: {error}") from error
    found = dict(pairs)
    if len(found) < len(pairs):
        raise bad_request("a field appears twice in the query")
    unknown = sorted(set(found) - set(wanted.query))
    if unknown:
        raise bad_request(f"the query has unknown fields: {', '.join(unknown)[:200]}")
    return found


async def _read_body(request: web.BaseRequest) -> bytes:
    """Raises AdminError where it is too long or too slow."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    raise bad_request(f"the body is longer than {BODY_BYTES_MAX} bytes")
    except TimeoutError as error:
        raise bad_request("the body did not arrive in time") from error
    return bytes(body)


def _parsed(body: bytes) -> Any:
    """The body's JSON; null for an empty one. Raises AdminError."""
    if not body.strip():
        return None
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the body is no valid JSON: {error}") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
