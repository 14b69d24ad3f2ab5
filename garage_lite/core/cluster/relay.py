"""Two nodes that can't reach each other talk through a third that is linked to both.

    mesh/relay:   target's id, stream -> nil, stream      asked of the third node, which asks the
    mesh/relayed: caller's id, stream -> nil, stream      target; both streams are passed on as
                                                          they come

Inside runs a link as on a socket (relay_transport.py), with a handshake of its own. Bounded: the
third node carries RELAYS_MAX links at once, of them few for one caller, and holds at most a
window of each direction. Only direct links are used for relaying, so there are no chains.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, Final
from weakref import WeakSet

from garage_lite.core.cluster.link_table import LinkTable
from garage_lite.core.cluster.relay_transport import RelayTransport
from garage_lite.core.cluster.rpc import Reply, Request
from garage_lite.core.cluster.transport import Link, LinkUser, Unreachable
from garage_lite.core.errors import NodeError, Unavailable
from garage_lite.core.ids import NODE_ID_BYTES, NodeId
from garage_lite.core.wire.frames import WireDamaged
from garage_lite.core.wire.handshake import Handshake
from garage_lite.core.wire.outbox import BULK

log = logging.getLogger(__name__)

RELAY: Final = "mesh/relay"
RELAYED: Final = "mesh/relayed"
RELAYS_MAX: Final = 8
"""Carried for others at once: two windows of 256 KiB each, 4 MiB together."""
RELAYS_OF_ONE_MAX: Final = 4
"""For one of them: two nodes in three homes need one each."""
CALL_SECONDS: Final = 10.0


class NoRelay(Unavailable):
    """This node can't relay to that one."""


class Relays:
    """One for the node: what it carries for others, and its own links through others."""

    def __init__(self, links: LinkTable, accept: Callable[[], Link]) -> None:
        """`accept` makes a link for a connection from outside."""
        self._links = links
        self._accept = accept
        self._carried: Counter[NodeId] = Counter()
        self._own: WeakSet[Link] = WeakSet()

    def made(self, link: Link) -> bool:
        """Whether it is a link of this node's through another."""
        return link in self._own

    @property
    def carried(self) -> int:
        """Links of others that pass through this node."""
        return self._carried.total()

    # --- this node's own

    async def reach(
        self, node: NodeId, handshake: Callable[[], Handshake], user: Callable[[Link], LinkUser]
    ) -> Link:
        """A link to a node through whoever is linked to it and willing; the nearest is asked
        first. Raises Unreachable."""
        failure: NodeError = Unreachable("no other node is connected")
        for via in self._links.direct():
            if via != node:
                try:
                    return await self._reach_through(via, node, Link(handshake(), user))
                except NodeError as error:
                    failure = error
        raise Unreachable(f"nor through another node: {failure.message}")

    async def _reach_through(self, via: NodeId, node: NodeId, link: Link) -> Link:
        up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        link.on_up = lambda _: None if up.done() else up.set_result(None)
        transport = RelayTransport(link)
        try:
            reply = await self._call(via, RELAY, node, transport.outgoing())
        except BaseException:
            transport.close()
            raise
        assert reply.stream is not None
        self._own.add(link)
        transport.start(reply.stream)
        try:
            await asyncio.wait([up, link.closed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not link.is_up:
                link.abort(Unreachable("the handshake did not end"))
        if not link.is_up:
            raise Unreachable(f"the link through node {via.hex()[:16]} failed: {link.error}")
        return link

    async def answer(self, request: Request) -> Any:
        """Another node wants to talk to this one, through the caller."""
        if request.stream is None:
            raise WireDamaged("a relayed link without a stream")
        link = self._accept()
        self._own.add(link)
        transport = RelayTransport(link)
        transport.start(request.stream)
        return Reply(None, transport.outgoing())

    # --- for others

    async def carry(self, request: Request) -> Any:
        """Pass a peer's link on to another peer. Raises NoRelay."""
        target, peer = request.payload, request.peer
        if not isinstance(target, bytes) or len(target) != NODE_ID_BYTES or request.stream is None:
            raise WireDamaged("a call to relay that names no node, or has no stream")
        if NodeId(target) not in self._links.direct():
            raise NoRelay("this node is not linked to that one")
        if self.carried >= RELAYS_MAX or self._carried[peer] >= RELAYS_OF_ONE_MAX:
            raise NoRelay("this node relays as much as it may already")
        self._carried[peer] += 1
        try:
            stream = _to_the_end(request.stream)
            reply = await self._call(NodeId(target), RELAYED, peer, stream)
        except BaseException:
            self._done(peer)
            raise
        log.info("Relaying for node %s to node %s", peer.hex()[:16], target.hex()[:16])
        assert reply.stream is not None
        return Reply(None, self._back(reply.stream, peer))

    async def _back(self, stream: AsyncIterator[bytes], peer: NodeId) -> AsyncIterator[bytes]:
        try:
            async for piece in stream:
                yield piece
        finally:
            self._done(peer)

    def _done(self, peer: NodeId) -> None:
        self._carried[peer] -= 1
        if not self._carried[peer]:
            del self._carried[peer]

    async def _call(
        self, node: NodeId, endpoint: str, payload: Any, stream: AsyncIterator[bytes]
    ) -> Reply:
        best = self._links.best(node)
        if best is None:
            raise NoRelay("this node is not linked to that one")
        return await best.session.call(
            endpoint, payload, timeout=CALL_SECONDS, priority=BULK, stream=stream
        )


async def _to_the_end(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A caller's stream, which ends in order also when the caller's link is lost: the target then
    closes its side, which ends the way back."""
    with contextlib.suppress(NodeError):
        async for piece in stream:
            yield piece
