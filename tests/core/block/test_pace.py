"""Rests in proportion to work, rates, and the hours they hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.block.pace import (
    BURST_US,
    REST_US_MAX,
    Bandwidth,
    Pace,
    TokenBucket,
    Window,
)


def test_rest_follows_the_average_of_the_last_steps() -> None:
    pace = Pace()
    assert pace.rest_us(100, 4) == 400
    assert pace.rest_us(300, 4) == 800
    assert pace.rest_us(300, 0) == 0
    assert pace.rest_us(10**12, 1000) == REST_US_MAX


@pytest.mark.parametrize(
    ("text", "windows"),
    [
        ("0", [Window(0)]),
        ("1500", [Window(1500)]),
        ("2M", [Window(2_000_000)]),
        ("64K 8:00-23:30", [Window(64_000, 480, 1410)]),
        ("2M 22:00-06:00, 1G", [Window(2_000_000, 1320, 360), Window(10**9)]),
        ("3 00:00-24:00", [Window(3, 0, 0)]),
    ],
)
def test_rates_and_hours_are_read(text: str, windows: list[Window]) -> None:
    assert list(Bandwidth.parse(text).windows) == windows


@pytest.mark.parametrize(
    "text",
    ["", "M", "-1", "2m", "2MB", "2M 8-23", "2M 08:60-23:00", "2M 24:01-02:00", "1,,2", "1," * 16],
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|hour|day|most"):
        Bandwidth.parse(text)


def test_the_first_window_that_holds_counts() -> None:
    bandwidth = Bandwidth.parse("1 08:00-12:00, 2 22:00-06:00, 3 09:00-10:00")
    hours = {hour: bandwidth.rate_at(hour * 60) for hour in range(24)}
    assert {hour for hour, rate in hours.items() if rate == 1} == {8, 9, 10, 11}
    assert {hour for hour, rate in hours.items() if rate == 2} == {22, 23, 0, 1, 2, 3, 4, 5}
    assert sorted(set(hours.values())) == [0, 1, 2]
    assert Bandwidth.parse("7").rate_at(1439) == 7


@given(
    st.lists(st.tuples(st.integers(1, 100_000), st.integers(0, 500_000)), min_size=1, max_size=60),
    st.integers(1, 10**6),
)
def test_never_more_than_the_rate_a_burst_and_one_piece(
    pieces: list[tuple[int, int]], rate: int
) -> None:
    bucket = TokenBucket()
    now = sent = 0
    for amount, pause in pieces:
        now += pause
        while wait := bucket.wait_us(rate, now):
            now += wait
        assert sent <= rate * (now + BURST_US) / 10**6 + 1
        bucket.spend(amount)
        sent += amount


def test_a_debt_is_paid_at_the_new_rate() -> None:
    bucket = TokenBucket()
    bucket.spend(10_000)
    assert bucket.wait_us(1, 0) == 10_000 * 10**6
    assert bucket.wait_us(10_000, 0) == 10**6
    assert bucket.wait_us(0, 0) == 0
    assert bucket.wait_us(1, 0) == 0
