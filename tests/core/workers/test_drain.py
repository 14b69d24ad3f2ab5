"""A node that the layout has let go says when nothing is left on it."""

from __future__ import annotations

from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.layout.roles import Parameters, Role
from garage_lite.core.quorum import Consistency
from garage_lite.core.workers.drain import EMPTY_POLLS, DrainWatch
from tests.core.blocks_on_disk import named, noise
from tests.core.layout.build import GB, node
from tests.core.workers.block_node import Node
from tests.sim.loop import run

HERE, THERE = node(1), node(2)


async def layout_of(host: Node) -> ClusterLayout:
    """This node was alone, and another has taken its place."""
    layout = ClusterLayout(host.replica, host.clock, HERE, Parameters(1), Consistency.CONSISTENT)
    await layout.use_single_node(GB)
    return layout


async def leave(layout: ClusterLayout) -> None:
    await layout.stage({HERE: None, THERE: Role("b", GB)})
    await layout.apply(2)
    await layout.skip_dead(2, [], allow_missing_data=True)
    history = layout.history.advanced(THERE, None)
    await layout.merge(history)
    assert HERE not in layout.history.storage_nodes()


async def said(watch: DrainWatch) -> bool | None:
    await watch.work()
    return watch.empty


def test_what_is_left_is_seen_until_it_is_gone() -> None:
    async def scenario() -> None:
        host = await Node.open(directories={"/one": 1, "/two": 1})
        layout = await layout_of(host)
        for number in range(5):
            await host.put(noise(number, 40), number)
        watch = DrainWatch(host.store, layout)
        assert await said(watch) is None and not watch.progress().freeform
        await leave(layout)
        for number in range(5):
            assert await said(watch) is False, number
            await host.store.files.delete(named(noise(number, 40)))
        assert await said(watch) is True
        assert watch.progress().freeform == ("nothing is left on this node",)
        await host.orphan(noise(9, 40))
        for _ in range(EMPTY_POLLS):
            assert await said(watch) is True
        assert await said(watch) is False, "looked at again after a while"
        await host.close()

    run(scenario())
