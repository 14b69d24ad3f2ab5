"""The layout travels: every node tells every other what it knows of it, soon and again.

After a change here, and every ROUND_SECONDS besides, each connected peer is asked whether it knows
the same (a digest of 32 bytes); where it does not, both merge what the other has. Histories merge
like any CRDT, so order, loss and repetition do no harm. The same round acknowledges versions that
this node's writes have left behind. Must not know what a layout means.

    layout/exchange: [digest, history | nil] -> history | nil      nil: as yours, or not needed yet
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from blake3 import blake3

from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.peers import Cluster
from garage_lite.core.cluster.rpc import Request
from garage_lite.core.errors import GarageLiteError, InvalidArgument
from garage_lite.core.ids import NodeId
from garage_lite.core.layout.history import LayoutHistory
from garage_lite.core.wire.outbox import URGENT

log = logging.getLogger(__name__)

ENDPOINT: Final = "layout/exchange"
ROUND_SECONDS: Final = 10.0
CALL_SECONDS: Final = 5.0
SOON_SECONDS: Final = 0.02
"""Changes that come together are told together."""


class LayoutExchange:
    """Started after the first link may come up, stopped before the last goes."""

    def __init__(self, layout: ClusterLayout, cluster: Cluster) -> None:
        self._layout = layout
        self._cluster = cluster
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        cluster.endpoints.serve(ENDPOINT, self._answer)
        layout.on_change(self._changed.set)
        layout.on_release(self._changed.set)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def hurry(self) -> None:
        """Tell all peers soon, as after a change; whoever meets a new peer calls it."""
        self._changed.set()

    async def exchange_with(self, node: NodeId) -> None:
        """Both know what either knew on return. Raises what the call raises, StorageFailed."""
        mine = self._layout.history.encode()
        reply = await self._call(node, [_digest(mine), None])
        if reply is None:
            return
        theirs = LayoutHistory.decode(reply)
        await self._layout.merge(theirs)
        merged = self._layout.history.encode()
        if merged != reply:
            await self._call(node, [_digest(merged), merged])

    async def _call(self, node: NodeId, payload: list[bytes | None]) -> bytes | None:
        answer = await self._cluster.call(
            node, ENDPOINT, payload, timeout=CALL_SECONDS, priority=URGENT
        )
        if answer.payload is not None and not isinstance(answer.payload, bytes):
            raise InvalidArgument("a peer's answer is no layout")
        return answer.payload

    async def _answer(self, request: Request) -> bytes | None:
        match request.payload:
            case [bytes() as digest, None]:
                mine = self._layout.history.encode()
                return None if _digest(mine) == digest else mine
            case [bytes(), bytes() as theirs]:
                await self._layout.merge(LayoutHistory.decode(theirs))
                return None
        raise InvalidArgument("expected a digest and a layout")

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            await self._round()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROUND_SECONDS):
                    await self._changed.wait()
                await asyncio.sleep(SOON_SECONDS)

    async def _round(self) -> None:
        try:
            if self._layout.may_advance:
                await self._layout.advance()
        except GarageLiteError as error:
            log.warning("the layout can't be acknowledged: %s", error)
        peers = sorted(self._cluster.peers.connected())
        await asyncio.gather(*(self._try(node) for node in peers))

    async def _try(self, node: NodeId) -> None:
        try:
            await self.exchange_with(node)
        except GarageLiteError as error:
            log.debug("no layout from node %s: %s", node.hex()[:16], error)


def _digest(encoded: bytes) -> bytes:
    return blake3(encoded).digest()
