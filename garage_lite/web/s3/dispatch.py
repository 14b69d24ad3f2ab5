"""From a parsed request to its handler: which operation, who asks, may he.

In this order, so that nobody learns what he may not: name the operation, check the signature,
find the bucket, check the right, then whether the operation is built at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from garage_lite.core.errors import AccessDenied, KeyExpired, NoSuchBucket, Unavailable
from garage_lite.web.body import RequestBody, Stream
from garage_lite.web.reply import Reply
from garage_lite.web.s3 import buckets, copy, get, listing, multipart, put
from garage_lite.web.s3.aws_chunked import Decoder, Form, Seed
from garage_lite.web.s3.context import S3Context
from garage_lite.web.s3.errors import S3Error
from garage_lite.web.s3.integrity import CHECKSUM_HEADERS, announcement
from garage_lite.web.s3.operations import BUILT, Right, Scope, find_operation
from garage_lite.web.s3.request import S3Request
from garage_lite.web.s3.rights import check_owner, check_right
from garage_lite.web.s3.signature import Verified, Verifier

Handler = Callable[[S3Context, S3Request], Awaitable[Reply]]

HANDLERS: Final[dict[str, Handler]] = {
    "AbortMultipartUpload": multipart.abort_multipart_upload,
    "CompleteMultipartUpload": multipart.complete_multipart_upload,
    "CopyObject": copy.copy_object,
    "CreateBucket": buckets.create_bucket,
    "CreateMultipartUpload": multipart.create_multipart_upload,
    "DeleteBucket": buckets.delete_bucket,
    "DeleteObject": put.delete_object,
    "DeleteObjects": put.delete_objects,
    "GetBucketAcl": buckets.get_bucket_acl,
    "GetBucketLocation": buckets.get_bucket_location,
    "GetBucketVersioning": buckets.get_bucket_versioning,
    "GetObject": get.get_object,
    "GetObjectAttributes": get.get_object_attributes,
    "GetObjectAcl": buckets.get_object_acl,
    "HeadBucket": buckets.head_bucket,
    "HeadObject": get.head_object,
    "ListBuckets": buckets.list_buckets,
    "ListMultipartUploads": multipart.list_multipart_uploads,
    "ListObjectVersions": listing.list_object_versions,
    "ListObjects": listing.list_objects,
    "ListObjectsV2": listing.list_objects_v2,
    "ListParts": multipart.list_parts,
    "PutBucketAcl": buckets.put_acl,
    "PutBucketVersioning": buckets.put_bucket_versioning,
    "PutObject": put.put_object,
    "PutObjectAcl": buckets.put_acl,
    "UploadPart": multipart.upload_part,
    "UploadPartCopy": copy.upload_part_copy,
}
if HANDLERS.keys() != BUILT:
    raise AssertionError("the operations that are built are those with a handler")

_WITH_BODY: Final = frozenset(["PUT", "POST"])
_SKIPS_CHECKSUM: Final = frozenset(["CompleteMultipartUpload"])
"""Whose x-amz-checksum-* headers are not of the request's body."""
_PRESIGNED: Final = ("X-Amz-Algorithm", "X-Amz-Signature", "X-Amz-Credential")
_PRESIGNED_V2: Final = ("AWSAccessKeyId", "Signature")


async def answer(
    context: S3Context,
    verifier: Verifier,
    request: S3Request,
    stream: Stream,
    go_on: Callable[[], None],
) -> Reply:
    """The answer to a request. Raises S3Error and the core's errors.

    Before a key or a bucket is said not to exist, this node looks whether it is new elsewhere.
    """
    if request.method == "OPTIONS":
        raise _preflight_refused(request)
    directory = context.directory
    if not directory.is_fresh:
        await directory.fresh()
    try:
        authenticate(context, verifier, request)
    except (S3Error, NoSuchBucket) as error:
        if not _is_unknown(error):
            raise
        _check_layout(context)  # an emptied node knows no key until it has met the others
        await directory.look()
        authenticate(context, verifier, request)
    _check_layout(context)
    try:
        authorize(context, request)
    except NoSuchBucket:
        await directory.look()
        authorize(context, request)
    operation = request.operation
    if not operation.built:
        raise S3Error(
            "NotImplemented", f"{operation.name} is not implemented.", ("Operation", operation.name)
        )
    handler = HANDLERS[operation.name]
    if request.method not in _WITH_BODY:
        return await handler(context, request)
    request.body = body = _body(request, stream, go_on)
    try:
        return await handler(context, request)
    finally:
        body.close()


def _check_layout(context: S3Context) -> None:
    """Raises Unavailable."""
    if not context.has_layout():
        raise Unavailable(
            "No layout was applied yet: give this node a role first"
            " (layout assign, then layout apply; or start it with --single-node)."
        )


def _is_unknown(error: Exception) -> bool:
    return isinstance(error, NoSuchBucket) or (
        isinstance(error, S3Error) and error.code == "InvalidAccessKeyId"
    )


def _preflight_refused(request: S3Request) -> S3Error:
    """A browser asks, without a signature, what a page of another origin may do: nothing yet."""
    if request.header("origin") is None:
        return S3Error("BadRequest", "Insufficient information. Origin request header needed.")
    return S3Error("AccessForbidden", "CORSResponse: CORS is not enabled for this bucket.")


def authenticate(context: S3Context, verifier: Verifier, request: S3Request) -> None:
    """Who asks; fills in `verified` and `operation`. Raises S3Error,
    AccessDenied, KeyExpired, NoSuchBucket."""
    now_us = context.clock.now_us()
    verified = _verify(verifier, request, now_us // 1_000_000)
    if verified is None:
        if request.bucket_name is not None:
            context.directory.resolve(request.bucket_name)  # NoSuchBucket comes first, as in S3
        raise AccessDenied("Access Denied. Anonymous requests are not allowed.")
    request.verified = verified
    request.operation = find_operation(
        request.method, request.scope, request.query, request.headers
    )
    if request.access_key.expired(now_us // 1000):
        raise KeyExpired


def _verify(verifier: Verifier, request: S3Request, now_s: int) -> Verified | None:
    """None: the request carries no signature. Raises S3Error."""
    query = request.query
    if query and any(name in query for name in _PRESIGNED):
        verified = verifier.verify_query(
            request.method, request.target, query, request.headers, now_s
        )
        request.hoist()
        return verified
    if "authorization" in request.headers:
        return verifier.verify_header(request.method, request.target, request.headers, now_s)
    if query and all(name in query for name in _PRESIGNED_V2):
        raise S3Error(
            "InvalidRequest",
            "The authorization mechanism you have provided is not supported."
            " Please use AWS4-HMAC-SHA256.",
        )
    return None


def authorize(context: S3Context, request: S3Request) -> None:
    """Whether he may; fills in `bucket`. Raises NoSuchBucket, AccessDenied."""
    right = request.operation.right
    if request.scope is Scope.SERVICE:
        if right is not Right.NONE:
            raise AccessDenied
        return
    if right is Right.CREATE_BUCKET:
        if not request.access_key.create_bucket.value:
            raise AccessDenied("This key may not create buckets.")
        return
    assert request.bucket_name is not None
    request.bucket = context.directory.resolve(request.bucket_name, request.access_key.id)
    check_right(request, request.bucket, right)
    check_owner(request, request.bucket, "x-amz-expected-bucket-owner")


def _body(request: S3Request, stream: Stream, go_on: Callable[[], None]) -> RequestBody:
    headers = request.headers
    if request.operation.name in _SKIPS_CHECKSUM:
        headers = {name: headers[name] for name in headers if name not in CHECKSUM_HEADERS}
    verified = request.verified
    announced = announcement(headers, verified.payload)
    decoder = None
    if announced.form is not None:
        seed = None
        if announced.form is not Form.UNSIGNED_TRAILER:
            seed = Seed(
                verified.signing_key, verified.timestamp, verified.scope, verified.signature
            )
        assert announced.size is not None
        decoder = Decoder(announced.form, announced.size, seed)
    return RequestBody(stream, announced, decoder, go_on)
