"""The door to other nodes: named endpoints here, calls there.

`Peers` is a port as those of core/ports.py: the real one (the mesh of encrypted links) and the
simulated one carry the same calls, so everything above this line runs in the simulator.
`Endpoints` is what a node answers; `Cluster` is how its parts call, this node itself included,
which costs no message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, Protocol

from garage_lite.core.cluster.rpc import CALL_SECONDS, Handler, Reply, Request
from garage_lite.core.errors import InvariantBroken, Unavailable
from garage_lite.core.ids import NodeId
from garage_lite.core.wire.outbox import NORMAL


class NotConnected(Unavailable):
    """There is no link to that node now; fails at once, never waits for one."""


class Peers(Protocol):
    """Calls to other nodes, by their id."""

    async def call(
        self,
        node: NodeId,
        endpoint: str,
        payload: Any,
        *,
        timeout: float = CALL_SECONDS,  # noqa: ASYNC109 - the deadline also cancels at the peer
        priority: int = NORMAL,
        stream: AsyncIterator[bytes] | None = None,
    ) -> Reply:
        """As Session.call: NotConnected, LinkLost, CallTimedOut, PeerFailed. Cancelling it
        cancels the peer's work. An answer's stream must be read to its end."""
        ...

    def connected(self) -> Collection[NodeId]:
        """The nodes that can be called now, this one not among them."""
        ...

    def round_trip(self, node: NodeId) -> float:
        """Seconds a small call usually takes (a median of pings); infinite where unknown."""
        ...


class NoPeers:
    """A node alone."""

    async def call(
        self,
        node: NodeId,
        endpoint: str,
        payload: Any,
        *,
        timeout: float = CALL_SECONDS,  # noqa: ASYNC109
        priority: int = NORMAL,
        stream: AsyncIterator[bytes] | None = None,
    ) -> Reply:
        raise NotConnected(f"node {node.hex()[:16]} is not connected")

    def connected(self) -> Collection[NodeId]:
        return ()

    def round_trip(self, node: NodeId) -> float:
        return float("inf")


class Endpoints:
    """What this node answers, by name. Filled before the first link is up."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}

    def serve(self, endpoint: str, handler: Handler) -> None:
        if endpoint in self.handlers:
            raise InvariantBroken(f"two parts answer {endpoint}")
        self.handlers[endpoint] = handler


class Cluster:
    """Calls to any node, this one too."""

    def __init__(self, node: NodeId, endpoints: Endpoints, peers: Peers) -> None:
        self.node = node
        self.endpoints = endpoints
        self.peers = peers
        self.clock_is_sane: Callable[[], bool] = lambda: True
        """Whether this node may stamp a write now; otherwise ClockInsane is for the caller."""

    async def call(
        self,
        node: NodeId,
        endpoint: str,
        payload: Any,
        *,
        timeout: float = CALL_SECONDS,  # noqa: ASYNC109
        priority: int = NORMAL,
        stream: AsyncIterator[bytes] | None = None,
    ) -> Reply:
        """The answer of `node`. A call to this node runs its handler at once; what the handler
        raises is raised as it is, elsewhere it comes as PeerFailed with the error's code."""
        if node != self.node:
            return await self.peers.call(
                node, endpoint, payload, timeout=timeout, priority=priority, stream=stream
            )
        async with asyncio.timeout(timeout):
            result = await self.endpoints.handlers[endpoint](Request(node, payload, stream))
        return result if isinstance(result, Reply) else Reply(result)

    def is_up(self, node: NodeId) -> bool:
        return node == self.node or node in self.peers.connected()

    def round_trip(self, node: NodeId) -> float:
        """Seconds; 0 for this node."""
        return 0.0 if node == self.node else self.peers.round_trip(node)
