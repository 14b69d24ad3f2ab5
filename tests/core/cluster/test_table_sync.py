"""Replicas that missed something come to hold the same bytes, by bounded messages."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from garage_lite.core.cluster.row_exchange import CALL_SECONDS
from garage_lite.core.cluster.sync_service import DIGESTS, HASHES, ROWS
from garage_lite.core.ids import BlockHash, BucketId, DataId, VersionId
from garage_lite.core.limits import ROWS_ANSWER_BYTES_MAX
from garage_lite.core.model.objects import Floor, Kind, ObjectVersion
from garage_lite.core.model.rowkeys import (
    Stamp,
    block_ref_row,
    inline_row,
    object_prefix,
    object_row,
)
from garage_lite.core.model.versions import BlockRef
from garage_lite.core.table.schema import Update
from tests.core.cluster.syncing import Syncing
from tests.sim.loop import run

NOW_US = 1_700_000_000_000_000


def ident(number: int) -> VersionId:
    return VersionId(number.to_bytes(16, "big"))


def bucket(partition: int) -> BucketId:
    return BucketId(bytes([partition]) * 32)


def version(key: str, at: int, *, where: int = 7, kind: Kind = Kind.INLINE) -> list[Update]:
    """An object of that key written at a time, with its bytes; DELETE_MARKER: its deletion."""
    stamp = Stamp(NOW_US + at, 0, ident(at))
    size = 3 if kind is Kind.INLINE else 0
    made = ObjectVersion(stamp, kind, 0, size=size, etag=bytes(16), floor=Floor.ALL)
    row = object_row(object_prefix(bucket(where), key.encode()), stamp)
    rows = [Update(row, made.encode())]
    if kind is Kind.INLINE:
        rows.append(Update(inline_row(bucket(where), ident(at)), b"abc"))
    return rows


def reference(number: int, *, deleted: bool = False) -> Update:
    block = BlockHash(bytes([number % 256]) + number.to_bytes(31, "big"))
    return Update(
        block_ref_row(block, DataId(ident(number))), BlockRef(bucket(7), deleted).encode()
    )


def deletion(key: str, at: int, *, where: int = 7) -> list[Update]:
    return version(key, at, where=where, kind=Kind.DELETE_MARKER)


@pytest.mark.parametrize("seed", range(4))
def test_i24_replicas_that_missed_writes_converge_to_the_same_bytes(seed: int) -> None:
    rng = random.Random(seed)

    async def main() -> None:
        async with Syncing(3) as w:
            for number in range(150):
                key, where = f"k{rng.randrange(40)}", rng.choice([7, 8, 255])
                rows = (
                    version(key, number, where=where)
                    if rng.random() < 0.7
                    else deletion(key, number, where=where)
                )
                if rng.random() < 0.2:
                    rows = [reference(number, deleted=rng.random() < 0.3)]
                for node in rng.sample(range(3), rng.choice([1, 2, 2, 3])):
                    await w.members[node].replica.apply(rows, w[node].now_ms(), None, False)
            assert w.differing()
            await w.until(lambda: not w.differing())
            assert len(w.rows(0)) > 20

    run(main(), seed)


def test_i27_a_deleted_key_does_not_come_back_from_a_replica_that_missed_it() -> None:
    async def main() -> None:
        async with Syncing(3) as w:
            for node in range(3):
                await w.members[node].replica.apply(version("k", 1), 0, None, False)
            for node in (0, 1):
                await w.members[node].replica.apply(deletion("k", 2), 0, None, False)
            await w.until(lambda: not w.differing())
            marker = deletion("k", 2)[0]
            assert w.rows(2) == {marker.key: marker.value}

    run(main())


def test_bytes_of_inline_objects_come_with_their_versions() -> None:
    async def main() -> None:
        async with Syncing(2) as w:
            await w.members[0].replica.apply(version("k", 1), 0, None, False)
            await w.until(lambda: not w.differing())
            assert set(w.rows(1)) == {row.key for row in version("k", 1)}

    run(main())


def test_equal_replicas_tell_each_other_little() -> None:
    async def main() -> None:
        async with Syncing(3) as w:
            for node in range(3):
                await w.plant(node, *(reference(number) for number in range(300)))
            await w.rounds(seconds=30)
            before = len(w.calls)
            for worker in w.workers.values():
                worker.everything_now()
            await w.rounds(seconds=30)
            made = w.calls[before:]
            assert {call.endpoint for call in made if call.endpoint.startswith("sync/")} <= {
                DIGESTS,
                "sync/hello",
            }
            assert sum(call.endpoint == DIGESTS for call in made) <= 6 * 17

    run(main())


def test_i36_a_big_partition_is_synced_by_bounded_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    answer = Syncing.answer

    async def measured(w: Syncing, source: int, target: int, endpoint: str, payload: Any) -> Any:
        found = await answer(w, source, target, endpoint, payload)
        if endpoint in (HASHES, ROWS):
            sizes.append(len(repr(found)) // 2)
        return found

    monkeypatch.setattr(Syncing, "answer", measured)

    async def main() -> None:
        async with Syncing(2) as w:
            for start in range(0, 6000, 100):
                rows = [row for n in range(start, start + 100) for row in version(f"k{n:05}", n)]
                await w.members[0].replica.apply(rows, 0, None, False)
            await w.until(lambda: not w.differing(), 1, seconds=2000)
            assert max(sizes) < 2 * ROWS_ANSWER_BYTES_MAX
            assert len(sizes) > 10
            assert len(w.rows(1)) == 12_000

    run(main())


def test_i15_a_frozen_peer_stops_no_sync_among_the_others() -> None:
    async def main() -> None:
        async with Syncing(3) as w:
            await w.plant(0, reference(1))
            w.freeze(1)
            held = reference(1).key
            await w.until(
                lambda: w.members[2].holds(held) is not None, 0, 2, seconds=3 * CALL_SECONDS
            )

    run(main())


def test_a_node_that_comes_back_is_synced_at_once() -> None:
    async def main() -> None:
        async with Syncing(3) as w:
            await w.rounds(seconds=30)
            w.cut(2)
            await asyncio.sleep(5)
            await w.plant(0, reference(1))
            await w.plant(1, reference(1))
            await w.rounds(seconds=5)
            w.heal()
            await w.until(lambda: not w.differing(), seconds=30)

    run(main())
