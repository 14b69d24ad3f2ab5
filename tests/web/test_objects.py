"""Objects over the wire: what goes in comes out, and only that."""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import AsyncIterator
from hashlib import md5, sha256
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
import pytest_asyncio

from tests.core.store.world import pattern
from tests.web.world import Answer, S3World


@pytest_asyncio.fixture
async def w(tmp_path: Path) -> AsyncIterator[S3World]:
    async with S3World(tmp_path) as world:
        assert (await world.call("PUT", "/bucket")).status == 200
        yield world


def crc32(content: bytes) -> str:
    return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()


@pytest.mark.parametrize("size", [0, 1, 100, 101, 5000, 300_000])
async def test_put_get_head_delete(w: S3World, size: int) -> None:
    content = pattern(size)
    put = await w.call("PUT", "/bucket/k", body=content, headers={"x-amz-meta-a": "b"})
    assert put.status == 200
    assert put.headers["etag"] == f'"{md5(content).hexdigest()}"'
    got = await w.call("GET", "/bucket/k")
    assert (got.status, got.body) == (200, content)
    assert got.headers["etag"] == put.headers["etag"]
    assert got.headers["x-amz-meta-a"] == "b"
    head = await w.call("HEAD", "/bucket/k")
    assert head.headers["content-length"] == str(size)
    assert {"last-modified", "accept-ranges", "x-amz-request-id", "x-amz-id-2"} <= set(head.headers)
    assert (await w.call("DELETE", "/bucket/k")).status == 204
    assert (await w.call("GET", "/bucket/k")).code == "NoSuchKey"
    assert (await w.call("HEAD", "/bucket/k")).status == 404
    assert (await w.call("DELETE", "/bucket/k")).status == 204


NAMES = [
    b"..",
    b"../../etc/passwd",
    b"a/../b",
    b"a//b",
    b"/leading",
    b"//two",
    b"trailing/",
    b"./.",
    b" space ",
    b"a+b%2Fc%00",
    b"\x00",
    b"\x01\x1f\x7f\r\n\t",
    "é€𝄞 \ufffe".encode(),
    b"?query=1&b#c",
    b"&<>\"'",
    b"x" * 1024,
]


async def test_keys_are_stored_and_listed_byte_for_byte(w: S3World) -> None:
    for name in NAMES:
        put = await w.call("PUT", "/bucket/" + quote(name, safe="/"), body=name)
        assert put.status == 200, name
    for name in NAMES:
        got = await w.call("GET", "/bucket/" + quote(name, safe="/"))
        assert (got.status, got.body) == (200, name)
    listed: list[bytes] = []
    token = ""
    while True:
        query = "encoding-type=url&list-type=2&max-keys=3"
        if token:
            query = f"continuation-token={quote(token, safe='')}&{query}"
        page = (await w.call("GET", "/bucket", query)).xml("ListBucketResult")
        for item in page.all("Contents"):
            text = item.value("Key")
            assert text is not None
            listed.append(unquote(text).encode("utf-8", "surrogatepass"))
        token = page.value("NextContinuationToken") or ""
        if not token:
            break
    assert listed == sorted(NAMES)


async def test_keys_that_are_refused(w: S3World) -> None:
    for method in ("PUT", "GET", "DELETE"):
        long = await w.call(method, "/bucket/" + "x" * 1025, body=b"" if method == "PUT" else None)
        assert (long.status, long.code) == (400, "KeyTooLongError")
        for path in ("/bucket/%C0", "/bucket/a%ff", "/b%ffcket/a"):
            bad = await w.call(method, path, body=b"" if method == "PUT" else None)
            assert (bad.status, bad.code) == (400, "InvalidURI")
    long_name = quote("é" * 513)
    assert (await w.call("PUT", f"/bucket/{long_name}", body=b"")).code == "KeyTooLongError"
    assert (await w.call("GET", "/bucket", "prefix=%FF")).status == 400


async def test_stored_headers_come_back_and_can_be_overridden(w: S3World) -> None:
    headers = {
        "cache-control": "no-cache",
        "content-disposition": 'attachment; filename="é.txt"',
        "content-encoding": "gzip",
        "content-language": "fr",
        "content-type": "text/plain",
        "expires": "Wed, 21 Oct 2015 07:28:00 GMT",
        "x-amz-meta-utf8": "naïve €",
        "x-amz-meta-rfc2047": "=?UTF-8?B?w6k=?=",
    }
    assert (await w.call("PUT", "/bucket/k", body=b"x", headers=headers)).status == 200
    for method in ("GET", "HEAD"):
        got = await w.call(method, "/bucket/k")
        for name, value in headers.items():
            assert got.headers[name].encode("latin-1").decode() == value
    query = "response-content-type=a%2Fb&response-expires=now"
    got = await w.call("GET", "/bucket/k", query)
    assert (got.headers["content-type"], got.headers["expires"]) == ("a/b", "now")
    forged = await w.call("GET", "/bucket/k", "response-content-type=a%0D%0ASet-Cookie%3A%20b")
    assert "set-cookie" not in forged.headers
    plain = await w.call("PUT", "/bucket/plain", body=b"x")
    assert plain.status == 200
    assert (await w.call("GET", "/bucket/plain")).headers["content-type"] == "binary/octet-stream"


async def test_ranges(w: S3World) -> None:
    content = pattern(5000)
    await w.call("PUT", "/bucket/k", body=content)
    for text, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=999-1000", 999, 1001),
        ("bytes=4000-", 4000, 5000),
        ("bytes=-10", 4990, 5000),
        ("bytes=10-99999", 10, 5000),
    ):
        got = await w.call("GET", "/bucket/k", headers={"range": text})
        assert (got.status, got.body) == (206, content[start:end])
        assert got.headers["content-range"] == f"bytes {start}-{end - 1}/5000"
        head = await w.call("HEAD", "/bucket/k", headers={"range": text})
        assert (head.status, head.headers["content-length"]) == (206, str(end - start))
    several = await w.call("GET", "/bucket/k", headers={"range": "bytes=0-1,5-6"})
    assert (several.status, several.body) == (200, content)
    beyond = await w.call("GET", "/bucket/k", headers={"range": "bytes=5000-"})
    assert (beyond.status, beyond.code) == (416, "InvalidRange")
    assert beyond.headers["content-range"] == "bytes */5000"


async def test_read_conditions(w: S3World) -> None:
    put = await w.call("PUT", "/bucket/k", body=b"x", headers={"cache-control": "private"})
    etag = put.headers["etag"]
    past, future = "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2099 07:28:00 GMT"
    for headers, status in (
        ({"if-match": etag}, 200),
        ({"if-match": '"other"'}, 412),
        ({"if-none-match": etag}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"other"'}, 200),
        ({"if-modified-since": past}, 200),
        ({"if-modified-since": future}, 304),
        ({"if-unmodified-since": past}, 412),
        ({"if-match": etag, "if-unmodified-since": past}, 200),
        ({"if-none-match": '"other"', "if-modified-since": future}, 200),
    ):
        for method in ("GET", "HEAD"):
            got = await w.call(method, "/bucket/k", headers=headers)
            assert got.status == status, headers
            if status == 304:
                assert got.headers["etag"] == etag
                assert got.headers["cache-control"] == "private"
                assert "content-length" not in got.headers


async def test_write_conditions(w: S3World) -> None:
    only_new = {"if-none-match": "*"}
    first = await w.call("PUT", "/bucket/k", body=b"1", headers=only_new)
    assert first.status == 200
    again = await w.call("PUT", "/bucket/k", body=b"2", headers=only_new)
    assert (again.status, again.code) == (412, "PreconditionFailed")
    etag = first.headers["etag"]
    assert (await w.call("PUT", "/bucket/k", body=b"3", headers={"if-match": etag})).status == 200
    assert (await w.call("PUT", "/bucket/k", body=b"4", headers={"if-match": etag})).status == 412
    gone = await w.call("PUT", "/bucket/none", body=b"4", headers={"if-match": etag})
    assert (gone.status, gone.code) == (404, "NoSuchKey")
    assert (await w.call("DELETE", "/bucket/k", headers={"if-match": etag})).status == 412
    assert (await w.call("GET", "/bucket/k")).body == b"3"


async def test_checksums_are_verified_and_returned(w: S3World) -> None:
    content = pattern(3000)
    headers = {"x-amz-checksum-crc32": crc32(content)}
    put = await w.call("PUT", "/bucket/k", body=content, headers=headers)
    assert put.headers["x-amz-checksum-crc32"] == crc32(content)
    asked = await w.call("GET", "/bucket/k", headers={"x-amz-checksum-mode": "ENABLED"})
    assert asked.headers["x-amz-checksum-crc32"] == crc32(content)
    assert asked.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert "x-amz-checksum-crc32" not in (await w.call("GET", "/bucket/k")).headers
    wrong = {"x-amz-checksum-crc32": crc32(b"other")}
    refused = await w.call("PUT", "/bucket/k2", body=content, headers=wrong)
    assert (refused.status, refused.code) == (400, "BadDigest")
    bad_md5 = {"content-md5": base64.b64encode(md5(b"other").digest()).decode()}
    assert (await w.call("PUT", "/bucket/k2", body=content, headers=bad_md5)).code == "BadDigest"
    assert (await w.call("GET", "/bucket/k2")).status == 404


async def test_promises_are_refused_and_nothing_is_stored(w: S3World) -> None:
    for headers, code in (
        ({"x-amz-server-side-encryption": "AES256"}, "NotImplemented"),
        ({"x-amz-tagging": "a=b"}, "NotImplemented"),
        ({"x-amz-storage-class": "GLACIER"}, "InvalidStorageClass"),
    ):
        refused = await w.call("PUT", "/bucket/k", body=b"x", headers=headers)
        assert refused.code == code
    assert (await w.call("GET", "/bucket/k")).status == 404


async def test_sse_c(w: S3World) -> None:
    content, secret = pattern(2500), b"k" * 32
    prefix = "x-amz-server-side-encryption-customer-"
    key = {
        f"{prefix}algorithm": "AES256",
        f"{prefix}key": base64.b64encode(secret).decode(),
        f"{prefix}key-md5": base64.b64encode(md5(secret).digest()).decode(),
    }
    put = await w.call("PUT", "/bucket/k", body=content, headers=key)
    assert put.headers[f"{prefix}algorithm"] == "AES256"
    assert put.headers["etag"] != f'"{md5(content).hexdigest()}"'
    assert (await w.call("GET", "/bucket/k", headers=key)).body == content
    ranged = await w.call("GET", "/bucket/k", headers={**key, "range": "bytes=999-1001"})
    assert ranged.body == content[999:1002]
    for method in ("GET", "HEAD"):
        assert (await w.call(method, "/bucket/k")).status == 400
    other = b"o" * 32
    wrong = {
        **key,
        f"{prefix}key": base64.b64encode(other).decode(),
        f"{prefix}key-md5": base64.b64encode(md5(other).digest()).decode(),
    }
    assert (await w.call("GET", "/bucket/k", headers=wrong)).status == 403


async def test_copies(w: S3World) -> None:
    content = pattern(3000)
    headers = {"content-type": "text/plain", "x-amz-meta-a": "1"}
    put = await w.call("PUT", "/bucket/a%20b", body=content, headers=headers)
    source = {"x-amz-copy-source": "/bucket/a%20b"}
    copied = await w.call("PUT", "/bucket/copy", headers=source)
    assert copied.xml("CopyObjectResult").value("ETag") == put.headers["etag"]
    got = await w.call("GET", "/bucket/copy")
    assert (got.body, got.headers["x-amz-meta-a"]) == (content, "1")
    replaced = {**source, "x-amz-metadata-directive": "REPLACE", "x-amz-meta-b": "2"}
    assert (await w.call("PUT", "/bucket/copy", headers=replaced)).status == 200
    got = await w.call("GET", "/bucket/copy")
    assert "x-amz-meta-a" not in got.headers
    assert got.headers["x-amz-meta-b"] == "2"
    itself = await w.call("PUT", "/bucket/a%20b", headers=source)
    assert itself.code == "InvalidRequest"
    for bad, code in (
        ({"x-amz-copy-source": "nothing"}, "InvalidArgument"),
        ({"x-amz-copy-source": "/bucket/none"}, "NoSuchKey"),
        ({"x-amz-copy-source": "/none/none"}, "NoSuchBucket"),
        ({**source, "x-amz-metadata-directive": "MAYBE"}, "InvalidArgument"),
        ({**source, "x-amz-copy-source-if-match": "other"}, "PreconditionFailed"),
        ({**source, "if-none-match": "*"}, "PreconditionFailed"),
    ):
        assert (await w.call("PUT", "/bucket/copy", headers=bad)).code == code


def delete_xml(*names: str, quiet: bool = False) -> bytes:
    rows = "".join(f"<Object><Key>{name}</Key></Object>" for name in names)
    return f"<Delete>{rows}<Quiet>{'true' if quiet else 'false'}</Quiet></Delete>".encode()


async def delete(w: S3World, body: bytes) -> Answer:
    headers = {"content-md5": base64.b64encode(md5(body).digest()).decode()}
    return await w.call("POST", "/bucket", "delete=", body=body, headers=headers)


async def test_delete_objects(w: S3World) -> None:
    for name in ("a", "b", "c"):
        await w.call("PUT", f"/bucket/{name}", body=b"x")
    answer = (await delete(w, delete_xml("a", "none", "x" * 1025))).xml("DeleteResult")
    assert [item.value("Key") for item in answer.all("Deleted")] == ["a", "none"]
    assert [item.value("Code") for item in answer.all("Error")] == ["KeyTooLongError"]
    quiet = (await delete(w, delete_xml("b", "none", quiet=True))).xml("DeleteResult")
    assert quiet.children == []
    assert (await w.call("GET", "/bucket/b")).status == 404
    assert (await w.call("GET", "/bucket/c")).status == 200
    for body in (b"", b"<Delete/>", delete_xml(""), delete_xml(*["a"] * 1001), b"<Other/>"):
        assert (await delete(w, body)).code == "MalformedXML"
    unchecked = await w.call("POST", "/bucket", "delete=", body=delete_xml("c"))
    assert unchecked.code == "InvalidRequest"


async def test_presigned_requests_carry_headers_in_their_query(w: S3World) -> None:
    def presign() -> tuple[str, str]:
        client = w.boto(signature_version="s3v4")
        put = client.generate_presigned_url(
            "put_object", {"Bucket": "bucket", "Key": "k é", "Metadata": {"a": "b"}}
        )
        get = client.generate_presigned_url(
            "get_object", {"Bucket": "bucket", "Key": "k é", "ResponseContentType": "a/b"}
        )
        return str(put), str(get)

    put, get = await asyncio.to_thread(presign)
    base = f"http://{w.host}"
    head = f" HTTP/1.1\r\nHost: {w.host}\r\nContent-Length: 7\r\nx-amz-meta-a: b\r\n\r\ncontent"
    answer = await w.raw("PUT", f"PUT {put.removeprefix(base)}{head}".encode())
    assert answer.status == 200
    head = f" HTTP/1.1\r\nHost: {w.host}\r\n\r\n"
    answer = await w.raw("GET", f"GET {get.removeprefix(base)}{head}".encode())
    assert (answer.status, answer.body) == (200, b"content")
    assert answer.headers["content-type"] == "a/b"
    assert answer.headers["x-amz-meta-a"] == "b"
    w.clock.offset_s = 3601
    late = await w.raw("GET", f"GET {get.removeprefix(base)}{head}".encode())
    assert (late.status, late.code) == (403, "AccessDenied")


async def test_an_unsigned_payload_is_still_authorized(w: S3World) -> None:
    assert (await w.call("PUT", "/bucket/k", body=b"x", unsigned=True)).status == 200
    changed = sha256(b"other").hexdigest()
    signed = w.signer().sign("PUT", "/bucket/k", "", changed)
    lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
    data = f"PUT /bucket/k HTTP/1.1\r\n{lines}Content-Length: 5\r\n\r\nwrong".encode()
    assert (await w.raw("PUT", data)).code == "XAmzContentSHA256Mismatch"
    assert (await w.call("GET", "/bucket/k")).body == b"x"
