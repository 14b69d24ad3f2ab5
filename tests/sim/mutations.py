"""The seeded faults: one rule of the protocol left out or bent, each by a small patch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest

from garage_lite.core.ballot import Acceptor, Ballot, Proposal
from garage_lite.core.cluster.blocks import Blocks
from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.quorum_rows import QuorumRows
from garage_lite.core.cluster.recovering import Recovering
from garage_lite.core.cluster.row_service import Question, RowService
from garage_lite.core.cluster.settings_lease import SettingsLease
from garage_lite.core.disk.replica import Replica
from garage_lite.core.layout.history import LayoutHistory
from garage_lite.core.layout.lookup import Lookup
from garage_lite.core.layout.trackers import Tracker
from garage_lite.core.model.objects import Floor, ObjectVersion
from garage_lite.core.model.rowkeys import Stamp, Table, stamp_of
from garage_lite.core.model.uploads import Upload
from garage_lite.core.model.versions import BlockRef, Pending
from garage_lite.core.quorum import Consistency, Quorums, quorums
from garage_lite.core.table import checks, deciding, reading
from garage_lite.core.table.checks import Rule
from garage_lite.core.table.digest import Digest, compare
from garage_lite.core.table.reading import Answer
from tests.sim.mutants import Mutant, Patch

ONE_OBJECT: Final = ("registers", "overwrite without quorum", "lost disks")
MANY: Final = ("sets", "sets at rest")
LAYOUT: Final = ("layouts", "layouts of sets", "from one copy to three")
DECIDED: Final = ("conditional", "beside blind", "racers")
DATA: Final = ("uploads", "deduplicated", "uploads at rest", "deduplicated at rest")

MP = pytest.MonkeyPatch


def setting(target: object, name: str, value: object) -> Patch:
    """A patch that puts `value` in the place of an attribute."""

    def patch(patching: MP) -> None:
        patching.setattr(target, name, value)

    return patch


def named(path: str, value: object) -> Patch:
    """The same, by the dotted name of a module's attribute."""

    def patch(patching: MP) -> None:
        patching.setattr(path, value)

    return patch


def around(target: Any, name: str, wrap: Callable[[Any], Any]) -> Patch:
    """A patch that wraps what is there."""

    def patch(patching: MP) -> None:
        patching.setattr(target, name, wrap(getattr(target, name)))

    return patch


async def nothing(*_: object, **__: object) -> None:
    """In the place of something that should have been done."""


def pass_over(*_: object, **__: object) -> None:
    """In the place of a check."""


# --- quorums


def _smaller(read: int = 0, write: int = 0) -> Callable[[int, Consistency], Quorums]:
    def smaller(copies: int, mode: Consistency) -> Quorums:
        right = quorums(copies, mode)
        return replace(right, read=max(1, right.read - read), write=max(1, right.write - write))

    return smaller


def _newest_only(original: Any) -> Any:
    def write_sets(self: Lookup, partition: int, *, data: bool = False) -> Any:
        return original(self, partition, data=data)[-1:]

    return write_sets


def _not_asked(original: Any) -> Any:
    """A replica leaves out what it believes to be deleted; the coordinator can't join it."""

    async def read(self: RowService, question: Question, *arguments: Any) -> Answer:
        answer: Answer = await original(self, question, *arguments)
        rows = {
            key: value
            for key, value in answer.rows.items()
            if key[0] != Table.OBJECT or not ObjectVersion.decode(stamp_of(key), value).is_tombstone
        }
        return answer._replace(rows=rows)

    return read


def _uncut(patching: MP) -> None:
    def uncut(answers: Any, *, cut: bool = False) -> Any:
        return reading.join(answers)

    patching.setattr("garage_lite.core.cluster.quorum_rows.join", uncut)
    patching.setattr("garage_lite.core.cluster.tables._PAGE_ROWS", 3)


async def _unrepaired(*_: object) -> dict[bytes, bytes]:
    return {}


def _undurable(original: Any) -> Any:
    async def apply(self: Replica, *arguments: Any, **options: Any) -> None:
        """Answers before the record is on the disk."""
        task = asyncio.ensure_future(original(self, *arguments, **options))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.sleep(0)
        if task.done():
            task.result()

    return apply


QUORUMS: Final = (
    Mutant(
        "write quorum one less",
        ONE_OBJECT,
        named("garage_lite.core.layout.lookup.quorums", _smaller(write=1)),
    ),
    Mutant(
        "read quorum one less",
        ONE_OBJECT,
        named("garage_lite.core.layout.lookup.quorums", _smaller(read=1)),
    ),
    Mutant("no read repair", ("registers",), setting(QuorumRows, "_repair", _unrepaired)),
    Mutant("replicas hide tombstones", MANY, around(RowService, "read", _not_asked)),
    Mutant(
        "ranges are not cut where an answer ends",
        MANY,
        _uncut,
    ),
    Mutant("acknowledged before durable", ONE_OBJECT, around(Replica, "apply", _undurable)),
    Mutant(
        "late writes count as on time",
        ("registers", "beside blind"),
        named("garage_lite.core.cluster.quorum_rows._on_time", lambda late: True),
    ),
    Mutant(
        "floors are ignored",
        (*ONE_OBJECT, *MANY),
        named("garage_lite.core.model.objects.ObjectVersion.is_tombstone", property(pass_over)),
    ),
)


# --- rows and merges


def _without_floor(original: Any) -> Any:
    def merge(self: ObjectVersion, other: ObjectVersion) -> ObjectVersion:
        joined: ObjectVersion = original(self, other)
        return replace(joined, floor=Floor(min(self.floor, other.floor)))

    return merge


def _resurrected(self: BlockRef, other: BlockRef) -> BlockRef:
    return BlockRef(max(self.bucket, other.bucket), self.deleted and other.deleted)


def _earlier(kind: type[Upload] | type[Pending]) -> Patch:
    """The merge prefers the state that is less far."""

    def wrap(original: Any) -> Any:
        def merge(self: Any, other: Any) -> Any:
            return (
                original(self, other)
                if self.state == other.state
                else min(self, other, key=lambda row: row.state)
            )

        return merge

    return around(kind, "merge", wrap)


def _without(rule: Rule) -> Patch:
    def wrap(original: Any) -> Any:
        def check(one: checks.Check, row: bytes | None, alone: bool) -> None:
            if one.rule is not rule:
                original(one, row, alone)

        return check

    return around(checks, "_check_row", wrap)


ROWS: Final = (
    Mutant(
        "a merge loses floors", (*ONE_OBJECT, *MANY), around(ObjectVersion, "merge", _without_floor)
    ),
    Mutant("deleted block references come back", DATA, setting(BlockRef, "merge", _resurrected)),
    Mutant("uploads go back", ("uploads", "uploads at rest"), _earlier(Upload)),
    Mutant("pending data goes back", DATA, _earlier(Pending)),
    *(
        Mutant(f"no check: {rule.name.lower()}", ("uploads", "uploads at rest"), _without(rule))
        for rule in (Rule.STILL_WRITING, Rule.NOT_DONE, Rule.UPLOAD_OPEN, Rule.NOT_COMPLETED)
    ),
)


# --- layouts


def _deaf_to_writes(original: Any) -> Any:
    def advanced(self: ClusterLayout, history: LayoutHistory) -> LayoutHistory:
        return history.advanced(self.node, None, Consistency.CONSISTENT)

    return advanced


def _all_synced(original: Any) -> Any:
    def advanced(
        self: LayoutHistory, node: Any, oldest: int | None, mode: Any = Consistency.CONSISTENT
    ) -> LayoutHistory:
        """Says at once that all its rows are with their new holders."""
        history: LayoutHistory = original(self, node, oldest, mode)
        number = history.ack_floor()
        return replace(history, trackers=history.trackers.raised(Tracker.SYNC, node, number))

    return advanced


def _reads_newest(self: LayoutHistory) -> int:
    return self.current.number


LAYOUTS: Final = (
    Mutant("the ack floor is not checked", LAYOUT, setting(RowService, "_refuse_stale", pass_over)),
    Mutant(
        "versions are acknowledged under writes",
        LAYOUT,
        around(ClusterLayout, "_advanced", _deaf_to_writes),
    ),
    Mutant(
        "a node says it has synced and has not",
        LAYOUT,
        around(LayoutHistory, "advanced", _all_synced),
    ),
    Mutant(
        "reads use the newest layout at once",
        LAYOUT,
        setting(LayoutHistory, "read_version", _reads_newest),
    ),
    Mutant(
        "writes go to the newest layout alone", LAYOUT, around(Lookup, "write_sets", _newest_only)
    ),
    Mutant(
        "a minority elects a layout",
        ("two layouts",),
        named("garage_lite.core.cluster.layout_election.majority", lambda voters: 1),
    ),
    Mutant(
        "the choice of others is ignored",
        ("two layouts",),
        named(
            "garage_lite.core.cluster.layout_election.to_propose", lambda votes, planned: planned
        ),
    ),
)

# --- ballots


def _accepting(self: Acceptor, ballot: Ballot, proposal: Proposal, notes: Any) -> Acceptor:
    """Whatever it has promised."""
    return replace(self, promised=ballot, accepted=ballot, proposal=proposal)


def _promising(self: Acceptor, ballot: Ballot) -> Acceptor:
    return replace(self, promised=max(ballot, self.promised))


def _forgetful(self: Acceptor, notes: Any) -> Acceptor:
    return self


def _none_undecided(slots: Any, rows: Any, merge: Any) -> tuple[None, None]:
    return None, None


def _by_the_clock(versions: Any, id_: Any) -> Stamp:
    """The successor's clock is that of nothing it was decided on."""
    newest = max(versions, default=Stamp(0, 0, id_))
    return Stamp(max(0, newest.clock - 10_000_000), newest.successor + 1, id_)


def _one_answers(lookup: Lookup, register: bytes) -> Any:
    return [each._replace(needed=1) for each in lookup.write_sets(register[1])]


def _unchecked(prefix: bytes, version: Any, check: Any, riders: Any = ()) -> Any:
    return deciding.conditional(prefix, version, pass_over, riders)


REGISTERS = "garage_lite.core.cluster.registers"
BALLOTS: Final = (
    Mutant(
        "an acceptor accepts below its promise", DECIDED, setting(Acceptor, "accept", _accepting)
    ),
    Mutant(
        "an acceptor promises what it has outbid", DECIDED, setting(Acceptor, "prepare", _promising)
    ),
    Mutant(
        "ballots are decided by one replica", DECIDED, named(f"{REGISTERS}._sets", _one_answers)
    ),
    Mutant(
        "what is undecided is passed over",
        DECIDED,
        named("garage_lite.core.ballot.decided", _none_undecided),
    ),
    Mutant(
        "successors go by another clock",
        DECIDED,
        named("garage_lite.core.table.deciding.successor_of", _by_the_clock),
    ),
    Mutant(
        "conditions are not looked at",
        DECIDED,
        named("garage_lite.core.store.placing.conditional", _unchecked),
    ),
    Mutant("notes are not kept", ("beside blind",), setting(Acceptor, "_noting", _forgetful)),
    Mutant(
        "no blind write is late",
        ("registers", "beside blind"),
        named("garage_lite.core.table.deciding.is_late", lambda stamp, others: False),
    ),
)


# --- keeping replicas the same, and what was lost


def _all_alike(self: Digest, other: Digest) -> list[int]:
    return []


def _nothing_to_push(original: Any) -> Any:
    def compare(mine: Any, theirs: Any) -> Any:
        return original(theirs, theirs)

    return compare


def _never(self: Recovering, *_: object) -> bool:
    return False


def _always(self: Recovering, *_: object) -> bool:
    return True


KEEPING: Final = (
    Mutant(
        "digests never differ",
        ("sets at rest", "deduplicated at rest"),
        setting(Digest, "differing", _all_alike),
    ),
    Mutant(
        "nothing is pulled or pushed",
        ("sets at rest", "deduplicated at rest"),
        named("garage_lite.core.cluster.row_exchange.compare", _nothing_to_push(compare)),
    ),
    Mutant(
        "an emptied node answers as if it knew",
        ("lost disks",),
        setting(Recovering, "may_answer", _always),
    ),
    Mutant(
        "an emptied node knows what is newest",
        ("lost disks",),
        setting(Recovering, "knows_newest", _always),
    ),
    Mutant(
        "no node is ever recovering", ("lost disks",), setting(Recovering, "is_recovering", _never)
    ),
    Mutant(
        "settings are changed without telling",
        ("revocations",),
        setting(SettingsLease, "settle", nothing),
    ),
    Mutant(
        "a lease never lapses",
        ("revocations",),
        setting(SettingsLease, "valid", property(lambda self: True)),
    ),
)


# --- blocks


def _unreferred(original: Any) -> Any:
    async def refer(self: Blocks, blocks: Any, rows: Any) -> list[Any]:
        """No file is missed."""
        await original(self, blocks, rows)
        return []

    return refer


BLOCKS: Final = (
    Mutant("blocks go at once", DATA, named("garage_lite.core.block.resync.DELETE_DELAY_US", 1)),
    Mutant(
        "missing blocks are not put again",
        ("deduplicated", "copies"),
        around(Blocks, "refer", _unreferred),
    ),
    Mutant(
        "tombstones are forgotten at once",
        (*MANY, "registers"),
        named("garage_lite.core.table.apply.TOMBSTONE_DELAY_MS", 0),
    ),
)

MUTANTS: Final[Sequence[Mutant]] = (
    *QUORUMS,
    *ROWS,
    *LAYOUTS,
    *BALLOTS,
    *KEEPING,
    *BLOCKS,
)
