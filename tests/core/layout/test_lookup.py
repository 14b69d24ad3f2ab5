"""Whom to ask for a partition, while one version holds and while two do."""

from __future__ import annotations

from garage_lite.core.ids import PARTITIONS
from garage_lite.core.layout.history import LayoutHistory
from garage_lite.core.layout.lookup import Lookup
from garage_lite.core.layout.roles import Parameters, Role
from garage_lite.core.quorum import Consistency
from tests.core.layout.build import GB, history, node, three_zones

CONSISTENT = Consistency.CONSISTENT


def test_before_the_first_layout_there_is_nobody() -> None:
    lookup = Lookup(LayoutHistory.fresh(Parameters(3)), CONSISTENT)
    assert not lookup.ready
    assert lookup.write_sets(0) == []
    assert lookup.read_set(0) is None
    assert lookup.block_writers(0) == ()
    assert lookup.partitions_of(node(1)) == []


def test_a_node_alone_is_its_own_quorum() -> None:
    lookup = Lookup(history((1, "dc1", GB), copies=1).settled(CONSISTENT), CONSISTENT)
    (written,) = lookup.write_sets(77)
    assert written == lookup.read_set(77) == (1, (node(1),), 1)
    assert lookup.everywhere_sets() == [written]
    assert lookup.partitions_of(node(1)) == list(range(PARTITIONS))
    assert lookup.block_writers(0) == (node(1),)


def test_while_data_moves_writes_go_to_both_and_reads_to_the_old() -> None:
    known = three_zones().settled(CONSISTENT).with_role(node(1), None, 30)
    known = known.with_role(node(4), Role("a", 100 * GB), 30).applied(2, 30)
    lookup = Lookup(known, CONSISTENT)
    old, new = lookup.write_sets(0)
    assert set(old.nodes) == {node(1), node(2), node(3)}
    assert set(new.nodes) == {node(4), node(2), node(3)}
    assert (old.needed, new.needed) == (2, 2)
    read = lookup.read_set(0)
    assert read is not None and (read.version, read.needed) == (1, 2)
    assert lookup.versions == (1, 2) and lookup.ack_floor == 1
    assert lookup.holds(node(1), 0) and lookup.holds(node(4), 0)


def test_each_mode_has_its_quorums() -> None:
    known = three_zones().settled(CONSISTENT)
    for mode, write, read in (
        (Consistency.CONSISTENT, 2, 2),
        (Consistency.DEGRADED, 2, 1),
        (Consistency.DANGEROUS, 1, 1),
    ):
        lookup = Lookup(known, mode)
        asked = lookup.read_set(3)
        assert asked is not None
        assert (lookup.write_sets(3)[0].needed, asked.needed) == (write, read)


def test_a_gateway_holds_rows_that_are_everywhere_and_no_partition() -> None:
    known = history((1, "a", GB), (2, "a", None), copies=1).settled(CONSISTENT)
    lookup = Lookup(known, CONSISTENT)
    assert lookup.everywhere_sets()[0].nodes == (node(1), node(2))
    assert lookup.partitions_of(node(2)) == []


def test_blocks_are_looked_for_near_first_then_where_they_used_to_be() -> None:
    known = three_zones().settled(CONSISTENT).with_role(node(1), None, 30)
    known = known.with_role(node(4), Role("a", 100 * GB), 30).applied(2, 30)
    distances = {node(1): 4.0, node(2): 3.0, node(3): 1.0, node(4): 2.0}
    both = Lookup(known, CONSISTENT).block_readers(0, distances.__getitem__)
    assert both == [node(3), node(2), node(4), node(1)]
    after = Lookup(known.settled(Consistency.DANGEROUS), CONSISTENT)
    assert after.block_readers(0, distances.__getitem__)[-1] == node(1)
    assert set(after.block_writers(0)) == {node(2), node(3), node(4)}


def test_data_of_its_own_factor_has_its_own_sets() -> None:
    known = three_zones().with_parameters(Parameters(3, 2), 30).applied(2, 30)
    lookup = Lookup(known.settled(Consistency.DANGEROUS), CONSISTENT)
    data, metadata = lookup.read_set(9, data=True), lookup.read_set(9)
    assert data is not None and metadata is not None
    assert (len(data.nodes), data.needed) == (2, 1)
    assert (len(metadata.nodes), metadata.needed) == (3, 2)
    held = [len(lookup.partitions_of(node(n), data=True)) for n in (1, 2, 3)]
    assert sum(held) == 2 * PARTITIONS
