"""What must hold of a history, and of the replicas when all is at rest. Pure; each function
returns what is wrong, in words.

The search for a linearization is Wing and Gong's, with the memory of Lowe ("Testing for
linearizability", 2017): states already tried are not tried again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from tests.sim.history import Kind, Operation, Outcome, by_key, printed

_IMPOSSIBLE: Final = object()
STATES_MAX: Final = 2_000_000


def not_linearizable(operations: Iterable[Operation]) -> list[str]:
    """Keys whose operations can't be put in any order that explains what each of them saw."""
    wrong = []
    for key, of_key in sorted(by_key(operations).items()):
        if not _linearizable(of_key):
            wrong.append(f"{key} can't be explained:\n{printed(of_key)}")
    return wrong


def _step(operation: Operation, state: int | None) -> int | None | object:
    """The state after it, or _IMPOSSIBLE where it would not have had this outcome."""
    match operation.kind:
        case Kind.PUT:
            return operation.value
        case Kind.DELETE:
            return None
        case Kind.GET:
            return state if operation.found == state else _IMPOSSIBLE
        case Kind.CREATE:
            holds = state is None
        case _:
            holds = state is not None and state == operation.expected
    if operation.outcome is Outcome.REFUSED:
        return _IMPOSSIBLE if holds else state
    return operation.value if holds else _IMPOSSIBLE


def _linearizable(operations: Sequence[Operation]) -> bool:
    ops = sorted((op for op in operations if _counts(op)), key=lambda op: (op.begin, op.end))
    ends = [op.end if op.outcome is not Outcome.UNKNOWN else math.inf for op in ops]
    must = sum(1 << at for at, op in enumerate(ops) if op.outcome is not Outcome.UNKNOWN)
    seen: set[tuple[int, int | None]] = set()
    stack: list[tuple[int, int | None]] = [(0, None)]
    while stack:
        done, state = stack.pop()
        if done & must == must:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        assert len(seen) < STATES_MAX, "the history is too concurrent to be searched"
        first_end = min(ends[at] for at in range(len(ops)) if not done >> at & 1)
        for at, op in enumerate(ops):
            if op.begin > first_end:
                break
            if not done >> at & 1:
                after = _step(op, state)
                if after is not _IMPOSSIBLE:
                    assert after is None or isinstance(after, int)
                    stack.append((done | 1 << at, after))
    return False


def _counts(operation: Operation) -> bool:
    if operation.outcome is Outcome.FAILED:
        return False
    return operation.kind is not Kind.GET or operation.outcome is Outcome.OK


def possible_values(writes: Iterable[Operation], begin: float, end: float) -> set[int | None]:
    """What a read from `begin` to `end` of a regular register may find: the last value written
    before, or one whose writing it overlapped. None is what was there at first."""
    effective = [w for w in writes if w.outcome in (Outcome.OK, Outcome.UNKNOWN)]
    before = [w for w in effective if w.outcome is Outcome.OK and w.end < begin]
    newest_begin = max((w.begin for w in before), default=-math.inf)
    values: set[int | None] = set() if before else {None}
    for write in effective:
        ended = write.end if write.outcome is Outcome.OK else math.inf
        if write.begin < end and ended >= newest_begin:
            values.add(None if write.kind is Kind.DELETE else write.value)
    return values


def stale_reads(operations: Iterable[Operation]) -> list[str]:
    """Reads that saw neither the last acknowledged write before them nor a newer one."""
    wrong = []
    for key, of_key in sorted(by_key(operations).items()):
        writes = [op for op in of_key if op.kind is not Kind.GET]
        for read in of_key:
            if read.kind is not Kind.GET or read.outcome is not Outcome.OK:
                continue
            allowed = possible_values(writes, read.begin, read.end)
            if read.found not in allowed:
                wrong.append(
                    f"a read of {key} found {read.found}, not one of {_sorted(allowed)}:"
                    f"\n{printed(of_key)}"
                )
    return wrong


def wrong_listings(operations: Iterable[Operation]) -> list[str]:
    """Listings that miss a key that was there all the time, or show one that never was."""
    everything = list(operations)
    writes = {
        key: [op for op in of_key if op.kind is not Kind.GET]
        for key, of_key in by_key(everything).items()
    }
    wrong = []
    for listing in everything:
        if listing.kind is not Kind.LIST or listing.outcome is not Outcome.OK:
            continue
        wrong += [f"{key} is listed and was never written" for key in listing.found - set(writes)]
        for key, of_key in sorted(writes.items()):
            allowed = possible_values(of_key, listing.begin, listing.end)
            listed = key in listing.found
            if listed and allowed == {None}:
                wrong.append(f"{listing}\nshows {key}, which was deleted:\n{printed(of_key)}")
            if not listed and None not in allowed:
                wrong.append(f"{listing}\nmisses {key}:\n{printed(of_key)}")
    return wrong


def both_ended(completions: Mapping[str, Outcome], aborts: Mapping[str, Outcome]) -> list[str]:
    """Uploads that were acknowledged as completed and as aborted."""
    return [
        f"upload {upload} was completed and aborted"
        for upload, outcome in completions.items()
        if outcome is Outcome.OK and aborts.get(upload) is Outcome.OK
    ]


def differing_rows(replicas: Mapping[str, Mapping[bytes, bytes]]) -> list[str]:
    """Rows that the replicas of one partition do not hold in the same bytes."""
    wrong = []
    for key in sorted({key for rows in replicas.values() for key in rows}):
        values = {name: rows.get(key) for name, rows in replicas.items()}
        if len(set(values.values())) > 1:
            held = {name: value.hex() if value else value for name, value in values.items()}
            wrong.append(f"row {key.hex()} is {held}")
    return wrong


def orphan_blocks(
    files: Collection[bytes], referenced: Collection[bytes], queued: Collection[bytes]
) -> list[str]:
    """Blocks whose file is there although nobody refers to it and nobody will delete it."""
    return [
        f"block {block.hex()} belongs to nobody"
        for block in sorted(set(files) - set(referenced) - set(queued))
    ]


def missing_blocks(files: Collection[bytes], referenced: Collection[bytes]) -> list[str]:
    """Blocks that a node should hold and does not."""
    return [f"block {block.hex()} is missing" for block in sorted(set(referenced) - set(files))]


def used_after_revocation(
    revoked: Mapping[str, float], uses: Iterable[tuple[str, float]]
) -> list[str]:
    """Uses (key, begin of the request) that were granted after the key's revocation was
    acknowledged."""
    return [
        f"{key} was granted at {begin}, {begin - revoked[key]:.3f} s after its revocation"
        for key, begin in uses
        if key in revoked and begin > revoked[key]
    ]


def _sorted(values: Iterable[int | None]) -> list[int | None]:
    return sorted(values, key=lambda value: -1 if value is None else value)
