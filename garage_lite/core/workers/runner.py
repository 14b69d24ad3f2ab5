"""Runs the background workers: starts, watches, slows after errors, stops in time.

A worker does one bounded step at a time and says whether there is more. The runner knows nothing
of what the steps are. An error is counted, shown and followed by a growing pause (Garage's: 1.5
to the power of the errors in a row, up to about a minute); it never ends a worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple, Protocol

from garage_lite.core.errors import GarageLiteError
from garage_lite.core.ports import Clock

log = logging.getLogger(__name__)

BACKOFF_BASE: Final = 1.5
BACKOFF_POWER_MAX: Final = 10
STOP_SECONDS: Final = 8.0
DONE_MAX: Final = 64
"""Workers that have ended and are still shown; an operator may ask for any number of repairs."""


class State(Enum):
    BUSY = "busy"
    THROTTLED = "throttled"
    IDLE = "idle"
    DONE = "done"


class Step(NamedTuple):
    """What a worker says after one step."""

    state: State
    rest_us: int = 0
    """THROTTLED: how long to rest before the next step."""


BUSY: Final = Step(State.BUSY)
IDLE: Final = Step(State.IDLE)
DONE: Final = Step(State.DONE)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a worker shows of itself."""

    tranquility: int | None = None
    progress: str | None = None
    queue_length: int | None = None
    persistent_errors: int | None = None
    freeform: Sequence[str] = ()


class Worker(Protocol):
    """One background task. `work` and `wait` are never called at the same time."""

    @property
    def name(self) -> str: ...

    async def work(self) -> Step:
        """One bounded step."""
        ...

    async def wait(self) -> None:
        """Return when there may be work again; called after IDLE, and cancelled on stop."""
        ...

    def progress(self) -> Progress: ...


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A line of `worker list`."""

    id: int
    name: str
    state: State
    rest_us: int
    errors: int
    consecutive_errors: int
    last_error: str | None
    last_error_us: int | None
    """Wall clock, microseconds."""
    progress: Progress


@dataclass(slots=True)
class _Entry:
    id: int
    worker: Worker
    state: State = State.IDLE
    rest_us: int = 0
    errors: int = 0
    consecutive: int = 0
    last_error: str | None = None
    last_error_us: int | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class WorkerRunner:
    """The workers of one node. `start`, `add` at any time, `stop` once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: list[_Entry] = []
        self._added = 0
        self._stopping = asyncio.Event()
        self._started = False

    def add(self, worker: Worker) -> int:
        """Take a worker in, and start it if the others run; returns its id (from 1 on)."""
        self._added += 1
        entry = _Entry(self._added, worker)
        ended = [one for one in self._entries if one.state is State.DONE]
        for one in ended[: max(0, len(ended) - DONE_MAX + 1)]:
            self._entries.remove(one)
        self._entries.append(entry)
        if self._started:
            self._launch(entry)
        return entry.id

    def start(self) -> None:
        self._started = True
        for entry in self._entries:
            self._launch(entry)

    def status(self) -> list[WorkerStatus]:
        return [
            WorkerStatus(
                entry.id,
                entry.worker.name,
                entry.state,
                entry.rest_us,
                entry.errors,
                entry.consecutive,
                entry.last_error,
                entry.last_error_us,
                entry.worker.progress(),
            )
            for entry in self._entries
        ]

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Let each worker end the step it is in; cut off those that take longer than `seconds`."""
        self._stopping.set()
        tasks = [entry.task for entry in self._entries if entry.task is not None]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            log.warning("%d background workers were cut off at the stop", len(late))
            await asyncio.wait(late)

    def _launch(self, entry: _Entry) -> None:
        entry.task = asyncio.create_task(self._run(entry), name=entry.worker.name)

    async def _run(self, entry: _Entry) -> None:
        while not self._stopping.is_set():
            entry.state, entry.rest_us = State.BUSY, 0
            step = await self._step(entry)
            entry.state, entry.rest_us = step
            match step.state:
                case State.DONE:
                    return
                case State.THROTTLED:
                    await self._rest(step.rest_us / 1_000_000)
                case State.IDLE:
                    await self._until_work(entry)
                case State.BUSY:
                    await asyncio.sleep(0)
        entry.state = State.DONE

    async def _step(self, entry: _Entry) -> Step:
        try:
            step = await entry.worker.work()
        except Exception as error:
            return self._failed(entry, error)
        entry.consecutive = 0
        return step

    def _failed(self, entry: _Entry, error: Exception) -> Step:
        entry.errors += 1
        entry.consecutive += 1
        entry.last_error = error.message if isinstance(error, GarageLiteError) else repr(error)
        entry.last_error_us = self._clock.now_us()
        expected = isinstance(error, GarageLiteError)
        log.error("%s: %s", entry.worker.name, entry.last_error, exc_info=not expected)
        power = min(entry.consecutive - 1, BACKOFF_POWER_MAX)
        return Step(State.THROTTLED, int(BACKOFF_BASE**power * 1_000_000))

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _until_work(self, entry: _Entry) -> None:
        """Wait for the worker's own sign, or for the stop."""
        waits = [
            asyncio.create_task(entry.worker.wait()),
            asyncio.create_task(self._stopping.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            ended = await asyncio.gather(*waits, return_exceptions=True)
        for result in ended:
            if isinstance(result, Exception):
                failed = self._failed(entry, result)
                await self._rest(failed.rest_us / 1_000_000)
