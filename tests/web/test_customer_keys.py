"""SSE-C over the wire, where it meets multipart uploads and copies: with the right key, with
another and with none. What is refused leaves nothing behind."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from hashlib import md5
from pathlib import Path

import pytest
import pytest_asyncio

from tests.core.store.world import pattern
from tests.web.test_multipart import complete_xml
from tests.web.world import Answer, S3World

NAME = "server-side-encryption-customer-"
ONE, TWO = pattern(3200, 1), pattern(2100, 2)


def key(letter: bytes, start: str = "x-amz-") -> dict[str, str]:
    secret = letter * 32
    return {
        f"{start}{NAME}algorithm": "AES256",
        f"{start}{NAME}key": base64.b64encode(secret).decode(),
        f"{start}{NAME}key-md5": base64.b64encode(md5(secret).digest()).decode(),
    }


def source_key(letter: bytes) -> dict[str, str]:
    return key(letter, "x-amz-copy-source-")


KEY, OTHER = key(b"k"), key(b"o")
NONE: Mapping[str, str] = {}


@pytest_asyncio.fixture
async def w(tmp_path: Path) -> AsyncIterator[S3World]:
    async with S3World(tmp_path) as world:
        assert (await world.call("PUT", "/bucket")).status == 200
        yield world


async def begin(w: S3World, headers: Mapping[str, str]) -> str:
    answer = await w.call("POST", "/bucket/k", "uploads=", headers=headers)
    return answer.xml("InitiateMultipartUploadResult").value("UploadId") or ""


async def put_part(
    w: S3World, upload: str, number: int, content: bytes | None, headers: Mapping[str, str]
) -> Answer:
    query = f"partNumber={number}&uploadId={upload}"
    return await w.call("PUT", "/bucket/k", query, body=content, headers=headers)


async def complete(w: S3World, upload: str, etags: list[str]) -> Answer:
    body = complete_xml(*enumerate(etags, 1))
    return await w.call("POST", "/bucket/k", f"uploadId={upload}", body=body)


async def parts(w: S3World, upload: str) -> int:
    """How many an upload has."""
    answer = await get(w, "k", NONE, f"uploadId={upload}")
    return len(list(answer.xml("ListPartsResult").all("Part")))


async def get(w: S3World, name: str, headers: Mapping[str, str], part: str = "") -> Answer:
    return await w.call("GET", f"/bucket/{name}", part, headers=headers)


def check_encrypted(answer: Answer, sent: Mapping[str, str]) -> None:
    """That an answer names algorithm and key, and never shows the key."""
    for name in (f"x-amz-{NAME}algorithm", f"x-amz-{NAME}key-md5"):
        assert answer.headers[name] == sent[name]
    secret = sent[f"x-amz-{NAME}key"]
    assert secret not in answer.headers.values() and secret.encode() not in answer.body


async def encrypted_upload(w: S3World) -> None:
    """Two encrypted parts, completed as /bucket/k."""
    answer = await w.call("POST", "/bucket/k", "uploads=", headers=KEY)
    check_encrypted(answer, KEY)
    upload = answer.xml("InitiateMultipartUploadResult").value("UploadId") or ""
    etags = []
    for number, content in ((1, ONE), (2, TWO)):
        answer = await put_part(w, upload, number, content, KEY)
        check_encrypted(answer, KEY)
        assert answer.headers["etag"] != f'"{md5(content).hexdigest()}"'
        etags.append(answer.headers["etag"])
    assert (await complete(w, upload, etags)).status == 200


async def test_an_encrypted_upload_is_read_with_its_key(w: S3World) -> None:
    await encrypted_upload(w)
    whole = ONE + TWO
    answer = await get(w, "k", KEY)
    check_encrypted(answer, KEY)
    assert answer.body == whole
    for first, last in ((0, 0), (999, 1000), (3100, 3300), (3200, 3200), (5299, 5299), (1, 5298)):
        ranged = await get(w, "k", {**KEY, "range": f"bytes={first}-{last}"})
        assert (ranged.status, ranged.body) == (206, whole[first : last + 1])
    second = await get(w, "k", KEY, "partNumber=2")
    assert (second.status, second.body) == (206, TWO)
    head = await w.call("HEAD", "/bucket/k", headers=KEY)
    check_encrypted(head, KEY)
    assert head.headers["content-length"] == str(len(whole))
    await w.call("DELETE", "/bucket/k")
    await w.nothing_left()


@pytest.mark.parametrize(("sent", "status"), [(OTHER, 403), (NONE, 400)])
async def test_an_encrypted_upload_stays_shut_without_its_key(
    w: S3World, sent: Mapping[str, str], status: int
) -> None:
    await encrypted_upload(w)
    code = "AccessDenied" if status == 403 else "InvalidRequest"
    for more in (NONE, {"range": "bytes=3000-3300"}):
        answer = await get(w, "k", {**sent, **more})
        assert (answer.status, answer.code) == (status, code)
        assert answer.headers.get("content-range") is None
    assert (await get(w, "k", sent, "partNumber=1")).status == status
    assert (await w.call("HEAD", "/bucket/k", headers=sent)).status == status
    wanted = {"x-amz-object-attributes": "ETag,ObjectSize", **sent}
    assert (await get(w, "k", wanted, "attributes=")).status == status


async def test_nothing_of_the_plain_bytes_reaches_the_disk(w: S3World) -> None:
    content = b"a secret that must not be found " * 100
    upload = await begin(w, KEY)
    etag = (await put_part(w, upload, 1, content, KEY)).headers["etag"]
    await w.call("PUT", "/bucket/small", body=content[:64], headers=KEY)
    await complete(w, upload, [etag])
    stored = [path.read_bytes() for path in w.directory.rglob("*") if path.is_file()]
    assert stored
    for secret in (content[:16], b"k" * 32, base64.b64encode(b"k" * 32)):
        assert not any(secret in one for one in stored)


async def test_a_part_must_go_with_its_upload(w: S3World) -> None:
    encrypted, plain = await begin(w, KEY), await begin(w, NONE)
    await w.call("PUT", "/bucket/source", body=ONE)
    copied = {"x-amz-copy-source": "bucket/source"}
    for upload, sent, text in (
        (encrypted, NONE, b"initiate requested encryption"),
        (encrypted, OTHER, b"did not match the ones used originally"),
        (plain, KEY, b"initiate did not request encryption"),
    ):
        put = await put_part(w, upload, 1, ONE, sent)
        copy = await put_part(w, upload, 1, None, {**copied, **sent})
        for answer in (put, copy):
            assert (answer.status, answer.code) == (400, "InvalidRequest")
            assert text in answer.body
    for upload in (encrypted, plain):
        assert await parts(w, upload) == 0
        assert (await w.call("DELETE", "/bucket/k", f"uploadId={upload}")).status == 204
    await w.call("DELETE", "/bucket/source")
    await w.nothing_left()


@pytest.mark.parametrize("size", [60, 3200])
@pytest.mark.parametrize(
    ("before", "after"),
    [(NONE, KEY), (KEY, OTHER), (KEY, KEY), (KEY, NONE)],
    ids=["encrypt", "re-encrypt", "same key", "decrypt"],
)
async def test_a_copy_changes_the_key(
    w: S3World, before: Mapping[str, str], after: Mapping[str, str], size: int
) -> None:
    content = ONE[:size]
    await w.call("PUT", "/bucket/a", body=content, headers={**before, "x-amz-meta-m": "1"})
    headers = {"x-amz-copy-source": "/bucket/a", **after}
    if before:
        headers |= source_key(b"k")
    answer = await w.call("PUT", "/bucket/b", headers=headers)
    assert answer.status == 200, answer.body
    if after:
        check_encrypted(answer, after)
    got = await get(w, "b", after)
    assert (got.body, got.headers["x-amz-meta-m"]) == (content, "1")
    plain_etag = f'"{md5(content).hexdigest()}"'
    assert (got.headers["etag"] == plain_etag) == (not after)
    assert (await get(w, "a", before)).body == content
    if after != before:
        assert (await get(w, "b", before)).status in (400, 403)
    # The source may go: the copy has bytes of its own.
    assert (await w.call("DELETE", "/bucket/a")).status == 204
    await w.cascade()
    assert (await get(w, "b", after)).body == content
    await w.call("DELETE", "/bucket/b")
    await w.nothing_left()


async def test_an_object_is_encrypted_and_decrypted_in_place(w: S3World) -> None:
    await w.call("PUT", "/bucket/a", body=ONE)
    itself = {"x-amz-copy-source": "/bucket/a"}
    assert (await w.call("PUT", "/bucket/a", headers={**itself, **KEY})).status == 200
    assert (await get(w, "a", NONE)).status == 400
    back = await w.call("PUT", "/bucket/a", headers={**itself, **source_key(b"k")})
    assert back.status == 200
    assert (await get(w, "a", NONE)).body == ONE


async def test_a_copy_needs_the_key_of_its_source(w: S3World) -> None:
    await w.call("PUT", "/bucket/a", body=ONE, headers=KEY)
    await w.call("PUT", "/bucket/plain", body=TWO)
    upload = await begin(w, NONE)
    for source, sent, status in (
        ("a", NONE, 400),
        ("a", KEY, 400),
        ("a", source_key(b"o"), 403),
        ("plain", source_key(b"k"), 400),
    ):
        headers = {"x-amz-copy-source": f"/bucket/{source}", **sent}
        assert (await w.call("PUT", "/bucket/b", headers=headers)).status == status
        assert (await get(w, "b", NONE)).status == 404
        if sent != KEY:
            assert (await put_part(w, upload, 1, None, headers)).status == status
    assert await parts(w, upload) == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [(NONE, KEY), (KEY, OTHER), (KEY, NONE)],
    ids=["encrypt", "re-encrypt", "decrypt"],
)
async def test_a_part_copied_changes_the_key(
    w: S3World, before: Mapping[str, str], after: Mapping[str, str]
) -> None:
    await w.call("PUT", "/bucket/a", body=ONE, headers=before)
    upload = await begin(w, after)
    headers = {"x-amz-copy-source": "/bucket/a", **after}
    if before:
        headers |= source_key(b"k")
    whole = await put_part(w, upload, 1, None, headers)
    assert whole.status == 200, whole.body
    headers["x-amz-copy-source-range"] = "bytes=900-2100"
    stretch = await put_part(w, upload, 2, None, headers)
    etags = [one.xml("CopyPartResult").value("ETag") or "" for one in (whole, stretch)]
    if after:
        check_encrypted(whole, after)
    assert (etags[1] == f'"{md5(ONE[900:2101]).hexdigest()}"') == (not after)
    assert (await complete(w, upload, etags)).status == 200
    assert (await get(w, "k", after)).body == ONE + ONE[900:2101]
    ranged = await get(w, "k", {**after, "range": "bytes=3150-3250"})
    assert ranged.body == (ONE + ONE[900:2101])[3150:3251]


async def test_an_encrypted_upload_is_a_source_too(w: S3World) -> None:
    await encrypted_upload(w)
    headers = {"x-amz-copy-source": "/bucket/k", **source_key(b"k")}
    assert (await w.call("PUT", "/bucket/b", headers=headers)).status == 200
    copy = await get(w, "b", NONE)
    assert copy.body == ONE + TWO
    assert copy.headers["etag"] == f'"{md5(ONE + TWO).hexdigest()}"'
