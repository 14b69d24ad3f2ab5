"""The verbs on one object: put, look up, read, delete.

Straight-line and without a word of HTTP. A small object is one write of two rows and reads
nothing first; a bigger one goes through an attempt (`writing.py`) and becomes visible in its
last write.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from garage_lite.core.errors import CallerError
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
    inline_row,
    object_prefix,
)
from garage_lite.core.store.body import Body, PutRequest
from garage_lite.core.store.conditions import WriteCondition, check_write
from garage_lite.core.store.deletions import DeleteKey, DeleteResult, delete_many
from garage_lite.core.store.digests import MD5, Digests
from garage_lite.core.store.encryption import Cipher, CustomerKey, check_key, new_encryption
from garage_lite.core.store.placing import asking
from garage_lite.core.store.reading import ByteStream, PlacedPart, parts_of, read_version
from garage_lite.core.store.versions import (
    FLOORS,
    check_quota,
    counted,
    decoded,
    find,
    has_quotas,
    publish,
    unplaced,
)
from garage_lite.core.store.writing import Storage
from garage_lite.core.table.schema import Update

ETAG_BYTES: Final = 16


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
        prefix = object_prefix(request.bucket.id, request.key)
        async with (
            asking(self._tables, prefix) as above,
            self._storage.attempt(request.bucket.id, data, body.digests, cipher) as attempt,
        ):
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
                commit=attempt.commit,
                condition=request.guard,
                above=above,
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
            lambda stamp: [inline],
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
        limited = has_quotas(request.bucket)
        short = request.body.size is not None and size <= self._storage.options.inline_bytes
        if not limited and (request.guard is None or (short and not self._tables.alone)):
            return
        rows = await self._tables.versions(object_prefix(request.bucket.id, request.key), ())
        alive = survivors(decoded(rows))
        check_write(request.guard, alive[0] if alive else None)
        if not limited:
            return
        version = ObjectVersion(
            unplaced(VersionId(b"")),
            Kind.BLOCKS,
            0,
            size,
            floor=FLOORS[Versioning(request.bucket.versioning.value)],
        )
        check_quota(request.bucket, await counted(self._tables, request.bucket.id), alive, version)

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
        return await delete_many(self._tables, bucket, keys)
