"""Ten times the rows make a read no dearer: it decodes a block or two, and what is not there
costs next to nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from unittest.mock import patch

from garage_lite.core.disk import segment_files
from garage_lite.core.disk.metadata import MetadataStore
from garage_lite.core.metalog.segment import decode_block
from tests.core.disk.metadata_world import SMALL, open_store
from tests.sim.files import SimFiles
from tests.sim.loop import run

READS = 100
PER_HIT_MAX = 2.5
PER_MISS_MAX = 0.4
OPTIONS = replace(
    SMALL,
    memtable_bytes=60_000,
    log_file_bytes=1 << 20,
    segment_rows_max=4000,
    fan_in=4,
    block_cache_bytes=0,
)


def key(number: int) -> bytes:
    return b"\x20\x00%08d" % number


async def filled(count: int) -> MetadataStore:
    """Even numbers, in an order that leaves no segment a range of its own."""
    store = await open_store(SimFiles(), OPTIONS)
    numbers = list(range(0, 2 * count, 2))
    random.Random(count).shuffle(numbers)
    for start in range(0, count, 500):
        await store.room()
        await store.commit([(key(n), b"%d" % n * 3) for n in numbers[start : start + 500]])
    await store.flush()
    return store


def cost(store: MetadataStore, numbers: list[int], present: bool) -> float:
    """Blocks decoded for each read."""
    with patch.object(segment_files, "decode_block", wraps=decode_block) as decoded:
        for number in numbers:
            assert store.get(key(number)) == (b"%d" % number * 3 if present else None)
    return decoded.call_count / len(numbers)


def test_a_read_decodes_as_few_blocks_among_many_rows_as_among_few() -> None:
    async def main(count: int) -> None:
        store = await filled(count)
        chance = random.Random(1)
        there = [2 * chance.randrange(count) for _ in range(READS)]
        assert cost(store, there, present=True) <= PER_HIT_MAX
        assert cost(store, [number + 1 for number in there], present=False) <= PER_MISS_MAX
        await store.close()

    for count in (3_000, 30_000):
        run(main(count))
