"""This node's clock against its peers': held writes, and alarms.

The rule is core/wire/clock_check.py. `Cluster.clock_is_sane` asks it. What it finds is told to
every peer, who give a doubtful clock no vote, and kept among the alarms that people see.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from garage_lite.core.cluster.mesh import Mesh
from garage_lite.core.ports import Clock
from garage_lite.core.wire.clock_check import SKEWED_US, ClockState, Judgement, judge

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0
FACT: Final = "clock"
"""Under which a node tells its peers whether it trusts its clock."""


class Clocks:
    """One for the node."""

    def __init__(self, mesh: Mesh, clock: Clock, floor_us: int) -> None:
        """`floor_us`: the time can't be before that."""
        self._mesh = mesh
        self._clock = clock
        self._floor_us = floor_us
        self._started_us = clock.monotonic_us()
        self._found = Judgement(ClockState.GOOD)
        self._task: asyncio.Task[None] | None = None
        mesh.tell(FACT, self.is_sane)
        self.look()

    def judgement(self) -> Judgement:
        """As things are now."""
        skews = [
            view.skew_us
            for view in self._mesh.peers()
            if view.is_up and view.skew_us is not None and view.facts.get(FACT) is not False
        ]
        waited_us = self._clock.monotonic_us() - self._started_us
        return judge(self._clock.now_us(), self._floor_us, skews, waited_us)

    def is_sane(self) -> bool:
        """Whether this node may stamp a write, as of the last look; cheap."""
        return self._found.may_stamp

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Judge anew, and say what has changed."""
        before, found = self._found, self.judgement()
        self._found = found
        if found.state is ClockState.GOOD:
            self._mesh.complaints.clear_alarm(FACT)
        else:
            self._mesh.complaints.raise_alarm(FACT, found.reason)
        if found.state is not before.state:
            log.warning("%s", found.reason or "This node's clock agrees with its peers' again.")
        for view in self._mesh.peers():
            if view.is_up and view.skew_us is not None and abs(view.skew_us) > SKEWED_US:
                where = "ahead of" if view.skew_us > 0 else "behind"
                name = view.node.hex()[:16]
                self._mesh.complaints.say(
                    f"The clock of node {name} is more than 10 seconds {where} this node's"
                )
