"""The counters of a bucket are what its rows add up to, after every message and in any order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.model.counters import Counters
from garage_lite.core.model.objects import ObjectVersion, survivors
from garage_lite.core.model.rowkeys import Table, counter_row, stamp_of
from garage_lite.core.model.uploads import Part, Upload, UploadState
from garage_lite.core.model.versions import Pending, PendingState
from garage_lite.core.table.apply import plan_changes
from garage_lite.core.table.schema import Update
from tests.core.model.rows import BUCKET
from tests.core.table.test_joins import updates
from tests.core.table.views import DictView


def truth(view: DictView) -> Counters:
    """A recount. All objects of these rows have one name."""
    rows = view.of(Table.OBJECT).items()
    alive = survivors([ObjectVersion.decode(stamp_of(key), value) for key, value in rows])
    uploads = [Upload.decode(value) for value in view.of(Table.UPLOAD).values()]
    parts = [Part.decode(value) for value in view.of(Table.PART).values() if value]
    pendings = [Pending.decode(value) for value in view.of(Table.PENDING).values()]
    return Counters(
        objects=int(bool(alive) and alive[0].has_data),
        total_bytes=sum(version.size for version in alive),
        uploads=sum(upload.state <= UploadState.FENCED for upload in uploads),
        parts=len(parts),
        part_bytes=sum(part.size for part in parts),
        pending=sum(pending.state < PendingState.DONE for pending in pendings),
    )


def of_one_size(update: Update) -> Update:
    """All copies of a part say the same of it: its writer is one."""
    if update.key[0] != Table.PART or not update.value:
        return update
    return Update(update.key, replace(Part.decode(update.value), size=7).encode())


@pytest.mark.parametrize("alone", [False, True])
@given(batches=st.lists(st.lists(updates().map(of_one_size), min_size=1, max_size=3), max_size=8))
def test_i44_counters_never_part_from_the_rows(alone: bool, batches: list[list[Update]]) -> None:
    view = DictView()
    for batch in batches:
        for key, value in plan_changes(batch, view, 1, alone=alone):
            if value is None:
                view.rows.pop(key, None)
            else:
                view.rows[key] = value
        view.settle()
        stored = view.get(counter_row(BUCKET))
        assert (Counters.decode(stored) if stored else Counters()) == truth(view)
