"""The queue of blocks to look at again, and what to do with each.

    RESYNC_DUE   due time, us | block hash   -> 01          what comes next, in order of time
    RESYNC       block hash                  -> [1, due, errors, dead since]

Anybody may queue a block without reading anything first: both rows are simply written, in the
record of the change that makes the look necessary. So an index row may be stale. It counts only
while the block's own row exists and is due at the same time or later: an earlier look is never
lost to a later one, and a later one is replaced by an earlier one, which starts the deletion
delay anew where the block turns out to be unreferenced.

The verdict is a pure function of the entry, the facts and the time; backoff as Garage's
(60 s doubling up to 64 min).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final, NamedTuple

from garage_lite.core.codec import decode, encode
from garage_lite.core.ids import BlockHash
from garage_lite.core.limits import BLOCK_DELETE_DELAY_MS
from garage_lite.core.model.rowkeys import Table, local_row
from garage_lite.core.model.versions import BlockRef

TAG = 1
Row = tuple[bytes, bytes]

RETRY_FIRST_US: Final = 60_000_000
RETRY_DOUBLINGS_MAX: Final = 6
DELETE_DELAY_US: Final = BLOCK_DELETE_DELAY_MS * 1000
LEASE_CHECK_US: Final = DELETE_DELAY_US // 2
"""When to ask again for a block that a long read still needs."""

ARRIVAL_US: Final = 10_000_000
"""When to look at a block whose reference came alone: it may be right behind."""

_QUEUED: Final = b"\x01"
_DROP: Final = b""
"""An empty value removes a row of a local table."""
_OWN_KEY = 2


class ResyncEntry(NamedTuple):
    """What the queue knows of one block."""

    due_us: int
    errors: int = 0
    """Failed attempts in a row."""
    dead_us: int = 0
    """Since when the block is known to be without a live reference; 0: not known."""

    def encode(self) -> bytes:
        return encode(TAG, self)

    @classmethod
    def decode(cls, data: bytes) -> ResyncEntry:
        due_us, errors, dead_us = decode(data, TAG)
        return cls(due_us, errors, dead_us)

    @property
    def last_error_us(self) -> int | None:
        """When the last attempt failed; None while none has."""
        return self.due_us - backoff_us(self.errors) if self.errors else None


def backoff_us(errors: int) -> int:
    """How long to wait after the `errors`-th failure in a row."""
    return RETRY_FIRST_US << min(max(errors, 1) - 1, RETRY_DOUBLINGS_MAX)


def entry_key(block: BlockHash) -> bytes:
    return local_row(Table.RESYNC, block)


def due_key(due_us: int, block: BlockHash) -> bytes:
    return local_row(Table.RESYNC_DUE, due_us.to_bytes(8, "big") + block)


def due_of(key: bytes) -> tuple[int, BlockHash]:
    """The due time and the block of a RESYNC_DUE row's key."""
    own = key[_OWN_KEY:]
    return int.from_bytes(own[:8], "big"), BlockHash(own[8:])


def block_of(key: bytes) -> BlockHash:
    """The block of a RESYNC row's key."""
    return BlockHash(key[_OWN_KEY:])


def resync_rows(block: BlockHash, due_us: int, errors: int = 0, dead_us: int = 0) -> list[Row]:
    """Queue one look at a block. Put these (key, value) rows in the record that causes it.

    Now, for a block that must be fetched or checked: `resync_rows(block, now_us)`. For a block
    whose last live reference just went: `deletion_rows`.
    """
    entry = ResyncEntry(due_us, errors, dead_us)
    return [(due_key(due_us, block), _QUEUED), (entry_key(block), entry.encode())]


def deletion_rows(block: BlockHash, now_us: int) -> list[Row]:
    """Queue the deletion of a block that has no live reference any more, after the delay."""
    return resync_rows(block, now_us + DELETE_DELAY_US, 0, now_us)


def looks_for(
    references: Iterable[Row], get: Callable[[bytes], bytes | None], now_us: int
) -> list[Row]:
    """Queue a look at each block of block_ref rows that come to this node without their blocks,
    and are news to it. `get`: its present rows. Put these rows in place before the references,
    so that none is ever here without its block, or somebody who fetches it."""
    blocks = {
        BlockHash(key[2:34])
        for key, value in references
        if not BlockRef.decode(value).deleted and get(key) is None
    }
    return [row for block in sorted(blocks) for row in resync_rows(block, now_us + ARRIVAL_US)]


def stale_rows(block: BlockHash, due_us: int) -> list[Row]:
    """Forget one index row; the block's own row stays."""
    return [(due_key(due_us, block), _DROP)]


def settled_rows(block: BlockHash, due_us: int) -> list[Row]:
    """The block needs nothing more: forget its entry, met at `due_us`."""
    return [(due_key(due_us, block), _DROP), (entry_key(block), _DROP)]


def requeued_rows(block: BlockHash, met_due_us: int, entry: ResyncEntry) -> list[Row]:
    """Replace the entry met at `met_due_us` by another."""
    rows = stale_rows(block, met_due_us) if entry.due_us != met_due_us else []
    return rows + resync_rows(block, *entry)


def counts(due_us: int, entry: ResyncEntry | None) -> bool:
    """Whether an index row at `due_us` is a look still wanted."""
    return entry is not None and due_us <= entry.due_us


class Action(Enum):
    DROP = "drop"
    """All is as it should be: forget the entry."""
    FETCH = "fetch"
    """Referenced here and absent: get it from a peer, then decide again."""
    DELETE = "delete"
    """Without a live reference for long enough: remove the file, forget the entry."""
    WAIT = "wait"
    """Look again at `entry.due_us`."""
    OFFLOAD = "offload"
    """Here, and others own it now: ask them, then decide by `after_asking`."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is so on this node, read under the block's lock."""

    live: int
    """Live references, the higher of what is durable and what was last written."""
    present: bool
    leased: bool = False
    """A long read still needs it."""
    owner: bool = True
    """This node is one of those that keep the block, so the references here are what counts."""
    complete: bool = True
    """This node has met all references to the block that were acknowledged (it did not lose its
    rows lately); else it deletes nothing."""


class Standing(IntEnum):
    """What a node says of a block when it is asked."""

    HELD = 0
    """It owns it, refers to it and has the file."""
    NEEDED = 1
    """It owns it, refers to it and has no file."""
    SPARE = 2
    """It owns it and has a file that nothing refers to."""
    UNWANTED = 3
    """It owns it, and has neither reference nor file."""
    STRANGER = 4
    """By what it knows it does not own it, or can't say yet."""


@dataclass(frozen=True, slots=True)
class Verdict:
    action: Action
    entry: ResyncEntry | None = None
    """The entry that replaces the present one (WAIT only)."""


def decide(entry: ResyncEntry, facts: Facts, now_us: int) -> Verdict:
    """What to do with a block whose turn has come.

    A file goes only when it was found, or said to be, without a live reference a whole deletion
    delay ago, still is, and nobody reads it.
    """
    if not facts.owner:
        return Verdict(Action.OFFLOAD if facts.present else Action.DROP)
    if facts.live:
        return Verdict(Action.DROP if facts.present else Action.FETCH)
    if not facts.present:
        return Verdict(Action.DROP)
    if not facts.complete:
        return Verdict(Action.WAIT, ResyncEntry(now_us + DELETE_DELAY_US))
    if not entry.dead_us or entry.dead_us > now_us:
        # Not known to be dead until now (or noted by a clock that has since gone back).
        return Verdict(Action.WAIT, ResyncEntry(now_us + DELETE_DELAY_US, 0, now_us))
    if now_us < entry.dead_us + DELETE_DELAY_US:
        return Verdict(Action.WAIT, entry._replace(due_us=entry.dead_us + DELETE_DELAY_US))
    if facts.leased:
        return Verdict(Action.WAIT, entry._replace(due_us=now_us + LEASE_CHECK_US))
    return Verdict(Action.DELETE)


def after_asking(
    entry: ResyncEntry,
    said: Sequence[Standing],
    write_quorum: int,
    read_quorum: int,
    *,
    leased: bool,
    now_us: int,
) -> Verdict | None:
    """What to do with the file of a block that others own, by what its owners `said`.

    It goes once a write quorum of them holds it: then there are as many copies as an
    acknowledgement takes. Or once a read quorum says that nothing refers to it, as any
    acknowledged reference would be known to one of them, and that since a deletion delay. None:
    neither is so yet, it stays and they are asked again.
    """
    if sum(one is Standing.HELD for one in said) >= write_quorum:
        if leased:
            return Verdict(Action.WAIT, entry._replace(due_us=now_us + LEASE_CHECK_US))
        return Verdict(Action.DELETE)
    unwanted = sum(one in (Standing.SPARE, Standing.UNWANTED) for one in said)
    wanted = any(one in (Standing.HELD, Standing.NEEDED) for one in said)
    if unwanted < read_quorum or wanted:
        return None
    return decide(entry, Facts(0, True, leased), now_us)


def after_failure(entry: ResyncEntry, now_us: int) -> ResyncEntry:
    """The entry after an attempt that failed at `now_us`."""
    errors = entry.errors + 1
    return entry._replace(due_us=now_us + backoff_us(errors), errors=errors)
