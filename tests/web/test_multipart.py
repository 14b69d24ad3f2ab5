"""Multipart uploads over the wire, and a real client through all of it."""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import AsyncIterator
from hashlib import md5
from pathlib import Path

import pytest
import pytest_asyncio

from tests.core.store.world import pattern
from tests.web.world import Answer, S3World


@pytest_asyncio.fixture
async def w(tmp_path: Path) -> AsyncIterator[S3World]:
    async with S3World(tmp_path) as world:
        assert (await world.call("PUT", "/bucket")).status == 200
        yield world


async def begin(w: S3World, **headers: str) -> str:
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await w.call("POST", "/bucket/k", "uploads=", headers=spelled)
    return answer.xml("InitiateMultipartUploadResult").value("UploadId") or ""


async def put_part(w: S3World, upload: str, number: int, content: bytes) -> str:
    query = f"partNumber={number}&uploadId={upload}"
    answer = await w.call("PUT", "/bucket/k", query, body=content)
    assert answer.status == 200
    return answer.headers["etag"]


def complete_xml(*parts: tuple[int, str]) -> bytes:
    rows = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        for number, etag in parts
    )
    return f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()


async def complete(w: S3World, upload: str, body: bytes, **headers: str) -> Answer:
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    return await w.call("POST", "/bucket/k", f"uploadId={upload}", body=body, headers=spelled)


async def test_an_upload_becomes_an_object(w: S3World) -> None:
    one, two = pattern(3000, 1), pattern(500, 2)
    upload = await begin(w, x_amz_meta_a="b", content_type="text/plain")
    etags = [(1, await put_part(w, upload, 1, one)), (5, await put_part(w, upload, 5, two))]
    listed = (await w.call("GET", "/bucket/k", f"uploadId={upload}")).xml("ListPartsResult")
    assert [part.value("PartNumber") for part in listed.all("Part")] == ["1", "5"]
    assert [part.value("Size") for part in listed.all("Part")] == ["3000", "500"]
    uploads = (await w.call("GET", "/bucket", "uploads=")).xml("ListMultipartUploadsResult")
    assert [item.value("UploadId") for item in uploads.all("Upload")] == [upload]
    answer = await complete(w, upload, complete_xml(*etags))
    digest = md5(md5(one).digest() + md5(two).digest()).hexdigest()
    assert answer.xml("CompleteMultipartUploadResult").value("ETag") == f'"{digest}-2"'
    repeated = await complete(w, upload, complete_xml(*etags))
    assert repeated.body == answer.body
    got = await w.call("GET", "/bucket/k")
    assert (got.body, got.headers["x-amz-meta-a"]) == (one + two, "b")
    part = await w.call("GET", "/bucket/k", "partNumber=5")
    assert (part.status, part.body) == (206, two)
    assert part.headers["x-amz-mp-parts-count"] == "2"
    assert part.headers["content-range"] == "bytes 3000-3499/3500"
    missing = await w.call("GET", "/bucket/k", "partNumber=2")
    assert (missing.status, missing.code) == (416, "InvalidPartNumber")
    both = await w.call("GET", "/bucket/k", "partNumber=1", headers={"range": "bytes=0-1"})
    assert both.code == "InvalidRequest"
    assert (await w.call("GET", "/bucket/k", f"uploadId={upload}")).code == "NoSuchUpload"


async def test_what_completion_refuses(w: S3World) -> None:
    upload = await begin(w)
    etag = await put_part(w, upload, 1, b"x" * 200)
    other = await put_part(w, upload, 2, b"y" * 200)
    for body, code in (
        (complete_xml(), "MalformedXML"),
        (b"<x>", "MalformedXML"),
        (complete_xml((0, etag)), "InvalidArgument"),
        (complete_xml((1, "")), "MalformedXML"),
        (complete_xml((2, other), (1, etag)), "InvalidPartOrder"),
        (complete_xml((1, etag), (1, etag)), "InvalidPartOrder"),
        (complete_xml((1, other)), "InvalidPart"),
        (complete_xml((3, etag)), "InvalidPart"),
    ):
        assert (await complete(w, upload, body)).code == code
    good = complete_xml((1, etag))
    assert (await complete(w, upload, good, x_amz_mp_object_size="1")).status == 400
    assert (await complete(w, upload, good, if_match="none")).code == "NoSuchKey"
    assert (await complete(w, "0" * 32, good)).code == "NoSuchUpload"
    assert (await w.call("GET", "/bucket/k")).status == 404
    assert (await complete(w, upload, good, if_none_match="*")).status == 200
    second = await begin(w)
    etag = await put_part(w, second, 1, b"z")
    late = await complete(w, second, complete_xml((1, etag)), if_none_match="*")
    assert (late.status, late.code) == (412, "PreconditionFailed")


async def test_aborted_uploads_leave_nothing(w: S3World) -> None:
    for _ in range(20):
        upload = await begin(w)
        await put_part(w, upload, 1, pattern(2500))
        query = f"uploadId={upload}"
        assert (await w.call("DELETE", "/bucket/k", query)).status == 204
        assert (await w.call("DELETE", "/bucket/k", query)).code == "NoSuchUpload"
        answer = await w.call("PUT", "/bucket/k", f"partNumber=2&{query}", body=b"late")
        assert answer.code == "NoSuchUpload"
    await w.nothing_left()


async def test_parts_are_copied_from_objects(w: S3World) -> None:
    content = pattern(5000)
    await w.call("PUT", "/bucket/source", body=content)
    upload = await begin(w)
    etags = []
    for number, text in ((1, None), (2, "bytes=1500-2499")):
        headers = {"x-amz-copy-source": "bucket/source"}
        if text:
            headers["x-amz-copy-source-range"] = text
        query = f"partNumber={number}&uploadId={upload}"
        answer = await w.call("PUT", "/bucket/k", query, headers=headers)
        etags.append((number, answer.xml("CopyPartResult").value("ETag") or ""))
    for text, code in (("bytes=0-5000", "InvalidRange"), ("0-2", "InvalidArgument")):
        headers = {"x-amz-copy-source": "bucket/source", "x-amz-copy-source-range": text}
        query = f"partNumber=3&uploadId={upload}"
        assert (await w.call("PUT", "/bucket/k", query, headers=headers)).code == code
    assert (await complete(w, upload, complete_xml(*etags))).status == 200
    assert (await w.call("GET", "/bucket/k")).body == content + content[1500:2500]


def crc32(content: bytes) -> str:
    return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()


@pytest.mark.parametrize("kind", ["COMPOSITE", "FULL_OBJECT"])
async def test_checksums_of_parts_and_of_the_whole(w: S3World, kind: str) -> None:
    one, two = pattern(1500, 1), pattern(300, 2)
    upload = await begin(w, x_amz_checksum_algorithm="CRC32", x_amz_checksum_type=kind)
    rows = ""
    for number, content in ((1, one), (2, two)):
        query = f"partNumber={number}&uploadId={upload}"
        headers = {"x-amz-checksum-crc32": crc32(content)}
        answer = await w.call("PUT", "/bucket/k", query, body=content, headers=headers)
        assert answer.headers["x-amz-checksum-crc32"] == crc32(content)
        rows += (
            f"<Part><PartNumber>{number}</PartNumber><ETag>{answer.headers['etag']}</ETag>"
            f"<ChecksumCRC32>{crc32(content)}</ChecksumCRC32></Part>"
        )
    body = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()
    parts = base64.b64decode(crc32(one)) + base64.b64decode(crc32(two))
    expected = crc32(one + two) if kind == "FULL_OBJECT" else f"{crc32(parts)}-2"
    for wrong in ("AAAAAA==", "nonsense"):
        answer = await complete(w, upload, body, x_amz_checksum_crc32=wrong)
        assert answer.code == "BadDigest"
    answer = await complete(w, upload, body, x_amz_checksum_crc32=expected)
    result = answer.xml("CompleteMultipartUploadResult")
    assert (result.value("ChecksumCRC32"), result.value("ChecksumType")) == (expected, kind)
    head = await w.call("HEAD", "/bucket/k", headers={"x-amz-checksum-mode": "ENABLED"})
    assert head.headers["x-amz-checksum-crc32"] == expected
    wanted = {"x-amz-object-attributes": "ETag,Checksum,ObjectParts,StorageClass,ObjectSize"}
    answer = await w.call("GET", "/bucket/k", "attributes=", headers=wanted)
    tree = answer.xml("GetObjectAttributesResponse")
    listed = tree.child("ObjectParts")
    assert listed is not None and listed.value("PartsCount") == "2"
    assert [item.value("ChecksumCRC32") for item in listed.all("Part")] == [crc32(one), crc32(two)]
    bad = {"x-amz-object-attributes": "Colour"}
    assert (await w.call("GET", "/bucket/k", "attributes=", headers=bad)).status == 400


@pytest.mark.parametrize("checksums", ["when_supported", "when_required"])
async def test_boto3(w: S3World, checksums: str) -> None:
    content = pattern(50_000)

    def talk() -> None:
        client = w.boto(request_checksum_calculation=checksums)
        client.create_bucket(Bucket="boto")
        client.put_object(Bucket="boto", Key="a/é", Body=content, Metadata={"k": "v"})
        assert client.get_object(Bucket="boto", Key="a/é")["Body"].read() == content
        client.copy_object(Bucket="boto", Key="copy", CopySource={"Bucket": "boto", "Key": "a/é"})
        upload = client.create_multipart_upload(Bucket="boto", Key="m", ChecksumAlgorithm="SHA256")[
            "UploadId"
        ]
        parts = []
        for number in (1, 2):
            answer = client.upload_part(
                Bucket="boto",
                Key="m",
                UploadId=upload,
                PartNumber=number,
                Body=content,
                ChecksumAlgorithm="SHA256",
            )
            checksum = answer["ChecksumSHA256"]
            parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum})
        client.complete_multipart_upload(
            Bucket="boto", Key="m", UploadId=upload, MultipartUpload={"Parts": parts}
        )
        whole = client.get_object(Bucket="boto", Key="m", ChecksumMode="ENABLED")
        assert whole["Body"].read() == content * 2
        listed = client.list_objects_v2(Bucket="boto")["Contents"]
        assert [item["Key"] for item in listed] == ["a/é", "copy", "m"]
        doomed = {"Objects": [{"Key": item["Key"]} for item in listed]}
        assert len(client.delete_objects(Bucket="boto", Delete=doomed)["Deleted"]) == 3
        client.delete_bucket(Bucket="boto")
        client.close()

    await asyncio.to_thread(talk)
    await w.nothing_left()
