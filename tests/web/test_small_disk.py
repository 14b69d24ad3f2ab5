"""A disk that fills and empties again and again: what deletions free is there for new writes, and
nothing of what was refused stays. Time is moved past the delay of deletions."""

from __future__ import annotations

from pathlib import Path

import pytest

from garage_lite.core.limits import BLOCK_DELETE_DELAY_MS, KIB
from garage_lite.core.store.writing import StoreOptions
from garage_lite.core.workers.resync import ResyncQueue
from tests.core.store.world import pattern
from tests.durability.small_disk import small_disk
from tests.web.world import S3World

DISK_MIB = 24
OBJECT_BYTES = 700 * KIB
OBJECTS_MAX = 2 * DISK_MIB
OPTIONS = StoreOptions(block_bytes=64 * KIB, inline_bytes=3 * KIB, part_bytes_min=0)


async def eat(w: S3World) -> None:
    """Let all pass that follows a deletion, its delay too."""
    await w.cascade()
    w.clock.offset_s += BLOCK_DELETE_DELAY_MS // 1000 + 1
    blocks = w.blocks
    queue = ResyncQueue(blocks.store, blocks.fetcher.fetch, blocks.offload.offer)
    while await queue.step():
        pass
    # Clients sign with the real time.
    w.clock.offset_s = 0


async def fill(w: S3World, seed: int) -> int:
    """How many objects fit; the next one is refused, at each door."""
    for number in range(OBJECTS_MAX):
        content = pattern(OBJECT_BYTES, seed + number)
        answer = await w.call("PUT", f"/bucket/{number}", body=content)
        if answer.status != 200:
            break
        assert (await w.call("GET", f"/bucket/{number}")).body == content
    assert (answer.status, answer.code) == (503, "ServiceUnavailable")
    assert b"disk full" in answer.body
    begun = await w.call("POST", "/bucket/mp", "uploads=")
    upload = begun.xml("InitiateMultipartUploadResult").value("UploadId")
    part = await w.call("PUT", "/bucket/mp", f"partNumber=1&uploadId={upload}", body=content)
    assert (part.status, part.code) == (503, "ServiceUnavailable")
    assert (await w.call("DELETE", "/bucket/mp", f"uploadId={upload}")).status == 204
    return number


async def test_deletions_make_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", DISK_MIB) as disk:
        async with S3World(disk, OPTIONS) as w:
            assert (await w.call("PUT", "/bucket")).status == 200
            fitted = []
            for turn in range(3):
                count = await fill(w, 1000 * turn)
                fitted.append(count)
                for number in range(count):
                    assert (await w.call("DELETE", f"/bucket/{number}")).status == 204
                await w.nothing_left()
                await eat(w)
                assert w.block_files() == []
            # The log and its spare files take some megabytes while they grow.
            assert min(fitted) == pytest.approx(max(fitted), abs=5)
            assert min(fitted) > DISK_MIB // 2
