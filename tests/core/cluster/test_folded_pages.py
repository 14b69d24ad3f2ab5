"""Listings with a delimiter over real replicas: one question a page, and nothing missed."""

from __future__ import annotations

from typing import Any

import pytest

from garage_lite.core.cluster.row_service import Question, read_gaps
from garage_lite.core.errors import InvalidArgument, StorageFailed
from garage_lite.core.model.objects import Kind
from garage_lite.core.model.rowkeys import Table, in_bucket
from garage_lite.core.store.listing import Listing
from garage_lite.core.table.reading import Gap
from tests.core.cluster.replicas import Replicas
from tests.core.cluster.rows import BUCKET, simulated, version
from tests.core.cluster.test_registers import PREFIX, leave_undecided


async def folders(w: Replicas, reader: int, delimiter: bytes = b"/") -> list[bytes]:
    page = await Listing(w[reader]).objects(BUCKET, delimiter=delimiter)
    versions = await Listing(w[reader]).versions(BUCKET, delimiter=delimiter)
    assert set(page.prefixes) <= set(versions.prefixes)
    return page.prefixes


@simulated
async def test_many_folders_are_one_question_to_one_other_node() -> None:
    async with Replicas(3) as w:
        rows = [
            version(1, kind=Kind.BLOCKS, key=b"%03d/%d" % (folder, number))
            for folder in range(300)
            for number in range(5)
        ]
        for member in w.members:
            await member.plant(*rows)
        with w.taken() as cost:
            page = await Listing(w[1]).objects(BUCKET, delimiter=b"/")
        assert page.prefixes == [b"%03d/" % folder for folder in range(300)]
        assert (cost.round_trips, len(cost.calls)) == (1.0, 1)


@simulated
async def test_a_deletion_that_one_replica_knows_of_counts_and_is_at_a_quorum_then() -> None:
    async with Replicas(3) as w:
        keys = [b"a/1", b"a/2", b"b/1", b"c/1", b"c/2"]
        for member in w.members:
            await member.plant(*[version(1, kind=Kind.BLOCKS, key=key) for key in keys])
        gone = [version(2, kind=Kind.DELETE_MARKER, key=key) for key in (b"a/1", b"b/1", b"c/2")]
        await w.members[1].plant(*gone)
        w.cut(2)
        assert await folders(w, 0) == [b"a/", b"c/"]
        assert [w.members[0].holds(row.key) for row in gone[:2]] == [row.value for row in gone[:2]]


@simulated
async def test_what_is_undecided_is_settled_where_it_may_be_what_lists_a_folder() -> None:
    async with Replicas(3) as w:
        await leave_undecided(w, 7, 0, 1)
        assert await folders(w, 2, b"o") == [b"lo"]


@simulated
async def test_what_is_undecided_in_a_folder_that_is_listed_anyway_stays_so() -> None:
    async with Replicas(3) as w:
        for member in w.members:
            await member.plant(version(1, kind=Kind.BLOCKS, key=b"loa"))
        await leave_undecided(w, 7, 0, 1, 2)
        assert await folders(w, 2, b"o") == [b"lo"]
        assert w[1].registers.left_behind() == {PREFIX}


@simulated
async def test_what_is_no_fold_is_refused() -> None:
    start = in_bucket(Table.OBJECT, BUCKET)
    async with Replicas(1) as w:
        for fold in ([0, b"", True], [0, b"/"], b"/", [b"", b"/", True]):
            with pytest.raises(InvalidArgument):
                await w[0].rows.read(Question.FOLD, start, start + b"\xff", fold, 10)
        uploads = in_bucket(Table.UPLOAD, BUCKET)
        with pytest.raises(InvalidArgument):
            await w[0].rows.read(Question.FOLD, uploads, uploads + b"\xff", [0, b"/", True], 10)


@pytest.mark.parametrize("sent", [[1], [[1]], [[2, 5]], [[-1, 5]], [[0, 0]], [["0", 5]]])
def test_gaps_of_no_row_are_no_answer(sent: list[Any]) -> None:
    assert read_gaps([[1, 3]], [b"one", b"two"]) == (Gap(b"two", 3),)
    with pytest.raises(StorageFailed):
        read_gaps(sent, [b"one", b"two"])
