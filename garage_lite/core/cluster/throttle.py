"""Holds block traffic of the background to the rate that is set, both ways of the link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from garage_lite.core.block.pace import TokenBucket
from garage_lite.core.ports import Clock

_ASK_SECONDS: Final = 1.0
"""How soon a changed rate is noticed."""


class Throttle:
    """One for the node."""

    def __init__(self, clock: Clock) -> None:
        self.rate: Callable[[], int] = lambda: 0
        """Bytes per second that may go now; 0: no limit."""
        self._clock = clock
        self._bucket = TokenBucket()
        self._turn = asyncio.Lock()

    async def spend(self, amount: int) -> None:
        """Return when `amount` bytes may go; first come, first served."""
        async with self._turn:
            wait_us = self._wait_us()
            while wait_us:
                await asyncio.sleep(min(wait_us / 1_000_000, _ASK_SECONDS))
                wait_us = self._wait_us()
            self._bucket.spend(amount)

    def _wait_us(self) -> int:
        return self._bucket.wait_us(self.rate(), self._clock.monotonic_us())
