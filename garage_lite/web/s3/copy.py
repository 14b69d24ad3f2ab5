"""CopyObject and UploadPartCopy. The right to read the source is checked here."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from garage_lite.core.model.objects import ObjectVersion
from garage_lite.core.store.copies import CopyPartRequest, CopyRequest, Source
from garage_lite.core.store.uploads import upload_id_from
from garage_lite.web.reply import Reply
from garage_lite.web.s3.context import S3Context
from garage_lite.web.s3.errors import S3Error
from garage_lite.web.s3.headers import (
    check_promises,
    customer_key,
    encryption_headers,
    iso_date,
    parse_copy_range,
    read_condition,
    stored_headers,
    write_condition,
)
from garage_lite.web.s3.multipart import checksum_algorithm, part_number
from garage_lite.web.s3.operations import Right
from garage_lite.web.s3.replies import checksum_xml, xml_reply
from garage_lite.web.s3.request import S3Request, check_key
from garage_lite.web.s3.rights import check_owner, check_right

_SOURCE = "x-amz-copy-source-"


async def copy_object(context: S3Context, request: S3Request) -> Reply:
    check_promises(request.headers)
    directive = request.header("x-amz-metadata-directive") or "COPY"
    if directive not in ("COPY", "REPLACE"):
        raise S3Error(
            "InvalidArgument",
            "Unknown metadata directive.",
            ("ArgumentName", "x-amz-metadata-directive"),
            ("ArgumentValue", directive),
        )
    headers = None
    if directive == "REPLACE":
        headers = stored_headers(request.headers)
    version, source = await context.copies.copy_object(
        CopyRequest(
            source=await _source(context, request),
            bucket=request.bucket,
            key=request.key,
            headers=headers,
            checksum_algorithm=checksum_algorithm(request),
            customer_key=customer_key(request.header),
            guard=write_condition(request.header),
        )
    )
    answered = _source_headers(source)
    if not version.null:
        answered.append(("x-amz-version-id", version.version_id))
    if version.meta.encryption:
        answered += encryption_headers(version.meta.encryption.key_md5)
    return xml_reply(
        "CopyObjectResult",
        f"<LastModified>{iso_date(version.mtime_ms)}</LastModified>"
        f"<ETag>&quot;{version.etag_text}&quot;</ETag>"
        + checksum_xml(version.meta.checksum, version.parts),
        *answered,
    )


async def upload_part_copy(context: S3Context, request: S3Request) -> Reply:
    number = part_number(request)
    bounds = parse_copy_range(request.header("x-amz-copy-source-range"))
    secret = customer_key(request.header)
    part, source = await context.copies.copy_part(
        CopyPartRequest(
            source=await _source(context, request),
            bucket=request.bucket,
            key=request.key,
            upload_id=upload_id_from(request.query["uploadId"]),
            number=number,
            first=bounds[0] if bounds else None,
            last=bounds[1] - 1 if bounds else None,
            customer_key=secret,
        )
    )
    return xml_reply(
        "CopyPartResult",
        f"<LastModified>{iso_date(part.mtime_ms)}</LastModified>"
        f"<ETag>&quot;{part.etag_text}&quot;</ETag>"
        + checksum_xml(part.checksum, 0, with_type=False),
        *_source_headers(source),
        *(encryption_headers(secret.md5) if secret else []),
    )


def _source_headers(source: ObjectVersion) -> list[tuple[str, str]]:
    return [] if source.null else [("x-amz-copy-source-version-id", source.version_id)]


async def _source(context: S3Context, request: S3Request) -> Source:
    """What x-amz-copy-source names. Raises InvalidArgument, NoSuchBucket, AccessDenied."""
    bucket_name, key, version_id = parse_copy_source(request.header("x-amz-copy-source") or "")
    bucket = await context.directory.find(bucket_name, request.access_key.id)
    check_right(request, bucket, Right.READ)
    check_owner(request, bucket, "x-amz-source-expected-bucket-owner")
    return Source(
        bucket=bucket.id,
        key=key,
        version_id=version_id,
        condition=read_condition(request.header, _SOURCE),
        customer_key=customer_key(request.header, _SOURCE),
    )


def parse_copy_source(text: str) -> tuple[str, bytes, str | None]:
    """`[/]bucket/key[?versionId=id]`, percent-encoded, as (bucket, key, version id)."""
    path, _, parameter = text.partition("?versionId=")
    raw = unquote_to_bytes(path.encode("utf-8", "surrogateescape"))
    bucket, _, key = raw.removeprefix(b"/").partition(b"/")
    try:
        key.decode()
        name = bucket.decode()
    except UnicodeDecodeError:
        name = ""
    if not name or not key:
        raise S3Error(
            "InvalidArgument",
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
            ("ArgumentName", "x-amz-copy-source"),
            ("ArgumentValue", text.encode("utf-8", "replace").decode()),
        )
    check_key(key)
    return name, key, parameter or None
