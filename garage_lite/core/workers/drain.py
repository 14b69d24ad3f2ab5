"""Watches a node that the layout has let go: whether any block is left on its disks.

Its rows have been given away when no active version of the layout names it; blocks are handed
over one by one after that, by the resync workers. When none is left the node may be turned off.
"""

from __future__ import annotations

import asyncio
from typing import Final

from garage_lite.core.cluster.block_store import BlockStore
from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.workers.runner import IDLE, Progress, Step

POLL_SECONDS: Final = 20.0
EMPTY_POLLS: Final = 30
"""A disk that was found empty is looked at again after so many polls: a walk over all folders
is not for nothing."""


class DrainWatch:
    """One step looks for the first block that is left."""

    name = "Drain watch worker"

    def __init__(self, store: BlockStore, layout: ClusterLayout) -> None:
        self._store = store
        self._layout = layout
        self._at: dict[str, int] = {}
        """By directory: the folder where a block was seen last; those before it are empty."""
        self._polls = 0
        self.empty: bool | None = None
        """None: this node owns something, or it has not been looked at yet."""

    async def work(self) -> Step:
        if self._owns_something():
            self.empty = None
            return IDLE
        if self.empty and self._polls < EMPTY_POLLS:
            self._polls += 1
            return IDLE
        self._polls = 0
        self.empty = not await self._any_block()
        return IDLE

    async def wait(self) -> None:
        await asyncio.sleep(POLL_SECONDS)

    def progress(self) -> Progress:
        said = {True: "nothing is left on this node", False: "blocks are left on this node"}
        return Progress(freeform=() if self.empty is None else (said[self.empty],))

    def _owns_something(self) -> bool:
        lookup, here = self._layout.lookup, self._layout.node
        if not lookup.ready:
            return True
        return bool(lookup.partitions_of(here) or lookup.partitions_of(here, data=True))

    async def _any_block(self) -> bool:
        """Raises StorageFailed."""
        for directory in self._store.files.directories:
            leaf = self._at.pop(directory.path, 0)
            while (found := await self._store.files.next_leaf(directory, leaf)) is not None:
                number, copies = found
                if any(not copy.name.corrupted for copy in copies):
                    self._at[directory.path] = number
                    return True
                leaf = number + 1
        return False
