"""The rules of deciding by ballot, each left out in turn: what the model's checker must catch.

A mutant replaces one small function of the product while the model runs, or sets a switch of the
model where the rule is a caller's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final
from unittest.mock import patch

from garage_lite.core import ballot
from garage_lite.core.ballot import NOTHING, Acceptor, Ballot, Known, Proposal, Slot, Verdict
from garage_lite.core.errors import CallerError
from garage_lite.core.model.objects import ObjectVersion
from garage_lite.core.model.rowkeys import Stamp, stamp_of
from garage_lite.core.table import deciding
from tests.core.ballot_world import Rules, World

Patch = tuple[Any, str, Any]


def _changing_verdicts(maker: str, change: Callable[[Verdict[Any]], Verdict[Any]]) -> Patch:
    """Change what the judges made by `maker` say."""
    make = getattr(deciding, maker)

    def changed(*args: Any) -> Any:
        judge = make(*args)
        return lambda known, number: change(judge(known, number))

    return deciding, maker, changed


def _naming_nothing(verdict: Verdict[Any]) -> Verdict[Any]:
    if not verdict.proposal.rows:
        return verdict
    (key, value), *riders = verdict.proposal.rows
    version = replace(ObjectVersion.decode(stamp_of(key), value), replaces=None)
    rows = ((key, version.encode()), *riders)
    return replace(verdict, proposal=verdict.proposal._replace(rows=rows))


def _refusing_at_once(verdict: Verdict[Any]) -> Verdict[Any]:
    return replace(verdict, proposal=NOTHING) if _is_refusal(verdict) else verdict


def _is_refusal(verdict: Verdict[Any]) -> bool:
    return isinstance(verdict.result, CallerError)


def _by_the_clock(versions: Any, id_: Any) -> Stamp:
    return Stamp(max((each.clock for each in versions), default=1000) + 150, 0, id_)


def _accept_anything(self: Acceptor, number: Ballot, proposal: Proposal, notes: Any) -> Acceptor:
    return replace(self, promised=number, accepted=number, proposal=proposal)._noting(notes)


def _forget_the_ballot(self: Acceptor, number: Ballot, names: Any = ()) -> Acceptor:
    noted = self._noting(dict.fromkeys(names, number.clock))
    if number < self.accepted:
        return noted
    return replace(noted, accepted=ballot.NEVER, proposal=NOTHING)


def _lowest_slot(slots: Any, rows: Any, merge: Any) -> tuple[Proposal | None, Slot | None]:
    found = [slot for slot in slots if slot.proposal != NOTHING]
    lowest = min(found, key=lambda slot: slot.ballot, default=None)
    if lowest is None or ballot.is_among(lowest.proposal, rows, merge):
        return None, None
    return lowest.proposal, None


def _nothing_undecided(slots: Any, rows: Any, merge: Any) -> tuple[Proposal | None, Slot | None]:
    return None, None


_successor = deciding.successor_of
_finishing_blind = deciding.finishing_blind


def _stands_if_known(prefix: Any, late: ObjectVersion, new_id: Any) -> Any:
    judge = _finishing_blind(prefix, late, new_id)

    def stands(known: Known, number: Ballot) -> Verdict[Any]:
        if any(each.stamp == late.stamp for each in deciding.versions_in(known.rows)):
            return Verdict(late)
        return judge(known, number)

    return stands


MUTANTS: Final[Mapping[str, Patch | Rules]] = {
    "a replacement does not name what it replaces": _changing_verdicts(
        "finishing_blind", _naming_nothing
    ),
    "a late write that a quorum knows stands": (deciding, "finishing_blind", _stands_if_known),
    "a replacement need not be above what it replaces": (
        deciding,
        "successor_of",
        lambda versions, id_: _successor(
            versions[1:] if isinstance(versions, list) else versions, id_
        ),
    ),
    "a late write is written again without a ballot": Rules(writes_again_without_ballot=True),
    "no write is ever late": (deciding, "is_late", lambda stamp, others: False),
    "equal clocks are not late": (
        deciding,
        "is_late",
        lambda stamp, others: any(other > stamp for other in others),
    ),
    "a conditional write is stamped by the clock": (deciding, "successor_of", _by_the_clock),
    "a decision settles nothing": (deciding, "_settled", lambda *_: ((), ())),
    "a refusal settles nothing": _changing_verdicts("conditional", _refusing_at_once),
    "nothing is noted": (Acceptor, "_noting", lambda self, notes: self),
    "an accept carries no rows": (
        deciding,
        "VERSIONS",
        deciding.VERSIONS._replace(carried=lambda known: ()),
    ),
    "an accepted row shows at once": Rules(shows_accepted=True),
    "a reader passes over what is undecided": (deciding, "must_settle", lambda known: False),
    "a proposer passes over what is undecided": (ballot, "decided", _nothing_undecided),
    "a proposer finishes the lowest ballot": (ballot, "decided", _lowest_slot),
    "an acceptor keeps no promise": (Acceptor, "accept", _accept_anything),
    "an acceptor forgets the ballot of what was chosen": (Acceptor, "learn", _forget_the_ballot),
    "a minority decides": Rules(quorum=1),
    "a refused proposal stays": Rules(skips_voiding=True),
}


@contextlib.contextmanager
def mutated(name: str) -> Iterator[Rules]:
    """The product without a rule, and the model's rules to run it by."""
    mutant = MUTANTS[name]
    if isinstance(mutant, Rules):
        yield mutant
        return
    owner, attribute, instead = mutant
    with patch.object(owner, attribute, instead):
        yield Rules()


def first_caught(name: str, seeds: range) -> int | None:
    """The first seed whose run shows a fault without this rule."""
    with mutated(name) as rules:
        for seed in seeds:
            try:
                if World(seed, rules=rules).run().fault():
                    return seed
            except (AssertionError, ValueError, OverflowError):
                return seed
    return None
