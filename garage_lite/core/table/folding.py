"""What a replica leaves out of a listing that folds names into common prefixes. Pure.

A listing needs to know of a common prefix only whether something in it is listed. A replica says
the rows of the prefix up to the first that decides this as far as it can see, and leaves out the
rest. Another replica may know that this row is removed: so what was left out by one is left out by
the join of all (`reading.join`), and the rows that remain, which every replica could have said,
come in runs. The reader of the runs decides anew; where a gap between two matters to it after all,
it asks for the gap.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from garage_lite.core.ids import BucketId
from garage_lite.core.limits import ROWS_ANSWER_BYTES_MAX
from garage_lite.core.model.objects import Newer, ObjectVersion
from garage_lite.core.model.rowkeys import (
    KEY_END,
    STAMP_BYTES,
    after_prefix,
    object_name_of,
    object_prefix,
    stamp_of,
)
from garage_lite.core.table.reading import Answer, Gap, Joined


class Fold(NamedTuple):
    """How names fold: into what ends with the first delimiter past the prefix they share."""

    prefix_bytes: int
    delimiter: bytes
    """Not empty."""
    versions: bool
    """Whether delete markers and old versions are listed, too."""


class Run(NamedTuple):
    """Of the keys from `first` on and before `past`, all rows there are."""

    first: bytes
    keys: list[bytes]
    values: list[bytes]
    past: bytes


class FoldedRows:
    """What one replica answers, from its rows in order. After each `feed` the caller looks at
    `done` and `resume`: rows before `resume` no longer matter."""

    def __init__(self, fold: Fold, start: bytes, most: int) -> None:
        """`most`: rows to answer with, one at least."""
        self.resume = start
        self.done = False
        self._fold = fold
        self._most = most
        self._size = 0
        self._rows: dict[bytes, bytes] = {}
        self._gaps: list[Gap] = []
        self._stem = b""
        """What the rows of the name being read have in common."""
        self._group: bytes | None = None
        """What the rows of its common prefix have in common."""
        self._newer = Newer()
        self._decided = False
        """Whether the older versions of the name decide nothing."""

    def feed(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Take the next rows. Raises StorageFailed on bytes that are no row of an object."""
        for key, value in zip(keys, values, strict=True):
            if key < self.resume:
                continue
            self._rows[key] = value
            self._size += len(key) + len(value)
            if self._decides(key, value) and self._group is not None:
                self._gaps.append(Gap(key, len(self._group)))
                self.resume = after_prefix(self._group)
            if len(self._rows) >= self._most or self._size >= ROWS_ANSWER_BYTES_MAX:
                self.done = True
                return

    def _decides(self, key: bytes, value: bytes) -> bool:
        """Whether, for all that is known here, the common prefix of the row is listed."""
        stem = key[:-STAMP_BYTES]
        if stem != self._stem:
            self._stem = stem
            self._group = _group(self._fold, key)
            self._newer = Newer()
            self._decided = False
        if self._group is None or self._decided:
            return False
        version = ObjectVersion.decode(stamp_of(key), value)
        if not self._newer.admit(version):
            return False
        if self._fold.versions:
            return not version.is_tombstone
        self._decided = True
        return version.has_data

    def answer(self, undecided: Sequence[bytes]) -> Answer:
        """`undecided`: of the whole range, as it was before the first row was read."""
        reach = next(reversed(self._rows)) if self.done else None
        within = (key for key in undecided if reach is None or key <= reach)
        return Answer(self._rows, reach, tuple(within), gaps=tuple(self._gaps))


def _group(fold: Fold, key: bytes) -> bytes | None:
    name = object_name_of(key)
    cut = name.find(fold.delimiter, fold.prefix_bytes)
    if cut < 0:
        return None
    return object_prefix(BucketId(key[2:34]), name[: cut + len(fold.delimiter)])[: -len(KEY_END)]


def runs_of(joined: Joined[Any], start: bytes, end: bytes) -> list[Run]:
    """What the answers about `start` up to `end` (excluded) say together: at least one run, the
    first from `start` on, ascending. Between two is what one of the answers left out."""
    past = end if joined.reach is None else joined.reach + b"\x00"
    keys = sorted(joined.rows)
    runs: list[Run] = []
    first, at = start, 0
    for gap in joined.gaps:
        stop = bisect_right(keys, gap.after, at)
        runs.append(_run(first, keys[at:stop], joined.rows, gap.after + b"\x00"))
        first, at = after_prefix(gap.after[: gap.common]), stop
    if first < past:
        runs.append(_run(first, keys[at:], joined.rows, past))
    return runs


def _run(first: bytes, keys: list[bytes], rows: Mapping[bytes, bytes], past: bytes) -> Run:
    return Run(first, keys, [rows[key] for key in keys], past)
