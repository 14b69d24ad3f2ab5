"""What must hold where a write is applied: small conditions that travel with it. Pure.

Each replica evaluates them on its own rows right before it applies the write, with nothing in
between. One that refuses answers with the error and applies nothing; so of two writes that exclude
each other at most one finds a quorum. A replica that has not met the row in question can't object.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from garage_lite.core.errors import NoSuchBucket, NoSuchUpload, OperationAborted, Unavailable
from garage_lite.core.ids import BucketId
from garage_lite.core.model.buckets import Bucket
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.model.uploads import Upload, UploadState
from garage_lite.core.model.versions import Pending, PendingState
from garage_lite.core.table.schema import View


class Rule(IntEnum):
    """What of the row at `Check.key`."""

    BUCKET_EXISTS = 1
    """It is a bucket that is not deleted. NoSuchBucket."""
    STILL_WRITING = 2
    """It is pending data that was not given up: neither fenced nor removed. Unavailable."""
    NOT_DONE = 3
    """It is pending data that has not become part of anything. OperationAborted."""
    UPLOAD_OPEN = 4
    """It is an upload that takes parts and may be completed. NoSuchUpload."""
    NOT_COMPLETED = 5
    """It is an upload that was not completed. NoSuchUpload."""
    SAME = 6
    """It is exactly `Check.value`, or not here. OperationAborted."""


class Check(NamedTuple):
    rule: Rule
    key: bytes
    value: bytes = b""


def check_all(checks: Sequence[Check], view: View, *, alone: bool) -> None:
    """Raises the error of the first rule that does not hold. `alone`: this is the only replica,
    so a row that is not here does not exist."""
    for check in checks:
        _check(check, view.get(check.key), alone)


def _check(check: Check, row: bytes | None, alone: bool) -> None:
    rule = check.rule
    if rule is Rule.BUCKET_EXISTS:
        if (row is None and alone) or (row and Bucket.decode(BucketId(check.key[2:]), row).deleted):
            raise NoSuchBucket
    elif rule is Rule.STILL_WRITING:
        if (row is None and alone) or (row and Pending.decode(row).state in _GIVEN_UP):
            raise Unavailable("this upload took too long and was given up")
    elif rule is Rule.NOT_DONE:
        if row and Pending.decode(row).state is PendingState.DONE:
            raise OperationAborted
    elif rule is Rule.UPLOAD_OPEN:
        if (row is None and alone) or (row and Upload.decode(row).state is not UploadState.OPEN):
            raise NoSuchUpload
    elif rule is Rule.NOT_COMPLETED:
        if (row is None and alone) or (row and Upload.decode(row).state is UploadState.COMPLETED):
            raise NoSuchUpload
    elif row != check.value and (row is not None or alone):
        raise OperationAborted


_GIVEN_UP = (PendingState.FENCED, PendingState.REMOVED)


def bucket_exists(bucket: BucketId) -> Check:
    return Check(Rule.BUCKET_EXISTS, bytes((Table.BUCKET, 0)) + bucket)
