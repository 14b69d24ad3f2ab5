"""Whether this node's wall clock may stamp writes: decided by what it shows and by the peers.

A board without a battery starts in the past, and a wrong stamp is for ever: so a time before the
program was built, or before the newest stamp this node has written down, counts for nothing until
a peer shows about the same; a node without peers takes it after GRACE_US, and says so. Peers that
doubt their own clock have no vote. Against one peer alone a plausible clock keeps its word, for
nobody knows which of the two is wrong; against the median of several it doesn't. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

SKEWED_US: Final = 10_000_000
"""Worth a warning."""
INSANE_US: Final = 3_600_000_000
"""As far as a new stamp may be ahead: beyond, others refuse this node's writes."""
GRACE_US: Final = 60_000_000


class ClockState(Enum):
    GOOD = "good"
    SKEWED = "skewed"
    """Usable; somebody should look."""
    WAITING = "waiting"
    """Writes are held until a peer agrees, or the grace is over."""
    INSANE = "insane"
    """Writes are held."""


class Judgement(NamedTuple):
    state: ClockState
    reason: str = ""
    """One sentence for people, where the state is not GOOD."""

    @property
    def may_stamp(self) -> bool:
        return self.state in (ClockState.GOOD, ClockState.SKEWED)


def judge(now_us: int, floor_us: int, skews_us: Sequence[int], waited_us: int) -> Judgement:
    """`floor_us`: the time can't be before that. `skews_us`: how far the clocks of the peers that
    trust theirs are ahead of this one. `waited_us`: since the start."""
    plausible = now_us >= floor_us - SKEWED_US
    if not skews_us:
        if plausible:
            return Judgement(ClockState.GOOD)
        if waited_us < GRACE_US:
            return Judgement(
                ClockState.WAITING,
                "This node's clock shows a time in the past: writes wait for a peer to show its"
                f" time, or for {GRACE_US // 1_000_000} seconds.",
            )
        return Judgement(
            ClockState.SKEWED,
            "This node's clock shows a time in the past, and no peer shows another: it is taken"
            " as it is. Set the clock.",
        )
    skew_us = nearest_median(skews_us)
    if abs(skew_us) <= SKEWED_US:
        return Judgement(ClockState.GOOD)
    differs = f"This node's clock is {_apart(skew_us)} its peers' clocks"
    if abs(skew_us) > INSANE_US and (len(skews_us) > 1 or not plausible):
        return Judgement(ClockState.INSANE, f"{differs}: writes wait until it is set right.")
    return Judgement(ClockState.SKEWED, f"{differs}: set it right.")


def nearest_median(values: Sequence[int]) -> int:
    """The median; of the two middle ones of an even number, the one nearer to zero."""
    ordered = sorted(values)
    middle = ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]
    return min(middle, key=abs)


def _apart(skew_us: int) -> str:
    seconds = round(abs(skew_us) / 1_000_000)
    amount = f"{seconds} seconds" if seconds < 7200 else f"{round(seconds / 3600)} hours"
    return f"{amount} {'behind' if skew_us > 0 else 'ahead of'}"
