"""Meshes in one process over real sockets, on ports that the system chooses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from garage_lite.core.cluster.identity import key_from_seed
from garage_lite.core.cluster.mesh import Mesh, MeshSettings
from garage_lite.core.cluster.peers import Endpoints
from garage_lite.core.cluster.rpc import JSON_API, Request
from garage_lite.core.ids import NodeId
from garage_lite.core.wire.address import Address, Peer, TcpAddress
from garage_lite.system import SystemClock, SystemEntropy

SECRET = b"s" * 32
ANYWHERE = TcpAddress("127.0.0.1", 0)


class Kept:
    """A node's memory, which survives its restarts."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}

    def get(self, name: str) -> bytes | None:
        return self.rows.get(name)

    async def set(self, name: str, value: bytes | None) -> None:
        self.rows[name] = value or b""


class MeshNode:
    """One node: its key and memory stay, its process may come and go."""

    def __init__(self, number: int, settings: MeshSettings) -> None:
        self.key = key_from_seed(bytes([number]) * 32)
        self.settings = settings
        self.kept = Kept()
        self.mesh: Mesh | None = None
        self.calls: list[Any] = []
        self.hosts: list[str] = []
        """What the machine's addresses are said to be."""

    @property
    def id(self) -> NodeId:
        return self.key.node

    @property
    def running(self) -> Mesh:
        assert self.mesh is not None
        return self.mesh

    @property
    def peer(self) -> Peer:
        assert self.running.bound is not None
        return Peer(self.id, self.running.bound)

    async def start(self, **settings: Any) -> Mesh:
        self.settings = replace(self.settings, **settings)
        endpoints = Endpoints()
        mesh = Mesh(self.settings, SystemClock(), SystemEntropy(), lambda: self.hosts)
        self.mesh = mesh.serve(self.key, endpoints)
        endpoints.serve("echo", self._echo)
        endpoints.serve(JSON_API, self._echo)
        self.mesh.tell("hostname", lambda: f"host{self.id.hex()[:4]}")
        await self.mesh.start(self.kept)
        return self.mesh

    async def stop(self) -> None:
        if self.mesh is not None:
            mesh, self.mesh = self.mesh, None
            await mesh.stop()

    async def _echo(self, request: Request) -> Any:
        self.calls.append(request.payload)
        return request.payload

    async def can_call(self, other: MeshNode) -> bool:
        reply = await self.running.call(other.id, "echo", self.id, timeout=5)
        return bool(reply.payload == self.id)


@asynccontextmanager
async def nodes(count: int, **settings: Any) -> AsyncIterator[list[MeshNode]]:
    """Nodes that listen and know nobody; stopped at the end."""
    common = MeshSettings(**{"network_key": SECRET, "bound": ANYWHERE, **settings})
    made = [MeshNode(number + 1, common) for number in range(count)]
    try:
        for node in made:
            await node.start()
        yield made
    finally:
        for node in made:
            await node.stop()


async def until(condition: Callable[[], Any], seconds: float = 15) -> None:
    """Until the condition holds; what it takes is looked at ten times a second or more."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - many kinds of facts, no common event
            await asyncio.sleep(0.02)


async def full_mesh(among: list[MeshNode], seconds: float = 15) -> None:
    """Until each node is linked to every other."""

    def is_full() -> bool:
        return all(
            set(node.running.connected()) == {other.id for other in among if other is not node}
            for node in among
        )

    await until(is_full, seconds)


def address_of(node: MeshNode) -> Address:
    assert node.running.bound is not None
    return node.running.bound
