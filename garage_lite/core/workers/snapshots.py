"""Takes a snapshot of the metadata now and then, and keeps the last few.

When, is Garage's rule: the first half an interval after the start, the next ones an interval and
up to a fifth of it later, so that the nodes of a cluster don't all copy at the same moment.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

from garage_lite.core.disk.metadata import MetadataStore
from garage_lite.core.ports import Clock, Entropy
from garage_lite.core.workers.runner import IDLE, Progress, Step

KEPT: Final = 2
POLL_SECONDS: Final = 60.0
_SPREAD: Final = 5
"""An interval is lengthened by up to one part in so many."""


def snapshot_name(now_us: int) -> str:
    """`2026-01-31T12-00-00Z`: names in order of time, good for any file system."""
    when = datetime.fromtimestamp(now_us // 1_000_000, UTC)
    return when.strftime("%Y-%m-%dT%H-%M-%SZ")


def lengthened(interval_us: int, chance: int) -> int:
    """The time to the next snapshot. `chance`: a random byte."""
    return interval_us + interval_us * chance // (255 * _SPREAD)


class SnapshotWorker:
    """One step is one snapshot, if it is time."""

    name = "Metadata snapshot worker"

    def __init__(
        self, metadata: MetadataStore, clock: Clock, entropy: Entropy, interval_ms: int
    ) -> None:
        self._metadata = metadata
        self._clock = clock
        self._entropy = entropy
        self._interval_us = interval_ms * 1000
        self._next_us = clock.monotonic_us() + self._interval_us // 2
        self._taken = 0

    async def work(self) -> Step:
        """Raises what the store raises; the runner tries again."""
        if self._clock.monotonic_us() < self._next_us:
            return IDLE
        await self._metadata.snapshot(snapshot_name(self._clock.now_us()))
        await self._metadata.prune_snapshots(KEPT)
        self._taken += 1
        rest_us = lengthened(self._interval_us, self._entropy.token(1)[0])
        self._next_us = self._clock.monotonic_us() + rest_us
        return IDLE

    async def wait(self) -> None:
        left = (self._next_us - self._clock.monotonic_us()) / 1_000_000
        await asyncio.sleep(min(max(left, 0), POLL_SECONDS))

    def progress(self) -> Progress:
        return Progress(freeform=(f"{self._taken} since the start",))
