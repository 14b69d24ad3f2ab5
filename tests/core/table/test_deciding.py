"""What judges say of the versions of one key, rule by rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from garage_lite.core.ballot import NEVER, NOTHING, Ballot, Known, Promise, Proposal, union
from garage_lite.core.errors import PreconditionFailed, Unavailable
from garage_lite.core.ids import BucketId, VersionId
from garage_lite.core.model.objects import Floor, Kind, ObjectVersion
from garage_lite.core.model.rowkeys import Stamp, object_prefix, object_row
from garage_lite.core.table.deciding import (
    SUCCESSOR_MAX,
    conditional,
    finishing_blind,
    is_late,
    must_settle,
    name_of,
    successor_of,
)
from garage_lite.core.table.schema import merge_rows

PREFIX = object_prefix(BucketId(b"b" * 32), b"key")
BALLOT = Ballot(9, b"n")
NEW = VersionId(b"n" * 16)


def stamp(clock: int, letter: bytes, successor: int = 0) -> Stamp:
    return Stamp(clock, successor, VersionId(letter * 16))


def version(at: Stamp, *, settled: bool = False) -> ObjectVersion:
    return ObjectVersion(at, Kind.INLINE, 0, floor=Floor.ALL, settled=settled)


def name(at: Stamp) -> bytes:
    return name_of(object_row(PREFIX, at))


def known(*versions: ObjectVersion, notes: Sequence[Stamp] = (), forgot: int = 0) -> Known:
    rows = {object_row(PREFIX, each.stamp): each.encode() for each in versions}
    promise = Promise(rows, NEVER, NOTHING, {name(at): 1 for at in notes}, forgot)
    return union([promise], merge_rows)


def free(alive: Sequence[ObjectVersion], placed: ObjectVersion) -> None:
    if alive and alive[0].has_data:
        raise PreconditionFailed


def anything(alive: Sequence[ObjectVersion], placed: ObjectVersion) -> None:
    pass


def test_a_blind_write_is_late_after_anything_stamped_no_lower() -> None:
    assert not is_late(stamp(5, b"a"), [stamp(4, b"z", 7)])
    assert is_late(stamp(5, b"z"), [stamp(5, b"a")])
    assert is_late(stamp(5, b"z"), [stamp(4, b"a"), stamp(6, b"a")])


def test_a_successor_comes_right_after_the_newest() -> None:
    assert successor_of([], NEW) == Stamp(0, 1, NEW)
    assert successor_of([stamp(5, b"a", 2), stamp(5, b"z", 1)], NEW) == Stamp(5, 3, NEW)
    assert successor_of([stamp(5, b"a", SUCCESSOR_MAX)], NEW) == Stamp(6, 0, NEW)


def test_a_conditional_write_settles_what_it_was_decided_on() -> None:
    below = version(stamp(5, b"a"))
    verdict = conditional(PREFIX, version(stamp(0, b"n")), anything)(known(below), BALLOT)
    placed = verdict.result
    assert isinstance(placed, ObjectVersion)
    assert (placed.stamp, placed.settled, placed.ballot) == (Stamp(5, 1, NEW), True, BALLOT)
    row = object_row(PREFIX, placed.stamp)
    assert verdict.proposal == Proposal(
        name_of(row), ((row, placed.encode()),), (name(below.stamp),)
    )
    settled = replace(below, settled=True)
    assert verdict.confirms == ((object_row(PREFIX, below.stamp), settled.encode()),)


def test_a_refusal_settles_what_it_was_decided_on_unless_that_is_settled() -> None:
    judge = conditional(PREFIX, version(stamp(0, b"n")), free)
    below = version(stamp(5, b"a"))
    verdict = judge(known(below), BALLOT)
    assert isinstance(verdict.result, PreconditionFailed)
    assert verdict.proposal == Proposal(b"", (), (name(below.stamp),))
    for firm in (known(replace(below, settled=True)), known(below, notes=[below.stamp])):
        assert judge(firm, BALLOT).proposal == NOTHING


def test_a_conditional_write_that_was_chosen_is_not_proposed_again() -> None:
    judge = conditional(PREFIX, version(stamp(0, b"n")), free)
    chosen = version(Stamp(5, 1, NEW), settled=True)
    over_it = version(stamp(7, b"z"))
    for what in (known(chosen), known(over_it, notes=[chosen.stamp])):
        verdict = judge(what, BALLOT)
        assert isinstance(verdict.result, ObjectVersion)
        assert verdict.result.stamp == chosen.stamp
        assert verdict.proposal == NOTHING


def test_a_late_write_that_is_settled_or_the_newest_stands() -> None:
    late = version(stamp(5, b"a"))
    judge = finishing_blind(PREFIX, late, NEW)
    above = version(stamp(7, b"z"))
    for what in (known(above, replace(late, settled=True)), known(above, notes=[late.stamp])):
        verdict = judge(what, BALLOT)
        assert (verdict.result.stamp, verdict.proposal) == (late.stamp, NOTHING)
    verdict = judge(known(late), BALLOT)
    assert verdict.result.stamp == late.stamp
    assert verdict.proposal == Proposal(b"", (), (name(late.stamp),))


def test_any_other_late_write_is_replaced_above_what_is_known_and_above_itself() -> None:
    late = version(stamp(5, b"a"))
    inline = ((b"inline", b"bytes"),)
    for there, expected in (((), Stamp(5, 1, NEW)), ((stamp(7, b"z"),), Stamp(7, 1, NEW))):
        judge = finishing_blind(PREFIX, late, NEW, inline)
        verdict = judge(known(*(version(at) for at in there)), BALLOT)
        assert (verdict.result.stamp, verdict.result.replaces) == (expected, late.stamp)
        row = object_row(PREFIX, expected)
        assert verdict.proposal.rows == ((row, verdict.result.encode()), *inline)


def test_a_replacement_that_was_chosen_is_not_made_again() -> None:
    late = version(stamp(5, b"a"))
    verdict = finishing_blind(PREFIX, late, NEW)(known(notes=[Stamp(7, 1, NEW)]), BALLOT)
    assert (verdict.result.stamp, verdict.proposal) == (Stamp(7, 1, NEW), NOTHING)


def test_where_notes_were_dropped_a_late_write_does_not_know_its_end() -> None:
    late = version(stamp(5, b"a"))
    with pytest.raises(Unavailable, match="unknown"):
        finishing_blind(PREFIX, late, NEW)(known(forgot=4), BALLOT)


def test_a_reader_settles_only_what_is_above_what_it_knows() -> None:
    def undecided(at: Stamp) -> Known:
        proposal = Proposal(name(at), ((object_row(PREFIX, at), version(at).encode()),))
        return replace(known(version(stamp(5, b"a"))), undecided=proposal)

    assert must_settle(undecided(stamp(5, b"a", 1)))
    assert not must_settle(undecided(stamp(4, b"z", 1)))
    assert must_settle(replace(undecided(stamp(1, b"a")), rows={}))
    pin = Proposal(b"", (), (name(stamp(5, b"a")),))
    assert not must_settle(replace(known(), undecided=pin))
