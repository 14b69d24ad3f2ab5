"""Who holds which rows by the layout, as sync and recovery ask it. Decides, and touches nothing."""

from __future__ import annotations

from garage_lite.core.ids import NodeId
from garage_lite.core.layout.lookup import Lookup, NodeSet
from garage_lite.core.quorum import Consistency, quorums
from garage_lite.core.table.digest import Place, Realm
from garage_lite.core.table.recovery import Sources


def holders(lookup: Lookup, place: Place) -> list[NodeSet]:
    """The write set of each active version, oldest first."""
    if place.realm is Realm.EVERYWHERE:
        return lookup.everywhere_sets()
    return lookup.write_sets(place.partition, data=place.realm is Realm.DATA)


def nodes_of(lookup: Lookup, place: Place) -> list[NodeId]:
    """All holders in any active version."""
    return list(dict.fromkeys(node for one in holders(lookup, place) for node in one.nodes))


def places_of(lookup: Lookup, node: NodeId) -> list[Place]:
    """What the node holds in an active version."""
    found = [Place(Realm.EVERYWHERE, 0)] if node in lookup.nodes else []
    for realm in (Realm.METADATA, Realm.DATA):
        partitions = lookup.partitions_of(node, data=realm is Realm.DATA)
        found += [Place(realm, partition) for partition in partitions]
    return found


def sources(lookup: Lookup, place: Place, here: NodeId) -> Sources:
    """By the version that is read. A place that no other node holds needs nobody."""
    if place.realm is Realm.EVERYWHERE:
        sets = holders(lookup, place)
        readers = sets[-1] if sets else None
    else:
        readers = lookup.read_set(place.partition, data=place.realm is Realm.DATA)
    if readers is None:
        return Sources(frozenset(), 0)
    others = frozenset(readers.nodes) - {here}
    count = len(readers.nodes)
    needed = count - quorums(count, Consistency.CONSISTENT).write + 1
    return Sources(others, min(needed, len(others)))


class Pushes:
    """Which nodes have what this one had when no write ran any more under an older version than
    `number`, the ack floor. Begins anew with each floor; a restart begins anew too."""

    def __init__(self) -> None:
        self.number = -1
        self._done: dict[Place, set[NodeId]] = {}

    def begin(self, number: int) -> None:
        if number != self.number:
            self.number = number
            self._done = {}

    def pushed(self, number: int, place: Place, node: NodeId) -> None:
        """In an exchange that began at ack floor `number`."""
        if number == self.number:
            self._done.setdefault(place, set()).add(node)

    def left(self, lookup: Lookup, here: NodeId) -> list[Place]:
        """The places that no write quorum of version `number` has yet: one dead node does not
        stop a layout change."""
        return [place for place in places_of(lookup, here) if self._lacks(lookup, here, place)]

    def _lacks(self, lookup: Lookup, here: NodeId, place: Place) -> bool:
        have = self._done.get(place, set()) | {here}
        return any(
            one.version == self.number and len(have & set(one.nodes)) < one.needed
            for one in holders(lookup, place)
        )
