"""How background work leaves room for what clients ask: it rests in proportion to its effort.

Garage's tranquilizer: after each step rest `tranquility` times the average of the last 30 steps,
so that the work takes 1 / (1 + tranquility) of one lane of the disk. 0 is full speed.
"""

from __future__ import annotations

from collections import deque
from typing import Final

STEPS_REMEMBERED: Final = 30
REST_US_MAX: Final = 60_000_000
"""One step on a disk in trouble must not stop the work for the rest of the day."""


class Pace:
    """Durations of the last steps of one worker."""

    def __init__(self) -> None:
        self._steps: deque[int] = deque(maxlen=STEPS_REMEMBERED)

    def rest_us(self, step_us: int, tranquility: int) -> int:
        """How long to rest after a step that took `step_us`."""
        self._steps.append(max(step_us, 0))
        return min(tranquility * (sum(self._steps) // len(self._steps)), REST_US_MAX)
