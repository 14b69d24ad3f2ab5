"""The numbers shown before a layout is applied."""

from __future__ import annotations

from garage_lite.core.ids import PARTITIONS
from garage_lite.core.layout.roles import Role
from garage_lite.core.layout.statistics import statistics
from tests.core.layout.build import GB, history, node, three_zones


def test_of_a_first_layout() -> None:
    known = history((1, "dc1", 256 * GB), copies=1)
    found = statistics(known.current, known.active[0])
    assert found.partition_size == GB
    assert found.effective_capacity == found.usable_capacity == 256 * GB
    assert found.previous_partition_size is None and found.total_moved_partitions is None
    (zone,) = found.zones
    assert (zone.name, zone.unique_partitions) == ("dc1", PARTITIONS)
    assert zone.nodes[0].new_partitions == PARTITIONS
    assert not found.low_usable_capacity and not found.low_partition_size


def test_of_a_change_that_moves_partitions() -> None:
    before = three_zones()
    after = before.with_role(node(4), Role("a", 100 * GB), 30).applied(2, 30)
    found = statistics(after.current, before.current)
    zone_a = found.zones[0]
    assert [node.new_partitions for zone in found.zones for node in zone.nodes] == [0, 0, 0, 0]
    assert found.total_moved_partitions == 0, "zone a is not the bottleneck: nothing moves"
    assert zone_a.unique_partitions == PARTITIONS
    assert found.low_usable_capacity, "300 of 400 GB"


def test_a_capacity_in_the_wrong_unit_is_noticed() -> None:
    known = history((1, "dc1", 2048), copies=1)
    assert statistics(known.current, None).low_partition_size
