"""How global names are decided by ballot: the register of a name is its alias row. Pure.

Every change of a name goes by a ballot, each is stamped above the one it was decided on, and the
row keeps the newest: so of what was ever proposed the chosen one alone can be newest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from garage_lite.core.ballot import Ballot, Judge, Known, Proposal, Rules, Verdict
from garage_lite.core.errors import CallerError
from garage_lite.core.model.buckets import Alias
from garage_lite.core.table.schema import Update, merge_rows

NAMES: Final = Rules(
    merge_rows, lambda known: tuple((key, known.rows[key]) for key in sorted(known.uneven))
)
"""Of the registers that are alias rows."""


class Named(NamedTuple):
    """What a change of a name makes of the alias row that a quorum knows."""

    alias: Update
    others: Sequence[Update]
    """Rows that become so with it."""


Change = Callable[[Alias | None], Named]
"""The name's alias as it is (None: it never was) -> what to write. Raises a CallerError."""


def naming(register: bytes, name: bytes, change: Change) -> Judge[Named | CallerError]:
    """A change of the name whose alias row is `register`. `name` names this operation; its result
    is what was written."""
    made: list[Named] = []

    def judge(known: Known, ballot: Ballot) -> Verdict[Named | CallerError]:
        if name in known.notes:
            return Verdict(made[-1])
        stored = known.rows.get(register)
        try:
            made.append(change(None if stored is None else Alias.decode(stored)))
        except CallerError as refusal:
            return Verdict(refusal)
        rows = tuple((row.key, row.value) for row in (made[-1].alias, *made[-1].others))
        return Verdict(made[-1], Proposal(name, rows))

    return judge
