"""Looking inside an object."""

from __future__ import annotations

from collections.abc import Mapping

from blake3 import blake3

from garage_lite.core.ids import BucketId
from garage_lite.core.model.objects import Checksum
from garage_lite.core.store.body import PutRequest
from garage_lite.core.store.uploads import CreateRequest
from tests.web.admin.conftest import Lone


class Content:
    """A body that is there at once."""

    def __init__(self, content: bytes) -> None:
        self.size: int | None = len(content)
        self.digests: frozenset[str] = frozenset()
        self._left = content

    async def read(self) -> bytes:
        chunk, self._left = self._left[:200_000], self._left[200_000:]
        return chunk

    def finish(self, size: int, digests: Mapping[str, bytes]) -> Checksum | None:
        return None


async def put(lone: Lone, bucket: str, key: bytes, content: bytes) -> None:
    row = lone.context.directory.bucket_by_id(BucketId(bytes.fromhex(bucket)))
    headers = (("content-type", "text/plain"),)
    await lone.objects.put(PutRequest(row, key, Content(content), headers))


async def test_a_small_object_is_inline(lone: Lone) -> None:
    bucket = await lone.bucket()
    await put(lone, bucket, "né.txt".encode(), b"hello")
    found = await lone.do("InspectObject", {"bucketId": bucket, "key": "né.txt"})
    (version,) = found.pop("versions")
    assert found == {"bucketId": bucket, "key": "né.txt"}
    assert len(version.pop("uuid")) == 32
    assert version == {
        "timestamp": "2023-11-14T22:13:20Z",
        "encrypted": False,
        "uploading": False,
        "aborted": False,
        "deleteMarker": False,
        "inline": True,
        "size": 5,
        "etag": "5d41402abc4b2a76b9719d911017c592",
        "headers": [["content-type", "text/plain"]],
    }


async def test_a_bigger_one_has_blocks(lone: Lone) -> None:
    bucket = await lone.bucket()
    content = bytes(1 << 20) + b"x" * 500_000
    await put(lone, bucket, b"big", content)
    found = await lone.do("InspectObject", {"bucketId": bucket, "key": "big"})
    (version,) = found["versions"]
    assert not version["inline"] and version["size"] == len(content)
    assert version["blocks"] == [
        {
            "partNumber": 0,
            "offset": 0,
            "hash": blake3(bytes(1 << 20)).hexdigest(),
            "size": 1 << 20,
        },
        {
            "partNumber": 0,
            "offset": 1 << 20,
            "hash": blake3(b"x" * 500_000).hexdigest(),
            "size": 500_000,
        },
    ]


async def test_an_open_upload_is_shown(lone: Lone) -> None:
    bucket = await lone.bucket()
    row = lone.context.directory.bucket_by_id(BucketId(bytes.fromhex(bucket)))
    upload_id, _ = await lone.context.uploads.create(CreateRequest(row, b"big", "GKx"))
    found = await lone.do("InspectObject", {"bucketId": bucket, "key": "big"})
    (version,) = found["versions"]
    assert version["uuid"] == upload_id.hex()
    assert version["uploading"] and version["size"] is None and "blocks" not in version


async def test_what_is_not_there(lone: Lone) -> None:
    bucket = await lone.bucket()
    await put(lone, bucket, b"key", b"x")
    missing = await lone.refused("InspectObject", {"bucketId": bucket, "key": "ke"})
    assert (missing.code, missing.status) == ("NoSuchKey", 404)
    assert (await lone.refused("InspectObject", {"bucketId": bucket, "key": ""})).status == 400
    await lone.objects.delete(
        lone.context.directory.bucket_by_id(BucketId(bytes.fromhex(bucket))), b"key"
    )
    shown = await lone.do("InspectObject", {"bucketId": bucket, "key": "key"})
    assert [version["deleteMarker"] for version in shown["versions"]] == [True]
