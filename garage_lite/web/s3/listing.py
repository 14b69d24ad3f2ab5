"""ListObjects, ListObjectsV2, ListObjectVersions.

A continuation token is opaque to clients: `i` or `x` (go on with the key itself, or after it)
and the key, in base64. A page of 1,000 keys is one f-string a key.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Final

from garage_lite.core.limits import KEY_BYTES_MAX, LIST_KEYS_MAX
from garage_lite.core.store.listing_pages import ListEntry, Mark, VersionEntry
from garage_lite.web.reply import Reply
from garage_lite.web.s3.context import S3Context
from garage_lite.web.s3.errors import S3Error
from garage_lite.web.s3.headers import iso_date
from garage_lite.web.s3.replies import owner_xml, word, xml_reply
from garage_lite.web.s3.request import S3Request
from garage_lite.web.s3.xml import escape, name_text

_NOT_XML: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def url_encoded(request: S3Request) -> bool:
    """Whether names are to be URL-encoded. Raises InvalidArgument."""
    text = request.query.get("encoding-type")
    if text not in (None, "", "url"):
        raise S3Error(
            "InvalidArgument",
            "Invalid Encoding Method specified in Request",
            ("ArgumentName", "encoding-type"),
            ("ArgumentValue", text or ""),
        )
    return text == "url"


def name_element(element: str, name: bytes, encoded: bool, *, empty: bool = False) -> str:
    """An element with a name, left out where the name is empty unless `empty`."""
    return f"<{element}>{name_text(name, encoded)}</{element}>" if name or empty else ""


def prefixes_xml(prefixes: Sequence[bytes], encoded: bool) -> str:
    return "".join(
        [
            f"<CommonPrefixes><Prefix>{name_text(prefix, encoded)}</Prefix></CommonPrefixes>"
            for prefix in prefixes
        ]
    )


def etag_text(etag: bytes, parts: int) -> str:
    return f"{etag.hex()}-{parts}" if parts else etag.hex()


def encode_token(mark: Mark) -> str:
    kind = b"i" if mark.inclusive else b"x"
    return base64.urlsafe_b64encode(kind + mark.key).decode()


def decode_token(token: str) -> Mark:
    """Raises InvalidArgument for what `encode_token` never gave."""
    try:
        data = base64.b64decode(token, altchars=b"-_", validate=True)
        data[1:].decode()
    except (binascii.Error, ValueError):
        data = b""
    if data[:1] not in (b"i", b"x") or len(data) > KEY_BYTES_MAX + 1:
        raise S3Error(
            "InvalidArgument",
            "The continuation token provided is incorrect",
            ("ArgumentName", "continuation-token"),
        )
    return Mark(data[1:], data[:1] == b"i")


def _contents(entries: Sequence[ListEntry], encoded: bool, owner: str) -> str:
    return "".join(
        [
            f"<Contents><Key>{name_text(key, encoded)}</Key>"
            f"<LastModified>{iso_date(mtime_ms)}</LastModified>"
            f"<ETag>&quot;{etag_text(etag, parts)}&quot;</ETag><Size>{size}</Size>{owner}"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for key, size, etag, parts, mtime_ms in entries
        ]
    )


def _max_keys(request: S3Request) -> int:
    return request.number("max-keys", LIST_KEYS_MAX, 0, LIST_KEYS_MAX)


def _owner(request: S3Request) -> str:
    return owner_xml(request.access_key.id, request.access_key.name.value)


async def list_objects(context: S3Context, request: S3Request) -> Reply:
    """Version 1: a page goes on after `marker`."""
    encoded = url_encoded(request)
    prefix, delimiter = request.name("prefix"), request.name("delimiter")
    marker, limit = request.name("marker"), _max_keys(request)
    page = await context.listing.objects(
        request.bucket.id, prefix=prefix, delimiter=delimiter, after=marker, limit=limit
    )
    truncated = page.next is not None and limit > 0
    last_items = [entry.key for entry in page.entries[-1:]] + page.prefixes[-1:]
    next_marker = max(last_items) if truncated else b""
    return xml_reply(
        "ListBucketResult",
        f"<Name>{escape(request.bucket_name or '')}</Name>"
        # SDKs don't decode version 1's own prefix: it is encoded only where XML can't hold it.
        + name_element("Prefix", prefix, encoded and bool(_NOT_XML.search(prefix)), empty=True)
        + name_element("Marker", marker, encoded, empty=True)
        + name_element("NextMarker", next_marker, encoded)
        + f"<MaxKeys>{limit}</MaxKeys>"
        + name_element("Delimiter", delimiter, encoded)
        + ("<EncodingType>url</EncodingType>" if encoded else "")
        + f"<IsTruncated>{word(truncated)}</IsTruncated>"
        + _contents(page.entries, encoded, _owner(request))
        + prefixes_xml(page.prefixes, encoded),
    )


async def list_objects_v2(context: S3Context, request: S3Request) -> Reply:
    """Version 2: a page goes on where its continuation token says."""
    encoded = url_encoded(request)
    prefix, delimiter = request.name("prefix"), request.name("delimiter")
    start_after, limit = request.name("start-after"), _max_keys(request)
    token = request.query.get("continuation-token")
    mark = decode_token(token) if token else Mark(start_after, False)
    page = await context.listing.objects(
        request.bucket.id,
        prefix=prefix,
        delimiter=delimiter,
        after=mark.key,
        inclusive=mark.inclusive,
        limit=limit,
    )
    truncated = page.next is not None and limit > 0
    next_token = encode_token(page.next) if page.next is not None and truncated else None
    owner = _owner(request) if request.query.get("fetch-owner") == "true" else ""
    return xml_reply(
        "ListBucketResult",
        f"<Name>{escape(request.bucket_name or '')}</Name>"
        + name_element("Prefix", prefix, encoded, empty=True)
        + ("" if token is None else f"<ContinuationToken>{escape(token)}</ContinuationToken>")
        + (f"<NextContinuationToken>{next_token}</NextContinuationToken>" if next_token else "")
        + name_element("StartAfter", start_after, encoded)
        + f"<KeyCount>{len(page.entries) + len(page.prefixes)}</KeyCount>"
        + f"<MaxKeys>{limit}</MaxKeys>"
        + name_element("Delimiter", delimiter, encoded)
        + ("<EncodingType>url</EncodingType>" if encoded else "")
        + f"<IsTruncated>{word(truncated)}</IsTruncated>"
        + _contents(page.entries, encoded, owner)
        + prefixes_xml(page.prefixes, encoded),
    )


async def list_object_versions(context: S3Context, request: S3Request) -> Reply:
    """All versions and delete markers, newest first under each key."""
    encoded = url_encoded(request)
    prefix, delimiter = request.name("prefix"), request.name("delimiter")
    key_marker, limit = request.name("key-marker"), _max_keys(request)
    version_marker = request.query.get("version-id-marker") or None
    if version_marker is not None and not key_marker:
        raise S3Error(
            "InvalidArgument", "A version-id marker cannot be specified without a key marker."
        )
    page = await context.listing.versions(
        request.bucket.id,
        prefix=prefix,
        delimiter=delimiter,
        key_marker=key_marker,
        version_marker=version_marker,
        limit=limit,
    )
    following = page.next if limit > 0 else None
    owner = _owner(request)
    markers = ""
    if following is not None:
        markers = name_element("NextKeyMarker", following.key, encoded) + (
            f"<NextVersionIdMarker>{following.version_id}</NextVersionIdMarker>"
            if following.version_id
            else ""
        )
    return xml_reply(
        "ListVersionsResult",
        f"<Name>{escape(request.bucket_name or '')}</Name>"
        + name_element("Prefix", prefix, encoded, empty=True)
        + name_element("KeyMarker", key_marker, encoded, empty=True)
        + f"<VersionIdMarker>{escape(version_marker or '')}</VersionIdMarker>"
        + markers
        + f"<MaxKeys>{limit}</MaxKeys>"
        + name_element("Delimiter", delimiter, encoded)
        + ("<EncodingType>url</EncodingType>" if encoded else "")
        + f"<IsTruncated>{word(following is not None)}</IsTruncated>"
        + "".join([_version(entry, encoded, owner) for entry in page.entries])
        + prefixes_xml(page.prefixes, encoded),
    )


def _version(entry: VersionEntry, encoded: bool, owner: str) -> str:
    head = (
        f"<Key>{name_text(entry.key, encoded)}</Key><VersionId>{entry.version_id}</VersionId>"
        f"<IsLatest>{word(entry.is_latest)}</IsLatest>"
        f"<LastModified>{iso_date(entry.mtime_ms)}</LastModified>{owner}"
    )
    if entry.is_marker:
        return f"<DeleteMarker>{head}</DeleteMarker>"
    etag = etag_text(entry.etag, entry.parts)
    return (
        f"<Version>{head}<ETag>&quot;{etag}&quot;</ETag><Size>{entry.size}</Size>"
        "<StorageClass>STANDARD</StorageClass></Version>"
    )
