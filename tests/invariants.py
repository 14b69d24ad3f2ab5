"""What must always hold of a node and of a cluster, and the tests that would fail if it did not.

One row each. `tests` are pytest node ids of this tree, `workloads` names of the simulator's
(tests/sim/workloads.py; `python -m tests.sim.replay NAME SEED` runs one). A row without tests
says in `not_yet` why there are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Promise:
    """`name`: of an invariant its number."""

    name: str
    says: str
    tests: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    not_yet: str = ""


def _held(number: int, says: str, *tests: str, workloads: tuple[str, ...] = ()) -> Promise:
    return Promise(f"I{number}", says, tests, workloads)


CORE: Final = "tests/core"
CLUSTER: Final = "tests/core/cluster"
DISK: Final = "tests/core/disk"
STORE: Final = "tests/core/store"
WORKERS: Final = "tests/core/workers"
LAYOUT: Final = "tests/core/layout"
TABLE: Final = "tests/core/table"
QUORUM: Final = f"{CLUSTER}/test_tables_quorum.py"
FAULTS: Final = "tests/sim/test_known_faults.py"
SEEDS: Final = "tests/sim/test_cluster.py::test_seeds"

ROWS: Final = (
    _held(
        1,
        "Replicas may merge copies of any row in any order and as often as they like.",
        f"{TABLE}/test_joins.py::test_i1_merging_stored_bytes_is_a_join",
        "tests/core/model/test_merges.py::test_merge_is_associative",
        f"{LAYOUT}/test_history.py::test_merge_is_a_join",
        f"{LAYOUT}/test_roles.py::test_merge_is_a_join",
    ),
    _held(
        2,
        "What is encoded comes back, and equal values have equal bytes.",
        "tests/core/model/test_encodings.py::test_decoding_gives_back_what_was_encoded",
        "tests/core/model/test_encodings.py::test_encoding_is_canonical",
        "tests/core/test_codec.py::test_a_document_in_canonical_form_is_equal_and_sorted",
    ),
    _held(
        3,
        "A stored row only rises: whatever arrives is joined into it.",
        f"{TABLE}/test_joins.py::test_i3_a_stored_row_never_falls_back",
    ),
    _held(
        4,
        "Rows of every earlier format are read, and lifted alike on every node.",
        "tests/core/model/test_kept_bytes.py::"
        "test_i4_bytes_written_long_ago_are_read_as_they_were_meant",
        "tests/core/model/test_kept_bytes.py::test_i4_whoever_reads_them_writes_the_same_bytes",
        "tests/core/test_codec.py::test_older_rows_are_lifted_step_by_step",
    ),
    _held(
        5,
        "A row and all that follows from it are committed together or not at all.",
        f"{DISK}/test_replica_records.py::"
        "test_i5_a_row_and_all_that_follows_from_it_are_one_record",
        f"{DISK}/test_metadata_crash.py::test_every_crash_keeps_what_was_acknowledged",
    ),
    _held(
        6,
        "Wherever the log is cut, a whole number of its records is left, the first ones.",
        f"{DISK}/test_metadata_crash.py::test_every_crash_keeps_what_was_acknowledged",
        "tests/core/metalog/test_record.py::test_a_record_cut_short_anywhere_is_none",
    ),
    _held(
        7,
        "What was acknowledged outlives the failures that its fsync setting promises.",
        "tests/sim/test_power_cut.py::test_power_cuts_lose_nothing_that_was_acknowledged",
        f"{DISK}/test_block_crashes.py::test_a_power_cut_at_any_moment_loses_nothing_acknowledged",
        "tests/durability/test_kill.py::test_fifty_kills_lose_nothing_acknowledged",
        SEEDS,
        workloads=("registers", "sets", "lost disks"),
    ),
    _held(
        8,
        "A queued entry goes only if nothing was added to it while it was worked on.",
        f"{QUORUM}::test_what_a_slow_node_was_not_told_in_time_it_is_told_later",
        f"{WORKERS}/test_resync.py::test_a_look_asked_for_while_the_block_is_looked_at_is_not_lost",
        f"{WORKERS}/test_resync.py::test_a_look_asked_for_later_stays_when_an_earlier_one_is_done",
    ),
    _held(
        9,
        "A file of small state shows its old content or its new one, never anything else.",
        f"{CLUSTER}/test_identity_crash.py::"
        "test_i9_a_key_is_there_whole_or_not_at_all_and_the_same_once_it_was_told",
        f"{DISK}/test_metadata_crash.py::test_every_crash_keeps_what_was_acknowledged",
        f"{DISK}/test_block_crashes.py::test_a_power_cut_at_any_moment_loses_nothing_acknowledged",
    ),
)

QUORUMS: Final = (
    _held(
        10,
        "In the consistent mode every read quorum meets every write quorum.",
        "tests/core/test_quorum.py::test_a_consistent_read_meets_every_write",
    ),
    _held(
        11,
        "A write is acknowledged by a write quorum of every layout version in force.",
        f"{QUORUM}::test_between_two_layouts_a_write_needs_both_quorums",
        f"{QUORUM}::test_a_quorum_is_enough",
        f"{LAYOUT}/test_lookup.py::test_while_data_moves_writes_go_to_both_and_reads_to_the_old",
    ),
    _held(
        12,
        "A read is answered by a read quorum of different nodes of one layout version.",
        f"{QUORUM}::test_a_quorum_is_enough",
        f"{QUORUM}::test_a_damaged_row_counts_as_no_answer",
        f"{LAYOUT}/test_lookup.py::test_while_data_moves_writes_go_to_both_and_reads_to_the_old",
    ),
    _held(
        13,
        "A read that begins after a write ended sees it: points, pages, deletions.",
        f"{CLUSTER}/test_layout_moves.py::"
        "test_i13_i20_what_was_acknowledged_is_read_while_a_node_is_replaced",
        f"{CLUSTER}/test_recovering.py::"
        "test_i13_an_emptied_node_is_asked_nothing_until_its_peers_have_given_it_all",
        f"{QUORUM}::test_a_removal_known_to_one_replica_of_the_quorum_counts",
        SEEDS,
        workloads=("registers", "sets", "copies", "layouts", "lost disks"),
    ),
    _held(
        14,
        "A page ends where the first replica's answer ends.",
        f"{QUORUM}::test_ranges_are_what_the_replicas_hold_together",
    ),
    _held(
        15,
        "Every wait has an end, and one stuck node stops nobody while a quorum answers.",
        "tests/cluster/test_processes.py::test_a_frozen_node_is_not_missed",
        f"{FAULTS}::test_i15_one_silent_node_makes_nobody_wait",
        f"{QUORUM}::test_a_frozen_node_delays_a_write_not_at_all_and_a_read_by_the_hedge_once",
        f"{CLUSTER}/test_mesh_trouble.py::test_no_call_takes_longer_than_configured",
        f"{CLUSTER}/test_table_sync.py::test_i15_a_frozen_peer_stops_no_sync_among_the_others",
        SEEDS,
        workloads=("one silent",),
    ),
)

LAYOUTS: Final = (
    _held(
        16,
        "An assignment keeps its rules, is the largest, and moves as little as any such.",
        f"{LAYOUT}/test_assign.py::test_rules_hold_and_the_size_is_the_largest",
        f"{LAYOUT}/test_assign.py::test_no_assignment_of_that_size_moves_less",
    ),
    _held(
        17,
        "Equal inputs give equal assignments everywhere.",
        f"{LAYOUT}/test_assign.py::test_equal_arguments_give_the_assignment_written_down_here",
        f"{LAYOUT}/test_history.py::test_two_nodes_compute_the_same_version",
    ),
    _held(
        18,
        "One version number means one content; two are noticed and refused.",
        f"{CLUSTER}/test_cluster_layout.py::test_a_fork_is_refused_until_one_side_moves_on",
        f"{CLUSTER}/test_layout_exchange.py::test_two_who_apply_at_once_get_one_layout",
        f"{LAYOUT}/test_election.py::test_two_versions_are_never_chosen",
        SEEDS,
        workloads=("two layouts",),
    ),
    _held(
        19,
        "Trackers only grow, and none acknowledges a version under an older running write.",
        f"{LAYOUT}/test_history.py::test_trackers_only_grow",
        f"{CLUSTER}/test_layout_exchange.py::test_a_running_write_holds_the_acknowledgement",
    ),
    _held(
        20,
        "No version is read before write quorums of the older ones have handed all on.",
        f"{LAYOUT}/test_transitions.py::test_no_read_misses_an_acknowledged_write",
        f"{LAYOUT}/test_history.py::test_with_two_copies_both_holders_must_have_pushed",
        f"{CLUSTER}/test_layout_moves.py::"
        "test_i13_i20_what_was_acknowledged_is_read_while_one_node_becomes_two_and_three",
        SEEDS,
        workloads=("layouts", "layouts of sets", "from one copy to three"),
    ),
    _held(
        21,
        "A version stays in force until nobody reads from it any more.",
        f"{LAYOUT}/test_history.py::test_the_way_from_one_version_to_the_next",
    ),
    _held(
        22,
        "Gateways and dead nodes may delay a change of layout, and never make it unsafe.",
        f"{LAYOUT}/test_history.py::test_a_dead_node_only_delays_and_can_be_skipped",
        f"{CLUSTER}/test_layout_moves.py::"
        "test_i22_a_dead_node_of_the_old_or_the_new_layout_stops_no_change",
    ),
    _held(
        23,
        "Copies are counted by the layout, not by what one node's configuration says.",
        SEEDS,
        f"{CLUSTER}/test_cluster_layout.py::"
        "test_a_changed_replication_factor_comes_with_the_next_version",
        f"{LAYOUT}/test_history.py::test_the_replication_factor_belongs_to_the_version",
        workloads=("from one copy to three",),
    ),
)

SYNC: Final = (
    _held(
        24,
        "Left alone for a round, all replicas of a partition hold the same bytes.",
        f"{CLUSTER}/test_table_sync.py::"
        "test_i24_replicas_that_missed_writes_converge_to_the_same_bytes",
        SEEDS,
        workloads=("sets at rest", "deduplicated at rest", "uploads at rest"),
    ),
    _held(
        25,
        "A former owner gives rows and blocks up only once the owners have them.",
        f"{CLUSTER}/test_giving_up_rows.py::"
        "test_i25_rows_are_dropped_only_once_the_new_owners_hold_the_same_bytes",
        f"{WORKERS}/test_offload.py::"
        "test_a_block_that_others_own_stays_until_a_quorum_of_them_has_it",
    ),
    _held(
        26,
        "A tombstone is forgotten when all who could bring its row back hold it.",
        f"{CLUSTER}/test_tombstones.py::"
        "test_i26_a_replica_that_missed_the_deletion_holds_it_before_it_is_forgotten",
        f"{CLUSTER}/test_tombstones.py::test_i26_an_owner_that_is_away_for_a_while_is_waited_for",
    ),
    _held(
        27,
        "What was deleted comes back by a newer write alone.",
        f"{CLUSTER}/test_table_sync.py::"
        "test_i27_a_deleted_key_does_not_come_back_from_a_replica_that_missed_it",
        f"{CLUSTER}/test_recovering.py::"
        "test_i27_a_node_restored_from_an_older_state_brings_nothing_deleted_back",
        f"{CLUSTER}/test_layout_moves.py::test_a_node_that_was_retired_never_pushes_what_it_had",
        SEEDS,
        workloads=("sets", "lost disks"),
    ),
    _held(
        28,
        "A digest is that of the rows, whatever way they came to be.",
        f"{CLUSTER}/test_row_digests.py::"
        "test_i28_a_digest_is_that_of_the_rows_whatever_is_written_while_it_is_read",
        f"{TABLE}/test_digest.py::test_equal_rows_equal_digests_and_only_those",
    ),
    _held(
        29,
        "Every tombstone is forgotten in the end.",
        f"{CLUSTER}/test_tombstones.py::"
        "test_i26_i29_tombstones_are_forgotten_by_all_when_their_day_has_passed",
        f"{CLUSTER}/test_tombstones.py::"
        "test_i27_i29_a_dead_owner_stops_no_collection_and_brings_nothing_back",
    ),
)

BLOCKS: Final = (
    _held(
        30,
        "How often a block is used is how many live rows refer to it, and no second figure.",
        f"{CORE}/block/test_resync.py::test_references_are_counted_from_their_rows",
        f"{TABLE}/test_apply.py::test_the_last_live_reference_queues_the_block",
    ),
    _held(
        31,
        "A file goes after its delay, counted again, and when no owner needs it.",
        f"{WORKERS}/test_resync.py::test_a_block_goes_ten_minutes_after_its_last_reference",
        f"{WORKERS}/test_resync.py::test_a_block_that_is_used_again_stays",
        f"{CORE}/block/test_resync.py::test_what_owners_say_decides",
    ),
    _held(
        32,
        "The blocks of a version that can be seen are referred to at a write quorum.",
        f"{STORE}/test_writing.py::test_each_block_is_owned_by_a_row_before_it_is_there",
        f"{CLUSTER}/test_block_replication.py::"
        "test_a_block_is_at_a_quorum_when_it_is_acknowledged_and_at_all_soon_after",
        SEEDS,
        workloads=("deduplicated", "copies"),
    ),
    _held(
        33,
        "Bytes that do not match a block's name are neither stored nor served.",
        f"{DISK}/test_block_crashes.py::test_rot_anywhere_is_never_served",
        f"{CLUSTER}/test_block_replication.py::test_a_lying_sender_stores_nothing",
        f"{CORE}/block/test_frame.py::"
        "test_every_changed_missing_or_added_byte_of_a_compressed_block_is_seen",
    ),
    _held(
        34,
        "A block file under its name is whole: every error on the way to it counts.",
        f"{DISK}/test_block_crashes.py::test_a_call_that_fails_is_never_acknowledged",
        f"{DISK}/test_block_crashes.py::test_a_power_cut_at_any_moment_loses_nothing_acknowledged",
    ),
    _held(
        35,
        "A block that is needed gets all its copies while one good one can be reached.",
        f"{CLUSTER}/test_block_moves.py::test_blocks_follow_the_layout_and_are_never_too_few",
        f"{WORKERS}/test_resync.py::test_a_corrupt_block_is_healed_from_a_peer",
        f"{WORKERS}/test_resync.py::test_a_missing_block_is_fetched_or_asked_for_ever_more_seldom",
    ),
    _held(
        36,
        "Queues and buffers have bounds, whoever is slow and however many there are.",
        f"{STORE}/test_budget.py::test_a_hundred_slow_uploads_share_four_blocks",
        f"{QUORUM}::test_what_waits_for_a_slow_node_is_bounded",
        f"{CLUSTER}/test_block_replication.py::"
        "test_a_frozen_node_makes_no_put_slower_and_holds_no_memory",
        f"{CLUSTER}/test_rpc.py::test_big_messages_of_many_wait_within_the_budget",
        f"{CLUSTER}/test_table_sync.py::test_i36_a_big_partition_is_synced_by_bounded_messages",
    ),
)

S3: Final = (
    _held(
        37,
        "What was put is read until something newer is; a put that fails harms nothing.",
        f"{FAULTS}::test_i37_a_failed_overwrite_leaves_what_was_there",
        f"{STORE}/test_objects.py::test_a_failed_put_leaves_the_old_version_and_nothing_else",
        SEEDS,
        workloads=("overwrite without quorum", "registers"),
    ),
    _held(
        38,
        "Of two writes one after the other the later one wins, whatever the clocks say.",
        f"{FAULTS}::test_i38_what_comes_last_wins_over_a_clock_that_is_ahead",
        SEEDS,
        workloads=("copies onto self", "registers", "beside blind"),
    ),
    _held(
        39,
        "Completing an upload shows the old object or the whole new one.",
        f"{STORE}/test_uploads.py::test_complete_against_abort_has_one_winner",
        "tests/sim/test_power_cut.py::test_power_cuts_lose_nothing_that_was_acknowledged",
        SEEDS,
        workloads=("uploads",),
    ),
    _held(
        40,
        "What was aborted, or given up by a writer that died, frees its blocks.",
        f"{STORE}/test_uploads.py::test_abort_takes_everything_and_ends_the_upload",
        f"{STORE}/test_random_verbs.py::test_what_a_dead_writer_left_behind_goes",
        SEEDS,
        workloads=("uploads at rest",),
    ),
    _held(
        41,
        "A key that was deleted is not listed.",
        f"{FAULTS}::test_i41_a_deleted_key_is_listed_by_no_two_nodes_of_three",
        SEEDS,
        workloads=("sets", "layouts of sets"),
    ),
    _held(
        42,
        "Errors of ours are never sent as an object's bytes: the connection breaks.",
        "tests/web/test_broken_answers.py::"
        "test_i42_a_block_that_can_not_be_had_ends_the_connection",
    ),
    _held(
        43,
        "Background work rests as it is told, and nothing holds the event loop for long.",
        f"{CORE}/block/test_scrub.py::test_work_rests_in_proportion_to_the_average_step",
        f"{WORKERS}/test_resync.py::"
        "test_workers_above_the_count_rest_and_the_others_pace_themselves",
        "tests/web/test_blocking_calls.py::test_the_loop_never_waits_for_a_disk",
        f"{DISK}/test_metadata.py::test_a_long_row_of_deletions_hands_control_back",
    ),
    _held(
        44,
        "Counters are what the rows add up to, and never below nothing.",
        f"{TABLE}/test_counting.py::test_i44_counters_never_part_from_the_rows",
        f"{QUORUM}::test_a_counter_is_the_highest_of_its_owners",
        "tests/core/model/test_encodings.py::test_counters_add_up_and_never_go_below_nothing",
    ),
    _held(
        45,
        "A repair done twice changes nothing the second time, and none takes what is used.",
        f"{WORKERS}/test_repair.py::test_data_that_nothing_stands_on_goes",
        f"{WORKERS}/test_repair.py::test_what_is_finished_while_it_is_suspected_stays",
        f"{WORKERS}/test_repair_in_cluster.py::test_data_whose_object_another_replica_knows_stays",
        f"{WORKERS}/test_repair_in_cluster.py::test_without_a_quorum_nothing_is_taken_away",
    ),
)

INVARIANTS: Final = (*ROWS, *QUORUMS, *LAYOUTS, *SYNC, *BLOCKS, *S3)
