"""Merging sorted sources by whole blocks: why a scan in Python is fast enough.

Instead of comparing rows one by one, take of every source what is not above the smallest last
key in sight, lay the pieces over one another in a dict, oldest first, and sort its keys: all of
it runs at C speed. A window touched by one source only passes through as it is.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from garage_lite.core.metalog.manifest import Range
from garage_lite.core.metalog.memtable import Batch

_SKIPPED_MAX: Final = 1024
"""Deletions passed before `live_rows` hands control back with an empty batch."""


class _Head:
    """The next rows of one source."""

    __slots__ = ("keys", "source", "values")

    def __init__(self, batch: Batch, source: Iterator[Batch]) -> None:
        self.keys, self.values = batch
        self.source = source

    def advance(self) -> bool:
        batch = next(self.source, None)
        if batch is None:
            return False
        self.keys, self.values = batch
        return True


def merge(sources: Sequence[Iterator[Batch]]) -> Iterator[Batch]:
    """The rows of all sources (newest first) in key order; of equal keys the newest source's.

    Each source yields non-empty ascending batches; so does the result. Deletions (None) stay.
    """
    heads = [_Head(batch, s) for s in sources if (batch := next(s, None)) is not None]
    while len(heads) > 1:
        bound = min([head.keys[-1] for head in heads])
        pieces = []
        spent = False
        for head in heads:
            keys = head.keys
            if keys[0] > bound:
                continue
            if keys[-1] == bound:
                pieces.append((keys, head.values))
                head.keys = []
                spent = True
            else:
                cut = bisect_right(keys, bound)
                pieces.append((keys[:cut], head.values[:cut]))
                head.keys, head.values = keys[cut:], head.values[cut:]
        yield pieces[0] if len(pieces) == 1 else _overlay(pieces)
        if spent:
            heads = [head for head in heads if head.keys or head.advance()]
    if heads:
        yield heads[0].keys, heads[0].values
        yield from heads[0].source


def live_rows(sources: Sequence[Iterator[Batch]]) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """The merged rows less the deletions; after many of those an empty batch, so that the caller
    may let others run."""
    skipped = 0
    for keys, values in merge(sources):
        if None in values:
            live = [(k, v) for k, v in zip(keys, values, strict=True) if v is not None]
            skipped += len(keys) - len(live)
            if not live and skipped < _SKIPPED_MAX:
                continue
            skipped = 0
            yield [k for k, _ in live], [v for _, v in live]
        else:
            yield keys, values  # type: ignore[misc]


def _overlay(pieces: list[Batch]) -> Batch:
    rows: dict[bytes, bytes | None] = {}
    for keys, values in reversed(pieces):
        rows.update(zip(keys, values, strict=True))
    ordered = sorted(rows)
    return ordered, list(map(rows.__getitem__, ordered))


def in_ranges(key: bytes, ranges: Sequence[Range]) -> bool:
    return any(start <= key < end for start, end in ranges)


def without_ranges(batches: Iterator[Batch], ranges: Sequence[Range]) -> Iterator[Batch]:
    """The batches less the rows in any of the ranges."""
    for keys, values in batches:
        for start, end in ranges:
            low, high = bisect_left(keys, start), bisect_left(keys, end)
            if low < high:
                keys = keys[:low] + keys[high:]
                values = values[:low] + values[high:]
        if keys:
            yield keys, values


def without_deletions(
    batches: Iterator[Batch], may_hold: Callable[[bytes], bool]
) -> Iterator[Batch]:
    """The batches less the deletions of keys that nothing older can hold."""
    for keys, values in batches:
        if None in values:
            kept = [
                (key, value)
                for key, value in zip(keys, values, strict=True)
                if value is not None or may_hold(key)
            ]
            keys, values = [key for key, _ in kept], [value for _, value in kept]
        if keys:
            yield keys, values


def reblock(batches: Iterator[Batch], rows_max: int, bytes_max: int) -> Iterator[Batch]:
    """The same rows in batches of `rows_max` or about `bytes_max`, whichever comes first."""
    keys: list[bytes] = []
    values: list[bytes | None] = []
    size = 0
    for more_keys, more_values in batches:
        for key, value in zip(more_keys, more_values, strict=True):
            row = len(key) + len(value or b"")
            if keys and (len(keys) == rows_max or size + row > bytes_max):
                yield keys, values
                keys, values, size = [], [], 0
            keys.append(key)
            values.append(value)
            size += row
    if keys:
        yield keys, values
