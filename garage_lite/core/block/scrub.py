"""The plan of scrub: where it stands, when it runs next, what an operator may tell it.

All files are read and verified once in 25 to 35 days (Garage's figures; the random part keeps
nodes from scrubbing in step). The state is one small row, written every minute, so that a
restart goes on from there. Commands are one table (`NEXT`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from garage_lite.core.block.frame import LEAVES
from garage_lite.core.codec import decode, encode

TAG = 1
DAY_US: Final = 86_400_000_000
INTERVAL_US: Final = 25 * DAY_US
INTERVAL_SPREAD_US: Final = 10 * DAY_US
PAUSE_US: Final = DAY_US
CHECKPOINT_US: Final = 60_000_000
RANDOM_BYTES: Final = 4


class Phase(IntEnum):
    WAITING = 0
    RUNNING = 1
    PAUSED = 2


NEXT: Final[dict[tuple[Phase, str], Phase]] = {
    (Phase.WAITING, "start"): Phase.RUNNING,
    (Phase.RUNNING, "pause"): Phase.PAUSED,
    (Phase.PAUSED, "pause"): Phase.PAUSED,
    (Phase.PAUSED, "resume"): Phase.RUNNING,
    (Phase.RUNNING, "cancel"): Phase.WAITING,
    (Phase.PAUSED, "cancel"): Phase.WAITING,
}
"""What is not named here is refused."""


@dataclass(frozen=True, slots=True)
class ScrubState:
    """All that a restart must not forget."""

    phase: Phase
    due_us: int
    """WAITING: when the next run starts. PAUSED: when it goes on by itself."""
    directory: bytes = b""
    """RUNNING, PAUSED: id of the directory it is in; those with smaller ids are done."""
    leaf: int = 0
    """The first folder of that directory that is not done."""
    completed_us: int = 0
    """When the last whole run ended; 0: never."""
    corruptions: int = 0
    """Found since the node was made."""

    def encode(self) -> bytes:
        fields = (self.directory, self.leaf, self.completed_us, self.corruptions)
        return encode(TAG, [int(self.phase), self.due_us, *fields])

    @classmethod
    def decode(cls, data: bytes) -> ScrubState:
        phase, due_us, directory, leaf, completed_us, corruptions = decode(data, TAG)
        return cls(Phase(phase), due_us, directory, leaf, completed_us, corruptions)

    def after(self, command: str, now_us: int, random: bytes) -> ScrubState | None:
        """The state after an operator's command, or None where it makes no sense."""
        phase = NEXT.get((self.phase, command))
        if phase is None:
            return None
        match command:
            case "start":
                return self._started()
            case "pause":
                return replace(self, phase=phase, due_us=now_us + PAUSE_US)
            case "cancel":
                return self._waiting(now_us, random)
        return replace(self, phase=phase, due_us=0)

    def on_time(self, now_us: int) -> ScrubState:
        """The state once due: a run that starts, or a pause that ends."""
        if self.phase is Phase.RUNNING or now_us < self.due_us:
            return self
        return (
            self._started() if self.phase is Phase.WAITING else replace(self, phase=Phase.RUNNING)
        )

    def completed(self, now_us: int, random: bytes) -> ScrubState:
        return replace(self._waiting(now_us, random), completed_us=now_us)

    def _started(self) -> ScrubState:
        return replace(self, phase=Phase.RUNNING, due_us=0, directory=b"", leaf=0)

    def _waiting(self, now_us: int, random: bytes) -> ScrubState:
        due_us = next_run_us(now_us, random)
        return replace(self, phase=Phase.WAITING, due_us=due_us, directory=b"", leaf=0)

    def progress(self, ids: Sequence[bytes]) -> float:
        """The part of the run that is done, 0 to 1, given the ids of all directories."""
        if self.phase is Phase.WAITING or not ids:
            return 0.0
        done = sum(id < self.directory for id in ids)
        inside = self.leaf / LEAVES if self.directory in ids else 0.0
        return min((done + inside) / len(ids), 1.0)


def first_state(now_us: int, random: bytes) -> ScrubState:
    """A new node: its first run comes after a whole interval."""
    return ScrubState(Phase.WAITING, next_run_us(now_us, random))


def next_run_us(now_us: int, random: bytes) -> int:
    """25 to 35 days from now, by RANDOM_BYTES of randomness."""
    spread = int.from_bytes(random, "big") * INTERVAL_SPREAD_US >> (8 * RANDOM_BYTES)
    return now_us + INTERVAL_US + spread
