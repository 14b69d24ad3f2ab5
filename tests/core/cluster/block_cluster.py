"""Blocks of several real nodes in one simulated world: `run(scenario(), seed)`.

`delay` is one way of every link, seconds; everything else of the world is quick and steady, so
that a test can count round trips.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from garage_lite.core.block.resync import Facts
from garage_lite.core.ids import BlockHash, BucketId, DataId
from garage_lite.core.model.rowkeys import block_ref_row, page_row
from garage_lite.core.model.versions import BlockEntry, BlockRef, encode_page
from garage_lite.core.table.schema import Change, Update
from garage_lite.node import Node
from tests.core.blocks_on_disk import named
from tests.sim.cluster import Cluster
from tests.sim.loop import SimLoop
from tests.sim.network import Weather

BUCKET = BucketId(b"B" * 32)
MIB = 1 << 20


def data_id(number: int) -> DataId:
    return DataId(number.to_bytes(16, "big"))


def rows_of(block: BlockHash, size: int, number: int) -> list[Change]:
    """What an object of one block writes: its page and its reference."""
    data = data_id(number)
    return [
        Update(page_row(BUCKET, data, end=size), encode_page([BlockEntry(size, block)])),
        Update(block_ref_row(block, data), BlockRef(BUCKET).encode()),
    ]


class BlockCluster:
    """Nodes are named by their number."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.loop = cluster.loop

    def node(self, number: int) -> Node:
        running = self.cluster.nodes[number].running
        assert running is not None
        return running

    async def put(self, by: int, plain: bytes, number: int) -> BlockHash:
        """As the verbs do, without the rest of an object."""
        block = named(plain)

        async def work(node: Node) -> None:
            await node.storage.blocks.put(block, [plain], rows_of(block, len(plain), number))

        await self.cluster.nodes[by].run(work)
        return block

    async def get(self, by: int, block: BlockHash) -> bytes:
        return await self.cluster.nodes[by].run(lambda node: node.storage.blocks.get(block))

    async def refer(self, by: int, plain: bytes, number: int) -> list[BlockHash]:
        block = named(plain)
        rows = rows_of(block, len(plain), number)
        return await self.cluster.nodes[by].run(
            lambda node: node.storage.blocks.refer([block], rows)
        )

    async def forget(self, by: int, block: BlockHash, number: int) -> None:
        row = Update(block_ref_row(block, data_id(number)), BlockRef(BUCKET, True).encode())
        await self.cluster.nodes[by].run(lambda node: node.tables.write([row]))

    async def look(self, by: int, block: BlockHash) -> None:
        """Have the resync worker of a node look at a block now."""

        async def work(node: Node) -> None:
            await node.storage.blocks.store.look_again(block)
            node.background.resync.notify()

        await self.cluster.nodes[by].run(work)

    def has(self, number: int, block: BlockHash) -> bool:
        return self.node(number).storage.blocks.store.files.has(block)

    def facts(self, number: int, block: BlockHash) -> Facts:
        return self.node(number).storage.blocks.store.facts(block)

    def holders(self, block: BlockHash) -> list[int]:
        """Which of the nodes that are up have a file of it."""
        return [one.number for one in self.cluster.up() if self.has(one.number, block)]

    async def quiet(self) -> None:
        """Until no block is on its way to a straggler."""
        await self.cluster.until(
            lambda: all(
                node.running is None or not node.running.storage.blocks.sender.stragglers.held
                for node in self.cluster.nodes
            )
        )

    def rot(self, number: int, block: BlockHash) -> None:
        """Damage the file of a block on a node's disk."""
        files = self.cluster.nodes[number].files
        (path,) = (path for path in files.paths() if block.hex() in path)
        files.rot(path, 5)


@asynccontextmanager
async def block_cluster(
    nodes: int = 3,
    copies: int = 3,
    *,
    spare: int = 0,
    delay: float = 0.001,
    bytes_per_second: float = float("inf"),
    seed: int = 0,
) -> AsyncIterator[BlockCluster]:
    """Nodes that are up and connected; stopped at the end."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    weather = Weather(delay=delay, jitter=0, bytes_per_second=bytes_per_second)
    cluster = Cluster(loop, seed, nodes, copies, spare=spare, weather=weather, block_bytes=MIB)
    await cluster.start()
    yield BlockCluster(cluster)
    for node in cluster.nodes:
        if node.is_up and node.process is not None and not node.process.frozen:
            await node.stop()


__all__ = ["BUCKET", "MIB", "BlockCluster", "block_cluster", "data_id", "rows_of"]
