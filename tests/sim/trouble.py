"""What befalls a cluster while clients work: drawn by the seed, one trouble after another.

Whatever is done leaves a majority of every partition's replicas with what they acknowledged:
machines lose power and what they had not synced, but at most one loses its disk, or comes back
with an older one, and only once what it held is elsewhere.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from garage_lite.core.errors import GarageLiteError
from tests.sim.cluster import Cluster, NodeDied
from tests.sim.network import Weather

DAY_US: Final = 86_400_000_000

Trouble = Callable[["Troublemaker"], Coroutine[Any, Any, None]]


def weather(seed: int, *, fair: bool) -> Weather:
    """Of a run: mostly fair, sometimes foul."""
    chance = random.Random(f"weather {seed}")
    foul = chance.random() < 0.4 and not fair
    return Weather(
        delay=chance.choice((0.0005, 0.01, 0.1)),
        jitter=chance.choice((0.0005, 0.01, 0.1)),
        retransmission=0.02 if foul else 0.0,
        slow_call=chance.choice((0.0, 0.05)) if foul else 0.0,
        slow_seconds=chance.choice((0.5, 4.0)),
        lost_call=chance.choice((0.0, 0.03)) if foul else 0.0,
        patience=chance.choice((2.0, 8.0)),
    )


@dataclass
class Troublemaker:
    """Makes trouble until it is `enough`."""

    cluster: Cluster
    random: random.Random
    troubles: Sequence[Trouble]
    pause: tuple[float, float] = (0.05, 1.5)
    enough: bool = False
    has_lost: bool = False
    """Whether a disk was lost already."""
    made: list[str] = field(default_factory=list)

    async def work(self) -> None:
        while not self.enough:
            await asyncio.sleep(self.random.uniform(*self.pause))
            trouble = self.random.choice(self.troubles)
            self.made.append(f"{self.cluster.loop.time():.3f} {trouble.__name__}")
            await trouble(self)

    def some(self) -> int:
        return self.random.randrange(len(self.cluster.nodes))

    async def last(self) -> None:
        """How long a trouble lasts: often shorter than a deadline, sometimes longer."""
        await asyncio.sleep(self.random.choice((0.05, 0.5, 3.0, 12.0)) * self.random.random())


async def partition(maker: Troublemaker) -> None:
    numbers = list(range(len(maker.cluster.nodes)))
    maker.random.shuffle(numbers)
    maker.cluster.isolate(numbers[: maker.random.randint(1, max(1, len(numbers) - 1))])
    await maker.last()
    maker.cluster.network.heal()


async def one_way(maker: Troublemaker) -> None:
    node, others = maker.some(), list(range(len(maker.cluster.nodes)))
    others.remove(node)
    sides = [maker.cluster.ids([node]), maker.cluster.ids(others)]
    maker.random.shuffle(sides)
    maker.cluster.network.cut(*sides)
    await maker.last()
    maker.cluster.network.heal()


async def broken_links(maker: Troublemaker) -> None:
    for _ in range(maker.random.randint(1, 4)):
        one, other = maker.cluster.ids(maker.random.sample(range(len(maker.cluster.nodes)), 2))
        maker.cluster.network.drop(one, other)


async def frozen(maker: Troublemaker) -> None:
    maker.cluster.freeze(maker.some())
    await maker.last()
    maker.cluster.thaw()


async def slow_node(maker: Troublemaker) -> None:
    node = maker.cluster.nodes[maker.some()].id
    maker.cluster.network.slowness[node] = maker.random.choice((0.1, 1.0, 5.0))
    await maker.last()
    maker.cluster.network.slowness.clear()


async def killed(maker: Troublemaker) -> None:
    node = maker.cluster.nodes[maker.some()]
    node.kill(power=maker.random.random() < 0.6, keep=maker.random.choice((0.0, 0.5, 1.0)))
    await maker.last()
    await node.start()


async def power_cut(maker: Troublemaker) -> None:
    """Of all at once; they come back one by one."""
    maker.cluster.cut_power(maker.random.choice((0.0, 0.5, 1.0)))
    for number in maker.random.sample(range(len(maker.cluster.nodes)), len(maker.cluster.nodes)):
        await asyncio.sleep(maker.random.uniform(0, 2))
        await maker.cluster.nodes[number].start()


async def restarted(maker: Troublemaker) -> None:
    node = maker.cluster.nodes[maker.some()]
    if node.is_up and node.process is not None and not node.process.frozen:
        await node.stop()
        await maker.last()
        await node.start()


async def clock_jump(maker: Troublemaker) -> None:
    """By milliseconds to seconds; of one node."""
    clock = maker.cluster.nodes[maker.some()].clock
    clock.skew_us += int(maker.random.choice((1e3, 1e5, 3e6, 6e7)) * maker.random.uniform(-1, 1))


async def clock_leap(maker: Troublemaker) -> None:
    """By a day, of one node, and back."""
    clock = maker.cluster.nodes[maker.some()].clock
    before = clock.skew_us
    clock.skew_us += maker.random.choice((-DAY_US, DAY_US))
    await maker.last()
    clock.skew_us = before


async def full_disk(maker: Troublemaker) -> None:
    files = maker.cluster.nodes[maker.some()].files

    def fault(call: str, path: str) -> int:
        return errno.ENOSPC if call == "write" and "/data/" in path else 0

    files.fail_if(fault)
    await maker.last()
    files.fail_if(None)


async def failing_disk(maker: Troublemaker) -> None:
    """One call fails; the node whose log it was stops itself, and is started again."""
    node = maker.cluster.nodes[maker.some()]
    node.files.fail_nth(maker.random.randrange(30), errno.EIO, only="write")
    await maker.last()
    node.files.fail_if(None)
    node.kill(power=False)
    await maker.last()
    await node.start()


async def emptied(maker: Troublemaker) -> None:
    """A machine loses its disk: one of the cluster's, once."""
    if maker.has_lost:
        return
    maker.has_lost = True
    node = maker.cluster.nodes[maker.some()]
    node.kill(power=True)
    maker.cluster.empty(node.number)
    await maker.last()
    await node.start()


async def restored(maker: Troublemaker) -> None:
    """A machine gets its disk back as it was a while ago: one of the cluster's, once."""
    if maker.has_lost:
        return
    maker.has_lost = True
    node = maker.cluster.nodes[maker.some()]
    older = node.files.crash(maker.random, 1.0)
    await maker.last()
    node.kill(power=True)
    maker.cluster.restore(node.number, older)
    await node.start()


async def rotten_block(maker: Troublemaker) -> None:
    """One bit of one block file flips, on one node."""
    files = maker.cluster.nodes[0].files
    paths = [path for path in files.paths() if "/data/" in path and files.file_size(path)]
    blocks = [path for path in paths if len(path.rsplit("/", 1)[1]) >= 64]
    if blocks:
        path = maker.random.choice(blocks)
        files.rot(path, maker.random.randrange(files.file_size(path)))


async def new_layout(maker: Troublemaker) -> None:
    """Nodes get a role or lose theirs, as many staying as there are copies to keep."""
    cluster = maker.cluster
    numbers = list(range(len(cluster.nodes)))
    chosen = set(maker.random.sample(numbers, maker.random.randint(cluster.copies, len(numbers))))
    try:
        await cluster.change_layout(maker.some(), chosen)
    except (GarageLiteError, NodeDied) as error:
        maker.made.append(f"refused: {error}")


async def one_copy_more(maker: Troublemaker) -> None:
    """The replication factor grows: in every configuration, then in the layout."""
    if maker.cluster.copies < 3:
        await maker.cluster.reconfigure(maker.cluster.copies + 1)
        await new_layout(maker)


NETWORK: Final = (partition, one_way, broken_links, frozen, slow_node)
MACHINES: Final = (killed, killed, power_cut, restarted, failing_disk, full_disk)
CLOCKS: Final = (clock_jump, clock_leap)
LOSSES: Final = (emptied, restored, rotten_block)
LAYOUTS: Final = (new_layout, new_layout, one_copy_more)
ALL: Final = (*NETWORK, *NETWORK, *MACHINES, *CLOCKS)
