"""When lost rows are back, and whose word on a store counts."""

from __future__ import annotations

from itertools import combinations

import pytest

from garage_lite.core.errors import StorageFailed
from garage_lite.core.ids import NodeId
from garage_lite.core.quorum import Consistency, quorums
from garage_lite.core.table.digest import Place, Realm
from garage_lite.core.table.recovery import Recovery, Seen, Sources, recovered

PLACE = Place(Realm.DATA, 9)


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 32)


@pytest.mark.parametrize("copies", [2, 3, 4, 5])
def test_enough_others_have_all_that_any_write_quorum_with_this_node_acknowledged(
    copies: int,
) -> None:
    write = quorums(copies, Consistency.CONSISTENT).write
    others = [node(n) for n in range(1, copies)]
    wanted = Sources(frozenset(others), min(copies - write + 1, copies - 1))
    for merged in combinations(others, wanted.needed):
        assert recovered(wanted, merged, ())
        for written in combinations([node(0), *others], write):
            assert set(written) & set(merged), "a write that nobody told of"
    for too_few in combinations(others, wanted.needed - 1):
        assert not recovered(wanted, too_few, ()) or len(too_few) == len(others)


def test_nodes_that_lost_rows_themselves_count_only_all_together() -> None:
    wanted = Sources(frozenset({node(1), node(2)}), 2)
    assert not recovered(wanted, [node(1)], [])
    assert not recovered(wanted, [], [node(2)])
    assert recovered(wanted, [node(1)], [node(2)])
    assert recovered(wanted, [], [node(1), node(2)])


def test_what_is_kept_comes_back_as_it_was() -> None:
    recovery = Recovery("rot", True, frozenset({PLACE}), frozenset({Place(Realm.METADATA, 255)}))
    assert Recovery.decode(recovery.encode()) == recovery
    seen = Seen(b"s" * 16, 7, 8, True)
    assert Seen.decode(seen.encode()) == seen
    with pytest.raises(StorageFailed):
        Recovery.decode(seen.encode())


def test_only_stale_places_are_hidden_and_only_until_they_are_shown_or_done() -> None:
    assert Recovery("old", True).hides(PLACE)
    assert not Recovery("new", False).hides(PLACE)
    assert not Recovery("old", True, shown=frozenset({PLACE})).hides(PLACE)
    assert not Recovery("old", True, done=frozenset({PLACE})).hides(PLACE)


def test_a_store_follows_the_one_remembered_if_it_is_that_one_grown() -> None:
    seen = Seen(b"one", 10, 0)
    assert seen.follows(b"one", 10) and seen.follows(b"one", 11)
    assert not seen.follows(b"one", 9)
    assert not seen.follows(b"two", 11)
    assert not Seen(b"one", 10, 0, missed=True).follows(b"one", 11)
    assert Seen(b"", 0, 0).follows(b"two", 0), "nothing is remembered"
