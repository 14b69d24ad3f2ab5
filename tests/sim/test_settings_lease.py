"""Rights that were taken, on real nodes that freeze, restart, are cut off and change places."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from garage_lite.core.errors import QuorumNotReached
from garage_lite.core.ids import BucketId
from garage_lite.core.lease import GRANT_US
from garage_lite.core.model.buckets import Permission
from garage_lite.node import Node
from tests.sim.cluster import Cluster
from tests.sim.loop import SimLoop, run

GRANT_SECONDS = GRANT_US / 1_000_000


class Scene:
    """A bucket and a key that may read it, known to every node."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.bucket = BucketId(b"")
        self.key = ""

    async def begin(self) -> None:
        async def make(node: Node) -> None:
            self.bucket = await node.buckets.create(global_alias="photos")
            self.key = (await node.keys.create("phone")).id
            await node.buckets.allow(self.bucket, self.key, Permission.READ)

        await self.cluster.nodes[0].run(make)
        for number in range(len(self.cluster.nodes)):
            assert await self.may_read(number)
        await asyncio.sleep(GRANT_SECONDS)

    async def may_read(self, number: int) -> bool:
        async def ask(node: Node) -> bool:
            await node.directory.fresh()
            bucket = node.directory.bucket_by_id(self.bucket)
            return Permission.READ in bucket.permissions_of(self.key)

        return await self.cluster.nodes[number].run(ask)

    async def revoke(self, number: int) -> float:
        """The seconds it took."""

        async def deny(node: Node) -> None:
            await node.buckets.deny(self.bucket, self.key, Permission.READ)

        begun = self.cluster.loop.time()
        await self.cluster.nodes[number].run(deny)
        return self.cluster.loop.time() - begun


def play(act: Callable[[Scene], Awaitable[None]], *, spare: int = 0, seed: int = 3) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        cluster = Cluster(loop, seed, spare=spare)
        await cluster.start()
        scene = Scene(cluster)
        await scene.begin()
        await act(scene)

    run(main(), seed)


def test_a_node_that_was_frozen_does_not_count_on_its_lease() -> None:
    async def act(scene: Scene) -> None:
        scene.cluster.freeze(2)
        assert await scene.revoke(0) <= GRANT_SECONDS + 1
        asked = asyncio.ensure_future(scene.may_read(2))
        await asyncio.sleep(0.1)
        scene.cluster.thaw()
        assert not await asked

    play(act)


def test_a_node_that_is_cut_off_stops_answering_in_time() -> None:
    async def act(scene: Scene) -> None:
        scene.cluster.isolate([2])
        uses = asyncio.ensure_future(_last_use(scene, 2))
        assert await scene.revoke(0) <= GRANT_SECONDS + 1
        revoked = scene.cluster.loop.time()
        assert await uses <= revoked
        with pytest.raises(QuorumNotReached):
            await scene.may_read(2)
        assert await scene.revoke(1) < 1, "its lease has lapsed long ago"

    play(act)


def test_a_restart_does_not_forget_what_was_granted() -> None:
    async def act(scene: Scene) -> None:
        scene.cluster.isolate([2])
        for number in (0, 1):
            scene.cluster.nodes[number].kill(power=True)
            await scene.cluster.nodes[number].start()
        await scene.cluster.until(lambda: len(_connected(scene, 0)) == 1)
        uses = asyncio.ensure_future(_last_use(scene, 2))
        while True:
            try:
                await scene.revoke(0)
                break
            except QuorumNotReached:
                await asyncio.sleep(0.1)
        revoked = scene.cluster.loop.time()
        assert await uses <= revoked

    play(act)


def _connected(scene: Scene, number: int) -> list[object]:
    node = scene.cluster.nodes[number].running
    return [] if node is None else list(node.cluster.peers.connected())


async def _last_use(scene: Scene, number: int) -> float:
    """When the node let the key read for the last time: it has lost its lease then."""
    last = 0.0
    while True:
        begun = scene.cluster.loop.time()
        try:
            assert await scene.may_read(number)
        except QuorumNotReached:
            return last
        last = begun
        await asyncio.sleep(0.02)


def test_a_node_that_gets_a_role_and_one_that_loses_it() -> None:
    async def act(scene: Scene) -> None:
        await scene.cluster.change_layout(0, [1, 2, 3])
        await scene.revoke(1)
        for number in range(4):
            assert not await scene.may_read(number), f"node {number}"

    play(act, spare=1)
