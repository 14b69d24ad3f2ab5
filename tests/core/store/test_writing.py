"""An attempt's pending row: renewed while it lives, and the end of it when it is fenced."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from garage_lite.core.errors import DiskFull, StorageFailed, Unavailable
from garage_lite.core.ids import BlockHash, DataId
from garage_lite.core.limits import PENDING_LEASE_MS
from garage_lite.core.model.rowkeys import Table, pending_row
from garage_lite.core.model.versions import Pending, PendingState, decode_page
from garage_lite.core.ports import Buffer
from garage_lite.core.store import writing
from garage_lite.core.store.digests import MD5, Digests
from garage_lite.core.store.encryption import Cipher
from garage_lite.core.store.reading import PIECE_BYTES
from garage_lite.core.store.writing import Attempt, StoreOptions, hash_block
from garage_lite.core.table.schema import Update
from tests.core.store.test_encryption import ENCRYPTION, KEY
from tests.core.store.world import BLOCK, OPTIONS, Bytes, World, pattern

DATA = DataId(b"d" * 16)


async def pending(w: World) -> Pending:
    row = await w.tables.get(pending_row(w.bucket.id, DATA))
    assert row is not None
    return Pending.decode(row)


async def write(attempt: Attempt, content: bytes) -> None:
    for at in range(0, len(content), 400):
        await attempt.add(content[at : at + 400])


async def test_each_block_is_owned_by_a_row_before_it_is_there(w: World) -> None:
    async with w.storage.attempt(w.bucket.id, DATA) as attempt:
        await write(attempt, pattern(3 * BLOCK))
        digests = await attempt.end()
        assert digests == {MD5: hashlib.md5(pattern(3 * BLOCK)).digest()}
        assert attempt.size == 3 * BLOCK
        owner = await pending(w)
        assert (owner.state, owner.boot) == (PendingState.WRITING, w.storage.boot)
        pages = [decode_page(value) async for _, value in w.rows(Table.PAGE)]
        assert [block.size for page in pages for block in page] == [BLOCK] * 3
    await w.nothing_left()


@pytest.mark.parametrize("most", [1, 5])
async def test_so_many_blocks_of_a_stream_are_on_their_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    async with World(tmp_path, replace(OPTIONS, blocks_in_flight=most)) as w:
        put, running, seen = w.blocks.put, 0, set()

        async def counted(*arguments: Any, **named: Any) -> None:
            nonlocal running
            running += 1
            seen.add(running)
            await asyncio.sleep(0.005)
            await put(*arguments, **named)
            running -= 1

        monkeypatch.setattr(w.blocks, "put", counted)
        async with w.storage.attempt(w.bucket.id, DATA) as attempt:
            await write(attempt, pattern(20 * BLOCK))
            await attempt.end()
        assert max(seen) == most


async def test_a_long_upload_renews_its_lease(w: World) -> None:
    async with w.storage.attempt(w.bucket.id, DATA) as attempt:
        await write(attempt, pattern(BLOCK))
        await attempt.begin()
        first = await pending(w)
        w.clock.us += PENDING_LEASE_MS * 1000 * 2 // 3
        await write(attempt, pattern(BLOCK, seed=1))
        await attempt.end()
        assert (await pending(w)).lease_until_ms > first.lease_until_ms
    await w.nothing_left()


async def test_fenced_data_becomes_part_of_nothing(w: World) -> None:
    async with w.storage.attempt(w.bucket.id, DATA) as attempt:
        await write(attempt, pattern(2 * BLOCK))
        await attempt.end()
        gone = Pending(PendingState.REMOVED, 0, w.storage.node, w.storage.boot)
        await w.tables.write([Update(pending_row(w.bucket.id, DATA), gone.encode())])
        with pytest.raises(Unavailable):
            await attempt.commit([])
    await w.nothing_left()


async def test_nothing_is_written_for_an_attempt_that_never_began(w: World) -> None:
    async with w.storage.attempt(w.bucket.id, DATA) as attempt:
        await attempt.add(b"too little for a block")
    await w.nothing_left()
    assert await w.count(Table.CASCADE) == 0


async def test_a_refused_attempt_takes_no_room(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk keeps some room for deletions, which clients that try again must not eat."""
    written = []

    async def full(*arguments: Any, deletes_only: bool = False) -> None:
        if deletes_only:
            written.append(arguments)
            return
        raise DiskFull

    monkeypatch.setattr(w.tables, "write", full)
    with pytest.raises(DiskFull):
        async with w.storage.attempt(w.bucket.id, DATA) as attempt:
            await write(attempt, pattern(3 * BLOCK))
            await attempt.end()
    assert not written


async def test_the_name_is_that_of_what_is_stored() -> None:
    content = pattern(500)
    digests = Digests([MD5])
    block, stored = hash_block(digests, [content[:200], content[200:]], None, 0)
    assert block == blake3(content).digest() and b"".join(stored) == content
    cipher = Cipher(ENCRYPTION, KEY, DATA)
    block, stored = hash_block(digests, [content], cipher, 500)
    assert block == blake3(b"".join(stored)).digest()
    assert cipher.decrypt(bytes(stored[0]), 500) == content
    assert digests.results()[MD5] == hashlib.md5(content * 2).digest()


async def test_blocks_are_digested_in_order_however_slow_a_thread_is(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(
        digests: Digests, parts: list[Buffer], cipher: Cipher | None, offset: int
    ) -> tuple[BlockHash, list[Buffer]]:
        if offset == 0:
            time.sleep(0.03)
        return hash_block(digests, parts, cipher, offset)

    monkeypatch.setattr(writing, "hash_block", slow)
    version = await w.put(b"key", pattern(4 * BLOCK))
    assert version.etag == hashlib.md5(pattern(4 * BLOCK)).digest()


async def test_large_blocks_are_sent_in_pieces(w: World) -> None:
    w.storage.options = StoreOptions(block_bytes=PIECE_BYTES * 2 + 5)
    content = pattern(PIECE_BYTES * 5)
    w.budget.total = w.budget.free = 4 * len(content)
    version = await w.put(b"key", Bytes(content, chunk=100_000))
    stream = await w.objects.read(w.bucket.id, version, 1, version.size)
    pieces = [piece async for piece in stream]
    assert b"".join(pieces) == content[1:]
    assert max(map(len, pieces)) == PIECE_BYTES


async def test_a_read_ahead_that_fails_unheard_is_no_fault(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = await w.put(b"key", pattern(4 * BLOCK))
    get, calls = w.files.get, 0

    async def failing(block: object) -> bytes:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise StorageFailed
        return await get(block)  # type: ignore[arg-type]

    monkeypatch.setattr(w.files, "get", failing)
    stream = await w.objects.read(w.bucket.id, version, 0, version.size)
    await anext(stream)
    await asyncio.sleep(0.01)
    await stream.aclose()
    assert w.budget.free == w.budget.total
    calls = 0
    stream = await w.objects.read(w.bucket.id, version, 0, version.size)
    await anext(stream)
    with pytest.raises(StorageFailed):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_version_that_went_before_it_was_read(w: World) -> None:
    for size in (50, 3 * BLOCK):
        version = await w.put(b"key", pattern(size))
        await w.objects.delete(w.bucket, b"key")
        await w.cascade()
        with pytest.raises(Unavailable):
            await w.objects.read(w.bucket.id, version, 0, version.size)
        assert not len(w.storage.leases)
