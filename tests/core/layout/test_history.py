"""Versions come and go without a read that misses a write; copies of a history join."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.errors import InvalidArgument, NotAllowedHere, StorageFailed
from garage_lite.core.layout.history import RETIRED_MAX, LayoutHistory
from garage_lite.core.layout.roles import Parameters, Role
from garage_lite.core.layout.trackers import Tracker, Trackers
from garage_lite.core.quorum import Consistency
from tests.core.layout.build import GB, history, node, roles, three_zones

CONSISTENT = Consistency.CONSISTENT


def grown(start: LayoutHistory, *numbers: int) -> LayoutHistory:
    """One more version for each node number, which joins zone a."""
    for number in numbers:
        staged = start.with_role(node(number), Role("a", 100 * GB), 30)
        start = staged.applied(start.current.number + 1, 30)
    return start


@st.composite
def histories(draw: st.DrawFn) -> LayoutHistory:
    """What one of several nodes may know: from common ground, but not in the same order."""
    known = draw(st.sampled_from([three_zones(), LayoutHistory.fresh(Parameters(3))]))
    for _ in range(draw(st.integers(0, 4))):
        who, now_us = node(draw(st.integers(1, 4))), draw(st.integers(30, 33))
        match draw(st.sampled_from(["stage", "grow", "advance", "sync", "revert"])):
            case "stage":
                known = known.with_role(who, draw(roles()), now_us)
            case "grow" if known.current.ready:
                known = grown(known.reverted(now_us), draw(st.integers(4, 6)))
            case "advance":
                known = known.advanced(who, None)
            case "sync":
                known = known.synced(who, known.current.number)
            case _:
                known = known.reverted(now_us)
    return known


@given(histories(), histories(), histories())
def test_merge_is_a_join(a: LayoutHistory, b: LayoutHistory, c: LayoutHistory) -> None:
    assert a.merge(a) == a
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))


@given(histories())
def test_bytes_and_back(known: LayoutHistory) -> None:
    data = known.encode()
    assert LayoutHistory.decode(data) == known
    assert LayoutHistory.decode(data).encode() == data


@given(st.data())
def test_damaged_bytes_raise(data: st.DataObject) -> None:
    good = three_zones().encode()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    try:
        read = LayoutHistory.decode(bytes(bad))
    except StorageFailed:
        return
    for version in read.active:
        version.checked()


def test_truncated_bytes_raise() -> None:
    good = three_zones().encode()
    for length in range(0, len(good), 7):
        with pytest.raises(StorageFailed):
            LayoutHistory.decode(good[:length])


# --- applying


def test_a_new_cluster_applies_version_1_and_forgets_0() -> None:
    known = three_zones().settled(CONSISTENT)
    assert [version.number for version in known.active] == [1]
    assert known.retired == ()
    assert known.staged_roles() == {}


@pytest.mark.parametrize("number", [0, 1, 3])
def test_only_the_next_number_can_be_applied(number: int) -> None:
    with pytest.raises(InvalidArgument, match="the next is 2"):
        three_zones().applied(number, 30)


def test_too_few_nodes_make_no_layout() -> None:
    staged = LayoutHistory.fresh(Parameters(3)).with_role(node(1), Role("a", GB), 10)
    with pytest.raises(NotAllowedHere, match=r"positive capacity \(1\)"):
        staged.applied(1, 20)


def test_two_nodes_compute_the_same_version() -> None:
    staged = three_zones().with_role(node(4), Role("b", 70 * GB), 30)
    assert staged.applied(2, 30).current.encode() == staged.applied(2, 99).current.encode()


def test_the_replication_factor_belongs_to_the_version() -> None:
    alone = history((1, "a", 100 * GB), copies=1)
    known = alone.with_role(node(2), Role("b", 100 * GB), 30)
    known = known.with_role(node(3), Role("c", 100 * GB), 30)
    known = known.with_parameters(Parameters(3), 30).applied(2, 30).settled(CONSISTENT)
    assert [version.copies for version in known.active] == [1, 3]


def test_data_may_have_a_factor_of_its_own() -> None:
    staged = three_zones().with_parameters(Parameters(3, 2), 30)
    current = staged.applied(2, 30).current
    assert current.metadata and current.data
    assert {len(held) for held in current.metadata.holders} == {3}
    assert {len(held) for held in current.data.holders} == {2}
    assert current.data.partition_size > current.metadata.partition_size


def test_a_revert_leaves_nothing_staged() -> None:
    staged = three_zones().with_role(node(1), None, 30).with_parameters(Parameters(3, None, 2), 30)
    assert staged.staged_roles() and staged.staged_parameters()
    reverted = staged.reverted(40)
    assert not reverted.staged_roles() and reverted.staged_parameters() is None


def test_a_fork_is_told_and_settled_alike_everywhere() -> None:
    here, there = grown(three_zones(), 4), grown(three_zones(), 5)
    assert here.forks(there) == (2,)
    assert here.merge(there).current == there.merge(here).current
    assert here.forks(here) == ()


# --- from one version to the next


def test_the_way_from_one_version_to_the_next() -> None:
    known = grown(three_zones().advanced(node(1), None), 4)
    everyone = [node(number) for number in (1, 2, 3, 4)]
    assert [version.number for version in known.active] == [1, 2]
    assert known.read_version() == 1

    known = known.advanced(node(1), oldest_write=1)
    for other in everyone[1:]:
        known = known.advanced(other, None)
    assert known.ack_floor() == 1, "a write begun under version 1 still runs"
    known = known.advanced(node(1), None)
    assert known.ack_floor() == 2

    known = known.synced(node(1), 2)
    assert known.read_version() == 1, "one of three holders is no write quorum"
    known = known.synced(node(2), 2)
    assert known.read_version() == 2, "two of three are; the third may be dead"

    for reader in everyone[:-1]:
        known = known.advanced(reader, None)
    assert [version.number for version in known.active] == [1, 2], "node 4 still reads version 1"
    known = known.advanced(node(4), None)
    assert [version.number for version in known.active] == [2]
    assert [version.number for version in known.retired] == [1]


def test_with_two_copies_both_holders_must_have_pushed() -> None:
    pair = history((1, "a", 100 * GB), (2, "b", 100 * GB), copies=2).settled(CONSISTENT)
    known = grown(pair, 3).synced(node(1), 2)
    assert known.read_version() == 1
    assert known.synced(node(2), 2).read_version() == 2


def test_a_dead_node_only_delays_and_can_be_skipped() -> None:
    known = grown(three_zones().settled(CONSISTENT), 4)
    alive = [node(1), node(2), node(4)]
    for who in alive:
        known = known.advanced(who, None)
    assert known.ack_floor() == 1
    known = known.skipping_dead(2, alive, allow_missing_data=False)
    assert known.ack_floor() == 2
    assert known.read_version() == 1
    assert known.skipping_dead(2, alive, allow_missing_data=True).read_version() == 2


def test_skipping_needs_a_transition_and_a_version_of_it() -> None:
    with pytest.raises(InvalidArgument, match="only one live"):
        three_zones().settled(CONSISTENT).skipping_dead(1, [], False)
    with pytest.raises(InvalidArgument, match="following version numbers: 2"):
        grown(three_zones().settled(CONSISTENT), 4).skipping_dead(3, [], False)


@pytest.mark.parametrize("mode", [Consistency.DEGRADED, Consistency.DANGEROUS])
def test_outside_the_consistent_mode_only_the_newest_is_active(mode: Consistency) -> None:
    known = grown(three_zones(), 4, 5).advanced(node(1), None, mode)
    assert [version.number for version in known.active] == [3]


def test_few_retired_versions_are_kept() -> None:
    known = grown(three_zones(), *range(4, 14)).settled(Consistency.DANGEROUS)
    numbers = [version.number for version in known.retired]
    assert len(numbers) == RETIRED_MAX
    assert numbers[-1] == known.current.number - 1


def test_whoever_is_far_behind_adopts_the_newer_history() -> None:
    old = three_zones()
    new = grown(old, 4, 5, 6).settled(Consistency.DANGEROUS)
    assert [version.number for version in old.merge(new).active] == [4]


@given(st.lists(st.tuples(st.sampled_from(Tracker), st.integers(1, 3), st.integers(0, 5))))
def test_trackers_only_grow(raises: list[tuple[Tracker, int, int]]) -> None:
    trackers = Trackers()
    for tracker, number, version in raises:
        before = trackers.get(tracker, node(number), 0)
        trackers = trackers.raised(tracker, node(number), version)
        assert trackers.get(tracker, node(number), 0) == max(before, version)
    assert Trackers.unpack(trackers.pack()) == trackers


def test_a_node_that_left_is_no_longer_tracked() -> None:
    known = three_zones().settled(CONSISTENT)
    gone = replace(known, trackers=known.trackers.raised(Tracker.ACK, node(9), 1))
    assert node(9) not in gone.settled(CONSISTENT).trackers.ack
