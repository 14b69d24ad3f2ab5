"""CopyObject and UploadPartCopy.

Where nothing about the bytes changes, a copy shares the source's blocks: new pages and
references under a data id of its own, acknowledged only where the files are. Otherwise (an
encryption key on either side, another checksum, a part) the source is read and put again; the
blocks that come out equal are already there and are not written twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from garage_lite.core.errors import InvalidRange, NotAllowedHere, Unavailable
from garage_lite.core.ids import VERSION_ID_BYTES, BucketId, DataId, VersionId
from garage_lite.core.limits import PUT_BYTES_MAX
from garage_lite.core.model.buckets import Bucket
from garage_lite.core.model.objects import Checksum, Kind, ObjectMeta, ObjectVersion
from garage_lite.core.model.rowkeys import (
    block_ref_row,
    inline_row,
    object_prefix,
    page_row,
)
from garage_lite.core.model.uploads import Part
from garage_lite.core.model.versions import PAGE_BLOCKS, BlockEntry, BlockRef, encode_page
from garage_lite.core.store.body import PutRequest
from garage_lite.core.store.conditions import (
    ReadCondition,
    WriteCondition,
    check_source,
    check_write,
)
from garage_lite.core.store.encryption import CustomerKey, check_key
from garage_lite.core.store.objects import Objects
from garage_lite.core.store.placing import asking
from garage_lite.core.store.reading import ByteStream, pages_of, parts_of, read_version
from garage_lite.core.store.uploads import PartRequest, Uploads
from garage_lite.core.store.versions import find, newest, publish, unplaced
from garage_lite.core.store.writing import Attempt, Storage
from garage_lite.core.table.schema import Change, Update


@dataclass(frozen=True, slots=True)
class Source:
    """What is copied."""

    bucket: BucketId
    key: bytes
    version_id: str | None = None
    condition: ReadCondition | None = None
    customer_key: CustomerKey | None = None


@dataclass(frozen=True, slots=True)
class CopyRequest:
    source: Source
    bucket: Bucket
    key: bytes
    headers: tuple[tuple[str, str], ...] | None = None
    """None: those of the source (directive COPY); else these (REPLACE)."""
    checksum_algorithm: str | None = None
    """None: the source's checksum is kept."""
    customer_key: CustomerKey | None = None
    guard: WriteCondition | None = None


@dataclass(frozen=True, slots=True)
class CopyPartRequest:
    source: Source
    bucket: Bucket
    key: bytes
    upload_id: VersionId
    number: int
    first: int | None = None
    """Range of the source's bytes, inclusive as in x-amz-copy-source-range; None: all of it."""
    last: int | None = None
    customer_key: CustomerKey | None = None


class _StreamBody:
    """The bytes of a version as the body of a PUT."""

    def __init__(self, stream: ByteStream, size: int, digest: str | None) -> None:
        self.size = size
        self.digests = frozenset({digest} if digest else ())
        self._stream = stream
        self._digest = digest

    async def read(self) -> bytes:
        return await anext(self._stream, b"")

    def finish(self, size: int, digests: Mapping[str, bytes]) -> Checksum | None:
        if size != self.size:
            raise Unavailable("the source of the copy changed; try again")
        return Checksum(self._digest, digests[self._digest]) if self._digest else None


_TOO_LARGE: Final = (
    "The specified copy source is larger than the maximum allowable size for a copy source: "
    f"{PUT_BYTES_MAX}"
)


class Copies:
    def __init__(self, storage: Storage, objects: Objects, uploads: Uploads) -> None:
        self._storage = storage
        self._objects = objects
        self._uploads = uploads

    async def copy_object(self, request: CopyRequest) -> tuple[ObjectVersion, ObjectVersion]:
        """Copy a version; returns the new one, durable and current, and its source.

        Raises NoSuchKey, NoSuchVersion, PreconditionFailed, QuotaExceeded, AccessDenied (wrong
        key), NotAllowedHere (too large; nothing would change), and as `Objects.put`.
        """
        source = await self._source(request.source)
        if source.size > PUT_BYTES_MAX:
            raise NotAllowedHere(_TOO_LARGE)
        self._check_changes(request, source)
        await self._check_early(request)
        headers = source.meta.headers if request.headers is None else request.headers
        kept = source.meta.checksum
        algorithm = request.checksum_algorithm or (kept.algorithm if kept else None)
        encrypted = source.meta.encryption is not None or request.customer_key is not None
        if encrypted or (kept.algorithm if kept else None) != algorithm:
            return await self._put_again(request, source, headers, algorithm), source
        meta = ObjectMeta(headers, kept)
        if source.kind is Kind.INLINE:
            return await self._copy_inline(request, source, meta), source
        return await self._share_blocks(request, source, meta), source

    async def copy_part(self, request: CopyPartRequest) -> tuple[Part, ObjectVersion]:
        """Store a stretch of a version as a part; returns the part and the source.

        Raises InvalidRange, and as `copy_object` and `Uploads.put_part`.
        """
        source = await self._source(request.source)
        start, end = 0, source.size
        if request.first is not None and request.last is not None:
            start, end = request.first, request.last + 1
            if not start < end <= source.size:
                raise InvalidRange(
                    f"Range specified is not valid for source object of size: {source.size}",
                    source.size,
                )
        if end - start > PUT_BYTES_MAX:
            raise NotAllowedHere(_TOO_LARGE)
        await self._uploads.find(request.bucket.id, request.key, request.upload_id)
        stream = await self._read(request.source, source, start, end)
        async with aclosing(stream):
            body = _StreamBody(stream, end - start, None)
            wanted = PartRequest(
                request.bucket,
                request.key,
                request.upload_id,
                request.number,
                body,
                request.customer_key,
            )
            return await self._uploads.put_part(wanted), source

    async def _source(self, source: Source) -> ObjectVersion:
        version = await find(self._storage.tables, source.bucket, source.key, source.version_id)
        check_source(source.condition, version)
        check_key(version.meta.encryption, source.customer_key)
        return version

    def _check_changes(self, request: CopyRequest, source: ObjectVersion) -> None:
        same = (request.source.bucket, request.source.key) == (request.bucket.id, request.key)
        changes = (
            request.headers is not None
            or request.source.version_id is not None
            or request.customer_key is not None
            or source.meta.encryption is not None
        )
        if same and not changes:
            raise NotAllowedHere(
                "This copy request is illegal because it is trying to copy an object to itself "
                "without changing the object's metadata, storage class, website redirect "
                "location or encryption attributes."
            )

    async def _check_early(self, request: CopyRequest) -> None:
        if request.guard is not None:
            prefix = object_prefix(request.bucket.id, request.key)
            check_write(request.guard, newest(await self._storage.tables.versions(prefix)))

    async def _read(
        self, source: Source, version: ObjectVersion, start: int, end: int
    ) -> ByteStream:
        return await read_version(
            self._storage, source.bucket, version, start, end, source.customer_key
        )

    async def _put_again(
        self,
        request: CopyRequest,
        source: ObjectVersion,
        headers: tuple[tuple[str, str], ...],
        algorithm: str | None,
    ) -> ObjectVersion:
        stream = await self._read(request.source, source, 0, source.size)
        async with aclosing(stream):
            body = _StreamBody(stream, source.size, algorithm)
            return await self._objects.put(
                PutRequest(
                    request.bucket,
                    request.key,
                    body,
                    headers,
                    request.customer_key,
                    request.guard,
                )
            )

    def _version(
        self, source: ObjectVersion, kind: Kind, version_id: VersionId, meta: ObjectMeta
    ) -> ObjectVersion:
        """The copy keeps the source's ETag, also one of several parts."""
        return ObjectVersion(
            stamp=unplaced(version_id),
            kind=kind,
            mtime_ms=self._storage.tables.now_ms(),
            size=source.size,
            etag=source.etag,
            parts=source.parts,
            meta=meta,
        )

    async def _copy_inline(
        self, request: CopyRequest, source: ObjectVersion, meta: ObjectMeta
    ) -> ObjectVersion:
        tables = self._storage.tables
        content = await tables.get(inline_row(request.source.bucket, source.id))
        if content is None:
            raise Unavailable("the source of the copy changed; try again")
        version_id = VersionId(tables.entropy.token(VERSION_ID_BYTES))
        return await publish(
            tables,
            request.bucket,
            request.key,
            self._version(source, Kind.INLINE, version_id, meta),
            lambda stamp: [Update(inline_row(request.bucket.id, version_id), content)],
            condition=request.guard,
        )

    async def _share_blocks(
        self, request: CopyRequest, source: ObjectVersion, meta: ObjectMeta
    ) -> ObjectVersion:
        tables = self._storage.tables
        version_id = VersionId(tables.entropy.token(VERSION_ID_BYTES))
        bucket = request.bucket.id
        async with (
            asking(tables, object_prefix(bucket, request.key)) as above,
            self._storage.attempt(bucket, DataId(version_id)) as attempt,
        ):
            await attempt.begin()
            with self._storage.leases.hold(source.id):
                await self._refer_all(request.source.bucket, source, attempt, bucket)
            return await publish(
                tables,
                request.bucket,
                request.key,
                self._version(source, Kind.BLOCKS, version_id, meta),
                commit=attempt.commit,
                condition=request.guard,
                above=above,
            )

    async def _refer_all(
        self, from_bucket: BucketId, source: ObjectVersion, attempt: Attempt, bucket: BucketId
    ) -> None:
        """Full pages of the source's blocks, one data id for all its parts."""
        page: list[BlockEntry] = []
        end = 0
        async for block in _blocks_of(self._storage, from_bucket, source):
            page.append(block)
            end += block.size
            if len(page) == PAGE_BLOCKS:
                await self._refer(attempt, bucket, page, end)
                page = []
        if page:
            await self._refer(attempt, bucket, page, end)
        if end != source.size:
            raise Unavailable("the source of the copy changed; try again")

    async def _refer(
        self, attempt: Attempt, bucket: BucketId, page: list[BlockEntry], end: int
    ) -> None:
        reference = BlockRef(bucket).encode()
        rows: list[Change] = [Update(page_row(bucket, attempt.data, end=end), encode_page(page))]
        rows += [Update(block_ref_row(block.hash, attempt.data), reference) for block in page]
        blocks = self._storage.blocks
        for block in await blocks.refer([block.hash for block in page], rows):
            # Its file is on its way out, or elsewhere: get it before it can be gone.
            await blocks.put(block, [await blocks.get(block)], [])


async def _blocks_of(
    storage: Storage, bucket: BucketId, version: ObjectVersion
) -> AsyncIterator[BlockEntry]:
    """All blocks of a version that is not encrypted, in order."""
    async for data in _data_of(storage, bucket, version):
        async for _, blocks in pages_of(storage, bucket, data):
            for block in blocks:
                yield block


async def _data_of(
    storage: Storage, bucket: BucketId, version: ObjectVersion
) -> AsyncIterator[DataId]:
    if version.kind is Kind.BLOCKS:
        yield DataId(version.id)
        return
    async for part, _ in parts_of(storage, bucket, version):
        yield part.data
