"""Rows travel in bounded records, each with what belongs to it, and nothing else is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.errors import InvalidArgument
from garage_lite.core.ids import BucketId, VersionId
from garage_lite.core.model.objects import Kind, ObjectVersion
from garage_lite.core.model.rowkeys import Stamp, inline_row, object_prefix, object_row
from garage_lite.core.table.digest import Place, Realm
from garage_lite.core.table.sync import (
    RECORD_BYTES,
    RECORD_ROWS,
    received,
    records,
    size_of,
    with_inline,
)

BUCKET = BucketId(b"\x07" * 32)
PLACE = Place(Realm.METADATA, 7)


def inline_version(number: int) -> tuple[bytes, bytes, bytes]:
    """A row, its value, and the key of its bytes."""
    id_ = VersionId(number.to_bytes(16, "big"))
    stamp = Stamp(number + 1, 0, id_)
    made = ObjectVersion(stamp, Kind.INLINE, 0, size=3, etag=bytes(16))
    return object_row(object_prefix(BUCKET, b"k"), stamp), made.encode(), inline_row(BUCKET, id_)


@given(st.lists(st.integers(0, 3000), max_size=300))
def test_records_are_bounded_and_keep_a_version_with_its_bytes(sizes: list[int]) -> None:
    rows = []
    for number, size in enumerate(sizes):
        key, value, _ = inline_version(number)
        rows.append((key, value, bytes(size)))
    made = list(records(rows))
    assert [one.key for record in made for one in record][::2] == [row[0] for row in rows]
    for record in made:
        assert len(record) <= 2 * RECORD_ROWS
        assert sum(size_of(tuple(one)) for one in record) <= RECORD_BYTES + 64 * RECORD_ROWS
        assert len(record) % 2 == 0


def test_a_version_without_its_bytes_stays_and_is_not_taken() -> None:
    key, value, bytes_key = inline_version(1)
    held: dict[bytes, bytes] = {bytes_key: b"abc"}
    assert list(with_inline([(key, value)], lambda row: held.get(row))) == [(key, value, b"abc")]
    assert list(with_inline([(key, value)], lambda row: None)) == []
    with pytest.raises(InvalidArgument):
        list(records([(key, value)]))


@pytest.mark.parametrize(
    "sent",
    [
        [b"\x10\x08" + b"k" * 40, b"v"],
        [b"\x11\x07" + b"k" * 40, b"v"],
        [b"\x80\x07" + b"k", b"v"],
        [b"\x10\x07"],
        [b"\x10\x07k", 5],
        b"\x10\x07k",
        [b"", b""],
    ],
)
def test_what_is_no_row_of_the_place_is_refused(sent: object) -> None:
    with pytest.raises(InvalidArgument):
        received([sent], PLACE)
