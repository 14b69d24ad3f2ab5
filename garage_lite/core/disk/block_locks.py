"""Who may touch a block now: one lock a block, and leases of long reads.

In memory only. Adding a reference, putting a block again and deleting one exclude each other
under the block's lock: the deletion recounts inside it, so no reference is ever added to a file
that goes. Lock a block before anything that locks inside the block store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from garage_lite.core.ids import BlockHash


class _Entry:
    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class BlockLocks:
    """An asyncio lock for each block in use; the table holds no more than its present users."""

    def __init__(self) -> None:
        self._entries: dict[BlockHash, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @asynccontextmanager
    async def hold(self, *blocks: BlockHash) -> AsyncIterator[None]:
        """Hold the locks of all these blocks; taken in one order, so no two callers deadlock.

        Not reentrant. First come, first served for each block.
        """
        if len(blocks) == 1:
            async with self._one(blocks[0]):
                yield
            return
        async with AsyncExitStack() as stack:
            for block in sorted(set(blocks)):
                await stack.enter_async_context(self._one(block))
            yield

    @asynccontextmanager
    async def _one(self, block: BlockHash) -> AsyncIterator[None]:
        entry = self._entries.get(block)
        if entry is None:
            entry = self._entries[block] = _Entry()
        entry.users += 1
        try:
            async with entry.lock:
                yield
        finally:
            entry.users -= 1
            if not entry.users:
                del self._entries[block]


class BlockLeases:
    """What long reads still need. A name is a block's hash, or the data id of a run of blocks.

    A reader of one version that lasts longer than half the deletion delay holds the version's
    data id, or the blocks ahead of it; whoever removes data asks `held` first and comes back
    later.
    """

    def __init__(self) -> None:
        self._holders: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._holders)

    @contextmanager
    def hold(self, *names: bytes) -> Iterator[None]:
        for name in names:
            self._holders[name] = self._holders.get(name, 0) + 1
        try:
            yield
        finally:
            for name in names:
                self._holders[name] -= 1
                if not self._holders[name]:
                    del self._holders[name]

    def held(self, name: bytes) -> bool:
        return name in self._holders
