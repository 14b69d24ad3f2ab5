"""The power is cut after every single operation of a run, in several ways each.

What must hold of every state: the store opens; every acknowledged record is there; what else is
there is a whole number of further records, in order (no record without those before it); it can
be written to and opened once more. The run flushes, merges, recycles log files, drops ranges,
takes snapshots and restores one.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from garage_lite.core.disk.metadata_snapshot import restore_snapshot
from tests.core.disk.metadata_world import (
    DIRECTORY,
    Model,
    Rows,
    apply,
    drop,
    everything,
    open_store,
)
from tests.sim.files import Crash, SimFiles
from tests.sim.loop import run

Step = tuple[str, Rows]
"""("rows", rows) or ("drop", [(start, end)])."""

STATES_MIN = 12_000


def random_key(chance: random.Random) -> bytes:
    return bytes((chance.choice((0x10, 0x20)), 0)) + b"key-%03d" % chance.randrange(150) + b"tail"


def random_rows(chance: random.Random) -> Rows:
    rows: Rows = []
    for _ in range(chance.randrange(1, 6)):
        value = None if chance.random() < 0.3 else chance.randbytes(chance.randrange(60))
        rows.append((random_key(chance), value))
    if chance.random() < 0.05:
        rows.append((random_key(chance), chance.randbytes(9000)))
    return rows


async def workload(files: SimFiles, chance: random.Random, steps: list[Step], count: int) -> None:
    """Write `count` records, some together; marks the number of records acknowledged."""
    store = await open_store(files)
    acknowledged = 0
    waiting: list[asyncio.Future[None]] = []
    for number in range(count):
        await store.room()
        if chance.random() < 0.03:
            start, end = sorted((random_key(chance), random_key(chance)))
            steps.append(("drop", [(start, end)]))
            waiting.append(store.drop_range(start, end))
        else:
            rows = random_rows(chance)
            steps.append(("rows", rows))
            waiting.append(store.commit(rows))
        if chance.random() < 0.4:
            await asyncio.gather(*waiting)
            waiting = []
            acknowledged = number + 1
            files.mark(acknowledged)
        if number == count // 2:
            await asyncio.gather(*waiting)
            waiting = []
            await store.snapshot("half")
            files.mark(("snapshot", number + 1))
    await asyncio.gather(*waiting)
    files.mark(count)
    await store.close()


def histories(steps: list[Step]) -> list[Model]:
    """The model after 0, 1, 2, ... steps."""
    model: Model = {}
    states = [dict(model)]
    for kind, rows in steps:
        if kind == "drop":
            drop(model, rows[0][0], rows[0][1] or b"")
        else:
            apply(model, rows)
        states.append(dict(model))
    return states


async def check_crash(crash: Crash, states: list[Model]) -> None:
    least = max([mark for mark in crash.marks if isinstance(mark, int)], default=0)
    store = await open_store(crash.files)
    found = everything(store)
    status = store.status()
    assert not status.damage, (crash.kind, status.damage)
    assert found in states[least:], f"{crash.kind}: not a state at or after record {least}"
    assert status.sequence >= least, crash.kind
    if crash.point % 7 == 0:
        await store.commit([(b"\x20\x00after", b"1")])
        await store.close()
        again = await open_store(crash.files.crash(random.Random(crash.point), 0.0))
        assert everything(again) == {**found, b"\x20\x00after": b"1"}, crash.kind
        await again.close()
    snapshots = [mark for mark in crash.marks if isinstance(mark, tuple)]
    if snapshots and crash.point % 11 == 0:
        restore_snapshot(crash.files, f"{DIRECTORY}/snapshots/half", "/var/restored", b"r" * 16)
        restored = await open_store(crash.files, directory="/var/restored")
        assert everything(restored) == states[snapshots[0][1]], crash.kind
        assert restored.status().store_id == b"r" * 16
        await restored.close()
    await store.close()


def crash_states(seed: int, count: int, variants: int) -> int:
    """Run, cut everywhere, check; returns how many states were checked."""
    files = SimFiles()
    steps: list[Step] = []
    run(workload(files, random.Random(seed), steps, count), seed)
    states = histories(steps)

    async def check_all() -> int:
        checked = 0
        for crash in files.crashes(seed, variants):
            await check_crash(crash, states)
            checked += 1
        return checked

    return run(check_all(), seed)


@pytest.mark.parametrize("seed", range(6))
def test_every_crash_keeps_what_was_acknowledged(seed: int) -> None:
    assert crash_states(seed, 120, 4) >= STATES_MIN // 6
