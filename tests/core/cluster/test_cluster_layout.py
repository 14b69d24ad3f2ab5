"""This node's copy of the layout: edits are durable, `--single-node` is careful."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from garage_lite.core.cluster.cluster_layout import ROW, ClusterLayout, ZoneRedundancy
from garage_lite.core.errors import (
    ConfigError,
    InvalidArgument,
    LayoutFork,
    NotAllowedHere,
    StorageFailed,
)
from garage_lite.core.layout import version
from garage_lite.core.layout.assign import assign
from garage_lite.core.layout.roles import Parameters, Role
from garage_lite.core.quorum import Consistency
from garage_lite.core.table.schema import Update
from tests.core.layout.build import GB, node
from tests.core.tables_on_disk import TablesOnDisk

HERE, THERE, OTHER = node(1), node(2), node(3)


@pytest_asyncio.fixture
async def disk(tmp_path: Path) -> AsyncIterator[TablesOnDisk]:
    opened = await TablesOnDisk.open(tmp_path)
    yield opened
    await opened.close()


def load(disk: TablesOnDisk, copies: int = 1) -> ClusterLayout:
    return ClusterLayout(disk.replica, disk.clock, HERE, Parameters(copies), Consistency.CONSISTENT)


async def test_staged_then_applied_then_still_there(disk: TablesOnDisk) -> None:
    layout = load(disk)
    assert layout.lookup.read_set(5) is None
    await layout.stage({HERE: Role("dc1", 256 * GB, ("home",))})
    assert list(load(disk).history.staged_roles()) == [HERE]

    planned, numbers = await layout.preview()
    assert numbers.partition_size == GB and layout.lookup.read_set(5) is None
    assert await layout.apply(1) == numbers
    assert layout.ready and layout.lookup.read_set(5) == (1, (HERE,), 1)

    again = load(disk)
    assert again.history == layout.history
    assert again.history.current == planned.current
    assert again.history.staged_roles() == {}


async def test_a_refused_edit_changes_nothing(disk: TablesOnDisk) -> None:
    layout = load(disk)
    with pytest.raises(InvalidArgument, match="at least 1K"):
        await layout.stage({THERE: Role("b", GB), HERE: Role("a", 10)})
    with pytest.raises(NotAllowedHere):
        await layout.apply(1)
    with pytest.raises(InvalidArgument, match="the next is 1"):
        await layout.apply(2)
    with pytest.raises(InvalidArgument, match="replication factor"):
        await layout.stage({}, ZoneRedundancy(2))
    assert layout.history == load(disk).history
    assert layout.history.staged_roles() == {}


async def test_revert_forgets_what_is_staged(disk: TablesOnDisk) -> None:
    layout = load(disk, copies=3)
    await layout.stage({HERE: Role("a", GB)}, ZoneRedundancy(2))
    assert layout.history.staging.staged_parameters.zone_redundancy == 2
    await layout.revert()
    assert load(disk, copies=3).history.staged_roles() == {}
    assert layout.history.staging.staged_parameters.zone_redundancy is None


async def test_a_changed_replication_factor_comes_with_the_next_version(
    disk: TablesOnDisk, caplog: pytest.LogCaptureFixture
) -> None:
    layout = load(disk)
    await layout.use_single_node(100 * GB)
    with caplog.at_level(logging.WARNING):
        layout = load(disk, copies=2)
    assert "has replication factor 1, the configuration 2" in caplog.text
    assert layout.history.current.copies == 1
    await layout.stage({THERE: Role("dc2", 100 * GB)})
    assert (await layout.preview())[1].replication_factor == 2
    await layout.apply(2)
    assert layout.history.current.copies == 2
    assert [v.number for v in layout.history.active] == [1, 2], "node 2 has not acknowledged"


async def test_blocks_may_have_fewer_copies_than_metadata(
    disk: TablesOnDisk, caplog: pytest.LogCaptureFixture
) -> None:
    def configured(factors: Parameters) -> ClusterLayout:
        return ClusterLayout(disk.replica, disk.clock, HERE, factors, Consistency.CONSISTENT)

    await configured(Parameters(2)).stage({HERE: Role("a", GB), THERE: Role("b", GB)})
    await configured(Parameters(2)).apply(1)
    with caplog.at_level(logging.WARNING):
        layout = configured(Parameters(2, 1))
    assert "has data replication factor 2, the configuration 1" in caplog.text
    await layout.apply(2)
    newest = layout.history.current
    assert (newest.copies, newest.data_copies) == (2, 1)
    writers = layout.lookup.write_sets(7, data=True)[-1]
    assert len(writers.nodes) == 1 and len(layout.lookup.write_sets(7)[-1].nodes) == 2


async def test_the_dead_are_spoken_for(disk: TablesOnDisk) -> None:
    layout = load(disk, copies=2)
    with pytest.raises(InvalidArgument, match="only one live cluster layout version"):
        await layout.skip_dead(1, [HERE], allow_missing_data=False)
    await layout.stage({HERE: Role("a", GB), THERE: Role("b", GB)})
    await layout.apply(1)
    await layout.stage({OTHER: Role("c", GB), THERE: None})
    await layout.apply(2)
    with pytest.raises(InvalidArgument, match="version numbers: 2"):
        await layout.skip_dead(3, [HERE], allow_missing_data=False)
    assert layout.lookup.ack_floor == 1
    said = await layout.skip_dead(2, [HERE, OTHER], allow_missing_data=False)
    assert said == ((THERE,), ())
    assert await layout.skip_dead(2, [HERE, OTHER], allow_missing_data=False) == ((), ())
    said = await layout.skip_dead(2, [HERE, OTHER], allow_missing_data=True)
    assert said == ((OTHER,), (HERE, THERE, OTHER))
    assert load(disk, copies=2).history == layout.history


async def test_requests_go_on_while_a_layout_is_computed(
    disk: TablesOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = load(disk)
    await layout.stage({HERE: Role("a", GB)})
    gate, solver = threading.Event(), assign

    def slow(*arguments: Any) -> Any:
        gate.wait(10)
        return solver(*arguments)

    monkeypatch.setattr(version, "assign", slow)
    applying = asyncio.create_task(layout.apply(1))
    await asyncio.sleep(0.01)
    assert not applying.done()
    gate.set()
    await applying


async def test_before_the_first_layout_the_configuration_counts(disk: TablesOnDisk) -> None:
    await load(disk, copies=3).stage({HERE: Role("a", GB)})
    layout = load(disk, copies=1)
    assert layout.history.current.copies == 1
    await layout.apply(1)
    assert layout.ready


async def test_single_node_once_and_for_all(disk: TablesOnDisk) -> None:
    layout = load(disk)
    await layout.use_single_node(500 * GB)
    assert layout.history.current.roles == {HERE: Role("dc1", 500 * GB, ("default",))}
    again = load(disk)
    await again.use_single_node(900 * GB)
    assert again.history == layout.history, "a layout that is there is left alone"


async def test_single_node_refuses_a_cluster(disk: TablesOnDisk) -> None:
    with pytest.raises(ConfigError, match="replication_factor = 1"):
        await load(disk, copies=3).use_single_node(GB)
    layout = load(disk)
    await layout.stage({HERE: Role("a", GB), THERE: Role("b", GB)})
    await layout.apply(1)
    with pytest.raises(ConfigError, match="1 other nodes"):
        await layout.use_single_node(GB)


async def test_what_another_node_knows_joins(disk: TablesOnDisk, tmp_path: Path) -> None:
    layout = load(disk)
    await layout.use_single_node(100 * GB)
    other = layout.history.with_role(THERE, Role("b", GB), 1_800_000_000_000_000)
    await layout.merge(other)
    assert list(load(disk).history.staged_roles()) == [THERE]


async def test_a_fork_is_refused_until_one_side_moves_on(disk: TablesOnDisk) -> None:
    layout = load(disk)
    base = layout.history
    await layout.use_single_node(100 * GB)
    before = layout.history
    other = base.with_role(HERE, Role("b", GB), 5).applied(1, 6)
    with pytest.raises(LayoutFork, match="applied as version 1"):
        await layout.merge(other)
    assert layout.history == before == load(disk).history
    later = other.with_role(HERE, Role("c", GB), 7).applied(2, 8).synced(HERE, 2)
    later = later.advanced(HERE, None)
    assert [version.number for version in later.active] == [2]
    await layout.merge(later)
    assert layout.history.current == later.current


async def test_a_damaged_row_stops_the_start(disk: TablesOnDisk) -> None:
    await disk.tables.write([Update(ROW, b"\x92\x01\x02")])
    with pytest.raises(StorageFailed):
        load(disk)
