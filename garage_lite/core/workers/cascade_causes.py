"""Whether what a cascade is about really goes: its cause is at a quorum, and nothing speaks for it.

A replica that alone knows of a removal could be the one that is wrong: the removal may have failed
for want of a quorum. Reading rows from a quorum brings what one replica knows to the others; only
what still holds then is acted upon.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import Final

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.errors import CallerError, NoSuchUpload, Unavailable
from garage_lite.core.ids import BucketId, DataId, VersionId
from garage_lite.core.model import rowkeys
from garage_lite.core.model.objects import ObjectVersion, survivors
from garage_lite.core.model.rowkeys import CascadeKind, Table
from garage_lite.core.model.uploads import Upload, UploadState
from garage_lite.core.model.versions import Pending, PendingState, decode_part_list
from garage_lite.core.table.checks import Check, Rule
from garage_lite.core.table.schema import Update

SURE: Final = b"\x01"
"""The value of a cascade that came of one whose cause was at a quorum; others name a row."""


class Verdict(Enum):
    EAT = "eat"
    DROP = "drop"
    """It does not go after all."""
    WAIT = "wait"
    """It can't be told now."""


async def confirmed(tables: Tables, key: bytes) -> Verdict:
    """For a cascade row of this node. Raises Unavailable, StorageFailed."""
    cause = tables.durable().get(key)
    if cause is None:
        return Verdict.DROP
    if tables.alone or cause == SURE:
        return Verdict.EAT
    bucket, removed, kind = rowkeys.cascade_of(key)
    if cause[0] == Table.OBJECT:
        return await _version(tables, cause, removed)
    if cause[0] == Table.PENDING:
        row = await tables.get(cause)
        gone = row is None or Pending.decode(row).state is PendingState.REMOVED
        return Verdict.EAT if gone else Verdict.DROP
    if cause[0] == Table.PART:
        return await _part(tables, bucket, cause, DataId(removed))
    return await _upload(tables, bucket, cause, kind)


async def decide_fence(tables: Tables, key: bytes) -> Verdict:
    """End the state of data or an upload that is fenced here: where a quorum holds the fence, it
    is removed; where so many refuse that none can, what the fence was against has won, and this
    node's promise is void. Raises StorageFailed."""
    cause = tables.durable().get(key)
    row = tables.durable().get(cause) if cause is not None else None
    if cause is None or row is None:
        return Verdict.DROP
    if cause[0] == Table.PENDING:
        pending = Pending.decode(row)
        fenced, rule = pending.state is PendingState.FENCED, Rule.NOT_DONE
        removed = replace(pending, state=PendingState.REMOVED).encode()
    else:
        upload = Upload.decode(row)
        fenced, rule = upload.state is UploadState.FENCED, Rule.NOT_COMPLETED
        removed = replace(upload, state=UploadState.REMOVED).encode()
    if not fenced:
        return Verdict.DROP
    try:
        await tables.write([Update(cause, row)], checks=[Check(rule, cause)], deletes_only=True)
        await tables.write([Update(cause, removed)], deletes_only=True)
    except CallerError:
        await tables.unlearn(cause)
    except Unavailable:
        return Verdict.WAIT
    return Verdict.DROP


async def settle(tables: Tables, key: bytes) -> None:
    """Say of the versions that have removed the one which a cascade names that they stay: reading
    them has brought them to a quorum, so they can't turn out void any more.

    By that each holder drops what they remove. Raises Unavailable, StorageFailed.
    """
    cause = tables.durable().get(key)
    if cause is None:
        return
    rows = await tables.versions(cause[: -rowkeys.STAMP_BYTES], [cause])
    sure: list[Update] = []
    for row, value in rows:
        version = ObjectVersion.decode(rowkeys.stamp_of(row), value)
        if row < cause and version.may_be_void:
            sure.append(Update(row, replace(version, sure=True).encode()))
    if sure:
        await tables.write(sure, deletes_only=True, new=False)


async def _version(tables: Tables, cause: bytes, removed: bytes) -> Verdict:
    """The version is no survivor, nor is another that stands on the same data."""
    rows = await tables.versions(cause[: -rowkeys.STAMP_BYTES], [cause])
    versions = [ObjectVersion.decode(rowkeys.stamp_of(key), value) for key, value in rows]
    alive = any(version.id == removed for version in survivors(versions))
    return Verdict.DROP if alive else Verdict.EAT


async def _upload(tables: Tables, bucket: BucketId, cause: bytes, kind: bytes) -> Verdict:
    row = await tables.get(cause)
    upload = None if row is None else Upload.decode(row)
    if kind == CascadeKind.UPLOAD:
        gone = upload is None or upload.state is UploadState.REMOVED
        return Verdict.EAT if gone else Verdict.DROP
    if upload is None or upload.completed is None:
        return Verdict.EAT
    # What the version names is kept, so all that it names must be known first.
    named = await _named(tables, bucket, rowkeys.upload_id_of(cause))
    if len(named) >= upload.completed.parts:
        return Verdict.EAT
    prefix = rowkeys.object_prefix(bucket, rowkeys.upload_name_of(cause))
    stamp = upload.completed.stamp
    rows = await tables.versions(prefix, [rowkeys.object_row(prefix, stamp)])
    versions = [ObjectVersion.decode(rowkeys.stamp_of(key), value) for key, value in rows]
    met = any(version.stamp >= stamp for version in versions)
    alive = any(version.id == stamp.id for version in survivors(versions))
    return Verdict.EAT if met and not alive else Verdict.WAIT


async def _part(tables: Tables, bucket: BucketId, cause: bytes, data: DataId) -> Verdict:
    """Data of a part that a newer one (`cause`) replaced. A completion that names the replaced one
    and the newer part exclude each other, once that is at a quorum."""
    prefix = cause[: -2 - rowkeys.STAMP_BYTES]
    upload = VersionId(prefix[-16:])
    lists = rowkeys.part_lists_prefix(bucket, upload)
    newer = tables.durable().get(cause)
    if newer:
        try:
            check = Check(Rule.NOT_LISTED, lists)
            await tables.write([Update(cause, newer)], checks=[check], deletes_only=True)
        except NoSuchUpload:
            named = await _named(tables, bucket, upload)
            if not named:
                return Verdict.WAIT
            return Verdict.DROP if data in named else Verdict.EAT
    return Verdict.DROP if data in await _named(tables, bucket, upload) else Verdict.EAT


async def _named(tables: Tables, bucket: BucketId, version: VersionId) -> set[DataId]:
    """The data that the part lists of a version name."""
    prefix = rowkeys.part_lists_prefix(bucket, version)
    named: set[DataId] = set()
    async for _, values in tables.scan(prefix, rowkeys.after_prefix(prefix)):
        for value in values:
            named.update(part.data for part in decode_part_list(value))
    return named
