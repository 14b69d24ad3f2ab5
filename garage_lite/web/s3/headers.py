"""What request headers mean and what answers carry: stored headers, ranges, conditions, dates.

Pure: texts in, values out; request headers are those of `S3Request.headers`, by lower-case name.
A header whose promise can't be kept is an error, never ignored:
object lock, tags, encryption by the server, storage classes other than STANDARD, grants.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

from garage_lite.core.limits import METADATA_BYTES_MAX
from garage_lite.core.model.objects import Checksum, ChecksumType, ObjectVersion
from garage_lite.core.store.conditions import ReadCondition, WriteCondition
from garage_lite.core.store.digests import DIGEST_BYTES
from garage_lite.core.store.encryption import CustomerKey
from garage_lite.web.s3.errors import S3Error

Header = Callable[[str], str | None]
"""Looks up a request header by its lower-case name."""

STORED: Final = frozenset(
    [
        "content-type",
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "expires",
        "x-amz-website-redirect-location",
    ]
)
NAMES: Final[Mapping[str, str]] = {
    "content-type": "Content-Type",
    "cache-control": "Cache-Control",
    "content-disposition": "Content-Disposition",
    "content-encoding": "Content-Encoding",
    "content-language": "Content-Language",
    "expires": "Expires",
}
"""How answers spell the stored headers; those not here go out in lower case."""
DEFAULT_CONTENT_TYPE: Final = "binary/octet-stream"
CANNED_ACLS: Final = frozenset(
    [
        "private",
        "public-read",
        "public-read-write",
        "authenticated-read",
        "aws-exec-read",
        "bucket-owner-read",
        "bucket-owner-full-control",
        "log-delivery-write",
    ]
)
_UNKEPT_PREFIXES: Final = ("x-amz-object-lock-", "x-amz-grant-")
_UNKEPT: Final = frozenset(
    [
        "x-amz-tagging",
        "x-amz-tagging-directive",
        "x-amz-server-side-encryption",
        "x-amz-server-side-encryption-aws-kms-key-id",
        "x-amz-server-side-encryption-context",
        "x-amz-server-side-encryption-bucket-key-enabled",
        "x-amz-bucket-object-lock-enabled",
        "x-amz-write-offset-bytes",
        "x-amz-if-match-initiated-time",
        "x-amz-if-match-last-modified-time",
        "x-amz-if-match-size",
    ]
)
_HARMLESS: Final[Mapping[str, frozenset[str]]] = {
    "x-amz-tagging": frozenset([""]),
    "x-amz-tagging-directive": frozenset(["COPY"]),
    "x-amz-bucket-object-lock-enabled": frozenset(["false", "False"]),
    "x-amz-server-side-encryption-bucket-key-enabled": frozenset(["false", "False"]),
}
"""Values of the above that ask for nothing."""
MTIME_MS_MAX: Final = 7_900_000_000_000
"""Year 2220: later times, which only a broken clock writes, are shown as this."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec").split()  # noqa: SIM905


def check_promises(headers: Mapping[str, str]) -> None:
    """That no header asks for what isn't there. Raises NotImplemented or InvalidStorageClass."""
    for name, value in headers.items():
        if name[:6] != "x-amz-":
            continue
        if name in _UNKEPT or name.startswith(_UNKEPT_PREFIXES):
            if value in _HARMLESS.get(name, ()):
                continue
            raise S3Error(
                "NotImplemented",
                "A header you provided implies functionality that is not implemented.",
                ("Header", name),
            )
        if name == "x-amz-storage-class" and value != "STANDARD":
            raise S3Error("InvalidStorageClass", "The storage class you specified is not valid.")
        if name == "x-amz-acl" and value not in CANNED_ACLS:
            raise S3Error("InvalidArgument", "The canned ACL is not known.")


def stored_headers(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The headers of a request that are kept with an object.

    Raises MetadataTooLarge, InvalidArgument for text that is not UTF-8.
    """
    kept: list[tuple[str, str]] = []
    size = 0
    for name, value in headers.items():
        user = name[:11] == "x-amz-meta-"
        if not (user or name in STORED):
            continue
        try:
            length = len(value.encode())
        except UnicodeEncodeError as error:
            raise S3Error("InvalidArgument", f"The header {name} is not UTF-8.") from error
        if user:
            size += len(name) - len("x-amz-meta-") + length
        elif name == "content-encoding":
            value = without_aws_chunked(value)
        elif name == "x-amz-website-redirect-location":
            _check_redirect(value)
        if value or user:
            kept.append((name, value))
    if size > METADATA_BYTES_MAX:
        raise S3Error(
            "MetadataTooLarge",
            "Your metadata headers exceed the maximum allowed metadata size",
            ("Size", str(size)),
            ("MaxSizeAllowed", str(METADATA_BYTES_MAX)),
        )
    return tuple(kept)


def without_aws_chunked(encoding: str) -> str:
    """A Content-Encoding without what concerns the transfer only."""
    parts = [part.strip() for part in encoding.split(",")]
    return ", ".join([part for part in parts if part and part.lower() != "aws-chunked"])


def _check_redirect(location: str) -> None:
    if not location.startswith(("/", "http://", "https://")):
        raise S3Error(
            "InvalidArgument",
            "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.",
        )


def object_headers(version: ObjectVersion, *, checksum: bool) -> list[tuple[str, str]]:
    """What every answer about a version carries. `checksum`: the additional one too."""
    headers = [
        ("ETag", f'"{version.etag_text}"'),
        ("Last-Modified", http_date(version.mtime_ms // 1000)),
        ("Accept-Ranges", "bytes"),
    ]
    content_type = DEFAULT_CONTENT_TYPE
    for name, value in version.meta.headers:
        if name == "content-type":
            content_type = value
        else:
            headers.append((NAMES.get(name, name), value))
    headers.append(("Content-Type", content_type))
    if not version.null:
        headers.append(("x-amz-version-id", version.version_id))
    if version.meta.encryption:
        headers += encryption_headers(version.meta.encryption.key_md5)
    if checksum and version.meta.checksum:
        headers += checksum_headers(version.meta.checksum, version.parts)
    return headers


def encryption_headers(key_md5: str) -> list[tuple[str, str]]:
    return [
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ("x-amz-server-side-encryption-customer-key-MD5", key_md5),
    ]


def checksum_text(checksum: Checksum, parts: int) -> str:
    """Base64; a composite checksum says of how many parts it is made."""
    text = base64.b64encode(checksum.value).decode()
    return f"{text}-{parts}" if checksum.type is ChecksumType.COMPOSITE else text


def checksum_headers(checksum: Checksum, parts: int) -> list[tuple[str, str]]:
    return [
        (f"x-amz-checksum-{checksum.algorithm.lower()}", checksum_text(checksum, parts)),
        ("x-amz-checksum-type", checksum.type.name),
    ]


def decode_checksum(algorithm: str, text: str) -> bytes | None:
    """The value of a checksum in base64, None if it is not one of this algorithm's length."""
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return value if len(value) == DIGEST_BYTES[algorithm] else None


def customer_key(header: Header, prefix: str = "x-amz-") -> CustomerKey | None:
    """The SSE-C key of a request (`prefix` x-amz-copy-source-: of a copy's source).

    Raises InvalidArgument, InvalidEncryptionAlgorithmError.
    """
    start = f"{prefix}server-side-encryption-customer-"
    algorithm, key, md5 = (
        header(start + "algorithm"),
        header(start + "key"),
        header(start + "key-md5"),
    )
    if algorithm is None and key is None and md5 is None:
        return None
    if algorithm is None or key is None or md5 is None:
        raise S3Error(
            "InvalidArgument",
            "Requests specifying Server Side Encryption with Customer provided keys must provide"
            " an encryption algorithm, the secret key and its MD5.",
        )
    if algorithm != "AES256":
        raise S3Error(
            "InvalidEncryptionAlgorithmError",
            "The encryption request you specified is not valid. The valid value is AES256.",
        )
    try:
        secret = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError) as error:
        raise S3Error("InvalidArgument", "The secret key is not base64.") from error
    return CustomerKey.checked(secret, md5)


def parse_range(text: str | None, size: int) -> tuple[int, int] | None:
    """The bytes [start, end) a Range header asks of an object, None for the whole.

    A header that is not one range of bytes asks for the whole (RFC 9110, section 14.2). Raises
    InvalidRange where no byte of the object is in the range.
    """
    found = _RANGE(text) if text else None
    if found is None:
        return None
    first, last = found.groups()
    if first:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
        if last and int(last) < int(first):
            return None
    elif last:
        start, end = max(0, size - int(last)), size - 1
    else:
        return None
    if start > end:
        raise unsatisfiable(text or "", size)
    return start, end + 1


_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*", re.ASCII).fullmatch


def unsatisfiable(text: str, size: int) -> S3Error:
    return S3Error(
        "InvalidRange",
        "The requested range is not satisfiable",
        ("RangeRequested", text),
        ("ActualObjectSize", str(size)),
    )


def parse_copy_range(text: str | None) -> tuple[int, int] | None:
    """x-amz-copy-source-range: both ends must be given. [start, end). Raises InvalidArgument."""
    if text is None:
        return None
    found = re.fullmatch(r"bytes=([0-9]{1,19})-([0-9]{1,19})", text, re.ASCII)
    if found is None or int(found[1]) > int(found[2]):
        raise S3Error(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first"
            " and last are the zero-based offsets of the first and last bytes to copy",
            ("ArgumentName", "x-amz-copy-source-range"),
            ("ArgumentValue", text),
        )
    return int(found[1]), int(found[2]) + 1


def read_condition(header: Header, prefix: str = "") -> ReadCondition | None:
    """The conditions of a read; of a copy's source with `prefix` x-amz-copy-source-.

    A date that can't be read counts as if it was not there (RFC 9110, section 13.1.3).
    """
    match, none_match = header(f"{prefix}if-match"), header(f"{prefix}if-none-match")
    modified = _seconds(header(f"{prefix}if-modified-since"))
    unmodified = _seconds(header(f"{prefix}if-unmodified-since"))
    if match is None and none_match is None and modified is None and unmodified is None:
        return None
    return ReadCondition(match, none_match, modified, unmodified)


def write_condition(header: Header) -> WriteCondition | None:
    """If-Match and If-None-Match of a write. AWS takes If-None-Match only with `*`; ETags are
    honoured here as RFC 9110 says, since refusing them helps nobody."""
    match, none_match = header("if-match"), header("if-none-match")
    if match is None and none_match is None:
        return None
    return WriteCondition(none_match, match)


def _seconds(date: str | None) -> int | None:
    if not date:
        return None
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        return None
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())


@lru_cache(maxsize=512)
def http_date(seconds: int) -> str:
    """`Wed, 21 Oct 2015 07:28:00 GMT`."""
    moment = _EPOCH + timedelta(seconds=max(0, min(seconds, MTIME_MS_MAX // 1000)))
    return (
        f"{_DAYS[moment.weekday()]}, {moment.day:02} {_MONTHS[moment.month - 1]} {moment.year:04} "
        f"{moment.hour:02}:{moment.minute:02}:{moment.second:02} GMT"
    )


@lru_cache(maxsize=64)
def _day(days: int) -> str:
    return (_EPOCH + timedelta(days=days)).strftime("%Y-%m-%dT")


def iso_date(milliseconds: int) -> str:
    """`2015-10-21T07:28:00.000Z`."""
    seconds, fraction = divmod(max(0, min(milliseconds, MTIME_MS_MAX)), 1000)
    days, second = divmod(seconds, 86_400)
    minute, second = divmod(second, 60)
    hour, minute = divmod(minute, 60)
    return f"{_day(days)}{hour:02}:{minute:02}:{second:02}.{fraction:03}Z"
