"""What is decided on a few rows of a key, against the plain definition on all of them.

The model keeps every version it ever met and asks `survivors`. The rows are a replica's: pruned,
and read a few at a time. Whatever the order, both must say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.ids import BucketId, VersionId
from garage_lite.core.model.counters import Counters
from garage_lite.core.model.objects import Floor, Kind, ObjectVersion, survivors
from garage_lite.core.model.rowkeys import (
    Stamp,
    Table,
    buried_row,
    counter_row,
    inline_row,
    object_prefix,
    object_row,
    object_row_of,
    stamp_of,
)
from garage_lite.core.store.versions import newest, row_of, with_id
from garage_lite.core.table import history
from garage_lite.core.table.history import rows_that_decide, weighs
from garage_lite.core.table.schema import Change, Removal, Update
from tests.core.table.views import DictView

BUCKET = BucketId(bytes(range(32)))
PREFIX = object_prefix(BUCKET, b"key")


def version(number: int, **fields: object) -> ObjectVersion:
    stamp = Stamp(number, 0, VersionId(number.to_bytes(16, "big")))
    plain = ObjectVersion(stamp, Kind.INLINE, number, number, null=False)
    return replace(plain, **fields)  # type: ignore[arg-type]


def row(of: ObjectVersion) -> bytes:
    return object_row(PREFIX, of.stamp)


def put(new: ObjectVersion) -> list[Change]:
    changes: list[Change] = [Update(row(new), new.encode())]
    if new.kind is Kind.INLINE:
        changes.append(Update(inline_row(BUCKET, new.id), b"x" * new.size))
    return changes


@st.composite
def arrivals(draw: st.DrawFn) -> list[ObjectVersion]:
    """Versions of one key in the order in which a replica meets them: some twice, at first
    without what was said of them later."""
    made: list[ObjectVersion] = []
    for number in range(1, draw(st.integers(2, 12))):
        null = draw(st.sampled_from([False, False, True]))
        floors = [Floor.NONE] * 4 + [Floor.NULL, Floor.NULL if null else Floor.NONE, Floor.ALL]
        older = [v.stamp for v in made]
        made.append(
            version(
                number,
                kind=draw(st.sampled_from([Kind.INLINE, Kind.INLINE, Kind.DELETE_MARKER])),
                size=number,
                null=null,
                removed=draw(st.integers(0, 3)) == 0,
                floor=draw(st.sampled_from(floors)),
                replaces=draw(st.sampled_from([None] * 6 + older[-4:])),
            )
        )
    made = [replace(v, size=0) if not v.has_data else v for v in made]
    early = [
        replace(v, removed=draw(st.booleans()) and v.removed, floor=draw(st.just(Floor.NONE)))
        for v in made
        if draw(st.booleans())
    ]
    if draw(st.booleans()):
        return [*draw(st.permutations(early)), *draw(st.permutations(made))]
    return draw(st.permutations([*early, *made]))


def counted(alive: Sequence[ObjectVersion]) -> Counters:
    return Counters(
        objects=int(bool(alive) and alive[0].has_data), total_bytes=sum(v.size for v in alive)
    )


def check(view: DictView, ever: dict[Stamp, ObjectVersion]) -> None:
    """The replica says of the key what the plain definition says of all that was ever met."""
    everything = [ever[stamp] for stamp in sorted(ever, reverse=True)]
    alive = survivors(everything)
    assert Counters.decode(view.rows.get(counter_row(BUCKET), Counters().encode())) == counted(
        alive
    )
    assert set(view.of(Table.INLINE)) == {
        inline_row(BUCKET, v.id) for v in alive if v.kind is Kind.INLINE
    }
    current = newest(rows_that_decide(view, PREFIX))
    assert (current and current.stamp) == (alive[0].stamp if alive else None)
    for one in everything:
        text = one.stamp.text
        found = with_id(rows_that_decide(view, PREFIX, row_of(PREFIX, text)), text)
        assert (found is not None) == (one in alive and not one.null and not one.is_tombstone)
    nulls = [v.stamp for v in alive if v.null and not v.is_tombstone]
    null = with_id(rows_that_decide(view, PREFIX, ()), "null")
    assert (null and null.stamp) == (nulls[0] if nulls else None)
    stored = [ObjectVersion.decode(stamp_of(k), v) for k, v in view.of(Table.OBJECT).items()]
    buried = {object_row_of(key) for key in view.of(Table.BURIED)}
    assert {row(v) for v in stored[history.TOP :] if weighs(v)} <= buried


@given(arrivals(), st.integers(1, 5), st.integers(1, 3), st.data())
def test_every_order_ends_as_the_plain_definition_says(
    met: list[ObjectVersion], top: int, at_once: int, data: st.DataObject
) -> None:
    view = DictView()
    ever: dict[Stamp, ObjectVersion] = {}
    with patch.object(history, "TOP", top):
        for at in range(0, len(met), at_once):
            batch = met[at : at + at_once]
            view.apply([change for new in batch for change in put(new)])
            for new in batch:
                ever[new.stamp] = new.merge(ever.get(new.stamp, new))
            check(view, ever)
        removed = [key for key, value in view.of(Table.OBJECT).items() if gone(key, value)]
        forgotten = data.draw(st.permutations(removed))
        for at in range(0, len(forgotten), at_once):
            view.apply([Removal(key) for key in forgotten[at : at + at_once]])
            check(view, ever)


def gone(key: bytes, value: bytes) -> bool:
    return ObjectVersion.decode(stamp_of(key), value).removed


MANY = 100_000


@pytest.fixture(scope="module")
def many() -> DictView:
    """A key with a null version from before versioning, and 100,000 more."""
    view = DictView()
    for new in [version(1, null=True, floor=Floor.ALL), *map(version, range(2, 8))]:
        view.apply(put(new))
    view.rows |= {row(v): v.encode() for v in map(version, range(8, MANY))}
    view.settle()
    return view


@pytest.mark.parametrize(
    "changes",
    [
        put(version(MANY)),
        put(version(MANY, kind=Kind.DELETE_MARKER, size=0)),
        put(version(MANY, null=True, floor=Floor.NULL)),
        put(version(MANY - 1, removed=True)),
        put(version(500, removed=True)),
        put(version(1, null=True, floor=Floor.ALL, removed=True)),
        put(replace(version(MANY), stamp=Stamp(600, 1, VersionId(bytes(16))))),
        put(replace(version(1, null=True), stamp=Stamp(0, 1, VersionId(bytes(16))))),
    ],
    ids=["put", "marker", "suspended", "newest", "deep", "null", "late", "under the floor"],
)
def test_100_000_versions_below_cost_no_reads(many: DictView, changes: list[Change]) -> None:
    many.rows_read = 0
    many.plan(changes)
    assert many.rows_read <= 2 * history.TOP


def test_100_000_versions_below_are_not_read_to_find_one(many: DictView) -> None:
    many.rows_read = 0
    assert newest(rows_that_decide(many, PREFIX)) == version(MANY - 1)
    text = version(777).version_id
    assert with_id(rows_that_decide(many, PREFIX, row_of(PREFIX, text)), text) == version(777)
    null = with_id(rows_that_decide(many, PREFIX, ()), "null")
    assert null is not None and null.stamp.clock == 1
    assert many.rows_read <= 4 * history.TOP


def test_a_suspended_bucket_replaces_the_null_version_under_100_000(many: DictView) -> None:
    planned = dict(many.plan(put(version(MANY, null=True, floor=Floor.NULL))))
    null = ObjectVersion.decode(version(1).stamp, planned[row(version(1))] or b"")
    assert null.removed and null.floor is Floor.ALL
    assert planned[inline_row(BUCKET, version(1).id)] is None


def test_a_row_that_rises_to_the_top_needs_no_buried_row() -> None:
    view = DictView()
    view.apply(put(version(1, null=True, floor=Floor.ALL)))
    for number in range(2, 8):
        view.apply(put(version(number)))
    assert list(view.of(Table.BURIED)) == [buried_row(row(version(1)))]
    view.apply([Removal(row(version(number))) for number in range(3, 8)])
    assert not view.of(Table.BURIED)
