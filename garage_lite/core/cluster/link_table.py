"""The links that are up, by node: which carries the calls, which are spare, which are dead.

Two nodes that dial each other at once have two links for a while. Both ends choose the same one
(`preferred`); the other is closed when no call runs on it any more. The book of peers is told
what changes. Must not know how links are made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, Final

from garage_lite.core.cluster.mesh_link import MeshLink
from garage_lite.core.cluster.transport import Unreachable
from garage_lite.core.ids import NodeId
from garage_lite.core.ports import Clock, Entropy
from garage_lite.core.wire.greeting import Facts
from garage_lite.core.wire.peering import PEERS_MAX, PeerBook, preferred

log = logging.getLogger(__name__)

SPARE_SECONDS: Final = 5.0
"""Until a second link to the same node is closed, and between looks whether it is idle."""
GOODBYE_SECONDS: Final = 1.0


class LinkTable:
    """One for the node."""

    def __init__(
        self,
        book: PeerBook,
        clock: Clock,
        entropy: Entropy,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        ping_seconds: float,
        lost: Callable[[], None],
    ) -> None:
        """`spawn` runs a coroutine as long as the mesh runs; `lost()` runs when a node can be
        called no more."""
        self._book = book
        self._clock = clock
        self._entropy = entropy
        self._spawn = spawn
        self._ping_seconds = ping_seconds
        self._lost = lost
        self._links: dict[NodeId, list[MeshLink]] = {}
        self._best: dict[NodeId, MeshLink] = {}
        self._last_facts: dict[NodeId, Facts] = {}
        """Of nodes that were linked and are not."""

    def best(self, node: NodeId) -> MeshLink | None:
        """The link that carries calls to the node."""
        return self._best.get(node)

    def facts(self, node: NodeId) -> Facts:
        """What the node told last; empty for one that was never linked."""
        best = self._best.get(node)
        return self._last_facts.get(node, {}) if best is None else best.facts

    def connected(self) -> Collection[NodeId]:
        return self._best.keys()

    def direct(self) -> list[NodeId]:
        """The nodes whose calls pass through no other, the nearest first."""
        now_us = self._clock.monotonic_us()
        links = [mine for mine in self._best.values() if not mine.name.relayed]
        links.sort(key=lambda mine: mine.pulse.round_trip_us(now_us))
        return [mine.node for mine in links]

    def best_links(self) -> Iterable[MeshLink]:
        return list(self._best.values())

    def of(self, node: NodeId) -> list[MeshLink]:
        """All links to the node."""
        return list(self._links.get(node, ()))

    def add(self, mine: MeshLink) -> bool:
        """A new link; whether the node could not be called before. Raises Unreachable if it is
        closed already."""
        node = mine.node
        if mine.link.closed.done():
            raise Unreachable("the link was lost while greeting")
        is_new = node not in self._best
        self._links.setdefault(node, []).append(mine)
        self._choose(node)
        mine.link.closed.add_done_callback(lambda _: self.drop(mine))
        self._spawn(mine.keep_alive(self._ping_seconds))
        if is_new:
            where = "through another node" if mine.name.relayed else f"at {mine.address}"
            log.info("Connected to node %s %s", node.hex()[:16], where)
        else:
            self._spawn(self._close_spares(node))
        return is_new

    def drop(self, mine: MeshLink) -> None:
        """The link is gone."""
        node = mine.node
        links = self._links.get(node, [])
        if mine not in links:
            return
        links.remove(mine)
        if links:
            self._choose(node)
            return
        del self._links[node], self._best[node]
        self._last_facts.pop(node, None)
        self._last_facts[node] = mine.facts
        if len(self._last_facts) > PEERS_MAX:
            del self._last_facts[next(iter(self._last_facts))]
        fraction = int.from_bytes(self._entropy.token(2), "big") / 65536
        self._book.lost(node, self._now_ms(), fraction)
        log.info("Lost node %s: %s", node.hex()[:16], mine.link.error or "it closed the link")
        self._lost()

    def cut(self, node: NodeId, error: Exception) -> None:
        """Close all links to the node, now."""
        for mine in self.of(node):
            mine.link.abort(error)
            self.drop(mine)

    async def close(self) -> None:
        """Say goodbye to all."""
        links = [mine.link for links in self._links.values() for mine in links]
        for link in links:
            link.close()
        if links:
            await asyncio.wait([link.closed for link in links], timeout=GOODBYE_SECONDS)
        for link in links:
            link.abort(Unreachable("this node is shutting down"))

    def _choose(self, node: NodeId) -> None:
        links = {mine.name: mine for mine in self._links[node]}
        self._best[node] = links[preferred(list(links))]
        addresses = {address for mine in links.values() for address in mine.addresses}
        relayed = self._best[node].name.relayed
        self._book.linked(node, () if relayed else addresses, self._now_ms(), relayed)

    async def _close_spares(self, node: NodeId) -> None:
        while len(self._links.get(node, ())) > 1:
            await asyncio.sleep(SPARE_SECONDS)
            for spare in self.of(node):
                if spare is not self._best[node] and spare.session.is_idle:
                    spare.link.close()

    def _now_ms(self) -> int:
        return self._clock.monotonic_us() // 1000
