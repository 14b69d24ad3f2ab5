"""Each invariant of a cluster names the tests that hold it, and those tests exist.

The numbers are those of the study of Garage's inside; the words are what must be true here.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from tests.sim.workloads import WORKLOADS

TESTS = Path(__file__).parent

HELD_BY: dict[str, tuple[str, ...]] = {
    "I1 merges are commutative, associative, idempotent": (
        "test_merge_is_commutative",
        "test_merge_is_associative",
        "test_merge_is_idempotent",
    ),
    "I2 equal values are equal bytes": ("test_encoding_is_canonical",),
    "I3 a stored row never decreases": ("test_removal_and_floor_of_a_version_only_rise",),
    "I4 older formats are read": ("test_older_rows_are_lifted_step_by_step",),
    "I5 a row and what follows from it commit together": (
        "test_power_cuts_lose_nothing_that_was_acknowledged",
    ),
    "I6 recovery gives a prefix of what was committed": (
        "test_every_crash_keeps_what_was_acknowledged",
    ),
    "I7 what was acknowledged survives": (
        "test_whichever_call_fails_nothing_acknowledged_is_lost",
        "test_fifty_kills_lose_nothing_acknowledged",
    ),
    "I8 what a slow node was not told stays until it is": (
        "test_what_a_slow_node_was_not_told_in_time_it_is_told_later",
    ),
    "I9 a small file is the old or the new": (
        "test_a_power_cut_at_any_moment_loses_nothing_acknowledged",
    ),
    "I10 reads and writes overlap": ("test_a_consistent_read_meets_every_write",),
    "I11 a write has a quorum in every layout": (
        "test_between_two_layouts_a_write_needs_both_quorums",
    ),
    "I12 a read has its quorum of one layout": ("test_a_read_that_can_not_repair_does_not_answer",),
    "I13 a read sees what ended before it, deletions too": (
        "sim: registers",
        "sim: sets",
        "sim: overwrite without quorum",
    ),
    "I14 a range ends where the first answer does": (
        "test_ranges_are_what_the_replicas_hold_together",
    ),
    "I15 nothing waits beyond its deadline, nor for one stuck node": (
        "sim: one silent",
        "test_a_frozen_node_is_not_missed",
    ),
    "I16 an assignment keeps its rules and moves least": (
        "test_rules_hold_and_the_size_is_the_largest",
        "test_no_assignment_of_that_size_moves_less",
    ),
    "I17 equal input, equal assignment": (
        "test_equal_arguments_give_the_assignment_written_down_here",
    ),
    "I18 a version number has one content": (
        "sim: two layouts",
        "test_two_versions_are_never_chosen",
    ),
    "I19 trackers only grow": (
        "test_trackers_only_grow",
        "test_a_running_write_holds_the_acknowledgement",
    ),
    "I20 no read of a layout before its rows are there": (
        "sim: layouts",
        "test_no_read_misses_an_acknowledged_write",
    ),
    "I21 a version goes when nobody reads from it": ("test_the_way_from_one_version_to_the_next",),
    "I22 the dead only delay": ("test_a_dead_node_only_delays_and_can_be_skipped",),
    "I23 the replication factor belongs to the layout": (
        "sim: from one copy to three",
        "test_the_replication_factor_belongs_to_the_version",
    ),
    "I24 at rest replicas are the same bytes": ("sim: sets at rest",),
    "I25 a retired owner drops, and never pushes": (
        "test_a_node_that_was_retired_never_pushes_what_it_had",
    ),
    "I26 a tombstone goes when every owner has it": (
        "test_i26_a_replica_that_missed_the_deletion_holds_it_before_it_is_forgotten",
    ),
    "I27 no deleted key comes back": (
        "test_i27_a_deleted_key_does_not_come_back_from_a_replica_that_missed_it",
        "sim: lost disks",
    ),
    "I28 a digest is that of the rows": ("test_equal_rows_equal_digests_and_only_those",),
    "I29 tombstones go in the end": (
        "test_i26_i29_tombstones_are_forgotten_by_all_when_their_day_has_passed",
    ),
    "I30 references are the rows": ("test_references_are_counted_from_their_rows",),
    "I31 a file goes ten minutes after its last reference": (
        "test_a_block_goes_ten_minutes_after_its_last_reference",
        "sim: deduplicated",
    ),
    "I32 blocks are referenced before their version is seen": ("sim: copies",),
    "I33 bytes hash to the block's name": (
        "test_rot_anywhere_is_never_served",
        "test_a_lying_sender_stores_nothing",
    ),
    "I34 a file in its place is complete": ("test_a_call_that_fails_is_never_acknowledged",),
    "I35 each block has its copies in the end": (
        "test_a_block_is_at_a_quorum_when_it_is_acknowledged_and_at_all_soon_after",
    ),
    "I36 queues are bounded": (
        "test_what_waits_for_a_slow_node_is_bounded",
        "test_more_than_all_is_all",
    ),
    "I37 a failed PUT harms nothing": ("sim: overwrite without quorum",),
    "I38 a later write wins whatever the clocks": ("sim: beside blind",),
    "I39 Complete is all or nothing": ("sim: uploads",),
    "I40 aborted uploads leave nothing": ("test_abort_takes_everything_and_ends_the_upload",),
    "I41 what is deleted is not listed": ("sim: sets",),
    "I42 no error is sent as an object": ("test_rot_anywhere_is_never_served",),
    "I43 background work rests": ("test_work_rests_in_proportion_to_the_average_step",),
    "I44 counters agree": ("test_a_counter_is_the_highest_of_its_owners",),
    "I45 repairs delete nothing live": ("test_data_whose_object_another_replica_knows_stays",),
}


def test_no_invariant_is_missing() -> None:
    assert [name.split()[0] for name in HELD_BY] == [f"I{number}" for number in range(1, 46)]


@functools.cache
def existing() -> frozenset[str]:
    found = (re.findall(r"def (test_\w+)\(", path.read_text()) for path in TESTS.rglob("test_*.py"))
    return frozenset(name for names in found for name in names)


@pytest.mark.parametrize("name", HELD_BY)
def test_what_holds_it_exists(name: str) -> None:
    for holder in HELD_BY[name]:
        if holder.startswith("sim: "):
            assert holder.removeprefix("sim: ") in WORKLOADS
        else:
            assert holder in existing(), f"{name}: there is no {holder}"
