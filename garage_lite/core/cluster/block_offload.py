"""Handing a block over to the nodes that own it now.

A node that lost a partition keeps its files until their owners have them: it asks each owner what
it has, sends the block to those that refer to it and lack it, and tells the answers. What they
mean for the file here is `core/block/resync.after_asking`'s.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, NamedTuple

from garage_lite.core.block.frame import StoredBlock
from garage_lite.core.block.resync import Standing
from garage_lite.core.cluster.block_sending import BlockSender
from garage_lite.core.cluster.block_service import NEED
from garage_lite.core.cluster.block_store import BlockStore
from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.peers import Cluster
from garage_lite.core.errors import NodeError
from garage_lite.core.ids import BlockHash, NodeId, partition_of
from garage_lite.core.wire.outbox import BACKGROUND

log = logging.getLogger(__name__)

NEED_SECONDS: Final = 30.0
_KNOWN: Final = frozenset(Standing)


class Owners(NamedTuple):
    """What the owners of a block said, and how many of them count."""

    said: list[Standing]
    write_quorum: int
    read_quorum: int


class BlockOffload:
    """Offers this node's blocks to their owners."""

    def __init__(
        self, cluster: Cluster, layout: ClusterLayout, store: BlockStore, sender: BlockSender
    ) -> None:
        self._cluster = cluster
        self._layout = layout
        self._store = store
        self._sender = sender

    async def offer(self, block: BlockHash) -> Owners:
        """Send the block to the owners that need it; what each has then.

        While a layout is changing references may not have reached their owners yet: then none is
        believed that it has none. Raises what reading the file raises.
        """
        lookup = self._layout.lookup
        partition = partition_of(block)
        owners = lookup.write_sets(partition, data=True)[-1]
        readers = lookup.read_set(partition, data=True)
        said = dict(
            zip(
                owners.nodes,
                await asyncio.gather(*(self._ask(node, block) for node in owners.nodes)),
                strict=True,
            )
        )
        stored: StoredBlock | None = None
        for node, standing in said.items():
            if standing is Standing.NEEDED:
                stored = stored or await self._store.files.get_stored(block)
                said[node] = await self._push(node, block, stored)
            elif standing is not Standing.HELD and len(lookup.versions) > 1:
                said[node] = Standing.STRANGER
        read_quorum = len(owners.nodes) if readers is None else readers.needed
        return Owners(list(said.values()), owners.needed, read_quorum)

    async def _ask(self, node: NodeId, block: BlockHash) -> Standing:
        if node == self._cluster.node:
            return await self._store.standing(block)
        try:
            reply = await self._cluster.call(
                node, NEED, [block], timeout=NEED_SECONDS, priority=BACKGROUND
            )
        except NodeError as error:
            log.debug("an owner of block %s does not answer: %s", block.hex(), error.message)
            return Standing.STRANGER
        match reply.payload:
            case [int() as standing] if standing in _KNOWN:
                return Standing(standing)
        return Standing.STRANGER

    async def _push(self, node: NodeId, block: BlockHash, stored: StoredBlock) -> Standing:
        try:
            await self._sender.push(node, block, stored)
        except NodeError as error:
            log.warning("block %s was not taken by its owner: %s", block.hex(), error.message)
            return Standing.NEEDED
        return Standing.HELD
