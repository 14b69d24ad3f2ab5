"""PutObject, DeleteObject, DeleteObjects."""

from __future__ import annotations

from garage_lite.core.errors import CallerError, KeyTooLong
from garage_lite.core.limits import DELETE_KEYS_MAX, KEY_BYTES_MAX, XML_BYTES_MAX
from garage_lite.core.store.body import PutRequest
from garage_lite.core.store.conditions import WriteCondition
from garage_lite.core.store.deletions import DeleteKey, DeleteResult
from garage_lite.web.reply import Reply
from garage_lite.web.s3.context import S3Context
from garage_lite.web.s3.errors import S3Error, as_s3_error
from garage_lite.web.s3.headers import (
    check_promises,
    checksum_headers,
    customer_key,
    encryption_headers,
    stored_headers,
    write_condition,
)
from garage_lite.web.s3.replies import malformed_xml, parse_body, xml_reply
from garage_lite.web.s3.request import S3Request
from garage_lite.web.s3.xml import escape


def require_length(request: S3Request) -> None:
    """A body that is to be stored must say where it ends."""
    if request.header("content-length") is None and request.header("transfer-encoding") is None:
        raise S3Error("MissingContentLength", "You must provide the Content-Length HTTP header.")


async def put_object(context: S3Context, request: S3Request) -> Reply:
    require_length(request)
    check_promises(request.headers)
    version = await context.objects.put(
        PutRequest(
            bucket=request.bucket,
            key=request.key,
            body=request.body,
            headers=stored_headers(request.headers),
            customer_key=customer_key(request.header),
            guard=write_condition(request.header),
        )
    )
    headers = [("ETag", f'"{version.etag_text}"')]
    if not version.null:
        headers.append(("x-amz-version-id", version.version_id))
    if version.meta.encryption:
        headers += encryption_headers(version.meta.encryption.key_md5)
    if version.meta.checksum:
        headers += checksum_headers(version.meta.checksum, 0)
    return Reply(headers=headers)


async def delete_object(context: S3Context, request: S3Request) -> Reply:
    condition = write_condition(request.header)
    version_id = request.query.get("versionId") or None
    result = await context.objects.delete(request.bucket, request.key, version_id, condition)
    headers = []
    if result.version_id is not None:
        headers.append(("x-amz-version-id", result.version_id))
    if result.delete_marker:
        headers.append(("x-amz-delete-marker", "true"))
    return Reply(204, headers)


async def delete_objects(context: S3Context, request: S3Request) -> Reply:
    """Up to 1,000 keys; what went wrong with one does not stop the others."""
    announced = request.body.announced
    if announced.md5 is None and announced.algorithm is None:
        raise S3Error(
            "InvalidRequest",
            "Missing required header for this request: Content-MD5 OR x-amz-checksum-*",
        )
    wanted, quiet = _keys_to_delete(await request.body.read_all(XML_BYTES_MAX))
    fitting = [item for item in wanted if len(item.key) <= KEY_BYTES_MAX]
    results = iter(await context.objects.delete_many(request.bucket, fitting))
    rows = []
    for item in wanted:
        result = next(results) if len(item.key) <= KEY_BYTES_MAX else KeyTooLong()
        if isinstance(result, CallerError):
            rows.append(_error_row(item, as_s3_error(result)))
        elif not quiet:
            rows.append(_deleted_row(item, result))
    return xml_reply("DeleteResult", "".join(rows))


def _keys_to_delete(body: bytes) -> tuple[list[DeleteKey], bool]:
    root = parse_body(body, "Delete")
    wanted = []
    for element in root.all("Object"):
        key = element.value("Key")
        if not key:
            raise malformed_xml()
        etag = element.value("ETag")
        condition = WriteCondition(if_match=etag) if etag else None
        wanted.append(DeleteKey(key.encode(), element.value("VersionId") or None, condition))
    if not 0 < len(wanted) <= DELETE_KEYS_MAX:
        raise malformed_xml()
    return wanted, (root.value("Quiet") or "").strip().lower() == "true"


def _deleted_row(item: DeleteKey, result: DeleteResult) -> str:
    name = escape(item.key.decode())
    rows = [f"<Deleted><Key>{name}</Key>"]
    if item.version_id is not None:
        rows.append(f"<VersionId>{escape(item.version_id)}</VersionId>")
    if result.delete_marker:
        rows.append(
            "<DeleteMarker>true</DeleteMarker>"
            f"<DeleteMarkerVersionId>{result.version_id}</DeleteMarkerVersionId>"
        )
    return "".join(rows) + "</Deleted>"


def _error_row(item: DeleteKey, error: S3Error) -> str:
    version = f"<VersionId>{escape(item.version_id)}</VersionId>" if item.version_id else ""
    return (
        f"<Error><Key>{escape(item.key.decode())}</Key>{version}<Code>{error.code}</Code>"
        f"<Message>{escape(error.message)}</Message></Error>"
    )
