"""Whether a history of one register is linearizable, by brute force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Operation:
    """One call of a client, and what it heard."""

    id: int
    kind: str
    """put, delete, absent (put if there is none), match (put if the current one is `expects`),
    read."""
    start: int
    expects: int | None = None
    end: int | None = None
    ok: bool | None = None
    """None: it never heard."""
    got: int | None = None
    """What a read found: the id of the write."""


def linearizable(operations: Sequence[Operation]) -> bool:
    """Whether some order, true to real time, explains all that was heard: brute force.

    An operation that never heard may have happened, at any time after its start, or not at all.
    """
    never = 1 << 60
    ends = {op.id: op.end if op.end is not None else never for op in operations}
    seen: set[tuple[frozenset[int], int | None]] = set()
    by_id = {op.id: op for op in operations}

    def explained(left: frozenset[int], value: int | None) -> bool:
        if all(by_id[each].ok is None for each in left):
            return True
        if (left, value) in seen:
            return False
        seen.add((left, value))
        first_end = min(ends[each] for each in left)
        return any(
            explained(left - {each}, after)
            for each in sorted(left)
            if by_id[each].start <= first_end
            for after in _outcomes(by_id[each], value)
        )

    return explained(frozenset(by_id), None)


def _outcomes(operation: Operation, value: int | None) -> list[int | None]:
    """What the register may hold once `operation` has happened to one that holds `value`."""
    if operation.kind == "read":
        return [value] if value == operation.got else []
    if operation.kind in ("absent", "match"):
        met = value == operation.expects
        if operation.ok is False:
            return [] if met else [value]
        won: list[int | None] = [operation.id] if met else []
        return won if operation.ok else [*won, value]
    after = operation.id if operation.kind == "put" else None
    return [after] if operation.ok else [after, value]
