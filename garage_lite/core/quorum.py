"""Quorum sizes, and the verdict on a set of replies.

R + W > rf in the `consistent` mode, so a read meets every acknowledged write (Garage's sizes:
rf 1: 1/1, 2: read 1 write 2, 3: 2/2, 4: 2/3, 5: 3/3). `degraded` reads from one, `dangerous`
also writes to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Consistency(Enum):
    CONSISTENT = "consistent"
    DEGRADED = "degraded"
    DANGEROUS = "dangerous"


@dataclass(frozen=True, slots=True)
class Quorums:
    """How many replicas must answer, of `replicas`."""

    replicas: int
    read: int
    write: int


def quorums(replication_factor: int, mode: Consistency) -> Quorums:
    read = (replication_factor + 1) // 2
    write = replication_factor + 1 - read
    if mode is not Consistency.CONSISTENT:
        read = 1
    if mode is Consistency.DANGEROUS:
        write = 1
    return Quorums(replication_factor, read, write)


class Verdict(Enum):
    WAIT = "wait"
    DONE = "done"
    IMPOSSIBLE = "impossible"


def verdict(needed: int, asked: int, succeeded: int, failed: int) -> Verdict:
    """Whether `needed` of `asked` replies are there, still possible, or out of reach."""
    if succeeded >= needed:
        return Verdict.DONE
    if asked - failed < needed:
        return Verdict.IMPOSSIBLE
    return Verdict.WAIT
