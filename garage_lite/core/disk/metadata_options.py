"""What the metadata store can be told, and what it tells about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from garage_lite.core.limits import (
    LOG_FILE_BYTES,
    MEMORY_BLOCK_CACHE,
    MEMORY_INDEX_CACHE,
    MEMORY_MEMTABLE,
)
from garage_lite.core.metalog.compaction import FAN_IN, SEGMENT_BYTES_MAX, SEGMENT_ROWS_MAX


@dataclass(frozen=True)
class MetadataOptions:
    suffix_bytes: Mapping[int, int] = field(default_factory=dict)
    """First byte of a key -> how many last bytes its bloom filter leaves out. Belongs to the
    store's format: it must not change for a table that has rows."""
    fsync: bool = True
    """False: records are handed to the operating system and acknowledged; a power cut loses the
    last seconds."""
    pause: Callable[[float], None] | None = None
    """Sleeps the background thread for some seconds between its small steps (time.sleep in a
    node); None: never, then the event loop waits up to 5 ms for the interpreter."""
    snapshots_directory: str | None = None
    """Where snapshots go; None: a directory of the store's own. On another file system segments
    are copied, not linked."""
    memtable_bytes: int = MEMORY_MEMTABLE
    log_file_bytes: int = LOG_FILE_BYTES
    log_files_max: int = 4
    """Full log files that force a flush, however few rows they hold."""
    block_cache_bytes: int = MEMORY_BLOCK_CACHE
    index_cache_bytes: int = MEMORY_INDEX_CACHE
    segment_rows_max: int = SEGMENT_ROWS_MAX
    segment_bytes_max: int = SEGMENT_BYTES_MAX
    fan_in: int = FAN_IN


@dataclass(frozen=True)
class MetadataStatus:
    store_id: bytes
    sequence: int
    """Of the newest durable record."""
    rows: int
    """An estimate: rows in segments and memory, with those that newer ones replace."""
    segments: int
    segment_bytes: int
    log_bytes: int
    sync_p50_us: int
    sync_p99_us: int
    """Of the last batches: from the start of a write to its being durable."""
    records_per_batch: float
    merging_rows: int
    """Rows that compaction is at work on now."""
    disk_full: bool
    damage: tuple[str, ...]
    """What was found damaged, in words; not empty: rows are missing, the node is recovering."""
    failed: str
    """Empty, or why the store refuses writes until it is opened again."""
    trouble: str
    """Empty, or why compaction has stopped."""
    set_aside: tuple[str, ...] = ()
    """Damaged log files that are kept, oldest first, until `forget_damage`."""
