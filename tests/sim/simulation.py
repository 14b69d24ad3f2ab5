"""One run of one workload by one seed: a cluster, its clients, trouble, and the checks after it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from garage_lite.core.model.buckets import Bucket
from garage_lite.node import Node
from tests.sim import trouble
from tests.sim.clients import Client, Journal, WrongContent
from tests.sim.cluster import Cluster
from tests.sim.history import printed
from tests.sim.loop import SimLoop, run
from tests.sim.trouble import Trouble, Troublemaker

BUCKET: Final = "photos"


class Violation(AssertionError):
    """A promise of the cluster was broken."""


@dataclass
class Run:
    """What a workload works with."""

    cluster: Cluster
    bucket: Bucket
    journal: Journal
    random: random.Random
    wrong: list[str] = field(default_factory=list)
    """What the workload itself found broken."""
    seen: list[str] = field(default_factory=list)
    """What is worth telling in the story of a run."""

    def client(self, name: str, home: int | None = None) -> Client:
        return Client(name, self.cluster, self.bucket, self.journal, home)

    async def together(self, *works: Awaitable[None]) -> None:
        """All at once; what one raises is raised."""
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


@dataclass(frozen=True)
class Workload:
    """What clients do (`drive`), what befalls the nodes meanwhile, and what must hold."""

    drive: Callable[[Run], Awaitable[None]]
    checks: Sequence[Callable[[Run], Sequence[str]]]
    troubles: Sequence[Trouble] = trouble.ALL
    rest: Callable[[Run], Awaitable[None]] | None = None
    """After the last trouble; writes what is broken into `run.wrong`."""
    nodes: tuple[int, ...] = (3, 3, 3, 3, 4, 5)
    copies: tuple[int, ...] = (3,)
    spare: int = 0
    """Nodes without a role at first."""
    calm: float = 0.2
    """Chance of a run without any trouble."""
    seeds: int = 200
    """How many run in CI."""


async def _begin(workload: Workload, seed: int, loop: SimLoop) -> Run:
    chance = random.Random(f"world {seed}")
    nodes, copies = chance.choice(workload.nodes), chance.choice(workload.copies)
    cluster = Cluster(loop, seed, max(nodes, copies), copies, spare=workload.spare)
    for node in cluster.nodes:
        node.clock.skew_us = int(chance.choice((0, 0, 1e3, 1e5, 5e6)) * chance.uniform(-1, 1))
    await cluster.start()

    async def create(node: Node) -> None:
        await node.buckets.create(global_alias=BUCKET)

    await cluster.nodes[0].run(create)
    bucket = _bucket(cluster.nodes[0].running)
    assert bucket is not None
    holders = cluster.nodes[: max(nodes, copies)]
    await cluster.until(lambda: all(_bucket(node.running) == bucket for node in holders))
    cluster.network.weather = trouble.weather(seed, fair=not workload.troubles)
    return Run(cluster, bucket, Journal(), chance)


def _bucket(node: Node | None) -> Bucket | None:
    names = {} if node is None else {b.id: b for b in node.directory.buckets()}
    return next(iter(names.values()), None)


async def _work(workload: Workload, seed: int, runs: list[tuple[Run, Troublemaker]]) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    run = await _begin(workload, seed, loop)
    maker = Troublemaker(run.cluster, random.Random(f"trouble {seed}"), workload.troubles)
    runs.append((run, maker))
    calm = run.random.random() < workload.calm or not workload.troubles
    making = None if calm else asyncio.create_task(maker.work())
    driving = asyncio.ensure_future(workload.drive(run))
    try:
        waits = [driving] if making is None else [driving, making]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if making is not None and making.done():
            making.result()
        await driving
        maker.enough = True
        if making is not None:
            await making
    finally:
        driving.cancel()
    await run.cluster.mend()
    if workload.rest is not None:
        await workload.rest(run)


def simulate(workload: Workload, seed: int) -> None:
    """Raises Violation, with the history, or whatever broke in the nodes themselves."""
    runs: list[tuple[Run, Troublemaker]] = []
    try:
        run(_work(workload, seed, runs), seed)
    except (WrongContent, TimeoutError) as error:
        raise Violation(f"{error!r}\n{_story(runs)}") from error
    made, _ = runs[0]
    wrong = [*made.wrong, *(line for check in workload.checks for line in check(made))]
    wrong += [str(op) for op in made.journal.operations if "NotImplemented" in op.note]
    if wrong:
        raise Violation("\n".join([*wrong, _story(runs)]))


def _story(runs: list[tuple[Run, Troublemaker]]) -> str:
    if not runs:
        return "it never began"
    run, maker = runs[0]
    told = ["troubles:", *maker.made, *run.seen, "all operations:"]
    return "\n".join([*told, printed(run.journal.operations)])
