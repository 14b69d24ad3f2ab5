"""What `repair versions`, `mpu` and `block-refs` look for: rows whose owner is gone.

    versions      pages of data, and part lists, that no version, part or upload stands on
    mpu           parts of an upload that is no more
    block-refs    references to blocks that no page of their data names

Their removal is the cascade's work as ever: a repair only finds what a cascade has missed, and
sets one going. A walk here is over this node's own rows, in slices that fit in memory; whether
a suspect's owner is really gone is asked of a quorum, for all suspects of a bucket in one pass.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.ids import BlockHash, BucketId, DataId
from garage_lite.core.model import rowkeys
from garage_lite.core.model.objects import ObjectVersion
from garage_lite.core.model.rowkeys import CascadeKind, Table, after_prefix, in_bucket, stamp_of
from garage_lite.core.model.uploads import Part, Upload, UploadState
from garage_lite.core.model.versions import (
    BlockRef,
    Pending,
    PendingState,
    decode_page,
    decode_part_list,
)
from garage_lite.core.table.schema import Change, Update
from garage_lite.core.workers.cascade_causes import SURE
from garage_lite.core.workers.repair import breathe

SLICE_IDS: Final = 50_000
"""Ids in memory at once, about 100 bytes each; each slice costs one walk over its bucket."""
BATCH_REFS: Final = 4_096
"""References looked at together, so that the pages of one object are read once for many."""
_ALIVE: Final = (UploadState.OPEN, UploadState.FENCED)
_UNDER_WAY: Final = (PendingState.WRITING, PendingState.FENCED)
_BUCKET: Final = slice(2, 34)
_ID: Final = slice(34, 50)

Rows = AsyncIterator[tuple[bytes, bytes]]
Scan = Callable[[bytes, bytes], Rows]


class _Bucketwise:
    """Walks the ids that rows of one table begin with, bucket by bucket."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.looked_at = 0

    async def _slices(self, table: Table) -> AsyncIterator[tuple[BucketId, set[bytes]]]:
        """Ids of which this node holds a row that is not removed, SLICE_IDS at most."""
        bucket, ids = BucketId(b""), set[bytes]()
        async for key, value in self._here(bytes((table,)), bytes((table + 1,))):
            if key[_BUCKET] != bucket or len(ids) >= SLICE_IDS:
                if ids:
                    yield bucket, ids
                bucket, ids = BucketId(key[_BUCKET]), set()
            if value and key[_ID] not in ids:
                ids.add(key[_ID])
                self.looked_at += 1
        if ids:
            yield bucket, ids

    def _queued(self, suspect: bytes) -> bool:
        """Whether a cascade for it is here already."""
        return self._tables.durable().get(suspect) is not None

    async def _here(self, start: bytes, end: bytes) -> Rows:
        """This node's own rows."""
        for keys, values in self._tables.durable().scan(start, end):
            for key, value in zip(keys, values, strict=True):
                yield key, value
            await breathe()

    async def _everywhere(self, start: bytes, end: bytes) -> Rows:
        """What a quorum says."""
        async for keys, values in self._tables.scan(start, end):
            for key, value in zip(keys, values, strict=True):
                yield key, value


class VersionRepair(_Bucketwise):
    name = "version repair worker"

    async def find(self) -> AsyncIterator[Sequence[bytes]]:
        for table, kind in ((Table.PAGE, CascadeKind.DATA), (Table.PART_LIST, CascadeKind.PARTS)):
            async for bucket, ids in self._slices(table):
                left = await _without_owner(self._here, bucket, kind, ids)
                found = (rowkeys.cascade_row(bucket, one, kind) for one in sorted(left))
                yield [suspect for suspect in found if not self._queued(suspect)]

    async def mends(self, suspects: Sequence[bytes]) -> Mapping[bytes, Sequence[Change]]:
        found: dict[bytes, list[Change]] = {}
        for (bucket, kind), group in _by_bucket_and_kind(suspects):
            ids = {removed for removed in group if not await self._under_way(bucket, kind, removed)}
            for one in await _without_owner(self._everywhere, bucket, kind, ids):
                cascade = rowkeys.cascade_row(bucket, one, kind)
                found[cascade] = [Update(cascade, SURE)]
        return found

    async def _under_way(self, bucket: BucketId, kind: bytes, removed: bytes) -> bool:
        """Whether its writer may be at work: asked before its owner is looked for, as it ends in
        the record that brings the owner."""
        if kind != CascadeKind.DATA:
            return False
        return await _is_pending(self._tables, bucket, DataId(removed))


class UploadRepair(_Bucketwise):
    name = "multipart_upload repair worker"

    async def find(self) -> AsyncIterator[Sequence[bytes]]:
        async for bucket, ids in self._slices(Table.PART):
            left = ids - set(await _uploads(self._here, bucket, ids, alive=True))
            found = (_parts_of(bucket, upload) for upload in sorted(left))
            yield [suspect for suspect in found if not self._queued(suspect)]

    async def mends(self, suspects: Sequence[bytes]) -> Mapping[bytes, Sequence[Change]]:
        """An upload that ended is named as the cause: the cascade then makes sure that it knows
        all that the upload's version stands on."""
        found: dict[bytes, list[Change]] = {}
        for (bucket, _), ids in _by_bucket_and_kind(suspects):
            alive = await _uploads(self._everywhere, bucket, ids, alive=True)
            ended = await _uploads(self._everywhere, bucket, ids, alive=False)
            for upload in ids - set(alive):
                cascade = _parts_of(bucket, upload)
                found[cascade] = [Update(cascade, ended.get(upload, SURE))]
        return found


class BlockRefRepair:
    name = "block_ref repair worker"

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.looked_at = 0

    async def find(self) -> AsyncIterator[Sequence[bytes]]:
        start, end = bytes((Table.BLOCK_REF,)), bytes((Table.BLOCK_REF + 1,))
        batch: list[tuple[bytes, BucketId]] = []
        for keys, values in self._tables.durable().scan(start, end):
            for key, value in zip(keys, values, strict=True):
                reference = BlockRef.decode(value)
                if not reference.deleted:
                    batch.append((key, reference.bucket))
            await breathe()
            if len(batch) >= BATCH_REFS:
                yield await self._without_page(batch)
                batch = []
        yield await self._without_page(batch)

    async def mends(self, suspects: Sequence[bytes]) -> Mapping[bytes, Sequence[Change]]:
        left: list[tuple[bytes, BucketId]] = []
        for key in suspects:
            row = self._tables.durable().get(key)
            reference = None if row is None else BlockRef.decode(row)
            if reference is None or reference.deleted:
                continue
            if not await _is_pending(self._tables, reference.bucket, _data_of(key)):
                left.append((key, reference.bucket))
        lost = set(await self._without_page(left))
        return {
            key: [Update(key, BlockRef(bucket, deleted=True).encode())]
            for key, bucket in left
            if key in lost
        }

    async def _without_page(self, references: list[tuple[bytes, BucketId]]) -> list[bytes]:
        """Those that no page names, neither here nor by a quorum."""
        self.looked_at += len(references)
        lost: list[bytes] = []

        def owner(one: tuple[bytes, BucketId]) -> tuple[BucketId, DataId]:
            return one[1], _data_of(one[0])

        for (bucket, data), group in groupby(sorted(references, key=owner), owner):
            wanted = {BlockHash(key[2:34]): key for key, _ in group}
            prefix = rowkeys.pages_prefix(bucket, data)
            _strike_named(wanted, (page for _, page in self._tables.durable().with_prefix(prefix)))
            if wanted:
                _strike_named(wanted, (page for _, page in await self._tables.with_prefix(prefix)))
            lost += wanted.values()
            await breathe()
        return lost


def _strike_named(wanted: dict[BlockHash, bytes], pages: Iterable[bytes]) -> None:
    for page in pages:
        for entry in decode_page(page) if page else ():
            wanted.pop(entry.hash, None)


def _data_of(reference: bytes) -> DataId:
    return DataId(reference[34:])


def _parts_of(bucket: BucketId, upload: bytes) -> bytes:
    return rowkeys.cascade_row(bucket, upload, CascadeKind.COMPLETED)


def _by_bucket_and_kind(
    cascades: Sequence[bytes],
) -> list[tuple[tuple[BucketId, bytes], set[bytes]]]:
    """Cascades by what they are about: for each bucket and kind the ids that go."""
    found: dict[tuple[BucketId, bytes], set[bytes]] = {}
    for cascade in cascades:
        bucket, removed, kind = rowkeys.cascade_of(cascade)
        found.setdefault((bucket, kind), set()).add(removed)
    return list(found.items())


async def _is_pending(tables: Tables, bucket: BucketId, data: DataId) -> bool:
    row = await tables.get(rowkeys.pending_row(bucket, data))
    return row is not None and Pending.decode(row).state in _UNDER_WAY


async def _without_owner(scan: Scan, bucket: BucketId, kind: bytes, ids: set[bytes]) -> set[bytes]:
    """Of `ids` (data, or with PARTS versions) those that nothing in the bucket stands on."""
    left = set(ids)
    if not left:
        return left
    async for key, value in _of(scan, Table.OBJECT, bucket):
        stamp = stamp_of(key)
        if stamp.id in left and not ObjectVersion.decode(stamp, value).removed:
            left.discard(stamp.id)
    if kind == CascadeKind.PARTS:
        return left - set(await _uploads(scan, bucket, left, alive=True))
    async for _, value in _of(scan, Table.PART_LIST, bucket):
        if value:
            left.difference_update(part.data for part in decode_part_list(value))
    async for _, value in _of(scan, Table.PART, bucket):
        if value:
            left.discard(Part.decode(value).data)
    return left


async def _uploads(
    scan: Scan, bucket: BucketId, ids: set[bytes], *, alive: bool
) -> dict[bytes, bytes]:
    """Those of `ids` that are uploads, still alive or ended, with the key of each one's row."""
    found: dict[bytes, bytes] = {}
    async for key, value in _of(scan, Table.UPLOAD, bucket):
        upload = rowkeys.upload_id_of(key)
        if upload in ids and (Upload.decode(value).state in _ALIVE) == alive:
            found[upload] = key
    return found


async def _of(scan: Scan, table: Table, bucket: BucketId) -> Rows:
    prefix = in_bucket(table, bucket)
    async for key, value in scan(prefix, after_prefix(prefix)):
        yield key, value
