"""Makes the rows of a place the same here and at one peer: pulls, joins, pushes, page by page.

Both sides keep writing meanwhile; whatever was there on either side when an exchange began is on
both when it ends. Must not know when, why or with whom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.peers import Cluster
from garage_lite.core.cluster.row_digests import Hashes, RowDigests
from garage_lite.core.cluster.row_service import WRITE, Flags, RowService
from garage_lite.core.cluster.sync_service import DIGESTS, HASHES, ROWS, summary
from garage_lite.core.cluster.throttle import Throttle
from garage_lite.core.errors import StorageFailed
from garage_lite.core.ids import NodeId
from garage_lite.core.table.digest import Digest, Place, compare, row_hash
from garage_lite.core.table.schema import View
from garage_lite.core.table.sync import received, records, size_of, with_inline
from garage_lite.core.wire.outbox import BACKGROUND

CALL_SECONDS: Final = 30.0
"""A full answer at a modest share of a home's uplink."""
_PULLED_AT_ONCE: Final = 1024


def _never(place: Place) -> bool:
    return False


class Comparison(NamedTuple):
    """What a peer says of some places."""

    same: list[Place]
    differing: dict[Place, Digest]
    """With the peer's digest."""
    unknown: list[Place]
    """The peer is still computing: ask again later."""
    recovering: set[Place]
    """Of all these: where the peer itself may lack rows that it once had."""


class RowExchange:
    """For one node."""

    def __init__(
        self,
        cluster: Cluster,
        layout: ClusterLayout,
        view: View,
        rows: RowService,
        digests: RowDigests,
        throttle: Throttle,
    ) -> None:
        """`view`: durable rows; `throttle`: of all background traffic."""
        self._cluster = cluster
        self._layout = layout
        self._view = view
        self._rows = rows
        self._digests = digests
        self._throttle = throttle
        self.moved = 0
        """Rows pulled and pushed since the start."""

    async def compare(
        self, peer: NodeId, places: Sequence[Place], blind: Callable[[Place], bool] = _never
    ) -> Comparison:
        """Where the two differ; PLACES_MAX places at most. Of those where `blind(place)` this
        node's rows are not looked at, and differ. Raises what a call raises, StorageFailed."""
        asked = []
        for place in places:
            mine = b"" if blind(place) else summary(await self._digests.of(place))
            asked.append([int(place.realm), place.partition, mine])
        answer = await self._call(peer, DIGESTS, asked)
        if not isinstance(answer, list) or len(answer) != len(places):
            raise _nonsense()
        found = Comparison([], {}, [], set())
        for place, one in zip(places, answer, strict=True):
            match one:
                case [True, recovering]:
                    found.same.append(place)
                case [None, recovering]:
                    found.unknown.append(place)
                case [bytes() as digest, recovering]:
                    found.differing[place] = Digest(digest)
                case _:
                    raise _nonsense()
            if recovering:
                found.recovering.add(place)
        return found

    async def join(self, peer: NodeId, place: Place, theirs: Digest) -> None:
        """What either had when this began both have on return. `theirs`: the peer's digest.
        Raises what a call raises, DiskFull, StorageFailed."""
        buckets = bytes((await self._digests.of(place)).differing(theirs))
        after: bytes | None = b""
        while after is not None:
            mine = await self._digests.hashes(place, buckets, after, None)
            answer = await self._call(
                peer, HASHES, int(place.realm), place.partition, buckets, after, mine.reach
            )
            match answer:
                case [list() as flat, bytes() | None as reach] if len(flat) % 2 == 0:
                    others = Hashes(dict(zip(flat[::2], flat[1::2], strict=True)), reach)
                case _:
                    raise _nonsense()
            after = _next(after, mine.reach, others.reach)
            if after is not None:
                mine = Hashes({k: v for k, v in mine.by_key.items() if k <= after}, after)
            await self._reconcile(peer, place, mine.by_key, others.by_key)

    async def _reconcile(
        self, peer: NodeId, place: Place, mine: dict[bytes, bytes], theirs: dict[bytes, bytes]
    ) -> None:
        difference = compare(mine, theirs)
        await self._pull(peer, place, difference.pull)
        joined = [key for key in difference.pull if key in mine]
        held = ((key, self._view.get(key)) for key in (*difference.push, *joined))
        await self._push(
            peer,
            (
                (key, value)
                for key, value in held
                if value is not None and row_hash(key, value) != theirs.get(key)
            ),
        )

    async def _pull(self, peer: NodeId, place: Place, keys: list[bytes]) -> None:
        while keys:
            asked = keys[:_PULLED_AT_ONCE]
            answer = await self._call(peer, ROWS, int(place.realm), place.partition, asked)
            match answer:
                case [list() as rows, int() as covered] if 0 < covered <= len(asked):
                    taken = received(rows, place)
                case _:
                    raise _nonsense()
            await self._throttle.spend(sum(map(size_of, taken)))
            for record in records(taken):
                await self._rows.write(record, (), Flags.MERGE)
            self.moved += len(taken)
            keys = keys[covered:]

    async def _push(self, peer: NodeId, rows: Iterator[tuple[bytes, bytes]]) -> None:
        for record in records(with_inline(rows, self._view.get)):
            await self._throttle.spend(sum([size_of(update) for update in record]))
            await self._call(peer, WRITE, [tuple(one) for one in record], int(Flags.MERGE), ())
            self.moved += len(record)

    async def _call(self, peer: NodeId, endpoint: str, *payload: Any) -> Any:
        versions = self._layout.lookup.versions
        asked = [versions[-1] if versions else 0, *payload]
        reply = await self._cluster.call(
            peer, endpoint, asked, timeout=CALL_SECONDS, priority=BACKGROUND
        )
        return reply.payload


def _next(after: bytes, *reaches: bytes | None) -> bytes | None:
    """Up to where both are known; None: to the end."""
    bounds = [reach for reach in reaches if reach is not None]
    if bounds and min(bounds) <= after:
        raise _nonsense()
    return min(bounds, default=None)


def _nonsense() -> StorageFailed:
    return StorageFailed("a peer answered a sync with what is no answer")
