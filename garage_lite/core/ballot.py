"""One value decided among replicas: CASPaxos, an instance a key, beside writes without a ballot.

Denis Rystsov, "CASPaxos: Replicated State Machines without logs", 2018. A register is the rows
of one key. A proposer asks a quorum to promise (`Prepare`), learns from it what is there, judges,
and has a quorum accept (`Accept`). What a quorum accepted at one ballot is chosen: only then do
its rows become rows (`Learn`). No leader, no log; at rest a replica keeps one small `Acceptor`.

Rules, each with a mutant in the model's test:
- an acceptor refuses what is below its promise, and what it accepted stays until it is known to
  be chosen or something of a higher ballot takes its place;
- a proposer that meets something undecided finishes it first, under its own ballot;
- an accept carries the rows it was decided on, where its quorum did not all have them;
- a proposer that is refused after a proposal of its own first voids that one (accepts nothing);
- rows may be pruned, so what was settled on another's behalf is noted beside them: its writer
  may still be about to ask. Where notes had to be dropped, that writer is told "unknown".

Pure: knows neither what rows mean (a judge does) nor how requests travel. `deciding` is a
generator of requests that is sent the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, NamedTuple, TypeVar

from garage_lite.core.codec import decode, encode, row_decoder
from garage_lite.core.errors import Unavailable

T = TypeVar("T")
Rows = tuple[tuple[bytes, bytes], ...]
"""(row key, value)."""
Merge = Callable[[bytes, bytes | None, bytes], bytes]
"""(row key, stored value, update) -> their join."""

TAG = 1
NOTES_MAX: Final = 32
"""Notes an acceptor keeps, about 40 bytes each. They come only from races, one each, and matter
only until a writer that was overtaken has asked again."""


class Ballot(NamedTuple):
    """Ordered, and used by one proposer once: a node never issues a stamp twice."""

    clock: int
    """A stamp of the proposer's hybrid clock, microseconds."""
    node: bytes


NEVER: Final = Ballot(0, b"")


class Proposal(NamedTuple):
    """What an acceptor is asked to accept."""

    name: bytes = b""
    """Names its own row among all that the register ever had."""
    rows: Rows = ()
    """Its own row first, then what rides with it."""
    settles: tuple[bytes, ...] = ()
    """Names of what was written without a ballot and stands once this is chosen."""


NOTHING: Final = Proposal()

Notes = Mapping[bytes, int]
"""Name of something settled on behalf of a writer who may not know -> clock of the ballot that
settled it."""


@dataclass(frozen=True, slots=True)
class Acceptor:
    """What one replica remembers of a register's ballots.

    row = [1, promised, accepted, [name, rows, settles], [[name, clock], ...], forgot]
    """

    promised: Ballot = NEVER
    accepted: Ballot = NEVER
    """Of the last proposal accepted, or of one known to be chosen since."""
    proposal: Proposal = NOTHING
    """What was accepted; `NOTHING` once that is known to be chosen, or void."""
    notes: tuple[tuple[bytes, int], ...] = ()
    """Newest first."""
    forgot: int = 0
    """The highest clock among the notes that had to be dropped."""

    def prepare(self, ballot: Ballot) -> Acceptor | None:
        """After a promise to accept nothing below `ballot`; None: refused."""
        return None if ballot < self.promised else replace(self, promised=ballot)

    def accept(self, ballot: Ballot, proposal: Proposal, notes: Notes) -> Acceptor | None:
        """After accepting; None: refused. `notes`: those that the proposer met."""
        if ballot < self.promised:
            return None
        return replace(self, promised=ballot, accepted=ballot, proposal=proposal)._noting(notes)

    def learn(self, ballot: Ballot, names: Iterable[bytes] = ()) -> Acceptor:
        """After hearing that what was accepted at `ballot` is chosen, and settles `names`."""
        known = self._noting(dict.fromkeys(names, ballot.clock))
        if ballot < self.accepted:
            return known
        promised = max(self.promised, ballot)
        return replace(known, promised=promised, accepted=ballot, proposal=NOTHING)

    def met(self, name: bytes, ballot: Ballot) -> Acceptor:
        """After a chosen row came by another way (anti-entropy, a carried row): `ballot` is the
        one it was first proposed at, which what chose it is not below."""
        if name == self.proposal.name:
            return self.learn(self.accepted, names_of(self.proposal))
        return self.learn(ballot) if ballot >= self.accepted else self

    def join(self, other: Acceptor) -> Acceptor:
        """Of two replicas' memories: what a new owner takes over from an old one."""
        later, earlier = self, other
        if (other.accepted, not other.undecided) > (self.accepted, not self.undecided):
            later, earlier = other, self
        promised = max(self.promised, other.promised)
        forgot = max(self.forgot, other.forgot)
        return replace(later, promised=promised, forgot=forgot)._noting(dict(earlier.notes))

    @property
    def undecided(self) -> bool:
        """Whether this replica knows no end of what it accepted."""
        return self.proposal != NOTHING

    def _noting(self, new: Notes) -> Acceptor:
        if not new:
            return self
        notes = {**new, **dict(self.notes)}
        newest = sorted(notes.items(), key=lambda note: (-note[1], note[0]))
        dropped = [clock for _, clock in newest[NOTES_MAX:]]
        return replace(self, notes=tuple(newest[:NOTES_MAX]), forgot=max(self.forgot, *dropped, 0))

    def encode(self) -> bytes:
        proposal = pack_proposal(self.proposal)
        return encode(TAG, [self.promised, self.accepted, proposal, self.notes, self.forgot])

    @classmethod
    @row_decoder
    def decode(cls, data: bytes) -> Acceptor:
        """Raises StorageFailed."""
        promised, accepted, proposal, notes, forgot = decode(data, TAG)
        return cls(
            Ballot(*promised),
            Ballot(*accepted),
            unpack_proposal(proposal),
            tuple((name, clock) for name, clock in notes),
            forgot,
        )


def names_of(proposal: Proposal) -> tuple[bytes, ...]:
    """All that is settled once it is chosen, itself included."""
    return (*proposal.settles, proposal.name) if proposal.name else proposal.settles


def pack_proposal(proposal: Proposal) -> list[Any]:
    return [proposal.name, proposal.rows, proposal.settles]


def unpack_proposal(packed: Any) -> Proposal:
    """Raises ValueError, TypeError."""
    name, rows, settles = packed
    return Proposal(name, tuple((key, value) for key, value in rows), tuple(settles))


# --- what a quorum knows


class Promise(NamedTuple):
    """What a replica answers to a prepare it does not refuse."""

    rows: Mapping[bytes, bytes]
    """Its rows of the register: all that may decide what stands now."""
    accepted: Ballot
    proposal: Proposal
    notes: Notes
    forgot: int


class Slot(NamedTuple):
    """Something accepted by one replica."""

    ballot: Ballot
    proposal: Proposal


@dataclass(frozen=True, slots=True)
class Known:
    """What a quorum's promises say together."""

    rows: Mapping[bytes, bytes]
    undecided: Proposal | None
    """Accepted somewhere, maybe chosen, by no one here known to be so."""
    notes: Notes
    """Settled, though perhaps pruned since."""
    forgot: int
    """What was settled up to this clock may lack its note."""
    newest: Ballot
    """The highest at which anything was accepted."""
    ended: Proposal | None
    """Something chosen, or void, that somebody still takes for undecided."""
    uneven: frozenset[bytes]
    """Keys of rows that not all who promised have as they are in `rows`."""


class Rules(NamedTuple):
    """How the rows of a kind of register are handled."""

    merge: Merge
    carried: Callable[[Known], Rows]
    """Of the rows that are uneven those an accept must bring along: what it was decided on."""


def union(promises: Sequence[Promise], merge: Merge) -> Known:
    rows: dict[bytes, bytes] = {}
    notes: dict[bytes, int] = {}
    for promise in promises:
        notes.update(promise.notes)
        for key, value in promise.rows.items():
            rows[key] = merge(key, rows.get(key), value)
    slots = [Slot(promise.accepted, promise.proposal) for promise in promises]
    undecided, chosen_slot = decided(slots, rows, merge)
    newest = max(slot.ballot for slot in slots)
    ended = None
    if chosen_slot is not None:
        ended = chosen_slot.proposal
        notes.update(dict.fromkeys(names_of(ended), newest.clock))
    elif undecided is None and any(slot.proposal != NOTHING for slot in slots):
        ended = NOTHING
    uneven = frozenset(
        key for key, value in rows.items() if any(p.rows.get(key) != value for p in promises)
    )
    forgot = max(promise.forgot for promise in promises)
    return Known(rows, undecided, notes, forgot, newest, ended, uneven)


def decided(
    slots: Sequence[Slot], rows: Mapping[bytes, bytes], merge: Merge
) -> tuple[Proposal | None, Slot | None]:
    """Of what a quorum's members accepted: what is undecided, if anything is, or else the slot
    that is known to be chosen. Only the highest ballot counts: its proposer knew of all below that
    may have been chosen."""
    newest = max((slot.ballot for slot in slots), default=NEVER)
    found = [slot for slot in slots if slot.ballot == newest and slot.proposal != NOTHING]
    if not found:
        return None, None
    ended = any(slot == (newest, NOTHING) for slot in slots)
    if ended or is_among(found[0].proposal, rows, merge):
        return None, found[0]
    return found[0].proposal, None


def is_among(proposal: Proposal, rows: Mapping[bytes, bytes], merge: Merge) -> bool:
    """Whether its own row is among the rows already, so that it was chosen."""
    if not proposal.rows:
        return False
    key, value = proposal.rows[0]
    stored = rows.get(key)
    return stored is not None and merge(key, stored, value) == stored


# --- the proposer


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a quorum accepted at one ballot, for all replicas to take over."""

    ballot: Ballot
    rows: Rows
    names: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Prepare:
    """To all replicas; wants the promises of a quorum. Answer: `Promises` or `Refused`."""

    ballot: Ballot
    learnt: Chosen | None
    """Taken over before the promise is made."""


@dataclass(frozen=True, slots=True)
class Accept:
    """To all replicas; wants a quorum to accept. Answer: `Accepted` or `Refused`."""

    ballot: Ballot
    proposal: Proposal
    carry: Rows
    notes: Notes


@dataclass(frozen=True, slots=True)
class Learn:
    """To all replicas, waiting for none. Answer: None."""

    chosen: Chosen


@dataclass(frozen=True, slots=True)
class Pause:
    """Another proposer, or the network, came between: wait a random while. Answer: None."""

    attempt: int
    """1, 2, ..."""


@dataclass(frozen=True, slots=True)
class Promises:
    """The promises of a quorum in every live layout."""

    promises: Sequence[Promise]


@dataclass(frozen=True, slots=True)
class Accepted:
    """By a quorum in every live layout."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No quorum answered as wished."""

    above: Ballot = NEVER
    """The highest ballot that somebody promised to another."""
    void: bool = False
    """What was proposed never was and never will be chosen: a quorum has given it up."""


Request = Prepare | Accept | Learn | Pause
Answer = Promises | Accepted | Refused | None
Steps = Generator[Request, Answer, T]


@dataclass(frozen=True, slots=True)
class Verdict(Generic[T]):
    """What a judge makes of the rows a quorum knows."""

    result: T
    proposal: Proposal = NOTHING
    """To be chosen before the result may be told."""
    confirms: Rows = ()
    """What to learn besides once it is chosen: rows that its `settles` settled."""


Judge = Callable[[Known, Ballot], Verdict[T]]


def deciding(judge: Judge[T], next_ballot: Callable[[Ballot], Ballot], rules: Rules) -> Steps[T]:
    """Decide a register. Returns the judge's result once that stands.

    `next_ballot(above)` gives a new ballot above that one. The judge sees what a quorum knows,
    with nothing undecided, and is asked again after each interruption. Raises Unavailable where
    it can't be known any more whether an earlier proposal was chosen.
    """
    learnt: Chosen | None = None
    proposed: Ballot | None = None
    above, attempt = NEVER, 0
    void: set[bytes] = set()
    while True:
        ballot = next_ballot(above)
        answer = yield Prepare(ballot, learnt)
        if isinstance(answer, Promises):
            known = _without(void, union(answer.promises, rules.merge))
            if known.undecided is not None:
                answer = yield finishing(known, known.undecided, ballot, rules)
                if isinstance(answer, Accepted):
                    learnt = finished(known.undecided, ballot)
                    continue
                if isinstance(answer, Refused) and answer.void:
                    void.add(known.undecided.name)
                    continue
            else:
                if proposed is not None and known.forgot >= proposed.clock:
                    raise Unavailable("It is unknown whether this took effect. Look, then retry.")
                verdict = judge(known, ballot)
                if verdict.proposal == NOTHING and proposed is None:
                    return verdict.result
                proposed = proposed or ballot
                answer = yield proposing(known, verdict, ballot, rules)
                if isinstance(answer, Accepted):
                    if verdict.proposal != NOTHING:
                        yield Learn(chosen(verdict, ballot))
                    return verdict.result
        if isinstance(answer, Refused):
            above = max(above, answer.above)
        attempt += 1
        yield Pause(attempt)


def settling(next_ballot: Callable[[Ballot], Ballot], rules: Rules) -> Steps[None]:
    """Finish what is undecided, or tell of what was chosen whoever lacks it; nothing else."""
    above, attempt = NEVER, 0
    void = b""
    while True:
        ballot = next_ballot(above)
        answer = yield Prepare(ballot, None)
        if isinstance(answer, Promises):
            known = union(answer.promises, rules.merge)
            if known.undecided is None:
                carry = rules.carried(known)
                if known.ended is not None or carry:
                    yield Learn(repeated(known, carry))
                return
            is_void = void != b"" and known.undecided.name == void
            end = NOTHING if is_void else known.undecided
            answer = yield finishing(known, end, ballot, rules)
            if isinstance(answer, Accepted):
                yield Learn(finished(end, ballot))
                return
            if isinstance(answer, Refused) and answer.void:
                void = end.name
                continue
        if isinstance(answer, Refused):
            above = max(above, answer.above)
        attempt += 1
        yield Pause(attempt)


def _without(void: set[bytes], known: Known) -> Known:
    """With nothing undecided where that is void."""
    if known.undecided is None or known.undecided.name not in void:
        return known
    return replace(known, undecided=None)


def finishing(known: Known, proposal: Proposal, ballot: Ballot, rules: Rules) -> Accept:
    """Another's proposal under one's own ballot."""
    return Accept(ballot, proposal, rules.carried(known), known.notes)


def repeated(known: Known, carry: Rows) -> Chosen:
    """What was chosen before, for those who have not heard."""
    ended = known.ended or NOTHING
    return Chosen(known.newest, ended.rows + carry, names_of(ended))


def finished(proposal: Proposal, ballot: Ballot) -> Chosen:
    """Its proposer does not know, so it is noted."""
    return Chosen(ballot, proposal.rows, names_of(proposal))


def proposing(known: Known, verdict: Verdict[Any], ballot: Ballot, rules: Rules) -> Accept:
    return Accept(ballot, verdict.proposal, rules.carried(known), known.notes)


def chosen(verdict: Verdict[Any], ballot: Ballot) -> Chosen:
    rows = verdict.proposal.rows + verdict.confirms
    return Chosen(ballot, rows, verdict.proposal.settles)
