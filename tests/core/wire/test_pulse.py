"""Pings: round trips, clocks that differ, links that are dead."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.wire.pulse import FAILURES_MAX, Pulse

WALL = 1_700_000_000_000_000


def ping(pulse: Pulse, at_us: int, there_us: int, back_us: int, skew_us: int) -> None:
    """One exchange that begins at `at_us`, over a way that may be slower in one direction."""
    pulse.sent(at_us)
    peer_wall = WALL + at_us + there_us + skew_us
    now = at_us + there_us + back_us
    pulse.answered(now, WALL + now, peer_wall)


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=20),
    st.integers(-(10**12), 10**12),
)
def test_the_skew_is_off_by_half_the_quickest_round_trip(
    ways: list[tuple[int, int]], skew_us: int
) -> None:
    pulse = Pulse()
    for number, (there, back) in enumerate(ways):
        ping(pulse, number * 3_000_000, there, back, skew_us)
    assert pulse.skew_us is not None
    quickest = min(there + back for there, back in ways[-5:])
    assert abs(pulse.skew_us - skew_us) <= quickest // 2 + 1


def test_the_usual_round_trip_is_the_median() -> None:
    pulse = Pulse()
    assert pulse.round_trip_us(0) == float("inf")
    for number, length in enumerate((100, 300, 90_000)):
        ping(pulse, number * 10**6, length, 0, 0)
    assert pulse.round_trip_us(4 * 10**6) == 300


def test_silence_counts_while_it_lasts() -> None:
    pulse = Pulse()
    ping(pulse, 0, 100, 100, 0)
    pulse.sent(10**6)
    assert pulse.round_trip_us(10**6 + 150) == 200
    assert pulse.round_trip_us(3 * 10**6) == 2 * 10**6


def test_dead_after_some_failures_in_a_row() -> None:
    pulse = Pulse()
    for _ in range(FAILURES_MAX - 1):
        pulse.sent(0)
        pulse.failed()
    assert not pulse.is_dead
    ping(pulse, 5, 1, 1, 0)
    assert pulse.failures == 0
    for _ in range(FAILURES_MAX):
        pulse.sent(9)
        pulse.failed()
    assert pulse.is_dead


def test_a_busy_peer_is_no_dead_one() -> None:
    pulse = Pulse()
    for _ in range(3 * FAILURES_MAX):
        pulse.sent(0)
        pulse.excused()
    assert not pulse.is_dead
    assert pulse.round_trip_us(10**6) == float("inf")
    assert pulse.skew_us is None


def test_a_clock_that_was_set_makes_older_comparisons_worthless() -> None:
    pulse = Pulse()
    ping(pulse, 0, 10, 10, 0)
    jump = 3_600_000_000
    pulse.sent(10**6)
    pulse.answered(10**6 + 1000, WALL + 10**6 + 1000 + jump, WALL + 10**6 + 500)
    assert pulse.skew_us is not None
    assert abs(pulse.skew_us + jump) <= 500
