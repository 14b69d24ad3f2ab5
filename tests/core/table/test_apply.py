"""Derived changes: what goes with a row goes in its record, in whatever order updates arrive."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.block.resync import due_of
from garage_lite.core.ids import BlockHash, BucketId, DataId, NodeId, VersionId
from garage_lite.core.limits import BLOCK_DELETE_DELAY_MS
from garage_lite.core.model import rowkeys
from garage_lite.core.model.counters import Counters
from garage_lite.core.model.objects import Floor, Kind, ObjectVersion, survivors
from garage_lite.core.model.rowkeys import CascadeKind, Stamp, Table, stamp_of
from garage_lite.core.model.uploads import Part, Upload, UploadState
from garage_lite.core.model.versions import BlockRef, Pending, PendingState
from garage_lite.core.table.plan import TOMBSTONE_DELAY_MS
from garage_lite.core.table.schema import Change, Removal, Update
from tests.core.table.views import DictView

BUCKET = BucketId(bytes(range(32)))
NODE = NodeId(bytes(32))


def version_id(number: int) -> VersionId:
    return VersionId(number.to_bytes(16, "big"))


def version(number: int, kind: Kind = Kind.INLINE, floor: Floor = Floor.ALL) -> ObjectVersion:
    size = 0 if kind is Kind.DELETE_MARKER else number
    return ObjectVersion(Stamp(number, 0, version_id(number)), kind, number, size, floor=floor)


def put(row: ObjectVersion, name: bytes = b"photo") -> list[Change]:
    changes: list[Change] = [
        Update(rowkeys.object_row(rowkeys.object_prefix(BUCKET, name), row.stamp), row.encode())
    ]
    if row.kind is Kind.INLINE:
        changes.append(Update(rowkeys.inline_row(BUCKET, row.id), b"x" * row.size))
    return changes


def counters(view: DictView) -> Counters:
    stored = view.get(rowkeys.counter_row(BUCKET))
    return Counters.decode(stored) if stored else Counters()


def cascades(view: DictView) -> set[tuple[bytes, bytes]]:
    return {rowkeys.cascade_of(key)[1:] for key in view.of(Table.CASCADE)}


def test_an_overwrite_drops_the_version_below_it_with_its_bytes() -> None:
    view = DictView()
    view.apply(put(version(1)))
    view.apply(put(version(2)))
    assert [stamp_of(key).clock for key in view.of(Table.OBJECT)] == [2]
    assert list(view.of(Table.INLINE)) == [rowkeys.inline_row(BUCKET, version_id(2))]
    assert counters(view) == Counters(objects=1, total_bytes=2)


def test_a_late_version_leaves_nothing_behind() -> None:
    view = DictView()
    view.apply(put(version(2)))
    view.apply(put(version(1)))
    assert [stamp_of(key).clock for key in view.of(Table.OBJECT)] == [2]
    assert list(view.of(Table.INLINE)) == [rowkeys.inline_row(BUCKET, version_id(2))]


def test_an_overwritten_big_object_cascades() -> None:
    view = DictView()
    view.apply(put(version(1, Kind.BLOCKS)))
    view.apply(put(version(2, Kind.MULTIPART)))
    assert cascades(view) == {(version_id(1), CascadeKind.DATA)}
    view.apply(put(version(3, Kind.DELETE_MARKER)))
    assert (version_id(2), CascadeKind.PARTS) in cascades(view)
    assert counters(view) == Counters()


def test_a_deletion_is_queued_to_be_forgotten_and_then_leaves_nothing() -> None:
    view = DictView()
    view.apply(put(version(1)))
    view.apply(put(version(2, Kind.DELETE_MARKER)), now_ms=7)
    (todo,) = view.of(Table.TOMBSTONE)
    marker = todo[10:]
    assert int.from_bytes(todo[2:10], "big") == (7 + TOMBSTONE_DELAY_MS) * 1000
    assert stamp_of(marker).clock == 2
    view.apply([Removal(marker), Update(todo, b"")])
    assert {key[0] for key in view.rows} == {Table.COUNTER}


def test_versions_without_a_floor_stay_until_removed_one_by_one() -> None:
    view = DictView()
    for number in (1, 2, 3):
        view.apply(put(version(number, floor=Floor.NONE)))
    assert counters(view) == Counters(objects=1, total_bytes=6)
    view.apply(put(replace(version(3, floor=Floor.NONE), removed=True)))
    assert rowkeys.inline_row(BUCKET, version_id(3)) not in view.rows
    assert counters(view) == Counters(objects=1, total_bytes=3)
    assert len(view.of(Table.OBJECT)) == 3


def test_a_repeated_update_changes_nothing() -> None:
    view = DictView()
    view.apply(put(version(1)))
    assert view.apply(put(version(1))) == []


@given(st.data())
def test_every_order_of_arrival_ends_in_the_same_rows(data: st.DataObject) -> None:
    kinds = st.sampled_from(list(Kind))
    floors = st.sampled_from(list(Floor))
    rows = [
        replace(
            version(number, data.draw(kinds), data.draw(floors)),
            null=data.draw(st.booleans()),
            removed=data.draw(st.integers(0, 4)) == 0,
        )
        for number in range(1, data.draw(st.integers(2, 6)))
    ]
    ends = []
    for order in (rows, data.draw(st.permutations([*rows, *rows]))):
        view = DictView()
        for row in order:
            view.apply(put(row))
        kept = [ObjectVersion.decode(stamp_of(k), v) for k, v in view.of(Table.OBJECT).items()]
        alive = survivors(kept)
        assert counters(view) == Counters(
            objects=int(bool(alive) and alive[0].has_data),
            total_bytes=sum(row.size for row in alive),
        )
        ends.append(view.of(Table.OBJECT))
        for row in alive:
            if row.kind is Kind.INLINE:
                assert rowkeys.inline_row(BUCKET, row.id) in view.rows
    assert ends[0] == ends[1]


def test_pending_data_counts_and_cascades_when_removed() -> None:
    view = DictView()
    data = DataId(version_id(9))
    row = rowkeys.pending_row(BUCKET, data)
    pending = Pending(PendingState.WRITING, 5, NODE, b"run")
    view.apply([Update(row, pending.encode())])
    assert counters(view).pending == 1
    view.apply([Update(row, replace(pending, state=PendingState.REMOVED).encode())])
    assert row not in view.rows
    assert cascades(view) == {(data, CascadeKind.DATA)}
    assert counters(view).pending == 0


def test_pending_data_that_became_an_object_does_not_cascade() -> None:
    view = DictView()
    row = rowkeys.pending_row(BUCKET, DataId(version_id(4)))
    view.apply([Update(row, Pending(PendingState.WRITING, 5, NODE, b"run").encode())])
    view.apply(put(version(4, Kind.BLOCKS)))
    assert row not in view.rows
    assert cascades(view) == set()
    assert counters(view) == Counters(objects=1, total_bytes=4)


def test_the_last_live_reference_queues_the_block() -> None:
    view = DictView()
    block = BlockHash(b"b" * 32)
    one, two = (rowkeys.block_ref_row(block, DataId(version_id(n))) for n in (1, 2))
    live, dead = BlockRef(BUCKET).encode(), BlockRef(BUCKET, deleted=True).encode()
    view.apply([Update(one, live), Update(two, live)])
    view.apply([Update(one, dead)])
    assert view.of(Table.RESYNC) == {}
    view.apply([Update(two, dead)], now_ms=3)
    (due,) = view.of(Table.RESYNC_DUE)
    assert due_of(due) == ((3 + BLOCK_DELETE_DELAY_MS) * 1000, block)


def test_a_part_sent_again_replaces_the_earlier_one_in_any_order() -> None:
    upload = version_id(1)
    old, new = (Part(DataId(version_id(n)), n, b"e" * 16, 0) for n in (10, 20))
    rows = [
        Update(rowkeys.part_row(BUCKET, upload, 3, Stamp(n, 0, version_id(n))), part.encode())
        for n, part in ((1, old), (2, new))
    ]
    other = rowkeys.part_row(BUCKET, upload, 4, Stamp(1, 0, version_id(1)))
    for order in (rows, rows[::-1]):
        view = DictView()
        view.apply([Update(other, old.encode())])
        for row in order:
            view.apply([row])
        assert list(view.of(Table.PART)) == sorted([rows[1].key, other])
        assert cascades(view) == {(old.data, CascadeKind.DATA)}
        assert counters(view) == Counters(parts=2, part_bytes=30)


def test_an_upload_counts_until_completed_or_removed() -> None:
    for state, kind in (
        (UploadState.COMPLETED, CascadeKind.COMPLETED),
        (UploadState.REMOVED, CascadeKind.UPLOAD),
    ):
        view = DictView()
        row = rowkeys.upload_row(BUCKET, b"film", version_id(1))
        upload = Upload(UploadState.OPEN, 0, "GK")
        view.apply([Update(row, upload.encode())])
        assert counters(view).uploads == 1
        view.apply([Update(row, replace(upload, state=state).encode())])
        assert counters(view).uploads == 0
        assert cascades(view) == {(version_id(1), kind)}
