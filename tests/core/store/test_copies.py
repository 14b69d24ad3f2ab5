"""Copies: shared blocks where nothing changes, read and put again where something does."""

from __future__ import annotations

import hashlib

import pytest

from garage_lite.core.errors import (
    AccessDenied,
    BlockMissing,
    InvalidRange,
    NoSuchKey,
    NoSuchUpload,
    NotAllowedHere,
    PreconditionFailed,
    QuotaExceeded,
)
from garage_lite.core.ids import VersionId
from garage_lite.core.model.objects import Checksum, Kind, ObjectVersion
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.model.versions import PAGE_BLOCKS
from garage_lite.core.store.completion import PartClaim
from garage_lite.core.store.conditions import ReadCondition, WriteCondition
from garage_lite.core.store.copies import CopyPartRequest, CopyRequest, Source
from garage_lite.core.store.encryption import CustomerKey
from tests.core.store.test_encryption import KEY, OTHER
from tests.core.store.test_uploads import WHOLE, complete, create, put_all
from tests.core.store.world import BLOCK, Bytes, World, pattern


async def copy(
    w: World,
    source: bytes,
    target: bytes,
    *,
    source_key: CustomerKey | None = None,
    condition: ReadCondition | None = None,
    **more: object,
) -> ObjectVersion:
    wanted = Source(w.bucket.id, source, condition=condition, customer_key=source_key)
    version, _ = await w.copies.copy_object(
        CopyRequest(wanted, w.bucket, target, **more)  # type: ignore[arg-type]
    )
    return version


async def copy_part(
    w: World, upload_id: VersionId, number: int, source: bytes, *span: int
) -> PartClaim:
    first, last = span or (None, None)
    wanted = Source(w.bucket.id, source)
    request = CopyPartRequest(wanted, w.bucket, b"key", upload_id, number, first, last)
    part, _ = await w.copies.copy_part(request)
    return PartClaim(number, part.etag_text)


@pytest.mark.parametrize("size", [0, 70, BLOCK, 5 * BLOCK + 3])
async def test_a_copy_has_all_of_its_source(w: World, size: int) -> None:
    content = pattern(size)
    headers = (("content-type", "text/x"), ("x-amz-meta-a", "é"))
    source = await w.put(b"a", Bytes(content, digests=["CRC32C"]), headers=headers)
    files = len(w.block_files())
    version = await copy(w, b"a", b"b")
    assert (version.etag, version.size, version.meta) == (source.etag, size, source.meta)
    assert await w.get(b"b") == content
    assert len(w.block_files()) == files, "no block is written twice"


async def test_a_copy_outlives_its_source_and_the_source_its_copy(w: World) -> None:
    content = pattern(5 * BLOCK)
    await w.put(b"a", content)
    await copy(w, b"a", b"b")
    await w.objects.delete(w.bucket, b"a")
    assert (await w.left()).live_refs == 5
    assert await w.get(b"b") == content
    await copy(w, b"b", b"c")
    await w.objects.delete(w.bucket, b"c")
    assert (await w.left()).live_refs == 5
    assert await w.get(b"b") == content
    await w.objects.delete(w.bucket, b"b")
    await w.nothing_left()


async def test_a_long_copy_has_full_pages(w: World) -> None:
    content = pattern((PAGE_BLOCKS + 3) * BLOCK)
    await w.put(b"a", content)
    assert await w.count(Table.PAGE) == PAGE_BLOCKS + 3
    await copy(w, b"a", b"b")
    assert await w.count(Table.PAGE) == PAGE_BLOCKS + 3 + 2
    assert (
        await w.get(b"b", 127 * BLOCK - 5, 129 * BLOCK + 5)
        == (content[127 * BLOCK - 5 : 129 * BLOCK + 5])
    )


async def test_replaced_headers(w: World) -> None:
    await w.put(b"a", pattern(3 * BLOCK), headers=(("x-amz-meta-a", "b"),))
    version = await copy(w, b"a", b"b", headers=(("x-amz-meta-c", "d"),))
    assert version.meta.headers == (("x-amz-meta-c", "d"),)
    emptied = await copy(w, b"a", b"b", headers=())
    assert emptied.meta.headers == ()


@pytest.mark.parametrize("size", [70, 3 * BLOCK])
async def test_a_copy_to_itself(w: World, size: int) -> None:
    """Must never drop the references it is about to share."""
    content = pattern(size)
    await w.put(b"a", content)
    with pytest.raises(NotAllowedHere):
        await copy(w, b"a", b"a")
    version = await copy(w, b"a", b"a", headers=(("x-amz-meta-a", "b"),))
    assert version.meta.headers
    assert (await w.left()).live_refs == size // BLOCK
    assert await w.get(b"a") == content


async def test_a_multipart_source_becomes_one_run(w: World) -> None:
    upload_id = await create(w)
    await complete(w, upload_id, await put_all(w, upload_id))
    source = await w.objects.head(w.bucket.id, b"key")
    version = await copy(w, b"key", b"b")
    assert version.kind is Kind.BLOCKS and version.etag_text == source.etag_text
    await w.objects.delete(w.bucket, b"key")
    await w.cascade()
    assert await w.get(b"b") == WHOLE
    assert await w.get(b"b", 2050, 6900) == WHOLE[2050:6900]


async def test_another_checksum_is_computed(w: World) -> None:
    content = pattern(3 * BLOCK)
    await w.put(b"a", Bytes(content, digests=["CRC32"]))
    version = await copy(w, b"a", b"b", checksum_algorithm="SHA256")
    assert version.meta.checksum == Checksum("SHA256", hashlib.sha256(content).digest())
    same = await copy(w, b"b", b"c")
    assert same.meta.checksum == version.meta.checksum


async def test_conditions_on_the_source(w: World) -> None:
    source = await w.put(b"a", b"x")
    with pytest.raises(PreconditionFailed):
        await copy(w, b"a", b"b", condition=ReadCondition(if_none_match=source.etag_text))
    with pytest.raises(PreconditionFailed):
        await copy(w, b"a", b"b", condition=ReadCondition(if_match="x"))
    await copy(w, b"a", b"b", condition=ReadCondition(if_match=source.etag_text))
    with pytest.raises(NoSuchKey):
        await copy(w, b"absent", b"b")


@pytest.mark.parametrize("size", [70, 3 * BLOCK])
async def test_conditions_and_quotas_on_the_target(w: World, size: int) -> None:
    await w.put(b"a", pattern(size))
    await w.put(b"b", b"old")
    with pytest.raises(PreconditionFailed):
        await copy(w, b"a", b"b", guard=WriteCondition(if_none_match="*"))
    w.quotas(size + 10, None)
    with pytest.raises(QuotaExceeded):
        await copy(w, b"a", b"b")
    assert await w.get(b"b") == b"old"
    left = await w.left()
    assert (left.pending, left.live_refs) == (0, size // BLOCK)


@pytest.mark.parametrize("size", [70, 3 * BLOCK])
async def test_encryption_on_either_side(w: World, size: int) -> None:
    content = pattern(size)
    await w.put(b"plain", content)
    await copy(w, b"plain", b"one", customer_key=KEY)
    assert await w.get(b"one", customer_key=KEY) == content
    await copy(w, b"one", b"two", source_key=KEY, customer_key=OTHER)
    assert await w.get(b"two", customer_key=OTHER) == content
    await copy(w, b"two", b"three", source_key=OTHER)
    assert await w.get(b"three") == content
    with pytest.raises(AccessDenied):
        await copy(w, b"one", b"x", source_key=OTHER)
    with pytest.raises(NotAllowedHere):
        await copy(w, b"one", b"x")
    await copy(w, b"one", b"one", source_key=KEY, customer_key=OTHER)
    assert await w.get(b"one", customer_key=OTHER) == content


async def test_a_block_that_is_not_there_is_not_acknowledged(w: World) -> None:
    await w.put(b"a", pattern(3 * BLOCK))
    path = next((w.directory / "data").glob("??/??/*"))
    path.unlink()
    with pytest.raises(BlockMissing):
        await copy(w, b"a", b"b")
    left = await w.left()
    assert (left.pending, left.live_refs) == (0, 3)


async def test_parts_from_copies(w: World) -> None:
    content = pattern(9 * BLOCK + 7)
    await w.put(b"a", content)
    await w.put(b"small", b"tiny")
    upload_id = await create(w)
    claims = [
        await copy_part(w, upload_id, 1, b"a", 0, 4 * BLOCK - 1),
        await copy_part(w, upload_id, 2, b"a", 4 * BLOCK + 1, 9 * BLOCK + 6),
        await copy_part(w, upload_id, 3, b"small"),
    ]
    assert claims[0].etag == hashlib.md5(content[: 4 * BLOCK]).hexdigest()
    await complete(w, upload_id, claims)
    assert await w.get(b"key") == content[: 4 * BLOCK] + content[4 * BLOCK + 1 :] + b"tiny"


async def test_ranges_that_are_none(w: World) -> None:
    await w.put(b"a", b"0123456789")
    upload_id = await create(w)
    for span in ((0, 10), (5, 4), (10, 10)):
        with pytest.raises(InvalidRange):
            await copy_part(w, upload_id, 1, b"a", *span)
    with pytest.raises(NoSuchUpload):
        await copy_part(w, VersionId(bytes(16)), 1, b"a")
    with pytest.raises(NoSuchKey):
        await copy_part(w, upload_id, 1, b"absent")
    left = await w.left()
    assert (left.pending, left.parts) == (0, 0)
