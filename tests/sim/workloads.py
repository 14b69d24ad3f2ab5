"""What clients do to a simulated cluster, and what must be true of it. By name in WORKLOADS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from garage_lite.core.errors import GarageLiteError
from tests.sim import trouble
from tests.sim.checkers import (
    both_ended,
    not_linearizable,
    stale_reads,
    used_after_revocation,
    wrong_listings,
)
from tests.sim.clients import Client
from tests.sim.history import Kind, Outcome
from tests.sim.rest import at_rest
from tests.sim.simulation import Run, Workload

PROMPT_SECONDS: Final = 4.0
OPERATIONS: Final = 10
"""Of each client in a run."""
CLIENTS: Final = 3


def linearizable(run: Run) -> Sequence[str]:
    return not_linearizable(run.journal.operations)


def regular(run: Run) -> Sequence[str]:
    return stale_reads(run.journal.operations)


def listed(run: Run) -> Sequence[str]:
    return wrong_listings(run.journal.operations)


async def pause(client: Client) -> None:
    """Between two operations: none, or longer than a call takes."""
    await asyncio.sleep(client.random.choice((0, 0.01, 0.3)) * client.random.random())


async def each(
    run: Run, step: Callable[[Client], Awaitable[object]], count: int = OPERATIONS
) -> None:
    """Clients that each take `count` steps."""

    async def work(client: Client) -> None:
        for _ in range(count):
            await step(client)
            await pause(client)

    await run.together(*(work(run.client(f"client {n}")) for n in range(CLIENTS)))


async def look(run: Run) -> None:
    """At the end every node is asked for all that was ever written, and for all there is."""
    client = run.client("at rest")
    keys = sorted({op.key for op in run.journal.operations if op.key})
    for node in run.cluster.nodes:
        for key in keys:
            await client.get(key, node)
        await client.listing(node)


# --- one object


def keys_of(run: Run, count: int = 2) -> list[str]:
    return [f"key {number}" for number in range(count)]


async def registers(run: Run) -> None:
    keys = keys_of(run)

    async def step(client: Client) -> None:
        key = client.random.choice(keys)
        match client.random.randrange(6):
            case 0 | 1:
                await client.put(key)
            case 2:
                await client.delete(key)
            case _:
                await client.get(key)

    await each(run, step)


async def conditional(run: Run, blind: bool = False) -> None:
    """Creations and swaps; `blind`: beside plain writes of the same keys."""
    keys = keys_of(run)

    async def step(client: Client) -> None:
        key = client.random.choice(keys)
        known = (await client.get(key)).found
        match client.random.randrange(6 if blind else 4):
            case 0 | 1:
                await (client.create(key) if known is None else client.swap(key, known))
            case 2:
                await (client.create(key) if known is None else client.delete_if(key, known))
            case 3:
                await client.create(key)
            case 4:
                await client.put(key)
            case _:
                await client.delete(key)

    await each(run, step, OPERATIONS // 2)


async def beside_blind(run: Run) -> None:
    await conditional(run, blind=True)


async def racers(run: Run) -> None:
    """Many ask at once that nothing be there."""
    names = [f"key {number}" for number in range(3)]

    async def race(client: Client) -> None:
        for name in names:
            await client.create(name)

    await run.together(*(race(run.client(f"racer {number}")) for number in range(6)))


# --- many keys


async def sets(run: Run) -> None:
    """Keys come and go, each in its own time; all pages are listed meanwhile."""

    async def step(client: Client) -> None:
        mine = [op.key for op in run.journal.operations if op.client == client.name and op.key]
        match client.random.randrange(5):
            case 0 | 1:
                await client.put(f"{client.random.randrange(100):02}-{client.name}")
            case 2 if mine:
                await client.delete(client.random.choice(mine))
            case 3 if mine:
                await client.delete_many(sorted(set(mine))[:5])
            case _:
                await client.listing()

    await each(run, step)


async def copies(run: Run) -> None:
    """Copies whose source is overwritten and deleted meanwhile."""
    sources = keys_of(run)

    async def step(client: Client) -> None:
        source = client.random.choice(sources)
        match client.random.randrange(6):
            case 0 | 1:
                await client.put(source)
            case 2:
                await client.delete(source)
            case 3 | 4:
                await client.copy(source, f"copy {client.random.randrange(2)}")
            case _:
                await client.get(f"copy {client.random.randrange(2)}")

    await each(run, step)


async def copies_onto_self(run: Run) -> None:
    keys = keys_of(run)

    async def step(client: Client) -> None:
        key = client.random.choice(keys)
        match client.random.randrange(4):
            case 0:
                await client.put(key)
            case 1:
                await client.copy(key, key)
            case _:
                await client.get(key)

    await each(run, step)


async def deduplicated(run: Run) -> None:
    """Few contents under many keys: what one key drops another still needs."""
    values = [run.journal.value() for _ in range(6)]
    values = [value for value in values if value % 6 >= 3]  # the ones with blocks

    async def step(client: Client) -> None:
        key = f"key {client.random.randrange(5)}"
        match client.random.randrange(5):
            case 0 | 1:
                await client.put(key, client.random.choice(values))
            case 2:
                await client.delete(key)
            case _:
                await client.get(key)

    await each(run, step)


# --- uploads


async def uploads(run: Run) -> None:
    """Aborts race completions, at different nodes."""
    completions: dict[str, Outcome] = {}
    aborts: dict[str, Outcome] = {}

    async def step(client: Client) -> None:
        key = client.random.choice(keys_of(run))
        value = run.journal.value()
        begun = await client.begin_upload(key, value)
        if begun is None:
            return
        upload, etag = begun

        async def complete() -> None:
            await pause(client)
            operation = await client.complete(key, upload, etag, value)
            completions[upload.hex()] = operation.outcome

        async def abort() -> None:
            await pause(client)
            aborts[upload.hex()] = await client.abort(key, upload)

        match client.random.randrange(4):
            case 0:
                await complete()
            case 1:
                await abort()
            case _:
                await run.together(complete(), abort())
        await client.get(key)

    await each(run, step, 4)
    run.wrong += both_ended(completions, aborts)


# --- troubles of their own


async def overwrite_without_quorum(run: Run) -> None:
    """A node alone takes overwrites that can't be acknowledged; what was there stays."""
    keys = keys_of(run)
    first = run.client("first")
    for key in keys:
        await first.put(key)

    async def alone(client: Client) -> None:
        for _ in range(3):
            run.cluster.isolate([0])
            key = client.random.choice(keys)
            write = client.put(key) if client.random.random() < 0.7 else client.delete(key)
            await write
            run.cluster.network.heal()
            await asyncio.sleep(client.random.choice((0, 1.0)))
            await client.get(key)

    async def others(client: Client) -> None:
        for _ in range(6):
            key = client.random.choice(keys)
            await (client.put(key) if client.random.random() < 0.3 else client.get(key))
            await asyncio.sleep(client.random.uniform(0, 8))

    await run.together(
        alone(run.client("alone", 0)), others(run.client("other 1", 1)), others(run.client("2", 2))
    )


async def one_silent(run: Run) -> None:
    """One node of three is frozen, cut off or dead from the beginning; nobody asks it."""
    silent = run.random.randrange(len(run.cluster.nodes))
    match run.random.randrange(3):
        case 0:
            run.cluster.freeze(silent)
        case 1:
            run.cluster.isolate([silent])
        case _:
            run.cluster.nodes[silent].kill(power=run.random.random() < 0.5)
    others = [node.number for node in run.cluster.nodes if node.number != silent]
    keys = keys_of(run, 6)

    async def work(client: Client) -> None:
        for _ in range(OPERATIONS):
            key = client.random.choice(keys)
            match client.random.randrange(6):
                case 0 | 1:
                    await client.put(key)
                case 2:
                    await client.delete(key)
                case 3:
                    await client.listing()
                case _:
                    await client.get(key)

    await run.together(*(work(run.client(f"client {n}", n)) for n in others))


def prompt(run: Run) -> Sequence[str]:
    """Every operation ended well, and none took longer than a hedged phase or two may."""
    slow = [op for op in run.journal.operations if op.end - op.begin > PROMPT_SECONDS]
    return [*unhurt(run), *(f"took too long: {op}" for op in slow)]


async def two_layouts(run: Run) -> None:
    """Two operators apply different layouts at once: one of them becomes the next version."""
    spare = len(run.cluster.nodes) - 1

    async def apply(by: int, chosen: list[int]) -> None:
        try:
            await run.cluster.change_layout(by, chosen)
        except GarageLiteError as error:
            run.seen.append(f"refused at {by}: {error}")

    numbers = list(range(spare))
    await run.together(apply(0, [*numbers[1:], spare]), apply(1, [*numbers[:-1], spare]))
    await asyncio.sleep(30)
    histories = [node.running.layout.history for node in run.cluster.up() if node.running]
    for one in histories:
        for other in histories:
            run.wrong += [f"version {number} has two contents" for number in one.forks(other)]


async def revocations(run: Run) -> None:
    """Access keys get rights and lose them, while every node is asked what they may do."""
    revoked: dict[str, float] = {}
    uses: list[tuple[str, float]] = []
    now = run.cluster.loop.time
    over = asyncio.Event()

    async def operate(client: Client, number: int) -> None:
        key = await client.make_key(f"key {number}")
        if key is None or await client.allow(key) is not Outcome.OK:
            return
        await asyncio.sleep(client.random.uniform(0, 3))
        if await client.revoke(key) is Outcome.OK:
            revoked[key] = now()
        await asyncio.sleep(client.random.uniform(0, 3))

    async def use(client: Client) -> None:
        while not over.is_set():
            begin = now()
            uses.extend((key, begin) for key in await client.usable_keys())
            await asyncio.sleep(client.random.uniform(0, 0.3))

    async def operators() -> None:
        await run.together(*(operate(run.client(f"operator {n}"), n) for n in range(3)))
        over.set()

    await run.together(operators(), *(use(run.client(f"user {n}", n)) for n in range(3)))
    run.wrong += used_after_revocation(revoked, uses)


def unhurt(run: Run) -> Sequence[str]:
    """No operation of a run without trouble may fail."""
    failed = [
        op
        for op in run.journal.operations
        if op.outcome is Outcome.UNKNOWN or (op.outcome is Outcome.FAILED and op.kind is Kind.GET)
    ]
    return [f"without any trouble: {op}" for op in failed]


WORKLOADS: Final[dict[str, Workload]] = {
    "calm": Workload(registers, (linearizable, unhurt), (), look, seeds=60),
    "registers": Workload(registers, (linearizable,), trouble.ALL, look, seeds=260),
    "sets": Workload(sets, (listed, regular), trouble.ALL, look, seeds=200),
    "copies": Workload(copies, (regular, listed), trouble.ALL, look, seeds=140),
    "copies onto self": Workload(copies_onto_self, (regular,), trouble.ALL, look, seeds=140),
    "deduplicated": Workload(deduplicated, (regular,), trouble.ALL, look, seeds=120),
    "uploads": Workload(uploads, (regular, listed), trouble.ALL, look, seeds=40),
    "overwrite without quorum": Workload(
        overwrite_without_quorum, (linearizable,), (), look, nodes=(3,), seeds=160
    ),
    "racers": Workload(racers, (linearizable,), trouble.ALL, look, seeds=120),
    "conditional": Workload(conditional, (linearizable,), trouble.ALL, look, seeds=200),
    "beside blind": Workload(beside_blind, (linearizable,), trouble.ALL, look, seeds=220),
    "one silent": Workload(one_silent, (regular, prompt), (), nodes=(3,), seeds=240),
    "two layouts": Workload(two_layouts, (), (), spare=1, seeds=10),
    "revocations": Workload(revocations, (), (*trouble.NETWORK, *trouble.MACHINES), seeds=60),
    "revocations across layouts": Workload(
        revocations, (), (*trouble.LAYOUTS * 3, *trouble.NETWORK), spare=2, seeds=20
    ),
    "lost disks": Workload(
        registers, (linearizable,), (*trouble.ALL, *trouble.LOSSES * 3), look, nodes=(3,), seeds=160
    ),
    "layouts": Workload(
        registers, (linearizable,), (*trouble.LAYOUTS * 3, *trouble.ALL), look, spare=2, seeds=40
    ),
    "layouts of sets": Workload(
        sets, (listed, regular), (*trouble.LAYOUTS * 3, *trouble.NETWORK), look, spare=2, seeds=20
    ),
    "from one copy to three": Workload(
        registers,
        (regular,),
        (*trouble.LAYOUTS * 3, *trouble.NETWORK),
        look,
        copies=(1, 2),
        seeds=40,
    ),
    "uploads at rest": Workload(uploads, (regular, listed), trouble.ALL, at_rest, seeds=6),
    "deduplicated at rest": Workload(deduplicated, (regular,), trouble.ALL, at_rest, seeds=8),
    "sets at rest": Workload(sets, (regular, listed), trouble.ALL, at_rest, seeds=8),
}
