"""A node that has lost rows is asked nothing before it has them again, and spreads nothing old."""

from __future__ import annotations

import asyncio

import pytest

from garage_lite.core.cluster.row_service import Question
from garage_lite.core.errors import DamagedRow, Recovering
from garage_lite.core.model.objects import Kind
from garage_lite.core.model.rowkeys import object_prefix
from garage_lite.core.table.digest import Place, Realm
from tests.core.cluster.syncing import Syncing, node_id
from tests.core.cluster.test_table_sync import bucket, deletion, reference, version
from tests.sim.files import SimFiles
from tests.sim.loop import run

PREFIX = object_prefix(bucket(7), b"k")
PLACE = Place(Realm.METADATA, 7)


async def settle(w: Syncing) -> None:
    await w.rounds(seconds=40)


async def written(w: Syncing, *rows: list) -> None:  # type: ignore[type-arg]
    for one in rows:
        await w[0].write(one)


def recovering(w: Syncing, node: int) -> bool:
    return w.sync[node].recovering.why is not None


def copy(files: SimFiles) -> SimFiles:
    return SimFiles(files.disk.copy(), files.capacity)


def test_i13_an_emptied_node_is_asked_nothing_until_its_peers_have_given_it_all() -> None:
    async def main() -> None:
        async with Syncing(3) as w:
            await settle(w)
            await written(w, version("k", 1), [reference(5)])
            await settle(w)
            before = w.rows(2)
            await w.stop(2)
            await w.start(2, SimFiles())
            await w.members[2].layout.merge(w.members[0].layout.history)
            with pytest.raises(Recovering):
                await w[2].rows.read(Question.PREFIX, PREFIX)
            await asyncio.sleep(2)
            assert recovering(w, 2)
            assert w.sync[2].recovering.any_data()
            assert not w.sync[2].recovering.knows_references(reference(5).key[2:34])  # type: ignore[arg-type]
            with pytest.raises(Recovering):
                await w[2].rows.read(Question.PREFIX, PREFIX)
            assert await w[2].versions(PREFIX) == [tuple(version("k", 1)[0])]
            await w.until(lambda: not recovering(w, 2))
            assert w.rows(2) == before
            assert (await w[2].rows.read(Question.PREFIX, PREFIX)).rows

    run(main())


def test_a_recovery_goes_on_after_a_restart() -> None:
    async def main() -> None:
        async with Syncing(3) as w:
            await settle(w)
            await written(w, version("k", 1))
            await w.stop(2)
            await w.start(2, SimFiles())
            await w.members[2].layout.merge(w.members[0].layout.history)
            await asyncio.sleep(2)
            w.cut(1)
            await settle(w)
            assert recovering(w, 2), "one other owner of three is not enough"
            await w.stop(2)
            await w.start(2)
            assert recovering(w, 2)
            w.heal()
            await w.until(lambda: not recovering(w, 2))
            assert not w.differing()
            await w.stop(2)
            await w.start(2)
            await settle(w)
            assert not recovering(w, 2)

    run(main())


def test_i27_a_node_restored_from_an_older_state_brings_nothing_deleted_back() -> None:
    """The deletion was forgotten meanwhile: nothing is left that says so."""

    async def main() -> None:
        async with Syncing(3) as w:
            await settle(w)
            await written(w, version("k", 1), version("stays", 2))
            await settle(w)
            await w.stop(2)
            older = copy(w.members[2].files)
            await w.start(2)
            await settle(w)
            await written(w, deletion("k", 3), version("new", 4))
            await settle(w)
            for node in range(3):
                row = deletion("k", 3)[0]
                await w.members[node].store.commit([(row.key, None)])
            await settle(w)
            before = w.rows(0)
            await w.stop(2)
            await w.start(2, older)
            assert version("k", 1)[0].key in w.rows(2)
            await w.until(lambda: not recovering(w, 2) and w.sync[2].recovering.sure)
            await settle(w)
            assert w.rows(2) == w.rows(1) == w.rows(0) == before

    run(main())


def test_a_node_that_missed_the_end_of_tombstones_recovers() -> None:
    async def main() -> None:
        async with Syncing(3) as w:
            await settle(w)
            await written(w, version("k", 1))
            await settle(w)
            w.cut(2)
            await asyncio.sleep(20)
            for node in (0, 1):
                await w.sync[node].peers.missed([node_id(2)])
                await w.members[node].store.commit([(version("k", 1)[0].key, None)])
                await w.members[node].store.commit([(version("k", 1)[1].key, None)])
            w.heal()
            await asyncio.sleep(3)
            assert recovering(w, 2)
            await w.until(lambda: not recovering(w, 2))
            await settle(w)
            assert w.rows(0) == w.rows(1) == w.rows(2) == {}
            assert not any(w.sync[node].peers.seen(node_id(2)).missed for node in (0, 1))

    run(main())


def test_rows_that_only_a_restored_node_has_stay_where_no_other_is_whole() -> None:
    """All nodes were restored from states of different age."""

    async def main() -> None:
        async with Syncing(2) as w:
            await settle(w)
            await written(w, version("k", 1))
            await settle(w)
            for node in (0, 1):
                await w.stop(node)
            older = [copy(member.files) for member in w.members]
            for node in (0, 1):
                await w.start(node)
            await settle(w)
            await written(w, version("new", 2))
            await settle(w)
            for node in (0, 1):
                await w.stop(node)
            for node in (0, 1):
                await w.start(node, older[node])
            await settle(w)
            assert version("k", 1)[0].key in w.rows(0)
            assert await w[0].versions(PREFIX)

    run(main())


def test_a_write_that_meets_a_recovering_node_is_not_on_time_there() -> None:
    async def main() -> None:
        async with Syncing(3) as w:
            await settle(w)
            await w.sync[2].recovering.begin("a test", stale=False)
            late = await w[2].rows.write(version("k", 1, kind=Kind.DELETE_MARKER))
            assert [one.key for one in late] == [version("k", 1, kind=Kind.DELETE_MARKER)[0].key]
            assert w.members[2].holds(version("k", 1)[0].key) is not None
            await w[0].write(version("k", 2))

    run(main())


def test_a_node_alone_and_one_of_copies_of_one_never_recover() -> None:
    async def main() -> None:
        async with Syncing(1) as w:
            await w[0].write(version("k", 1))
            await w.sync[0].recovering.begin("a test", stale=True)
            assert await w[0].versions(PREFIX)
            await w.until(lambda: not recovering(w, 0))
            assert w.rows(0)

    run(main())


def test_a_node_whose_metadata_rots_gets_its_rows_from_its_peers() -> None:
    async def main() -> None:
        async with Syncing(3) as w:
            await settle(w)
            rows = [row for n in range(100) for row in version(f"k{n}", n)]
            await written(w, rows[:100], rows[100:])
            await settle(w)
            await w.members[2].store.flush()
            before = w.rows(2)
            await w.stop(2)
            files = w.members[2].files
            rotten = [path for path in files.paths() if "/segment-" in path]
            assert rotten
            for path in rotten:
                files.rot(path, files.file_size(path) // 10)
            await w.start(2)
            with pytest.raises(DamagedRow):
                w.rows(2)
            await w.until(lambda: recovering(w, 2))
            await w.until(lambda: not recovering(w, 2))
            assert {key: w.members[2].holds(key) for key in before} == before

    run(main())
