"""The metadata store against a dict, under random commits, flushes, drops, snapshots and crashes.

What is acknowledged must be there after any crash; what is not is there wholly or not at all, and
never without what was committed before it. Hypothesis shrinks what fails to a short history.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from garage_lite.core.disk.metadata import MetadataStore
from garage_lite.core.disk.metadata_snapshot import restore_snapshot
from tests.core.disk.metadata_world import (
    Model,
    Rows,
    apply,
    check_reads,
    drop,
    everything,
    open_store,
)
from tests.sim.files import SimFiles
from tests.sim.loop import SimLoop

numbers = st.integers(0, 60)
tables = st.sampled_from((0x10, 0x20))


def key_of(table: int, number: int) -> bytes:
    return bytes((table, 0)) + b"name-%02d" % (number // 7) + b"st%02d" % (number % 7)


keys = st.builds(key_of, tables, numbers)
rows = st.lists(st.tuples(keys, st.none() | st.binary(max_size=150)), max_size=12)


class Engine(RuleBasedStateMachine):
    """`states[0]` is acknowledged; the others follow, one for each record on its way."""

    @initialize(seed=st.integers(0, 1 << 16))
    def start(self, seed: int) -> None:
        self.loop = SimLoop(seed)
        self.chance = random.Random(seed)
        self.files = SimFiles()
        self.restored = 0
        self.states: list[Model] = [{}]
        self.waiting: list[asyncio.Future[None]] = []
        self.snapshots: dict[str, Model] = {}
        self.scans: list[tuple[Any, list[bytes], Model, set[bytes]]] = []
        self.store: MetadataStore = self.do(open_store(self.files))

    def do(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def on_loop(self, call: Any) -> Any:
        """Call a synchronous method as if from the loop."""

        async def calling() -> Any:
            return call()

        return self.do(calling())

    def committed(self, future: asyncio.Future[None], state: Model) -> None:
        self.waiting.append(future)
        self.states.append(state)

    @rule(rows=rows)
    def commit(self, rows: Rows) -> None:
        state = dict(self.states[-1])
        apply(state, rows)
        self.touch([key for key, _ in rows])
        self.committed(self.on_loop(lambda: self.store.commit(rows)), state)

    @rule(start=keys, end=keys)
    def drop_range(self, start: bytes, end: bytes) -> None:
        state = dict(self.states[-1])
        drop(state, start, end)
        self.touch([key for key in self.states[-1] if start <= key < end])
        self.committed(self.on_loop(lambda: self.store.drop_range(start, end)), state)

    @rule(table=tables)
    def drop_partition(self, table: int) -> None:
        state = {k: v for k, v in self.states[-1].items() if k[0] != table}
        self.touch([key for key in self.states[-1] if key[0] == table])
        self.committed(self.on_loop(lambda: self.store.drop_partition(table, 0)), state)

    def touch(self, changed: list[bytes]) -> None:
        for _, _, _, touched in self.scans:
            touched.update(changed)

    @rule()
    def acknowledge(self) -> None:
        self.do(self.gather())

    async def gather(self) -> None:
        await asyncio.gather(*self.waiting)
        self.waiting = []
        del self.states[:-1]

    @rule(seconds=st.floats(0, 0.01))
    def let_time_pass(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))
        while self.waiting and self.waiting[0].done():
            self.waiting.pop(0).result()
            self.states.pop(0)

    @rule()
    def flush(self) -> None:
        async def flushing() -> None:
            await self.gather()
            await self.store.flush()

        self.do(flushing())

    @rule()
    def snapshot(self) -> None:
        async def taking() -> None:
            await self.gather()
            name = f"s{len(self.snapshots)}"
            self.snapshots[await self.store.snapshot(name)] = dict(self.states[0])

        self.do(taking())

    @rule(data=st.data())
    def restore_a_snapshot(self, data: st.DataObject) -> None:
        if not self.snapshots:
            return
        path = data.draw(st.sampled_from(sorted(self.snapshots)))
        self.restored += 1
        target = f"/restored/{self.restored}"

        async def restoring() -> None:
            restore_snapshot(self.files, path, target, b"r" * 16)
            restored = await open_store(self.files, directory=target)
            check_reads(restored, self.snapshots[path])
            await restored.close()

        self.do(restoring())

    @rule()
    def reopen(self) -> None:
        async def reopening() -> MetadataStore:
            await self.gather()
            await self.store.close()
            return await open_store(self.files)

        self.scans = []
        self.store = self.do(reopening())
        assert not self.store.status().damage

    @rule(keep=st.sampled_from((0.0, 0.3, 0.8, 1.0)))
    def crash(self, keep: float) -> None:
        """The power goes now; a new process opens what is left."""
        self.abandon()
        self.files = self.files.crash(self.chance, keep)
        self.store = self.do(open_store(self.files))
        assert not self.store.status().damage
        found = self.on_loop(lambda: everything(self.store))
        assert found in self.states
        self.states = [found]
        self.snapshots = {
            path: state
            for path, state in self.snapshots.items()
            if self.files.exists(path + "/manifest")
        }

    def abandon(self) -> None:
        """Forget the process: its loop, its store, what it waited for."""
        self.scans = []
        self.waiting = []
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.do(asyncio.sleep(0))
        self.loop.close()
        self.loop = SimLoop(self.chance.randrange(1 << 30))

    @rule(start=keys, end=keys)
    def begin_scan(self, start: bytes, end: bytes) -> None:
        rows = {k: v for k, v in self.readers_view().items() if start <= k < end}
        scan = self.on_loop(lambda: self.store.scan(start, end))
        in_flight = {
            k
            for before, after in zip(self.states, self.states[1:], strict=False)
            for k in before.keys() | after.keys()
            if before.get(k) != after.get(k)
        }
        self.scans.append((scan, [], rows, in_flight))

    @rule(batches=st.integers(1, 3))
    def go_on_scanning(self, batches: int) -> None:
        if self.scans:
            scan, seen, _, _ = self.scans[0]

            def read() -> None:
                for _ in range(batches):
                    seen.extend(next(scan, ([], []))[0])

            self.on_loop(read)

    @rule()
    def finish_scan(self) -> None:
        """All rows that nobody touched meanwhile were met, none twice."""
        if not self.scans:
            return
        scan, seen, rows, touched = self.scans.pop(0)
        seen += self.on_loop(lambda: [key for some, _ in scan for key in some])
        assert seen == sorted(set(seen))
        assert set(rows) - touched == set(seen) - touched

    def readers_view(self) -> Model:
        done = 0
        while done < len(self.waiting) and self.waiting[done].done():
            done += 1
        return self.states[done]

    @invariant()
    def both_views_are_right(self) -> None:
        if not hasattr(self, "store"):
            return

        def check() -> None:
            found = everything(self.store)
            assert found == self.readers_view()
            latest = self.states[-1]
            assert everything(self.store, latest=True) == latest
            for number in range(0, 61, 7):
                for table in (0x10, 0x20):
                    key = key_of(table, number)
                    assert self.store.get(key) == found.get(key)
                    assert self.store.get(key, latest=True) == latest.get(key)
                    suffix = 4 if table == 0x10 else 0
                    prefix = key[: len(key) - suffix]
                    for rows, view in ((found, False), (latest, True)):
                        expected = sorted((k, v) for k, v in rows.items() if k.startswith(prefix))
                        assert self.store.with_prefix(prefix, latest=view) == expected
                        for most in (1, 2, 4):
                            first = self.store.with_prefix(prefix, most, latest=view)
                            assert first == expected[:most]

        self.on_loop(check)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.do(self.gather())
            self.do(self.store.close())
            self.loop.close()


TestEngine = Engine.TestCase
TestEngine.settings = settings(stateful_step_count=60)
