"""Operations on buckets as a whole: list, create, look at, delete."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from garage_lite.core.errors import BucketAlreadyOwned
from garage_lite.core.limits import XML_BYTES_MAX
from garage_lite.core.model.buckets import Bucket, Permission, Versioning
from garage_lite.core.model.keys import AccessKey
from garage_lite.web.reply import Reply
from garage_lite.web.s3.context import S3Context
from garage_lite.web.s3.errors import S3Error
from garage_lite.web.s3.headers import check_promises, iso_date
from garage_lite.web.s3.replies import malformed_xml, owner_xml, parse_body, xml_reply
from garage_lite.web.s3.request import S3Request
from garage_lite.web.s3.xml import escape

BUCKETS_PAGE_MAX: Final = 10_000
_GRANTS: Final = (
    (Permission.READ, "READ"),
    (Permission.WRITE, "WRITE"),
    (Permission.OWNER, "FULL_CONTROL"),
)


async def list_buckets(context: S3Context, request: S3Request) -> Reply:
    """The buckets this key has any right on, by every name it may use for them."""
    await context.directory.look()
    key = request.access_key
    region = context.settings.region
    prefix = request.query.get("prefix", "")
    wanted_region = request.query.get("bucket-region") or region
    names: dict[str, int] = {}
    if wanted_region == region:
        for bucket in context.directory.buckets_of(key.id):
            for name in names_of(bucket, key):
                if name.startswith(prefix):
                    names[name] = bucket.created_ms
    after = _decode_token(request.query.get("continuation-token"))
    limit = request.number("max-buckets", BUCKETS_PAGE_MAX, 1, BUCKETS_PAGE_MAX)
    ordered = sorted(name for name in names if name > after)
    page, more = ordered[:limit], len(ordered) > limit
    rows = "".join(
        [
            f"<Bucket><Name>{escape(name)}</Name><CreationDate>{iso_date(names[name])}"
            f"</CreationDate><BucketRegion>{escape(region)}</BucketRegion></Bucket>"
            for name in page
        ]
    )
    token = base64.urlsafe_b64encode(page[-1].encode()).decode() if more else ""
    return xml_reply(
        "ListAllMyBucketsResult",
        f"{owner_xml(key.id, key.name.value)}<Buckets>{rows}</Buckets>"
        + (f"<ContinuationToken>{token}</ContinuationToken>" if more else "")
        + (f"<Prefix>{escape(prefix)}</Prefix>" if prefix else ""),
    )


def names_of(bucket: Bucket, key: AccessKey) -> list[str]:
    """The names by which `key` may call a bucket."""
    names = [name for name, _ in bucket.aliases.items()]
    bucket_id = bucket.id.hex()
    return names + [name for name, target in key.local_aliases.items() if target == bucket_id]


def _decode_token(token: str | None) -> str:
    if not token:
        return ""
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise S3Error("InvalidArgument", "The continuation token provided is incorrect") from error


_FORGIVING_REGION: Final = "us-east-1"
"""The one AWS region where creating one's own bucket again is no error."""


async def create_bucket(context: S3Context, request: S3Request) -> Reply:
    """Takes the global name if it is free, and gives the key every right on the new bucket."""
    body = await request.body.read_all(XML_BYTES_MAX)
    region = context.settings.region
    if body.strip():
        constraint = _location_constraint(body)
        if constraint not in (None, "", region):
            raise S3Error(
                "IllegalLocationConstraintException",
                f"The {constraint} location constraint is incompatible for the region specific"
                f" endpoint this request was sent to. Expected {region}.",
            )
    assert request.bucket_name is not None
    try:
        await context.buckets.create_by_key(request.bucket_name, request.access_key.id)
    except BucketAlreadyOwned:
        if region != _FORGIVING_REGION:
            raise
    return Reply(headers=[("Location", f"/{request.bucket_name}")])


def _location_constraint(body: bytes) -> str | None:
    root = parse_body(body, "CreateBucketConfiguration")
    text = root.value("LocationConstraint")
    return text.strip() if text else text


async def head_bucket(context: S3Context, request: S3Request) -> Reply:
    return Reply(
        headers=[
            ("x-amz-bucket-region", context.settings.region),
            ("x-amz-access-point-alias", "false"),
            ("Content-Type", "application/xml"),
        ]
    )


async def delete_bucket(context: S3Context, request: S3Request) -> Reply:
    assert request.bucket_name is not None
    await context.buckets.delete_by_key(request.bucket_name, request.access_key.id)
    return Reply(204)


async def get_bucket_location(context: S3Context, request: S3Request) -> Reply:
    """us-east-1 is said by an empty element, as AWS does."""
    region = context.settings.region
    return xml_reply("LocationConstraint", "" if region == "us-east-1" else escape(region))


async def get_bucket_versioning(context: S3Context, request: S3Request) -> Reply:
    state = Versioning(request.bucket.versioning.value)
    text = {Versioning.ENABLED: "Enabled", Versioning.SUSPENDED: "Suspended"}.get(state)
    return xml_reply("VersioningConfiguration", f"<Status>{text}</Status>" if text else "")


async def put_bucket_versioning(context: S3Context, request: S3Request) -> Reply:
    """Enabled or Suspended; never off again, as in AWS."""
    root = parse_body(await request.body.read_all(XML_BYTES_MAX), "VersioningConfiguration")
    if (root.value("MfaDelete") or "").strip() == "Enabled":
        raise S3Error("NotImplemented", "MFA delete is not implemented.")
    states = {"Enabled": Versioning.ENABLED, "Suspended": Versioning.SUSPENDED}
    state = states.get((root.value("Status") or "").strip())
    if state is None:
        raise malformed_xml()
    await context.buckets.set_versioning(request.bucket.id, state)
    return Reply()


async def put_acl(context: S3Context, request: S3Request) -> Reply:
    """Of a bucket or an object: `private` is what both are; nothing else can be promised."""
    if request.header("x-amz-acl") != "private":
        raise S3Error(
            "NotImplemented",
            "Only the canned ACL 'private' is implemented.",
            ("Header", "x-amz-acl"),
        )
    check_promises(request.headers)
    if request.key:
        version_id = request.query.get("versionId") or None
        await context.objects.head(request.bucket.id, request.key, version_id)
    return Reply()


async def get_object_acl(context: S3Context, request: S3Request) -> Reply:
    """Whoever owns the bucket owns its objects."""
    await context.objects.head(
        request.bucket.id, request.key, request.query.get("versionId") or None
    )
    return await get_bucket_acl(context, request)


async def get_bucket_acl(context: S3Context, request: S3Request) -> Reply:
    """The rights of the keys, said in the words of ACLs."""
    grants = []
    for key_id, bits in request.bucket.keys.items():
        key = context.directory.key(key_id)
        name = key.name.value if key else ""
        for right, word in _GRANTS:
            if right & bits:
                grants.append(
                    '<Grant><Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
                    f' xsi:type="CanonicalUser"><ID>{escape(key_id)}</ID><DisplayName>'
                    f"{escape(name)}</DisplayName></Grantee><Permission>{word}</Permission></Grant>"
                )
    owner = owner_xml(request.access_key.id, request.access_key.name.value)
    return xml_reply(
        "AccessControlPolicy",
        f"{owner}<AccessControlList>{''.join(grants)}</AccessControlList>",
    )
