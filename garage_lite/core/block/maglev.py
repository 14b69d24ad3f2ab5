"""Which of several equally near replicas a block is read from: the same one each time.

Then the page caches of three small boards hold three different thirds of the blocks, and a node
that goes or comes changes the choice of few blocks but its own. Maglev hashing: Eisenbud et al.,
"Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4. Must not know
which nodes are up or how near they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from blake3 import blake3

from garage_lite.core.ids import BlockHash, NodeId

SLOTS: Final = 4099
"""A prime, a hundred times the nodes of the largest cluster expected: shares differ by 1 %."""
_SLOT_OF: Final = slice(8, 16)
"""Bytes of a hash that its partition and its folder do not use already."""


class Maglev:
    """The preferences of all blocks among `nodes`; the same wherever it is computed."""

    def __init__(self, nodes: Iterable[NodeId], slots: int = SLOTS) -> None:
        """`slots`: a prime, greater than the number of nodes."""
        self.nodes = tuple(sorted(set(nodes)))
        self._table = _filled(self.nodes, slots)

    def order(self, block: BlockHash, among: Collection[NodeId]) -> list[NodeId]:
        """The nodes `among`, the preferred first.

        The first is whom the block's slot names, the others those met in the slots after it.
        Nodes that are not in the table come last.
        """
        wanted = set(among)
        found: list[NodeId] = []
        start = int.from_bytes(block[_SLOT_OF], "big") % max(len(self._table), 1)
        for step in range(len(self._table)):
            node = self._table[(start + step) % len(self._table)]
            if node in wanted:
                wanted.discard(node)
                found.append(node)
            if not wanted:
                break
        return found + sorted(wanted)


def _filled(nodes: tuple[NodeId, ...], slots: int) -> list[NodeId]:
    """The table: the nodes take turns, each claims the next free slot of its own permutation."""
    if not nodes:
        return []
    turns = [_permutation(node, slots) for node in nodes]
    table: list[NodeId | None] = [None] * slots
    left = slots
    while left:
        for index, (at, skip) in enumerate(turns):
            while table[at] is not None:
                at = (at + skip) % slots
            table[at] = nodes[index]
            turns[index] = at, skip
            left -= 1
            if not left:
                break
    return [node for node in table if node is not None]


def _permutation(node: NodeId, slots: int) -> tuple[int, int]:
    """Where a node begins, and how far apart its choices are: all slots in turn, for a prime."""
    digest = blake3(node).digest()
    offset = int.from_bytes(digest[:8], "big") % slots
    return offset, int.from_bytes(digest[8:16], "big") % (slots - 1) + 1
