"""Hybrid logical clock: stamps that follow the wall clock and never go back.

Kulkarni et al., "Logical Physical Clocks", 2014. Unit: microseconds, so that thousands of
writes a second do not push the logical part ahead of real time. A stamp from the future (more
than `MAX_LEAD_US` ahead of this clock) is refused where it is new, or a broken clock would drag
the whole cluster along.
"""

from __future__ import annotations

from typing import Final

MAX_LEAD_US: Final = 3_600_000_000
"""A new stamp more than an hour ahead of the local clock is refused and alarmed."""


class HybridClock:
    """Issues stamps for one node. Feed it every stamp met (`observe`)."""

    __slots__ = ("newest",)

    def __init__(self, newest: int = 0) -> None:
        self.newest = newest
        """The highest stamp issued or met; persisted so that a restart never issues a lower one."""

    def next(self, now_us: int, above: int = 0) -> int:
        """A stamp greater than all before it and than `above`."""
        self.newest = max(now_us, self.newest + 1, above + 1)
        return self.newest

    def observe(self, stamp: int) -> None:
        self.newest = max(self.newest, stamp)


def too_far_ahead(stamp: int, now_us: int) -> bool:
    """Whether a writer's new stamp must be refused."""
    return stamp > now_us + MAX_LEAD_US
