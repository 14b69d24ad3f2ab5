"""The error tree of the core, and the reply each error means.

Two kinds only. `CallerError`: the request cannot be granted, nothing changed, the answer is a
4xx. `NodeError`: the node (or its disk, or its peers) cannot do what it should, a 5xx. The web
layers map classes to codes; the core never speaks HTTP. `InvariantBroken` is a bug of ours.

    GarageLiteError
      CallerError
        NotFound            NoSuchBucket NoSuchKey KeyIsDeleted NoSuchVersion NoSuchUpload
                            NoSuchAccessKey
        Forbidden           AccessDenied KeyExpired QuotaExceeded
        Conflict            BucketAlreadyExists BucketAlreadyOwned BucketNotEmpty AliasTaken
                            KeyAlreadyExists OperationAborted Fenced
        PreconditionFailed
        BadRequest          InvalidArgument InvalidName InvalidPart InvalidPartOrder
                            EntityTooSmall EntityTooLarge InvalidRange KeyTooLong
                            NotAllowedHere NotImplementedHere
        BadContent          BadDigest IncompleteBody BodyTooLarge
      NodeError
        Unavailable         QuorumNotReached StaleLayout Recovering DiskFull
                            NodeStopping ClockInsane
        StorageFailed       DamagedRow BlockMissing BlockCorrupt
        StartupError        ConfigError DataDirError
    InvariantBroken
"""

from __future__ import annotations


class GarageLiteError(Exception):
    """Root. `message` is one plain sentence fit for the person who asked."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or type(self).__name__).strip())

    @property
    def message(self) -> str:
        return str(self.args[0])


class CallerError(GarageLiteError):
    """The request can't be granted as it stands; nothing changed."""


class NodeError(GarageLiteError):
    """The node could not do what it should."""


class InvariantBroken(AssertionError):
    """A bug of ours: a fact that must hold did not."""


# --- the caller's fault


class NotFound(CallerError):
    """What was asked for does not exist."""


class NoSuchBucket(NotFound):
    """The specified bucket does not exist."""


class NoSuchKey(NotFound):
    """The specified key does not exist."""


class KeyIsDeleted(NoSuchKey):
    """The specified key does not exist."""

    def __init__(self, version_id: str, mtime_ms: int) -> None:
        """Of the delete marker that was met."""
        super().__init__()
        self.version_id = version_id
        self.mtime_ms = mtime_ms


class NoSuchVersion(NotFound):
    """The specified version does not exist."""


class NoSuchUpload(NotFound):
    """The specified multipart upload does not exist; it may have been aborted or completed."""


class NoSuchAccessKey(NotFound):
    """The specified access key does not exist."""


class Forbidden(CallerError):
    """The caller is known but may not do this."""


class AccessDenied(Forbidden):
    """Access Denied."""


class KeyExpired(Forbidden):
    """This access key has expired."""


class QuotaExceeded(Forbidden):
    """The bucket's quota would be exceeded."""


class Conflict(CallerError):
    """The request conflicts with the present state."""


class BucketAlreadyExists(Conflict):
    """The requested bucket name is not available."""


class BucketAlreadyOwned(Conflict):
    """Your previous request to create the named bucket succeeded and you already own it."""


class BucketNotEmpty(Conflict):
    """The bucket you tried to delete is not empty."""


class AliasTaken(Conflict):
    """That name already points to something else."""


class KeyAlreadyExists(Conflict):
    """An access key of this id exists or has existed; its id can't be used again."""


class OperationAborted(Conflict):
    """A conflicting conditional operation is in progress against this resource. Try again."""


class Fenced(Conflict):
    """That data or upload is being given up."""


class PreconditionFailed(CallerError):
    """At least one of the preconditions you specified did not hold."""

    def __init__(self, message: str = "", condition: str = "") -> None:
        super().__init__(message)
        self.condition = condition


class BadRequest(CallerError):
    """The request is malformed or asks for something impossible."""


class InvalidArgument(BadRequest):
    """Invalid argument."""


class InvalidName(BadRequest):
    """The specified bucket is not valid."""


class InvalidPart(BadRequest):
    """One or more of the specified parts could not be found or its entity tag did not match."""


class InvalidPartOrder(BadRequest):
    """The list of parts was not in ascending order."""


class EntityTooSmall(BadRequest):
    """Your proposed upload is smaller than the minimum allowed size."""


class EntityTooLarge(BadRequest):
    """Your proposed upload exceeds the maximum allowed object size."""


class InvalidRange(BadRequest):
    """The requested range is not satisfiable."""

    def __init__(self, message: str = "", size: int = 0) -> None:
        super().__init__(message)
        self.size = size


class KeyTooLong(BadRequest):
    """Your key is too long."""


class NotAllowedHere(BadRequest):
    """That is not possible in the present state of the resource."""


class NotImplementedHere(BadRequest):
    """A header or feature you asked for is not implemented."""


class BadContent(CallerError):
    """The bytes received are not the bytes announced; nothing was stored."""


class BadDigest(BadContent):
    """A digest you specified did not match what was received."""


class IncompleteBody(BadContent):
    """The body ended before the announced number of bytes."""


class BodyTooLarge(BadContent):
    """The body is longer than announced or allowed."""


# --- the node's fault


class Unavailable(NodeError):
    """The service cannot answer now. Try again."""


class QuorumNotReached(Unavailable):
    """Not enough nodes answered."""


class StaleLayout(Unavailable):
    """The cluster layout has moved on: pull it, then ask again."""


class Recovering(Unavailable):
    """This node gets back rows that it lost, and can't tell what they are yet."""


class DiskFull(Unavailable):
    """disk full: this node accepts no more data; reads and deletes still work."""


class NodeStopping(Unavailable):
    """The node is shutting down."""


class ClockInsane(Unavailable):
    """This node's clock can't be trusted yet; writes wait."""


class LayoutFork(NodeError):
    """Another node follows another layout of the same number; the two can't be joined."""


class StorageFailed(NodeError):
    """A disk operation failed; the node set the file aside."""


class DamagedRow(StorageFailed):
    """A damaged metadata block may hold this row; its value is unknown."""


class BlockMissing(StorageFailed):
    """No copy of a data block could be found."""


class BlockCorrupt(StorageFailed):
    """A data block does not match its name; it was set aside."""


class StartupError(NodeError):
    """The node refuses to start; the message says why and what to do."""


class ConfigError(StartupError):
    """The configuration is wrong."""


class DataDirError(StartupError):
    """A data or metadata directory can't be used."""
