"""GetObject, HeadObject, GetObjectAttributes."""

from __future__ import annotations

from typing import Final

from garage_lite.core.errors import KeyIsDeleted
from garage_lite.core.ids import BucketId
from garage_lite.core.limits import PART_NUMBER_MAX
from garage_lite.core.model.objects import ObjectVersion
from garage_lite.core.model.versions import PartEntry
from garage_lite.core.store.conditions import Outcome
from garage_lite.core.store.encryption import CustomerKey, check_key
from garage_lite.web.reply import Reply
from garage_lite.web.s3.context import S3Context
from garage_lite.web.s3.errors import S3Error
from garage_lite.web.s3.headers import (
    NAMES,
    checksum_headers,
    customer_key,
    http_date,
    object_headers,
    parse_range,
    read_condition,
)
from garage_lite.web.s3.replies import checksum_xml, word, xml_reply
from garage_lite.web.s3.request import S3Request

OVERRIDES: Final = {
    "response-content-type": "content-type",
    "response-cache-control": "cache-control",
    "response-content-disposition": "content-disposition",
    "response-content-encoding": "content-encoding",
    "response-content-language": "content-language",
    "response-expires": "expires",
}
_NOT_MODIFIED_KEEPS: Final = frozenset(["etag", "last-modified", "cache-control", "expires"])
_COLLECT_BYTES_MAX: Final = 65_536
"""Up to here an answer is read whole before it begins, and leaves in one write."""
ATTRIBUTES: Final = frozenset(["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"])


async def get_object(context: S3Context, request: S3Request) -> Reply:
    secret = customer_key(request.header)
    version = await _find(context, request, secret)
    reply, start, end = await _describe(context, request, version)
    if reply.status in (200, 206) and end > start:
        stream = await context.objects.read(request.bucket.id, version, start, end, secret)
        if end - start <= _COLLECT_BYTES_MAX:
            reply.body = b"".join([chunk async for chunk in stream])
        else:
            reply.stream, reply.length = stream, end - start
    return reply


async def head_object(context: S3Context, request: S3Request) -> Reply:
    version = await _find(context, request, customer_key(request.header))
    reply, start, end = await _describe(context, request, version)
    reply.length = end - start
    return reply


async def _find(
    context: S3Context, request: S3Request, secret: CustomerKey | None
) -> ObjectVersion:
    version_id = request.query.get("versionId") or None
    try:
        version = await context.objects.head(request.bucket.id, request.key, version_id)
    except KeyIsDeleted as marker:
        raise _is_marker(marker, request, named=version_id is not None) from None
    check_key(version.meta.encryption, secret)
    return version


def _is_marker(marker: KeyIsDeleted, request: S3Request, *, named: bool) -> S3Error:
    """A delete marker has nothing to get; asked for by its id, it can only be deleted."""
    error = S3Error("NoSuchKey", marker.message)
    error.headers = [
        ("x-amz-delete-marker", "true"),
        ("x-amz-version-id", marker.version_id),
    ]
    if named:
        told = error.headers
        error = S3Error(
            "MethodNotAllowed",
            "The specified method is not allowed against this resource.",
            ("Method", request.method),
            ("ResourceType", "DeleteMarker"),
        )
        modified = http_date(marker.mtime_ms // 1000)
        error.headers = [*told, ("Allow", "DELETE"), ("Last-Modified", modified)]
    return error


async def _describe(
    context: S3Context, request: S3Request, version: ObjectVersion
) -> tuple[Reply, int, int]:
    """The answer without its body, and which bytes [start, end) the body is."""
    wants_checksum = (request.header("x-amz-checksum-mode") or "").upper() == "ENABLED"
    refusal = _condition_reply(request, version)
    if refusal is not None:
        return refusal, 0, 0
    number = request.query.get("partNumber")
    range_text = request.header("range")
    if number is not None:
        if range_text is not None:
            raise S3Error(
                "InvalidRequest", "Cannot specify both Range header and partNumber query parameter"
            )
        return await _describe_part(context, request, version, wants_checksum)
    bounds = parse_range(range_text, version.size)
    headers = object_headers(version, checksum=wants_checksum and bounds is None)
    _override(headers, request)
    start, end = bounds or (0, version.size)
    if bounds is not None:
        headers.append(("Content-Range", f"bytes {start}-{end - 1}/{version.size}"))
    return Reply(200 if bounds is None else 206, headers), start, end


def _condition_reply(request: S3Request, version: ObjectVersion) -> Reply | None:
    condition = read_condition(request.header)
    if condition is None:
        return None
    outcome, header = condition.outcome(version)
    if outcome is Outcome.FAILED:
        raise S3Error(
            "PreconditionFailed",
            "At least one of the pre-conditions you specified did not hold",
            ("Condition", header),
        )
    if outcome is Outcome.NOT_MODIFIED:
        headers = [
            (name, value)
            for name, value in object_headers(version, checksum=False)
            if name.lower() in _NOT_MODIFIED_KEEPS
        ]
        return Reply(304, headers, error_code="NotModified")
    return None


def _override(headers: list[tuple[str, str]], request: S3Request) -> None:
    """Let response-* parameters take the place of stored headers."""
    for parameter, lower in OVERRIDES.items():
        value = request.query.get(parameter) if request.query else None
        if value:
            headers[:] = [pair for pair in headers if pair[0].lower() != lower]
            headers.append((NAMES[lower], value))


async def _describe_part(
    context: S3Context, request: S3Request, version: ObjectVersion, wants_checksum: bool
) -> tuple[Reply, int, int]:
    """GET with partNumber: the part as a range of the object."""
    number = request.number("partNumber", 1, 1)
    if number > PART_NUMBER_MAX:
        raise S3Error("InvalidArgument", "Part number must be an integer between 1 and 10000")
    headers = object_headers(version, checksum=wants_checksum and not version.parts)
    _override(headers, request)
    start, end = 0, version.size
    if version.parts:
        start, entry = await _part(context, request.bucket.id, version, number)
        end = start + entry.size
        headers.append(("x-amz-mp-parts-count", str(version.parts)))
        whole = version.meta.checksum
        if wants_checksum and entry.checksum and whole:
            # The value is the part's, the type the object's, as in AWS.
            headers += checksum_headers(entry.checksum, 0)[:1]
            headers.append(("x-amz-checksum-type", whole.type.name))
    elif number != 1:
        raise _no_such_part()
    if end > start:
        headers.append(("Content-Range", f"bytes {start}-{end - 1}/{version.size}"))
    return Reply(206, headers), start, end


async def _part(
    context: S3Context, bucket: BucketId, version: ObjectVersion, number: int
) -> tuple[int, PartEntry]:
    async for placed in context.objects.part_ranges(bucket, version):
        if placed.part.number == number:
            return placed.offset, placed.part
    raise _no_such_part()


def _no_such_part() -> S3Error:
    return S3Error("InvalidPartNumber", "The requested partnumber is not satisfiable")


async def get_object_attributes(context: S3Context, request: S3Request) -> Reply:
    """What x-amz-object-attributes asks for; parts in pages."""
    asked = (request.header("x-amz-object-attributes") or "").split(",")
    wanted = {name.strip() for name in asked if name.strip()}
    if not wanted or not wanted <= ATTRIBUTES:
        raise S3Error("InvalidArgument", "Invalid attribute name specified.")
    version = await _find(context, request, customer_key(request.header))
    content = f"<ETag>{version.etag_text}</ETag>" if "ETag" in wanted else ""
    checksum = version.meta.checksum
    if "Checksum" in wanted and checksum:
        content += f"<Checksum>{checksum_xml(checksum, version.parts)}</Checksum>"
    if "ObjectParts" in wanted and version.parts:
        content += await _parts_xml(context, request, version)
    if "StorageClass" in wanted:
        content += "<StorageClass>STANDARD</StorageClass>"
    if "ObjectSize" in wanted:
        content += f"<ObjectSize>{version.size}</ObjectSize>"
    headers = [("Last-Modified", http_date(version.mtime_ms // 1000))]
    if not version.null:
        headers.append(("x-amz-version-id", version.version_id))
    return xml_reply("GetObjectAttributesResponse", content, *headers)


async def _parts_xml(context: S3Context, request: S3Request, version: ObjectVersion) -> str:
    """ObjectParts. As in AWS the parts themselves are only told where they have checksums."""
    limit = _header_number(request, "x-amz-max-parts", 1000)
    marker = _header_number(request, "x-amz-part-number-marker", 0)
    rows: list[str] = []
    last, more = marker, False
    checksum = version.meta.checksum
    if checksum is not None:
        async for entry, _ in context.objects.part_ranges(request.bucket.id, version):
            if entry.number <= marker:
                continue
            if len(rows) == limit:
                more = True
                break
            last = entry.number
            rows.append(
                f"<Part>{checksum_xml(entry.checksum, 0, with_type=False)}"
                f"<PartNumber>{entry.number}</PartNumber><Size>{entry.size}</Size></Part>"
            )
    return (
        f"<ObjectParts><PartsCount>{version.parts}</PartsCount>"
        f"<PartNumberMarker>{marker}</PartNumberMarker>"
        f"<NextPartNumberMarker>{last}</NextPartNumberMarker><MaxParts>{limit}</MaxParts>"
        f"<IsTruncated>{word(more)}</IsTruncated>{''.join(rows)}</ObjectParts>"
    )


def _header_number(request: S3Request, name: str, most: int) -> int:
    text = request.header(name)
    if text is None:
        return most
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        raise S3Error("InvalidArgument", f"{name} must be a number", ("ArgumentName", name))
    return min(int(text), PART_NUMBER_MAX) if most == 0 else min(int(text), most)
