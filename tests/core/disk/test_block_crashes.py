"""The power cut at every moment of puts, deletions and moves: what was acknowledged stays."""

from __future__ import annotations

import errno
import random

import pytest

from garage_lite.core.errors import BlockCorrupt, DataDirError, DiskFull
from tests.core.block_world import CONTENTS, ONE, TWO, World, check, heard
from tests.core.blocks_on_disk import named
from tests.sim.loop import run

SEEDS = range(4)
STATES_MIN = 8_000 // len(SEEDS)


async def _every_state(seed: int) -> int:
    world = World.new(seed)
    await world.script()
    assert not world.refused
    states = 0
    for crash in world.files.crashes(seed, variants=14):
        try:
            await check(crash.files, crash.marks, seed)
        except Exception as error:
            raise AssertionError(f"after {crash.kind}: {error}") from error
        states += 1
    return states


@pytest.mark.parametrize("seed", SEEDS)
def test_a_power_cut_at_any_moment_loses_nothing_acknowledged(seed: int) -> None:
    assert run(_every_state(seed), seed) >= STATES_MIN


async def _goes_on_after(seed: int) -> int:
    """A node that comes back from a crash is a whole node: it runs the rest of its script."""
    world = World.new(seed)
    await world.script()
    chance = random.Random(seed)
    points = range(0, len(world.files.journal), 7)
    for point in points:
        files = world.files.crash(chance, 0.5, point)
        values, _ = heard(world.files.marks(point))
        back = World(files, World.new(seed).state, seed + 1)
        back.state.files, back.state.values = files, dict(values)
        await back.script()
        assert not back.refused
        await check(files.crash(chance, 0.0), back.files.marks(len(files.journal)), seed)
    return len(points)


def test_a_crashed_node_goes_on() -> None:
    assert run(_goes_on_after(5), 5) > 20


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("forever", [False, True])
def test_a_call_that_fails_is_never_acknowledged(error: int, forever: bool) -> None:
    """Each call in turn fails, once or from then on; then all that was not synced is lost."""

    async def one(nth: int) -> tuple[int, int]:
        world = World.new(nth)
        world.files.fail_nth(nth, error, forever=forever)
        try:
            await world.script()
        except DataDirError:
            world.refused += 1
        calls, world.files.calls = world.files.calls, 0
        world.files.fail_if(None)
        everything = world.files.marks(len(world.files.journal))
        for keep in (0.0, 1.0):
            await check(world.files.crash(random.Random(nth), keep), everything, nth)
        return calls, world.refused

    nth = tried = refused = 0
    while True:
        calls, refusals = run(one(nth), nth)
        if nth >= calls:
            break
        refused += refusals > 0
        tried += 1
        nth += 5 if forever else 2
    assert tried > 50
    # The others fail calls whose answer is found elsewhere too.
    assert refused > tried // 2


def test_errors_of_each_kind_of_call_keep_their_kind() -> None:
    async def one(call: str, error: int) -> str:
        world = World.new(1)
        store = await world.open(ONE)
        world.files.fail_nth(0, error, only=call)
        plain = CONTENTS[0]
        try:
            await store.put(named(plain), [plain], compress=True, verify=True)
        except Exception as failed:
            return type(failed).__name__
        return "stored"

    for call in ("write", "sync", "close", "rename", "sync_directory", "make_directory"):
        assert run(one(call, errno.EIO)) == "StorageFailed", call
        assert run(one(call, errno.ENOSPC)) == "DiskFull", call
        assert run(one(call, errno.EDQUOT)) == "DiskFull", call


def test_a_disk_that_fills_up_refuses_and_stays_whole() -> None:
    async def full(capacity: int) -> int:
        world = World.new(2, capacity)
        try:
            await world.script()
        except DataDirError:
            world.refused += 1
        everything = world.files.marks(len(world.files.journal))
        world.files.capacity = 1 << 40
        await check(world.files, everything, 2)
        return world.refused

    refusals = [run(full(capacity)) for capacity in range(0, 6000, 250)]
    assert refusals[0] and not refusals[-1]


def test_a_directory_whose_sync_failed_takes_no_more_blocks() -> None:
    async def scenario() -> None:
        world = World.new(3)
        store = await world.open(ONE)
        world.files.fail_nth(0, errno.EIO, only="sync_directory")
        await world.put(CONTENTS[0])
        world.files.fail_if(None)
        await world.put(CONTENTS[1])
        # Also not the block whose file is there: its name may not be durable.
        await world.put(CONTENTS[0])
        assert world.refused == 3
        assert await store.get(named(CONTENTS[0])) == CONTENTS[0]
        (status,) = store.status()[0]
        assert status.failed
        await world.open(ONE)
        await world.put(CONTENTS[1])
        assert world.refused == 3

    run(scenario())


def test_another_disk_takes_over_from_a_failing_one() -> None:
    async def scenario() -> None:
        world = World.new(4)
        await world.open(TWO)
        bad = "/two"

        def fault(call: str, path: str) -> int:
            return errno.EIO if call == "sync_directory" and path.startswith(bad) else 0

        world.files.fail_if(fault)
        for _ in range(2):
            for plain in CONTENTS:
                await world.put(plain)
        assert world.refused == 1
        world.files.fail_if(None)
        lost = world.files.crash(random.Random(1), 0.0)
        await check(lost, world.files.marks(len(world.files.journal)), 4)

    run(scenario())


def test_rot_anywhere_is_never_served() -> None:
    async def scenario() -> int:
        world = World.new(6)
        store = await world.open(ONE)
        plain = CONTENTS[6]
        block = named(plain)
        await world.put(plain)
        (path,) = (path for path in world.files.paths() if block.hex() in path)
        caught = 0
        for byte in range(len(world.files.disk.file(path).content)):
            world.files.rot(path, byte, byte % 8)
            try:
                assert await store.get(block) == plain
                world.files.rot(path, byte, byte % 8)
            except BlockCorrupt:
                caught += 1
                assert path not in world.files.paths()
                await world.put(plain)
        assert not world.refused
        return caught

    assert run(scenario()) > 20


def test_a_full_disk_is_refused_by_its_reserve_before_it_fails() -> None:
    async def scenario() -> None:
        world = World.new(7, capacity=10_000)
        store = await world.open(ONE)
        store.directories[0].reserve_bytes = 9_000
        await world.put(CONTENTS[0])
        assert not world.refused
        with pytest.raises(DiskFull):
            await store.put(named(CONTENTS[1]), [CONTENTS[1]], compress=False, verify=False)
        await world.delete(CONTENTS[0])
        assert not world.refused

    run(scenario())


def test_without_fsync_nothing_is_synced_and_everything_works() -> None:
    async def scenario() -> None:
        world = World.new(8)
        store = await world.open(ONE, fsync=False)
        world.files.fail_if(lambda call, _: errno.EIO if call.startswith("sync") else 0)
        await world.put(CONTENTS[0])
        await world.put(CONTENTS[0])
        await world.put(CONTENTS[6])
        await world.delete(CONTENTS[6])
        assert not world.refused
        assert await store.get(named(CONTENTS[0])) == CONTENTS[0]

    run(scenario())
