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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from blake3 import blake3

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.errors import (
    BadDigest,
    EntityTooLarge,
    EntityTooSmall,
    InvalidArgument,
    InvalidPart,
    InvalidPartOrder,
    NoSuchUpload,
    NotAllowedHere,
    OperationAborted,
)
from garage_lite.core.ids import BucketId, VersionId
from garage_lite.core.limits import OBJECT_BYTES_MAX
from garage_lite.core.model.buckets import Bucket
from garage_lite.core.model.objects import (
    NULL_VERSION_ID,
    Checksum,
    ChecksumType,
    Floor,
    Kind,
    ObjectMeta,
    ObjectVersion,
)
from garage_lite.core.model.rowkeys import (
    Stamp,
    after_prefix,
    object_prefix,
    object_row,
    part_list_row,
    part_number_of,
    parts_prefix,
    upload_row,
)
from garage_lite.core.model.uploads import Completed, Part, Upload, UploadState
from garage_lite.core.model.versions import LIST_PARTS, PartEntry, encode_part_list
from garage_lite.core.store.conditions import WriteCondition
from garage_lite.core.store.digests import combine, combines, composite
from garage_lite.core.store.placing import newest_clock
from garage_lite.core.store.versions import decoded, publish, unplaced
from garage_lite.core.store.writing import Storage
from garage_lite.core.table.checks import Check, Rule, parts_not_replaced
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


_ETAG_BYTES_MAX: Final = 64
_ATTEMPTS_MAX: Final = 16


async def complete(storage: Storage, request: CompleteRequest) -> CompleteResult:
    """Make the parts the current version of the key; durable on return.

    A repeated request gets the first answer. Raises NoSuchUpload, InvalidPartOrder, InvalidPart,
    EntityTooSmall, EntityTooLarge, BadDigest, NotAllowedHere (the size is not as announced),
    PreconditionFailed, NoSuchKey, QuotaExceeded: then the upload is as it was.
    """
    tables = storage.tables
    wanted = _digest_of(request.parts)
    row = upload_row(request.bucket.id, request.key, request.upload_id)
    prefix = parts_prefix(request.bucket.id, request.upload_id)
    for _ in range(_ATTEMPTS_MAX):
        upload, rows, above = await asyncio.gather(
            stored_upload(tables, row),
            _rows_now(tables, prefix),
            newest_clock(tables, object_prefix(request.bucket.id, request.key)),
        )
        if upload.state is UploadState.COMPLETED:
            answer = await _answer_again(storage, request, upload, wanted)
            if answer is not None:
                return answer
        # Ten thousand parts take a while: others go on meanwhile.
        planned = await asyncio.get_running_loop().run_in_executor(
            storage.pool, _planned, request, rows
        )
        entries = planned.entries
        _check_sizes(entries, storage.options.part_bytes_min, request.size)
        version = _version(storage, request, upload, entries)
        stamp = _stamp(storage, request, upload, above)

        def riders(
            stamp: Stamp,
            upload: Upload = upload,
            version: ObjectVersion = version,
            planned: _Planned = planned,
        ) -> list[Update]:
            checksum, now_ms = version.meta.checksum, tables.now_ms()
            count = len(planned.entries)
            done = Completed(version.etag, count, wanted, checksum, now_ms, stamp)
            after = replace(upload, state=UploadState.COMPLETED, completed=done)
            return [Update(row, after.encode()), *planned.lists]

        open_ = Check(Rule.COMPLETABLE, row, stamp.text.encode())
        if request.guard is not None and not tables.alone:
            open_ = Check(Rule.UPLOAD_OPEN, row)  # its stamp comes from what it is decided on

        def check(rows: Rows = rows) -> None:
            if _rows_in(tables.latest(), prefix) != rows:
                raise OperationAborted

        try:
            placed = await publish(
                tables,
                request.bucket,
                request.key,
                version,
                riders,
                condition=request.guard,
                checks=[open_, planned.current],
                guard=check if tables.alone else None,
                stamp=stamp,
            )
        except (OperationAborted, NoSuchUpload):
            continue  # a part was uploaded again meanwhile, or somebody else was faster
        return CompleteResult(
            placed.version_id, placed.etag_text, placed.parts, version.meta.checksum
        )
    raise OperationAborted


async def stored_upload(tables: Tables, row: bytes) -> Upload:
    """The upload of a row, open or completed. Raises NoSuchUpload."""
    stored = await tables.get_latest(row)
    upload = Upload.decode(stored) if stored is not None else None
    if upload is None or upload.state not in (UploadState.OPEN, UploadState.COMPLETED):
        raise NoSuchUpload
    return upload


def _stamp(storage: Storage, request: CompleteRequest, upload: Upload, above: int) -> Stamp:
    """That of the version, above the clock of the newest of its key; one that did not get far is
    finished as it was begun."""
    if upload.completed is not None:
        return upload.completed.stamp
    return Stamp(storage.tables.stamp(above), 0, request.upload_id)


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
) -> CompleteResult | None:
    """None where it is not sure that the version has a quorum: then it is written once more."""
    done = upload.completed
    if done is None or done.parts_digest not in (wanted, b""):
        raise NoSuchUpload
    prefix = object_prefix(request.bucket.id, request.key)
    rows = await storage.tables.versions(prefix, [object_row(prefix, done.stamp)])
    versions = decoded(rows)
    mine = [version for version in versions if version.id == request.upload_id]
    newer = any(v.floor is Floor.ALL and v.stamp > done.stamp for v in versions)
    if not (mine or newer or storage.tables.alone):
        return None
    version_id = mine[0].version_id if mine else NULL_VERSION_ID
    return CompleteResult(version_id, f"{done.etag.hex()}-{done.parts}", done.parts, done.checksum)


async def _rows_now(tables: Tables, prefix: bytes) -> Rows:
    if tables.alone:
        return _rows_in(tables.latest(), prefix)
    rows: Rows = []
    async for keys, values in tables.scan(prefix, after_prefix(prefix)):
        rows += zip(keys, values, strict=True)
    return rows


def _rows_in(view: View, prefix: bytes) -> Rows:
    rows: Rows = []
    for keys, values in view.scan(prefix, after_prefix(prefix)):
        rows += [row for row in zip(keys, values, strict=True) if row[1]]
    return rows


class _Planned(NamedTuple):
    """The parts that are wanted, the rows that will list them, and that no part is replaced."""

    entries: list[PartEntry]
    lists: list[Update]
    current: Check


def _planned(request: CompleteRequest, rows: Rows) -> _Planned:
    newest: dict[int, tuple[bytes, bytes]] = {}
    for key, value in rows:
        newest.setdefault(part_number_of(key), (key, value))  # the newest of a number comes first
    entries = _chosen(request.parts, {number: value for number, (_, value) in newest.items()})
    prefix = parts_prefix(request.bucket.id, request.upload_id)
    keys = [newest[entry.number][0] for entry in entries]
    lists = _part_lists(request.bucket.id, request.upload_id, entries)
    return _Planned(entries, lists, parts_not_replaced(prefix, keys))


def _chosen(claims: Sequence[PartClaim], stored: Mapping[int, bytes]) -> list[PartEntry]:
    """The parts the client lists, from those stored by number. Raises InvalidPart,
    InvalidPartOrder."""
    if not claims:
        raise InvalidArgument("You must specify at least one part.")
    if any(one.number >= two.number for one, two in zip(claims, claims[1:], strict=False)):
        raise InvalidPartOrder
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
