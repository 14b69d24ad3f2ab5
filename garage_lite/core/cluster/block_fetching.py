"""A block from whichever node gives it first: nearest first, another when one is late or fails.

The nodes are asked in the layout's order, near ones before far ones, and of equally near ones the
one that a Maglev table prefers. When the first byte of a node does not come in about twice the
usual time the next one is asked too; who sends a byte first goes on, the others are called off. An
answer that is not the block counts as a failure of its node, which is told to check its copy. No
byte is handed on before the whole block is verified.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, Final

from garage_lite.core.block.frame import StoredBlock
from garage_lite.core.block.maglev import Maglev
from garage_lite.core.block.nearness import Nearness
from garage_lite.core.cluster.block_service import CHECK, GET, STORED_BYTES_MAX
from garage_lite.core.cluster.block_store import BlockStore
from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.peers import Cluster
from garage_lite.core.cluster.throttle import Throttle
from garage_lite.core.errors import BlockCorrupt, BlockMissing, NodeError, Unavailable
from garage_lite.core.ids import BlockHash, NodeId, partition_of
from garage_lite.core.wire.messages import PeerFailed
from garage_lite.core.wire.outbox import BACKGROUND, BULK

log = logging.getLogger(__name__)

_Answer = tuple[StoredBlock, bytes]
"""A block as it is stored, and its verified content."""

GET_SECONDS: Final = 30.0
"""The longest that one node may take to begin."""
STALL_SECONDS: Final = 5.0
"""A node that began and sends nothing more for so long has failed."""
STALL_BACKGROUND_SECONDS: Final = 120.0
CHECK_SECONDS: Final = 10.0
TIDYING_MAX: Final = 64
"""Streams that nobody reads any more, being read to their end."""


class BlockFetcher:
    """Fetches for one node."""

    def __init__(
        self, cluster: Cluster, layout: ClusterLayout, store: BlockStore, throttle: Throttle
    ) -> None:
        self._cluster = cluster
        self._layout = layout
        self._store = store
        self._throttle = throttle
        self._nearness = Nearness()
        self._maglev = Maglev(())
        self._tidying: set[asyncio.Task[Any]] = set()

    def sources(self, block: BlockHash) -> list[NodeId]:
        """The other nodes that may have a block and can be asked now, in the order to ask them."""
        lookup = self._layout.lookup
        if self._maglev.nodes != lookup.nodes:
            self._maglev = Maglev(lookup.nodes)
        now_us = self._store.tables.clock.monotonic_us()
        partition = partition_of(block)
        nodes = lookup.block_readers(partition, lambda node: 0.0)
        rank = {node: number for number, node in enumerate(self._maglev.order(block, nodes))}

        def distance(node: NodeId) -> float:
            trip_us = self._cluster.round_trip(node) * 1_000_000
            return self._nearness.band(node, trip_us, now_us) + rank[node] / (len(rank) + 1)

        return [
            node
            for node in lookup.block_readers(partition, distance)
            if node != self._cluster.node and self._cluster.is_up(node)
        ]

    def others(self, block: BlockHash) -> list[NodeId]:
        """The other nodes that may have a block, whether they can be asked or not."""
        readers = self._layout.lookup.block_readers(partition_of(block), lambda node: 0.0)
        return [node for node in readers if node != self._cluster.node]

    async def get(self, block: BlockHash) -> bytes:
        """The verified content, for somebody who waits. Raises BlockMissing (nobody has it),
        Unavailable (nobody who may have it answers)."""
        return (await self._race(block, background=False))[1]

    async def fetch(self, block: BlockHash) -> StoredBlock:
        """The block as it is stored, verified, in the background. Raises as `get`."""
        return (await self._race(block, background=True))[0]

    async def close(self) -> None:
        for task in self._tidying:
            task.cancel()
        await asyncio.gather(*self._tidying, return_exceptions=True)

    # --- several nodes

    async def _race(self, block: BlockHash, *, background: bool) -> _Answer:
        queue = deque(self.sources(block))
        if not queue and not self.others(block):
            raise BlockMissing(f"no copy of block {block.hex()} is left on this node")
        running: list[_Attempt] = []
        failures: list[Exception] = []
        news = asyncio.Event()
        late = True
        try:
            while queue or running:
                begun = any(one.has_begun for one in running)
                if queue and not begun and (late or not running):
                    running.append(self._start(queue.popleft(), block, background, news))
                hedge = bool(queue) and not begun and not background
                late = not await _happens(news, self._patience(running[-1]) if hedge else None)
                if late:
                    self._nearness.failed(running[-1].node, self._now_us())
                for one in [one for one in running if one.task.done()]:
                    running.remove(one)
                    error = one.task.exception()
                    if error is None:
                        return one.task.result()
                    if not isinstance(error, Exception):
                        raise error
                    failures.append(error)
                    self._failed(one.node, block, error)
                if any(one.has_begun for one in running):
                    for one in [one for one in running if not one.has_begun]:
                        running.remove(one)
                        one.task.cancel()
                        queue.append(one.node)
        finally:
            for one in running:
                one.task.cancel()
        raise _why_not(block, failures)

    def _start(
        self, node: NodeId, block: BlockHash, background: bool, news: asyncio.Event
    ) -> _Attempt:
        attempt = _Attempt(node, news)
        attempt.task = asyncio.create_task(self._ask(attempt, block, background))
        attempt.task.add_done_callback(lambda _: news.set())
        return attempt

    def _patience(self, attempt: _Attempt) -> float:
        trip_us = self._cluster.round_trip(attempt.node) * 1_000_000
        return self._nearness.patience_us(attempt.node, trip_us) / 1_000_000

    def _failed(self, node: NodeId, block: BlockHash, error: Exception) -> None:
        log.info("block %s: node %s: %s", block.hex(), node.hex()[:16], error)
        self._nearness.failed(node, self._now_us())
        if isinstance(error, BlockCorrupt) and len(self._tidying) < TIDYING_MAX:
            self._tidy(
                self._cluster.call(node, CHECK, block, timeout=CHECK_SECONDS, priority=BACKGROUND)
            )

    def _now_us(self) -> int:
        return self._store.tables.clock.monotonic_us()

    # --- one node

    async def _ask(self, attempt: _Attempt, block: BlockHash, background: bool) -> _Answer:
        start_us = self._now_us()
        reply = await self._cluster.call(
            attempt.node,
            GET,
            [block, background],
            timeout=GET_SECONDS,
            priority=BACKGROUND if background else BULK,
        )
        if reply.stream is None or not isinstance(reply.payload, int):
            raise BlockCorrupt("a node answered with what is no block")
        ended = False
        try:
            stored = await self._received(attempt, reply.stream, reply.payload, background)
            ended = True
        finally:
            if not ended and len(self._tidying) < TIDYING_MAX:
                self._tidy(_read_out(reply.stream))
        self._nearness.answered(attempt.node, attempt.begun_us - start_us)
        return stored, await self._store.files.expand(block, stored)

    async def _received(
        self, attempt: _Attempt, stream: AsyncIterator[bytes], size: int, background: bool
    ) -> StoredBlock:
        if not 0 <= size <= STORED_BYTES_MAX:
            raise BlockCorrupt("a node sends a block that is too big")
        pieces: list[bytes] = []
        left = size + 1
        stall = STALL_BACKGROUND_SECONDS if background else STALL_SECONDS
        while True:
            try:
                async with asyncio.timeout(stall if attempt.has_begun else GET_SECONDS):
                    piece = await anext(stream, None)
            except TimeoutError as error:
                raise Unavailable("the node stopped sending the block") from error
            if piece is None:
                break
            attempt.begin(self._now_us())
            left -= len(piece)
            if left < 0:
                break
            pieces.append(piece)
            if background:
                await self._throttle.spend(len(piece))
        if left or pieces[0][:1] not in (b"\0", b"\1"):
            raise BlockCorrupt("the node sent what is no block")
        compressed = pieces[0][:1] == b"\1"
        pieces[0] = pieces[0][1:]
        return StoredBlock(compressed, pieces)

    def _tidy(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tidying.add(task)
        task.add_done_callback(self._tidied)

    def _tidied(self, task: asyncio.Task[Any]) -> None:
        self._tidying.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("after a read that was given up: %s", error)


class _Attempt:
    """One node that was asked."""

    def __init__(self, node: NodeId, news: asyncio.Event) -> None:
        self.node = node
        self.has_begun = False
        self.begun_us = 0
        self.task: asyncio.Task[_Answer]
        self._news = news

    def begin(self, now_us: int) -> None:
        """Its first byte is here."""
        if not self.has_begun:
            self.has_begun, self.begun_us = True, now_us
            self._news.set()


async def _happens(news: asyncio.Event, seconds: float | None) -> bool:
    """Wait for news; False if there are none within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return False
    news.clear()
    return True


async def _read_out(stream: AsyncIterator[bytes]) -> None:
    """A stream must be read to its end, wanted or not."""
    async for _ in stream:
        continue


def _why_not(block: BlockHash, failures: Iterable[Exception]) -> NodeError:
    """BlockMissing where every node that may have the block says that it has not."""
    said = list(failures)
    if said and all(isinstance(e, PeerFailed) and e.code == "BlockMissing" for e in said):
        return BlockMissing(f"no node has block {block.hex()}")
    why = "; ".join(sorted({str(error) for error in said}))
    return Unavailable(f"block {block.hex()} can't be read now{f' ({why})' if why else ''}")
