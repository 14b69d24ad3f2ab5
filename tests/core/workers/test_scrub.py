"""Scrub on a simulated node: finds rot and orphans, keeps its place, obeys."""

from __future__ import annotations

import asyncio
import errno

import pytest

from garage_lite.core.block.scrub import DAY_US, Phase
from garage_lite.core.errors import NotAllowedHere
from garage_lite.core.workers.runner import State, WorkerRunner
from garage_lite.core.workers.scrub import ScrubWorker
from tests.core.blocks_on_disk import named, noise
from tests.core.workers.block_node import Node
from tests.sim.loop import run

FILES = 12
TWO = {"/data": 1, "/more": 1}


async def filled(directories: dict[str, int] | None = None) -> Node:
    node = await Node.open(directories=directories)
    for number in range(FILES):
        await node.put(noise(number, 40), number)
    return node


def scrub_of(node: Node, enabled: bool = True) -> ScrubWorker:
    return ScrubWorker(node.store, node.state, node.variables, enabled)


async def steps(scrub: ScrubWorker, most: int = 10**6) -> int:
    """Let it work until it is idle; how many files it read."""
    files = 0
    for _ in range(most):
        step = await scrub.work()
        files += step.state is State.THROTTLED
        if step.state is State.IDLE:
            break
    return files


def test_a_run_reads_every_file_and_plans_the_next() -> None:
    async def scenario() -> None:
        node = await filled(TWO)
        scrub = scrub_of(node)
        assert await steps(scrub) == 0
        assert 25 * DAY_US <= scrub.state.due_us - node.clock.now_us() < 35 * DAY_US
        await scrub.command("start")
        assert await steps(scrub) == FILES
        state = scrub_of(node).state
        assert state == scrub.state
        assert state.phase is Phase.WAITING and state.completed_us and not state.corruptions
        assert scrub.progress().progress is None
        await node.close()

    run(scenario())


def test_a_restart_does_not_put_the_run_off() -> None:
    async def scenario() -> None:
        node = await filled()
        await steps(scrub_of(node))
        due_us = scrub_of(node).state.due_us
        await asyncio.sleep(20 * 86_400)
        assert scrub_of(node).state.due_us == due_us
        await asyncio.sleep(15 * 86_400)
        assert await steps(scrub_of(node)) == FILES

    run(scenario())


def test_rot_is_set_aside_counted_and_healed() -> None:
    async def scenario() -> None:
        node = await filled()
        for number in (3, 5):
            block = named(noise(number, 40))
            (path,) = (path for path in node.disk.paths() if block.hex() in path)
            node.disk.rot(path, 7)
            node.peer[block] = noise(number, 40)
        scrub = scrub_of(node)
        await scrub.command("start")
        assert await steps(scrub) == FILES
        assert scrub.state.corruptions == 2
        assert "2 corrupted" in scrub.progress().freeform[0]
        await node.drain()
        for number in range(FILES):
            assert await node.store.files.get(named(noise(number, 40))) == noise(number, 40)
        await scrub.command("start")
        await steps(scrub)
        assert scrub.state.corruptions == 2
        assert not [path for path in node.disk.paths() if path.endswith(".corrupted")]
        assert node.entries() == 0

    run(scenario())


def test_orphans_are_found_and_go_after_the_delay() -> None:
    async def scenario() -> None:
        node = await filled()
        orphan = await node.orphan(b"nobody's")
        dying = await node.put(b"dying", 99)
        await node.forget(dying, 99)
        entries = node.entries()
        scrub = scrub_of(node)
        await scrub.command("start")
        await steps(scrub)
        assert node.entries() == entries + 2
        await node.drain()
        assert node.store.files.has(orphan)
        await node.settle()
        assert not node.store.files.has(orphan) and not node.store.files.has(dying)
        assert node.store.files.has(named(noise(0, 40)))

    run(scenario())


def test_a_bad_file_that_nobody_misses_is_dropped() -> None:
    async def scenario() -> None:
        node = await Node.open()
        orphan = await node.orphan(b"nobody's")
        (path,) = (path for path in node.disk.paths() if orphan.hex() in path)
        node.disk.rot(path, 0)
        scrub = scrub_of(node)
        for _ in range(2):
            await scrub.command("start")
            await steps(scrub)
            await node.settle()
        assert not [path for path in node.disk.paths() if orphan.hex() in path]

    run(scenario())


def test_it_goes_on_where_it_was_after_a_restart() -> None:
    async def scenario() -> None:
        node = await filled(TWO)
        scrub = scrub_of(node)
        await scrub.command("start")
        read = 0
        while read < FILES // 2:
            read += (await scrub.work()).state is State.THROTTLED
        await scrub.command("pause")
        assert await steps(scrub) == 0
        again = scrub_of(node)
        assert again.state.phase is Phase.PAUSED
        assert again.progress().progress not in (None, "0.00%")
        await again.command("resume")
        rest = await steps(again)
        assert FILES - read <= rest <= FILES - read + 1

    run(scenario())


def test_a_pause_ends_after_a_day() -> None:
    async def scenario() -> None:
        node = await filled()
        scrub = scrub_of(node)
        await scrub.command("start")
        await scrub.command("pause")
        await asyncio.sleep(86_399)
        assert await steps(scrub) == 0
        await asyncio.sleep(2)
        assert await steps(scrub) == FILES

    run(scenario())


def test_commands_at_any_moment_leave_no_nonsense() -> None:
    async def scenario(after: int) -> None:
        node = await filled()
        scrub = scrub_of(node)
        await scrub.command("start")
        working = asyncio.create_task(steps(scrub))
        await asyncio.sleep(after / 5000)
        if scrub.state.phase is Phase.RUNNING:
            await scrub.command("cancel")
        await working
        assert scrub.state.phase is Phase.WAITING
        assert (scrub.state.directory, scrub.state.leaf) == (b"", 0)
        await scrub.command("start")
        assert await steps(scrub) == FILES

    for after in range(0, 60, 7):
        run(scenario(after), after)


def test_commands_that_make_no_sense_are_refused() -> None:
    async def scenario() -> None:
        node = await filled()
        scrub = scrub_of(node)
        for command in ("pause", "resume", "cancel"):
            with pytest.raises(NotAllowedHere, match=f"can't {command}"):
                await scrub.command(command)

    run(scenario())


def test_unreadable_files_are_reported_and_left_where_they_are() -> None:
    async def scenario() -> None:
        node = await filled()
        scrub = scrub_of(node)
        await scrub.command("start")
        node.disk.fail_if(
            lambda call, path: errno.EIO if call == "read" and path.startswith("/data/") else 0
        )
        assert await steps(scrub) == FILES
        node.disk.fail_if(None)
        assert scrub.state.corruptions == 0
        assert f"{FILES} files could not be read" in scrub.progress().freeform[1]
        assert all(node.store.files.has(named(noise(n, 40))) for n in range(FILES))

    run(scenario())


def test_it_can_be_left_off_and_still_be_started_by_hand() -> None:
    async def scenario() -> None:
        node = await filled()
        scrub = scrub_of(node, enabled=False)
        await asyncio.sleep(40 * 86_400)
        assert await steps(scrub) == 0
        await scrub.command("start")
        assert await steps(scrub) == FILES

    run(scenario())


def test_in_the_runner_a_command_starts_it_at_once() -> None:
    async def scenario() -> None:
        node = await filled()
        scrub = scrub_of(node)
        runner = WorkerRunner(node.clock)
        runner.add(scrub)
        runner.start()
        await asyncio.sleep(1)
        await scrub.command("start")
        await asyncio.sleep(5)
        assert scrub.state.completed_us
        await runner.stop()
        await node.close()

    run(scenario())
