"""Block files in a directory, with what they need around them kept in memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from blake3 import blake3

from garage_lite.core.block.markers import DataDirectory
from garage_lite.core.cluster.block_store import BlockStore
from garage_lite.core.cluster.blocks import Blocks
from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.peers import Cluster, Endpoints, NoPeers
from garage_lite.core.cluster.tables import Tables
from garage_lite.core.disk.block_files import BlockFiles, BlockOptions
from garage_lite.core.disk.block_locks import BlockLeases, BlockLocks
from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.disk.replica import Replica
from garage_lite.core.ids import BlockHash, NodeId
from garage_lite.core.layout.roles import Parameters
from garage_lite.core.ports import Files
from garage_lite.core.quorum import Consistency

P = ParamSpec("P")
R = TypeVar("R")


class InlinePool(Executor):
    """Runs each job where it is handed in, so that the order of calls is the test's."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        future: Future[R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class MemoryState:
    """Small state of a node that no crash takes away."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.entropy = SeededEntropy()

    def get(self, name: str) -> bytes | None:
        return self.values.get(name)

    async def set(self, name: str, value: bytes | None) -> None:
        self.values.pop(name, None)
        if value is not None:
            self.values[name] = value


class SeededEntropy:
    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def token(self, length: int) -> bytes:
        return self._random.randbytes(length)


def lone_blocks(
    replica: Replica, tables: Tables, files: BlockFiles, node: NodeId, leases: BlockLeases
) -> Blocks:
    """The blocks of a node that has no peers and never had a layout."""
    layout = ClusterLayout(replica, tables.clock, node, Parameters(1), Consistency.CONSISTENT)
    store = BlockStore(replica, tables, files, BlockLocks(), leases)
    return Blocks(store, Cluster(node, Endpoints(), NoPeers()), layout)


def named(content: bytes) -> BlockHash:
    return BlockHash(blake3(content).digest())


def noise(seed: int, size: int = 3000) -> bytes:
    return random.Random(seed).randbytes(size)


async def open_blocks(
    path: Path | str,
    state: MemoryState,
    files: Files | None = None,
    directories: dict[str, int] | None = None,
    **options: Any,
) -> BlockFiles:
    """Block files under `path`: `directories` names them with their capacities."""
    wanted = [
        DataDirectory(f"{path}/{name}", capacity)
        for name, capacity in (directories or {"d": 1}).items()
    ]
    return await BlockFiles.open(
        files or LocalFiles(),
        wanted,
        state,
        state.entropy,
        BlockOptions(**{"reserve_bytes": 0, **options}),
        InlinePool(),
    )


def files_of(path: Path | str, pattern: str = "*/*/*/*") -> dict[str, bytes]:
    """The block files under a directory by name, wherever they are."""
    return {found.name: found.read_bytes() for found in sorted(Path(path).glob(pattern))}


def find(path: Path | str, name: str) -> Path:
    (found,) = Path(path).glob(f"*/*/*/{name}")
    return found


def damage(path: Path, content: bytes | None = None) -> bytes:
    """Change a file behind the store's back, one bit in its middle unless told; what it is now."""
    if content is None:
        changed = bytearray(path.read_bytes())
        changed[len(changed) // 2] ^= 1
        content = bytes(changed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return content
