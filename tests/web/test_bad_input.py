"""Hostile and broken requests: the error AWS documents, nothing stored, nothing leaked, and the
next good request served."""

from __future__ import annotations

import asyncio
import base64
import time
import zlib
from collections.abc import AsyncIterator, Mapping
from hashlib import md5, sha256
from pathlib import Path

import pytest
import pytest_asyncio

from garage_lite.web import body as web_body
from tests.sigv4 import UNSIGNED
from tests.web.world import Answer, S3World, request_bytes


@pytest_asyncio.fixture
async def w(tmp_path: Path) -> AsyncIterator[S3World]:
    async with S3World(tmp_path) as world:
        assert (await world.call("PUT", "/bucket")).status == 200
        yield world
        await nothing_stored(world)
        assert (await world.call("PUT", "/bucket/good", body=b"good")).status == 200
        assert (await world.call("GET", "/bucket/good")).body == b"good"


async def nothing_stored(w: S3World) -> None:
    listed = (await w.call("GET", "/bucket")).xml("ListBucketResult")
    assert list(listed.all("Contents")) == []
    await w.nothing_left()


def put_head(
    w: S3World,
    headers: Mapping[str, str],
    payload: str = UNSIGNED,
    signed: Mapping[str, str] | None = None,
    path: str = "/bucket/k",
) -> bytes:
    every = w.signer().sign("PUT", path, "", payload, signed)
    return request_bytes("PUT", path, {**every, **headers})


async def once(w: S3World, data: bytes) -> Answer:
    wire = await w.wire()
    try:
        await wire.send(data)
        return await wire.answer()
    finally:
        wire.close()


@pytest.mark.parametrize(
    "framing",
    [
        {"Content-Length": "5", "Transfer-Encoding": "chunked"},
        {"Content-Length": "-1"},
        {"Content-Length": ""},
        {"Content-Length": "5, 6"},
        {"Content-Length": "0x5"},
        {"Transfer-Encoding": "chunked, identity"},
        {"Transfer-Encoding": "xchunked"},
    ],
)
async def test_ambiguous_framing(w: S3World, framing: dict[str, str]) -> None:
    wire = await w.wire()
    await wire.send(put_head(w, framing) + b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    answer = await wire.answer()
    assert (answer.status, answer.code) == (400, "BadRequest")
    assert answer.headers["connection"] == "close"
    assert await wire.ended()
    wire.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: \x00\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"NONSENSE / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET ftp://host/bucket HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_refused(w: S3World, data: bytes) -> None:
    answer = await once(w, data)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/xml"
    assert len(answer.headers["x-amz-request-id"]) == 16


async def test_oversized_headers(w: S3World) -> None:
    lines = {f"x{number}": "y" * 1000 for number in range(20)}
    answer = await once(w, request_bytes("GET", "/", {"Host": w.host, **lines}))
    assert (answer.status, answer.code) == (400, "RequestHeaderSectionTooLarge")


async def test_anonymous_and_unreadable_requests(w: S3World) -> None:
    for path in ("/", "/bucket", "/bucket/k"):
        answer = await once(w, request_bytes("GET", path, {"Host": w.host}))
        assert (answer.status, answer.code) == (403, "AccessDenied")
    answer = await once(w, request_bytes("GET", "/none/k", {"Host": w.host}))
    assert (answer.status, answer.code) == (404, "NoSuchBucket")
    options = await once(w, request_bytes("OPTIONS", "/bucket", {"Host": w.host}))
    assert options.status == 400
    origin = {"Host": w.host, "Origin": "http://a.example"}
    assert (await once(w, request_bytes("OPTIONS", "/bucket", origin))).status == 403


async def test_a_missing_length(w: S3World) -> None:
    answer = await once(w, put_head(w, {}))
    assert (answer.status, answer.code) == (411, "MissingContentLength")


async def test_a_truncated_body(w: S3World) -> None:
    for content in (b"x" * 50, b"x" * 5000):
        wire = await w.wire()
        await wire.send(put_head(w, {"Content-Length": "100000"}) + content)
        wire.close()
        await asyncio.sleep(0.05)
    await nothing_stored(w)


async def test_a_silent_client_is_told(w: S3World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_body, "SILENCE_SECONDS_MAX", 0.05)
    answer = await once(w, put_head(w, {"Content-Length": "100000"}) + b"x" * 5000)
    assert (answer.status, answer.code) == (400, "RequestTimeout")


async def test_a_slow_client_is_not_silent(w: S3World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The alarm is set once for the body; what came meanwhile must put it off."""
    monkeypatch.setattr(web_body, "SILENCE_SECONDS_MAX", 0.4)
    wire = await w.wire()
    await wire.send(put_head(w, {"Content-Length": "6"}))
    for byte in b"slowly":
        await asyncio.sleep(0.1)
        await wire.send(bytes([byte]))
    assert (await wire.answer()).status == 200
    wire.close()
    await w.call("DELETE", "/bucket/k")


async def test_wrong_signatures_and_clocks(w: S3World) -> None:
    data = put_head(w, {"Content-Length": "1"}).replace(b"/bucket/k ", b"/bucket/l ") + b"x"
    assert (await once(w, data)).code == "SignatureDoesNotMatch"
    w.clock.offset_s = 901
    skewed = await w.call("PUT", "/bucket/k", body=b"x")
    assert (skewed.status, skewed.code) == (403, "RequestTimeTooSkewed")
    server_time = skewed.xml("Error").value("ServerTime")
    assert server_time is not None and server_time.startswith("20")
    w.clock.offset_s = 0


TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


def chunked(content: bytes, trailers: str = "") -> bytes:
    return b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(content), content, trailers.encode())


async def put_chunked(w: S3World, body: bytes, length: int, *, trailer: bool = False) -> Answer:
    signed = {"x-amz-decoded-content-length": str(length)}
    if trailer:
        signed["x-amz-trailer"] = "x-amz-checksum-crc32"
    headers = {"Content-Length": str(len(body)), "Content-Encoding": "aws-chunked"}
    return await once(w, put_head(w, headers, TRAILER, signed) + body)


@pytest.mark.parametrize("size", [5, 5000])
async def test_chunks_that_lie(w: S3World, size: int) -> None:
    content = b"x" * size
    for length in (size - 1, size + 1, 0, 10 * size):
        answer = await put_chunked(w, chunked(content), length)
        assert (answer.status, answer.code) == (400, "IncompleteBody")
    bad = await put_chunked(w, chunked(content)[:-3], size)
    assert (bad.status, bad.code) == (400, "IncompleteBody")
    bad = await put_chunked(w, b"zz\r\n" + content, size)
    assert (bad.status, bad.code) == (400, "IncompleteBody")
    right = base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()
    lines = f"x-amz-checksum-crc32:{right}\r\n"
    good = await put_chunked(w, chunked(content, lines), size, trailer=True)
    assert good.status == 200
    assert (await w.call("GET", "/bucket/k")).headers.get("content-encoding") is None
    assert (await w.call("DELETE", "/bucket/k")).status == 204
    for lines in ("x-amz-checksum-crc32:AAAAAA==\r\n", "", "x-amz-checksum-crc32:x\r\n"):
        bad = await put_chunked(w, chunked(content, lines), size, trailer=True)
        assert bad.code in ("BadDigest", "MalformedTrailerError")


async def test_a_bad_chunk_signature(w: S3World) -> None:
    for size in (5, 5000):
        payload = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
        body = b"%x;chunk-signature=%s\r\n%s\r\n" % (size, b"0" * 64, b"x" * size)
        signed = {"x-amz-decoded-content-length": str(size)}
        headers = {"Content-Length": str(len(body) + 200)}
        answer = await once(w, put_head(w, headers, payload, signed) + body)
        assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch")


async def test_wrong_digests_of_big_bodies(w: S3World) -> None:
    content = b"x" * 5000
    wrong = sha256(b"other").hexdigest()
    data = put_head(w, {"Content-Length": "5000"}, wrong) + content
    assert (await once(w, data)).code == "XAmzContentSHA256Mismatch"
    bad_md5 = {"content-md5": base64.b64encode(md5(b"other").digest()).decode()}
    data = put_head(w, {"Content-Length": "5000"}, UNSIGNED, bad_md5) + content
    assert (await once(w, data)).code == "BadDigest"


async def test_a_body_beyond_the_limit_is_refused_before_it_is_sent(w: S3World) -> None:
    wire = await w.wire()
    await wire.send(put_head(w, {"Content-Length": str(5 * 1024**3 + 1), "Expect": "100-continue"}))
    answer = await wire.answer()
    assert (answer.status, answer.code) == (400, "EntityTooLarge")
    wire.close()


async def test_nested_xml_is_refused_at_once(w: S3World) -> None:
    body = b"<Delete>" + b"<a>" * 20_000 + b"</a>" * 20_000 + b"</Delete>"
    headers = {"content-md5": base64.b64encode(md5(body).digest()).decode()}
    began = time.monotonic()
    answer = await w.call("POST", "/bucket", "delete=", body=body, headers=headers)
    assert (answer.status, answer.code) == (400, "MalformedXML")
    assert time.monotonic() - began < 2
    big = b"<Delete>" + b" " * (2 << 20) + b"</Delete>"
    headers = {"content-md5": base64.b64encode(md5(big).digest()).decode()}
    answer = await w.call("POST", "/bucket", "delete=", body=big, headers=headers)
    assert answer.status == 400


async def test_bad_arguments(w: S3World) -> None:
    for path, query, code in (
        ("/bucket", "list-type=2&max-keys=blah", "InvalidArgument"),
        ("/bucket", "list-type=2&max-keys=-1", "InvalidArgument"),
        ("/bucket", "continuation-token=nonsense&list-type=2", "InvalidArgument"),
        ("/bucket", "encoding-type=base64", "InvalidArgument"),
        ("/bucket", "prefix=a&prefix=b", "InvalidArgument"),
        ("/bucket", "acl=&policy=", "NoSuch"),
        ("/bucket/k", "uploadId=none", "NoSuchUpload"),
        ("/bucket/k", f"uploadId={'0' * 32}", "NoSuchUpload"),
        ("/bucket/k", "partNumber=0", "NoSuchKey"),
        ("/none/k", "", "NoSuchBucket"),
    ):
        answer = await w.call("GET", path, query)
        if code != "NoSuch":
            assert answer.code == code, (path, query)
    for number in ("0", "10001", "x", "-1"):
        query = f"partNumber={number}&uploadId={'0' * 32}"
        answer = await w.call("PUT", "/bucket/k", query, body=b"x")
        assert answer.code == "InvalidArgument"
    assert (await w.call("GET", "/bucket", "policy=")).code == "NotImplemented"
    assert (await w.call("DELETE", "/bucket/k", "acl=")).code == "MethodNotAllowed"


async def test_aborted_uploads_leave_nothing(w: S3World) -> None:
    for _ in range(20):
        wire = await w.wire()
        await wire.send(put_head(w, {"Content-Length": "1000000"}) + b"x" * 30_000)
        await asyncio.sleep(0.002)
        wire.writer.transport.abort()
    for _ in range(200):
        if not w.server.in_flight:
            break
        await asyncio.sleep(0.01)
    assert w.server.in_flight == 0
    await nothing_stored(w)
