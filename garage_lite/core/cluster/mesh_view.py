"""The nodes around this one, as people are shown them."""

from __future__ import annotations

from dataclasses import dataclass

from garage_lite.core.cluster.link_table import LinkTable
from garage_lite.core.ids import NodeId
from garage_lite.core.wire.address import Address
from garage_lite.core.wire.greeting import Facts
from garage_lite.core.wire.peering import PeerBook


@dataclass(frozen=True, slots=True)
class PeerView:
    """A known node."""

    node: NodeId
    address: Address | None
    is_up: bool
    seen_seconds_ago: float | None
    round_trip: float | None
    """Seconds; None where unknown."""
    skew_us: int | None
    """How far its clock is ahead of this node's; None where unknown."""
    relayed: bool
    facts: Facts
    """What it told last."""


def view_of(node: NodeId, book: PeerBook, links: LinkTable, now_us: int) -> PeerView:
    """A node of the book, at that monotonic time."""
    best, known = links.best(node), book.nodes[node]
    facts, places = links.facts(node), book.addresses(node)
    if best is None:
        seen_ms = known.seen_ms
        ago = None if seen_ms is None else (now_us // 1000 - seen_ms) / 1000
        address = places[0] if places else None
        return PeerView(node, address, False, ago, None, None, False, facts)
    round_trip_us = best.pulse.round_trip_us(now_us)
    return PeerView(
        node=node,
        address=best.address,
        is_up=True,
        seen_seconds_ago=0,
        round_trip=round_trip_us / 1_000_000 if round_trip_us < float("inf") else None,
        skew_us=best.pulse.skew_us,
        relayed=best.name.relayed,
        facts=facts,
    )
