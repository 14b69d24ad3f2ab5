"""Put, look up, read, delete: on real tables and files."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

import pytest

from garage_lite.core.errors import (
    BadDigest,
    BlockCorrupt,
    BlockMissing,
    DiskFull,
    IncompleteBody,
    NoSuchBucket,
    NoSuchKey,
    NoSuchVersion,
    QuotaExceeded,
)
from garage_lite.core.model.buckets import Versioning
from garage_lite.core.model.counters import Counters
from garage_lite.core.model.objects import Kind
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.store.deletions import DeleteKey, DeleteResult
from tests.core.store.world import BLOCK, Bytes, World, pattern

SIZES = [0, 1, 100, 101, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 7 * BLOCK + 13]


@pytest.mark.parametrize("size", SIZES)
async def test_what_was_put_is_read(w: World, size: int) -> None:
    content = pattern(size)
    version = await w.put(b"key", content, headers=(("content-type", "text/x"),))
    assert version.kind is (Kind.INLINE if size <= 100 else Kind.BLOCKS)
    assert version.etag == hashlib.md5(content, usedforsecurity=False).digest()
    assert await w.objects.head(w.bucket.id, b"key") == version
    assert version.size == size and version.meta.headers == (("content-type", "text/x"),)
    assert await w.get(b"key") == content
    assert await w.counters() == Counters(objects=1, total_bytes=size)


@pytest.mark.parametrize("size", [60, 3 * BLOCK + 7])
async def test_every_range(w: World, size: int) -> None:
    content = pattern(size)
    await w.put(b"key", content)
    step = max(1, size // 9)
    for start in range(0, size, step):
        for end in range(start, size + 1, step):
            assert await w.get(b"key", start, end) == content[start:end]
    assert await w.get(b"key", size - 1, size) == content[-1:]


async def test_an_unannounced_length_and_tiny_chunks(w: World) -> None:
    content = pattern(2 * BLOCK + 5)
    await w.put(b"key", Bytes(content, chunk=7, announced=False))
    assert await w.get(b"key") == content
    await w.put(b"small", Bytes(content[:90], chunk=7, announced=False))
    assert await w.get(b"small") == content[:90]


async def test_an_overwrite_leaves_nothing_of_the_old(w: World) -> None:
    await w.put(b"key", pattern(5 * BLOCK))
    await w.put(b"key", b"short")
    assert await w.get(b"key") == b"short"
    await w.nothing_left()
    assert await w.counters() == Counters(objects=1, total_bytes=5)
    assert await w.count(Table.OBJECT) == 1


async def test_delete_leaves_nothing(w: World) -> None:
    await w.put(b"big", pattern(5 * BLOCK))
    await w.put(b"small", b"small")
    for key in (b"big", b"small"):
        assert await w.objects.delete(w.bucket, key) == DeleteResult()
        with pytest.raises(NoSuchKey):
            await w.get(key)
    await w.nothing_left()
    assert await w.counters() == Counters()
    assert await w.count(Table.INLINE) == 0


async def test_deleting_what_is_not_there_writes_nothing(w: World) -> None:
    assert await w.objects.delete(w.bucket, b"key") == DeleteResult()
    assert await w.count(Table.OBJECT) == 0
    await w.put(b"key", b"x")
    await w.objects.delete(w.bucket, b"key")
    rows = [row async for row in w.rows(Table.OBJECT)]
    await w.objects.delete(w.bucket, b"key")
    assert [row async for row in w.rows(Table.OBJECT)] == rows


async def test_a_failed_put_leaves_the_old_version_and_nothing_else(w: World) -> None:
    """Garage loses the previous version when an overwrite fails."""
    for old, new in ((b"old", pattern(60)), (b"old", pattern(5 * BLOCK))):
        await w.put(b"key", old)
        with pytest.raises(BadDigest):
            await w.put(b"key", Bytes(new, expected={"SHA256": b"wrong"}))
        assert await w.get(b"key") == old
        await w.nothing_left()


class Torn(Bytes):
    """A body that ends too soon."""

    async def read(self) -> bytes:
        chunk = await super().read()
        if self.asked > 8:
            raise IncompleteBody
        return chunk


async def test_a_torn_body_leaves_nothing(w: World) -> None:
    with pytest.raises(IncompleteBody):
        await w.put(b"key", Torn(pattern(9 * BLOCK)))
    with pytest.raises(NoSuchKey):
        await w.objects.head(w.bucket.id, b"key")
    await w.nothing_left()


async def test_a_full_disk_fails_the_put_and_leaves_nothing(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, calls = w.files.put, 0

    async def full(*args: object, **more: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise DiskFull
        await put(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(w.files, "put", full)
    body = Bytes(pattern(50 * BLOCK))
    with pytest.raises(DiskFull):
        await w.put(b"key", body)
    assert body.asked < 40, "it must not read on after the disk failed"
    await w.nothing_left()


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8, 13, 21, 34, 55, 60, 70, 80])
async def test_a_client_that_goes_away_leaves_nothing(w: World, turns: int) -> None:
    await w.put(b"key", b"old")
    content = pattern(9 * BLOCK)
    put = asyncio.create_task(w.put(b"key", content))
    for _ in range(turns):
        await asyncio.sleep(0.0003 if turns > 50 else 0)
    put.cancel()
    try:
        await put
    except asyncio.CancelledError:
        assert await w.get(b"key") in (b"old", content)
    if await w.get(b"key") == b"old":
        await w.nothing_left()
    else:
        left = await w.left()
        assert (left.pending, left.live_refs) == (0, 9)


async def test_a_cancelled_last_write_is_not_taken_back(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = pattern(2 * BLOCK)
    write, reached, go = w.tables.write, asyncio.Event(), asyncio.Event()

    async def slow(changes: object, *args: object, **more: object) -> None:
        if any(change.key[0] == Table.OBJECT for change in changes):  # type: ignore[attr-defined]
            reached.set()
            await go.wait()
        await write(changes, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(w.tables, "write", slow)
    put = asyncio.create_task(w.put(b"key", content))
    await reached.wait()
    put.cancel()
    await asyncio.sleep(0.01)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await put
    await w.cascade()
    assert await w.get(b"key") == content


async def test_a_damaged_block_breaks_the_answer(w: World) -> None:
    content = pattern(3 * BLOCK)
    version = await w.put(b"key", content)
    files = sorted((w.directory / "data").glob("??/??/*"))
    for path in files:
        if path.suffix == "" and path.read_bytes() == content[BLOCK : 2 * BLOCK]:
            path.write_bytes(b"\0" * BLOCK)
    stream = await w.objects.read(w.bucket.id, version, 0, version.size)
    got = b""
    with pytest.raises((BlockCorrupt, BlockMissing)):
        async for piece in stream:
            got += piece
    assert got == content[:BLOCK]
    assert w.budget.free == w.budget.total and not len(w.storage.leases)


async def test_a_reader_that_stops_holds_nothing(w: World) -> None:
    version = await w.put(b"key", pattern(9 * BLOCK))
    stream = await w.objects.read(w.bucket.id, version, 0, version.size)
    assert w.storage.leases.held(version.id)
    await anext(stream)
    await stream.aclose()
    await asyncio.sleep(0)
    assert w.budget.free == w.budget.total and not len(w.storage.leases)


async def test_digests_are_computed_and_kept(w: World) -> None:
    for size in (50, 3 * BLOCK):
        content = pattern(size)
        sha = hashlib.sha256(content).digest()
        version = await w.put(b"key", Bytes(content, expected={"SHA256": sha}))
        assert version.meta.checksum is not None and version.meta.checksum.value == sha


async def test_versioned_buckets_keep_all_and_suspended_ones_the_named(w: World) -> None:
    null = await w.put(b"key", b"null")
    w.versioning(Versioning.ENABLED)
    first = await w.put(b"key", pattern(2 * BLOCK))
    second = await w.put(b"key", b"second")
    marker = await w.objects.delete(w.bucket, b"key")
    assert marker.delete_marker and marker.version_id
    with pytest.raises(NoSuchKey):
        await w.get(b"key")
    assert await w.get(b"key", version_id="null") == b"null"
    assert await w.get(b"key", version_id=first.version_id) == pattern(2 * BLOCK)
    removed = await w.objects.delete(w.bucket, b"key", marker.version_id)
    assert removed == DeleteResult(marker.version_id, delete_marker=True)
    assert await w.get(b"key") == b"second"
    await w.objects.delete(w.bucket, b"key", first.version_id)
    with pytest.raises(NoSuchVersion):
        await w.get(b"key", version_id=first.version_id)
    await w.nothing_left()
    w.versioning(Versioning.SUSPENDED)
    await w.put(b"key", b"newer null")
    assert await w.get(b"key", version_id="null") == b"newer null"
    assert await w.get(b"key", version_id=second.version_id) == b"second"
    assert null.version_id == "null"


async def test_delete_many_answers_for_each_key(w: World) -> None:
    keys = [b"k%04d" % number for number in range(1000)]
    for key in keys[:300]:
        await w.put(key, b"x")
    results = await w.objects.delete_many(w.bucket, [DeleteKey(key) for key in keys])
    assert results == [DeleteResult()] * 1000
    assert await w.counters() == Counters()


async def test_delete_many_of_the_longest_keys_fits_its_records(w: World) -> None:
    w.versioning(Versioning.ENABLED)
    keys = [b"\0" * 1020 + b"%04d" % number for number in range(1000)]
    results = await w.objects.delete_many(w.bucket, [DeleteKey(key) for key in keys])
    assert all(isinstance(one, DeleteResult) and one.delete_marker for one in results)
    assert await w.count(Table.OBJECT) == 1000


async def test_quotas_hold(w: World) -> None:
    w.quotas(1000, 2)
    await w.put(b"a", pattern(600))
    body = Bytes(pattern(500))
    with pytest.raises(QuotaExceeded):
        await w.put(b"b", body)
    assert body.asked == 0, "what is sure to be refused is refused before the body is read"
    with pytest.raises(QuotaExceeded):
        await w.put(b"b", Bytes(pattern(500), announced=False))
    await w.put(b"a", pattern(900))
    await w.put(b"b", b"x")
    with pytest.raises(QuotaExceeded):
        await w.put(b"c", b"x")
    await w.put(b"b", b"y")
    await w.objects.delete(w.bucket, b"a")
    await w.put(b"c", b"x")


async def test_a_bucket_deleted_during_an_upload_gets_nothing(w: World) -> None:
    class Late(Bytes):
        async def read(self) -> bytes:
            if self.asked == 5:
                await w.keep_bucket(replace(w.bucket, deleted=True))
            return await super().read()

    with pytest.raises(NoSuchBucket):
        await w.put(b"key", Late(pattern(5 * BLOCK)))
    await w.nothing_left()


async def test_keys_are_any_bytes(w: World) -> None:
    keys = [b"../x", b"//", b"\0", b"\0\xff", b"a\nb", "ä".encode(), b"\x01" * 1024]
    for key in keys:
        await w.put(key, key)
    for key in keys:
        assert await w.get(key) == key
