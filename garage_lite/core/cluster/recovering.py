"""Whether rows may be missing here that this node has acknowledged once.

A node's store may be new, restored from an older state or damaged, or the node was away when
tombstones were forgotten. Then, place by place, until it has merged the rows of enough other
owners, it takes rows but answers no reads and deletes no block. Its peers remember its store; what
they say decides, and before the first of them has spoken the node is not sure of itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final

from blake3 import blake3

from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.holdings import places_of, sources
from garage_lite.core.cluster.node_state import NodeState
from garage_lite.core.disk.metadata import MetadataStore
from garage_lite.core.ids import BlockHash, NodeId, partition_of
from garage_lite.core.table.digest import Place, Realm, place_of
from garage_lite.core.table.recovery import Recovery, recovered

log = logging.getLogger(__name__)

UNSURE_SECONDS: Final = 10.0
"""After a start: how long to wait for a peer's word before answering without it, so that the last
one of two nodes still answers."""
_STATE: Final = "recovering"
_DAMAGE: Final = "recovered damage"


class Recovering:
    """See the module."""

    def __init__(self, store: MetadataStore, state: NodeState, layout: ClusterLayout) -> None:
        self._store = store
        self._state = state
        self._layout = layout
        self._here = layout.node
        stored = state.get(_STATE)
        self._under_way = Recovery.decode(stored) if stored is not None else None
        self._whole: dict[Place, set[NodeId]] = {}
        self._partial: dict[Place, set[NodeId]] = {}
        self._round = 0
        self._sure = False
        self._sure_at = asyncio.get_running_loop().time() + UNSURE_SECONDS
        self._changing = asyncio.Lock()

    @property
    def round(self) -> int:
        """Rises with each new loss: what was merged before it does not count after."""
        return self._round

    @property
    def sure(self) -> bool:
        """Whether a peer has said what it remembers of this node, or none did for a while."""
        return self._sure or asyncio.get_running_loop().time() >= self._sure_at

    def is_recovering(self, place: Place) -> bool:
        """Whether acknowledged rows of the place may be missing here, as far as is known."""
        if self._under_way is None or place in self._under_way.done:
            return False
        lookup = self._layout.lookup
        return not lookup.ready or bool(sources(lookup, place, self._here).others)

    def may_answer(self, key: bytes) -> bool:
        """Whether a read of this row may be answered."""
        if self._under_way is None and self._sure:
            return True
        place = _place_to_read(key)
        if place is None:
            return True
        if not self.sure and sources(self._layout.lookup, place, self._here).others:
            return False
        return not self.is_recovering(place)

    def knows_newest(self, key: bytes) -> bool:
        """Whether this node can say that nothing newer than an object row was acknowledged. Where
        the word of one owner is enough (two copies), that of the other decides."""
        place = _place_to_read(key)
        return (
            self.may_answer(key)
            or place is None
            or sources(self._layout.lookup, place, self._here).needed < 2
        )

    def is_stale(self, place: Place) -> bool:
        """Whether rows here may have been deleted since, with nothing left that says so."""
        under_way = self._under_way
        return under_way is not None and under_way.hides(place) and self.is_recovering(place)

    def hides(self, place: Place) -> bool:
        """Whether no peer may see the rows of a place, nor get them."""
        return not self.sure or self.is_stale(place)

    def may_empty(self, place: Place, whole: set[NodeId], partial: set[NodeId]) -> bool | None:
        """What to do with the rows of a stale place, given the peers that answer: True, drop
        them, others have all that was acknowledged; False, keep them, nobody has more; None:
        wait."""
        wanted = sources(self._layout.lookup, place, self._here)
        if len(wanted.others & whole) >= wanted.needed:
            return True
        return False if wanted.others <= whole | partial else None

    def any_data(self) -> bool:
        """Whether references to blocks may be missing here."""
        return any(place.realm is Realm.DATA for place in self.left())

    def knows_references(self, block: BlockHash) -> bool:
        """Whether all references to a block that should be here are: else it is not deleted."""
        return self.sure and not self.is_recovering(Place(Realm.DATA, partition_of(block)))

    def left(self) -> list[Place]:
        """The places not yet recovered."""
        if self._under_way is None:
            return []
        places = places_of(self._layout.lookup, self._here)
        return [place for place in places if self.is_recovering(place)]

    @property
    def why(self) -> str | None:
        """What was lost, in words; None: nothing."""
        return None if self._under_way is None else self._under_way.why

    # --- changes

    async def look_at_damage(self) -> None:
        """At the start: damage that was not recovered from before means a recovery."""
        damage = "\n".join(self._store.status().damage)
        known = blake3(damage.encode()).digest()
        if damage and self._state.get(_DAMAGE) != known:
            # Emptied too: what can't be read is then overwritten, and what a read of a damaged
            # place would say is unknown anyway.
            await self.begin("metadata is damaged", stale=True)
            await self._state.set(_DAMAGE, known)

    def became_sure(self) -> None:
        self._sure = True

    async def begin(self, why: str, *, stale: bool) -> None:
        """Rows may be missing, whatever was merged until now; `stale`: and some may be there
        that were deleted. Durable on return."""
        async with self._changing:
            log.warning("This node gets back what it may have lost from its peers: %s.", why)
            stale = stale or (self._under_way is not None and self._under_way.stale)
            self._under_way = Recovery(why, stale)  # holds at once, whatever becomes of the disk
            self._round += 1
            self._whole.clear()
            self._partial.clear()
            await self._keep(self._under_way)

    async def merged(
        self, places: Iterable[Place], node: NodeId, begun: int, partial: Collection[Place]
    ) -> None:
        """All rows that `node` has of the places are here, by exchanges begun in round `begun`;
        in those named `partial` the node itself was recovering."""
        async with self._changing:
            under_way = self._under_way
            if under_way is None or begun != self._round:
                return
            done = {place for place in places if self._is_recovered(place, node, partial)}
            if done:
                await self._keep(replace(under_way, done=under_way.done | done))

    def _is_recovered(self, place: Place, node: NodeId, partial: Collection[Place]) -> bool:
        if not self.is_recovering(place):
            return False
        met = self._partial if place in partial else self._whole
        met.setdefault(place, set()).add(node)
        wanted = sources(self._layout.lookup, place, self._here)
        return recovered(wanted, self._whole.get(place, ()), self._partial.get(place, ()))

    async def show(self, places: Collection[Place], begun: int) -> None:
        """Nothing stale is left in the places, as of round `begun`."""
        async with self._changing:
            under_way = self._under_way
            if places and under_way is not None and begun == self._round:
                await self._keep(replace(under_way, shown=under_way.shown | set(places)))

    async def _keep(self, under_way: Recovery) -> None:
        await self._state.set(_STATE, under_way.encode())
        self._under_way = under_way

    async def end_if_done(self) -> None:
        """Forget about it once every place of this node has its rows again."""
        async with self._changing:
            if self._under_way is None or not self._layout.lookup.ready or self.left():
                return
            if self._store.status().damage:
                await self._store.forget_damage()
                damage = "\n".join(self._store.status().damage)
                await self._state.set(_DAMAGE, blake3(damage.encode()).digest())
            await self._state.set(_STATE, None)
            log.info("This node has got back all rows that its peers have.")
            self._under_way = None


def _place_to_read(key: bytes) -> Place | None:
    """Inline bytes and counters are as complete as the versions they belong to."""
    place = place_of(key)
    if place is None and 0x10 <= key[0] < 0x20:
        return Place(Realm.METADATA, key[1])
    return place
