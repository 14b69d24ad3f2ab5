"""Reads and verifies every block file, slowly, about once a month; asks after orphans on the way.

The plan (when, where, what an operator may say) is `core/block/scrub.py`'s. What a bad file means
is the block store's: it is set aside there, and the block queued for healing. A file without a
live reference, or that other nodes own, and without a resync entry is queued too: a crash between
a deletion's steps leaves it, or a layout that changed twice in a row, and nothing else would ever
find it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

from garage_lite.core.block.pace import Pace
from garage_lite.core.block.scrub import (
    CHECKPOINT_US,
    RANDOM_BYTES,
    Phase,
    ScrubState,
    first_state,
)
from garage_lite.core.cluster.block_store import BlockStore
from garage_lite.core.disk.block_directories import SmallState
from garage_lite.core.disk.block_files import Checked
from garage_lite.core.disk.block_shelf import Copy
from garage_lite.core.errors import NodeError, NotAllowedHere
from garage_lite.core.ids import BlockHash
from garage_lite.core.workers.runner import BUSY, IDLE, Progress, State, Step
from garage_lite.core.workers.variables import SCRUB_TRANQUILITY, LiveVariables

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 60.0
_ROW: Final = "scrub"


class ScrubWorker:
    """One step is one file."""

    name = "Block scrub worker"

    def __init__(
        self, store: BlockStore, state: SmallState, variables: LiveVariables, enabled: bool = True
    ) -> None:
        self._store = store
        self._rows = state
        self._variables = variables
        self._enabled = enabled
        self._pace = Pace()
        self._wake = asyncio.Event()
        self._batch: list[Copy] = []
        """What is left of the folder it is in."""
        self._unreadable = 0
        self._checkpoint_us = 0
        stored = state.get(_ROW)
        self._kept = stored is not None
        self.state = (
            ScrubState.decode(stored) if stored is not None else first_state(*self._now_random())
        )

    async def command(self, command: str) -> None:
        """start, pause, resume or cancel. Raises NotAllowedHere where it makes no sense."""
        state = self.state.after(command, *self._now_random())
        if state is None:
            raise NotAllowedHere(
                f"scrub can't {command} while it is {self.state.phase.name.lower()}"
            )
        if command in ("start", "cancel"):
            self._batch = []
            self._unreadable = 0
        await self._keep(state)
        self._wake.set()

    async def work(self) -> Step:
        clock = self._store.tables.clock
        due = self.state.on_time(clock.now_us())
        if not self._enabled and self.state.phase is Phase.WAITING:
            return IDLE  # an operator may still start it
        if due != self.state or not self._kept:
            await self._keep(due)
        if due.phase is not Phase.RUNNING:
            return IDLE
        if not self._batch:
            return await self._next_folder()
        start = clock.monotonic_us()
        await self._check_next()
        if clock.monotonic_us() >= self._checkpoint_us:
            await self._keep(self.state)
        took = clock.monotonic_us() - start
        rest = self._pace.rest_us(took, self._variables[SCRUB_TRANQUILITY])
        return Step(State.THROTTLED, rest)

    async def wait(self) -> None:
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    def progress(self) -> Progress:
        state = self.state
        lines = [f"{state.corruptions} corrupted files found so far"]
        if self._unreadable:
            lines.append(f"{self._unreadable} files could not be read in this run")
        running = state.phase is not Phase.WAITING
        ids = [directory.id for directory in self._store.files.directories]
        return Progress(
            tranquility=self._variables[SCRUB_TRANQUILITY],
            progress=f"{100 * state.progress(ids):.2f}%" if running else None,
            freeform=lines,
        )

    async def _next_folder(self) -> Step:
        """Go on to the next folder; or to the end of the run."""
        state = self.state
        for directory in self._store.files.directories:
            if directory.id < state.directory:
                continue
            leaf = state.leaf if directory.id == state.directory else 0
            found = await self._store.files.next_leaf(directory, leaf)
            if self.state is not state:
                return BUSY  # a command came meanwhile
            if found is not None:
                number, batch = found
                # A restart reads a folder that is not done again from its start.
                reached = number if batch else number + 1
                self.state = replace(state, directory=directory.id, leaf=reached)
                self._batch = batch
                return BUSY
        await self._keep(state.completed(*self._now_random()))
        return IDLE

    async def _check_next(self) -> None:
        batch = self._batch
        copy = batch.pop()
        try:
            checked = await self._store.files.check(copy)
        except NodeError as error:
            self._unreadable += 1
            log.warning("scrub: %s", error.message)
            checked = Checked.GONE
        if checked is Checked.CORRUPT:
            self.state = replace(self.state, corruptions=self.state.corruptions + 1)
        if checked in (Checked.GOOD, Checked.ASIDE):
            await self._ask_after_orphan(copy.name.block, checked)
        if not batch and batch is self._batch:
            self.state = replace(self.state, leaf=self.state.leaf + 1)

    async def _ask_after_orphan(self, block: BlockHash, checked: Checked) -> None:
        """Queue a file that nothing refers to; drop a bad one that nobody misses."""
        async with self._store.locks.hold(block):
            facts = self._store.facts(block)
            kept = facts.owner and facts.live
            if kept or self._store.entry(block) is not None:
                return
            if checked is Checked.ASIDE and not facts.present:
                await self._store.files.delete(block)
            else:
                await self._store.look_again(block)

    async def _keep(self, state: ScrubState) -> None:
        self.state = state
        self._kept = True
        self._checkpoint_us = self._store.tables.clock.monotonic_us() + CHECKPOINT_US
        await self._rows.set(_ROW, state.encode())

    def _now_random(self) -> tuple[int, bytes]:
        tables = self._store.tables
        return tables.clock.now_us(), tables.entropy.token(RANDOM_BYTES)
