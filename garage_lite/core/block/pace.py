"""How background work leaves room for what clients ask: rests, and a share of the link.

Garage's tranquilizer: after each step rest `tranquility` times the average of the last 30 steps,
so that the work takes 1 / (1 + tranquility) of one lane of the disk. 0 is full speed.

A home's link is scarcer than its disk, so block traffic of the background is also held to a rate,
which may hold at some hours of the day only. Time is an argument.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Final, NamedTuple

STEPS_REMEMBERED: Final = 30
REST_US_MAX: Final = 60_000_000
"""One step on a disk in trouble must not stop the work for the rest of the day."""
BURST_US: Final = 250_000
"""What was not used of the rate may be made up for this long."""
DAY_MINUTES: Final = 24 * 60
WINDOWS_MAX: Final = 16
_SECOND_US: Final = 1_000_000
_WINDOW: Final = re.compile(
    r"([0-9]{1,9})([KMG]?)(?: +([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2}))?"
)
_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


class Pace:
    """Durations of the last steps of one worker."""

    def __init__(self) -> None:
        self._steps: deque[int] = deque(maxlen=STEPS_REMEMBERED)

    def rest_us(self, step_us: int, tranquility: int) -> int:
        """How long to rest after a step that took `step_us`."""
        self._steps.append(max(step_us, 0))
        return min(tranquility * (sum(self._steps) // len(self._steps)), REST_US_MAX)


class Window(NamedTuple):
    """Bytes per second (0: no limit) from one minute of the day up to another, over midnight if
    need be; the whole day where both are the same."""

    rate: int
    first: int = 0
    end: int = 0

    def holds_at(self, minute: int) -> bool:
        return (minute - self.first) % DAY_MINUTES < ((self.end - self.first) % DAY_MINUTES or 1440)


class Bandwidth(NamedTuple):
    """How fast background traffic may be, by the minute of the day."""

    windows: tuple[Window, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Bandwidth:
        """From "2M", "2M 08:00-23:00" or several such with commas between; the first that holds
        counts, where none does there is no limit. Units are decimal, bytes per second; "0" is no
        limit. Raises ValueError."""
        parts = [part.strip() for part in text.split(",")]
        if len(parts) > WINDOWS_MAX:
            raise ValueError(f"at most {WINDOWS_MAX} windows")
        return cls(tuple(map(_window, parts)))

    def rate_at(self, minute: int) -> int:
        """Bytes per second at a minute of the day; 0: no limit."""
        return next((window.rate for window in self.windows if window.holds_at(minute)), 0)


def _window(text: str) -> Window:
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise ValueError(f"expected something like 2M or 2M 08:00-23:00, not {text!r}")
    number, unit, *hours = found.groups()
    rate = int(number) * _UNITS[unit]
    if hours[0] is None:
        return Window(rate)
    first_hour, first_minute, end_hour, end_minute = map(int, hours)
    if max(first_minute, end_minute) > 59:
        raise ValueError(f"an hour has 60 minutes: {text!r}")
    first, end = first_hour * 60 + first_minute, end_hour * 60 + end_minute
    if max(first, end) > DAY_MINUTES:
        raise ValueError(f"a day has 24 hours: {text!r}")
    return Window(rate, first % DAY_MINUTES, end % DAY_MINUTES)


class TokenBucket:
    """Keeps a flow of bytes to a rate that may change at any time.

    What is sent makes a debt, which the rate pays back; nothing more is sent while there is any.
    """

    def __init__(self) -> None:
        self._debt = 0.0
        self._at_us = 0

    def wait_us(self, rate: int, now_us: int) -> int:
        """How long until something may be sent (0: now) at `rate` bytes per second, 0 being no
        limit. Asked often enough, it follows a changed rate."""
        paid = rate * max(now_us - self._at_us, 0) / _SECOND_US
        self._at_us = now_us
        if not rate:
            self._debt = 0.0
            return 0
        self._debt = max(self._debt - paid, -rate * BURST_US / _SECOND_US)
        return max(0, int(self._debt * _SECOND_US / rate))

    def spend(self, amount: int) -> None:
        """`amount` bytes go now."""
        self._debt += amount
