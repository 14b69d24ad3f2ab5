"""One key with 100,000 versions: what the verbs read of it, counted in rows and blocks.

A verb that read the versions below the current one would read thousands of blocks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TypeVar
from unittest.mock import Mock, patch

import pytest

from garage_lite.core.disk import segment_files
from garage_lite.core.ids import VersionId
from garage_lite.core.metalog.segment import decode_block
from garage_lite.core.model.buckets import Versioning
from garage_lite.core.model.counters import Counters
from garage_lite.core.model.objects import Floor, Kind, ObjectVersion
from garage_lite.core.model.rowkeys import (
    Stamp,
    buried_row,
    counter_row,
    inline_row,
    object_prefix,
    object_row,
)
from garage_lite.core.store.listing import Listing
from tests.core.store.world import World

T = TypeVar("T")

KEY = b"key"
VERSIONS = 100_000
OLDEST_US = 1_600_000_000_000_000
BLOCKS_MAX = 60
"""A verb asks for some ten rows, each at most in one block of each of a few segments; a page of
1,000 rows is another 35 blocks."""


def old(number: int) -> ObjectVersion:
    stamp = Stamp(OLDEST_US + number, 0, VersionId(number.to_bytes(16, "big")))
    if number == 0:
        return ObjectVersion(stamp, Kind.INLINE, 0, 1, bytes(16), floor=Floor.ALL)
    return ObjectVersion(stamp, Kind.INLINE, number, 1, bytes(16), null=False)


async def fill(w: World) -> None:
    """As if put one by one: the oldest before the bucket was versioned, the others since."""
    prefix = object_prefix(w.bucket.id, KEY)
    rows: list[tuple[bytes, bytes | None]] = []
    for number in range(VERSIONS):
        version = old(number)
        rows.append((object_row(prefix, version.stamp), version.encode()))
        if len(rows) == 4000:
            await w.metadata.room()
            w.metadata.commit(rows)
            rows = []
    rows.append((buried_row(object_row(prefix, old(0).stamp)), b"\x01"))
    rows += [(inline_row(w.bucket.id, old(n).id), b"x") for n in (0, 500, VERSIONS - 1)]
    counted = Counters(objects=1, total_bytes=VERSIONS)
    await w.metadata.commit([*rows, (counter_row(w.bucket.id), counted.encode())])
    await w.metadata.flush()


@pytest.fixture
async def many(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as world:
        await fill(world)
        world.versioning(Versioning.ENABLED)
        yield world


async def bounded(verb: Awaitable[T]) -> T:
    """The verb's result; that it decoded few blocks, and those few at a time."""
    with patch.object(segment_files, "decode_block", Mock(wraps=decode_block)) as read:
        result = await verb
    assert read.call_count <= BLOCKS_MAX
    return result


async def test_no_verb_reads_the_versions_below(many: World) -> None:
    w = many
    assert await bounded(w.get(KEY)) == b"x"
    assert await bounded(w.get(KEY, version_id=old(500).version_id)) == b"x"
    assert await bounded(w.get(KEY, version_id="null")) == b"x"
    new = await bounded(w.put(KEY, b"new"))
    assert await bounded(w.get(KEY)) == b"new"
    await bounded(w.objects.delete(w.bucket, KEY, new.version_id))
    assert await bounded(w.get(KEY)) == b"x"
    await bounded(w.objects.delete(w.bucket, KEY, old(500).version_id))
    assert (await w.counters()).total_bytes == VERSIONS - 1
    await bounded(w.objects.delete(w.bucket, KEY))
    assert (await w.counters()).objects == 0
    w.versioning(Versioning.SUSPENDED)
    await bounded(w.put(KEY, b"null"))
    assert await bounded(w.get(KEY, version_id="null")) == b"null"
    assert await w.tables.get(inline_row(w.bucket.id, old(0).id)) is None
    assert await w.counters() == Counters(objects=1, total_bytes=VERSIONS - 2 + 4)


async def test_no_page_reads_the_versions_it_does_not_show(many: World) -> None:
    w = many
    await w.put(b"next", b"1")
    listing = Listing(w.tables)
    page = await bounded(listing.objects(w.bucket.id))
    assert [entry.key for entry in page.entries] == [KEY, b"next"]
    for marker, first in ((old(50_000).version_id, 49_999), (old(2).version_id, 1), (None, None)):
        shown = await bounded(listing.versions(w.bucket.id, key_marker=KEY, version_marker=marker))
        times = [entry.mtime_ms for entry in shown.entries if entry.key == KEY]
        assert times == ([] if first is None else list(range(first, max(-1, first - 1000), -1)))
    shown = await bounded(listing.versions(w.bucket.id, key_marker=KEY, version_marker="null"))
    assert [entry.key for entry in shown.entries] == [b"next"]
