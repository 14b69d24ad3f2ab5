"""What this node tells its peers of its rows, so that both come to hold the same.

Digests first, then keys and hashes of the buckets that differ, then rows; what the other lacks it
gets by rows/write. A place is [realm, partition]; every answer is bounded, whatever is asked.

    sync/digests: [layout version, [[realm, partition, summary], ...]]
                  -> [[true | digest | nil, recovering], ...]
                     true: the same rows; nil: nothing to tell yet, ask again
    sync/hashes:  [layout version, realm, partition, buckets, after, up to | nil]
                  -> [[key, hash, ...], reach | nil]          rows of after < key <= up to
    sync/rows:    [layout version, realm, partition, [key, ...]]
                  -> [[[key, value] | [key, value, inline bytes], ...], how many keys that covers]
"""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import Any, Final

from blake3 import blake3

from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.peers import Endpoints
from garage_lite.core.cluster.recovering import Recovering
from garage_lite.core.cluster.row_digests import RowDigests
from garage_lite.core.cluster.rpc import Request
from garage_lite.core.errors import InvalidArgument, StaleLayout, Unavailable
from garage_lite.core.limits import ROWS_ANSWER_BYTES_MAX
from garage_lite.core.table.digest import BUCKETS, Digest, Place, Realm, place_of
from garage_lite.core.table.schema import View
from garage_lite.core.table.sync import Travelling, size_of, with_inline

DIGESTS: Final = "sync/digests"
HASHES: Final = "sync/hashes"
ROWS: Final = "sync/rows"
SUMMARY_BYTES: Final = 16
PLACES_MAX: Final = 64
"""Of one question for digests."""
COMPUTE_SECONDS: Final = 5.0
"""How long an answer may take to compute digests; what takes longer goes on without it."""
_ANSWERS_AT_ONCE: Final = 4
_REALMS: Final = frozenset(Realm)


def summary(digest: Digest) -> bytes:
    """SUMMARY_BYTES that differ where digests differ."""
    return blake3(digest.encode()).digest(SUMMARY_BYTES)


class SyncService:
    """Serves at the cluster's endpoints from now on."""

    def __init__(
        self,
        view: View,
        digests: RowDigests,
        layout: ClusterLayout,
        recovering: Recovering,
        endpoints: Endpoints,
    ) -> None:
        """`view`: durable rows."""
        self._view = view
        self._digests = digests
        self._layout = layout
        self._recovering = recovering
        self._answers = asyncio.Semaphore(_ANSWERS_AT_ONCE)
        endpoints.serve(DIGESTS, self._on_digests)
        endpoints.serve(HASHES, self._on_hashes)
        endpoints.serve(ROWS, self._on_rows)

    def _refuse_stale(self, version: int) -> None:
        if version < self._layout.lookup.ack_floor:
            raise StaleLayout(f"layout version {version} is no longer in use")

    async def _on_digests(self, request: Request) -> list[Any]:
        match request.payload:
            case [int() as version, list() as asked] if len(asked) <= PLACES_MAX:
                self._refuse_stale(version)
                places = [_place(*one[:2]) for one in asked]
                found = await self._compute(places)
                return [
                    [_compared(found.get(place), one[2]), self._recovering.is_recovering(place)]
                    for place, one in zip(places, asked, strict=True)
                ]
        raise InvalidArgument("a peer asked for what are no digests")

    async def _compute(self, places: list[Place]) -> dict[Place, Digest]:
        """Those that are there in time."""
        places = [place for place in places if not self._recovering.hides(place)]
        unknown = [place for place in places if self._digests.known(place) is None]
        if unknown:
            waits = [asyncio.ensure_future(self._digests.of(place)) for place in unknown]
            done, late = await asyncio.wait(waits, timeout=COMPUTE_SECONDS)
            for wait in late:
                wait.cancel()
            for wait in done:
                wait.result()
        known = {place: self._digests.known(place) for place in places}
        return {place: digest for place, digest in known.items() if digest is not None}

    async def _on_hashes(self, request: Request) -> list[Any]:
        match request.payload:
            case [
                int() as version,
                realm,
                partition,
                bytes() as buckets,
                bytes() as after,
                bytes() | None as up_to,
            ]:
                self._refuse_stale(version)
                wanted = {bucket for bucket in buckets if bucket < BUCKETS}
                place = self._shown(realm, partition)
                async with self._answers:
                    page = await self._digests.hashes(place, wanted, after, up_to)
                return [list(chain.from_iterable(page.by_key.items())), page.reach]
        raise InvalidArgument("a peer asked for what are no hashes")

    async def _on_rows(self, request: Request) -> list[Any]:
        match request.payload:
            case [int() as version, realm, partition, list() as keys]:
                self._refuse_stale(version)
                return self._rows(self._shown(realm, partition), keys)
        raise InvalidArgument("a peer asked for what are no rows")

    def _shown(self, realm: Any, partition: Any) -> Place:
        place = _place(realm, partition)
        if self._recovering.hides(place):
            raise Unavailable("rows that may be stale are not shown")
        return place

    def _rows(self, place: Place, keys: list[Any]) -> list[Any]:
        rows: list[Travelling] = []
        size = covered = 0
        for key in keys:
            if not isinstance(key, bytes) or len(key) < 2 or place_of(key) != place:
                raise InvalidArgument("a peer asked for what is no row of the place")
            value = self._view.get(key)
            found = [] if value is None else list(with_inline([(key, value)], self._view.get))
            size += sum(map(size_of, found))
            if rows and size > ROWS_ANSWER_BYTES_MAX:
                break
            rows += found
            covered += 1
        return [rows, covered]


def _place(realm: Any, partition: Any) -> Place:
    if realm in _REALMS and isinstance(partition, int) and 0 <= partition < 256:
        return Place(Realm(realm), partition)
    raise InvalidArgument("a peer asked for what is no partition")


def _compared(digest: Digest | None, other: Any) -> bool | bytes | None:
    if digest is None:
        return None
    return True if summary(digest) == other else digest.encode()
