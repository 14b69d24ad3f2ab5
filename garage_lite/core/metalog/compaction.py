"""Which runs to merge, and what the list of segments becomes while that goes on.

Size-tiered: a flush makes a run of tier 0; when a tier has FAN_IN runs they are merged into one
run of the next, so a row is rewritten about log4(store / memtable) times. Runs of a tier are
neighbours in age and older tiers follow, so a merge never passes over a run between. A run larger
than a segment may be is a row of segments with disjoint ranges, and a merge replaces its inputs
range by range as its segments become ready (`low` in the manifest): it needs room for one segment
more, not for the store twice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

from garage_lite.core.limits import MIB
from garage_lite.core.metalog.manifest import Range, SegmentEntry

FAN_IN: Final = 4
FAN_IN_MAX: Final = 8
"""Runs merged at once when flushes outran compaction."""
SEGMENT_ROWS_MAX: Final = 1_000_000
"""While it is written, 4 bytes a row are held for its bloom filter."""
SEGMENT_BYTES_MAX: Final = 256 * MIB

Run = tuple[SegmentEntry, ...]


def runs_of(segments: Sequence[SegmentEntry]) -> list[Run]:
    """Segments (newest first) by run."""
    return [tuple(group) for _, group in groupby(segments, key=lambda s: s.run)]


def choose(
    segments: Sequence[SegmentEntry], damaged: Collection[int], fan_in: int = FAN_IN
) -> list[Run]:
    """The runs to merge next, newest first; none if there is nothing to do.

    Runs with a segment number in `damaged` are left alone: what they hold can't be told.
    """

    def kind(run: Run) -> tuple[int, bool]:
        return run[0].tier, any(segment.number in damaged for segment in run)

    for (_, is_damaged), group in groupby(runs_of(segments), key=kind):
        neighbours = list(group)
        if len(neighbours) >= fan_in and not is_damaged:
            return neighbours[-FAN_IN_MAX:]
    return []


def after_merge_step(
    segments: Sequence[SegmentEntry],
    inputs: Collection[int],
    made: SegmentEntry | None,
    run: int,
    low: bytes | None,
) -> tuple[SegmentEntry, ...]:
    """The list once `made` (None: no row was left) is ready and covers all below `low`.

    `inputs`: numbers of the segments being merged into `run`; those wholly below `low` go, the
    others hide their rows below it; None: all go.
    """
    place = max([i + 1 for i, s in enumerate(segments) if s.number in inputs], default=0)
    if not place:  # the last step made all of them go, and no row was left for this one
        return tuple(segments)
    kept: list[SegmentEntry] = []
    for segment in segments[:place]:
        if segment.number not in inputs:
            kept.append(segment)
        elif low is not None and segment.last >= low:
            kept.append(replace(segment, low=max(low, segment.low)))
    while place < len(segments) and segments[place].run == run:
        kept.append(segments[place])
        place += 1
    return (*kept, *([made] if made else []), *segments[place:])


def drops_since(
    planned: Sequence[SegmentEntry], segments: Sequence[SegmentEntry]
) -> tuple[Range, ...]:
    """The drops that segments have learnt since they were `planned` to be merged: what is made of
    them still holds those rows and must hide them too."""
    before = {s.number: len(s.drops) for s in planned}
    learnt = [d for s in segments if s.number in before for d in s.drops[before[s.number] :]]
    return tuple(dict.fromkeys(learnt))


def with_drop(segments: Sequence[SegmentEntry], dropped: Range) -> tuple[SegmentEntry, ...]:
    """The list after a range drop: the rows go when a merge passes, from now on they are hidden."""
    start, end = dropped
    return tuple(
        replace(s, drops=(*s.drops, dropped)) if s.first < end and s.last >= start else s
        for s in segments
    )
