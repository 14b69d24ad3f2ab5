"""Looking inside one object: its versions, open uploads and blocks."""

from __future__ import annotations

from typing import Any, Final

from garage_lite.core.errors import NoSuchKey
from garage_lite.core.ids import BucketId, DataId, VersionId
from garage_lite.core.limits import KEY_BYTES_MAX
from garage_lite.core.model.objects import Encryption, Kind, ObjectVersion, survivors
from garage_lite.core.model.rowkeys import after_prefix, object_prefix, upload_id_of, upload_row
from garage_lite.core.model.uploads import Upload, UploadState
from garage_lite.core.store.encryption import OVERHEAD
from garage_lite.core.store.reading import pages_of, parts_of
from garage_lite.core.store.versions import decoded
from garage_lite.web.admin.buckets import existing_bucket
from garage_lite.web.admin.context import AdminContext
from garage_lite.web.admin.dates import date_text
from garage_lite.web.admin.errors import bad_request
from garage_lite.web.admin.fields import Fields

BLOCKS_MAX: Final = 10_000
"""Shown in one answer, all versions together."""
VERSIONS_MAX: Final = 1000
"""The newest versions, and as many uploads."""


async def inspect_object(context: AdminContext, fields: Fields) -> Any:
    bucket = existing_bucket(context, fields.text("bucketId"))
    key = fields.text("key")
    fields.end()
    name = key.encode()
    if not 0 < len(name) <= KEY_BYTES_MAX:
        raise bad_request("A key has 1 to 1024 bytes.")
    uploads = await _first_rows(context, upload_row(bucket.id, name, VersionId(b"")))
    shown = [
        _upload_json(upload_id_of(row), Upload.decode(value))
        for row, value in uploads
        if Upload.decode(value).state is not UploadState.COMPLETED
    ]
    room = BLOCKS_MAX
    for version in survivors(decoded(await _first_rows(context, object_prefix(bucket.id, name)))):
        blocks = await _blocks_json(context, bucket.id, version, room)
        room -= len(blocks)
        shown.append(_version_json(version, blocks))
    if not shown:
        raise NoSuchKey("Key not found")
    return {"bucketId": bucket.id.hex(), "key": key, "versions": shown}


async def _first_rows(context: AdminContext, prefix: bytes) -> list[tuple[bytes, bytes]]:
    """The first VERSIONS_MAX rows that begin so: of an object the newest versions."""
    found: list[tuple[bytes, bytes]] = []
    async for keys, values in context.storage.tables.scan(prefix, after_prefix(prefix)):
        found += zip(keys, values, strict=True)
        if len(found) >= VERSIONS_MAX:
            break
    return found[:VERSIONS_MAX]


def _version_json(version: ObjectVersion, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    marker = not version.has_data
    shown = _state_json(version.id, version.mtime_ms, version.meta.encryption) | {
        "deleteMarker": marker,
        "inline": version.kind is Kind.INLINE,
        "size": None if marker else version.size,
        "etag": None if marker else version.etag_text,
    }
    return _with_lists(shown, version.meta.headers, blocks)


def _upload_json(upload_id: VersionId, upload: Upload) -> dict[str, Any]:
    shown = _state_json(upload_id, upload.started_ms, upload.meta.encryption)
    shown["uploading"] = upload.state is UploadState.OPEN
    shown["aborted"] = upload.state is not UploadState.OPEN
    return _with_lists(shown, upload.meta.headers, [])


def _state_json(version: VersionId, ms: int, encryption: Encryption | None) -> dict[str, Any]:
    return {
        "uuid": version.hex(),
        "timestamp": date_text(ms),
        "encrypted": encryption is not None,
        "uploading": False,
        "aborted": False,
        "deleteMarker": False,
        "inline": False,
        "size": None,
        "etag": None,
    }


def _with_lists(
    shown: dict[str, Any], headers: tuple[tuple[str, str], ...], blocks: list[dict[str, Any]]
) -> dict[str, Any]:
    """Empty lists are left out, as in Garage."""
    if headers:
        shown["headers"] = [list(pair) for pair in headers]
    if blocks:
        shown["blocks"] = blocks
    return shown


async def _blocks_json(
    context: AdminContext, bucket: BucketId, version: ObjectVersion, limit: int
) -> list[dict[str, Any]]:
    overhead = OVERHEAD if version.meta.encryption else 0
    found: list[dict[str, Any]] = []
    if version.kind is Kind.BLOCKS:
        await _add_blocks(context, bucket, DataId(version.id), 0, overhead, found, limit)
    elif version.kind is Kind.MULTIPART:
        async for part, _ in parts_of(context.storage, bucket, version):
            await _add_blocks(context, bucket, part.data, part.number, overhead, found, limit)
            if len(found) >= limit:
                break
    return found


async def _add_blocks(
    context: AdminContext,
    bucket: BucketId,
    data: DataId,
    part: int,
    overhead: int,
    found: list[dict[str, Any]],
    limit: int,
) -> None:
    async for start, blocks in pages_of(context.storage, bucket, data, overhead):
        offset = start
        for block in blocks:
            if len(found) >= limit:
                return
            size = block.size - overhead
            found.append(
                {
                    "partNumber": part,
                    "offset": offset,
                    "hash": block.hash.hex(),
                    "size": size,
                }
            )
            offset += size
