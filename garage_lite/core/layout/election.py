"""Which layout becomes version n: decided once, though two people apply at the same time.

Single-decree Paxos (Lamport, "Paxos Made Simple", 2001) for each version number among the nodes
that are to stay: those of the current version that the staged changes keep, or for the first
layout all that it names. Nodes that are being removed have no voice, for the usual reason to
remove a node is that it is dead. Two halves of a cluster that each remove the other can still
make two different versions with one number; that is met when they meet again, and refused.
Must not know connections or time.

    vote = [1, number, promised ballot, accepted ballot | nil, accepted version | nil]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from garage_lite.core.codec import decode, encode, row_decoder
from garage_lite.core.ids import NodeId
from garage_lite.core.layout.version import LayoutVersion

TAG: Final = 1

Ballot = tuple[int, bytes]
"""(round, proposer's node id): ordered, and never the same for two proposers."""
NONE: Final[Ballot] = (0, b"")


@dataclass(frozen=True, slots=True)
class Vote:
    """What one node has promised and accepted for version `number`."""

    number: int
    promised: Ballot = NONE
    accepted: Ballot = NONE
    version: LayoutVersion | None = None

    def about(self, number: int) -> Vote:
        """The vote on `number`: this one, or a fresh one for a newer number. What was said of
        an older number no longer matters: its version is known, or nobody needs it."""
        return self if number <= self.number else Vote(number)

    def promise(self, ballot: Ballot) -> Vote | None:
        """After a promise to `ballot`; None refuses."""
        return replace(self, promised=ballot) if ballot > self.promised else None

    def accept(self, ballot: Ballot, version: LayoutVersion) -> Vote | None:
        """After accepting `version` in `ballot`; None refuses."""
        if ballot < self.promised:
            return None
        return Vote(self.number, ballot, ballot, version)

    def encode(self) -> bytes:
        packed = None if self.version is None else self.version.pack()
        return encode(TAG, [self.number, list(self.promised), list(self.accepted), packed])

    @classmethod
    @row_decoder
    def decode(cls, data: bytes) -> Vote:
        """Raises StorageFailed."""
        number, promised, accepted, packed = decode(data, TAG)
        version = None if packed is None else LayoutVersion.unpack(packed)
        return cls(number, (promised[0], promised[1]), (accepted[0], accepted[1]), version)


def electorate(current: LayoutVersion, planned: LayoutVersion) -> tuple[NodeId, ...]:
    """Who decides about `planned`, sorted; all of its nodes where none of `current` stays."""
    staying = current.roles.keys() & planned.roles.keys()
    return tuple(sorted(staying or planned.roles))


def majority(voters: Sequence[NodeId]) -> int:
    return len(voters) // 2 + 1


def to_propose(answers: Iterable[Vote], own: LayoutVersion) -> LayoutVersion:
    """What a proposer must propose after a majority of promises: what may have been chosen
    already, or else its own."""
    newest = max(answers, key=lambda vote: vote.accepted, default=None)
    if newest is None or newest.version is None:
        return own
    return newest.version
