"""Repairs find what was put wrong, and leave alone what is right or under way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from garage_lite.core.crdt import Lww, LwwMap
from garage_lite.core.disk.block_locks import BlockLeases
from garage_lite.core.ids import BucketId, DataId
from garage_lite.core.model import rowkeys
from garage_lite.core.model.buckets import Alias, Bucket, Permission
from garage_lite.core.model.keys import AccessKey
from garage_lite.core.model.objects import Kind
from garage_lite.core.model.rowkeys import Stamp, Table, everywhere_row
from garage_lite.core.model.uploads import Part, Upload, UploadState
from garage_lite.core.model.versions import (
    BlockRef,
    PartEntry,
    Pending,
    PendingState,
    encode_part_list,
)
from garage_lite.core.store.alias_faults import alias_faults
from garage_lite.core.table.schema import Change, Update
from garage_lite.core.workers import repair, repair_rows
from garage_lite.core.workers.cascade import CascadeWorker
from garage_lite.core.workers.repair import SETTLE_US, Repair, RepairWorker
from garage_lite.core.workers.repair_aliases import AliasRepair
from garage_lite.core.workers.repair_blocks import BlockCountRepair, ClearResyncQueue
from garage_lite.core.workers.repair_rows import BlockRefRepair, UploadRepair, VersionRepair
from garage_lite.core.workers.runner import State
from tests.core.blocks_on_disk import named, noise
from tests.core.tables_on_disk import TablesOnDisk
from tests.core.workers.block_node import Node
from tests.core.workers.test_cascade import (
    BUCKET,
    NODE,
    block,
    data_rows,
    ident,
    object_row,
    to_the_end,
)
from tests.sim.loop import run

OTHER = BucketId(b"\xee" * 32)


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[TablesOnDisk]:
    opened = await TablesOnDisk.open(tmp_path / "meta")
    yield opened
    await opened.close()


async def finish(worker: RepairWorker, world: TablesOnDisk) -> int:
    """Run to its end, resting as it says; how much it mended."""
    while (step := await worker.work()).state is not State.DONE:
        world.clock.us += step.rest_us
    return worker.mended


async def repaired(world: TablesOnDisk, wanted: Repair) -> int:
    mended = await finish(RepairWorker(wanted, world.tables), world)
    await to_the_end(CascadeWorker(world.tables, BlockLeases()))
    return mended


def data(number: int) -> DataId:
    return DataId(ident(number))


def pending(number: int, state: PendingState = PendingState.WRITING) -> Update:
    row = Pending(state, 1 << 60, NODE, b"boot")
    return Update(rowkeys.pending_row(BUCKET, data(number)), row.encode())


def part(upload: int, number: int, of: int) -> Update:
    key = rowkeys.part_row(BUCKET, ident(upload), number, Stamp(number, 0, ident(90 + number)))
    return Update(key, Part(data(of), 10, b"e" * 16, 0).encode())


def upload_row(number: int, state: UploadState = UploadState.OPEN) -> Update:
    key = rowkeys.upload_row(BUCKET, b"film", ident(number))
    return Update(key, Upload(state, 0, "GK").encode())


def part_list(version: int, of: int) -> Update:
    key = rowkeys.part_list_row(BUCKET, ident(version), end=10)
    return Update(key, encode_part_list([PartEntry(1, data(of), 10, b"e" * 16)]))


async def data_left(world: TablesOnDisk) -> set[bytes]:
    """The data that pages are left of; what its references say must agree."""
    pages = {key[34:50] for key, value in (await world.rows(Table.PAGE)).items() if value}
    refs = await world.rows(Table.BLOCK_REF)
    live = {key[34:] for key, value in refs.items() if not BlockRef.decode(value).deleted}
    assert live == pages
    return pages


async def write(world: TablesOnDisk, *changes: Change) -> None:
    await world.tables.write(changes)


# --- versions


async def test_data_that_nothing_stands_on_goes(world: TablesOnDisk) -> None:
    for number in (1, 2, 3, 4, 5):
        await write(world, *data_rows(data(number), [block(number), block(0)]))
    await write(world, object_row(1, Kind.BLOCKS, 1), pending(2), upload_row(20), part(20, 1, 3))
    await write(
        world,
        part_list(30, 4),
        object_row(2, Kind.MULTIPART, 30)._replace(
            key=rowkeys.object_row(rowkeys.object_prefix(BUCKET, b"other"), Stamp(2, 0, ident(30)))
        ),
    )
    assert await repaired(world, VersionRepair(world.tables)) == 1
    assert await data_left(world) == {data(1), data(2), data(3), data(4)}
    assert await repaired(world, VersionRepair(world.tables)) == 0


async def test_a_part_list_without_its_version_goes(world: TablesOnDisk) -> None:
    await write(world, *data_rows(data(1), [block(1)]), part_list(30, 1))
    await write(world, *data_rows(data(2), [block(2)]), part_list(40, 2), upload_row(40))
    assert await repaired(world, VersionRepair(world.tables)) == 1
    assert await data_left(world) == {data(2)}


async def test_what_is_finished_while_it_is_suspected_stays(world: TablesOnDisk) -> None:
    await write(world, *data_rows(data(1), [block(1)]))
    worker = RepairWorker(VersionRepair(world.tables), world.tables)
    while not worker.progress().freeform:
        await worker.work()
    assert list(worker.progress().freeform) == ["1 wait to be looked at again"]
    await write(world, object_row(1, Kind.BLOCKS, 1))
    assert await finish(worker, world) == 0
    assert await data_left(world) == {data(1)}
    assert worker.progress().progress == "1 (0)"


async def test_nothing_is_judged_before_it_has_settled(world: TablesOnDisk) -> None:
    await write(world, *data_rows(data(1), [block(1)]))
    worker = RepairWorker(VersionRepair(world.tables), world.tables)
    begun = world.clock.us
    assert await finish(worker, world) == 1
    assert world.clock.us - begun >= SETTLE_US


async def test_many_ids_are_walked_in_slices(
    world: TablesOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair_rows, "SLICE_IDS", 3)
    monkeypatch.setattr(repair, "SUSPECTS_MAX", 2)
    for number in range(10):
        await write(world, *data_rows(data(number), [block(number)]))
    await write(world, object_row(1, Kind.BLOCKS, 4))
    wanted = VersionRepair(world.tables)
    assert await repaired(world, wanted) == 9 and wanted.looked_at == 10
    assert await data_left(world) == {data(4)}


# --- mpu


async def test_parts_without_their_upload_go(world: TablesOnDisk) -> None:
    for upload, number in ((20, 1), (21, 2)):
        await write(world, *data_rows(data(number), [block(number)]), part(upload, 1, number))
    await write(world, upload_row(20))
    assert await repaired(world, UploadRepair(world.tables)) == 1
    assert await data_left(world) == {data(1)}
    assert await repaired(world, UploadRepair(world.tables)) == 0


async def test_parts_of_a_version_stay_when_their_rows_go(world: TablesOnDisk) -> None:
    """The upload's row was forgotten; what became of it is an object."""
    await write(world, *data_rows(data(1), [block(1)]), *data_rows(data(2), [block(2)]))
    await write(world, part(30, 1, 1), part(30, 2, 2), part_list(30, 1))
    await write(world, object_row(2, Kind.MULTIPART, 30))
    assert await repaired(world, UploadRepair(world.tables)) == 1
    assert await data_left(world) == {data(1)}, "the part that was not named goes"
    assert not await world.rows(Table.PART)


# --- block-refs


def reference(number: int, of: int) -> Update:
    return Update(rowkeys.block_ref_row(block(number), data(of)), BlockRef(BUCKET).encode())


async def test_references_that_no_page_names_are_deleted(world: TablesOnDisk) -> None:
    await write(world, *data_rows(data(1), [block(1), block(2)]), pending(3))
    await write(world, reference(7, 1), reference(8, 2), reference(9, 3))
    assert await repaired(world, BlockRefRepair(world.tables)) == 2
    rows = await world.rows(Table.BLOCK_REF)
    live = {key for key, value in rows.items() if not BlockRef.decode(value).deleted}
    kept = (reference(1, 1), reference(2, 1), reference(9, 3))
    assert live == {row.key for row in kept}
    assert await repaired(world, BlockRefRepair(world.tables)) == 0


async def test_references_are_looked_at_in_batches(
    world: TablesOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair_rows, "BATCH_REFS", 4)
    await write(world, *data_rows(data(1), [block(number) for number in range(9)]))
    await write(world, reference(50, 1))
    wanted = BlockRefRepair(world.tables)
    assert await repaired(world, wanted) == 1
    assert wanted.looked_at >= 10


# --- aliases


def bucket_row(bucket: Bucket) -> Update:
    return Update(everywhere_row(Table.BUCKET, bucket.id), bucket.encode())


def alias_row(name: str, target: BucketId | None) -> Update:
    return Update(everywhere_row(Table.ALIAS, name.encode()), Alias(Lww(1, target)).encode())


def key_row(key: AccessKey) -> Update:
    return Update(everywhere_row(Table.KEY, key.id.encode()), key.encode())


def names(*entries: str) -> LwwMap[bool]:
    return LwwMap({entry: Lww(1, True) for entry in entries})


HOME = Bucket(BUCKET, 0, aliases=names("home"), local_aliases=names("GK1:mine"))
KEY = AccessKey("GK1", "secret", 0, local_aliases=LwwMap({"mine": Lww(1, BUCKET.hex())}))
SOUND = (bucket_row(HOME), alias_row("home", BUCKET), key_row(KEY))


@pytest.mark.parametrize(
    "wrong",
    [
        alias_row("nowhere", OTHER),
        alias_row("more", BUCKET),
        key_row(replace(KEY, local_aliases=LwwMap({"mine": Lww(9, OTHER.hex())}))),
        key_row(
            replace(
                KEY,
                local_aliases=LwwMap({"mine": Lww(1, BUCKET.hex()), "new": Lww(1, BUCKET.hex())}),
            )
        ),
        bucket_row(replace(HOME, aliases=names("home", "stale"))),
        bucket_row(replace(HOME, local_aliases=names("GK1:mine", "GK1:x", "GK2:mine"))),
        bucket_row(replace(HOME, keys=LwwMap({"GK9": Lww(1, int(Permission.ALL))}))),
    ],
    ids=[
        "a name of no bucket",
        "a name that its bucket does not know",
        "a key's name of no bucket",
        "a key's name that its bucket does not know",
        "a bucket with a name that is not its own",
        "a bucket with a key's name that is not its own",
        "rights of a key that is not there",
    ],
)
async def test_names_agree_again(world: TablesOnDisk, wrong: Update) -> None:
    await write(world, *SOUND)
    assert not alias_faults(world.tables.durable(), 5)
    await write(world, wrong)
    found = alias_faults(world.tables.durable(), 5)
    assert found
    assert await repaired(world, AliasRepair(world.tables)) == len(found)
    assert not alias_faults(world.tables.durable(), 5)
    durable = world.tables.durable()
    home = Bucket.decode(BUCKET, durable.get(SOUND[0].key) or b"")
    assert home.aliases.get("home") and not home.deleted


async def test_names_of_a_deleted_bucket_are_given_up(world: TablesOnDisk) -> None:
    await write(world, *SOUND, bucket_row(replace(HOME, deleted=True)))
    assert await repaired(world, AliasRepair(world.tables)) == 2
    alias = world.tables.durable().get(everywhere_row(Table.ALIAS, b"home"))
    assert alias is not None and Alias.decode(alias).target.value is None


# --- blocks


def test_blocks_are_counted() -> None:
    async def scenario() -> None:
        node = await Node.open()
        sound = await node.put(noise(1, 40), 1)
        lost = named(noise(2, 40))
        node.peer[lost] = noise(2, 40)
        await node.refer(lost, 2)
        orphan = await node.orphan(noise(3, 40))
        worker = BlockCountRepair(node.store, node.queue)
        while (await worker.work()).state is not State.DONE:
            pass
        assert worker.queued == 2
        assert node.store.entry(sound) is None
        await node.settle()
        assert node.store.files.has(lost) and not node.store.files.has(orphan)
        assert "no counters" in worker.progress().freeform[0]
        await node.close()

    run(scenario())


def test_the_resync_queue_is_cleared() -> None:
    async def scenario() -> None:
        node = await Node.open()
        for number in range(600):
            await node.store.look_again(named(noise(number, 8)))
        assert node.entries() == 1200
        worker = ClearResyncQueue(node.store)
        while (await worker.work()).state is not State.DONE:
            pass
        assert node.entries() == 0 and worker.cleared == 1200
        await node.close()

    run(scenario())
