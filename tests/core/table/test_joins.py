"""The merge laws as replicas use them: on bytes, for every table, removals as bytes included.

Also what follows from them: a stored row only ever rises, whatever a replica is sent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.ids import BlockHash, BucketId, DataId, VersionId
from garage_lite.core.model import rowkeys
from garage_lite.core.model.objects import Kind, ObjectVersion
from garage_lite.core.model.rowkeys import STAMP_BYTES, Stamp, Table, stamp_of
from garage_lite.core.model.versions import PendingState
from garage_lite.core.table.apply import plan_changes
from garage_lite.core.table.schema import (
    EMPTY_IS_REMOVED,
    FIRST_LOCAL_TABLE,
    Update,
    merge_rows,
)
from tests.core.model import rows as drawn
from tests.core.model.rows import BUCKET, STAMP
from tests.core.table.views import DictView

DATA: Final = DataId(STAMP.id)
NAME: Final = b"photo"
PREFIX: Final = rowkeys.object_prefix(BUCKET, NAME)


def _encoded(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return strategy.map(lambda row: row.encode())


def _flagged(version: ObjectVersion, void: bool, sure: bool) -> ObjectVersion:
    return replace(version, void=void, sure=sure)


versions = st.builds(_flagged, drawn.versions, st.booleans(), st.booleans())
pendings = st.builds(
    lambda row, owner: replace(row, owner=owner if row.state >= PendingState.DONE else b""),
    drawn.pendings,
    st.sampled_from([b"", PREFIX, b"\x13another"]),
)
removable = st.sampled_from([b"", b"a", b"ab", b"\xff"])

ROWS: Final[dict[Table, tuple[bytes, st.SearchStrategy[bytes]]]] = {
    Table.BUCKET: (rowkeys.everywhere_row(Table.BUCKET, BUCKET), _encoded(drawn.buckets)),
    Table.ALIAS: (rowkeys.everywhere_row(Table.ALIAS, b"photos"), _encoded(drawn.aliases)),
    Table.KEY: (
        rowkeys.everywhere_row(Table.KEY, b"GK1"),
        _encoded(drawn.live_keys | drawn.dead_keys),
    ),
    Table.OBJECT: (rowkeys.object_row(PREFIX, STAMP), _encoded(versions)),
    Table.INLINE: (rowkeys.inline_row(BUCKET, STAMP.id), removable),
    Table.UPLOAD: (rowkeys.upload_row(BUCKET, NAME, STAMP.id), _encoded(drawn.uploads)),
    Table.PART: (
        rowkeys.part_row(BUCKET, STAMP.id, 1, STAMP),
        _encoded(drawn.parts) | st.just(b""),
    ),
    Table.PAGE: (rowkeys.page_row(BUCKET, DATA, end=9), removable),
    Table.PART_LIST: (rowkeys.part_list_row(BUCKET, STAMP.id, end=9), removable),
    Table.PENDING: (rowkeys.pending_row(BUCKET, DATA), _encoded(pendings)),
    Table.BLOCK_REF: (
        rowkeys.block_ref_row(BlockHash(b"h" * 32), DATA),
        _encoded(drawn.block_refs),
    ),
}
"""A key of each table that replicas merge, and how to draw copies of its row."""

TABLES: Final = sorted(ROWS)
UNMERGED: Final = {Table.TOKEN, Table.COUNTER}
"""Tokens are not stored yet; counters are each replica's own and never sent."""


def test_every_replicated_table_is_here() -> None:
    assert set(ROWS) | UNMERGED == {table for table in Table if table < FIRST_LOCAL_TABLE}


@pytest.mark.parametrize("table", TABLES)
@given(data=st.data())
def test_i1_merging_stored_bytes_is_a_join(table: Table, data: st.DataObject) -> None:
    key, rows = ROWS[table]
    a, b, c = (data.draw(rows) for _ in range(3))

    def join(one: bytes, other: bytes) -> bytes:
        return merge_rows(key, one, other)

    assert join(a, a) == a
    assert join(a, b) == join(b, a)
    assert join(join(a, b), c) == join(a, join(b, c))
    assert join(join(a, b), a) == join(a, b)


@pytest.mark.parametrize("table", sorted(EMPTY_IS_REMOVED))
@given(data=st.data())
def test_what_is_removed_wins_every_merge(table: Table, data: st.DataObject) -> None:
    key, rows = ROWS[table]
    assert merge_rows(key, data.draw(rows), b"") == merge_rows(key, b"", data.draw(rows)) == b""


def _object_update(draw: st.DrawFn) -> Update:
    """Several versions of one name, each of one kind for good, as a stamp has one writer."""
    number = draw(st.integers(1, 4))
    stamp = Stamp(number, 0, VersionId(bytes([number]) * 16))
    version = replace(
        draw(versions), stamp=stamp, kind=list(Kind)[number - 1], replaces=None, meta=_NO
    )
    return Update(rowkeys.object_row(PREFIX, stamp), version.encode())


_NO: Final = ObjectVersion(STAMP, Kind.INLINE, 0).meta


@st.composite
def updates(draw: st.DrawFn) -> Update:
    table = draw(st.sampled_from(TABLES))
    if table is Table.OBJECT:
        return _object_update(draw)
    key, rows = ROWS[table]
    return Update(key, draw(rows))


@given(st.lists(st.lists(updates(), min_size=1, max_size=3), max_size=8))
def test_i3_a_stored_row_never_falls_back(batches: list[list[Update]]) -> None:
    """Each batch as one message: a row that is there before and after has only risen, also
    where the replica itself added to what it was sent."""
    view = DictView()
    for batch in batches:
        before = dict(view.rows)
        for key, value in plan_changes(batch, view, 1, alone=False):
            if value is None:
                view.rows.pop(key, None)
            else:
                view.rows[key] = value
        view.settle()
        for key, old in before.items():
            new = view.rows.get(key)
            if new is not None and key[0] in ROWS:
                assert merge_rows(key, old, new) == new, Table(key[0]).name
        _check_removals_stay(before, view.rows)


def _check_removals_stay(before: dict[bytes, bytes], after: dict[bytes, bytes]) -> None:
    """Rows that only say "removed" go by nothing but the collection of tombstones."""
    for key, old in before.items():
        if key[0] in EMPTY_IS_REMOVED and old == b"":
            assert after.get(key) == b""
        if key[0] == Table.OBJECT:
            version = ObjectVersion.decode(stamp_of(key), old)
            covered = any(
                other < key and ObjectVersion.decode(stamp_of(other), value).floor
                for other, value in after.items()
                if other[:-STAMP_BYTES] == key[:-STAMP_BYTES]
            )
            assert key in after or covered, f"{version} went without a floor above it"


def test_a_bucket_id_is_where_keys_say() -> None:
    """The keys above are of one bucket, so that their rows meet in one plan."""
    assert {BucketId(key[2:34]) for table, (key, _) in ROWS.items() if 0x10 <= table < 0x20} == {
        BUCKET
    }
