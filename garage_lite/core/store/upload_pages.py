"""ListParts and ListMultipartUploads: pages of what is being uploaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.ids import BucketId, VersionId
from garage_lite.core.model.rowkeys import (
    Table,
    after_prefix,
    part_number_of,
    parts_prefix,
    upload_id_of,
    upload_name_of,
)
from garage_lite.core.model.uploads import Part, Upload, UploadState
from garage_lite.core.store.window import Window

_UPLOAD_ID_BYTES = 16


@dataclass(slots=True)
class PartsPage:
    upload: Upload
    parts: list[tuple[int, Part]] = field(default_factory=list)
    next_marker: int | None = None
    """None: there is nothing more."""


class UploadEntry(NamedTuple):
    key: bytes
    upload_id: VersionId
    upload: Upload


class UploadMark(NamedTuple):
    """Where a page ended: an upload of a key, or (without upload id) a key or common prefix."""

    key: bytes
    upload_id: VersionId | None = None


@dataclass(slots=True)
class UploadsPage:
    """Uploads by key, then by upload id; common prefixes sorted; together at most the limit."""

    entries: list[UploadEntry] = field(default_factory=list)
    prefixes: list[bytes] = field(default_factory=list)
    next: UploadMark | None = None


async def list_parts(
    tables: Tables,
    bucket: BucketId,
    upload_id: VersionId,
    page: PartsPage,
    marker: int,
    limit: int,
) -> None:
    """Fill `page` with the parts numbered above `marker`, newest upload of each number."""
    prefix = parts_prefix(bucket, upload_id)
    start = prefix + (marker + 1).to_bytes(2, "big")
    last = marker
    async for keys, values in tables.scan(start, after_prefix(prefix)):
        for key, value in zip(keys, values, strict=True):
            number = part_number_of(key)
            if number == last:
                continue
            if len(page.parts) >= limit:
                page.next_marker = last
                return
            page.parts.append((number, Part.decode(value)))
            last = number


async def list_uploads(
    tables: Tables,
    bucket: BucketId,
    prefix: bytes,
    delimiter: bytes,
    after: UploadMark | None,
    limit: int,
) -> UploadsPage:
    """The open uploads of a bucket after a mark."""
    window = Window(Table.UPLOAD, bucket, prefix, delimiter, _UPLOAD_ID_BYTES)
    page = UploadsPage()
    inclusive = after is not None and after.upload_id is not None
    resume: bytes | None = window.start(after.key if after else b"", inclusive=inclusive)
    while resume is not None and limit > 0:
        start, resume = resume, None
        async for keys, values in tables.scan(start, window.end):
            resume = _fill(page, window, keys, values, after, limit)
            if resume is not None or page.next is not None:
                break
        if page.next is not None:
            break
    return page


def _fill(
    page: UploadsPage,
    window: Window,
    keys: list[bytes],
    values: list[bytes],
    after: UploadMark | None,
    limit: int,
) -> bytes | None:
    """Take rows; returns where to seek to when a common prefix was met."""
    for key, value in zip(keys, values, strict=True):
        name, upload_id = upload_name_of(key), upload_id_of(key)
        if (
            after is not None
            and name == after.key
            and upload_id <= (after.upload_id or b"\xff" * 17)
        ):
            continue
        upload = Upload.decode(value)
        if upload.state is not UploadState.OPEN:
            continue
        if len(page.entries) + len(page.prefixes) >= limit:
            page.next = _last_item(page)
            return None
        group = window.fold(name)
        if group is not None:
            page.prefixes.append(group)
            return window.past_group(group)
        page.entries.append(UploadEntry(name, upload_id, upload))
    return None


def _last_item(page: UploadsPage) -> UploadMark:
    """The greatest item of a page: prefixes and keys interleave in byte order."""
    prefix = page.prefixes[-1] if page.prefixes else b""
    if page.entries and page.entries[-1].key > prefix:
        return UploadMark(page.entries[-1].key, page.entries[-1].upload_id)
    return UploadMark(prefix)
