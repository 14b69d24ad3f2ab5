"""The choice among equal replicas: even, stable, and the same everywhere."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.block.maglev import Maglev
from garage_lite.core.ids import BlockHash, NodeId
from tests.core.blocks_on_disk import named

NODES = [NodeId(bytes([number]) * 32) for number in range(1, 8)]
BLOCKS = [named(number.to_bytes(4, "big")) for number in range(3000)]


def test_each_node_is_preferred_by_its_share_of_the_blocks() -> None:
    maglev = Maglev(NODES[:3])
    chosen = Counter(maglev.order(block, NODES[:3])[0] for block in BLOCKS)
    assert all(900 < chosen[node] < 1100 for node in NODES[:3])


def test_a_few_of_many_share_evenly_too() -> None:
    maglev = Maglev(NODES)
    chosen = Counter(maglev.order(block, NODES[2:5])[0] for block in BLOCKS)
    assert all(850 < chosen[node] < 1150 for node in NODES[2:5])


def test_a_node_that_goes_takes_no_other_choice_with_it() -> None:
    before, after = Maglev(NODES), Maglev(NODES[1:])
    moved = sum(
        before.order(block, NODES)[0] != after.order(block, NODES[1:])[0]
        for block in BLOCKS
        if before.order(block, NODES)[0] != NODES[0]
    )
    assert moved < len(BLOCKS) // 10


def test_without_the_first_choice_the_next_in_order_is_first() -> None:
    maglev = Maglev(NODES)
    for block in BLOCKS[:100]:
        order = maglev.order(block, NODES)
        assert maglev.order(block, order[1:]) == order[1:]


@given(st.sets(st.sampled_from(NODES)), st.sets(st.sampled_from(NODES)), st.binary(min_size=32))
def test_every_node_asked_for_is_there_once(
    table: set[NodeId], among: set[NodeId], name: bytes
) -> None:
    order = Maglev(table, 101).order(BlockHash(name[:32]), among)
    assert sorted(order) == sorted(among)
    assert order == Maglev(sorted(table, reverse=True), 101).order(BlockHash(name[:32]), among)
    known = [node in table for node in order]
    assert known == sorted(known, reverse=True), "strangers come last"
