"""Whether a key may do something with a bucket."""

from __future__ import annotations

from typing import Final

from garage_lite.core.errors import AccessDenied
from garage_lite.core.model.buckets import Bucket, Permission
from garage_lite.web.s3.operations import Right
from garage_lite.web.s3.request import S3Request

BITS: Final = {
    Right.READ: int(Permission.READ),
    Right.WRITE: int(Permission.WRITE),
    Right.OWNER: int(Permission.OWNER),
}
"""As plain numbers: to combine flags makes a flag, which costs more than the rest of a check."""


def check_right(request: S3Request, bucket: Bucket, right: Right) -> None:
    """Raises AccessDenied unless the request's key holds the right on the bucket."""
    if not int(bucket.permissions_of(request.access_key.id)) & BITS[right]:
        raise AccessDenied(f"Access Denied. This key has no {right.value} right on the bucket.")


def check_owner(request: S3Request, bucket: Bucket, header: str) -> None:
    """The header names who must own the bucket: the id of a key with the owner right.

    Raises AccessDenied.
    """
    expected = request.header(header)
    if expected is not None and not bucket.permissions_of(expected) & Permission.OWNER:
        raise AccessDenied("Access Denied. The bucket has another owner than expected.")
