"""One update of a replica is one record of its log: the row and all that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from garage_lite.core.disk.metadata import MetadataOptions, MetadataStore
from garage_lite.core.disk.replica import Replica
from garage_lite.core.ids import BlockHash, BucketId, DataId, NodeId, VersionId
from garage_lite.core.model.objects import Floor, Kind, ObjectVersion
from garage_lite.core.model.rowkeys import (
    SUFFIX_BYTES,
    Stamp,
    Table,
    block_ref_row,
    inline_row,
    object_prefix,
    object_row,
    pending_row,
)
from garage_lite.core.model.versions import BlockRef, Pending, PendingState
from garage_lite.core.table.schema import Update
from tests.sim.files import SimFiles
from tests.sim.loop import SimClock, SimEntropy, run

BUCKET = BucketId(b"\x42" * 32)
PREFIX = object_prefix(BUCKET, b"photo")
REF = block_ref_row(BlockHash(b"h" * 32), DataId(b"d" * 16))


def ident(number: int) -> VersionId:
    return VersionId(number.to_bytes(16, "big"))


def version(number: int, kind: Kind) -> Update:
    size = 0 if kind is Kind.DELETE_MARKER else 5
    row = ObjectVersion(Stamp(number, 0, ident(number)), kind, 0, size, floor=Floor.ALL)
    return Update(object_row(PREFIX, row.stamp), row.encode())


def pending(state: PendingState) -> Update:
    row = Pending(state, 0, NodeId(b"n" * 32), b"boot")
    return Update(pending_row(BUCKET, DataId(ident(9))), row.encode())


STEPS: Sequence[tuple[list[Update], set[int]]] = (
    (
        [version(1, Kind.INLINE), Update(inline_row(BUCKET, ident(1)), b"12345")],
        {Table.OBJECT, Table.INLINE, Table.COUNTER},
    ),
    (
        [version(2, Kind.DELETE_MARKER)],
        {Table.OBJECT, Table.INLINE, Table.COUNTER, Table.TOMBSTONE},
    ),
    ([version(3, Kind.BLOCKS)], {Table.OBJECT, Table.PENDING, Table.COUNTER, Table.TOMBSTONE}),
    ([version(4, Kind.DELETE_MARKER)], {Table.OBJECT, Table.TOMBSTONE}),
    ([pending(PendingState.WRITING)], {Table.PENDING, Table.COUNTER}),
    (
        [pending(PendingState.REMOVED)],
        {Table.PENDING, Table.COUNTER, Table.CASCADE, Table.TOMBSTONE},
    ),
    ([Update(REF, BlockRef(BUCKET).encode())], {Table.BLOCK_REF}),
    (
        [Update(REF, BlockRef(BUCKET, deleted=True).encode())],
        {Table.BLOCK_REF, Table.TOMBSTONE, Table.RESYNC, Table.RESYNC_DUE},
    ),
)
"""Each: an update, and the tables of the rows that must be in its record."""


async def opened(files: SimFiles) -> MetadataStore:
    options = MetadataOptions(suffix_bytes=SUFFIX_BYTES)
    return await MetadataStore.open(files, "/meta", SimClock(), SimEntropy(), options)


def test_i5_a_row_and_all_that_follows_from_it_are_one_record() -> None:
    async def main() -> None:
        store = await opened(SimFiles())
        replica = Replica(store)
        records: list[list[tuple[bytes, bytes | None]]] = []
        commit = store.commit

        def counted(rows: Any, **options: Any) -> Any:
            records.append(list(rows))
            return commit(rows, **options)

        with patch.object(store, "commit", counted):
            for update, tables in STEPS:
                records.clear()
                await replica.apply(update, 5, None, False)
                (record,) = records
                assert {key[0] for key, _ in record} >= tables
        await store.close()

    run(main())
