"""The verbs on one object: put, look up, read, delete.

Straight-line and without a word of HTTP. A small object is one write of two rows and reads
nothing first; a bigger one goes through an attempt (`writing.py`) and becomes visible in its
last write.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from garage_lite.core.errors import CallerError, PreconditionFailed
from garage_lite.core.ids import VERSION_ID_BYTES, BucketId, DataId, VersionId
from garage_lite.core.model.buckets import Bucket, Versioning
from garage_lite.core.model.objects import (
    Checksum,
    Encryption,
    Kind,
    ObjectMeta,
    ObjectVersion,
    survivors,
)
from garage_lite.core.model.rowkeys import (
    Stamp,
    inline_row,
    object_prefix,
    object_row,
)
from garage_lite.core.store.body import Body, PutRequest
from garage_lite.core.store.conditions import WriteCondition, check_write
from garage_lite.core.store.digests import MD5, Digests
from garage_lite.core.store.encryption import Cipher, CustomerKey, check_key, new_encryption
from garage_lite.core.store.reading import ByteStream, PlacedPart, parts_of, read_version
from garage_lite.core.store.versions import (
    FLOORS,
    Overtaken,
    check_quota,
    decoded,
    find,
    has_quotas,
    publish,
    row_of,
    unplaced,
    with_id,
)
from garage_lite.core.store.writing import Storage
from garage_lite.core.table.history import rows_that_decide
from garage_lite.core.table.schema import Update, View

ETAG_BYTES: Final = 16
_BATCH_KEYS: Final = 64
"""Keys deleted in one record: decided and planned at one go, so few enough that others need not
wait, and far below TRANSACTION_BYTES_MAX even for the longest keys (a marker, what that removes,
a reminder to forget: 4 rows of up to 2.2 KiB each)."""


class DeleteKey(NamedTuple):
    key: bytes
    version_id: str | None = None
    condition: WriteCondition | None = None


class DeleteResult(NamedTuple):
    """What became of a key. All defaults: nothing was there, or nothing a client knows of."""

    version_id: str | None = None
    """The version that was removed, or the delete marker that was made; None: unversioned."""
    delete_marker: bool = False
    """Whether `version_id` is a delete marker, made or removed."""


class Objects:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._tables = storage.tables

    # --- put

    async def put(self, request: PutRequest) -> ObjectVersion:
        """Store a new version; durable and current on return.

        Raises PreconditionFailed, NoSuchKey (If-Match of nothing), QuotaExceeded, what the body
        raises, DiskFull and StorageFailed: then the key is as it was and nothing is left behind.
        """
        body = request.body
        await self._check_early(request, body.size or 0)
        version_id = VersionId(self._tables.entropy.token(VERSION_ID_BYTES))
        encryption = cipher = None
        if request.customer_key is not None:
            encryption = new_encryption(request.customer_key, self._tables.entropy)
            cipher = Cipher(encryption, request.customer_key, DataId(version_id))
        chunks, ended = await self._first_chunks(body)
        if ended:
            return await self._put_inline(request, version_id, chunks, encryption, cipher)
        data = DataId(version_id)
        async with self._storage.attempt(request.bucket.id, data, body.digests, cipher) as attempt:
            for chunk in chunks:
                await attempt.add(chunk)
            chunks.clear()
            while chunk := await body.read():
                await attempt.add(chunk)
            digests = await attempt.end()
            checksum = body.finish(attempt.size, digests)
            version = self._version(
                request, version_id, Kind.BLOCKS, attempt.size, digests[MD5], checksum, encryption
            )
            return await publish(
                self._tables,
                request.bucket,
                request.key,
                version,
                write=attempt.commit,
                condition=request.guard,
            )

    async def _put_inline(
        self,
        request: PutRequest,
        version_id: VersionId,
        chunks: list[bytes],
        encryption: Encryption | None,
        cipher: Cipher | None,
    ) -> ObjectVersion:
        content = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        digests = Digests({MD5, *request.body.digests})
        digests.update([content])
        results = digests.results()
        checksum = request.body.finish(len(content), results)
        version = self._version(
            request, version_id, Kind.INLINE, len(content), results[MD5], checksum, encryption
        )
        stored = content if cipher is None else cipher.encrypt(content, 0)
        inline = Update(inline_row(request.bucket.id, version_id), stored)
        return await publish(
            self._tables,
            request.bucket,
            request.key,
            version,
            [inline],
            condition=request.guard,
        )

    def _version(
        self,
        request: PutRequest,
        version_id: VersionId,
        kind: Kind,
        size: int,
        md5: bytes,
        checksum: Checksum | None,
        encryption: Encryption | None,
    ) -> ObjectVersion:
        # As AWS: the ETag of an encrypted object is not the MD5 of its content.
        etag = md5 if encryption is None else self._tables.entropy.token(ETAG_BYTES)
        return ObjectVersion(
            stamp=unplaced(version_id),
            kind=kind,
            mtime_ms=self._tables.now_ms(),
            size=size,
            etag=etag,
            meta=ObjectMeta(request.headers, checksum, encryption),
        )

    async def _check_early(self, request: PutRequest, size: int) -> None:
        """Refuse what is sure to be refused before gigabytes are read. Decided again at the end."""
        if request.guard is None and not has_quotas(request.bucket):
            return
        rows = await self._tables.versions(object_prefix(request.bucket.id, request.key), ())
        alive = survivors(decoded(rows))
        check_write(request.guard, alive[0] if alive else None)
        version = ObjectVersion(
            unplaced(VersionId(b"")),
            Kind.BLOCKS,
            0,
            size,
            floor=FLOORS[Versioning(request.bucket.versioning.value)],
        )
        check_quota(request.bucket, self._tables.durable(), alive, version)

    async def _first_chunks(self, body: Body) -> tuple[list[bytes], bool]:
        """Chunks up to the inline limit; whether the body ended there."""
        limit = self._storage.options.inline_bytes
        chunks: list[bytes] = []
        size = 0
        if body.size is not None and body.size > limit:
            return chunks, False
        while chunk := await body.read():
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                return chunks, False
        return chunks, True

    # --- look up and read

    async def head(
        self, bucket: BucketId, key: bytes, version_id: str | None = None
    ) -> ObjectVersion:
        """The current version, or the one with that id ("null": the null version).

        Raises NoSuchKey (a delete marker too) and NoSuchVersion.
        """
        return await find(self._tables, bucket, key, version_id)

    async def read(
        self,
        bucket: BucketId,
        version: ObjectVersion,
        start: int,
        end: int,
        customer_key: CustomerKey | None = None,
    ) -> ByteStream:
        """The plain bytes [start, end), in chunks of up to 256 KiB; the first is there on return.

        Has an `aclose` to call when it is not read to its end. Raises NotAllowedHere (a key is
        missing, or needless), AccessDenied (the wrong key), Unavailable (removed meanwhile);
        then, from the iterator, StorageFailed kinds: the answer must be broken off.
        """
        check_key(version.meta.encryption, customer_key)
        return await read_version(self._storage, bucket, version, start, end, customer_key)

    def part_ranges(
        self, bucket: BucketId, version: ObjectVersion, start: int = 0
    ) -> AsyncIterator[PlacedPart]:
        """The parts of a multipart version with where each begins, read page by page, from the
        part that holds byte `start` on."""
        return parts_of(self._storage, bucket, version, start)

    # --- delete

    async def delete(
        self,
        bucket: Bucket,
        key: bytes,
        version_id: str | None = None,
        condition: WriteCondition | None = None,
    ) -> DeleteResult:
        """Remove the current version (in a versioned bucket: hide it by a delete marker), or one
        version for good. Deleting what is not there is no error.

        Raises PreconditionFailed and NoSuchKey where a condition does not hold.
        """
        (result,) = await self.delete_many(bucket, [DeleteKey(key, version_id, condition)])
        if isinstance(result, CallerError):
            raise result
        return result

    async def delete_many(
        self, bucket: Bucket, keys: Sequence[DeleteKey]
    ) -> list[DeleteResult | CallerError]:
        """Delete several keys, many in one write; the result of each, in order."""
        results: list[DeleteResult | CallerError] = []
        for at in range(0, len(keys), _BATCH_KEYS):
            results += await self._delete_batch(bucket, keys[at : at + _BATCH_KEYS])
        return results

    async def _delete_batch(
        self, bucket: Bucket, keys: Sequence[DeleteKey]
    ) -> list[DeleteResult | CallerError]:
        """Unconditional deletes are ordered by their stamp; what was decided on a condition is
        decided again when something came between."""
        while True:
            view = self._tables.latest()
            changes: list[Update] = []
            results: list[DeleteResult | CallerError] = []
            judged: dict[bytes, list[tuple[bytes, bytes]]] = {}
            for wanted in keys:
                prefix = object_prefix(bucket.id, wanted.key)
                rows = rows_that_decide(view, prefix, row_of(prefix, wanted.version_id or ""))
                if wanted.condition is not None:
                    judged[prefix] = rows_that_decide(view, prefix)
                try:
                    update, result = self._decide(bucket, wanted, prefix, rows)
                except CallerError as error:
                    results.append(error)
                    continue
                results.append(result)
                if update is not None:
                    changes.append(update)
            if not changes:
                return results

            def check(
                judged: dict[bytes, list[tuple[bytes, bytes]]] = judged, view: View = view
            ) -> None:
                if any(rows_that_decide(view, p) != rows for p, rows in judged.items()):
                    raise Overtaken

            try:
                await self._tables.write(changes, check if judged else None, deletes_only=True)
            except Overtaken:
                continue
            return results

    def _decide(
        self,
        bucket: Bucket,
        wanted: DeleteKey,
        prefix: bytes,
        rows: list[tuple[bytes, bytes]],
    ) -> tuple[Update | None, DeleteResult]:
        versions = decoded(rows)
        alive = survivors(versions)
        current = alive[0] if alive else None
        hidden = current is not None and not current.has_data and not current.is_tombstone
        if hidden and wanted.condition is not None and wanted.condition.if_match is not None:
            raise PreconditionFailed(condition="If-Match")
        check_write(wanted.condition, current)
        if wanted.version_id is not None:
            version = with_id(rows, wanted.version_id)
            if version is None:
                return None, DeleteResult(wanted.version_id)
            gone = replace(version, removed=True).encode()
            row = Update(object_row(prefix, version.stamp), gone)
            return row, DeleteResult(wanted.version_id, not version.has_data)
        versioning = Versioning(bucket.versioning.value)
        if versioning is Versioning.OFF and not (alive and alive[0].has_data):
            return None, DeleteResult()
        clock = self._tables.stamp(versions[0].stamp.clock if versions else 0)
        marker = ObjectVersion(
            stamp=Stamp(clock, 0, VersionId(self._tables.entropy.token(VERSION_ID_BYTES))),
            kind=Kind.DELETE_MARKER,
            mtime_ms=self._tables.now_ms(),
            null=versioning is not Versioning.ENABLED,
            floor=FLOORS[versioning],
        )
        row = Update(object_row(prefix, marker.stamp), marker.encode())
        if versioning is Versioning.OFF:
            return row, DeleteResult()
        return row, DeleteResult(marker.version_id, delete_marker=True)
