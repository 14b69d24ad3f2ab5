"""How global names are decided by ballot: the register of a name is its alias row. Pure.

Every change of a name goes by a ballot, each is stamped above the one it was decided on, and the
row keeps the newest: so of what was ever proposed the chosen one alone can be newest. Along with
the alias a replica tells of the bucket that it leads to, without which nobody can say whether the
name is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from garage_lite.core.ballot import Ballot, Judge, Known, Proposal, Rules, Verdict
from garage_lite.core.errors import CallerError
from garage_lite.core.model.buckets import Alias
from garage_lite.core.model.rowkeys import Table, everywhere_row
from garage_lite.core.table.schema import Update, View, merge_rows

NAMES: Final = Rules(
    merge_rows, lambda known: tuple((key, known.rows[key]) for key in sorted(known.uneven))
)
"""Of the registers that are alias rows."""


def rows_of_name(register: bytes, view: View) -> dict[bytes, bytes]:
    """What a replica knows of a name: its alias row and the row of the bucket it leads to."""
    rows: dict[bytes, bytes] = {}
    value = view.get(register)
    if value is not None:
        rows[register] = value
        target = Alias.decode(value).target.value
        row = None if target is None else everywhere_row(Table.BUCKET, target)
        bucket = None if row is None else view.get(row)
        if row is not None and bucket is not None:
            rows[row] = bucket
    return rows


class Named(NamedTuple):
    """What a change makes of a name."""

    alias: Update | None
    """None: nothing, it stays as it is."""
    others: Sequence[Update]
    """Rows that become so with it."""


Change = Callable[[Mapping[bytes, bytes]], Named]
"""What a quorum knows of the name (`rows_of_name`) -> what to write. Raises a CallerError."""


def naming(name: bytes, change: Change) -> Judge[Named | CallerError]:
    """`change`, whose proposals are called `name`; the result is what was written."""
    made: list[Named] = []

    def judge(known: Known, ballot: Ballot) -> Verdict[Named | CallerError]:
        if name in known.notes:
            return Verdict(made[-1])
        try:
            wanted = change(known.rows)
        except CallerError as refusal:
            return Verdict(refusal)
        if wanted.alias is None:
            return Verdict(wanted)
        made.append(wanted)
        rows = tuple((row.key, row.value) for row in (wanted.alias, *wanted.others))
        return Verdict(wanted, Proposal(name, rows))

    return judge
