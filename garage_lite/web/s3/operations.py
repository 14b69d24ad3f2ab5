"""Which operation a request asks for, and which right it needs: tables, nothing else.

Every operation that AWS has is named, built or not, so that no request ever falls through to
another operation (a policy probe to a listing, a `DELETE ?acl` to a deletion). What isn't built
answers 501. Rights are Garage 2.5's: a list of reads, a list of writes, everything else needs
owner; so an authorization matrix can be generated from here.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from garage_lite.web.s3.errors import S3Error


class Scope(Enum):
    """What the path names."""

    SERVICE = "service"
    BUCKET = "bucket"
    OBJECT = "object"


class Right(Enum):
    """What the key must hold. NONE: any valid key."""

    NONE = "none"
    CREATE_BUCKET = "create bucket"
    READ = "read"
    WRITE = "write"
    OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Operation:
    name: str
    right: Right
    built: bool


READ: Final = frozenset(
    [
        "HeadBucket",
        "GetBucketAcl",
        "GetBucketLocation",
        "GetBucketVersioning",
        "HeadObject",
        "GetObject",
        "GetObjectAttributes",
        "ListMultipartUploads",
        "ListObjects",
        "ListObjectsV2",
        "ListObjectVersions",
        "ListParts",
    ]
)
WRITE: Final = frozenset(
    [
        "PutObject",
        "PostObject",
        "CopyObject",
        "DeleteObject",
        "DeleteObjects",
        "CreateMultipartUpload",
        "UploadPart",
        "UploadPartCopy",
        "CompleteMultipartUpload",
        "AbortMultipartUpload",
    ]
)
_BUILT_OTHERS: Final = frozenset(
    [
        "CreateBucket",
        "DeleteBucket",
        "GetObjectAcl",
        "ListBuckets",
        "PutBucketAcl",
        "PutBucketVersioning",
        "PutObjectAcl",
    ]
)
BUILT: Final = READ | (WRITE - {"PostObject"}) | _BUILT_OTHERS

_ROUTES: Final = """
service GET
    -                           ListBuckets
service POST
    -                           WriteGetObjectResponse
bucket HEAD
    -                           HeadBucket
bucket GET
    abac                        GetBucketAbac
    accelerate                  GetBucketAccelerateConfiguration
    acl                         GetBucketAcl
    analytics&id                GetBucketAnalyticsConfiguration
    analytics                   ListBucketAnalyticsConfigurations
    cors                        GetBucketCors
    encryption                  GetBucketEncryption
    intelligent-tiering&id      GetBucketIntelligentTieringConfiguration
    intelligent-tiering         ListBucketIntelligentTieringConfigurations
    inventory&id                GetBucketInventoryConfiguration
    inventory                   ListBucketInventoryConfigurations
    lifecycle                   GetBucketLifecycleConfiguration
    location                    GetBucketLocation
    logging                     GetBucketLogging
    metadataConfiguration       GetBucketMetadataConfiguration
    metadataTable               GetBucketMetadataTableConfiguration
    metrics&id                  GetBucketMetricsConfiguration
    metrics                     ListBucketMetricsConfigurations
    notification                GetBucketNotificationConfiguration
    object-lock                 GetObjectLockConfiguration
    ownershipControls           GetBucketOwnershipControls
    policy                      GetBucketPolicy
    policyStatus                GetBucketPolicyStatus
    publicAccessBlock           GetPublicAccessBlock
    replication                 GetBucketReplication
    requestPayment              GetBucketRequestPayment
    session                     CreateSession
    tagging                     GetBucketTagging
    uploads                     ListMultipartUploads
    versioning                  GetBucketVersioning
    versions                    ListObjectVersions
    website                     GetBucketWebsite
    list-type                   ListObjectsV2
    -                           ListObjects
bucket PUT
    abac                        PutBucketAbac
    accelerate                  PutBucketAccelerateConfiguration
    acl                         PutBucketAcl
    analytics                   PutBucketAnalyticsConfiguration
    cors                        PutBucketCors
    encryption                  PutBucketEncryption
    intelligent-tiering         PutBucketIntelligentTieringConfiguration
    inventory                   PutBucketInventoryConfiguration
    lifecycle                   PutBucketLifecycleConfiguration
    logging                     PutBucketLogging
    metadataAnnotationTable     UpdateBucketMetadataAnnotationTableConfiguration
    metadataInventoryTable      UpdateBucketMetadataInventoryTableConfiguration
    metadataJournalTable        UpdateBucketMetadataJournalTableConfiguration
    metrics                     PutBucketMetricsConfiguration
    notification                PutBucketNotificationConfiguration
    object-lock                 PutObjectLockConfiguration
    ownershipControls           PutBucketOwnershipControls
    policy                      PutBucketPolicy
    publicAccessBlock           PutPublicAccessBlock
    replication                 PutBucketReplication
    requestPayment              PutBucketRequestPayment
    tagging                     PutBucketTagging
    versioning                  PutBucketVersioning
    website                     PutBucketWebsite
    -                           CreateBucket
bucket POST
    delete                      DeleteObjects
    metadataConfiguration       CreateBucketMetadataConfiguration
    metadataTable               CreateBucketMetadataTableConfiguration
    -                           PostObject
bucket DELETE
    analytics                   DeleteBucketAnalyticsConfiguration
    cors                        DeleteBucketCors
    encryption                  DeleteBucketEncryption
    intelligent-tiering         DeleteBucketIntelligentTieringConfiguration
    inventory                   DeleteBucketInventoryConfiguration
    lifecycle                   DeleteBucketLifecycle
    metadataConfiguration       DeleteBucketMetadataConfiguration
    metadataTable               DeleteBucketMetadataTableConfiguration
    metrics                     DeleteBucketMetricsConfiguration
    ownershipControls           DeleteBucketOwnershipControls
    policy                      DeleteBucketPolicy
    publicAccessBlock           DeletePublicAccessBlock
    replication                 DeleteBucketReplication
    tagging                     DeleteBucketTagging
    website                     DeleteBucketWebsite
    -                           DeleteBucket
object HEAD
    -                           HeadObject
object GET
    acl                         GetObjectAcl
    annotation&annotationName   GetObjectAnnotation
    annotation                  ListObjectAnnotations
    attributes                  GetObjectAttributes
    legal-hold                  GetObjectLegalHold
    retention                   GetObjectRetention
    tagging                     GetObjectTagging
    torrent                     GetObjectTorrent
    uploadId                    ListParts
    -                           GetObject
object PUT
    acl                         PutObjectAcl
    annotation                  PutObjectAnnotation
    encryption                  UpdateObjectEncryption
    legal-hold                  PutObjectLegalHold
    renameObject                RenameObject
    retention                   PutObjectRetention
    tagging                     PutObjectTagging
    uploadId@x-amz-copy-source  UploadPartCopy
    uploadId                    UploadPart
    @x-amz-copy-source          CopyObject
    -                           PutObject
object POST
    restore                     RestoreObject
    select                      SelectObjectContent
    uploads                     CreateMultipartUpload
    uploadId                    CompleteMultipartUpload
object DELETE
    annotation                  DeleteObjectAnnotation
    tagging                     DeleteObjectTagging
    uploadId                    AbortMultipartUpload
    -                           DeleteObject
"""
"""Per scope and method, first match wins: `query&query@header  Operation`; `-` asks for nothing."""

_Route = tuple[str, str, str, Operation]
"""Query parameter, second query parameter, header (each may be ""), operation."""


def _operation(name: str) -> Operation:
    if name in READ:
        right = Right.READ
    elif name in WRITE:
        right = Right.WRITE
    elif name == "ListBuckets":
        right = Right.NONE
    elif name == "CreateBucket":
        right = Right.CREATE_BUCKET
    else:
        right = Right.OWNER
    return Operation(name, right, name in BUILT)


def _read_routes() -> dict[tuple[Scope, str], list[_Route]]:
    routes: dict[tuple[Scope, str], list[_Route]] = {}
    place: list[_Route] = []
    for line in _ROUTES.strip().splitlines():
        if not line.startswith(" "):
            scope, method = line.split()
            place = routes.setdefault((Scope(scope), method), [])
            continue
        condition, name = line.split()
        query, _, header = condition.partition("@")
        first, _, second = ("" if query == "-" else query).partition("&")
        place.append((first, second, header, _operation(name)))
    return routes


ROUTES: Final = _read_routes()
OPERATIONS: Final[Mapping[str, Operation]] = {
    route[3].name: route[3] for place in ROUTES.values() for route in place
}
SUB_RESOURCES: Final = frozenset(
    route[0] for place in ROUTES.values() for route in place if route[0]
) - {"list-type"}
"""Query parameters that ask for something other than the bucket or object itself."""


def find_operation(
    method: str, scope: Scope, query: Collection[str], headers: Container[str]
) -> Operation:
    """The operation a request asks for.

    Raises MethodNotAllowed where AWS has none: also for a sub-resource that does not go with
    the method, which must never be answered as if it had not been named.
    """
    for first, second, header, operation in ROUTES.get((scope, method), ()):
        if (
            (not first or first in query)
            and (not second or second in query)
            and (not header or header in headers)
        ):
            if not first and not SUB_RESOURCES.isdisjoint(query):
                break
            return operation
    raise S3Error("MethodNotAllowed", "The specified method is not allowed against this resource.")
