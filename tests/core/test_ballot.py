"""One acceptor, one proposer, step by step."""

from __future__ import annotations

from typing import Any

import pytest

from garage_lite.core.ballot import (
    NEVER,
    NOTES_MAX,
    NOTHING,
    Accept,
    Accepted,
    Acceptor,
    Ballot,
    Chosen,
    Known,
    Learn,
    Pause,
    Prepare,
    Promise,
    Promises,
    Proposal,
    Refused,
    Rules,
    Verdict,
    deciding,
    settling,
    union,
)
from garage_lite.core.errors import StorageFailed, Unavailable

LOW, MIDDLE, HIGH = (Ballot(clock, b"n") for clock in (1, 2, 3))
MINE = Proposal(b"mine", ((b"k1", b"mine"),), (b"old",))
OTHER = Proposal(b"other", ((b"k2", b"other"),))


def greater(key: bytes, old: bytes | None, new: bytes) -> bytes:
    return max(old or b"", new)


def promise(accepted: Ballot = NEVER, proposal: Proposal = NOTHING, **rows: bytes) -> Promise:
    named = {key.encode(): value for key, value in rows.items()}
    return Promise(named, accepted, proposal, {}, 0)


def accepting(ballot: Ballot, proposal: Proposal) -> Acceptor:
    state = Acceptor().accept(ballot, proposal, {})
    assert state is not None
    return state


def test_a_promise_refuses_what_is_below() -> None:
    state = Acceptor().prepare(MIDDLE)
    assert state is not None
    assert state.prepare(LOW) is None
    assert state.accept(LOW, MINE, {}) is None
    assert state.prepare(MIDDLE) == state
    assert state.accept(MIDDLE, MINE, {}) == Acceptor(MIDDLE, MIDDLE, MINE)


def test_what_is_learnt_ends_what_was_accepted_up_to_it_but_keeps_its_ballot() -> None:
    state = accepting(MIDDLE, MINE)
    assert state.learn(LOW) == state
    ended = state.learn(MIDDLE, [b"old"])
    assert (ended.accepted, ended.proposal) == (MIDDLE, NOTHING)
    assert ended.notes == ((b"old", MIDDLE.clock),)
    assert state.learn(HIGH).promised == HIGH


def test_a_chosen_row_met_elsewhere_ends_its_proposal_and_what_is_below() -> None:
    ended = accepting(MIDDLE, MINE).met(b"mine", LOW)
    assert ended.proposal == NOTHING
    assert dict(ended.notes) == {b"old": MIDDLE.clock, b"mine": MIDDLE.clock}
    assert accepting(MIDDLE, MINE).met(b"other", HIGH).proposal == NOTHING
    assert accepting(MIDDLE, MINE).met(b"other", LOW).proposal == MINE


def test_notes_are_bounded_and_tell_what_they_forgot() -> None:
    state = Acceptor()
    for clock in range(1, NOTES_MAX + 3):
        state = state.learn(Ballot(clock, b"n"), [b"%d" % clock])
    assert len(state.notes) == NOTES_MAX
    assert state.forgot == 2


def test_an_acceptor_survives_its_bytes_and_nothing_else_is_one() -> None:
    state = accepting(MIDDLE, MINE).learn(LOW, [b"a", b"b"])
    assert Acceptor.decode(state.encode()) == state
    for cut in range(len(state.encode())):
        with pytest.raises(StorageFailed):
            Acceptor.decode(state.encode()[:cut])


def test_a_new_owner_takes_over_the_later_of_two_memories() -> None:
    open_, ended = accepting(MIDDLE, MINE), accepting(MIDDLE, MINE).learn(MIDDLE, [b"old"])
    assert open_.join(ended) == ended.join(open_) == ended
    later = accepting(HIGH, OTHER)
    assert later.join(ended).proposal == OTHER
    assert dict(ended.join(later).notes) == {b"old": MIDDLE.clock}


def test_only_the_highest_ballot_can_be_undecided() -> None:
    assert union([promise(LOW, MINE), promise()], greater).undecided == MINE
    assert union([promise(LOW, MINE), promise(MIDDLE, OTHER)], greater).undecided == OTHER
    assert union([promise(LOW, MINE), promise(MIDDLE)], greater).undecided is None


def test_what_is_known_to_be_chosen_is_not_undecided_and_settles_its_names() -> None:
    for other in (promise(MIDDLE), promise(k1=b"mine")):
        known = union([promise(MIDDLE, MINE), other], greater)
        assert known.undecided is None
        assert set(known.notes) == {b"mine", b"old"}


def numbered(clocks: list[int]) -> Any:
    def following(above: Ballot) -> Ballot:
        clocks.append(max(clocks[-1], above.clock) + 1)
        return Ballot(clocks[-1], b"n")

    return following


RULES = Rules(greater, lambda known: tuple((key, known.rows[key]) for key in known.uneven))


def judge(known: Known, ballot: Ballot) -> Verdict[str]:
    return Verdict("refused") if b"k2" in known.rows else Verdict("won", MINE)


def test_two_round_trips_decide() -> None:
    steps = deciding(judge, numbered([0]), RULES)
    assert next(steps) == Prepare(LOW, None)
    accept = steps.send(Promises([promise(k0=b"a"), promise()]))
    assert accept == Accept(LOW, MINE, ((b"k0", b"a"),), {})
    assert steps.send(Accepted()) == Learn(Chosen(LOW, MINE.rows, (b"old",)))
    with pytest.raises(StopIteration, match="won"):
        steps.send(None)


def test_a_refusal_takes_one_round_trip() -> None:
    steps = deciding(judge, numbered([0]), RULES)
    next(steps)
    with pytest.raises(StopIteration, match="refused"):
        steps.send(Promises([promise(k2=b"other")]))


def test_what_is_undecided_is_finished_first_and_told_with_the_next_prepare() -> None:
    steps = deciding(judge, numbered([0]), RULES)
    next(steps)
    accept = steps.send(Promises([promise(LOW, OTHER), promise()]))
    assert isinstance(accept, Accept) and accept.proposal == OTHER
    again = steps.send(Accepted())
    assert again == Prepare(MIDDLE, Chosen(LOW, OTHER.rows, (b"other",)))
    with pytest.raises(StopIteration, match="refused"):
        steps.send(Promises([promise(MIDDLE, k2=b"other"), promise(k2=b"other")]))


def test_a_refused_proposer_first_voids_its_own_proposal() -> None:
    steps = deciding(judge, numbered([0]), RULES)
    next(steps)
    steps.send(Promises([promise(), promise()]))
    assert steps.send(Refused(HIGH)) == Pause(1)
    assert steps.send(None) == Prepare(Ballot(4, b"n"), None)
    void = steps.send(Promises([promise(k2=b"other"), promise(k2=b"other")]))
    assert isinstance(void, Accept) and void.proposal == NOTHING
    with pytest.raises(StopIteration, match="refused"):
        steps.send(Accepted())


def test_a_proposer_whose_note_may_be_dropped_says_that_it_does_not_know() -> None:
    steps = deciding(judge, numbered([0]), RULES)
    next(steps)
    steps.send(Promises([promise()]))
    steps.send(Refused())
    steps.send(None)
    with pytest.raises(Unavailable, match="unknown"):
        steps.send(Promises([promise()._replace(forgot=1)]))


def test_settling_finishes_what_is_undecided_and_nothing_else() -> None:
    steps = settling(numbered([0]), RULES)
    next(steps)
    accept = steps.send(Promises([promise(LOW, OTHER)]))
    assert isinstance(accept, Accept) and accept.proposal == OTHER
    assert steps.send(Accepted()) == Learn(Chosen(LOW, OTHER.rows, (b"other",)))
    with pytest.raises(StopIteration):
        steps.send(None)
    steps = settling(numbered([0]), RULES)
    next(steps)
    with pytest.raises(StopIteration):
        steps.send(Promises([promise(), promise()]))


def test_settling_tells_of_what_was_decided_whoever_takes_it_for_undecided() -> None:
    steps = settling(numbered([0]), RULES)
    next(steps)
    told = steps.send(Promises([promise(LOW, MINE), promise(MIDDLE)]))
    assert told == Learn(Chosen(MIDDLE, (), ()))
    steps = settling(numbered([0]), RULES)
    next(steps)
    told = steps.send(Promises([promise(MIDDLE, MINE), promise(MIDDLE), promise(k0=b"a")]))
    rows = (*MINE.rows, (b"k0", b"a"))
    assert told == Learn(Chosen(MIDDLE, rows, (b"old", b"mine")))
