"""CompleteMultipartUpload: parts become an object, exactly once.

The object, the end of the upload and the part lists are one write: of a racing completion and
abort one wins, and nothing half done can be left. The parts' data stays where it is. What was
answered is kept in the upload's row, so that a client that did not hear the answer gets it again.

A part list entry takes at most some 95 bytes (with SHA-256 checksums), so 10,000 parts stay below
TRANSACTION_BYTES_MAX; a test holds that.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from blake3 import blake3

from garage_lite.core.errors import (
    BadDigest,
    EntityTooLarge,
    EntityTooSmall,
    InvalidArgument,
    InvalidPart,
    InvalidPartOrder,
    NoSuchUpload,
    NotAllowedHere,
)
from garage_lite.core.ids import BucketId, VersionId
from garage_lite.core.limits import OBJECT_BYTES_MAX
from garage_lite.core.model.buckets import Bucket
from garage_lite.core.model.objects import (
    NULL_VERSION_ID,
    Checksum,
    ChecksumType,
    Kind,
    ObjectMeta,
    ObjectVersion,
)
from garage_lite.core.model.rowkeys import (
    after_prefix,
    object_prefix,
    part_list_row,
    part_number_of,
    parts_prefix,
    upload_row,
)
from garage_lite.core.model.uploads import Completed, Part, Upload, UploadState
from garage_lite.core.model.versions import LIST_PARTS, PartEntry, encode_part_list
from garage_lite.core.store.conditions import WriteCondition
from garage_lite.core.store.digests import combine, combines, composite
from garage_lite.core.store.versions import decoded, publish, unplaced
from garage_lite.core.store.writing import Storage
from garage_lite.core.table.schema import Update, View

Rows = list[tuple[bytes, bytes]]


class PartClaim(NamedTuple):
    """A part as the client lists it."""

    number: int
    etag: str
    """Quoted or bare."""
    checksum: bytes | None = None
    """Its additional checksum, where the client repeats it."""


@dataclass(frozen=True, slots=True)
class CompleteRequest:
    bucket: Bucket
    key: bytes
    upload_id: VersionId
    parts: Sequence[PartClaim]
    checksum: Checksum | None = None
    """Of the whole object, where the client gives it."""
    size: int | None = None
    """x-amz-mp-object-size."""
    guard: WriteCondition | None = None


@dataclass(frozen=True, slots=True)
class CompleteResult:
    version_id: str
    """"null" in a bucket without versioning."""
    etag: str
    """Without quotes."""
    parts: int
    checksum: Checksum | None


class _PartsChanged(Exception):
    """A part was uploaded again between the look at the parts and the write."""


_ETAG_BYTES_MAX: Final = 64


async def complete(storage: Storage, request: CompleteRequest) -> CompleteResult:
    """Make the parts the current version of the key; durable on return.

    A repeated request gets the first answer. Raises NoSuchUpload, InvalidPartOrder, InvalidPart,
    EntityTooSmall, EntityTooLarge, BadDigest, NotAllowedHere (the size is not as announced),
    PreconditionFailed, NoSuchKey, QuotaExceeded: then the upload is as it was.
    """
    wanted = _digest_of(request.parts)
    row = upload_row(request.bucket.id, request.key, request.upload_id)
    while True:
        upload = stored_upload(storage.tables.latest(), row)
        if upload.state is UploadState.COMPLETED:
            return await _answer_again(storage, request, upload, wanted)
        rows = _rows_now(storage.tables.latest(), request.bucket.id, request.upload_id)
        # Ten thousand parts take a while: others go on meanwhile.
        entries, lists = await asyncio.get_running_loop().run_in_executor(
            storage.pool, _planned, request, rows
        )
        _check_sizes(entries, storage.options.part_bytes_min, request.size)
        version = _version(storage, request, upload, entries)
        done = Completed(
            version.etag, len(entries), wanted, version.meta.checksum, storage.tables.now_ms()
        )
        after = replace(upload, state=UploadState.COMPLETED, completed=done)
        changes = [Update(row, after.encode()), *lists]

        def check(upload: Upload = upload, rows: Rows = rows) -> None:
            view = storage.tables.latest()
            if stored_upload(view, row) != upload:
                raise _PartsChanged
            if _rows_now(view, request.bucket.id, request.upload_id) != rows:
                raise _PartsChanged

        try:
            placed = await publish(
                storage.tables,
                request.bucket,
                request.key,
                version,
                changes,
                condition=request.guard,
                guard=check,
            )
        except _PartsChanged:
            continue
        return CompleteResult(
            placed.version_id, placed.etag_text, placed.parts, version.meta.checksum
        )


def stored_upload(view: View, row: bytes) -> Upload:
    """The upload of a row, open or completed. Raises NoSuchUpload."""
    stored = view.get(row)
    upload = Upload.decode(stored) if stored is not None else None
    if upload is None or upload.state not in (UploadState.OPEN, UploadState.COMPLETED):
        raise NoSuchUpload
    return upload


def _digest_of(parts: Sequence[PartClaim]) -> bytes:
    """What makes two completions the same request."""
    digest = blake3()
    for part in parts:
        etag = _bare(part.etag).encode()[:_ETAG_BYTES_MAX]
        digest.update(part.number.to_bytes(4, "big") + etag + b"\n")
    return digest.digest()


def _bare(etag: str) -> str:
    return etag.strip().strip('"')


async def _answer_again(
    storage: Storage, request: CompleteRequest, upload: Upload, wanted: bytes
) -> CompleteResult:
    done = upload.completed
    if done is None or done.parts_digest != wanted:
        raise NoSuchUpload
    version_id = await _version_id(storage, request)
    return CompleteResult(version_id, f"{done.etag.hex()}-{done.parts}", done.parts, done.checksum)


async def _version_id(storage: Storage, request: CompleteRequest) -> str:
    """Of the version that the upload became; read down to it, most often the newest."""
    prefix = object_prefix(request.bucket.id, request.key)
    async for keys, values in storage.tables.scan(prefix, after_prefix(prefix)):
        for version in decoded(zip(keys, values, strict=True)):
            if version.id == request.upload_id:
                return version.version_id
    return NULL_VERSION_ID


def _rows_now(view: View, bucket: BucketId, upload: VersionId) -> Rows:
    prefix = parts_prefix(bucket, upload)
    rows: Rows = []
    for keys, values in view.scan(prefix, after_prefix(prefix)):
        rows += zip(keys, values, strict=True)
    return rows


def _planned(request: CompleteRequest, rows: Rows) -> tuple[list[PartEntry], list[Update]]:
    """The parts that are wanted, and the rows that will list them."""
    entries = _chosen(request.parts, rows)
    return entries, _part_lists(request.bucket.id, request.upload_id, entries)


def _chosen(claims: Sequence[PartClaim], rows: Rows) -> list[PartEntry]:
    """The parts the client lists, as they are stored. Raises InvalidPart, InvalidPartOrder."""
    if not claims:
        raise InvalidArgument("You must specify at least one part.")
    if any(one.number >= two.number for one, two in zip(claims, claims[1:], strict=False)):
        raise InvalidPartOrder
    stored: dict[int, bytes] = {}
    for key, value in rows:
        stored.setdefault(part_number_of(key), value)  # the newest of a number comes first
    entries = []
    for claim in claims:
        if claim.number not in stored:
            raise InvalidPart
        part = Part.decode(stored[claim.number])
        if part.removed or _bare(claim.etag) != part.etag_text:
            raise InvalidPart
        if claim.checksum is not None and (
            part.checksum is None or part.checksum.value != claim.checksum
        ):
            raise InvalidPart
        entries.append(PartEntry(claim.number, part.data, part.size, part.etag, part.checksum))
    return entries


def _check_sizes(entries: Sequence[PartEntry], smallest: int, announced: int | None) -> None:
    if any(entry.size < smallest for entry in entries[:-1]):
        raise EntityTooSmall
    size = sum(entry.size for entry in entries)
    if size > OBJECT_BYTES_MAX:
        raise EntityTooLarge
    if announced is not None and announced != size:
        raise NotAllowedHere(
            f"The provided 'x-amz-mp-object-size' header value {announced} does not match what "
            f"was computed: {size}"
        )


def _version(
    storage: Storage, request: CompleteRequest, upload: Upload, entries: Sequence[PartEntry]
) -> ObjectVersion:
    checksum = whole_checksum(upload, entries)
    given = request.checksum
    if given is not None and (
        checksum is None or given.algorithm != checksum.algorithm or given.value != checksum.value
    ):
        raise BadDigest
    etags = b"".join(entry.etag for entry in entries)
    return ObjectVersion(
        stamp=unplaced(request.upload_id),
        kind=Kind.MULTIPART,
        mtime_ms=storage.tables.now_ms(),
        size=sum(entry.size for entry in entries),
        etag=hashlib.md5(etags, usedforsecurity=False).digest(),
        parts=len(entries),
        meta=ObjectMeta(upload.meta.headers, checksum, upload.meta.encryption),
    )


def whole_checksum(upload: Upload, entries: Sequence[PartEntry]) -> Checksum | None:
    """The object's checksum from its parts', of the type the upload was begun with."""
    algorithm = upload.checksum_algorithm
    if algorithm is None:
        return None
    values = [entry.checksum.value for entry in entries if entry.checksum is not None]
    if len(values) != len(entries):
        raise InvalidPart
    if upload.checksum_type is ChecksumType.FULL_OBJECT and combines(algorithm):
        sizes = (entry.size for entry in entries)
        whole = combine(algorithm, list(zip(values, sizes, strict=True)))
        return Checksum(algorithm, whole, ChecksumType.FULL_OBJECT)
    return Checksum(algorithm, composite(algorithm, values), ChecksumType.COMPOSITE)


def _part_lists(bucket: BucketId, version: VersionId, entries: Sequence[PartEntry]) -> list[Update]:
    """The part list rows, each named by the end of its last part.

    Empty parts stay with the one before: two lists with one end would be one row.
    """
    updates = []
    batch: list[PartEntry] = []
    end = 0
    for entry in entries:
        if len(batch) >= LIST_PARTS and entry.size:
            updates.append(Update(part_list_row(bucket, version, end=end), encode_part_list(batch)))
            batch = []
        batch.append(entry)
        end += entry.size
    updates.append(Update(part_list_row(bucket, version, end=end), encode_part_list(batch)))
    return updates
