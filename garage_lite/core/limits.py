"""Every bound, its reason, and its share of the memory budget.

The budget: 128 MiB of anonymous memory for a whole node on a 1 GB board. The shares below are
checked at import to fit.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
TIB: Final = 1024 * GIB

# --- S3 (AWS's documented limits)
KEY_BYTES_MAX: Final = 1024
METADATA_BYTES_MAX: Final = 2 * KIB
"""Of x-amz-meta-* names and values together."""
PUT_BYTES_MAX: Final = 5 * GIB
OBJECT_BYTES_MAX: Final = 5 * TIB
PART_BYTES_MIN: Final = 5 * MIB
PART_BYTES_MAX: Final = 5 * GIB
PART_NUMBER_MAX: Final = 10_000
LIST_KEYS_MAX: Final = 1000
DELETE_KEYS_MAX: Final = 1000
XML_BYTES_MAX: Final = 2 * MIB
"""DeleteObjects of 1,000 keys of 1,024 bytes, escaped, fits."""
XML_DEPTH_MAX: Final = 32
XML_ELEMENTS_MAX: Final = 45_000
"""CompleteMultipartUpload: 10,000 parts of up to 4 elements."""
HEADER_BYTES_MAX: Final = 16 * KIB
PRESIGN_SECONDS_MAX: Final = 604_800
CLOCK_SKEW_SECONDS_MAX: Final = 900

# --- data
BLOCK_BYTES: Final = MIB
BLOCK_BYTES_MAX: Final = 64 * MIB
"""What `block_size` may be set to, and the most that is ever expanded from a compressed block."""
INLINE_BYTES_MAX: Final = 3 * KIB
"""Objects up to here live in the metadata log."""
BLOCKS_IN_FLIGHT_PER_REQUEST: Final = 3
BLOCK_DELETE_DELAY_MS: Final = 600_000
PENDING_LEASE_MS: Final = 24 * 3_600_000

# --- metadata log
LOG_FILE_BYTES: Final = 16 * MIB
TRANSACTION_BYTES_MAX: Final = MIB
COMMIT_QUEUE_BYTES_MAX: Final = 4 * MIB
"""Records waiting for the log; beyond it writers wait."""

# --- peers
LINGERING_BYTES_MAX: Final = MIB
"""Writes still on their way to one node when their quorums are there; beyond it that node gets
the rest by anti-entropy."""
ROWS_ANSWER_BYTES_MAX: Final = 512 * KIB
"""Rows of one answer to a range read, about: a page of 1,000 listed keys fits."""
SETTINGS_FEED_ROWS_MAX: Final = 4096
"""Buckets, names and keys of which a node remembers in which order they last changed; a peer that
knows of less is told all of them again."""

# --- shares of the memory budget
MEMORY_BYTES: Final = 128 * MIB
MEMORY_BASE: Final = 44 * MIB
"""Interpreter, libraries, server."""
MEMORY_BODY_BUFFERS: Final = 24 * MIB
"""Blocks being received or sent, all clients together."""
MEMORY_BLOCK_CACHE: Final = 8 * MIB
"""Decoded metadata blocks."""
MEMORY_INDEX_CACHE: Final = 6 * MIB
MEMORY_MEMTABLE: Final = 6 * MIB
"""Each of two: the active one and the one being written out."""
MEMORY_COMMIT: Final = COMMIT_QUEUE_BYTES_MAX
MEMORY_BACKGROUND: Final = 8 * MIB
"""Compaction, scrub, resync."""
MEMORY_SLACK: Final = 14 * MIB
"""Sockets' buffers in user space, threads, the allocator."""

MEMORY_BLOCKS_IN: Final = 3 * MIB
"""Blocks that peers send, being received."""
MEMORY_BLOCKS_OUT: Final = 2 * MIB
"""Blocks that peers read, being sent."""
MEMORY_STRAGGLERS: Final = 3 * MIB
"""Blocks that were acknowledged and are still on their way to a slow node; see block_sending."""

if (
    MEMORY_BASE
    + MEMORY_BODY_BUFFERS
    + MEMORY_BLOCK_CACHE
    + MEMORY_INDEX_CACHE
    + 2 * MEMORY_MEMTABLE
    + MEMORY_COMMIT
    + MEMORY_BACKGROUND
    + MEMORY_SLACK
    + MEMORY_BLOCKS_IN
    + MEMORY_BLOCKS_OUT
    + MEMORY_STRAGGLERS
    > MEMORY_BYTES
):
    raise AssertionError("the memory shares exceed the budget")
