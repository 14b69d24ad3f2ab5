"""A deterministic event loop: virtual time, a seeded order, no threads, no sockets.

The same seed gives the same run. What is ready at one moment runs in a random order; an
executor's job runs on the loop's own thread after a random virtual delay, and its result arrives
after another, as from a thread. Jobs of one executor keep their order.

Several simulated processes share the loop: what a process starts runs in its context, so it can
be frozen (nothing of it runs until it is thawed) or killed (nothing of it ever runs again, not
even what it would do at a clean end).
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

T = TypeVar("T")

TURNS_MAX: Final = 2_000_000
"""Ten times what the longest run takes."""


class Process:
    """What one simulated process runs: everything that was started in its `context`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frozen = False
        self.dead = False
        self.held: list[asyncio.Handle] = []
        """What would have run since it was frozen or killed."""
        self.context = contextvars.Context()
        self.context.run(_PROCESS.set, self)

    def freeze(self) -> None:
        """As SIGSTOP does."""
        self.frozen = True
        _loop().halted.append(self)

    def thaw(self) -> None:
        self.frozen = False
        if not self.dead:
            _loop().resume(self)

    def kill(self) -> None:
        """As SIGKILL does."""
        self.dead = True
        _loop().halted.append(self)
        _loop().unburied |= asyncio.all_tasks()


_PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def _loop() -> SimLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    return loop


class SimLoop(asyncio.BaseEventLoop):
    """See the module. `time()` is virtual seconds from 0."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self._now = 0.0
        self._clock_resolution = 1e-9
        self._free_at: dict[int, float] = {}
        self._turns = 0
        self.halted: list[Process] = []
        """Every process that was ever frozen or killed."""
        self.unburied: set[asyncio.Task[Any]] = set()
        """Tasks of the killed, among others: nothing else holds them, and one that is collected
        would run its `finally`."""

    def time(self) -> float:
        return self._now

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        begin = self._now
        if executor is not None:
            begin = max(begin, self._free_at.get(id(executor), 0.0))
        begin += self.random.uniform(1e-6, 5e-4)
        if executor is not None:
            self._free_at[id(executor)] = begin
        self.call_at(begin, self._run_job, future, func, args)
        return future

    def _run_job(self, future: asyncio.Future[T], func: Callable[..., T], args: Any) -> None:
        deliver: Callable[[], None]
        try:
            result = func(*args)
        except Exception as error:
            failure = error

            def deliver() -> None:
                if not future.done():
                    future.set_exception(failure)
        else:

            def deliver() -> None:
                if not future.done():
                    future.set_result(result)

        self.call_later(self.random.uniform(1e-6, 5e-4), deliver)

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        raise RuntimeError("a thread woke the loop: the run can't be repeated")

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        """A generator that was left unfinished is closed; the loop's own way wakes by a pipe."""
        self._asyncgens.discard(agen)  # type: ignore[attr-defined]
        if not self.is_closed():
            self.create_task(agen.aclose())

    def _run_once(self) -> None:
        """One turn, as the base class does it, but in a random order and by virtual time."""
        self._turns += 1
        if self._turns > TURNS_MAX:
            self._turns = 0
            raise RuntimeError("the simulation does not come to an end")
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        ready = self._ready  # type: ignore[attr-defined]
        while timers and timers[0].cancelled():
            heapq.heappop(timers)._scheduled = False  # type: ignore[attr-defined]
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            if not timers:
                raise RuntimeError("deadlock: nothing is left to happen, and somebody waits")
            self._now = max(self._now, timers[0].when())
        while timers and timers[0].when() <= self._now + self._clock_resolution:
            timer = heapq.heappop(timers)
            timer._scheduled = False  # type: ignore[attr-defined]
            ready.append(timer)
        turn = list(ready)
        ready.clear()
        if len(turn) > 1:
            draw = self.random.random
            turn.sort(key=lambda _: draw())  # several times as fast as shuffle()
        for handle in turn:
            if self.halted:
                process = handle._context.get(_PROCESS)
                if process is not None and (process.frozen or process.dead):
                    process.held.append(handle)
                    continue
            if not handle.cancelled():
                handle._run()

    def resume(self, process: Process) -> None:
        """What was held runs soon, in any order."""
        self._ready.extend(process.held)  # type: ignore[attr-defined]
        process.held.clear()

    def bury(self) -> None:
        """Let all run, so that all tasks can be cancelled: the simulation is over."""
        for process in self.halted:
            self.resume(process)
        self.halted.clear()


def run(main: Coroutine[Any, Any, T], seed: int = 0) -> T:
    """Run a coroutine to its end in a world of its own."""
    loop = SimLoop(seed)
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        while pending := asyncio.all_tasks(loop):  # what ends may begin something else
            for task in pending:
                task.cancel()
            loop.bury()
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()


class SimClock:
    """The loop's time as a Clock. `skew_us` makes its wall clock wrong."""

    def __init__(self, skew_us: int = 0) -> None:
        self.skew_us = skew_us

    def now_us(self) -> int:
        return 1_700_000_000_000_000 + self.monotonic_us() + self.skew_us

    def monotonic_us(self) -> int:
        return int(asyncio.get_running_loop().time() * 1_000_000)


class SimEntropy:
    """Repeatable tokens."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def token(self, length: int) -> bytes:
        return self._random.randbytes(length)
