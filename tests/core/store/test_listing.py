"""Listings against a naive one over a sorted list, through pages of every size."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.errors import StorageFailed
from garage_lite.core.ids import BucketId, VersionId
from garage_lite.core.model.objects import (
    Floor,
    Kind,
    ObjectMeta,
    ObjectVersion,
    survivors,
)
from garage_lite.core.model.rowkeys import Stamp, object_prefix, object_row
from garage_lite.core.store.listing import Listing
from garage_lite.core.store.listing_pages import ListEntry
from garage_lite.core.table.folding import Fold, Run

BUCKET = BucketId(b"\xff" * 32)
NEIGHBOURS = (BucketId(b"\xff" * 31 + b"\xfe"), BucketId(b"\x00" * 32))


@dataclass
class SortedRows:
    """Rows in a sorted list, read in batches of any size; counts scans and rows."""

    rows: list[tuple[bytes, bytes]]
    batch: int = 32
    scans: int = 0
    rows_read: int = 0
    alone: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        self.rows.sort()
        self.keys = [key for key, _ in self.rows]

    async def scan(
        self, start: bytes, end: bytes
    ) -> AsyncIterator[tuple[list[bytes], list[bytes]]]:
        self.scans += 1
        position = bisect_left(self.keys, start)
        stop = bisect_left(self.keys, end)
        while position < stop:
            rows = self.rows[position : min(position + self.batch, stop)]
            position += len(rows)
            self.rows_read += len(rows)
            if self.batch % 3 == 0:
                yield [], []
            yield [key for key, _ in rows], [value for _, value in rows]

    async def folded(self, start: bytes, end: bytes, fold: Fold, most: int) -> list[Run]:
        raise AssertionError("there are no other replicas")

    async def versions(
        self, prefix: bytes, named: Iterable[bytes] | None = None
    ) -> list[tuple[bytes, bytes]]:
        """All of the key: what a replica leaves out decides nothing."""
        return [row for row in self.rows if row[0].startswith(prefix)]


@dataclass
class Model:
    """The versions of each key, newest first; lists the naive way."""

    versions: dict[bytes, list[ObjectVersion]] = field(default_factory=dict)

    def rows(self, bucket: BucketId = BUCKET) -> list[tuple[bytes, bytes]]:
        return [
            (object_row(object_prefix(bucket, key), version.stamp), version.encode())
            for key, versions in self.versions.items()
            for version in versions
        ]

    def objects(self) -> list[tuple[bytes, ObjectVersion]]:
        current = [(key, survivors(self.versions[key])[:1]) for key in sorted(self.versions)]
        return [(key, alive[0]) for key, alive in current if alive and alive[0].has_data]

    def items(self, prefix: bytes, delimiter: bytes) -> list[tuple[bytes, ListEntry | None]]:
        """(key, entry) and (common prefix, None), sorted."""
        items: dict[bytes, ListEntry | None] = {}
        for key, version in self.objects():
            group = _group(key, prefix, delimiter)
            if group is not None:
                items[group] = None
            elif key.startswith(prefix):
                items[key] = ListEntry(
                    key, version.size, version.etag, version.parts, version.mtime_ms
                )
        return sorted(items.items())

    def all_versions(self, prefix: bytes, delimiter: bytes) -> list[tuple[bytes, str | None, bool]]:
        """(key, version id, is latest), newest first, and (common prefix, None, False)."""
        listed: list[tuple[bytes, str | None, bool]] = []
        for key in sorted(self.versions):
            shown = [v for v in survivors(self.versions[key]) if not v.is_tombstone]
            group = _group(key, prefix, delimiter)
            if group is not None and shown:
                if (group, None, False) not in listed:
                    listed.append((group, None, False))
            elif key.startswith(prefix):
                listed += [(key, version.version_id, version is shown[0]) for version in shown]
        return listed


def _group(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    if not delimiter or not key.startswith(prefix) or delimiter not in key[len(prefix) :]:
        return None
    return prefix + key[len(prefix) :].split(delimiter)[0] + delimiter


def version(number: int, kind: Kind = Kind.INLINE, **fields: object) -> ObjectVersion:
    """The `number`-th version of a key: higher is newer."""
    stamp = Stamp(10**15 + number, 0, VersionId(number.to_bytes(16, "big")))
    plain = ObjectVersion(stamp, kind, 10**12 + number, number, number.to_bytes(16, "big"))
    return replace(plain, **fields)  # type: ignore[arg-type]


LETTERS = st.sampled_from([b"a", b"b", b"/", b"\x00", b"\x01", b"\xff", b".", "é".encode()])
NAMES = st.lists(LETTERS, min_size=1, max_size=5).map(b"".join)
PREFIXES = st.lists(LETTERS, max_size=2).map(b"".join)
DELIMITERS = st.sampled_from([b"", b"/", b"//", b"a", b"\x00", b"\xff", b"/a", b"\x00\xff"])


FLOORS = {
    True: st.sampled_from([Floor.NULL, Floor.ALL]),
    False: st.sampled_from([Floor.NONE, Floor.NONE, Floor.NULL, Floor.ALL]),
}
"""By whether a version is null: a null version removes at least the null ones below it."""


@st.composite
def histories(draw: st.DrawFn) -> list[ObjectVersion]:
    """Versions of one key, newest first, in any state that merges can leave behind."""
    count = draw(st.integers(1, 4))
    versions: list[ObjectVersion] = []
    for number in range(count):
        older = [v.stamp for v in versions]
        null = draw(st.booleans())
        versions.append(
            version(
                number,
                draw(st.sampled_from([Kind.INLINE, Kind.MULTIPART, Kind.DELETE_MARKER])),
                null=null,
                removed=draw(st.integers(0, 3)) == 0,
                floor=draw(FLOORS[null]),
                replaces=draw(st.sampled_from([None, None, *older])),
                meta=ObjectMeta((("content-type", "text/plain"),) * draw(st.integers(0, 1))),
            )
        )
    return versions[::-1]


MODELS = st.dictionaries(NAMES, histories(), max_size=14).map(Model)


def listing_of(model: Model, batch: int) -> Listing:
    """A listing of BUCKET with rows of other buckets all around."""
    foreign = Model({b"a/foreign": [version(1)], b"\xff\xff": [version(1)]})
    rows = model.rows() + [row for bucket in NEIGHBOURS for row in foreign.rows(bucket)]
    return Listing(SortedRows(rows, batch))


@given(MODELS, PREFIXES, DELIMITERS, st.integers(1, 16), st.integers(1, 6))
async def test_pages_to_the_end_give_the_naive_listing(
    model: Model, prefix: bytes, delimiter: bytes, limit: int, batch: int
) -> None:
    listing = listing_of(model, batch)
    expected = model.items(prefix, delimiter)
    met: list[tuple[bytes, ListEntry | None]] = []
    after, inclusive = b"", False
    while True:
        page = await listing.objects(
            BUCKET,
            prefix=prefix,
            delimiter=delimiter,
            after=after,
            inclusive=inclusive,
            limit=limit,
        )
        items = [(entry.key, entry) for entry in page.entries]
        met += sorted([*items, *((group, None) for group in page.prefixes)])
        assert len(met) <= len(expected)
        if page.next is None:
            break
        assert len(page.entries) + len(page.prefixes) == limit
        assert len(met) < len(expected), "truncated, but nothing follows"
        after, inclusive = page.next
    assert met == expected


@given(MODELS, PREFIXES, DELIMITERS, st.booleans(), st.integers(1, 4), st.data())
async def test_any_marker_goes_on_with_the_greater_items(
    model: Model,
    prefix: bytes,
    delimiter: bytes,
    inclusive: bool,
    batch: int,
    data: st.DataObject,
) -> None:
    items = [item for item, _ in model.items(prefix, delimiter)]
    marker = data.draw(st.sampled_from([*items, *sorted(model.versions), b"a/a"]) | NAMES)
    page = await listing_of(model, batch).objects(
        BUCKET, prefix=prefix, delimiter=delimiter, after=marker, inclusive=inclusive
    )
    keys = [entry.key for entry in page.entries]
    assert sorted([*keys, *page.prefixes]) == [
        item for item in items if item > marker or (inclusive and item == marker)
    ]


@given(MODELS, PREFIXES, DELIMITERS, st.integers(1, 16), st.integers(1, 6))
async def test_version_pages_to_the_end_give_the_naive_listing(
    model: Model, prefix: bytes, delimiter: bytes, limit: int, batch: int
) -> None:
    listing = listing_of(model, batch)
    expected = model.all_versions(prefix, delimiter)
    met: list[tuple[bytes, str | None, bool]] = []
    key_marker, version_marker = b"", None
    while True:
        page = await listing.versions(
            BUCKET,
            prefix=prefix,
            delimiter=delimiter,
            key_marker=key_marker,
            version_marker=version_marker,
            limit=limit,
        )
        entries = [(e.key, e.version_id, e.is_latest) for e in page.entries]
        groups = [(group, None, False) for group in page.prefixes]
        met += sorted([*entries, *groups], key=lambda item: item[0])
        assert len(met) <= len(expected)
        if page.next is None:
            break
        assert len(entries) + len(groups) == limit
        assert len(met) < len(expected), "truncated, but nothing follows"
        key_marker, version_marker = page.next
    assert met == expected


async def test_no_room_means_an_empty_page_that_is_not_truncated() -> None:
    listing = listing_of(Model({b"a": [version(1)]}), 32)
    assert (await listing.objects(BUCKET, limit=0)).next is None
    assert (await listing.versions(BUCKET, limit=0)).next is None
    assert not (await listing.objects(BUCKET, limit=0)).entries


async def test_versions_show_markers_null_ids_and_the_latest() -> None:
    model = Model(
        {
            b"k": [
                version(3, Kind.DELETE_MARKER, null=False),
                version(2, null=False),
                version(1, null=True),
            ],
            b"tombstone": [version(1, Kind.DELETE_MARKER, floor=Floor.ALL)],
        }
    )
    page = await listing_of(model, 2).versions(BUCKET)
    shown = [(e.key, e.version_id, e.is_marker, e.is_latest) for e in page.entries]
    assert shown == [
        (b"k", version(3).stamp.text, True, True),
        (b"k", version(2).stamp.text, False, False),
        (b"k", "null", False, False),
    ]


@pytest.mark.parametrize("inclusive", [True, False])
async def test_a_marker_inside_a_group_skips_the_group(inclusive: bool) -> None:
    model = Model({key: [version(1)] for key in (b"a/1", b"a/5", b"c/1")})
    page = await listing_of(model, 2).objects(
        BUCKET, delimiter=b"/", after=b"a/3", inclusive=inclusive
    )
    assert page.prefixes == [b"c/"]


async def test_a_version_marker_of_a_key_that_is_gone_goes_on_with_the_next_key() -> None:
    model = Model({b"a": [version(1)], b"c": [version(1)]})
    page = await listing_of(model, 2).versions(BUCKET, key_marker=b"b", version_marker="null")
    assert [entry.key for entry in page.entries] == [b"c"]


async def test_a_version_marker_that_was_removed_meanwhile_still_marks() -> None:
    versions = [version(number, null=False) for number in (4, 3, 2, 1)]
    page = await listing_of(Model({b"k": versions}), 2).versions(BUCKET, limit=2)
    assert page.next is not None
    versions[1] = replace(versions[1], removed=True)
    page = await listing_of(Model({b"k": versions}), 2).versions(
        BUCKET, key_marker=page.next.key, version_marker=page.next.version_id
    )
    assert [entry.size for entry in page.entries] == [2, 1]


async def test_a_big_group_is_sought_past_not_read_through() -> None:
    model = Model({b"a/%06d" % number: [version(1)] for number in range(20_000)})
    model.versions[b"b"] = [version(1)]
    rows = SortedRows(model.rows())
    page = await Listing(rows).objects(BUCKET, delimiter=b"/")
    assert page.prefixes == [b"a/"]
    assert [entry.key for entry in page.entries] == [b"b"]
    assert rows.scans == 2
    assert rows.rows_read < 300


async def test_many_old_versions_of_a_key_are_sought_past() -> None:
    versions = [version(number, null=False) for number in range(20_000, 0, -1)]
    rows = SortedRows(Model({b"a": versions, b"b": [version(1)]}).rows())
    page = await Listing(rows).objects(BUCKET)
    assert [(entry.key, entry.size) for entry in page.entries] == [(b"a", 20_000), (b"b", 1)]
    assert rows.rows_read < 300


async def test_a_page_of_versions_begins_at_its_marker() -> None:
    versions = [version(number, null=number == 50) for number in range(20_000, 0, -1)]
    rows = SortedRows(Model({b"a": versions, b"b": [version(1)]}).rows())
    for marker, first in ((version(9_000).stamp.text, 8_999), ("null", 49)):
        rows.rows_read = 0
        page = await Listing(rows).versions(
            BUCKET, key_marker=b"a", version_marker=marker, limit=100
        )
        assert [e.size for e in page.entries[:49]] == list(range(first, first - 49, -1))
        assert not any(e.is_latest for e in page.entries[:49])
        assert rows.rows_read < 200


async def test_a_marker_that_is_gone_still_marks_its_place() -> None:
    versions = [version(number, null=False) for number in (5, 3, 2)]
    listing = listing_of(Model({b"k": versions, b"l": versions[:1]}), 2)
    gone = version(4).stamp.text
    page = await listing.versions(BUCKET, key_marker=b"k", version_marker=gone)
    assert [(e.size, e.is_latest) for e in page.entries] == [(3, False), (2, False), (5, True)]
    above = version(6).stamp.text
    page = await listing.versions(BUCKET, key_marker=b"k", version_marker=above)
    assert [(e.size, e.is_latest) for e in page.entries[:2]] == [(5, True), (3, False)]
    page = await listing.versions(BUCKET, key_marker=b"k", version_marker="no such thing")
    assert [(e.key, e.size) for e in page.entries] == [(b"l", 5)]


async def test_small_groups_are_read_on_without_seeking() -> None:
    model = Model({b"%04d/%d" % divmod(number, 10): [version(1)] for number in range(2000)})
    rows = SortedRows(model.rows())
    page = await Listing(rows).objects(BUCKET, delimiter=b"/")
    assert len(page.prefixes) == 200
    assert rows.scans == 1


@pytest.mark.parametrize("value", [b"", b"\x90", b"\x01", b"\xc1", version(1).encode()[:-1]])
async def test_a_row_that_cannot_be_read_is_an_error_never_skipped(value: bytes) -> None:
    rows = Model({b"a": [version(1)], b"b": [version(1)]}).rows()
    listing = Listing(SortedRows([rows[0], (rows[1][0], value)]))
    with pytest.raises(StorageFailed):
        await listing.objects(BUCKET)
    with pytest.raises(StorageFailed):
        await listing.versions(BUCKET)
