"""One layout version for one number, whoever proposes and whatever is lost on the way."""

from __future__ import annotations

import random
from itertools import count

import pytest

from garage_lite.core.layout.election import (
    Ballot,
    Vote,
    electorate,
    majority,
    to_propose,
)
from garage_lite.core.layout.roles import Parameters, Role
from garage_lite.core.layout.version import LayoutVersion, compute
from tests.core.layout.build import GB, node

PLANS = [
    compute(1, Parameters(1), {node(1): Role("a", size * GB)}, None) for size in range(100, 104)
]


def test_a_vote_survives_its_encoding() -> None:
    for vote in (Vote(3), Vote(1, (2, node(1)), (2, node(1)), PLANS[0])):
        assert Vote.decode(vote.encode()) == vote


def test_a_ballot_is_promised_once() -> None:
    vote = Vote(1).promise((1, node(1)))
    assert vote is not None and vote.promise((1, node(1))) is None
    assert vote.accept((1, b""), PLANS[0]) is None
    assert Vote(4).about(5) == Vote(5) and vote.about(1) == vote


def test_those_who_stay_decide() -> None:
    roles = {node(n): Role("a", GB) for n in (1, 2, 3)}
    current = compute(1, Parameters(2), roles, None)
    planned = compute(2, Parameters(2), {n: roles[n] for n in (node(1), node(3))}, current)
    assert electorate(current, planned) == (node(1), node(3))
    assert electorate(LayoutVersion(0, Parameters(1)), current) == tuple(sorted(roles))
    assert majority(electorate(current, planned)) == 2


class Race:
    """Proposers and voters whose messages are delayed, lost and reordered."""

    def __init__(self, seed: int, voters: int) -> None:
        self.random = random.Random(seed)
        self.votes = [Vote(1) for _ in range(voters)]
        self.needed = voters // 2 + 1
        self.chosen: set[bytes] = set()
        self.accepts: dict[Ballot, set[int]] = {}

    def run(self) -> None:
        proposers = [self._propose(plan, number) for number, plan in enumerate(PLANS)]
        while proposers:
            proposer = self.random.choice(proposers)
            if next(proposer, None) is None:
                proposers.remove(proposer)

    def _propose(self, own: LayoutVersion, number: int):  # type: ignore[no-untyped-def]
        for turn in count(1):
            if turn > 6:
                return
            ballot = (turn, node(number))
            granted = []
            for at in self._reached():
                yield True
                vote = self.votes[at].promise(ballot)
                if vote is not None:
                    self.votes[at] = vote
                    granted.append(vote)
            if len(granted) < self.needed:
                continue
            choice = to_propose(granted, own)
            for at in self._reached():
                yield True
                vote = self.votes[at].accept(ballot, choice)
                if vote is not None:
                    self.votes[at] = vote
                    agreed = self.accepts.setdefault(ballot, set())
                    agreed.add(at)
                    if len(agreed) >= self.needed:
                        self.chosen.add(choice.encode())

    def _reached(self) -> list[int]:
        order = list(range(len(self.votes)))
        self.random.shuffle(order)
        return order[: self.random.randint(0, len(order))]


@pytest.mark.parametrize("voters", [1, 3, 4, 5])
def test_two_versions_are_never_chosen(voters: int) -> None:
    decided = 0
    for seed in range(300):
        race = Race(seed, voters)
        race.run()
        assert len(race.chosen) <= 1, f"seed {seed}"
        decided += len(race.chosen)
    assert decided > 100


def test_the_race_sees_a_proposer_that_ignores_what_was_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.core.layout.test_election.to_propose", lambda votes, own: own)
    races = [Race(seed, 3) for seed in range(300)]
    for race in races:
        race.run()
    assert any(len(race.chosen) > 1 for race in races)
