"""The assignment keeps its promises: rules, largest size, fewest moves, the same everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.errors import NotAllowedHere
from garage_lite.core.ids import PARTITIONS
from garage_lite.core.layout.assign import (
    Assignment,
    StorageNode,
    assign,
    largest_partition_size,
    size_fits,
)
from garage_lite.core.layout.flow import FlowGraph

Nodes = list[StorageNode]


@st.composite
def clusters(draw: st.DrawFn, most: int = 6) -> tuple[Nodes, int, int]:
    """Nodes, copies, spread that may or may not have an assignment."""
    zones = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=most))
    nodes = [
        StorageNode(bytes([index]) * 32, zone, draw(st.integers(0, 60)))
        for index, zone in enumerate(zones)
    ]
    copies = draw(st.integers(1, 4))
    return nodes, copies, draw(st.integers(1, copies))


def flow_reaches(nodes: Nodes, copies: int, spread: int, size: int, partitions: int) -> bool:
    """The textbook test of a partition size: the flow graph of the assignment, built plainly."""
    zones = sorted({node.zone for node in nodes})
    width = 2 + len(zones)
    graph = FlowGraph(2 + partitions * width + len(nodes))
    first_node = 2 + partitions * width
    for partition in range(partitions):
        plus = 2 + partition * width
        graph.add(0, plus, spread)
        graph.add(0, plus + 1, copies - spread)
        for place, zone in enumerate(zones):
            graph.add(plus, plus + 2 + place, 1)
            graph.add(plus + 1, plus + 2 + place, copies)
            for index, node in enumerate(nodes):
                if node.zone == zone:
                    graph.add(plus + 2 + place, first_node + index, 1)
    for index, node in enumerate(nodes):
        graph.add(first_node + index, 1, node.capacity // size)
    return graph.fill(0, 1) == partitions * copies


def check_rules(nodes: Nodes, copies: int, spread: int, found: Assignment, partitions: int) -> None:
    assert len(found.holders) == partitions
    loads = [0] * len(nodes)
    for holders in found.holders:
        assert len(set(holders)) == copies
        assert list(holders) == sorted(holders)
        assert len({nodes[index].zone for index in holders}) >= spread
        for index in holders:
            loads[index] += 1
    for node, load in zip(nodes, loads, strict=True):
        assert load * found.partition_size <= node.capacity


def choices(nodes: Nodes, copies: int, spread: int) -> list[tuple[int, ...]]:
    return [
        chosen
        for chosen in combinations(range(len(nodes)), copies)
        if len({nodes[index].zone for index in chosen}) >= spread
    ]


def fewest_moves(
    nodes: Nodes, copies: int, spread: int, size: int, previous: Sequence[frozenset[int]]
) -> int:
    """By trying everything, one partition after another, over the loads reached so far."""
    rooms = tuple(node.capacity // size for node in nodes)
    best = {rooms: 0}
    for held in previous:
        reached: dict[tuple[int, ...], int] = {}
        for left, moves in best.items():
            for chosen in choices(nodes, copies, spread):
                if all(left[index] > 0 for index in chosen):
                    rest = tuple(room - (i in chosen) for i, room in enumerate(left))
                    total = moves + len(set(chosen) - held)
                    reached[rest] = min(total, reached.get(rest, total))
        best = reached
    return min(best.values())


@given(clusters(), st.integers(1, 8), st.sampled_from([4, 8, 16]))
def test_the_closed_form_says_what_the_flow_says(
    cluster: tuple[Nodes, int, int], size: int, partitions: int
) -> None:
    nodes, copies, spread = cluster
    expected = flow_reaches(nodes, copies, spread, size, partitions)
    assert size_fits(nodes, copies, spread, size, partitions) is expected


@given(clusters(), st.sampled_from([1, 3, 8]))
def test_rules_hold_and_the_size_is_the_largest(
    cluster: tuple[Nodes, int, int], partitions: int
) -> None:
    nodes, copies, spread = cluster
    size = largest_partition_size(nodes, copies, spread, partitions)
    assert not flow_reaches(nodes, copies, spread, size + 1, partitions)
    if size == 0:
        with pytest.raises(NotAllowedHere):
            assign(nodes, copies, spread, partitions=partitions)
        return
    found = assign(nodes, copies, spread, partitions=partitions)
    assert found.partition_size == size
    check_rules(nodes, copies, spread, found, partitions)


@given(clusters(most=5), st.integers(1, 3), st.data())
def test_no_assignment_of_that_size_moves_less(
    cluster: tuple[Nodes, int, int], partitions: int, data: st.DataObject
) -> None:
    nodes, copies, spread = cluster
    if largest_partition_size(nodes, copies, spread, partitions) == 0:
        return
    held = st.frozensets(st.integers(0, len(nodes) - 1), max_size=copies)
    previous = [data.draw(held) for _ in range(partitions)]
    found = assign(nodes, copies, spread, previous, partitions)
    check_rules(nodes, copies, spread, found, partitions)
    moves = sum(len(set(now) - old) for now, old in zip(found.holders, previous, strict=True))
    assert moves == fewest_moves(nodes, copies, spread, found.partition_size, previous)


def _nodes(count: int, zones: int) -> Nodes:
    return [
        StorageNode(index.to_bytes(32, "big"), f"z{index % zones}", (500 + 97 * index) * 10**9)
        for index in range(count)
    ]


def _held(holders: Iterable[tuple[int, ...]]) -> list[frozenset[int]]:
    return [frozenset(held) for held in holders]


def test_nothing_moves_when_nothing_changes() -> None:
    nodes = _nodes(9, 3)
    first = assign(nodes, 3, 3)
    assert assign(nodes, 3, 3, _held(first.holders)) == first


def test_forty_nodes_in_five_zones() -> None:
    nodes = _nodes(40, 5)
    first = assign(nodes, 3, 3)
    check_rules(nodes, 3, 3, first, PARTITIONS)
    grown = _nodes(41, 5)
    second = assign(grown, 3, 3, _held(first.holders))
    check_rules(grown, 3, 3, second, PARTITIONS)
    moved = sum(
        len(set(now) - set(old)) for now, old in zip(second.holders, first.holders, strict=True)
    )
    assert moved <= 2 * PARTITIONS * 3 // 41


def test_equal_arguments_give_the_assignment_written_down_here() -> None:
    """Two machines must agree: a change of these numbers is a change of the layout's format."""
    found = assign(_nodes(5, 3), 2, 2)
    assert found.partition_size == 6_756_756_756
    assert found.holders[:4] == ((0, 4), (3, 4), (1, 3), (1, 2))


def test_a_lost_node_is_rebuilt_from_all_others() -> None:
    equal = [StorageNode(bytes([n]) * 32, f"z{n % 3}", 10**12) for n in range(9)]
    found = assign(equal, 3, 3)
    partners = {index for held in found.holders if 0 in held for index in held}
    assert partners == {0, 1, 2, 4, 5, 7, 8}


@pytest.mark.parametrize(
    ("nodes", "copies", "spread", "words"),
    [
        (_nodes(2, 2), 3, 2, "number of nodes with positive capacity (2)"),
        (_nodes(3, 1), 3, 2, "number of zones with non-gateway nodes (1)"),
        ([StorageNode(b"n", "z", 100)], 1, 1, "too small"),
    ],
)
def test_says_in_words_why_there_is_none(
    nodes: Nodes, copies: int, spread: int, words: str
) -> None:
    with pytest.raises(NotAllowedHere, match=words.replace("(", r"\(").replace(")", r"\)")):
        assign(nodes, copies, spread)
