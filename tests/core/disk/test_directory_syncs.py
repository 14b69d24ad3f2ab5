"""Directory syncs share rounds, fail each for itself, and survive a waiter's going."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from garage_lite.core.disk.directory_syncs import DirectorySyncs
from tests.sim.files import SimFiles
from tests.sim.loop import run


class Counted(SimFiles):
    """Counts the syncs of each directory; /bad fails."""

    def __init__(self) -> None:
        super().__init__()
        self.synced: list[str] = []
        for name in "abcd":
            self.make_directory(f"/{name}")

    def sync_directory(self, path: str) -> None:
        self.synced.append(path)
        if path == "/bad":
            raise OSError(5, "no", path)
        super().sync_directory(path)


def test_what_comes_during_a_round_shares_the_next() -> None:
    async def scenario() -> None:
        files = Counted()
        syncs = DirectorySyncs(files, ThreadPoolExecutor())
        await asyncio.gather(
            syncs.sync(["/a"]),
            *(syncs.sync(["/b", "/c"]) for _ in range(10)),
            syncs.sync(["/c", "/d"]),
            syncs.sync([]),
        )
        # Whoever came first began the first round; all the others are in the second.
        assert len(files.synced) <= 2 + 4
        assert set(files.synced) == {"/a", "/b", "/c", "/d"}
        await syncs.sync(["/a"])
        assert files.synced[-1] == "/a"

    for seed in range(10):
        run(scenario(), seed)


def test_a_sync_that_began_before_the_change_does_not_count() -> None:
    async def scenario() -> None:
        files = Counted()
        syncs = DirectorySyncs(files, ThreadPoolExecutor())
        first = asyncio.create_task(syncs.sync(["/a"]))
        await asyncio.sleep(0)
        await syncs.sync(["/a"])
        await first
        assert files.synced == ["/a", "/a"]

    run(scenario())


def test_a_failure_is_told_to_those_who_asked_for_it() -> None:
    async def scenario() -> None:
        files = Counted()
        syncs = DirectorySyncs(files, ThreadPoolExecutor())
        results = await asyncio.gather(
            syncs.sync(["/a"]),
            syncs.sync(["/b"]),
            syncs.sync(["/b", "/bad"]),
            syncs.sync(["/c"]),
            return_exceptions=True,
        )
        failed = [result for result in results if result is not None]
        assert len(failed) == 1 and isinstance(failed[0], OSError)

    run(scenario(), 1)


def test_a_cancelled_waiter_stops_nobody_else() -> None:
    async def scenario() -> None:
        files = Counted()
        syncs = DirectorySyncs(files, ThreadPoolExecutor())
        one = asyncio.create_task(syncs.sync(["/a"]))
        two = asyncio.create_task(syncs.sync(["/b"]))
        three = asyncio.create_task(syncs.sync(["/c"]))
        await asyncio.sleep(1e-7)  # all wait now, and the first round has not begun
        one.cancel()
        two.cancel()
        await three
        with pytest.raises(asyncio.CancelledError):
            await one
        await asyncio.sleep(1)
        assert set(files.synced) == {"/a", "/b", "/c"}

    for seed in range(5):
        run(scenario(), seed)
