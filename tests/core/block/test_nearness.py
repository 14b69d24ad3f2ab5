"""How near another node is, and how long to wait for its blocks."""

from __future__ import annotations

from garage_lite.core.block.nearness import (
    AVOID_US,
    PATIENCE_US_MAX,
    PATIENCE_US_MIN,
    UNKNOWN_US,
    Nearness,
)
from garage_lite.core.ids import NodeId

NODE = NodeId(b"n" * 32)


def test_patience_is_twice_what_is_usual() -> None:
    nearness = Nearness()
    assert nearness.patience_us(NODE, 200_000.0) == 2 * (200_000 + UNKNOWN_US)
    nearness.answered(NODE, 300_000)
    assert nearness.patience_us(NODE, 200_000.0) == 600_000
    for _ in range(40):
        nearness.answered(NODE, 100_000)
    assert 200_000 <= nearness.patience_us(NODE, 200_000.0) < 210_000


def test_patience_has_bounds() -> None:
    nearness = Nearness()
    assert nearness.patience_us(NODE, float("inf")) == PATIENCE_US_MAX
    nearness.answered(NODE, 10)
    assert nearness.patience_us(NODE, 0.0) == PATIENCE_US_MIN


def test_bands_double() -> None:
    nearness = Nearness()
    trips = [0.0, 1999.0, 2000.0, 3999.0, 4000.0, 200_000.0]
    assert [nearness.band(NODE, trip, 0) for trip in trips] == [0, 0, 1, 1, 2, 7]
    assert nearness.band(NODE, float("inf"), 0) > nearness.band(NODE, 10_000_000.0, 0)


def test_who_failed_is_asked_last_until_he_answers_or_time_passes() -> None:
    nearness = Nearness()
    nearness.failed(NODE, 100)
    assert nearness.band(NODE, 1.0, 101) > nearness.band(NodeId(b"o" * 32), float("inf"), 101)
    assert nearness.band(NODE, 1.0, 100 + AVOID_US) == 0
    nearness.failed(NODE, 100)
    nearness.answered(NODE, 5)
    assert nearness.band(NODE, 1.0, 101) == 0
