"""What clients did and saw, as plain data.

A value is a number that names a content, or None for "no object". Times are the simulator's
seconds. An operation whose outcome is unknown may have taken effect at any time after its
beginning, or never.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final


class Outcome(Enum):
    OK = "ok"
    REFUSED = "refused"
    """The condition did not hold: nothing was done, and the answer says something of the state."""
    FAILED = "failed"
    """Certainly nothing was done."""
    UNKNOWN = "unknown"


class Kind(Enum):
    PUT = "put"
    DELETE = "delete"
    GET = "get"
    CREATE = "create"
    """A write that asks that nothing be there."""
    SWAP = "swap"
    """A write that asks for the value `expected`."""
    LIST = "list"
    """`found` is the set of keys that were listed."""


READS: Final = (Kind.GET, Kind.LIST)


@dataclass(slots=True)
class Operation:
    client: str
    kind: Kind
    key: str
    begin: float
    value: int | None = None
    """What it writes."""
    expected: int | None = None
    end: float = math.inf
    outcome: Outcome = Outcome.UNKNOWN
    found: Any = None
    """What it read."""
    note: str = ""

    def __str__(self) -> str:
        what = f"={self.value}" if self.value is not None else ""
        saw = f" -> {self.found}" if self.kind in READS else ""
        where = f" if {self.expected}" if self.kind is Kind.SWAP else ""
        return (
            f"{self.begin:9.4f} {self.end:9.4f} {self.client:10} {self.kind.value} {self.key}"
            f"{what}{where}{saw} {self.outcome.value} {self.note}"
        )


def by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Without listings, which have no one key."""
    found: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.kind is not Kind.LIST:
            found[operation.key].append(operation)
    return dict(found)


def printed(operations: Iterable[Operation]) -> str:
    return "\n".join(str(op) for op in sorted(operations, key=lambda op: op.begin))
