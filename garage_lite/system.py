"""The machine's clock, sleep, randomness, cores and memory. Nothing else reads or sets them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import time
from typing import Final

_MALLOC_OPTIONS: Final = ((-8, 1), (-3, 4 * 2**20), (-1, 32 * 2**20))
"""malloc.h of glibc: M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD."""


class SystemClock:
    """`Clock` on the operating system's wall clock and monotonic clock."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_us(self) -> int:
        # Also goes on while the machine sleeps: a lease must not outlive that.
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


class SystemEntropy:
    """`Entropy` on the operating system's generator."""

    def token(self, length: int) -> bytes:
        return secrets.token_bytes(length)


def minute_of_day(now_us: int) -> int:
    """The minute of the day, 0 to 1439, on the clocks of the place where the node is."""
    local = time.localtime(now_us // 1_000_000)
    return local.tm_hour * 60 + local.tm_min


def usable_cores() -> int:
    """How many of the machine's cores this process may use."""
    return len(os.sched_getaffinity(0))


def pause(seconds: float) -> None:
    """Put the calling thread to sleep; never on the event loop."""
    time.sleep(seconds)


def share_one_heap() -> None:
    """Let all threads allocate from one heap and keep what they free, where the C library is
    glibc. To be called before the first thread starts.

    By default each thread gets its own heap: blocks pass from the loop to the hashing and writing
    threads, so that each heap grows to what all of them need. And memory of a block's size is
    given back to the system as soon as it is free, to be faulted in again page by page for the
    next block: a fifth of the cost of a big upload.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _MALLOC_OPTIONS:
            mallopt(option, value)
