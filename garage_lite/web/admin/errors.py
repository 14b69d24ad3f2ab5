"""What the Admin API says when something went wrong: Garage's codes and statuses.

One map from the core's errors to codes. Must not know HTTP libraries: an error has a code, a
message and a status, whoever carries it.
"""

from __future__ import annotations

from typing import Final

from garage_lite.core import errors as core

STATUS: Final[dict[str, int]] = {
    "AccessDenied": 403,
    "BucketAlreadyExists": 409,
    "BucketAlreadyOwnedByYou": 409,
    "BucketNotEmpty": 409,
    "InternalError": 500,
    "InvalidRequest": 400,
    "KeyAlreadyExists": 409,
    "MethodNotAllowed": 405,
    "NoSuchAccessKey": 404,
    "NoSuchAdminToken": 404,
    "NoSuchBlock": 404,
    "NoSuchBucket": 404,
    "NoSuchEndpoint": 404,
    "NoSuchKey": 404,
    "NoSuchUpload": 404,
    "NoSuchWorker": 404,
    "NotImplemented": 501,
    "OperationAborted": 409,
    "ServiceUnavailable": 503,
}

CODES: Final[dict[type[core.GarageLiteError], str]] = {
    core.NoSuchBucket: "NoSuchBucket",
    core.NoSuchKey: "NoSuchKey",
    core.NoSuchVersion: "NoSuchKey",
    core.NoSuchUpload: "NoSuchUpload",
    core.NoSuchAccessKey: "NoSuchAccessKey",
    core.Forbidden: "AccessDenied",
    core.BucketAlreadyExists: "BucketAlreadyExists",
    core.BucketAlreadyOwned: "BucketAlreadyOwnedByYou",
    core.BucketNotEmpty: "BucketNotEmpty",
    core.AliasTaken: "InvalidRequest",
    core.KeyAlreadyExists: "KeyAlreadyExists",
    core.OperationAborted: "OperationAborted",
    core.NotImplementedHere: "NotImplemented",
    core.CallerError: "InvalidRequest",
    core.Unavailable: "ServiceUnavailable",
}
"""A class not named here means what the nearest of its ancestors means, or InternalError."""


class AdminError(Exception):
    """An error as the Admin API tells it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        return STATUS[self.code]

    @property
    def line(self) -> str:
        """On one line, as per-node answers carry it."""
        return f"{self.code} ({self.status}): {self.message}"


def bad_request(message: str) -> AdminError:
    return AdminError("InvalidRequest", message)


def as_admin_error(error: core.GarageLiteError | AdminError) -> AdminError:
    """What an operator is told. Unlike a client of S3, he is told what failed in the node."""
    if isinstance(error, AdminError):
        return error
    for kind in type(error).__mro__:
        code = CODES.get(kind)
        if code is not None:
            return AdminError(code, error.message)
    return AdminError("InternalError", error.message)
