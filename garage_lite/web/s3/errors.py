"""What S3 says when something went wrong: codes, statuses and XML.

One map from the core's errors to S3's codes, one from codes to statuses. Codes and messages are
AWS's ("Error responses", Amazon S3 API Reference) where AWS has one. This module must not know
HTTP libraries or the store: it turns an exception into a status and bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from garage_lite.core import errors as core
from garage_lite.web.s3.xml import DECLARATION, escape

STATUS: Final[dict[str, int]] = {
    "AccessDenied": 403,
    "AccessForbidden": 403,
    "AuthorizationHeaderMalformed": 400,
    "AuthorizationQueryParametersError": 400,
    "BadDigest": 400,
    "BadRequest": 400,
    "BucketAlreadyExists": 409,
    "BucketAlreadyOwnedByYou": 409,
    "BucketNotEmpty": 409,
    "EntityTooLarge": 400,
    "EntityTooSmall": 400,
    "IllegalLocationConstraintException": 400,
    "IncompleteBody": 400,
    "InternalError": 500,
    "InvalidAccessKeyId": 403,
    "InvalidArgument": 400,
    "InvalidBucketName": 400,
    "InvalidChunkSizeError": 403,
    "InvalidDigest": 400,
    "InvalidEncryptionAlgorithmError": 400,
    "InvalidLocationConstraint": 400,
    "InvalidPart": 400,
    "InvalidPartNumber": 416,
    "InvalidPartOrder": 400,
    "InvalidRange": 416,
    "InvalidRequest": 400,
    "InvalidStorageClass": 400,
    "InvalidTag": 400,
    "InvalidURI": 400,
    "KeyTooLongError": 400,
    "MalformedTrailerError": 400,
    "MalformedXML": 400,
    "MetadataTooLarge": 400,
    "MethodNotAllowed": 405,
    "MissingContentLength": 411,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NoSuchUpload": 404,
    "NoSuchVersion": 404,
    "NotFound": 404,
    "NotImplemented": 501,
    "NotModified": 304,
    "OperationAborted": 409,
    "PreconditionFailed": 412,
    "QuotaExceeded": 403,
    "RequestHeaderSectionTooLarge": 400,
    "RequestTimeout": 400,
    "RequestTimeTooSkewed": 403,
    "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403,
    "XAmzContentSHA256Mismatch": 400,
}

CODES: Final[dict[type[core.GarageLiteError], str]] = {
    core.NoSuchBucket: "NoSuchBucket",
    core.NoSuchKey: "NoSuchKey",
    core.NoSuchVersion: "NoSuchVersion",
    core.NoSuchUpload: "NoSuchUpload",
    core.NoSuchAccessKey: "InvalidAccessKeyId",
    core.NotFound: "NotFound",
    core.QuotaExceeded: "QuotaExceeded",
    core.Forbidden: "AccessDenied",
    core.BucketAlreadyExists: "BucketAlreadyExists",
    core.BucketAlreadyOwned: "BucketAlreadyOwnedByYou",
    core.BucketNotEmpty: "BucketNotEmpty",
    core.Conflict: "OperationAborted",
    core.PreconditionFailed: "PreconditionFailed",
    core.InvalidName: "InvalidBucketName",
    core.InvalidPart: "InvalidPart",
    core.InvalidPartOrder: "InvalidPartOrder",
    core.EntityTooSmall: "EntityTooSmall",
    core.EntityTooLarge: "EntityTooLarge",
    core.InvalidRange: "InvalidRange",
    core.KeyTooLong: "KeyTooLongError",
    core.NotAllowedHere: "InvalidRequest",
    core.NotImplementedHere: "NotImplemented",
    core.BadRequest: "InvalidArgument",
    core.BadDigest: "BadDigest",
    core.IncompleteBody: "IncompleteBody",
    core.BodyTooLarge: "EntityTooLarge",
    core.BadContent: "BadRequest",
    core.CallerError: "InvalidRequest",
    core.Unavailable: "ServiceUnavailable",
    core.NodeError: "InternalError",
}
"""A class not named here means what the nearest of its ancestors means."""

INTERNAL_MESSAGE: Final = "We encountered an internal error. Please try again."


class S3Error(Exception):
    """An error that only S3 has a name for. `details` become elements of the XML, in order."""

    def __init__(self, code: str, message: str, *details: tuple[str, str]) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details: Sequence[tuple[str, str]] = details
        self.headers: Sequence[tuple[str, str]] = ()
        """Of the answer, besides those that every error has."""

    @property
    def status(self) -> int:
        return STATUS[self.code]


def as_s3_error(error: BaseException) -> S3Error:
    """What a client is told of any exception. What is not ours to tell becomes InternalError."""
    if isinstance(error, S3Error):
        return error
    if isinstance(error, core.GarageLiteError):
        for kind in type(error).__mro__:
            code = CODES.get(kind)
            if code == "InternalError":
                break
            if code is not None:
                return S3Error(code, error.message, *_details(error))
    return S3Error("InternalError", INTERNAL_MESSAGE)


def _details(error: core.GarageLiteError) -> tuple[tuple[str, str], ...]:
    if isinstance(error, core.PreconditionFailed) and error.condition:
        return (("Condition", error.condition),)
    if isinstance(error, core.InvalidRange):
        return (("ActualObjectSize", str(error.size)),)
    return ()


def error_xml(error: S3Error, resource: str, request_id: str, host_id: str) -> bytes:
    """The body of an error's answer."""
    details = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in error.details)
    text = (
        f"{DECLARATION}<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message>"
        f"{details}<Resource>{escape(resource)}</Resource><RequestId>{request_id}</RequestId>"
        f"<HostId>{host_id}</HostId></Error>"
    )
    return text.encode("utf-8", "replace")
