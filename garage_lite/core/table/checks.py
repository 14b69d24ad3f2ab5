"""What must hold where a write is applied: small conditions that travel with it. Pure.

Each replica evaluates them on its own rows right before it applies the write, with nothing in
between. One that refuses answers with the error and applies nothing; so of two writes that exclude
each other at most one finds a quorum. A replica that has not met the row in question can't object;
what it has accepted of a ballot whose end it does not know it has met: it may be chosen already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from garage_lite.core.errors import NoSuchBucket, NoSuchUpload, OperationAborted, Unavailable
from garage_lite.core.ids import VERSION_ID_BYTES, BucketId
from garage_lite.core.model.buckets import Bucket
from garage_lite.core.model.rowkeys import (
    SUFFIX_BYTES,
    Table,
    after_prefix,
    stamp_of,
    undecided_row,
)
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
    NOT_REPLACED = 6
    """Of the parts under that prefix, none is newer than the one of its number in `Check.value`
    (ends of the part rows' keys, one after another). OperationAborted."""
    COMPLETABLE = 7
    """It is an open upload, or has become the version of stamp `Check.value` (its text), which may
    be written once more. NoSuchUpload."""
    NOT_LISTED = 8
    """There are no part lists under that prefix: the upload was not completed. NoSuchUpload."""


_NOT_BECOME: Final = (Rule.NOT_DONE, Rule.NOT_COMPLETED, Rule.NOT_LISTED)
"""That data or an upload has not become a version; their keys end with its id."""


class Check(NamedTuple):
    rule: Rule
    key: bytes
    value: bytes = b""


def check_all(checks: Sequence[Check], view: View, *, alone: bool) -> None:
    """Raises the error of the first rule that does not hold. `alone`: this is the only replica,
    so a row that is not here does not exist."""
    for check in checks:
        if check.rule is Rule.NOT_REPLACED:
            _check_parts(check, view)
        elif check.rule is Rule.NOT_LISTED:
            if any(value for _, value in view.with_prefix(check.key)):
                raise NoSuchUpload
        else:
            _check_row(check, view.get(check.key), alone)
        if check.rule in _NOT_BECOME and not alone:
            _check_undecided(check.key, view)


def _check_undecided(key: bytes, view: View) -> None:
    """Raises Unavailable while it is undecided whether the data or upload becomes a version."""
    id_, start = key[-VERSION_ID_BYTES:], undecided_row(key[:_IN_BUCKET_BYTES])
    for keys, _ in view.scan(start, after_prefix(start)):
        if any(stamp_of(undecided).id == id_ for undecided in keys):
            raise Unavailable("a conditional write of this is not decided yet")


def _check_row(check: Check, row: bytes | None, alone: bool) -> None:
    rule, key = check.rule, check.key
    if rule is Rule.BUCKET_EXISTS:
        if (row is None and alone) or (row and Bucket.decode(BucketId(key[2:]), row).deleted):
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
    elif rule is Rule.COMPLETABLE:
        if (row is None and alone) or (row and not _completable(Upload.decode(row), check.value)):
            raise NoSuchUpload
    elif (row is None and alone) or (row and Upload.decode(row).state is UploadState.COMPLETED):
        raise NoSuchUpload


def _completable(upload: Upload, stamp: bytes) -> bool:
    if upload.completed is not None and upload.state is UploadState.COMPLETED:
        return upload.completed.stamp.text.encode() == stamp
    return upload.state is UploadState.OPEN


def _check_parts(check: Check, view: View) -> None:
    ends = check.value
    listed = {
        ends[at : at + 2]: ends[at : at + _PART_END_BYTES]
        for at in range(0, len(ends), _PART_END_BYTES)
    }
    for keys, values in view.scan(check.key, after_prefix(check.key)):
        for key, value in zip(keys, values, strict=True):
            end = key[-_PART_END_BYTES:]
            if value and end < listed.get(end[:2], b""):  # the newest of a number comes first
                raise OperationAborted


_IN_BUCKET_BYTES: Final = 34
"""Of a row's key: table, partition, bucket."""
_PART_END_BYTES = SUFFIX_BYTES[Table.PART]
_GIVEN_UP = (PendingState.FENCED, PendingState.REMOVED)


def bucket_exists(bucket: BucketId) -> Check:
    return Check(Rule.BUCKET_EXISTS, bytes((Table.BUCKET, 0)) + bucket)


def parts_not_replaced(prefix: bytes, part_rows: Iterable[bytes]) -> Check:
    """`part_rows`: keys of the rows that count, one of each number."""
    return Check(Rule.NOT_REPLACED, prefix, b"".join(key[-_PART_END_BYTES:] for key in part_rows))
