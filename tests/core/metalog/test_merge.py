"""Merging by blocks, against dicts laid over one another."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.metalog.memtable import Batch
from garage_lite.core.metalog.merge import merge, reblock, without_deletions, without_ranges

Rows = dict[bytes, bytes | None]
keys = st.binary(min_size=1, max_size=2)
tables = st.dictionaries(keys, st.none() | st.binary(max_size=2), max_size=25)


def batches(rows: Rows, size: int) -> Iterator[Batch]:
    ordered = sorted(rows)
    for start in range(0, len(ordered), size):
        some = ordered[start : start + size]
        yield some, [rows[key] for key in some]


def collected(found: Iterator[Batch]) -> list[tuple[bytes, bytes | None]]:
    rows: list[tuple[bytes, bytes | None]] = []
    for some, values in found:
        assert some, "no batch is empty"
        rows += zip(some, values, strict=True)
    return rows


@given(st.lists(st.tuples(tables, st.integers(1, 6)), max_size=6))
def test_the_newest_source_wins(sources: list[tuple[Rows, int]]) -> None:
    expected: Rows = {}
    for rows, _ in reversed(sources):
        expected.update(rows)
    found = collected(merge([batches(rows, size) for rows, size in sources]))
    assert found == sorted(expected.items())


@given(tables, st.integers(1, 5), st.lists(st.tuples(keys, keys), max_size=3))
def test_ranges_are_left_out(rows: Rows, size: int, ranges: list[tuple[bytes, bytes]]) -> None:
    kept = {k: v for k, v in rows.items() if not any(s <= k < e for s, e in ranges)}
    assert collected(without_ranges(batches(rows, size), ranges)) == sorted(kept.items())


@given(tables, st.integers(1, 5), st.sets(keys))
def test_deletions_go_when_nothing_older_can_hold_the_key(
    rows: Rows, size: int, older: set[bytes]
) -> None:
    kept = {k: v for k, v in rows.items() if v is not None or k in older}
    found = collected(without_deletions(batches(rows, size), older.__contains__))
    assert found == sorted(kept.items())


@given(tables, st.integers(1, 9), st.integers(1, 9), st.integers(1, 20))
def test_reblocking_keeps_the_rows_and_the_bounds(
    rows: Rows, size: int, rows_max: int, bytes_max: int
) -> None:
    found = list(reblock(batches(rows, size), rows_max, bytes_max))
    assert collected(iter(found)) == sorted(rows.items())
    for some, values in found:
        assert len(some) <= rows_max
        size = sum(len(k) + len(v or b"") for k, v in zip(some, values, strict=True))
        assert size <= bytes_max or len(some) == 1
