"""Which objects and uploads a block is part of, found from its references.

A reference says which data of which bucket uses the block, not which key: that takes a walk over
the bucket's rows. Meant for an operator who asks about a few blocks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from garage_lite.core.block.refcount import Reference
from garage_lite.core.cluster.tables import Tables
from garage_lite.core.ids import BucketId, DataId, VersionId
from garage_lite.core.model.objects import Kind, ObjectVersion
from garage_lite.core.model.rowkeys import (
    Table,
    after_prefix,
    in_bucket,
    object_name_of,
    stamp_of,
    upload_id_of,
    upload_name_of,
)
from garage_lite.core.model.uploads import Part, Upload, UploadState
from garage_lite.core.model.versions import decode_part_list


class ObjectUser(NamedTuple):
    """A version of an object that holds the data."""

    key: bytes
    version: ObjectVersion


class UploadUser(NamedTuple):
    """A multipart upload one of whose parts is the data."""

    key: bytes
    upload: VersionId
    open: bool


class BlockUser(NamedTuple):
    """One reference, and who it is for; None: nobody was found."""

    reference: Reference
    user: ObjectUser | UploadUser | None


async def users_of(tables: Tables, references: Iterable[Reference]) -> list[BlockUser]:
    """Who uses the data of each reference, in their order. Raises what reading rows raises."""
    wanted = list(references)
    found: dict[tuple[BucketId, bytes], ObjectUser | UploadUser] = {}
    for bucket in dict.fromkeys(reference.bucket for reference in wanted):
        data = {reference.data for reference in wanted if reference.bucket == bucket}
        for name, user in (await _users_in(tables, bucket, data)).items():
            found[bucket, name] = user
    return [BlockUser(one, found.get((one.bucket, one.data))) for one in wanted]


async def _users_in(
    tables: Tables, bucket: BucketId, data: set[DataId]
) -> dict[DataId, ObjectUser | UploadUser]:
    found: dict[DataId, ObjectUser | UploadUser] = {}
    uploads: dict[VersionId, DataId] = {}
    async for key, value in _rows(tables, Table.PART, bucket):
        part = Part.decode(value) if value else None
        if part is not None and part.data in data:
            uploads[VersionId(key[34:50])] = part.data
    async for key, value in _rows(tables, Table.UPLOAD, bucket):
        upload = upload_id_of(key)
        if upload in uploads:
            is_open = Upload.decode(value).state <= UploadState.FENCED
            found[uploads[upload]] = UploadUser(upload_name_of(key), upload, is_open)
    versions: dict[VersionId, set[DataId]] = {VersionId(one): {one} for one in data}
    async for key, value in _rows(tables, Table.PART_LIST, bucket):
        named = {part.data for part in decode_part_list(value)} & data if value else set()
        if named:
            versions.setdefault(VersionId(key[34:50]), set()).update(named)
    async for key, value in _rows(tables, Table.OBJECT, bucket):
        stamp = stamp_of(key)
        if stamp.id in versions:
            version = ObjectVersion.decode(stamp, value)
            if version.kind in (Kind.BLOCKS, Kind.MULTIPART) and not version.removed:
                user = ObjectUser(object_name_of(key), version)
                found.update(dict.fromkeys(versions[stamp.id], user))
    return found


async def _rows(
    tables: Tables, table: Table, bucket: BucketId
) -> AsyncIterator[tuple[bytes, bytes]]:
    prefix = in_bucket(table, bucket)
    async for keys, values in tables.scan(prefix, after_prefix(prefix)):
        for row in zip(keys, values, strict=True):
            yield row
        await asyncio.sleep(0)
