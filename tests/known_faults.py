"""Faults that Garage is known for and this program is built not to have, each with its tests.

The same rows as in tests/invariants.py.
"""

from __future__ import annotations

from typing import Final

from tests.invariants import CLUSTER, DISK, FAULTS, QUORUM, SEEDS, STORE, TABLE, Promise

CONFIG: Final = "tests/test_config.py::test_a_minimal_file_and_our_defaults"

KNOWN_FAULTS: Final = (
    Promise(
        "failed overwrite loses the old version",
        "An overwrite that fails leaves the old object or the whole new one.",
        (
            f"{FAULTS}::test_i37_a_failed_overwrite_leaves_what_was_there",
            f"{STORE}/test_objects.py::test_a_failed_put_leaves_the_old_version_and_nothing_else",
        ),
    ),
    Promise(
        "deleted key listed from a valid quorum",
        "Replicas tell of deletions, and the listing is filtered after they are joined.",
        (
            f"{FAULTS}::test_i41_a_deleted_key_is_listed_by_no_two_nodes_of_three",
            f"{QUORUM}::test_a_removal_known_to_one_replica_of_the_quorum_counts",
        ),
    ),
    Promise(
        "conditional headers silently ignored",
        "A condition is kept or refused, and of many racers one wins.",
        (
            "tests/web/test_objects.py::test_write_conditions",
            "tests/web/s3/test_headers.py::test_promises_that_cannot_be_kept_are_refused",
            "tests/sim/test_conditional.py::test_of_many_racers_one_wins_and_is_read_everywhere",
        ),
    ),
    Promise(
        "big uploads cost the square of their blocks",
        "Each block of an upload costs the same metadata.",
        (
            f"{STORE}/test_metadata_cost.py::"
            "test_metadata_grow_with_the_blocks_and_not_with_their_square",
        ),
    ),
    Promise(
        "collapse near 10 million objects",
        "A read decodes as few blocks among many rows as among few (tests/bench/scale.py: 10 M).",
        (
            f"{DISK}/test_many_rows.py::"
            "test_a_read_decodes_as_few_blocks_among_many_rows_as_among_few",
            f"{STORE}/test_many_versions.py::test_no_verb_reads_the_versions_below",
        ),
    ),
    Promise(
        "metadata corrupted by power loss",
        "The log is whole after every power cut, and fsync is on unless turned off.",
        (
            f"{DISK}/test_metadata_crash.py::test_every_crash_keeps_what_was_acknowledged",
            CONFIG,
        ),
    ),
    Promise(
        "one dead node stops garbage collection",
        "Tombstones are forgotten without an owner that is dead, which then brings nothing back.",
        (
            f"{CLUSTER}/test_tombstones.py::"
            "test_i27_i29_a_dead_owner_stops_no_collection_and_brings_nothing_back",
        ),
    ),
    Promise(
        "a slow node stalls reads",
        "A read goes to the next node after about twice the usual time.",
        (
            f"{FAULTS}::test_i15_one_silent_node_makes_nobody_wait",
            f"{QUORUM}::test_a_frozen_node_delays_a_write_not_at_all_and_a_read_by_the_hedge_once",
            SEEDS,
        ),
        ("one silent",),
    ),
    Promise(
        "racing creations of one bucket both succeed",
        "Of many creations of one name exactly one succeeds.",
        ("tests/sim/test_conditional.py::test_of_many_creations_of_one_bucket_name_one_succeeds",),
    ),
    Promise(
        "a copy loses to a clock that is ahead",
        "What comes last wins, a copy and a deletion too.",
        (f"{FAULTS}::test_i38_what_comes_last_wins_over_a_clock_that_is_ahead", SEEDS),
        ("copies onto self",),
    ),
    Promise(
        "counters that drift",
        "A counter changes in the record of what it counts.",
        (
            f"{TABLE}/test_counting.py::test_i44_counters_never_part_from_the_rows",
            f"{DISK}/test_replica_records.py::"
            "test_i5_a_row_and_all_that_follows_from_it_are_one_record",
        ),
    ),
    Promise(
        "received blocks are not verified",
        "Who receives a block checks its name before it is stored.",
        (
            f"{CLUSTER}/test_block_replication.py::test_a_lying_sender_stores_nothing",
            f"{DISK}/test_block_files.py::test_content_that_is_not_the_blocks_is_not_stored",
        ),
    ),
    Promise(
        "state files written over themselves",
        "A power cut shows the old content or the new.",
        (
            f"{CLUSTER}/test_identity_crash.py::"
            "test_i9_a_key_is_there_whole_or_not_at_all_and_the_same_once_it_was_told",
        ),
    ),
    Promise(
        "any holder of the secret is a full peer",
        "Keys are admitted by name where that is asked for, and removed ones stay out.",
        (
            f"{CLUSTER}/test_admission.py::test_explicit_admits_by_name_alone",
            f"{CLUSTER}/test_admission.py::test_a_removed_node_is_shut_out_everywhere",
        ),
    ),
    Promise(
        "DeleteObjects goes key by key",
        "A thousand keys are deleted in one round trip.",
        ("tests/sim/test_round_trips.py::test_verbs_cost_few_round_trips",),
    ),
    Promise(
        "CORS rules match AllowedHeader by case and never send Max-Age",
        "Headers match in any case, and MaxAgeSeconds reaches the browser.",
        not_yet="buckets answer no CORS requests yet: setting rules is refused with 501",
    ),
    Promise(
        "a default buffer of 256 MiB on small boards",
        "Request bodies share a small budget unless the configuration says otherwise.",
        (CONFIG, f"{STORE}/test_budget.py::test_a_hundred_slow_uploads_share_four_blocks"),
    ),
)
