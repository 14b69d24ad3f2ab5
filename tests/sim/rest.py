"""What must be true of the nodes' disks once all trouble is over and they had time."""

from __future__ import annotations

import asyncio
from typing import Final

from garage_lite.core.block.resync import entry_key
from garage_lite.core.ids import PARTITIONS, NodeId
from garage_lite.core.model.rowkeys import Table, block_refs_prefix
from garage_lite.core.model.versions import BlockRef
from garage_lite.core.workers.rebalance import walk
from garage_lite.node import Node
from tests.sim.checkers import differing_rows, orphan_blocks
from tests.sim.simulation import Run

SETTLE_SECONDS: Final = 900.0
"""Long enough for a round of sync, and for what is to be deleted to be deleted."""
_LOCAL: Final = 0x80


async def at_rest(run: Run) -> None:
    """Give the cluster its time, then look at every disk."""
    await asyncio.sleep(SETTLE_SECONDS)
    run.wrong += budgets_given_back(run)
    run.wrong += replicas_that_differ(run)
    for node in run.cluster.up():
        run.wrong += await node.run(orphans)


def budgets_given_back(run: Run) -> list[str]:
    """No memory is lent out when nobody asks for anything."""
    return [
        f"node {node.number} has lent {budget.total - budget.free} bytes to nobody"
        for node in run.cluster.up()
        if node.running is not None
        for budget in (node.running.storage.budget,)
        if budget.free != budget.total
    ]


def raw_rows(node: Node, start: bytes, end: bytes) -> dict[bytes, bytes]:
    return {
        key: value
        for keys, values in node.metadata.scan(start, end)
        for key, value in zip(keys, values, strict=True)
    }


def replicas_that_differ(run: Run) -> list[str]:
    """Every replicated row is on all holders of its partition in the same bytes. Counters are
    each replica's own."""
    nodes = {node.id: node.running for node in run.cluster.up() if node.running is not None}
    lookup = next(iter(nodes.values())).layout.lookup
    by_table = {
        table: {
            node: raw_rows(running, bytes((table,)), bytes((table + 1,)))
            for node, running in nodes.items()
        }
        for table in Table
        if table < _LOCAL and table != Table.COUNTER
    }
    wrong: list[str] = []
    for table, rows in by_table.items():
        used = {key[1] for of_node in rows.values() for key in of_node}
        for partition in sorted(used & set(range(PARTITIONS))):
            data = table == Table.BLOCK_REF
            holders: set[NodeId] = set(nodes)
            if table >= Table.OBJECT:
                sets = lookup.write_sets(partition, data=data)
                holders = {node for each in sets for node in each.nodes}
            replicas = {
                node.hex()[:8]: {k: v for k, v in rows[node].items() if k[1] == partition}
                for node in sorted(holders & set(nodes))
            }
            wrong += [f"{table.name} {line}" for line in differing_rows(replicas)]
    return wrong


async def orphans(node: Node) -> list[str]:
    """Block files that nobody refers to and that are not queued to go."""
    files = {copy.name.block async for copy in walk(node.background.store)}
    referenced = set()
    queued = set()
    for block in files:
        start = block_refs_prefix(block)
        refs = raw_rows(node, start, start + b"\xff" * 17)
        if any(value and not BlockRef.decode(value).deleted for value in refs.values()):
            referenced.add(block)
        if node.metadata.get(entry_key(block)) is not None:
            queued.add(block)
    return orphan_blocks(files, referenced, queued)
