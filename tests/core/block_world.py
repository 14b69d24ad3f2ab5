"""A block store on a simulated disk, with a script to run on it and what must hold after a crash.

The script marks in the disk's journal what it was told: `acked` and `deleting` are statements a
client heard, so they must hold at every later moment, whatever a power cut leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from garage_lite.core.block.frame import content, parse_name
from garage_lite.core.block.markers import DataDirectory
from garage_lite.core.disk.block_files import BlockFiles, BlockOptions
from garage_lite.core.errors import BlockMissing, NodeError
from garage_lite.core.ids import BlockHash
from tests.core.blocks_on_disk import named, noise
from tests.sim.files import SimFiles
from tests.sim.loop import SimEntropy

ONE = {"/one": 1}
TWO = {"/one": 1, "/two": 3}
TEXT = [b"row %d: what compresses well\n" % seed * 40 for seed in range(3)]
CONTENTS = [*(noise(seed, 700) for seed in range(5)), *TEXT]


class SimState:
    """Small state of the node, durable when `set` returns; a crash finds it in the marks."""

    def __init__(self, files: SimFiles, values: dict[str, bytes] | None = None) -> None:
        self.files = files
        self.values = dict(values or {})

    def get(self, name: str) -> bytes | None:
        return self.values.get(name)

    async def set(self, name: str, value: bytes | None) -> None:
        self.values = {k: v for k, v in self.values.items() if k != name}
        if value is not None:
            self.values[name] = value
        self.files.mark(("state", self.values))


class World:
    """One node's blocks: `heard` is what its clients were told."""

    def __init__(self, files: SimFiles, state: SimState, seed: int) -> None:
        self.files = files
        self.state = state
        self.entropy = SimEntropy(seed)
        self.refused = 0
        self.store: BlockFiles | None = None

    @classmethod
    def new(cls, seed: int, capacity: int = 1 << 40) -> World:
        files = SimFiles(capacity=capacity)
        return cls(files, SimState(files), seed)

    async def open(self, directories: dict[str, int], fsync: bool = True) -> BlockFiles:
        wanted = [DataDirectory(path, capacity) for path, capacity in directories.items()]
        self.store = await BlockFiles.open(
            self.files,
            wanted,
            self.state,
            self.entropy,
            BlockOptions(fsync=fsync, reserve_bytes=0),
        )
        return self.store

    async def put(self, plain: bytes) -> None:
        assert self.store is not None
        block = named(plain)
        self.files.mark(("putting", block))
        try:
            await self.store.put(block, [plain[:300], plain[300:]], compress=True, verify=True)
        except NodeError:
            self.refused += 1
        else:
            self.files.mark(("acked", block))

    async def delete(self, plain: bytes) -> None:
        assert self.store is not None
        block = named(plain)
        self.files.mark(("deleting", block))
        try:
            await self.store.delete(block)
        except NodeError:
            self.refused += 1
        else:
            self.files.mark(("deleted", block))

    async def move_all(self) -> None:
        store = self.store
        assert store is not None
        try:
            for directory in store.directories:
                leaf = 0
                while (found := await store.next_leaf(directory, leaf)) is not None:
                    leaf = found[0] + 1
                    for copy in found[1]:
                        await store.move_home(copy)
        except NodeError:
            self.refused += 1

    async def script(self) -> None:
        """Puts at once, twice, again after a deletion; a second disk; everything moved home."""
        await self.open(ONE)
        await asyncio.gather(*map(self.put, CONTENTS[:6]))
        await asyncio.gather(self.put(CONTENTS[0]), self.put(CONTENTS[6]), self.put(CONTENTS[6]))
        await asyncio.gather(self.delete(CONTENTS[1]), self.delete(CONTENTS[5]))
        await self.put(CONTENTS[1])
        await self.open(TWO)
        await asyncio.gather(self.put(CONTENTS[7]), self.put(CONTENTS[2]), self.move_all())
        await self.delete(CONTENTS[3])


def heard(marks: Iterable[Any]) -> tuple[dict[str, bytes], dict[BlockHash, str]]:
    """The node's state, and for each block the last word on it, among marks."""
    values: dict[str, bytes] = {}
    last: dict[BlockHash, str] = {}
    for kind, value in marks:
        if kind == "state":
            values = value
        elif kind != "putting" or last.get(value) != "acked":
            last[value] = kind
    return values, last


async def check(files: SimFiles, marks: Iterable[Any], seed: int) -> None:
    """Open what a crash left: acknowledged blocks are right, removed ones gone, names truthful."""
    values, last = heard(marks)
    world = World(files, SimState(files, values), seed + 1000)
    known = b"/two" in values.get("data_directories", b"")
    store = await world.open(TWO if known else ONE)
    for path in files.paths():
        assert "/tmp/" not in path, f"{path} was left behind"
        name = parse_name(path.rpartition("/")[2])
        if name is not None:
            assert not name.corrupted
            content(name, bytes(files.disk.file(path).content))
    for plain in CONTENTS:
        block = named(plain)
        said = last.get(block)
        if said == "deleted":
            assert not store.has(block), "a removed block came back"
        try:
            assert await store.get(block) == plain
        except BlockMissing:
            assert said != "acked", "an acknowledged block is lost"
