"""Pings on one link: how far the peer is, how wrong its clock is, whether the link is dead.

The round trip is the median of the last pings, and never less than the time that an unanswered
one has been out: who orders nodes by it leaves a silent one alone soon. The peer's clock is
compared as NTP does (RFC 5905, section 8): its reading against the middle of the round trip, of
the quickest of the last pings. Must not know sockets; times are microseconds.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Final

SAMPLES: Final = 11
SKEW_SAMPLES: Final = 5
FAILURES_MAX: Final = 2
"""Pings in a row without an answer; then the link is dead."""
JUMP_US: Final = 1_000_000
"""Wall and monotonic clock parting by more than this between two pings: the wall clock was set,
and older comparisons mean nothing."""


class Pulse:
    """The pings of one link. At most one is out at a time."""

    def __init__(self) -> None:
        self._round_trips: deque[int] = deque(maxlen=SAMPLES)
        self._skews: deque[tuple[int, int]] = deque(maxlen=SKEW_SAMPLES)
        self._out_since_us: int | None = None
        self._clocks_differ_us: int | None = None
        self.failures = 0

    def sent(self, now_us: int) -> None:
        self._out_since_us = now_us

    def answered(self, now_us: int, wall_us: int, peer_wall_us: int) -> None:
        """The answer is here at `now_us` (monotonic) and `wall_us`; the peer's wall clock showed
        `peer_wall_us` when it answered."""
        if self._out_since_us is None:
            return
        round_trip = max(now_us - self._out_since_us, 0)
        self._out_since_us = None
        self.failures = 0
        self._round_trips.append(round_trip)
        differ = wall_us - now_us
        if self._clocks_differ_us is not None and abs(differ - self._clocks_differ_us) > JUMP_US:
            self._skews.clear()
        self._clocks_differ_us = differ
        self._skews.append((round_trip, peer_wall_us - (wall_us - round_trip // 2)))

    def excused(self) -> None:
        """An answer, but that the peer is too busy: it lives, and that is all it says."""
        self._out_since_us = None
        self.failures = 0

    def failed(self) -> None:
        """No answer in time."""
        self._out_since_us = None
        self.failures += 1

    @property
    def is_dead(self) -> bool:
        return self.failures >= FAILURES_MAX

    def round_trip_us(self, now_us: int) -> float:
        """Infinite where unknown."""
        usual = float(median(self._round_trips)) if self._round_trips else float("inf")
        waited = 0 if self._out_since_us is None else now_us - self._out_since_us
        return max(usual, waited)

    @property
    def skew_us(self) -> int | None:
        """How far the peer's wall clock is ahead of this node's; off by half a round trip at
        most. None where unknown."""
        return min(self._skews)[1] if self._skews else None
