"""Stamps follow the clock and never go back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.hlc import MAX_LEAD_US, HybridClock, too_far_ahead

TIMES = st.one_of(st.integers(0, 10), st.integers(0, 2**50))


@given(st.lists(st.tuples(TIMES, st.none() | TIMES, TIMES)), TIMES)
def test_each_stamp_is_above_all_met_before(
    steps: list[tuple[int, int | None, int]], newest: int
) -> None:
    clock = HybridClock(newest)
    highest = newest
    for now_us, met, above in steps:
        if met is not None:
            clock.observe(met)
            highest = max(highest, met)
        stamp = clock.next(now_us, above)
        assert stamp > highest
        assert stamp > above
        assert stamp >= now_us
        highest = stamp
        assert clock.newest == highest


def test_a_clock_that_runs_well_gives_its_own_time() -> None:
    clock = HybridClock()
    assert [clock.next(now_us) for now_us in (100, 100, 100, 200)] == [100, 101, 102, 200]


def test_meeting_an_old_stamp_changes_nothing() -> None:
    clock = HybridClock(50)
    clock.observe(20)
    assert clock.next(10) == 51


def test_an_hour_ahead_is_the_most() -> None:
    assert not too_far_ahead(1000 + MAX_LEAD_US, 1000)
    assert too_far_ahead(1001 + MAX_LEAD_US, 1000)
    assert MAX_LEAD_US == 3600 * 10**6
