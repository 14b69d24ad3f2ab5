"""The runner: steps, rests, errors and the stop, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from garage_lite.core.errors import StorageFailed
from garage_lite.core.workers.runner import (
    BUSY,
    DONE,
    DONE_MAX,
    IDLE,
    Progress,
    State,
    Step,
    WorkerRunner,
)
from tests.sim.loop import SimClock, run


class Scripted:
    """A worker that does what the script says, one item a step, then stays idle."""

    def __init__(self, *script: Step | Exception | Callable[[], None]) -> None:
        self.name = "scripted"
        self.script: Iterator[Step | Exception | Callable[[], None]] = iter(script)
        self.times: list[float] = []
        self.wake = asyncio.Event()
        self.seconds = 0.0

    async def work(self) -> Step:
        self.times.append(round(asyncio.get_running_loop().time(), 3))
        if self.seconds:
            await asyncio.sleep(self.seconds)
        item = next(self.script, IDLE)
        if isinstance(item, Exception):
            raise item
        if isinstance(item, tuple):
            return item
        item()
        return BUSY

    async def wait(self) -> None:
        await self.wake.wait()
        self.wake.clear()

    def progress(self) -> Progress:
        return Progress(queue_length=len(self.times))


def test_steps_follow_each_other_with_their_rests() -> None:
    async def scenario() -> None:
        worker = Scripted(BUSY, Step(State.THROTTLED, 2_000_000), BUSY, IDLE, BUSY, DONE, BUSY)
        runner = WorkerRunner(SimClock())
        assert runner.add(worker) == 1
        runner.start()
        await asyncio.sleep(1)
        assert runner.status()[0].state is State.THROTTLED
        assert runner.status()[0].rest_us == 2_000_000
        await asyncio.sleep(9)
        assert worker.times == [0, 0, 2, 2]
        assert runner.status()[0].state is State.IDLE
        worker.wake.set()
        await asyncio.sleep(1)
        assert worker.times == [0, 0, 2, 2, 10, 10]
        (status,) = runner.status()
        assert (status.state, status.errors, status.last_error) == (State.DONE, 0, None)
        assert status.progress.queue_length == 6
        await runner.stop()

    run(scenario())


def test_errors_are_counted_shown_and_slow_the_worker_down() -> None:
    async def scenario() -> None:
        errors = [StorageFailed("the disk says no"), ValueError("a bug"), StorageFailed("again")]
        worker = Scripted(*errors, BUSY, StorageFailed("later"))
        runner = WorkerRunner(SimClock())
        runner.add(worker)
        runner.start()
        await asyncio.sleep(3)
        (status,) = runner.status()
        assert (status.errors, status.consecutive_errors) == (3, 3)
        assert status.last_error == "again" and status.state is State.THROTTLED
        await asyncio.sleep(100)
        (status,) = runner.status()
        assert (status.errors, status.consecutive_errors) == (4, 0)
        assert status.last_error == "later"
        assert status.last_error_us == 1_700_000_000_000_000 + 4_750_000
        assert worker.times == [0, 1, 2.5, 4.75, 4.75, 5.75]
        await runner.stop()

    run(scenario())


def test_pauses_after_errors_end_at_about_a_minute() -> None:
    async def scenario() -> None:
        worker = Scripted(*(StorageFailed("no") for _ in range(40)))
        runner = WorkerRunner(SimClock())
        runner.add(worker)
        runner.start()
        await asyncio.sleep(1500)
        gaps = [round(b - a, 1) for a, b in zip(worker.times, worker.times[1:], strict=False)]
        assert 57 < max(gaps) < 58 and gaps == sorted(gaps)
        await runner.stop()

    run(scenario())


def test_an_error_while_waiting_is_an_error_too() -> None:
    class Impatient(Scripted):
        async def wait(self) -> None:
            if len(self.times) == 1:
                raise StorageFailed("can't wait")
            await super().wait()

    async def scenario() -> None:
        worker = Impatient(IDLE)
        runner = WorkerRunner(SimClock())
        runner.add(worker)
        runner.start()
        await asyncio.sleep(5)
        assert runner.status()[0].last_error == "can't wait"
        assert worker.times == [0, 1]
        await runner.stop()

    run(scenario())


def test_a_stop_lets_steps_end_and_waits_for_nothing_else() -> None:
    async def scenario() -> None:
        ended: list[str] = []
        working = Scripted(lambda: ended.append("step"), lambda: ended.append("another"))
        working.seconds = 3
        resting = Scripted(Step(State.THROTTLED, 10**9))
        idle = Scripted()
        runner = WorkerRunner(SimClock())
        for worker in (working, resting, idle):
            runner.add(worker)
        runner.start()
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        start = loop.time()
        await runner.stop(8)
        assert ended == ["step"]
        assert loop.time() - start < 2.1
        assert {status.state for status in runner.status()} == {State.DONE}

    run(scenario())


def test_a_step_that_takes_too_long_is_cut_off() -> None:
    async def scenario() -> None:
        slow = Scripted(BUSY)
        slow.seconds = 10**6
        runner = WorkerRunner(SimClock())
        runner.start()
        runner.add(slow)
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        start = loop.time()
        await runner.stop(8)
        assert 7.9 < loop.time() - start < 8.1

    run(scenario())


def test_a_runner_without_workers_stops() -> None:
    run(WorkerRunner(SimClock()).stop())


def test_those_that_ended_are_shown_for_a_while() -> None:
    async def scenario() -> None:
        runner = WorkerRunner(SimClock())
        runner.start()
        lasting = runner.add(Scripted())
        for _ in range(DONE_MAX + 10):
            number = runner.add(Scripted(DONE))
            await asyncio.sleep(1)
        shown = [status.id for status in runner.status()]
        assert shown[0] == lasting and shown[-1] == number == DONE_MAX + 11
        assert len(shown) == DONE_MAX + 1
        await runner.stop()

    run(scenario())
