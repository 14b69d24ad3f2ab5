"""Connections: the short way and the long way, pipelining, 100 Continue, draining."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import http_parser

from garage_lite.core.errors import ConfigError, StartupError
from garage_lite.web import app, fast_path
from garage_lite.web.exchange import Answered, Exchange
from garage_lite.web.middleware import Endpoint
from tests.sigv4 import UNSIGNED
from tests.web.world import S3World, Wire, request_bytes


@pytest_asyncio.fixture
async def w(tmp_path: Path) -> AsyncIterator[S3World]:
    async with S3World(tmp_path) as world:
        assert (await world.call("PUT", "/bucket")).status == 200
        yield world


def signed(w: S3World, method: str, path: str, body: bytes | None = None, **more: str) -> bytes:
    headers = w.signer().sign(method, path, "", UNSIGNED)
    if body is not None:
        headers["Content-Length"] = str(len(body))
    return request_bytes(method, path, {**headers, **more}, body or b"")


async def test_both_ways_answer_alike(w: S3World) -> None:
    """A request that arrives whole goes the short way, one in two pieces the long way."""
    wire = await w.wire()
    for method, path, body in (
        ("PUT", "/bucket/k", b"content"),
        ("GET", "/bucket/k", None),
        ("HEAD", "/bucket/k", None),
        ("GET", "/bucket/none", None),
        ("PUT", "/bucket/k", b""),
        ("DELETE", "/bucket/k", None),
    ):
        data = signed(w, method, path, body)
        await wire.send(data)
        whole = await wire.answer(method)
        middle = len(data) - len(body or b"") // 2 if body else len(data) // 2
        await wire.send(data[:middle])
        await asyncio.sleep(0.01)
        await wire.send(data[middle:])
        cut = await wire.answer(method)
        kept = {"date", "x-amz-request-id", "last-modified"}
        assert whole.status == cut.status
        assert {k: v for k, v in whole.headers.items() if k not in kept} == {
            k: v for k, v in cut.headers.items() if k not in kept
        }
    wire.close()


async def test_pipelined_requests_are_answered_in_order(w: S3World) -> None:
    for number in range(40):
        await w.call("PUT", f"/bucket/{number}", body=b"%d" % number)
    wire = await w.wire()
    data = [signed(w, "GET", f"/bucket/{number}") for number in range(40)]
    await wire.send(data[0])
    assert (await wire.answer()).body == b"0"
    await wire.send(data[1])
    await wire.send(b"".join(data[2:]))
    for number in range(1, 40):
        assert (await wire.answer()).body == b"%d" % number
    wire.close()


async def test_a_request_behind_a_put_waits_for_it(w: S3World) -> None:
    wire = await w.wire()
    await wire.send(signed(w, "GET", "/bucket/none"))
    await wire.answer()
    await wire.send(signed(w, "PUT", "/bucket/k", b"x") + signed(w, "GET", "/bucket/k"))
    assert (await wire.answer("PUT")).status == 200
    assert (await wire.answer()).body == b"x"
    await wire.send(signed(w, "PUT", "/bucket/k", b"y"))
    await wire.send(signed(w, "GET", "/bucket/k"))
    assert (await wire.answer("PUT")).status == 200
    assert (await wire.answer()).body == b"y"
    wire.close()


async def test_connection_close_is_honoured(w: S3World) -> None:
    for data in (
        signed(w, "GET", "/bucket/none", Connection="close"),
        signed(w, "GET", "/bucket/none").replace(b"HTTP/1.1", b"HTTP/1.0"),
    ):
        wire = await w.wire()
        await asyncio.sleep(0.01)
        await wire.send(data)
        answer = await wire.answer()
        assert answer.headers["connection"] == "close"
        assert await wire.ended()
        wire.close()


async def test_100_continue_comes_after_authorization_and_conditions(w: S3World) -> None:
    async def ask(path: str, **more: str) -> Wire:
        wire = await w.wire()
        head = signed(w, "PUT", path, b"x" * 5000, Expect="100-continue", **more)[:-5000]
        await wire.send(head)
        return wire

    wire = await ask("/bucket/k")
    assert (await wire.answer()).status == 100
    await wire.send(b"x" * 5000)
    assert (await wire.answer()).status == 200
    await wire.send(signed(w, "GET", "/bucket/k"))
    assert (await wire.answer()).body == b"x" * 5000
    wire.close()
    for path, more, status in (
        ("/none/k", {}, 404),
        ("/bucket/k", {"If-None-Match": "*"}, 412),
        ("/bucket/k", {"Content-MD5": "nonsense"}, 400),
        ("/bucket/k", {"X-Amz-Acl": "private"}, 403),
    ):
        wire = await ask(path, **more)
        answer = await wire.answer()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        wire.close()


async def test_partial_headers_are_not_waited_for_forever(
    w: S3World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_path, "HEADER_SECONDS_MAX", 0.05)
    wire = await w.wire()
    await asyncio.sleep(0.02)
    await wire.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
    assert await wire.ended()
    wire.close()


async def test_an_idle_connection_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "KEEPALIVE_SECONDS", 0.1)
    async with S3World(tmp_path) as w:
        wire = await w.wire()
        await wire.send(signed(w, "GET", "/bucket/none"))
        assert (await wire.answer()).status == 404
        assert await wire.ended()
        wire.close()


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


class Gate:
    """Holds every request up until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = asyncio.Event()
        self.entered = 0
        self.cancelled = 0
        real: Callable[[Endpoint, Exchange], Awaitable[Answered]] = Endpoint.serve

        async def serve(endpoint: Endpoint, exchange: Exchange) -> Answered:
            self.entered += 1
            endpoint.in_flight += 1
            try:
                await self.opened.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            finally:
                endpoint.in_flight -= 1
            return await real(endpoint, exchange)

        monkeypatch.setattr(Endpoint, "serve", serve)

    async def until_entered(self, count: int) -> None:
        async with asyncio.timeout(10):
            await until(lambda: self.entered >= count)


async def test_who_goes_away_is_not_worked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    async with S3World(tmp_path) as w:
        whole, cut = await w.wire(), await w.wire()
        await asyncio.sleep(0.02)
        await whole.send(signed(w, "GET", "/bucket/k"))
        await cut.send(signed(w, "PUT", "/bucket/k", b"x" * 9)[:-3])
        await gate.until_entered(2)
        whole.writer.transport.abort()
        cut.writer.transport.abort()
        async with asyncio.timeout(10):
            await until(lambda: gate.cancelled == 2)


async def test_stopping_drains_what_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    async with S3World(tmp_path) as w:
        idle, whole, cut = await w.wire(), await w.wire(), await w.wire()
        await asyncio.sleep(0.02)
        await whole.send(signed(w, "GET", "/bucket/k"))
        await cut.send(signed(w, "PUT", "/none/k", b"x" * 9)[:-3])
        await gate.until_entered(2)
        stopping = asyncio.create_task(w.server.stop(5))
        await asyncio.sleep(0.05)
        with pytest.raises(OSError):
            await w.wire()
        gate.opened.set()
        for wire in (whole, cut):
            answer = await wire.answer()
            assert (answer.status, answer.headers["connection"]) == (404, "close")
        await stopping
        assert await idle.ended()
        for wire in (idle, whole, cut):
            wire.close()


async def test_stopping_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    async with S3World(tmp_path) as w:
        wire = await w.wire()
        await asyncio.sleep(0.02)
        await wire.send(signed(w, "GET", "/bucket/k"))
        await gate.until_entered(1)
        async with asyncio.timeout(3):
            await w.server.stop(0.1)
        assert await wire.ended()
        wire.close()


async def test_unix_sockets(tmp_path: Path) -> None:
    async with S3World(tmp_path) as w:
        path = tmp_path / "s3.sock"
        server = await app.serve_s3(w.context, [str(path)], unix_mode=0o660)
        assert path.stat().st_mode & 0o777 == 0o660
        wire = Wire(*await asyncio.open_unix_connection(str(path)))
        await wire.send(signed(w, "GET", "/bucket/k"))
        assert (await wire.answer()).status == 404
        wire.close()
        await server.stop(1)


def test_addresses() -> None:
    assert app.split_address("[::]:3900") == ("::", 3900)
    assert app.split_address("127.0.0.1:0") == ("127.0.0.1", 0)
    for address in ("localhost", "a:b", "a:70000", ":"):
        with pytest.raises(ConfigError):
            app.split_address(address)


def test_only_the_parser_that_was_checked_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    app.check_aiohttp()
    monkeypatch.setattr(aiohttp, "__version__", "3.15.0")
    with pytest.raises(StartupError, match=r"3\.15"):
        app.check_aiohttp()
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    with pytest.raises(StartupError, match="C parser"):
        app.check_aiohttp()
