"""A node's digests always are those of the rows that its readers see."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

import pytest

from garage_lite.core.cluster.row_digests import RowDigests
from garage_lite.core.disk.metadata import MetadataStore
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.table.digest import BUCKETS, Digest, Place, Realm, bucket_of, row_hash
from tests.core.disk.metadata_world import open_store
from tests.sim.files import SimFiles
from tests.sim.loop import run

PLACE = Place(Realm.METADATA, 7)
OTHER = Place(Realm.METADATA, 8)


def key(table: Table, number: int, partition: int = 7) -> bytes:
    return bytes((table, partition)) + number.to_bytes(4, "big")


def rows_of(store: MetadataStore, place: Place) -> list[tuple[bytes, bytes]]:
    return [
        row
        for start, end in place.ranges()
        for keys, values in store.scan(start, end)
        for row in zip(keys, values, strict=True)
    ]


def plain(store: MetadataStore, place: Place = PLACE) -> bytes:
    digest = Digest()
    digest.add(rows_of(store, place))
    return digest.encode()


async def churn(store: MetadataStore, rng: random.Random, writes: int) -> None:
    """Rows written, overwritten, deleted, many in one batch and one several times in it."""
    for _ in range(writes):
        keys = [
            key(rng.choice([Table.OBJECT, Table.PAGE, Table.COUNTER]), rng.randrange(300))
            for _ in range(rng.randrange(1, 6))
        ]
        done = [
            store.commit([(one, rng.choice([None, rng.randbytes(3)]))])
            for one in (*keys, rng.choice(keys))
        ]
        if rng.random() < 0.4:
            await asyncio.gather(*done)
        await store.room()
    await asyncio.gather(*done)


@pytest.mark.parametrize("seed", range(12))
def test_i28_a_digest_is_that_of_the_rows_whatever_is_written_while_it_is_read(seed: int) -> None:
    rng = random.Random(seed)

    async def main() -> None:
        store = await open_store(SimFiles())
        digests = RowDigests(store)
        await churn(store, rng, 150)
        computing = asyncio.create_task(digests.of(PLACE))
        for _ in range(5):
            await churn(store, rng, 20)
            if computing.done():
                known = digests.known(PLACE)
                assert known is not None
                assert known.encode() == plain(store)
        await computing
        await churn(store, rng, 30)
        assert (await digests.of(PLACE)).encode() == plain(store)
        await store.close()

    run(main(), seed)


def test_what_nobody_asked_about_is_not_watched() -> None:
    async def main() -> None:
        store = await open_store(SimFiles())
        digests = RowDigests(store)
        await store.commit([(key(Table.OBJECT, 1), b"x")])
        assert store.watcher is None
        await digests.of(PLACE)
        assert digests.known(OTHER) is None
        await store.close()

    run(main())


@pytest.mark.parametrize("seed", range(6))
def test_a_dropped_partition_is_digested_anew(seed: int) -> None:
    async def main() -> None:
        store = await open_store(SimFiles())
        digests = RowDigests(store)
        await store.commit([(key(Table.OBJECT, n), b"x") for n in range(600)])
        await digests.of(OTHER)
        computing = asyncio.create_task(digests.of(PLACE))
        await asyncio.sleep(0.0001 * seed)
        await store.drop_partition(Table.OBJECT, 7)
        await store.commit([(key(Table.OBJECT, 4), b"y")])
        await computing
        assert (await digests.of(PLACE)).encode() == plain(store)
        await store.drop_partition(Table.OBJECT, 7)
        assert (await digests.of(PLACE)).encode() == plain(store)
        assert digests.known(OTHER) is not None
        await store.close()

    run(main(), seed)


def hashed(rows: Iterable[tuple[bytes, bytes]], buckets: set[int]) -> dict[bytes, bytes]:
    return {k: row_hash(k, v) for k, v in rows if bucket_of(k) in buckets}


def test_hashes_come_in_pages_that_leave_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garage_lite.core.cluster.row_digests.PAGE_BYTES", 500)
    buckets = set(range(0, BUCKETS, 3))

    async def main() -> None:
        store = await open_store(SimFiles())
        digests = RowDigests(store)
        for table in (Table.OBJECT, Table.PAGE):
            for number in range(900):
                store.commit([(key(table, number), b"v%d" % number)])
        await store.commit([])
        found: dict[bytes, bytes] = {}
        after: bytes | None = b""
        pages = 0
        while after is not None:
            page = await digests.hashes(PLACE, buckets, after, None)
            found |= page.by_key
            after, pages = page.reach, pages + 1
        assert found == hashed(rows_of(store, PLACE), buckets)
        assert pages > 3
        some = await digests.hashes(PLACE, buckets, key(Table.OBJECT, 5), key(Table.OBJECT, 9))
        assert set(some.by_key) == {
            k for k in found if key(Table.OBJECT, 5) < k <= key(Table.OBJECT, 9)
        }
        assert some.reach is None
        await store.close()

    run(main())
