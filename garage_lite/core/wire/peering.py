"""What a node knows of its peers, and what to do about them next: facts and time in, plans out.

A `PeerBook` holds, for each node, the addresses it is said to have and how fresh each is; when to
dial it again; when it was last seen. Nodes tell each other their books (`gossip`, `merge`): ages
travel instead of dates, so that no clock has to be right. An address is as fresh as the last time
anybody was linked to its node there or heard it from that node itself; the freshest few are kept,
the same on every node. Two nodes that dial each other at once get two links; `preferred` is the
one that both of them keep. Must not know sockets, nor who is admitted. Times are monotonic
milliseconds.

    gossip = [ [node id, ms since it was seen, [[address, ms since it was good], ...]], ... ]
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, NamedTuple

from garage_lite.core.ids import NODE_ID_BYTES, NodeId
from garage_lite.core.wire.address import Address, TcpAddress, parse_tcp_address
from garage_lite.core.wire.frames import WireDamaged

ADDRESSES_MAX: Final = 8
"""Of one node, besides those that were configured: LAN and public, IPv4, IPv6 and a name, and
what is left of the last move."""
PEERS_MAX: Final = 256
"""As many as links may be open."""
HOST_CHARS_MAX: Final = 253
"""The longest DNS name."""
FORGET_MS: Final = 10 * 24 * 3_600_000
"""Not seen by anybody for this long: the node is no longer told of, nor dialled."""
DIAL_FIRST_MS: Final = 500
DIAL_MAX_MS: Final = 60_000
RELAYED_MS: Final = 120_000
"""Between dials of a node that is linked through another one."""
YIELD_MS: Final = 1_500
"""The node with the greater id lets the other dial first, so that they seldom dial at once."""


class Source(IntEnum):
    """Where an address comes from, the most trusted first."""

    CONFIGURED = 0
    """bootstrap_peers, `node connect`, discovery: kept for ever."""
    TOLD = 1
    """By the node itself, or it was linked to there."""
    GOSSIPED = 2
    """By another node, or by this one before its restart."""


@dataclass(slots=True)
class Place:
    """One address of a node."""

    source: Source
    good_ms: int
    """When it last was known to be good."""
    failures: int = 0
    """Dials from here since it last worked from here."""


@dataclass(slots=True)
class Known:
    """One node."""

    places: dict[Address, Place] = field(default_factory=dict)
    seen_ms: int | None = None
    """When anybody last had a link to it."""
    linked: frozenset[Address] | None = None
    """While this node has a link to it: the addresses that are good by that."""
    relayed: bool = False
    """Whether that link goes through another node: it is still dialled, now and then."""
    attempts: int = 0
    dial_at_ms: int = 0
    dialing: bool = False


class PeerBook:
    """All that `me` knows of the others."""

    def __init__(self, me: NodeId) -> None:
        self._me = me
        self.nodes: dict[NodeId, Known] = {}

    # --- what is learnt

    def learn(
        self, node: NodeId, address: Address, source: Source, now_ms: int, age_ms: int = 0
    ) -> bool:
        """`node` is said to have `address`, good `age_ms` ago. Whether that is news.

        News makes the node dialled soon. Nothing is learnt of this node itself, nor of more than
        PEERS_MAX others unless they are configured.
        """
        if node == self._me:
            return False
        known = self.nodes.get(node) or self._meet(node, source)
        if known is None:
            return False
        good_ms = now_ms - age_ms
        place = known.places.get(address)
        if place is not None:
            place.source = min(place.source, source)
            place.good_ms = max(place.good_ms, good_ms)
            return False
        if source is not Source.CONFIGURED and not _make_place(known, good_ms):
            return False
        known.places[address] = Place(source, good_ms)
        if known.linked is None or known.relayed:
            yielding = YIELD_MS if self._me > node and source is not Source.CONFIGURED else 0
            known.attempts = 0
            known.dial_at_ms = now_ms + yielding
        return True

    def _meet(self, node: NodeId, source: Source) -> Known | None:
        if len(self.nodes) >= PEERS_MAX and not self._make_room(source):
            return None
        known = self.nodes[node] = Known()
        return known

    def _make_room(self, source: Source) -> bool:
        """Drop the unlinked node that nobody has seen for longest; false if all must stay."""
        droppable = [
            (known.seen_ms if known.seen_ms is not None else -1, node)
            for node, known in self.nodes.items()
            if known.linked is None and not _is_configured(known)
        ]
        if not droppable:
            return source is Source.CONFIGURED
        del self.nodes[min(droppable)[1]]
        return True

    def linked(
        self, node: NodeId, addresses: Iterable[Address], now_ms: int, relayed: bool = False
    ) -> None:
        """There is a link to it now, and by that these addresses are good."""
        known = self.nodes.setdefault(node, Known())
        known.linked = frozenset(addresses)
        if relayed and not known.relayed:
            known.dial_at_ms = now_ms + RELAYED_MS
        known.relayed = relayed
        known.seen_ms, known.attempts = now_ms, 0
        for address in known.linked:
            if address in known.places:
                known.places[address].good_ms = now_ms

    def lost(self, node: NodeId, now_ms: int, fraction: float) -> None:
        """The last link to it is gone. `fraction` (0 to 1, random) spreads the first dials."""
        known = self.nodes.get(node)
        if known is None or known.linked is None:
            return
        self._refresh(known, now_ms)
        known.linked = None
        known.relayed = False
        known.attempts = 0
        yielding = YIELD_MS if self._me > node else 0
        known.dial_at_ms = now_ms + yielding + int(DIAL_FIRST_MS * fraction)

    def _refresh(self, known: Known, now_ms: int) -> None:
        if known.linked is not None:
            known.seen_ms = now_ms
            for address in known.linked:
                if address in known.places:
                    known.places[address].good_ms = now_ms

    # --- dialling

    def due(self, now_ms: int) -> list[NodeId]:
        """Whom to dial now."""
        return [
            node
            for node, known in self.nodes.items()
            if self._waits(known) and known.dial_at_ms <= now_ms
        ]

    def next_due_ms(self) -> int | None:
        """When `due` next has somebody, as far as is known now."""
        return min((k.dial_at_ms for k in self.nodes.values() if self._waits(k)), default=None)

    @staticmethod
    def _waits(known: Known) -> bool:
        """A node without a known address may still be reached through another one."""
        if known.linked is not None:
            return known.relayed and not known.dialing and bool(known.places)
        return not known.dialing

    def addresses(self, node: NodeId) -> list[Address]:
        """In the order in which to try them: what failed least, then what was good last."""
        known = self.nodes.get(node)
        if known is None:
            return []
        ranked = sorted(
            known.places.items(),
            key=lambda item: (item[1].failures, -item[1].good_ms, item[1].source, str(item[0])),
        )
        return [address for address, _ in ranked]

    def dialing(self, node: NodeId) -> None:
        self.nodes[node].dialing = True

    def reached(self, node: NodeId, address: Address) -> None:
        """A dial there worked."""
        known = self.nodes.get(node)
        if known is not None:
            known.dialing = False
            if address in known.places:
                known.places[address].failures = 0

    def failed(
        self, node: NodeId, tried: Collection[Address] | None, now_ms: int, fraction: float
    ) -> None:
        """All of `tried` were in vain, or (None) the node was reached and did not want to. The
        next dial is after a pause that doubles each time, of which `fraction` (0 to 1, random)
        chooses a point in the second half; it is short if an address was learnt meanwhile."""
        known = self.nodes.get(node)
        if known is None:
            return
        known.dialing = False
        for address in tried or ():
            if address in known.places:
                known.places[address].failures += 1
        pause = min(DIAL_FIRST_MS << min(known.attempts, 16), DIAL_MAX_MS)
        known.attempts += 1
        if tried is not None and not known.places.keys() <= set(tried):
            pause = DIAL_FIRST_MS
        elif known.relayed:
            pause = RELAYED_MS
        known.dial_at_ms = now_ms + int(pause * (0.5 + fraction / 2))

    def hurry(self, node: NodeId, now_ms: int) -> None:
        """Dial it now, whatever failed before."""
        known = self.nodes.get(node)
        if known is not None:
            known.attempts, known.dial_at_ms = 0, now_ms

    # --- telling others

    def gossip(self, now_ms: int, only: Collection[NodeId] | None = None) -> list[Any]:
        """What others should know: the nodes that somebody has seen (of them `only` those), and
        their addresses."""
        told = []
        for node in sorted(self.nodes if only is None else self.nodes.keys() & set(only)):
            known = self.nodes[node]
            self._refresh(known, now_ms)
            if known.seen_ms is None or now_ms - known.seen_ms > FORGET_MS:
                continue
            places = [
                [str(address), max(now_ms - place.good_ms, 0)]
                for address, place in known.places.items()
                if isinstance(address, TcpAddress)
            ]
            freshest = sorted(places, key=lambda place: (place[1], place[0]))[:ADDRESSES_MAX]
            told.append([node, max(now_ms - known.seen_ms, 0), freshest])
        return told

    def merge(self, gossip: Any, now_ms: int, may: Callable[[NodeId], bool]) -> set[NodeId]:
        """Join what a peer tells, of nodes that `may` be known. The nodes of which there was news,
        which is to be told on. Raises WireDamaged if it is no gossip or too much of it; then
        nothing was learnt."""
        news: set[NodeId] = set()
        for node, seen_age_ms, places in read_gossip(gossip):
            if node == self._me or not may(node) or seen_age_ms > FORGET_MS:
                continue
            for address, age_ms in places:
                if self.learn(node, address, Source.GOSSIPED, now_ms, age_ms):
                    news.add(node)
            known = self.nodes.get(node) or self._meet(node, Source.GOSSIPED)
            if known is not None:
                seen_ms = now_ms - seen_age_ms
                if known.seen_ms is None:
                    news.add(node)
                known.seen_ms = seen_ms if known.seen_ms is None else max(known.seen_ms, seen_ms)
        return news

    # --- forgetting

    def forget(self, node: NodeId) -> None:
        """It is removed from the cluster."""
        self.nodes.pop(node, None)

    def forget_the_lost(self, now_ms: int, kept: Collection[NodeId]) -> list[NodeId]:
        """Drop the nodes that nobody has seen for FORGET_MS, except `kept` and configured ones.
        A node that was never seen is dropped once it was dialled often in vain."""
        gone = []
        for node, known in self.nodes.items():
            if known.linked is not None or node in kept or _is_configured(known):
                continue
            never = known.seen_ms is None and known.attempts >= 20
            if never or (known.seen_ms is not None and now_ms - known.seen_ms > FORGET_MS):
                gone.append(node)
        for node in gone:
            del self.nodes[node]
        return gone


def _is_configured(known: Known) -> bool:
    return any(place.source is Source.CONFIGURED for place in known.places.values())


def _make_place(known: Known, good_ms: int) -> bool:
    """Room for one more address, at the cost of the stalest one if that is staler."""
    others = [
        (place.good_ms, str(address), address)
        for address, place in known.places.items()
        if place.source is not Source.CONFIGURED
    ]
    if len(others) < ADDRESSES_MAX:
        return True
    stalest_ms, _, stalest = min(others, key=lambda other: other[:2])
    if stalest_ms >= good_ms:
        return False
    del known.places[stalest]
    return True


def read_gossip(gossip: Any) -> list[tuple[NodeId, int, list[tuple[TcpAddress, int]]]]:
    """The parts of a gossip. Raises WireDamaged."""
    if not isinstance(gossip, list) or len(gossip) > 2 * PEERS_MAX:
        raise WireDamaged("a peer's gossip is too long or no list")
    return [_read_node(each) for each in gossip]


def _read_node(raw: Any) -> tuple[NodeId, int, list[tuple[TcpAddress, int]]]:
    match raw:
        case [bytes() as node, int() as age_ms, list() as places] if (
            len(node) == NODE_ID_BYTES and age_ms >= 0 and len(places) <= ADDRESSES_MAX
        ):
            return NodeId(node), age_ms, [_read_place(place) for place in places]
    raise WireDamaged("a peer's gossip names something that is no node")


def _read_place(raw: Any) -> tuple[TcpAddress, int]:
    match raw:
        case [str() as text, int() as age_ms] if age_ms >= 0:
            return read_address(text), age_ms
    raise WireDamaged("a peer's gossip names something that is no address")


def read_address(text: Any) -> TcpAddress:
    """An address that a peer tells. Raises WireDamaged."""
    if not isinstance(text, str) or len(text) > HOST_CHARS_MAX + 8:
        raise WireDamaged("a peer tells an address that is too long or no text")
    try:
        address = parse_tcp_address(text)
    except ValueError as error:
        raise WireDamaged(f"a peer tells a wrong address: {error}") from error
    if address.port == 0 or not address.host.isprintable():
        raise WireDamaged(f"a peer tells a wrong address: {text!r}")
    return address


class LinkName(NamedTuple):
    """A link as both of its ends name it."""

    relayed: bool
    opener: NodeId
    serial: int
    """Counts the links that its opener opened since its start."""


def preferred(links: Sequence[LinkName]) -> LinkName:
    """The one of several live links between the same two nodes that carries the calls: a direct
    one; then one that the node with the smaller id opened; then the newest."""
    return min(links, key=lambda link: (link.relayed, link.opener, -link.serial))
