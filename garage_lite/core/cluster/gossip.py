"""Nodes tell each other whom they know: addresses, and who is admitted.

Two nodes compare all they know when they meet; news goes on to every peer at once, and all is
compared with one peer now and then, in case something was missed. What is known is kept on disk,
so that after a restart of all nodes at once one good address is enough. The rules are
core/wire/peering.py and members.py.

    mesh/gossip: ["all", gossip, members] -> ["news", gossip, members]     all that is known
    mesh/gossip: ["news", gossip, members] -> ["news", [], []]             what changed
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

import msgpack

from garage_lite.core.cluster.admission import Admission, Memory
from garage_lite.core.cluster.rpc import Reply, Request
from garage_lite.core.errors import NodeError
from garage_lite.core.ids import NodeId
from garage_lite.core.ports import Clock
from garage_lite.core.wire.frames import WireDamaged
from garage_lite.core.wire.members import read_members
from garage_lite.core.wire.peering import PeerBook

log = logging.getLogger(__name__)

GOSSIP: Final = "mesh/gossip"
ALL: Final = "all"
NEWS: Final = "news"
ROUND_SECONDS: Final = 60.0
SOON_SECONDS: Final = 0.1
"""News that comes together is told together."""
CALL_SECONDS: Final = 10.0
_PEERS: Final = "peers"


class Gossip:
    """One for the node. `call` and `connected` are the mesh's."""

    def __init__(
        self,
        book: PeerBook,
        admission: Admission,
        clock: Clock,
        call: Callable[[NodeId, str, Any, float], Awaitable[Reply]],
        connected: Callable[[], Collection[NodeId]],
        learnt: Callable[[], None],
    ) -> None:
        """`learnt()` runs when there are new addresses to dial."""
        self._book = book
        self._admission = admission
        self._clock = clock
        self._call = call
        self._connected = connected
        self._learnt = learnt
        self._memory: Memory | None = None
        self._news = asyncio.Event()
        self._changed: set[NodeId] = set()
        """Of these nodes something is to be told on."""
        self._members_changed = False
        self._stale = False
        """Whether the disk knows less than the book."""
        self._turn = 0
        admission.on_change(self._tell_members)

    def load(self, memory: Memory) -> None:
        """Take up what was known before the restart."""
        self._memory = memory
        row = memory.get(_PEERS)
        if row is None:
            return
        try:
            stored = msgpack.unpackb(row, raw=False)
            self._book.merge(stored, self._now_ms(), self._admission.admits)
        except (ValueError, msgpack.UnpackException, WireDamaged) as error:
            log.warning("The list of known peers can't be read and is begun anew: %s", error)

    async def save(self) -> None:
        """What is known now is durable on return."""
        if self._memory is not None and self._stale:
            self._stale = False
            packed: bytes = msgpack.packb(self._book.gossip(self._now_ms()), use_bin_type=True)
            await self._memory.set(_PEERS, packed)

    def tell_on(self, nodes: Collection[NodeId]) -> None:
        """There is news of these nodes."""
        self._changed |= set(nodes)
        self._stale = True
        self._news.set()

    def _tell_members(self) -> None:
        self._members_changed = True
        self._news.set()

    async def exchange_with(self, node: NodeId) -> None:
        """Tell it all that is known here, and learn what it knows. Failures are the link's."""
        await self._tell(node, [ALL, self._book.gossip(self._now_ms()), self._members()])

    async def _tell(self, node: NodeId, told: list[Any]) -> None:
        try:
            reply = await self._call(node, GOSSIP, told, CALL_SECONDS)
            await self._take(reply.payload)
        except NodeError as error:
            log.debug("no gossip with node %s: %s", node.hex()[:16], error)

    async def answer(self, request: Request) -> Any:
        """A peer tells what it knows. Raises WireDamaged if it makes no sense."""
        match request.payload:
            case [what, *_] if what == ALL:
                answer = [NEWS, self._book.gossip(self._now_ms()), self._members()]
            case _:
                answer = [NEWS, [], []]
        await self._take(request.payload)
        return answer

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with asyncio.timeout(ROUND_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                await self._exchange_with_one()
                continue
            await asyncio.sleep(SOON_SECONDS)
            self._news.clear()
            await self._tell_news()
            try:
                await self.save()
            except NodeError as error:
                log.warning("Can't keep the list of known peers: %s", error)

    async def _exchange_with_one(self) -> None:
        """The next peer in turn."""
        peers = sorted(self._connected())
        if peers:
            self._turn += 1
            await self.exchange_with(peers[self._turn % len(peers)])
        self._book.forget_the_lost(self._now_ms(), ())

    async def _tell_news(self) -> None:
        changed, self._changed = self._changed, set()
        members = self._members() if self._members_changed else []
        self._members_changed = False
        news = [NEWS, self._book.gossip(self._now_ms(), changed), members]
        await asyncio.gather(*(self._tell(node, news) for node in self._connected()))

    def _members(self) -> list[Any]:
        return self._admission.members.told()

    async def _take(self, payload: Any) -> None:
        match payload:
            case [str(), gossip, members]:
                await self._admission.merge(read_members(members))
                news = self._book.merge(gossip, self._now_ms(), self._admission.admits)
                if news:
                    self.tell_on(news)
                    self._learnt()
                return
        raise WireDamaged("a peer's gossip can't be read")

    def _now_ms(self) -> int:
        return self._clock.monotonic_us() // 1000
