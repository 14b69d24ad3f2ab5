"""The machine's clock, sleep and randomness. Nothing else reads or uses them."""

from __future__ import annotations

import secrets
import time


class SystemClock:
    """`Clock` on the operating system's wall clock and monotonic clock."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1000


class SystemEntropy:
    """`Entropy` on the operating system's generator."""

    def token(self, length: int) -> bytes:
        return secrets.token_bytes(length)


def pause(seconds: float) -> None:
    """Put the calling thread to sleep; never on the event loop."""
    time.sleep(seconds)
