"""Row keys keep the order of what they are made of, and give it back."""

from __future__ import annotations

from itertools import combinations

from hypothesis import example, given
from hypothesis import strategies as st

from garage_lite.core.ids import BlockHash, BucketId, DataId, VersionId, partition_of
from garage_lite.core.model import rowkeys
from garage_lite.core.model.rowkeys import SUFFIX_BYTES, Stamp, Table

BUCKET = BucketId(b"\x42" * 32)
VERSION = VersionId(b"\x07" * 16)
DATA = DataId(b"\x08" * 16)

bytes_with_edges = st.lists(
    st.sampled_from([b"\x00", b"\x01", b"\x02", b"\xfe", b"\xff", b"a", b"/"]), max_size=6
).map(b"".join)
names = st.one_of(bytes_with_edges, st.binary(max_size=30))
stamps = st.builds(
    Stamp,
    st.one_of(st.integers(0, 2), st.integers(0, 2**64 - 1)),
    st.one_of(st.integers(0, 2), st.integers(0, 2**16 - 1)),
    st.binary(min_size=16, max_size=16).map(VersionId),
)
buckets = st.binary(min_size=32, max_size=32).map(BucketId)


@given(names)
@example(b"\x00\xff\x00\x01")
def test_escaping_is_undone(name: bytes) -> None:
    assert rowkeys.unescape(rowkeys.escape(name)) == name


@given(buckets, names, stamps)
def test_an_object_row_gives_back_its_parts(bucket: BucketId, name: bytes, stamp: Stamp) -> None:
    row = rowkeys.object_row(rowkeys.object_prefix(bucket, name), stamp)
    assert rowkeys.object_name_of(row) == name
    assert rowkeys.stamp_of(row) == stamp
    assert row[0] == Table.OBJECT
    assert row[1] == partition_of(bucket)
    assert row[2:34] == bucket


@given(names, names, stamps, stamps)
@example(b"a", b"a\x00", Stamp(0, 0, VersionId(bytes(16))), Stamp(1, 0, VersionId(bytes(16))))
def test_rows_are_in_order_of_name_then_newest_first(
    name: bytes, other: bytes, stamp: Stamp, later: Stamp
) -> None:
    row = rowkeys.object_row(rowkeys.object_prefix(BUCKET, name), stamp)
    other_row = rowkeys.object_row(rowkeys.object_prefix(BUCKET, other), later)
    if name != other:
        assert (row < other_row) == (name < other)
    elif stamp != later:
        assert (row < other_row) == (stamp > later)
    else:
        assert row == other_row


@given(names, names)
def test_no_name_is_the_start_of_another_in_its_rows(name: bytes, other: bytes) -> None:
    if name != other:
        mine, theirs = rowkeys.object_prefix(BUCKET, name), rowkeys.object_prefix(BUCKET, other)
        assert not mine.startswith(theirs)


@given(bytes_with_edges, names)
def test_what_starts_alike_is_one_range(prefix: bytes, name: bytes) -> None:
    """Folding and prefix listing lean on this."""
    start = rowkeys.in_bucket(Table.OBJECT, BUCKET) + rowkeys.escape(prefix)
    row = rowkeys.object_prefix(BUCKET, name)
    assert (start <= row < rowkeys.after_prefix(start)) == name.startswith(prefix)


@given(st.binary(min_size=1, max_size=6), st.binary(max_size=6))
def test_after_a_prefix_comes_the_least_that_does_not_start_so(prefix: bytes, other: bytes) -> None:
    if not prefix.strip(b"\xff"):
        return
    end = rowkeys.after_prefix(prefix)
    assert not end.startswith(prefix)
    assert (prefix <= other < end) == other.startswith(prefix)


@given(stamps, st.integers(1, 10_000), names)
def test_the_other_rows_give_back_their_parts(stamp: Stamp, number: int, name: bytes) -> None:
    part = rowkeys.part_row(BUCKET, VERSION, number, stamp)
    assert (rowkeys.part_number_of(part), rowkeys.stamp_of(part)) == (number, stamp)
    upload = rowkeys.upload_row(BUCKET, name, VERSION)
    assert (rowkeys.upload_name_of(upload), rowkeys.upload_id_of(upload)) == (name, VERSION)
    page = rowkeys.page_row(BUCKET, DATA, end=stamp.clock)
    assert rowkeys.end_of_page(page) == stamp.clock


@given(st.integers(1, 10_000), st.integers(1, 10_000), stamps, stamps)
def test_parts_are_in_order_of_number_then_newest_first(
    number: int, other: int, stamp: Stamp, later: Stamp
) -> None:
    row = rowkeys.part_row(BUCKET, VERSION, number, stamp)
    other_row = rowkeys.part_row(BUCKET, VERSION, other, later)
    assert (row < other_row) == ((number, later) < (other, stamp))


@given(st.lists(st.integers(1, 2**40), min_size=1, max_size=5, unique=True), st.data())
def test_the_first_page_at_or_after_a_byte_holds_it(ends: list[int], data: st.DataObject) -> None:
    rows = sorted(rowkeys.page_row(BUCKET, DATA, end=end) for end in ends)
    byte = data.draw(st.integers(0, max(ends) - 1))
    seek = rowkeys.page_row(BUCKET, DATA, end=byte + 1)
    found = rowkeys.end_of_page(next(row for row in rows if row >= seek))
    assert found == min(end for end in ends if end > byte)


def test_the_bloom_filters_leave_out_what_varies_under_one_name() -> None:
    stamp = Stamp(1, 2, VERSION)
    block = BlockHash(b"\x09" * 32)
    prefixes = {
        rowkeys.object_row(rowkeys.object_prefix(BUCKET, b"k"), stamp): rowkeys.object_prefix(
            BUCKET, b"k"
        ),
        rowkeys.upload_row(BUCKET, b"k", VERSION): rowkeys.upload_row(BUCKET, b"k", VersionId(b"")),
        rowkeys.part_row(BUCKET, VERSION, 1, stamp): rowkeys.parts_prefix(BUCKET, VERSION),
        rowkeys.page_row(BUCKET, DATA, end=1): rowkeys.pages_prefix(BUCKET, DATA),
        rowkeys.part_list_row(BUCKET, VERSION, end=1): rowkeys.part_lists_prefix(BUCKET, VERSION),
        rowkeys.block_ref_row(block, DATA): rowkeys.block_refs_prefix(block),
    }
    for beside in (rowkeys.buried_row, rowkeys.undecided_row):
        prefixes |= {
            beside(row): beside(prefix)
            for row, prefix in prefixes.items()
            if row[0] == Table.OBJECT
        }
    assert {row[0] for row in prefixes} == set(SUFFIX_BYTES)
    for row, prefix in prefixes.items():
        assert row[: -SUFFIX_BYTES[row[0]]] == prefix


def test_rows_of_different_tables_never_meet() -> None:
    stamp = Stamp(1, 2, VERSION)
    rows = [
        rowkeys.object_row(rowkeys.object_prefix(BUCKET, b"k"), stamp),
        rowkeys.inline_row(BUCKET, VERSION),
        rowkeys.pending_row(BUCKET, DATA),
        rowkeys.counter_row(BUCKET),
        rowkeys.cascade_row(BUCKET, VERSION, rowkeys.CascadeKind.DATA),
        rowkeys.everywhere_row(Table.BUCKET, BUCKET),
        rowkeys.local_row(Table.NODE, b"name"),
    ]
    for row, other in combinations(rows, 2):
        assert row[0] != other[0]


@given(stamps)
def test_a_stamp_is_found_by_its_text_and_by_no_other(stamp: Stamp) -> None:
    text = stamp.text
    assert rowkeys.stamp_from_text(text) == stamp
    for other in (text[:-2], text + "00", " " + text, "null", "", text[:-1] + "g"):
        assert rowkeys.stamp_from_text(other) is None
    assert text == text.upper() or rowkeys.stamp_from_text(text.upper()) is None


@given(names, stamps)
def test_a_buried_row_leads_to_its_object_row(name: bytes, stamp: Stamp) -> None:
    row = rowkeys.object_row(rowkeys.object_prefix(BUCKET, name), stamp)
    assert rowkeys.object_row_of(rowkeys.buried_row(row)) == row
    assert rowkeys.buried_row(row).startswith(
        rowkeys.buried_row(rowkeys.object_prefix(BUCKET, name))
    )
