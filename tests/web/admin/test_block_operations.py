"""Who uses a block, and what its loss takes along."""

from __future__ import annotations

from typing import Any

from blake3 import blake3

from garage_lite.core.ids import BucketId
from garage_lite.core.store.uploads import CreateRequest, PartRequest
from tests.core.blocks_on_disk import noise
from tests.web.admin.conftest import HERE, Lone
from tests.web.admin.test_object_inspection import Content, put

CONTENT = noise(1, 50_000)
BLOCK = blake3(CONTENT).hexdigest()


async def error_of(lone: Lone, name: str, body: Any) -> str:
    answer = await lone.do(name, {"node": "self", "body": body})
    return str(answer["error"][HERE.hex()])


async def used_twice(lone: Lone) -> str:
    """One block in an object and in the part of an upload."""
    bucket = await lone.bucket()
    await put(lone, bucket, b"key", CONTENT)
    row = lone.context.directory.bucket_by_id(BucketId(bytes.fromhex(bucket)))
    uploads = lone.context.uploads
    upload, _ = await uploads.create(CreateRequest(row, b"parts", "GK0"))
    await uploads.put_part(PartRequest(row, b"parts", upload, 1, Content(CONTENT)))
    return bucket


async def test_who_uses_a_block(lone: Lone) -> None:
    bucket = await used_twice(lone)
    info = await lone.here("GetBlockInfo", {"blockHash": BLOCK[:7]})
    assert info == await lone.here("GetBlockInfo", {"blockHash": BLOCK})
    assert (info["blockHash"], info["refcount"]) == (BLOCK, 2)
    links = [version["backlink"] for version in info["versions"]]
    assert {"object": {"bucketId": bucket, "key": "key"}} in links
    (upload,) = [link["upload"] for link in links if "upload" in link]
    assert (upload["bucketId"], upload["key"]) == (bucket, "parts")
    assert not any(version["versionDeleted"] for version in info["versions"])
    for text, code in (
        ("0" * 64, "NoSuchBlock"),
        ("ffff", "NoSuchBlock"),
        ("abc", "InvalidRequest"),
    ):
        assert (await error_of(lone, "GetBlockInfo", {"blockHash": text})).startswith(code)


async def test_purging_a_block_takes_what_needs_it(lone: Lone) -> None:
    bucket = await used_twice(lone)
    await put(lone, bucket, b"other", CONTENT[:40_000])
    assert await lone.here("PurgeBlocks", [BLOCK]) == {
        "blocksPurged": 1,
        "blockRefsPurged": 2,
        "versionsDeleted": 1,
        "objectsDeleted": 1,
        "uploadsDeleted": 1,
    }
    info = await lone.here("GetBlockInfo", {"blockHash": BLOCK})
    assert info["refcount"] == 0
    assert all(version["refDeleted"] for version in info["versions"])
    missing = await lone.refused("InspectObject", {"bucketId": bucket, "key": "key"})
    assert missing.code == "NoSuchKey"
    assert (await lone.do("InspectObject", {"bucketId": bucket, "key": "other"}))["versions"]
