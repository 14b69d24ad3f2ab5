"""What several replicas' answers to one read say together. Pure.

Replicas answer with all they hold, tombstones too; what removes a row may be known to one of them
alone, so it is only after the join that anything is left out. Whoever was found to lack a row, or
to hold less of it, is named with what it lacks, for the read to repair.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

from garage_lite.core.ids import BucketId
from garage_lite.core.model.counters import Counters
from garage_lite.core.model.objects import Kind, ObjectVersion, below_floor
from garage_lite.core.model.rowkeys import (
    STAMP_BYTES,
    Table,
    after_prefix,
    inline_row,
    object_row,
    part_lists_prefix,
    stamp_of,
)
from garage_lite.core.table.schema import Update, merge_rows

Name = TypeVar("Name")


class Gap(NamedTuple):
    """Rows that an answer about a range leaves out."""

    after: bytes
    """The key of a row; those after it are meant"""
    common: int
    """which start with as many of its bytes."""

    def holds(self, key: bytes) -> bool:
        return key > self.after and key[: self.common] == self.after[: self.common]


class Answer(NamedTuple):
    """What one replica answers."""

    rows: dict[bytes, bytes]
    reach: bytes | None
    """Of the rows asked for, all up to this key are here (others may be, too); None: all."""
    undecided: tuple[bytes, ...] = ()
    """Keys of object rows that it has accepted in a ballot and knows no end of."""
    inline: tuple[tuple[bytes, bytes], ...] = ()
    """Inline rows of versions among the rows: as many as it was asked for."""
    gaps: tuple[Gap, ...] = ()
    """What it leaves out of the range, ascending: no two with the same start in common."""

    def says_as(self, other: Answer) -> bool:
        """Inline bytes never differ, so they don't count."""
        return self[:3] == other[:3] and self.gaps == other.gaps


class Joined(NamedTuple, Generic[Name]):
    rows: dict[bytes, bytes]
    """In no order; with rows that are tombstones, without those that another row explains away."""
    reach: bytes | None
    """Up to where all answers reach."""
    lacking: dict[Name, list[Update]]
    """By replica: what it lacks or holds less of."""
    undecided: frozenset[bytes] = frozenset()
    """Keys of object rows that may be chosen and are not here, up to the reach."""
    inline: Mapping[bytes, bytes] = MappingProxyType({})
    """What came of inline rows."""
    gaps: tuple[Gap, ...] = ()
    """What any of the answers left out, up to the reach, ascending; no row is in one of them."""


def join(answers: Mapping[Name, Answer], *, cut: bool = False) -> Joined[Name]:
    """What the answers (one at least) say together. `cut`: leave out all rows beyond the reach,
    where one replica may know more than the others had room to say."""
    first, *others = answers.values()
    inline = dict(row for answer in answers.values() for row in answer.inline)
    if all(other.says_as(first) for other in others):
        rows = _explained(dict(first.rows))
        undecided = _undecided((first,), first.rows, None)
        undecided = frozenset(key for key in undecided if not _in_gap(key, first.gaps))
        return Joined(rows, first.reach, {}, undecided, inline, first.gaps)
    reaches = [answer.reach for answer in answers.values() if answer.reach is not None]
    least = min(reaches, default=None)
    gaps = _gaps(answers.values(), least)
    joined: dict[bytes, bytes] = {}
    for answer in answers.values():
        for key, value in answer.rows.items():
            if cut and ((least is not None and key > least) or _in_gap(key, gaps)):
                continue
            joined[key] = merge_rows(key, joined.get(key), value)
    undecided = _undecided(answers.values(), joined, least if cut else None)
    undecided = frozenset(key for key in undecided if not _in_gap(key, gaps))
    _explained(joined)
    lacking = {name: _lacks(answer, joined) for name, answer in answers.items()}
    lacking = {name: rows for name, rows in lacking.items() if rows}
    return Joined(joined, least, lacking, undecided, inline, gaps)


def _gaps(answers: Iterable[Answer], least: bytes | None) -> tuple[Gap, ...]:
    """What any of them left out, up to the reach."""
    widest: dict[bytes, Gap] = {}
    for answer in answers:
        for gap in answer.gaps:
            start = gap.after[: gap.common]
            if least is None or gap.after <= least:
                widest[start] = min(gap, widest.get(start, gap))
    return tuple(sorted(widest.values()))


def _in_gap(key: bytes, gaps: Sequence[Gap]) -> bool:
    before = bisect_left(gaps, (key,))
    return before > 0 and gaps[before - 1].holds(key)


def _undecided(
    answers: Iterable[Answer], rows: Mapping[bytes, bytes], least: bytes | None
) -> frozenset[bytes]:
    return frozenset(
        key
        for answer in answers
        for key in answer.undecided
        if key not in rows and (least is None or key <= least)
    )


def _lacks(answer: Answer, joined: Mapping[bytes, bytes]) -> list[Update]:
    held, reach = answer.rows, answer.reach
    return [
        Update(key, value)
        for key, value in joined.items()
        if held.get(key) != value and (key in held or reach is None or key <= reach)
    ]


def _explained(rows: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Take away versions that are below a floor."""
    by_name: dict[bytes, list[bytes]] = {}
    for key in rows:
        if key[0] == Table.OBJECT:
            by_name.setdefault(key[:-STAMP_BYTES], []).append(key)
    for prefix, keys in by_name.items():
        if len(keys) > 1:
            keys.sort()
            versions = [ObjectVersion.decode(stamp_of(key), rows[key]) for key in keys]
            for gone in below_floor(versions):
                del rows[object_row(prefix, gone.stamp)]
    return rows


def inline_rows(rows: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """The keys of the inline rows that go with the object rows among these."""
    for key, value in rows.items():
        if key[0] == Table.OBJECT:
            version = ObjectVersion.decode(stamp_of(key), value)
            if version.kind is Kind.INLINE and not version.removed:
                yield inline_row(BucketId(key[2:34]), version.id)


def rows_of_version(row: Update) -> tuple[bytes, bytes]:
    """The range of rows that were written with an object row and must come with it: its inline
    bytes, its part lists. Two empty keys where there are none."""
    if row.key[0] == Table.OBJECT:
        version = ObjectVersion.decode(stamp_of(row.key), row.value)
        bucket = BucketId(row.key[2:34])
        if version.kind is Kind.INLINE and not version.removed:
            inline = inline_row(bucket, version.id)
            return inline, inline + b"\x00"
        if version.kind is Kind.MULTIPART and not version.removed:
            lists = part_lists_prefix(bucket, version.id)
            return lists, after_prefix(lists)
    return b"", b""


def highest_counters(values: Iterable[bytes | None]) -> Counters:
    """Counters as a whole from those of the replicas: each counts what it has met."""
    counted = [Counters.decode(value) for value in values if value is not None]
    return Counters(*map(max, zip(*counted, strict=True))) if counted else Counters()
