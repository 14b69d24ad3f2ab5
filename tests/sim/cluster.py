"""A cluster of real nodes in one simulated world, and all that can happen to them.

    async def main(loop):
        cluster = Cluster(loop, seed=7, nodes=3, copies=3)
        await cluster.start()
        await cluster.node(0).run(lambda node: node.objects.put(...))
        cluster.crash(1)
        await cluster.start_node(1)

Everything of a node below its doors is real; its disk, clock, randomness and network are not.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, Final, TypeVar

from garage_lite.config import Config, from_table
from garage_lite.config.secret_files import Flags
from garage_lite.core.cluster.identity import NodeKey, key_from_seed
from garage_lite.core.cluster.peers import Endpoints
from garage_lite.core.ids import NodeId
from garage_lite.core.layout.history import LayoutHistory
from garage_lite.core.layout.roles import Parameters, Role
from garage_lite.node import Node, World, running_node
from tests.sim.files import SimFiles
from tests.sim.loop import Process, SimClock, SimEntropy, SimLoop
from tests.sim.network import SimNetwork, SimPeers, Weather

T = TypeVar("T")

LOG_FILE_BYTES: Final = 128 * 1024
CAPACITY: Final = 10**9
START_SECONDS: Final = 120.0


class NodeDied(Exception):
    """The node ended before it answered: whether the work was done is unknown."""


@functools.cache
def config_for(copies: int, block_bytes: int) -> Config:
    table = {
        "metadata_dir": "/node/meta",
        "data_dir": "/node/data",
        "replication_factor": copies,
        "block_size": block_bytes,
        "disable_scrub": True,
        "rpc_bind_addr": "127.0.0.1:3901",
        "s3_api": {"s3_region": "garage"},
    }
    return from_table(table, None, Flags())


@functools.cache
def key_of(number: int) -> NodeKey:
    return key_from_seed(random.Random(f"node {number}").randbytes(32))


@functools.cache
def layout_of(numbers: tuple[int, ...], copies: int) -> LayoutHistory:
    """Version 1 with these nodes, each in a zone of its own."""
    history = LayoutHistory.fresh(Parameters(copies))
    for number in numbers:
        history = history.with_role(key_of(number).node, Role(f"zone{number}", CAPACITY), 10)
    return history.applied(1, 20)


async def _merge(history: LayoutHistory, node: Node) -> None:
    await node.layout.merge(history)


async def _first(*waits: asyncio.Future[Any]) -> None:
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)


class SimNode:
    """One place in the cluster: a machine with a disk, on which the node runs or not."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.number = number
        self.key = key_of(number)
        self.files = SimFiles()
        self.clock = SimClock()
        self.process: Process | None = None
        self.running: Node | None = None
        self.boots = 0
        self._cluster = cluster
        self._main: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._ended: asyncio.Future[None] | None = None

    @property
    def id(self) -> NodeId:
        return self.key.node

    @property
    def is_up(self) -> bool:
        return self.running is not None

    async def start(self) -> None:
        """Start the node on what the disk holds; raises what its start raises."""
        assert self.process is None, "already running"
        loop = self._cluster.loop
        self.boots += 1
        self.process = Process(f"node {self.number}")
        self._stopping = asyncio.Event()
        self._ended = loop.create_future()
        ready: asyncio.Future[tuple[Node, SimPeers]] = loop.create_future()
        main = loop.create_task(self._live(self.process, ready), context=self.process.context)
        self._main = main
        await _first(main, ready)
        if not ready.done():
            self.process = None
            main.result()
        self.running, peers = ready.result()
        self._cluster.network.join(peers)

    async def _live(self, process: Process, ready: asyncio.Future[tuple[Node, SimPeers]]) -> None:
        made: list[SimPeers] = []

        def peers(key: NodeKey, endpoints: Endpoints) -> SimPeers:
            made.append(self._cluster.network.attach(process, key.node, endpoints))
            return made[0]

        entropy = SimEntropy(hash((self._cluster.seed, self.number, self.boots)))
        world = World(self.files, self.clock, entropy, None, peers)
        config = config_for(self._cluster.copies, self._cluster.block_bytes)
        async with running_node(config, self.key, world, LOG_FILE_BYTES) as node:
            ready.set_result((node, made[0]))
            await self._stopping.wait()

    async def run(self, work: Callable[[Node], Awaitable[T]]) -> T:
        """What `work` gives, done inside the node's process. NodeDied when it is killed
        meanwhile or does not run."""
        node, process, ended = self.running, self.process, self._ended
        if node is None or process is None or ended is None:
            raise NodeDied

        async def inside() -> T:
            return await work(node)

        loop = self._cluster.loop
        # A context cannot be entered twice at once, but every task has a copy of its own.
        task = loop.create_task(inside(), context=process.context.copy())
        try:
            await _first(task, ended)
        except asyncio.CancelledError:
            if not process.dead:
                task.cancel()
            raise
        if task.done():
            return task.result()
        raise NodeDied

    async def stop(self) -> None:
        """A clean stop."""
        assert self._main is not None
        self._stopping.set()
        await self._main
        self._cluster.network.leave(self.id, silently=False)
        self._gone()

    def kill(self, *, power: bool, keep: float = 0.5) -> None:
        """End it at once. `power`: the machine's power is cut, so that of what was not synced
        each sector is kept with the chance `keep`, and no peer is told."""
        if self.process is None:
            return
        self.process.kill()
        self._cluster.network.leave(self.id, silently=power)
        if power:
            self.files = self.files.crash(self._cluster.random, keep)
        else:
            self.files = SimFiles(self.files.disk.copy(), self.files.capacity)
        self._gone()

    def _gone(self) -> None:
        self.process = self.running = self._main = None
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


class Cluster:
    """See the module. Nodes are named by their number."""

    def __init__(
        self,
        loop: SimLoop,
        seed: int,
        nodes: int = 3,
        copies: int = 3,
        *,
        spare: int = 0,
        weather: Weather | None = None,
        block_bytes: int = 4096,
    ) -> None:
        """`spare`: nodes more, without a role at first."""
        self.loop = loop
        self.seed = seed
        self.copies = copies
        self.block_bytes = block_bytes
        self.random = random.Random(f"cluster {seed}")
        self.network = SimNetwork(loop, weather or Weather())
        self.nodes = [SimNode(self, number) for number in range(nodes + spare)]
        self._laid_out = nodes

    # --- life

    async def start(self) -> None:
        """All nodes up, in a layout of all but the spare ones, connected."""
        for node in self.nodes:
            await node.start()
        await self.lay_out(range(self._laid_out))
        await self.until(self._all_connected)

    async def lay_out(self, numbers: Iterable[int]) -> None:
        """The first layout, known to every node."""
        history = layout_of(tuple(numbers), self.copies)
        for node in self.up():
            await node.run(functools.partial(_merge, history))

    async def spread_layout(self) -> None:
        """What one node knows of the layout all that are up know, and acknowledge."""
        for _ in range(2):
            known = functools.reduce(
                LayoutHistory.merge, [node.history for node in self._running()]
            )
            for node in self.up():
                await node.run(functools.partial(_merge, known))

    async def change_layout(self, by: int, chosen: Collection[int]) -> None:
        """A new layout of the chosen nodes, applied at one node; spreading is the nodes' matter."""

        async def edit(node: Node) -> None:
            history = node.layout.history
            wanted: dict[NodeId, Role | None] = dict.fromkeys(history.current.roles)
            wanted |= {key_of(n).node: Role(f"zone{n}", CAPACITY) for n in sorted(chosen)}
            await node.layout.stage(wanted)
            await node.layout.apply(history.current.number + 1)

        await self.nodes[by].run(edit)

    async def reconfigure(self, copies: int) -> None:
        """Another replication factor in every configuration file: takes a restart of each."""
        self.copies = copies
        for node in self.nodes:
            if node.is_up:
                await node.stop()
            if node.process is None:
                await node.start()

    def up(self) -> list[SimNode]:
        return [node for node in self.nodes if node.is_up]

    def _running(self) -> list[Any]:
        return [node.running.layout for node in self.nodes if node.running is not None]

    def _all_connected(self) -> bool:
        return all(
            node.running is not None
            and len(node.running.cluster.peers.connected()) == len(self.up()) - 1
            for node in self.up()
        )

    async def until(self, holds: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Wait for a state of the world; TimeoutError if it does not come."""
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.05)

    # --- what befalls the nodes

    def ids(self, numbers: Iterable[int]) -> list[NodeId]:
        return [self.nodes[number].id for number in numbers]

    def isolate(self, numbers: Sequence[int]) -> None:
        """A partition: these on one side, all others on the other."""
        inside = self.ids(numbers)
        self.network.isolate(inside, [node.id for node in self.nodes if node.id not in inside])

    def deafen(self, number: int) -> None:
        """A one-way partition: the node sends and hears nothing."""
        others = [node.id for node in self.nodes if node.number != number]
        self.network.cut(others, [self.nodes[number].id])

    def freeze(self, number: int) -> None:
        """SIGSTOP."""
        if self.nodes[number].is_up:
            self.network.freeze(self.nodes[number].id)

    def thaw(self) -> None:
        for node in self.nodes:
            if node.process is not None and node.process.frozen:
                node.process.thaw()

    def cut_power(self, keep: float = 0.5) -> None:
        """Of all nodes at once."""
        for node in self.nodes:
            node.kill(power=True, keep=keep)

    def empty(self, number: int) -> None:
        """The machine gets an empty disk and keeps its node's key, which its owner has saved."""
        self.nodes[number].files = SimFiles()

    def restore(self, number: int, older: SimFiles) -> None:
        """The machine gets its disk back as it was once."""
        self.nodes[number].files = SimFiles(older.disk.copy(), older.capacity)

    def add_node(self) -> SimNode:
        """Another machine, not started."""
        self.nodes.append(SimNode(self, len(self.nodes)))
        return self.nodes[-1]

    async def mend(self) -> None:
        """The end of all trouble: every link whole, every node up, every disk sound."""
        self.thaw()
        self.network.slowness.clear()
        self.network.weather = Weather()
        self.network.heal()
        for node in self.nodes:
            node.files.fail_if(None)
            if not node.is_up:
                await node.start()
        await self.until(self._all_connected)
