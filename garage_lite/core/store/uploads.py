"""The verbs of multipart uploads: create, put a part, complete, abort, list.

The data of a part is a run of blocks of its own (`writing.py`); its row makes it part of the
upload. Completion is in `completion.py`, listing in `upload_pages.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from garage_lite.core.errors import AccessDenied, InvalidArgument, NoSuchUpload, NotAllowedHere
from garage_lite.core.ids import VERSION_ID_BYTES, BucketId, DataId, VersionId
from garage_lite.core.limits import LIST_KEYS_MAX
from garage_lite.core.model.buckets import Bucket
from garage_lite.core.model.objects import Checksum, ChecksumType, Encryption, ObjectMeta
from garage_lite.core.model.rowkeys import Stamp, part_row, upload_row
from garage_lite.core.model.uploads import Part, Upload, UploadState
from garage_lite.core.store.body import Body
from garage_lite.core.store.completion import (
    CompleteRequest,
    CompleteResult,
    complete,
    stored_upload,
)
from garage_lite.core.store.digests import MD5, combines
from garage_lite.core.store.encryption import Cipher, CustomerKey, cipher_for, new_encryption
from garage_lite.core.store.objects import ETAG_BYTES
from garage_lite.core.store.upload_pages import (
    PartsPage,
    UploadMark,
    UploadsPage,
    list_parts,
    list_uploads,
)
from garage_lite.core.store.writing import Storage
from garage_lite.core.table.checks import Check, Rule
from garage_lite.core.table.schema import Update


@dataclass(frozen=True, slots=True)
class CreateRequest:
    bucket: Bucket
    key: bytes
    initiator: str
    """Access key id."""
    headers: tuple[tuple[str, str], ...] = ()
    customer_key: CustomerKey | None = None
    checksum_algorithm: str | None = None
    checksum_type: ChecksumType | None = None
    """None: what S3 takes by default for the algorithm."""


@dataclass(frozen=True, slots=True)
class PartRequest:
    bucket: Bucket
    key: bytes
    upload_id: VersionId
    number: int
    body: Body
    customer_key: CustomerKey | None = None


def upload_id_from(text: str) -> VersionId:
    """An upload id as clients write it (32 hex digits). Raises NoSuchUpload."""
    try:
        upload_id = bytes.fromhex(text)
    except ValueError:
        raise NoSuchUpload from None
    if len(upload_id) != VERSION_ID_BYTES:
        raise NoSuchUpload
    return VersionId(upload_id)


def checksum_type_of(algorithm: str | None, wanted: ChecksumType | None) -> ChecksumType | None:
    """The type of an upload's checksum. Raises InvalidArgument for a pair S3 does not know:
    SHA is composite only, CRC64NVME of the full object only."""
    if algorithm is None:
        if wanted is not None:
            raise NotAllowedHere("A checksum type needs a checksum algorithm.")
        return None
    if wanted is None:
        full = algorithm == "CRC64NVME"
        return ChecksumType.FULL_OBJECT if full else ChecksumType.COMPOSITE
    if wanted is ChecksumType.FULL_OBJECT and not combines(algorithm):
        raise InvalidArgument(f"The FULL_OBJECT checksum type cannot be used with {algorithm}.")
    if wanted is ChecksumType.COMPOSITE and algorithm == "CRC64NVME":
        raise InvalidArgument(f"The COMPOSITE checksum type cannot be used with {algorithm}.")
    return wanted


def _part_cipher(
    encryption: Encryption | None, key: CustomerKey | None, data: DataId
) -> Cipher | None:
    """As `cipher_for`. A part that does not go with its upload is a bad request, as in S3: its
    sender has the right to both, so that a wrong key is no AccessDenied."""
    try:
        return cipher_for(encryption, key, data)
    except (AccessDenied, NotAllowedHere) as error:
        if encryption is None:
            problem = (
                "The multipart upload initiate did not request encryption. Please resend the "
                "request without sending encryption parameters."
            )
        elif key is None:
            problem = (
                "The multipart upload initiate requested encryption. Subsequent part requests "
                "must include the appropriate encryption parameters."
            )
        else:
            problem = "The provided encryption parameters did not match the ones used originally."
        raise NotAllowedHere(problem) from error


class Uploads:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._tables = storage.tables

    async def create(self, request: CreateRequest) -> tuple[VersionId, Upload]:
        """Begin an upload; its id will be that of the version it becomes."""
        entropy = self._tables.entropy
        upload_id = VersionId(entropy.token(VERSION_ID_BYTES))
        key = request.customer_key
        encryption = new_encryption(key, entropy) if key is not None else None
        upload = Upload(
            UploadState.OPEN,
            self._tables.now_ms(),
            request.initiator,
            ObjectMeta(request.headers, None, encryption),
            request.checksum_algorithm,
            checksum_type_of(request.checksum_algorithm, request.checksum_type),
        )
        row = upload_row(request.bucket.id, request.key, upload_id)
        await self._tables.write([Update(row, upload.encode())])
        return upload_id, upload

    async def find(self, bucket: BucketId, key: bytes, upload_id: VersionId) -> Upload:
        """An upload that takes parts. Raises NoSuchUpload."""
        upload = await stored_upload(self._tables, upload_row(bucket, key, upload_id))
        if upload.state is not UploadState.OPEN:
            raise NoSuchUpload
        return upload

    async def put_part(self, request: PartRequest) -> Part:
        """Store a part, in place of one with the same number; durable on return.

        Raises NoSuchUpload, also where the upload ended meanwhile, and as
        `Objects.put`: then nothing of this part is left behind.
        """
        bucket, upload_id = request.bucket.id, request.upload_id
        upload = await self.find(bucket, request.key, upload_id)
        data = DataId(self._tables.entropy.token(VERSION_ID_BYTES))
        encryption = upload.meta.encryption
        cipher = _part_cipher(encryption, request.customer_key, data)
        algorithm = upload.checksum_algorithm
        digests = request.body.digests | ({algorithm} if algorithm else frozenset())
        async with self._storage.attempt(bucket, data, digests, cipher) as attempt:
            while chunk := await request.body.read():
                await attempt.add(chunk)
            results = await attempt.end()
            checksum = request.body.finish(attempt.size, results)
            if algorithm is not None:
                if checksum is not None and checksum.algorithm != algorithm:
                    raise NotAllowedHere(
                        "Checksum Type mismatch occurred, expected checksum Type: "
                        f"{algorithm.lower()}, actual checksum Type: {checksum.algorithm.lower()}"
                    )
                checksum = Checksum(algorithm, results[algorithm])
            etag = self._tables.entropy.token(ETAG_BYTES) if encryption else results[MD5]
            part = Part(data, attempt.size, etag, self._tables.now_ms(), checksum)
            stamp = Stamp(self._tables.stamp(), 0, VersionId(data))
            row = part_row(bucket, upload_id, request.number, stamp)
            is_open = Check(Rule.UPLOAD_OPEN, upload_row(bucket, request.key, upload_id))
            await attempt.commit([Update(row, part.encode())], checks=[is_open])
        return part

    async def complete(self, request: CompleteRequest) -> CompleteResult:
        """See `completion.complete`."""
        return await complete(self._storage, request)

    async def abort(self, bucket: BucketId, key: bytes, upload_id: VersionId) -> None:
        """End an upload; its parts go. Raises NoSuchUpload, where it was completed too."""
        row = upload_row(bucket, key, upload_id)
        stored = await self._tables.get_latest(row)
        upload = Upload.decode(stored) if stored is not None else None
        if upload is None or upload.state is UploadState.REMOVED:
            raise NoSuchUpload
        for event in ("fence", "remove"):
            upload = upload.after(event)
            if upload is None:
                raise NoSuchUpload
            await self._tables.write(
                [Update(row, upload.encode())],
                checks=[Check(Rule.NOT_COMPLETED, row)],
                deletes_only=True,
            )

    async def list_parts(
        self,
        bucket: BucketId,
        key: bytes,
        upload_id: VersionId,
        marker: int = 0,
        limit: int = LIST_KEYS_MAX,
    ) -> PartsPage:
        """The parts numbered above `marker`. Raises NoSuchUpload."""
        page = PartsPage(await self.find(bucket, key, upload_id))
        await list_parts(self._tables, bucket, upload_id, page, marker, limit)
        return page

    async def list_uploads(
        self,
        bucket: BucketId,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after: UploadMark | None = None,
        limit: int = LIST_KEYS_MAX,
    ) -> UploadsPage:
        """The open uploads of a bucket, from after a mark."""
        return await list_uploads(self._tables, bucket, prefix, delimiter, after, limit)
