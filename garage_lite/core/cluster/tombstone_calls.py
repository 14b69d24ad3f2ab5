"""Forgetting tombstones together: asks all owners to hold them, then tells all to drop them.

tombstones/hold:   [layout version, [node not waited for, ...], [[key, value], ...]]
                   -> [index of a row that is durable here in these very bytes, ...]
tombstones/forget: [layout version, [node not waited for, ...], [[key, value], ...]] -> nil
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.peer_stores import PeerStores
from garage_lite.core.cluster.peers import Cluster
from garage_lite.core.cluster.row_service import Flags, RowService
from garage_lite.core.cluster.rpc import Request
from garage_lite.core.errors import InvalidArgument, Unavailable
from garage_lite.core.ids import NodeId
from garage_lite.core.table.digest import place_of
from garage_lite.core.table.schema import Update, View
from garage_lite.core.table.tombstones import DEAD_MS, says_only_removed
from garage_lite.core.wire.outbox import BACKGROUND

HOLD: Final = "tombstones/hold"
FORGET: Final = "tombstones/forget"
CALL_SECONDS: Final = 30.0
ROWS_MAX: Final = 256
"""In one message."""

Row = tuple[bytes, bytes]


class TombstoneCalls:
    """Serves at the cluster's endpoints from now on, and asks others."""

    def __init__(
        self,
        cluster: Cluster,
        layout: ClusterLayout,
        view: View,
        rows: RowService,
        peers: PeerStores,
    ) -> None:
        """`view`: durable rows."""
        self._cluster = cluster
        self._layout = layout
        self._view = view
        self._rows = rows
        self._peers = peers
        cluster.endpoints.serve(HOLD, self._on_hold)
        cluster.endpoints.serve(FORGET, self._on_forget)

    async def forget(self, owners: Sequence[NodeId], rows: Sequence[Row]) -> list[Row]:
        """Drop tombstones at all owners, this node among them; which were dropped. Raises
        Unavailable while an owner is away that is not dead, and what a call raises."""
        dead = [node for node in owners if self._peers.silent_ms(node) >= DEAD_MS]
        waited = [node for node in owners if node not in dead]
        away = [node for node in waited if not self._cluster.is_up(node)]
        if away:
            raise Unavailable(f"node {away[0].hex()[:16]} is away")
        others = [node for node in waited if node != self._cluster.node]
        answers = await asyncio.gather(*(self._call(node, HOLD, dead, rows) for node in others))
        held = set(range(len(rows)))
        for answer in answers:
            held &= set(answer) if isinstance(answer, list) else set()
        agreed = [row for index, row in enumerate(rows) if index in held]
        if agreed:
            await asyncio.gather(*(self._call(node, FORGET, dead, agreed) for node in others))
            await self._drop(dead, agreed)
        return agreed

    async def _drop(self, dead: Sequence[NodeId], rows: Sequence[Row]) -> None:
        await self._peers.missed(dead)
        await self._rows.drop_equal(rows)

    async def _call(
        self, node: NodeId, endpoint: str, dead: Sequence[NodeId], rows: Sequence[Row]
    ) -> Any:
        payload = [self._layout.lookup.versions[-1], dead, rows]
        reply = await self._cluster.call(
            node, endpoint, payload, timeout=CALL_SECONDS, priority=BACKGROUND
        )
        return reply.payload

    # --- for peers

    async def _on_hold(self, request: Request) -> list[int]:
        _, rows = self._read(request)
        await self._rows.write([Update(*row) for row in rows], (), Flags.MERGE | Flags.DELETES)
        return [index for index, (key, value) in enumerate(rows) if self._view.get(key) == value]

    async def _on_forget(self, request: Request) -> None:
        dead, rows = self._read(request)
        await self._drop(dead, rows)

    def _read(self, request: Request) -> tuple[list[NodeId], list[Row]]:
        match request.payload:
            case [int() as version, list() as dead, list() as rows] if len(rows) <= ROWS_MAX:
                self._rows.refuse_stale(version)
                nodes = [NodeId(node) for node in dead if isinstance(node, bytes)]
                for node in nodes:
                    if self._peers.silent_ms(node) < DEAD_MS:
                        raise Unavailable(f"node {node.hex()[:16]} is not dead")
                return nodes, [_tombstone(row) for row in rows]
        raise InvalidArgument("a peer sent what are no tombstones")


def _tombstone(row: Any) -> Row:
    match row:
        case [bytes() as key, bytes() as value] if len(key) > 2:
            if place_of(key) is not None and says_only_removed(key, value):
                return key, value
    raise InvalidArgument("a peer sent what is no tombstone")
