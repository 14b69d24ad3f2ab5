"""What an upload costs in metadata: so many bytes a block, however many blocks there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from garage_lite.core.ids import VersionId
from garage_lite.core.store.completion import CompleteRequest, PartClaim
from garage_lite.core.store.uploads import CreateRequest, PartRequest
from garage_lite.core.store.writing import StoreOptions
from tests.core.store.world import Bytes, World, pattern

BLOCK = 64
FEW, MANY = 150, 600
GROWTH_MAX = 1.15
"""Of the bytes a block, from few blocks to many; rewriting a list of them would make it four."""

Upload = Callable[[World, int], Awaitable[None]]


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    options = StoreOptions(block_bytes=BLOCK, inline_bytes=10, part_bytes_min=0)
    async with World(tmp_path, options) as world:
        yield world


async def put(w: World, blocks: int) -> None:
    await w.put(b"key", Bytes(pattern(blocks * BLOCK, seed=blocks), chunk=10 * BLOCK))


async def parts(w: World, count: int) -> None:
    """Each part of one block."""
    upload: VersionId
    upload, _ = await w.uploads.create(CreateRequest(w.bucket, b"key", "GK1"))
    claims = []
    for number in range(1, count + 1):
        body = Bytes(pattern(BLOCK, seed=1000 * count + number))
        part = await w.uploads.put_part(PartRequest(w.bucket, b"key", upload, number, body))
        claims.append(PartClaim(number, part.etag_text))
    await w.uploads.complete(CompleteRequest(w.bucket, b"key", upload, claims))


async def written(w: World, work: Awaitable[None]) -> int:
    """Bytes of all rows that went into the log."""
    total = 0
    commit = w.metadata.commit

    def counted(rows: Any, **options: Any) -> Any:
        nonlocal total
        rows = list(rows)
        total += sum(len(key) + len(value or b"") for key, value in rows)
        return commit(rows, **options)

    with patch.object(w.metadata, "commit", counted):
        await work
    return total


@pytest.mark.parametrize("upload", [put, parts])
async def test_metadata_grow_with_the_blocks_and_not_with_their_square(
    w: World, upload: Upload
) -> None:
    few = await written(w, upload(w, FEW)) / FEW
    many = await written(w, upload(w, MANY)) / MANY
    assert many <= GROWTH_MAX * few
