"""Multipart uploads: create, put a part, complete, abort, list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from garage_lite.core.errors import BadDigest
from garage_lite.core.limits import LIST_KEYS_MAX, PART_NUMBER_MAX, XML_BYTES_MAX
from garage_lite.core.model.objects import Checksum, ChecksumType
from garage_lite.core.store.completion import CompleteRequest, PartClaim
from garage_lite.core.store.digests import DIGEST_BYTES
from garage_lite.core.store.upload_pages import UploadEntry, UploadMark
from garage_lite.core.store.uploads import CreateRequest, PartRequest, upload_id_from
from garage_lite.web.reply import Reply
from garage_lite.web.s3.context import S3Context
from garage_lite.web.s3.errors import S3Error
from garage_lite.web.s3.headers import (
    check_promises,
    checksum_headers,
    customer_key,
    decode_checksum,
    encryption_headers,
    iso_date,
    stored_headers,
    write_condition,
)
from garage_lite.web.s3.integrity import CHECKSUM_HEADERS
from garage_lite.web.s3.listing import name_element, prefixes_xml, url_encoded
from garage_lite.web.s3.location import object_location
from garage_lite.web.s3.put import require_length
from garage_lite.web.s3.replies import (
    checksum_xml,
    malformed_xml,
    owner_xml,
    parse_body,
    word,
    xml_reply,
)
from garage_lite.web.s3.request import S3Request
from garage_lite.web.s3.xml import Element, escape, name_text


async def create_multipart_upload(context: S3Context, request: S3Request) -> Reply:
    check_promises(request.headers)
    algorithm, kind = _checksum_choice(request)
    upload_id, upload = await context.uploads.create(
        CreateRequest(
            bucket=request.bucket,
            key=request.key,
            initiator=request.access_key.id,
            headers=stored_headers(request.headers),
            customer_key=customer_key(request.header),
            checksum_algorithm=algorithm,
            checksum_type=kind,
        )
    )
    headers = []
    if upload.checksum_algorithm and upload.checksum_type is not None:
        headers = [
            ("x-amz-checksum-algorithm", upload.checksum_algorithm),
            ("x-amz-checksum-type", upload.checksum_type.name),
        ]
    if upload.meta.encryption:
        headers += encryption_headers(upload.meta.encryption.key_md5)
    return xml_reply(
        "InitiateMultipartUploadResult",
        f"<Bucket>{escape(request.bucket_name or '')}</Bucket>"
        f"<Key>{name_text(request.key, False)}</Key><UploadId>{upload_id.hex()}</UploadId>",
        *headers,
    )


def checksum_algorithm(request: S3Request) -> str | None:
    """x-amz-checksum-algorithm. Raises InvalidRequest for one that S3 does not know."""
    text = request.header("x-amz-checksum-algorithm")
    if text is None:
        return None
    if text.upper() not in DIGEST_BYTES:
        raise S3Error(
            "InvalidRequest",
            "Checksum algorithm provided is unsupported. Please try again with any of the valid"
            " types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
        )
    return text.upper()


def _checksum_choice(request: S3Request) -> tuple[str | None, ChecksumType | None]:
    kind = request.header("x-amz-checksum-type")
    if kind is None:
        return checksum_algorithm(request), None
    return checksum_algorithm(request), _checksum_type(kind)


def _checksum_type(text: str) -> ChecksumType:
    try:
        return ChecksumType[text.upper()]
    except KeyError:
        raise S3Error(
            "InvalidRequest", "Value for x-amz-checksum-type header is invalid."
        ) from None


def part_number(request: S3Request) -> int:
    """The partNumber of an upload. Raises InvalidArgument."""
    text = request.query.get("partNumber", "")
    if text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) <= PART_NUMBER_MAX:
        return int(text)
    raise S3Error(
        "InvalidArgument",
        "Part number must be an integer between 1 and 10000, inclusive",
        ("ArgumentName", "partNumber"),
        ("ArgumentValue", text),
    )


async def upload_part(context: S3Context, request: S3Request) -> Reply:
    require_length(request)
    number = part_number(request)
    secret = customer_key(request.header)
    part = await context.uploads.put_part(
        PartRequest(
            bucket=request.bucket,
            key=request.key,
            upload_id=upload_id_from(request.query["uploadId"]),
            number=number,
            body=request.body,
            customer_key=secret,
        )
    )
    headers = [("ETag", f'"{part.etag_text}"')]
    if part.checksum and request.body.announced.algorithm:
        # Without the type, which AWS says of whole objects only.
        headers += checksum_headers(part.checksum, 0)[:1]
    if secret:
        headers += encryption_headers(secret.md5)
    return Reply(headers=headers)


async def complete_multipart_upload(context: S3Context, request: S3Request) -> Reply:
    body = await request.body.read_all(XML_BYTES_MAX)
    root = parse_body(body, "CompleteMultipartUpload")
    claims = [_claim(element) for element in root.all("Part")]
    if not claims:
        raise malformed_xml()
    size = request.header("x-amz-mp-object-size")
    if size is not None and not (size.isascii() and size.isdigit() and len(size) < 20):
        raise S3Error("InvalidRequest", "Value for x-amz-mp-object-size header is invalid.")
    result = await context.uploads.complete(
        CompleteRequest(
            bucket=request.bucket,
            key=request.key,
            upload_id=upload_id_from(request.query["uploadId"]),
            parts=claims,
            checksum=_object_checksum(request),
            size=None if size is None else int(size),
            guard=write_condition(request.header),
        )
    )
    headers = []
    if result.version_id != "null":
        headers.append(("x-amz-version-id", result.version_id))
    location = object_location(context.settings, request.bucket_name or "", request.key)
    return xml_reply(
        "CompleteMultipartUploadResult",
        f"<Location>{escape(location)}</Location><Bucket>{escape(request.bucket_name or '')}"
        f"</Bucket><Key>{name_text(request.key, False)}</Key><ETag>&quot;{result.etag}&quot;</ETag>"
        + checksum_xml(result.checksum, result.parts),
        *headers,
    )


_CHECKSUM_ELEMENTS: Final = {f"Checksum{name}": name for name in DIGEST_BYTES}


def _claim(element: Element) -> PartClaim:
    number = (element.value("PartNumber") or "").strip()
    etag = (element.value("ETag") or "").strip()
    if not (number.isascii() and number.isdigit() and len(number) < 10) or not etag:
        raise malformed_xml()
    if not 0 < int(number) <= PART_NUMBER_MAX:
        raise S3Error(
            "InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive"
        )
    checksum = None
    for child in element.children:
        algorithm = _CHECKSUM_ELEMENTS.get(child.name)
        if algorithm is not None:
            # What can't be a checksum is one that no part has.
            checksum = decode_checksum(algorithm, child.text.strip()) or b""
    return PartClaim(int(number), etag, checksum)


def _object_checksum(request: S3Request) -> Checksum | None:
    """The checksum of the whole object that the client gives to be compared."""
    given = [name for name in request.headers if name in CHECKSUM_HEADERS]
    if not given:
        return None
    text = request.headers[given[0]]
    if len(given) > 1 or "," in text:
        raise S3Error("InvalidRequest", "Expecting a single x-amz-checksum- header.")
    value_text, dash, _ = text.partition("-")
    algorithm = CHECKSUM_HEADERS[given[0]]
    value = decode_checksum(algorithm, value_text)
    if value is None:
        raise BadDigest(f"The {algorithm} you specified did not match the calculated checksum.")
    kind = request.header("x-amz-checksum-type")
    if kind is not None:
        return Checksum(algorithm, value, _checksum_type(kind))
    return Checksum(algorithm, value, ChecksumType.COMPOSITE if dash else ChecksumType.FULL_OBJECT)


async def abort_multipart_upload(context: S3Context, request: S3Request) -> Reply:
    upload_id = upload_id_from(request.query["uploadId"])
    await context.uploads.abort(request.bucket.id, request.key, upload_id)
    return Reply(204)


async def list_parts(context: S3Context, request: S3Request) -> Reply:
    encoded = url_encoded(request)
    limit = request.number("max-parts", LIST_KEYS_MAX, 0, LIST_KEYS_MAX)
    marker = request.number("part-number-marker", 0, 0, PART_NUMBER_MAX)
    upload_id = upload_id_from(request.query["uploadId"])
    page = await context.uploads.list_parts(
        request.bucket.id, request.key, upload_id, marker, limit
    )
    upload = page.upload
    truncated = page.next_marker is not None and limit > 0
    last = page.parts[-1][0] if page.parts else marker
    kind = ""
    if upload.checksum_algorithm and upload.checksum_type is not None:
        kind = (
            f"<ChecksumAlgorithm>{upload.checksum_algorithm}</ChecksumAlgorithm>"
            f"<ChecksumType>{upload.checksum_type.name}</ChecksumType>"
        )
    parts = "".join(
        [
            f"<Part><PartNumber>{number}</PartNumber>"
            f"<LastModified>{iso_date(part.mtime_ms)}</LastModified>"
            f"<ETag>&quot;{part.etag_text}&quot;</ETag><Size>{part.size}</Size>"
            f"{checksum_xml(part.checksum, 0, with_type=False)}</Part>"
            for number, part in page.parts
        ]
    )
    initiator = context.directory.key(upload.initiator)
    name = initiator.name.value if initiator else ""
    return xml_reply(
        "ListPartsResult",
        f"<Bucket>{escape(request.bucket_name or '')}</Bucket>"
        f"<Key>{name_text(request.key, encoded)}</Key><UploadId>{upload_id.hex()}</UploadId>"
        + ("<EncodingType>url</EncodingType>" if encoded else "")
        + owner_xml(upload.initiator, name, "Initiator")
        + owner_xml(upload.initiator, name)
        + "<StorageClass>STANDARD</StorageClass>"
        + f"<PartNumberMarker>{marker}</PartNumberMarker>"
        + f"<NextPartNumberMarker>{last}</NextPartNumberMarker>"
        + f"<MaxParts>{limit}</MaxParts><IsTruncated>{word(truncated)}</IsTruncated>{kind}{parts}",
    )


async def list_multipart_uploads(context: S3Context, request: S3Request) -> Reply:
    encoded = url_encoded(request)
    prefix, delimiter = request.name("prefix"), request.name("delimiter")
    key_marker = request.name("key-marker")
    id_marker = request.query.get("upload-id-marker") or ""
    limit = request.number("max-uploads", LIST_KEYS_MAX, 0, LIST_KEYS_MAX)
    after = None
    if key_marker:
        after = UploadMark(key_marker, upload_id_from(id_marker) if id_marker else None)
    page = await context.uploads.list_uploads(
        request.bucket.id, prefix=prefix, delimiter=delimiter, after=after, limit=limit
    )
    following = page.next if limit > 0 else None
    markers = ""
    if following is not None:
        markers = name_element("NextKeyMarker", following.key, encoded)
        if following.upload_id is not None:
            markers += f"<NextUploadIdMarker>{following.upload_id.hex()}</NextUploadIdMarker>"
    return xml_reply(
        "ListMultipartUploadsResult",
        f"<Bucket>{escape(request.bucket_name or '')}</Bucket>"
        + name_element("KeyMarker", key_marker, encoded, empty=True)
        + f"<UploadIdMarker>{escape(id_marker)}</UploadIdMarker>"
        + markers
        + name_element("Prefix", prefix, encoded, empty=True)
        + name_element("Delimiter", delimiter, encoded)
        + ("<EncodingType>url</EncodingType>" if encoded else "")
        + f"<MaxUploads>{limit}</MaxUploads>"
        + f"<IsTruncated>{word(following is not None)}</IsTruncated>"
        + _uploads_xml(context, page.entries, encoded)
        + prefixes_xml(page.prefixes, encoded),
    )


def _uploads_xml(context: S3Context, entries: Sequence[UploadEntry], encoded: bool) -> str:
    rows = []
    for key, upload_id, upload in entries:
        initiator = context.directory.key(upload.initiator)
        name = initiator.name.value if initiator else ""
        rows.append(
            f"<Upload><Key>{name_text(key, encoded)}</Key><UploadId>{upload_id.hex()}</UploadId>"
            + owner_xml(upload.initiator, name, "Initiator")
            + owner_xml(upload.initiator, name)
            + "<StorageClass>STANDARD</StorageClass>"
            + f"<Initiated>{iso_date(upload.started_ms)}</Initiated></Upload>"
        )
    return "".join(rows)
