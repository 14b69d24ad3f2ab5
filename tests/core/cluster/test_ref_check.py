"""References that a crash in the middle of a write left, and those that only look like it."""

from __future__ import annotations

import asyncio

import pytest

from garage_lite.core.cluster import block_service
from garage_lite.core.ids import BlockHash
from garage_lite.core.model.rowkeys import Table, page_row, pending_row
from garage_lite.core.model.versions import Pending, PendingState
from garage_lite.core.table.schema import Change, Update
from garage_lite.core.workers import ref_check
from garage_lite.node import Node
from tests.core.blocks_on_disk import named, noise
from tests.core.cluster.block_cluster import (
    BUCKET,
    BlockCluster,
    block_cluster,
    data_id,
    rows_of,
)
from tests.sim.loop import run

A = noise(1)
LEASE_SECONDS = 300
SETTLED_SECONDS = 800


@pytest.fixture(autouse=True)
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day of simulated time takes long."""
    for module in (block_service, ref_check):
        monkeypatch.setattr(module, "PENDING_LEASE_MS", LEASE_SECONDS * 1000)


def pending(w: BlockCluster, number: int, state: PendingState) -> Change:
    writer = w.cluster.nodes[0].id
    row = Pending(state, 1 << 60, writer, w.node(0).storage.boot)
    return Update(pending_row(BUCKET, data_id(number)), row.encode())


async def put(w: BlockCluster, rows: list[Change]) -> BlockHash:
    """A block with the rows that got through before the writer died."""
    block = named(A)
    await w.cluster.nodes[0].run(lambda node: node.storage.blocks.put(block, [A], rows))
    return block


async def lose_page(w: BlockCluster) -> None:
    """The page never reached its replicas."""
    key = page_row(BUCKET, data_id(1), end=len(A))

    async def lose(node: Node) -> None:
        await node.metadata.commit([(key, None)])

    for one in w.cluster.up():
        await one.run(lose)


def checks(w: BlockCluster) -> int:
    scan = w.node(1).tables.durable().scan(bytes((Table.REF_CHECK,)), bytes((Table.REF_CHECK + 1,)))
    return sum(len(keys) for keys, _ in scan)


def test_a_reference_that_nothing_leads_to_goes_with_its_block() -> None:
    async def scenario() -> None:
        async with block_cluster() as w:
            block = await put(w, rows_of(named(A), len(A), 1))
            await w.quiet()
            await lose_page(w)
            await asyncio.sleep(LEASE_SECONDS - 10)
            assert w.facts(1, block).live
            await asyncio.sleep(SETTLED_SECONDS)
            assert w.holders(block) == []
            assert checks(w) == 0

    run(scenario())


@pytest.mark.parametrize("state", [None, PendingState.WRITING])
def test_a_reference_with_a_page_or_a_writer_stays(state: PendingState | None) -> None:
    async def scenario() -> None:
        async with block_cluster() as w:
            rows = rows_of(named(A), len(A), 1)
            if state is not None:
                rows.append(pending(w, 1, state))
            block = await put(w, rows)
            await w.quiet()
            assert checks(w) == 1
            if state is not None:
                await lose_page(w)
            await asyncio.sleep(LEASE_SECONDS + SETTLED_SECONDS)
            assert w.holders(block) == [0, 1, 2]
            assert checks(w) == (0 if state is None else 1)

    run(scenario())


def test_a_page_that_only_others_have_counts() -> None:
    """This owner of the block holds no metadata of the bucket's."""

    async def scenario() -> None:
        async with block_cluster() as w:
            block = await put(w, rows_of(named(A), len(A), 1))
            await w.quiet()
            key = page_row(BUCKET, data_id(1), end=len(A))
            await w.cluster.nodes[1].run(lambda node: node.metadata.commit([(key, None)]))
            await asyncio.sleep(LEASE_SECONDS + SETTLED_SECONDS)
            assert w.holders(block) == [0, 1, 2]

    run(scenario())
