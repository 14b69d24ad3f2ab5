"""Nodes of one process that call each other directly: what the mesh does, without links."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Any

import msgpack

from garage_lite.core.cluster.peers import Endpoints, NotConnected
from garage_lite.core.cluster.rpc import CALL_SECONDS, Reply, Request
from garage_lite.core.errors import GarageLiteError
from garage_lite.core.ids import NodeId
from garage_lite.core.wire.messages import PeerFailed
from garage_lite.core.wire.outbox import NORMAL


class Neighbourhood:
    """Who is there, and which are cut off."""

    def __init__(self) -> None:
        self.endpoints: dict[NodeId, Endpoints] = {}
        self.cut: set[NodeId] = set()
        self.calls: list[tuple[NodeId, NodeId, str]] = []

    def peers_of(self, node: NodeId, endpoints: Endpoints) -> DirectPeers:
        self.endpoints[node] = endpoints
        return DirectPeers(self, node)


class DirectPeers:
    """The door of one node; payloads go through msgpack as on a link."""

    def __init__(self, all_nodes: Neighbourhood, node: NodeId) -> None:
        self._all = all_nodes
        self._node = node

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
        if node not in self.connected():
            raise NotConnected
        self._all.calls.append((self._node, node, endpoint))
        handler = self._all.endpoints[node].handlers[endpoint]
        try:
            result = await handler(Request(self._node, _copied(payload), stream))
        except GarageLiteError as error:
            raise PeerFailed(type(error).__name__, error.message) from error
        reply = result if isinstance(result, Reply) else Reply(result)
        return Reply(_copied(reply.payload), reply.stream)

    def connected(self) -> Collection[NodeId]:
        if self._node in self._all.cut:
            return set()
        return set(self._all.endpoints) - self._all.cut - {self._node}

    def round_trip(self, node: NodeId) -> float:
        return 0.001


def _copied(payload: Any) -> Any:
    return msgpack.unpackb(msgpack.packb(payload))
