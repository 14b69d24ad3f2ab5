"""How versions of an object are decided by ballot, beside those written without one.

A write without a ballot (blind) stamps with its clock and reads nothing; it stands once a quorum
had it *on time*. A conditional write is decided on the newest version that a quorum knows:

- its stamp is the successor of the newest known, not the clock: what it did not see is after it;
- where that version is a blind write not yet settled, its choice (when it is refused: an empty
  choice) settles that one, and says so to its writer by a note;
- a blind write that was late somewhere is finished by a ballot: is it settled, or the newest, it
  stands; else a new version, successor of the newest, replaces it and names it.

`settled` is set only when that is so for good: by the writer after a quorum on time, or with a
choice that says so. Pure: core/ballot.py plans the messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from garage_lite.core.ballot import Acceptor, Ballot, Judge, Known, Proposal, Rows, Rules, Verdict
from garage_lite.core.errors import CallerError, Unavailable
from garage_lite.core.ids import VersionId
from garage_lite.core.model.objects import ObjectVersion, survivors
from garage_lite.core.model.rowkeys import (
    STAMP_BYTES,
    Stamp,
    Table,
    ballot_row,
    object_row,
    stamp_of,
    undecided_row,
)
from garage_lite.core.table.reading import inline_rows
from garage_lite.core.table.schema import merge_rows

SUCCESSOR_MAX: Final = 0xFFFF
FORGOT_LEAD_US: Final = 3_600_000_000
"""How far the clocks of two writers may be apart (as hlc.MAX_LEAD_US)."""

Check = Callable[[Sequence[ObjectVersion], ObjectVersion], None]
"""(survivors, newest first, the version as it would be) -> raises a CallerError to refuse it."""


def name_of(row_key: bytes) -> bytes:
    """The name of an object row among those of its key."""
    return row_key[-STAMP_BYTES:]


def is_late(stamp: Stamp, others: Iterable[Stamp]) -> bool:
    """Whether a blind write comes after something that was stamped no lower. Successors have the
    clock of what they were decided on, so equal clocks count."""
    return any(other.clock >= stamp.clock for other in others)


def successor_of(versions: Iterable[Stamp], id_: VersionId) -> Stamp:
    """The stamp that comes right after the newest of `versions`."""
    newest = max(versions, default=None)
    if newest is None:
        return Stamp(0, 1, id_)
    if newest.successor == SUCCESSOR_MAX:
        return Stamp(newest.clock + 1, 0, id_)
    return Stamp(newest.clock, newest.successor + 1, id_)


def versions_in(rows: Mapping[bytes, bytes]) -> list[ObjectVersion]:
    """The versions among the rows of one key, newest first."""
    keys = sorted(key for key in rows if key[0] == Table.OBJECT)
    return [ObjectVersion.decode(stamp_of(key), rows[key]) for key in keys]


def conditional(
    prefix: bytes,
    version: ObjectVersion,
    check: Check,
    riders: Callable[[ObjectVersion], Rows] = lambda placed: (),
) -> Judge[ObjectVersion | CallerError]:
    """A write of `version` (its stamp's id counts) that `check` may refuse.

    `prefix` is the key's object prefix; `riders(placed)` are rows to write with it.
    """

    def judge(known: Known, ballot: Ballot) -> Verdict[ObjectVersion | CallerError]:
        versions = versions_in(known.rows)
        stamp = _stamp_known(known, versions, version.id)
        if stamp is not None:
            return Verdict(replace(version, stamp=stamp, settled=True))
        alive = survivors(versions)
        stamp = successor_of((each.stamp for each in versions), version.id)
        placed = replace(version, stamp=stamp, settled=True, ballot=ballot)
        settles, confirms = _settled(prefix, known, alive[:1])
        try:
            check(alive, placed)
        except CallerError as refusal:
            return Verdict(refusal, Proposal(b"", (), settles), confirms)
        row = object_row(prefix, stamp)
        proposal = Proposal(name_of(row), ((row, placed.encode()), *riders(placed)), settles)
        return Verdict(placed, proposal, confirms)

    return judge


def finishing_blind(
    prefix: bytes, late: ObjectVersion, new_id: VersionId, riders: Rows = ()
) -> Judge[ObjectVersion]:
    """The end of a blind write that was late: that version stands, or one that replaces it.

    `late` has the floor that it may set once it stands. `new_id` may be its own where what belongs
    to it is in `riders`, the rows of the replacement.
    """

    def judge(known: Known, ballot: Ballot) -> Verdict[ObjectVersion]:
        versions = versions_in(known.rows)
        stamp = _stamp_known(known, versions, new_id, late.stamp)
        if stamp is not None:
            return Verdict(replace(late, stamp=stamp, settled=True, replaces=late.stamp))
        row = object_row(prefix, late.stamp)
        stands = replace(late, settled=True)
        mine = [each for each in versions if each.stamp == late.stamp]
        if name_of(row) in known.notes or any(each.settled for each in mine):
            return Verdict(stands)
        if known.forgot and known.forgot > late.stamp.clock - FORGOT_LEAD_US:
            raise Unavailable("It is unknown whether this took effect. Look, then retry.")
        if mine and survivors(versions)[:1] == mine:
            return Verdict(stands, Proposal(b"", (), (name_of(row),)), ((row, stands.encode()),))
        stamp = successor_of([late.stamp, *(each.stamp for each in versions)], new_id)
        placed = replace(late, stamp=stamp, settled=True, replaces=late.stamp, ballot=ballot)
        row = object_row(prefix, stamp)
        return Verdict(placed, Proposal(name_of(row), ((row, placed.encode()), *riders)))

    return judge


def undecided_rows(register: bytes, proposal: Proposal) -> list[bytes]:
    """The UNDECIDED row that an acceptor of the proposal has, if it proposes anything."""
    if proposal.rows:
        return [undecided_row(proposal.rows[0][0])]
    # One that only settles something: as of a version below all others.
    return [undecided_row(register + b"\xff" * STAMP_BYTES)] if proposal.settles else []


def met_by_ballot(
    get: Callable[[bytes], bytes | None], prefix: bytes, key: bytes, version: ObjectVersion
) -> dict[bytes, bytes | None]:
    """How a replica's memory of ballots changes (None: drop the row) when a version comes to it
    otherwise: what it accepted of that, or before, is decided. Raises StorageFailed."""
    stored = None if version.ballot is None else get(ballot_row(prefix))
    if stored is None or version.ballot is None:
        return {}
    before = Acceptor.decode(stored)
    after = before.met(name_of(key), Ballot(*version.ballot))
    if after == before:
        return {}
    rows: dict[bytes, bytes | None] = {ballot_row(prefix): after.encode()}
    if not after.undecided:
        rows.update(dict.fromkeys(undecided_rows(prefix, before.proposal)))
    return rows


def must_settle(known: Known) -> bool:
    """Whether a reader may not answer yet: something undecided may be above what it knows."""
    if known.undecided is None or not known.undecided.rows:
        return False
    newest = survivors(versions_in(known.rows))[:1]
    return not newest or stamp_of(known.undecided.rows[0][0]) > newest[0].stamp


def _stamp_known(
    known: Known, versions: Sequence[ObjectVersion], id_: VersionId, but: Stamp | None = None
) -> Stamp | None:
    """The stamp under which a version of this id was chosen, if it was; not the stamp `but`."""
    stamps = [each.stamp for each in versions] + [stamp_of(name) for name in known.notes]
    return next((stamp for stamp in stamps if stamp.id == id_ and stamp != but), None)


def _settled(
    prefix: bytes, known: Known, newest: Sequence[ObjectVersion]
) -> tuple[tuple[bytes, ...], Rows]:
    """What a decision on the newest version settles: names, and the rows as they are then."""
    for version in newest:
        row = object_row(prefix, version.stamp)
        if not version.settled and name_of(row) not in known.notes:
            return (name_of(row),), ((row, replace(version, settled=True).encode()),)
    return (), ()


def current_row(register: bytes, answers: Sequence[Mapping[bytes, bytes]], rules: Rules) -> bytes:
    """The key of the current version's row by what several replicas hold; where there is none,
    one after all versions."""
    rows: dict[bytes, bytes] = {}
    for answer in answers:
        for key, value in answer.items():
            rows[key] = rules.merge(key, rows.get(key), value)
    alive = survivors(versions_in(rows))
    return object_row(register, alive[0].stamp) if alive else register + b"\xff" * STAMP_BYTES


def carried(known: Known) -> Rows:
    """The newest version and what is above it: what is below has no say."""
    newest = survivors(versions_in(known.rows))[:1]
    rows = {}
    for key in known.uneven:
        if key[0] == Table.OBJECT and not (newest and stamp_of(key) < newest[0].stamp):
            rows[key] = known.rows[key]
    for inline in list(inline_rows(rows)):
        if inline in known.rows:
            rows[inline] = known.rows[inline]
    return tuple(sorted(rows.items()))


VERSIONS: Final = Rules(merge_rows, carried)
"""Of the registers that are the versions of one object key."""
