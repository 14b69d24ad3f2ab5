"""The machine's clock, sleep, randomness and memory. Nothing else reads or sets them."""

from __future__ import annotations

import contextlib
import ctypes
import secrets
import time
from typing import Final

_M_ARENA_MAX: Final = -8
"""malloc.h of glibc."""


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


def share_one_heap() -> None:
    """Let all threads allocate from one heap, where the C library is glibc.

    By default each thread gets its own and keeps what it has once held: blocks pass from the loop
    to the hashing and writing threads, so that each heap grows to what all of them need. To be
    called before the first thread starts.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
