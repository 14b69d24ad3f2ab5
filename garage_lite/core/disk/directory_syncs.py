"""Directory syncs in rounds: what is asked during one round is done together in the next.

The first sync of a round makes the file system commit its journal, with the renames of all the
others in it; theirs then find nothing left to do. So any number of writers cost about one
journal commit at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from functools import partial

from garage_lite.core.ports import Files

Failures = dict[str, OSError]


class _Round:
    __slots__ = ("done", "paths")

    def __init__(self, done: asyncio.Future[Failures]) -> None:
        self.paths: set[str] = set()
        self.done = done


class DirectorySyncs:
    """At most one round runs at a time; cancelling a waiter disturbs nobody else."""

    def __init__(self, files: Files, pool: Executor) -> None:
        self._files = files
        self._pool = pool
        self._next: _Round | None = None
        self._running = False

    async def sync(self, paths: Iterable[str]) -> None:
        """The names in these directories are durable on return. Raises OSError otherwise."""
        wanted = list(paths)
        if not wanted:
            return
        if self._next is None:
            self._next = _Round(asyncio.get_running_loop().create_future())
        round = self._next
        round.paths.update(wanted)
        if not self._running:
            self._start()
        failures = await asyncio.shield(round.done)
        for path in wanted:
            if path in failures:
                raise failures[path]

    def _start(self) -> None:
        round = self._next
        if round is None:
            self._running = False
            return
        self._next = None
        self._running = True
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(self._pool, self._sync_all, sorted(round.paths))
        job.add_done_callback(partial(self._finished, round))

    def _finished(self, round: _Round, job: asyncio.Future[Failures]) -> None:
        if job.cancelled():
            round.done.cancel()
        elif error := job.exception():
            round.done.set_exception(error)
        else:
            round.done.set_result(job.result())
        self._start()

    def _sync_all(self, paths: Sequence[str]) -> Failures:
        failures: Failures = {}
        for path in paths:
            try:
                self._files.sync_directory(path)
            except OSError as error:
                failures[path] = error
        return failures
