"""When a clock may stamp writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.wire.clock_check import (
    GRACE_US,
    INSANE_US,
    SKEWED_US,
    ClockState,
    judge,
    nearest_median,
)

FLOOR = 10**15
HOUR, DAY = 3_600_000_000, 86_400_000_000


@pytest.mark.parametrize(
    ("now_us", "skews", "waited_us", "state"),
    [
        (FLOOR, [], 0, ClockState.GOOD),
        (FLOOR - SKEWED_US, [], 0, ClockState.GOOD),
        (FLOOR - DAY, [], 0, ClockState.WAITING),
        (FLOOR - DAY, [], GRACE_US, ClockState.SKEWED),
        (FLOOR - DAY, [0], 0, ClockState.GOOD),
        (FLOOR - DAY, [DAY], GRACE_US, ClockState.INSANE),
        (FLOOR - DAY, [DAY, DAY], 0, ClockState.INSANE),
        (FLOOR, [SKEWED_US], 0, ClockState.GOOD),
        (FLOOR, [SKEWED_US + 1], 0, ClockState.SKEWED),
        (FLOOR, [-DAY], 0, ClockState.SKEWED),
        (FLOOR, [-DAY, -DAY], 0, ClockState.INSANE),
        (FLOOR, [0, DAY], 0, ClockState.GOOD),
        (FLOOR, [0, DAY, DAY], 0, ClockState.INSANE),
        (FLOOR, [INSANE_US, INSANE_US], 0, ClockState.SKEWED),
        (FLOOR, [INSANE_US + 1, INSANE_US + 1], 0, ClockState.INSANE),
    ],
)
def test_judgements(now_us: int, skews: list[int], waited_us: int, state: ClockState) -> None:
    found = judge(now_us, FLOOR, skews, waited_us)
    assert found.state is state
    assert found.may_stamp == (state in (ClockState.GOOD, ClockState.SKEWED))
    assert bool(found.reason) == (state is not ClockState.GOOD)


def test_reasons_say_which_way() -> None:
    assert "24 hours behind" in judge(FLOOR, FLOOR, [DAY, DAY], 0).reason
    assert "15 seconds ahead of" in judge(FLOOR, FLOOR, [-15_000_000], 0).reason


@given(
    st.lists(st.integers(-SKEWED_US, SKEWED_US), min_size=2, max_size=9),
    st.data(),
)
def test_a_minority_of_wrong_clocks_stops_nobody(right: list[int], data: st.DataObject) -> None:
    wrong = data.draw(st.lists(st.integers(-DAY, DAY), max_size=len(right)))
    assert judge(FLOOR, FLOOR, right + wrong, 0).may_stamp


@given(st.lists(st.integers(), min_size=1))
def test_the_median_is_between_the_halves(values: list[int]) -> None:
    found = nearest_median(values)
    assert found in values
    assert sum(value <= found for value in values) >= len(values) / 2
    assert sum(value >= found for value in values) >= len(values) / 2
