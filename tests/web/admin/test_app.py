"""The admin port over HTTP: who gets what, and what a hostile client can't do."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from garage_lite.web.admin import app
from garage_lite.web.admin.app import AdminServer, serve_admin
from tests.core.layout.build import GB
from tests.web.admin.conftest import HERE, Lone

TOKEN = "s3cr3t-admin-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Port:
    """An open admin port and a client of it."""

    def __init__(self, lone: Lone, server: AdminServer, client: aiohttp.ClientSession) -> None:
        self.lone = lone
        self.server = server
        self.client = client
        self.url = f"http://127.0.0.1:{server.port}"

    async def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str, Any]:
        """Status, body, headers; with the token unless headers are given."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = BEARER if headers is None else headers
        async with self.client.request(
            method, self.url + path, data=data, headers=sent
        ) as response:
            return response.status, await response.text(), response.headers

    async def refused(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """(status, code, message) of an error."""
        status, text, headers = await self.ask(method, path, body, **more)
        told = json.loads(text)
        assert set(told) == {"code", "message", "region", "path"}
        assert headers["Content-Type"].startswith("application/json")
        assert told["path"] == path.partition("?")[0] and told["region"] == "garage"
        return status, told["code"], told["message"]

    async def raw(self, sent: bytes) -> bytes:
        """What comes back on a connection of its own until it closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(sent)
        received = await reader.read()
        writer.close()
        return received


@pytest_asyncio.fixture
async def port(lone: Lone) -> AsyncIterator[Port]:
    server = await serve_admin(lone.context, "127.0.0.1:0", TOKEN)
    async with aiohttp.ClientSession() as client:
        yield Port(lone, server, client)
    await server.stop()


async def give_role(lone: Lone) -> None:
    role = {"id": HERE.hex(), "zone": "attic<b>", "capacity": 256 * GB, "tags": []}
    await lone.do("UpdateClusterLayout", {"roles": [role]})
    await lone.do("ApplyClusterLayout", {"version": 1})


# --- the API


async def test_operations_by_query_and_body(port: Port) -> None:
    status, text, headers = await port.ask("POST", "/v2/CreateKey", {"name": "k"})
    assert status == 200 and headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Cache-Control"] == "no-store"
    key = json.loads(text)["accessKeyId"]
    assert text.startswith("{\n"), "pretty-printed, as Garage's"
    status, text, _ = await port.ask("GET", f"/v2/GetKeyInfo?id={key}&showSecretKey=true")
    assert status == 200 and "secretAccessKey" in json.loads(text)
    status, text, _ = await port.ask("POST", f"/v2/UpdateKey?id={key}", {"name": "n"})
    assert status == 200 and json.loads(text)["name"] == "n"
    status, text, _ = await port.ask("POST", "/v2/ListWorkers?node=self", {})
    assert status == 200 and HERE.hex() in json.loads(text)["success"]
    status, text, _ = await port.ask("GET", "/v2/GetNodeInfo?node=self")
    assert status == 200
    status, text, _ = await port.ask("POST", f"/v2/DeleteKey?id={key}")
    assert (status, text) == (200, "null")
    status, text, _ = await port.ask("GET", "/v2/ListKeys?limit=5")
    assert (status, text) == (200, "[]")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer  {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN} "[:-2]},
        {"Authorization": f"bearer {TOKEN}"},
        {"Authorization": "Basic dTpw"},
        {"Authorization": "Bearer "},
    ],
)
async def test_only_the_token_opens(port: Port, headers: dict[str, str]) -> None:
    for path in ("/v2/ListKeys", "/v2/NoSuchThing"):
        status, code, message = await port.refused("GET", path, headers=headers)
        assert (status, code) == (403, "AccessDenied")
        assert TOKEN not in message


async def test_without_a_token_configured_nobody_enters(lone: Lone) -> None:
    server = await serve_admin(lone.context, "127.0.0.1:0", None)
    async with aiohttp.ClientSession() as client:
        port = Port(lone, server, client)
        for token in ("", "None", TOKEN):
            headers = {"Authorization": f"Bearer {token}"}
            assert (await port.refused("GET", "/v2/ListKeys", headers=headers))[0] == 403
    await server.stop()


async def test_unknown_paths_and_methods(port: Port) -> None:
    for path in ("/v2/Nothing", "/v2/", "/v1/status", "/metrics", "/favicon.ico"):
        assert (await port.refused("GET", path))[:2] == (404, "NoSuchEndpoint")
    assert (await port.refused("POST", "/v2/ListKeys"))[:2] == (405, "MethodNotAllowed")
    assert (await port.refused("GET", "/v2/CreateKey"))[:2] == (405, "MethodNotAllowed")
    assert (await port.refused("DELETE", "/"))[:2] == (405, "MethodNotAllowed")
    assert (await port.refused("GET", "/v2/ListAdminTokens"))[:2] == (501, "NotImplemented")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[1,2]",
        b'"text"',
        b'{"name": NaN}',
        b'{"name": "\\ud800"}',
        b'{"neverExpires": 1}',
        b'{"nmae": "k"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"name": ' + b"9" * 5000 + b"}",
    ],
)
async def test_bad_bodies_are_refused(port: Port, body: bytes) -> None:
    assert (await port.refused("POST", "/v2/CreateKey", body))[:2] == (400, "InvalidRequest")
    assert await port.lone.do("ListKeys") == []


@pytest.mark.parametrize(
    "query",
    ["?idd=x", "?id=x&id=y", "?id=%ff", "?limit=5", "?" + "&".join("a=b" for _ in range(40))],
)
async def test_bad_queries_are_refused(port: Port, query: str) -> None:
    assert (await port.refused("GET", f"/v2/GetKeyInfo{query}"))[:2] == (400, "InvalidRequest")


async def test_a_body_that_is_too_long_is_not_read_to_its_end(port: Port) -> None:
    head = (
        f"POST /v2/CreateKey HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Length: 9000000000\r\n\r\n"
    ).encode()
    answer = await port.raw(head + b" " * (app.BODY_BYTES_MAX + 1))
    assert answer.startswith(b"HTTP/1.1 400 ") and b"longer than" in answer


async def test_a_refused_request_does_not_wait_for_its_body(port: Port) -> None:
    head = b"POST /v2/CreateKey HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n"
    async with asyncio.timeout(5):
        answer = await port.raw(head)
    assert answer.startswith(b"HTTP/1.1 403 ") and b"connection: close" in answer.lower()


async def test_a_silent_connection_is_let_go(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "HEADER_SECONDS_MAX", 0.05)
    async with asyncio.timeout(5):
        assert await port.raw(b"GET / HTTP/1.1\r\nX: ") == b""


async def test_a_body_that_never_ends_is_let_go(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "BODY_SECONDS_MAX", 0.05)
    head = f"POST /v2/CreateKey HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    async with asyncio.timeout(5):
        answer = await port.raw(head.encode() + b"Content-Length: 10\r\n\r\n{")
    assert b"did not arrive in time" in answer


async def test_too_many_connections_are_turned_away(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "CONNECTIONS_MAX", 0)
    async with asyncio.timeout(5):
        assert await port.raw(b"") == b""


async def test_preflight(port: Port) -> None:
    status, _, headers = await port.ask("OPTIONS", "/v2/ListKeys", headers={})
    assert status == 200
    assert headers["Access-Control-Allow-Headers"] == "authorization,content-type"


async def test_a_bug_of_ours_is_told_without_details(
    port: Port, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Any:
        raise RuntimeError("inside")

    monkeypatch.setattr(port.lone.context.directory, "buckets", broken)
    status, code, message = await port.refused("GET", "/v2/ListBuckets")
    assert (status, code) == (500, "InternalError") and "inside" not in message
    assert "RuntimeError: inside" in caplog.text


# --- health and the page


async def test_health_for_load_balancers(port: Port) -> None:
    status, text, _ = await port.ask("GET", "/health", headers={})
    assert status == 503 and text.startswith("Quorum is not available")
    await give_role(port.lone)
    status, text, headers = await port.ask("GET", "/health", headers={})
    assert status == 200 and text.startswith("Garage Lite is fully operational\n")
    assert headers["Content-Type"].startswith("text/plain")
    assert (await port.ask("HEAD", "/health", headers={}))[:2] == (200, "")


async def test_the_page_of_a_node_without_a_role(port: Port) -> None:
    status, text, _ = await port.ask("GET", "/", headers={})
    assert status == 200
    assert "This node has no role yet" in text and "garage-lite layout assign" in text


async def test_the_page_of_a_working_node(port: Port) -> None:
    await give_role(port.lone)
    key = await port.lone.do("CreateKey", {"name": "hidden-name"})
    await port.lone.bucket("hidden-bucket")
    status, text, headers = await port.ask("GET", "/", headers={})
    assert status == 200 and headers["Content-Type"].startswith("text/html")
    assert "This node is working well." in text
    for shown in (
        HERE.hex(),
        "v0.1.0",
        "256.0 GB",
        "attic&lt;b&gt;",
        "Block scrub worker",
        "not in use",
    ):
        assert shown in text
    assert re.search("Buckets</dt><dd>1<", text)
    for secret in (key["accessKeyId"], "hidden", TOKEN, "<b>", "<script"):
        assert secret not in text


async def test_the_page_tells_what_is_wrong(port: Port) -> None:
    await give_role(port.lone)
    port.lone.context.resync.persistent_errors = 3
    text = html.unescape((await port.ask("GET", "/", headers={}))[1])
    assert "something needs your attention" in text
    assert "3 data blocks can't be restored." in text


async def test_the_page_runs_nothing_and_asks_nobody(port: Port) -> None:
    _, text, headers = await port.ask("GET", "/", headers={})
    policy = headers["Content-Security-Policy"]
    (style,) = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert headers["X-Frame-Options"] == "DENY"
    assert not re.search(r"https?:|src=|href=|style=|\son\w+=", text)


async def test_a_stop_lets_requests_end_and_takes_no_more(lone: Lone) -> None:
    server = await serve_admin(lone.context, "127.0.0.1:0", TOKEN)
    number = server.port
    await server.stop()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", number)


async def test_a_socket_in_the_file_system(lone: Lone, tmp_path: Any) -> None:
    path = tmp_path / "admin.sock"
    server = await serve_admin(lone.context, str(path), TOKEN)
    assert path.stat().st_mode & 0o777 == app.UNIX_SOCKET_MODE
    connector = aiohttp.UnixConnector(str(path))
    async with (
        aiohttp.ClientSession(connector=connector) as client,
        client.get("http://admin/health") as response,
    ):
        assert response.status == 503
    await server.stop()
