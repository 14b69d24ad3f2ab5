"""Peers remember each other's stores, and tell each other when they meet.

A store has a random id and a sequence that only grows. A node of which a peer remembers another
id or a higher sequence has lost rows that it acknowledged: it begins to recover, and only when it
has said so does the peer remember the store as it is now. Must not know what recovering means.

    sync/hello: [store, sequence, aware, memory] -> [store, sequence, memory]
                memory: [store, sequence, missed] that I remember of you, or nil
                aware:  I know that your memory of me is right, and recover
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from garage_lite.core.cluster.node_state import NodeState
from garage_lite.core.cluster.peers import Cluster
from garage_lite.core.cluster.recovering import Recovering
from garage_lite.core.cluster.rpc import Request
from garage_lite.core.disk.metadata import MetadataStore
from garage_lite.core.errors import GarageLiteError, InvalidArgument
from garage_lite.core.ids import NodeId
from garage_lite.core.ports import Clock
from garage_lite.core.table.recovery import Seen
from garage_lite.core.wire.outbox import URGENT

log = logging.getLogger(__name__)

HELLO: Final = "sync/hello"
CALL_SECONDS: Final = 5.0
HELLO_SECONDS: Final = 15.0
"""So old at most is what is remembered of a peer that is connected."""
LOOK_SECONDS: Final = 1.0
LOOK_SECONDS_UNSURE: Final = 0.05
WRITE_DOWN_MS: Final = 600_000
"""How old the memory on disk may be, where nothing but the sequence has changed."""
_NEVER: Final = Seen(b"", 0, 0)


class PeerStores:
    """Started before the first link may come up, stopped before the last goes."""

    def __init__(
        self,
        cluster: Cluster,
        store: MetadataStore,
        state: NodeState,
        clock: Clock,
        recovering: Recovering,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._state = state
        self._clock = clock
        self._recovering = recovering
        self._seen: dict[NodeId, Seen] = {}
        self._written_ms: dict[NodeId, int] = {}
        self._aware: set[NodeId] = set()
        """Peers that were right about what this node lost, and do not know that it knows."""
        self.met: set[NodeId] = set()
        """Peers that were greeted since they came: both know what became of the other's store."""
        self._listeners: list[Callable[[NodeId], None]] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        cluster.endpoints.serve(HELLO, self._on_hello)

    def on_met(self, listener: Callable[[NodeId], None]) -> None:
        """`listener(node)` runs when a peer that came (back) has been greeted."""
        self._listeners.append(listener)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def hurry(self) -> None:
        """Somebody may have come: greet it now."""
        self._wake.set()

    # --- what is remembered

    def seen(self, node: NodeId) -> Seen:
        """From memory or disk. Raises StorageFailed."""
        if node not in self._seen:
            stored = self._state.get(_row(node))
            self._seen[node] = _NEVER if stored is None else Seen.decode(stored)
        return self._seen[node]

    def silent_ms(self, node: NodeId) -> int:
        """For how long nothing was heard of a peer; from the first time this is asked on, if
        nothing ever was."""
        if node == self._cluster.node:
            return 0
        seen, now_ms = self.seen(node), self._now_ms()
        if not seen.at_ms:
            self._seen[node] = seen = replace(seen, at_ms=now_ms)
        return now_ms - seen.at_ms

    async def missed(self, nodes: Iterable[NodeId]) -> None:
        """Tombstones are about to be forgotten without these nodes. Durable on return."""
        for node in nodes:
            if not self.seen(node).missed:
                await self._remember(node, replace(self.seen(node), missed=True), durable=True)

    async def _remember(self, node: NodeId, seen: Seen, *, durable: bool) -> None:
        self._seen[node] = seen
        if durable or seen.at_ms - self._written_ms.get(node, 0) >= WRITE_DOWN_MS:
            self._written_ms[node] = seen.at_ms
            await self._state.set(_row(node), seen.encode())

    # --- words

    async def greet(self, node: NodeId) -> None:
        """Both know on return what the other remembers, and act on it. Raises what a call
        raises, StorageFailed."""
        aware = node in self._aware
        reply = await self._cluster.call(
            node,
            HELLO,
            [*self._own(), aware, self._told_of(node)],
            timeout=CALL_SECONDS,
            priority=URGENT,
        )
        match reply.payload:
            case [bytes() as store, int() as sequence, memory]:
                if aware:
                    self._aware.discard(node)
                await self._heard(node, store, sequence, aware=False)
                lost = await self._told(node, memory)
            case _:
                raise InvalidArgument("a peer answered a greeting with nonsense")
        if lost and not aware:
            await self.greet(node)

    async def _on_hello(self, request: Request) -> list[Any]:
        match request.payload:
            case [bytes() as store, int() as sequence, bool() as aware, memory]:
                answer = [*self._own(), self._told_of(request.peer)]
                if aware:
                    answer[-1] = None
                await self._heard(request.peer, store, sequence, aware=aware)
                if await self._told(request.peer, memory):
                    self.hurry()
                return answer
        raise InvalidArgument("a peer sent no greeting")

    def _own(self) -> list[Any]:
        status = self._store.status()
        return [status.store_id, status.sequence]

    def _told_of(self, node: NodeId) -> list[Any] | None:
        seen = self.seen(node)
        return [seen.store, seen.sequence, seen.missed] if seen.store or seen.missed else None

    async def _heard(self, node: NodeId, store: bytes, sequence: int, *, aware: bool) -> None:
        before, now_ms = self.seen(node), self._now_ms()
        if aware or before.follows(store, sequence):
            seen = Seen(store, sequence, now_ms)
        else:
            seen = replace(before, at_ms=now_ms)
        durable = (seen.store, seen.missed) != (before.store, before.missed)
        await self._remember(node, seen, durable=durable)

    async def _told(self, node: NodeId, memory: Any) -> bool:
        """Whether a peer remembers more of this node than there is; then it recovers."""
        match memory:
            case [bytes() as store, int() as sequence, bool() as missed]:
                lost = not Seen(store, sequence, 0, missed).follows(*self._own())
            case None:
                lost = False
            case _:
                raise InvalidArgument("a peer sent no memory")
        if lost and node not in self._aware:
            why = "it was away for too long" if missed else "its metadata is new or older"
            stale = missed or store == self._store.status().store_id
            await self._recovering.begin(f"{why}, says node {node.hex()[:16]}", stale=stale)
            self._aware.add(node)
        self._recovering.became_sure()
        return lost

    # --- rounds

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_round = 0.0
        while True:
            self._wake.clear()
            connected = set(self._cluster.peers.connected())
            due = loop.time() >= next_round
            wanted = connected if due else connected - self.met | (connected & self._aware)
            if due:
                next_round = loop.time() + HELLO_SECONDS
            self.met &= connected
            greeted = await asyncio.gather(*(self._try(node) for node in sorted(wanted)))
            for node in sorted(
                node for node in greeted if node is not None and node not in self.met
            ):
                self.met.add(node)
                for listener in self._listeners:
                    listener(node)
            pause = LOOK_SECONDS if self._recovering.sure else LOOK_SECONDS_UNSURE
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _try(self, node: NodeId) -> NodeId | None:
        try:
            await self.greet(node)
        except GarageLiteError as error:
            log.debug("node %s was not greeted: %s", node.hex()[:16], error)
            return None
        return node

    def _now_ms(self) -> int:
        return self._clock.now_us() // 1000


def _row(node: NodeId) -> str:
    return f"peer store/{node.hex()}"
