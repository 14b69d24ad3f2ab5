"""The merge laws, for every row type, on random copies of one row.

Replicas meet updates in any order and any number of times; they must end with the same bytes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.crdt import Lww
from garage_lite.core.model.buckets import Bucket
from garage_lite.core.model.keys import AccessKey
from garage_lite.core.model.objects import Floor, Kind, ObjectVersion
from garage_lite.core.model.uploads import NEXT, Part, Upload, UploadState
from garage_lite.core.model.versions import BlockRef, Pending, PendingState
from tests.core.model.rows import BUCKET, MERGED, STAMP

TYPES = sorted(MERGED)


def copies(kind: str, data: st.DataObject, count: int) -> list[Any]:
    return [data.draw(MERGED[kind][0]) for _ in range(count)]


@pytest.mark.parametrize("kind", TYPES)
@given(data=st.data())
def test_merge_is_commutative(kind: str, data: st.DataObject) -> None:
    a, b = copies(kind, data, 2)
    assert a.merge(b).encode() == b.merge(a).encode()


@pytest.mark.parametrize("kind", TYPES)
@given(data=st.data())
def test_merge_is_associative(kind: str, data: st.DataObject) -> None:
    a, b, c = copies(kind, data, 3)
    assert a.merge(b).merge(c).encode() == a.merge(b.merge(c)).encode()


@pytest.mark.parametrize("kind", TYPES)
@given(data=st.data())
def test_merge_is_idempotent(kind: str, data: st.DataObject) -> None:
    a, b = copies(kind, data, 2)
    joined = a.merge(b)
    assert a.merge(a).encode() == a.encode()
    assert joined.merge(b).encode() == joined.encode() == joined.merge(a).encode()


@pytest.mark.parametrize("kind", TYPES)
@given(data=st.data())
def test_merging_bytes_is_merging_rows(kind: str, data: st.DataObject) -> None:
    a, b = copies(kind, data, 2)
    decode = MERGED[kind][1]
    assert decode(a.encode()).merge(decode(b.encode())).encode() == a.merge(b).encode()


# --- what each merge means


def test_removal_and_floor_of_a_version_only_rise() -> None:
    plain = ObjectVersion(STAMP, Kind.INLINE, 1, 10)
    removed = replace(plain, removed=True, floor=Floor.NULL)
    floored = replace(plain, floor=Floor.ALL, settled=True)
    assert removed.merge(floored) == replace(plain, removed=True, settled=True, floor=Floor.ALL)


def test_the_higher_ballot_stays() -> None:
    low = ObjectVersion(STAMP, Kind.INLINE, 1, ballot=(1, b"n"))
    high = replace(low, ballot=(2, b"a"))
    assert low.merge(high) == high
    assert replace(low, ballot=None).merge(low) == low


def test_a_deleted_bucket_stays_deleted_and_forgets_nothing_else() -> None:
    older = Bucket(BUCKET, 5, deleted=True, website=Lww(1, "old"))
    newer = Bucket(BUCKET, 3, website=Lww(2, "new"))
    assert newer.merge(older) == Bucket(BUCKET, 3, deleted=True, website=Lww(2, "new"))


def test_a_deleted_key_forgets_its_secret() -> None:
    alive = AccessKey("GK1", "secret", 5, name=Lww(1, "name"))
    assert alive.merge(AccessKey("GK1", "", 5, deleted=True)).secret == ""


def test_a_deleted_reference_stays_deleted() -> None:
    assert BlockRef(BUCKET).merge(BlockRef(BUCKET, deleted=True)).deleted


def test_a_removed_part_stays_removed_and_keeps_what_it_was() -> None:
    part = Part(data=STAMP.id, size=3, etag=b"e", mtime_ms=1)  # type: ignore[arg-type]
    assert part.merge(replace(part, removed=True)) == replace(part, removed=True)


@pytest.mark.parametrize("state", [PendingState.FENCED, PendingState.REMOVED])
def test_no_lease_undoes_a_fence(state: PendingState) -> None:
    fenced = Pending(state, 5, b"n", b"b")  # type: ignore[arg-type]
    renewed = replace(fenced, state=PendingState.WRITING, lease_until_ms=9)
    assert renewed.merge(fenced) == fenced


def test_completion_and_abort_of_an_upload_exclude_each_other() -> None:
    started = Upload(UploadState.OPEN, 1, "GK1")
    completed, fenced = started.after("complete"), started.after("fence")
    assert completed is not None
    assert fenced is not None
    assert completed.after("fence") is None
    assert completed.after("remove") is None
    assert fenced.after("complete") is None
    assert started.after("remove") is None
    removed = fenced.after("remove")
    assert removed is not None
    assert removed.after("complete") is None


@pytest.mark.parametrize(("state", "event"), sorted(NEXT))
def test_no_event_takes_an_upload_back(state: UploadState, event: str) -> None:
    before = Upload(state, 1, "GK1")
    after = before.after(event)
    assert after is not None
    assert after.state >= state
    assert before.merge(after) == after
