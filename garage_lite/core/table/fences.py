"""What a replica has promised not to let happen: that data or an upload which was given up becomes
part of something. Pure.

Giving up is two steps. A replica that holds the fence refuses whatever would undo it, from writers
and from repairs alike; one that holds the opposite refuses the fence. So of the two at most one
finds a quorum, and a reader who meets the other at a replica or two can tell that it never will.
"""

from __future__ import annotations

from collections.abc import Callable

from garage_lite.core.ids import BucketId, DataId
from garage_lite.core.model.objects import Kind, ObjectVersion
from garage_lite.core.model.rowkeys import (
    Table,
    object_name_of,
    pending_row,
    stamp_of,
    upload_row,
)
from garage_lite.core.model.uploads import Part, Upload, UploadState
from garage_lite.core.model.versions import Pending, PendingState
from garage_lite.core.table.schema import Update

Get = Callable[[bytes], bytes | None]


def fence_against(row: Update, get: Get) -> PendingState | UploadState | None:
    """FENCED or REMOVED (of data or of an upload) where a row that is new here would undo it, or
    is void here: whoever takes it for alive must not believe that this replica does too."""
    table = row.key[0]
    bucket = BucketId(row.key[2:34])
    if table == Table.OBJECT:
        version = ObjectVersion.decode(stamp_of(row.key), row.value)
        if version.void or version.kind not in (Kind.BLOCKS, Kind.MULTIPART):
            return None
        held = get(row.key)
        if held is not None:
            is_void = ObjectVersion.decode(version.stamp, held).void
            return UploadState.REMOVED if is_void else None
        if version.kind is Kind.BLOCKS:
            return _data(get(pending_row(bucket, DataId(version.id))))
        return _upload(get(upload_row(bucket, object_name_of(row.key), version.id)))
    if table == Table.PART and row.value and not get(row.key):
        return _data(get(pending_row(bucket, Part.decode(row.value).data)))
    if table == Table.UPLOAD and Upload.decode(row.value).state is UploadState.COMPLETED:
        return _upload(get(row.key))
    return None


def _data(row: bytes | None) -> PendingState | None:
    state = None if row is None else Pending.decode(row).state
    return state if state in (PendingState.FENCED, PendingState.REMOVED) else None


def _upload(row: bytes | None) -> UploadState | None:
    state = None if row is None else Upload.decode(row).state
    return state if state in (UploadState.FENCED, UploadState.REMOVED) else None
