"""Cascades, tombstones and lost data on real tables: in the end nothing is left behind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from garage_lite.core.block.resync import block_of
from garage_lite.core.disk.block_locks import BlockLeases
from garage_lite.core.ids import BlockHash, BucketId, DataId, NodeId, VersionId
from garage_lite.core.model import rowkeys
from garage_lite.core.model.buckets import Bucket
from garage_lite.core.model.objects import Floor, Kind, ObjectVersion
from garage_lite.core.model.rowkeys import Stamp, Table
from garage_lite.core.model.uploads import Part, Upload, UploadState
from garage_lite.core.model.versions import (
    BlockEntry,
    BlockRef,
    PartEntry,
    Pending,
    PendingState,
    encode_page,
    encode_part_list,
)
from garage_lite.core.table.plan import TOMBSTONE_DELAY_MS
from garage_lite.core.table.schema import Change, Update
from garage_lite.core.workers.cascade import CascadeWorker
from garage_lite.core.workers.pending import LostDataWorker
from garage_lite.core.workers.runner import State, Worker
from garage_lite.core.workers.tombstones import TombstoneWorker
from tests.core.lone_sync import lone_sync
from tests.core.tables_on_disk import TablesOnDisk, TurnedClock

BUCKET = BucketId(bytes(range(1, 33)))
NODE = NodeId(b"n" * 32)
KEPT = {Table.COUNTER, Table.NODE, Table.RESYNC, Table.RESYNC_DUE}


def block(number: int) -> BlockHash:
    return BlockHash(number.to_bytes(32, "big"))


def ident(number: int) -> VersionId:
    return VersionId(number.to_bytes(16, "big"))


def data_rows(data: DataId, blocks: list[BlockHash]) -> list[Change]:
    changes: list[Change] = []
    for at, name in enumerate(blocks):
        page = rowkeys.page_row(BUCKET, data, end=10 * (at + 1))
        changes.append(Update(page, encode_page([BlockEntry(10, name)])))
        changes.append(Update(rowkeys.block_ref_row(name, data), BlockRef(BUCKET).encode()))
    return changes


def object_row(clock: int, kind: Kind, number: int) -> Update:
    version = ObjectVersion(Stamp(clock, 0, ident(number)), kind, 0, 10, floor=Floor.ALL)
    prefix = rowkeys.object_prefix(BUCKET, b"film")
    return Update(rowkeys.object_row(prefix, version.stamp), version.encode())


async def to_the_end(worker: Worker) -> None:
    while (await worker.work()).state is not State.IDLE:
        pass


async def left(world: TablesOnDisk) -> set[int]:
    return {table for table in Table if await world.rows(table)}


async def forget(world: TablesOnDisk) -> None:
    world.clock.us += TOMBSTONE_DELAY_MS * 1000 + 1
    await to_the_end(TombstoneWorker(lone_sync(world)))


async def test_a_deleted_object_of_many_blocks_leaves_nothing_but_the_queue(
    tmp_path: Path,
) -> None:
    world = await TablesOnDisk.open(tmp_path / "meta")
    blocks = [block(number) for number in range(1500)]
    changes = data_rows(DataId(ident(1)), blocks)
    for at in range(0, len(changes), 500):
        await world.tables.write(changes[at : at + 500])
    await world.tables.write([object_row(1, Kind.BLOCKS, 1)])
    await world.tables.write([object_row(2, Kind.DELETE_MARKER, 2)])
    await to_the_end(CascadeWorker(world.tables, BlockLeases()))
    assert {block_of(key) for key in await world.rows(Table.RESYNC)} == set(blocks)
    assert not await world.rows(Table.PAGE)
    await forget(world)
    assert await left(world) <= KEPT
    await world.close()


async def test_a_block_that_another_object_uses_is_not_queued(tmp_path: Path) -> None:
    world = await TablesOnDisk.open(tmp_path / "meta")
    shared, own = block(1), block(2)
    await world.tables.write(data_rows(DataId(ident(1)), [shared, own, own]))
    await world.tables.write(data_rows(DataId(ident(9)), [shared]))
    await world.tables.write([object_row(1, Kind.BLOCKS, 1)])
    await world.tables.write([object_row(2, Kind.DELETE_MARKER, 2)])
    await to_the_end(CascadeWorker(world.tables, BlockLeases()))
    assert {block_of(key) for key in await world.rows(Table.RESYNC)} == {own}
    await world.close()


async def test_a_completed_upload_lets_go_only_of_what_it_did_not_name(tmp_path: Path) -> None:
    world = await TablesOnDisk.open(tmp_path / "meta")
    upload = Upload(UploadState.OPEN, 0, "GK")
    row = rowkeys.upload_row(BUCKET, b"film", ident(1))
    changes: list[Change] = [Update(row, upload.encode())]
    for number in (1, 2):
        data = DataId(ident(10 + number))
        part = Part(data, 10, b"e" * 16, 0)
        stamp = Stamp(number, 0, ident(20 + number))
        changes += data_rows(data, [block(number)])
        changes.append(Update(rowkeys.part_row(BUCKET, ident(1), number, stamp), part.encode()))
    await world.tables.write(changes)
    named = PartEntry(1, DataId(ident(11)), 10, b"e" * 16)
    await world.tables.write(
        [
            Update(rowkeys.part_list_row(BUCKET, ident(1), end=10), encode_part_list([named])),
            Update(row, replace(upload, state=UploadState.COMPLETED).encode()),
            object_row(5, Kind.MULTIPART, 1),
        ]
    )
    await to_the_end(CascadeWorker(world.tables, BlockLeases()))
    assert not await world.rows(Table.PART)
    assert {block_of(key) for key in await world.rows(Table.RESYNC)} == {block(2)}
    await world.tables.write([object_row(6, Kind.DELETE_MARKER, 2)])
    await to_the_end(CascadeWorker(world.tables, BlockLeases()))
    assert {block_of(key) for key in await world.rows(Table.RESYNC)} == {block(1), block(2)}
    await forget(world)
    assert await left(world) <= KEPT
    await world.close()


async def test_an_overwrite_before_the_completed_cascade_is_eaten_leaks_nothing(
    tmp_path: Path,
) -> None:
    world = await TablesOnDisk.open(tmp_path / "meta")
    upload = Upload(UploadState.OPEN, 0, "GK")
    row = rowkeys.upload_row(BUCKET, b"film", ident(1))
    part = Part(DataId(ident(11)), 10, b"e" * 16, 0)
    part_row = rowkeys.part_row(BUCKET, ident(1), 1, Stamp(1, 0, ident(21)))
    named = PartEntry(1, part.data, 10, b"e" * 16)
    await world.tables.write(
        [
            Update(row, replace(upload, state=UploadState.COMPLETED).encode()),
            *data_rows(part.data, [block(1)]),
            Update(part_row, part.encode()),
            Update(rowkeys.part_list_row(BUCKET, ident(1), end=10), encode_part_list([named])),
            object_row(5, Kind.MULTIPART, 1),
        ]
    )
    await world.tables.write([object_row(6, Kind.DELETE_MARKER, 2)])
    await to_the_end(CascadeWorker(world.tables, BlockLeases()))
    await forget(world)
    assert await left(world) <= KEPT
    await world.close()


async def test_data_of_an_earlier_run_is_lost_and_of_this_run_is_not(tmp_path: Path) -> None:
    clock = TurnedClock()
    world = await TablesOnDisk.open(tmp_path / "meta", clock)
    rows = {}
    for number, boot in ((1, b"before"), (2, b"now")):
        data = DataId(ident(number))
        rows[boot] = rowkeys.pending_row(BUCKET, data)
        pending = Pending(PendingState.WRITING, clock.us // 1000 + 1, NODE, boot)
        update = Update(rows[boot], pending.encode())
        await world.tables.write([update, *data_rows(data, [block(number)])])
    await to_the_end(LostDataWorker(world.tables, NODE, b"now"))
    assert list(await world.rows(Table.PENDING)) == [rows[b"now"]]
    await to_the_end(CascadeWorker(world.tables, BlockLeases()))
    assert {block_of(key) for key in await world.rows(Table.RESYNC)} == {block(1)}
    clock.us += 2_000
    await to_the_end(LostDataWorker(world.tables, NODE, b"now"))
    assert not await world.rows(Table.PENDING), "whoever still writes renews his lease"
    await world.close()


async def test_stamps_go_on_rising_after_a_restart_with_a_clock_set_back(tmp_path: Path) -> None:
    world = await TablesOnDisk.open(tmp_path / "meta")
    before = world.tables.stamp()
    await world.tables.write([object_row(before, Kind.INLINE, 1)])
    await world.store.close()
    back = TurnedClock(world.clock.us - 3_600_000_000)
    world = await TablesOnDisk.open(tmp_path / "meta", back)
    assert world.tables.stamp() > before
    await world.close()


async def test_data_that_is_being_read_is_eaten_when_the_reader_lets_go(tmp_path: Path) -> None:
    world = await TablesOnDisk.open(tmp_path / "meta")
    leases = BlockLeases()
    worker = CascadeWorker(world.tables, leases)
    await world.tables.write(
        [*data_rows(DataId(ident(1)), [block(1)]), object_row(1, Kind.BLOCKS, 1)]
    )
    with leases.hold(ident(1)):
        await world.tables.write([object_row(2, Kind.DELETE_MARKER, 2)])
        await to_the_end(worker)
        assert await world.rows(Table.PAGE)
    await to_the_end(worker)
    assert not await world.rows(Table.PAGE)
    await world.close()


async def test_a_writer_that_goes_away_leaves_no_listener_in_the_dark(tmp_path: Path) -> None:
    world = await TablesOnDisk.open(tmp_path / "meta")
    heard: list[bytes] = []
    world.tables.on_applied(lambda key, value: heard.append(key))
    key = rowkeys.everywhere_row(Table.BUCKET, BUCKET)
    write = asyncio.create_task(world.tables.write([Update(key, Bucket(BUCKET, 1).encode())]))
    for _ in range(5):
        await asyncio.sleep(0)
    assert world.tables.latest().get(key) is not None
    write.cancel()
    await asyncio.gather(write, return_exceptions=True)
    await world.tables.write([object_row(1, Kind.INLINE, 1)])
    assert heard == [key]
    await world.close()


async def test_an_upload_whose_abort_stopped_half_way_is_removed(tmp_path: Path) -> None:
    world = await TablesOnDisk.open(tmp_path / "meta")
    rows = {}
    for number, state in ((1, UploadState.OPEN), (2, UploadState.FENCED)):
        rows[state] = rowkeys.upload_row(BUCKET, b"film", ident(number))
        await world.tables.write([Update(rows[state], Upload(state, 0, "GK").encode())])
    await to_the_end(LostDataWorker(world.tables, NODE, b"now"))
    await forget(world)
    assert list(await world.rows(Table.UPLOAD)) == [rows[UploadState.OPEN]]
    await world.close()
