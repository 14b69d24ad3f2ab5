"""Which runs are merged, and what the list of segments becomes meanwhile."""

from __future__ import annotations

from garage_lite.core.metalog.compaction import (
    FAN_IN_MAX,
    after_merge_step,
    choose,
    drops_since,
    with_drop,
)
from garage_lite.core.metalog.manifest import SegmentEntry


def entry(
    number: int, tier: int, run: int = 0, first: bytes = b"a", last: bytes = b"z"
) -> SegmentEntry:
    return SegmentEntry(number, run or number, tier, 10, 100, first, last)


def numbers(runs: list[tuple[SegmentEntry, ...]]) -> list[list[int]]:
    return [[segment.number for segment in run] for run in runs]


def test_nothing_is_merged_before_a_tier_is_full() -> None:
    assert choose([entry(3, 0), entry(2, 0), entry(1, 0)], ()) == []
    assert choose([], ()) == []


def test_the_newest_full_tier_is_merged_oldest_runs_first() -> None:
    young = [entry(100 - n, 0) for n in range(11)]
    old = [entry(50 - n, 1) for n in range(4)]
    assert numbers(choose(young + old, ())) == [[s.number] for s in young[-FAN_IN_MAX:]]
    assert numbers(choose(young[:3] + old, ())) == [[s.number] for s in old]


def test_a_run_of_several_segments_counts_once() -> None:
    parts = [entry(n, 1, run=9) for n in range(20, 26)]
    assert choose([entry(30, 1), entry(29, 1), *parts], ()) == []


def test_a_damaged_run_is_left_alone_and_never_passed_over() -> None:
    tier = [entry(9 - n, 0) for n in range(9)]
    assert numbers(choose(tier, {5})) == [[9], [8], [7], [6]]
    assert numbers(choose(tier, {6})) == [[5], [4], [3], [2], [1]]
    assert choose(tier[:7], {6}) == []


def test_a_merge_replaces_its_inputs_range_by_range() -> None:
    newer, one, two = entry(5, 0), entry(4, 0, last=b"m"), entry(3, 0)
    older = entry(1, 2)
    listed: tuple[SegmentEntry, ...] = (newer, one, two, older)
    made = entry(6, 1, run=60, last=b"k")
    listed = after_merge_step(listed, {3, 4}, made, 60, b"k\0")
    assert [(s.number, s.low) for s in listed] == [
        (5, b""), (4, b"k\0"), (3, b"k\0"), (6, b""), (1, b""),
    ]  # fmt: skip
    flushed = entry(8, 0)
    made = entry(7, 1, run=60, first=b"l", last=b"p")
    listed = after_merge_step((flushed, *listed), {3, 4}, made, 60, b"p\0")
    assert [(s.number, s.low) for s in listed] == [
        (8, b""), (5, b""), (3, b"p\0"), (6, b""), (7, b""), (1, b""),
    ]  # fmt: skip
    last = after_merge_step(listed, {3, 4}, None, 60, None)
    assert [s.number for s in last] == [8, 5, 6, 7, 1]
    assert after_merge_step(last, {3, 4}, None, 60, None) == last


def test_drops_made_during_a_merge_reach_what_it_makes() -> None:
    planned = with_drop((entry(2, 0), entry(1, 0, last=b"c")), (b"a", b"b"))
    later = with_drop(planned, (b"k", b"l"))
    later = with_drop(later, (b"b", b"m"))
    assert drops_since(planned, planned) == ()
    assert drops_since(planned, later) == ((b"k", b"l"), (b"b", b"m"))
    assert later[1].drops == ((b"a", b"b"), (b"b", b"m")), "out of its range, not noted"
