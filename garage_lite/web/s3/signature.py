"""AWS Signature Version 4, checked: in the header or in a presigned query.

Source: "Authenticating Requests (AWS Signature Version 4)", Amazon S3 API Reference. Pure: the
time and the keys come in as arguments, the caller knows who holds which secret. Paths and queries
are decoded and encoded again before they are hashed, because proxies rewrite them. About 8 us a
request: one regular expression, signing keys cached, no strptime, no re-quoting of plain paths.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from garage_lite.core.limits import CLOCK_SKEW_SECONDS_MAX, PRESIGN_SECONDS_MAX
from garage_lite.core.model.keys import AccessKey
from garage_lite.web.s3.errors import S3Error

ALGORITHM: Final = "AWS4-HMAC-SHA256"
UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"
_NOBODY: Final = "0" * 64
"""The secret that an unknown key is checked with, so that it costs what a known one costs."""

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=([^,\s]+)\s*,\s*SignedHeaders=([^,\s]+)\s*,"
    r"\s*Signature=([0-9a-f]{64})\s*"
).fullmatch
_TIMESTAMP = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z", re.ASCII).fullmatch
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_.~/-]*").fullmatch
_PLAIN_QUERY = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
_BLANKS = re.compile(r"[ \t]+")
_PRESIGNED: Final = (
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
)


Headers = Mapping[str, str]
"""Request headers by lower-case name, several of one name joined by commas."""


class Verified(NamedTuple):
    """A request whose signature is right. The rest is what chunk signatures go on from."""

    key: AccessKey
    payload: str
    """x-amz-content-sha256, or UNSIGNED-PAYLOAD."""
    timestamp: str
    scope: str
    signing_key: SigningKey
    signature: str


class SigningKey:
    """HMAC-SHA256 (RFC 2104) under one key of 64 bytes at most, many times: the hash of the
    padded key is taken once and copied, a third of what OpenSSL's `hmac.digest` costs."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        padded = key.ljust(64, b"\0")
        self._inner = sha256(padded.translate(_INNER))
        self._outer = sha256(padded.translate(_OUTER))

    def sign(self, text: bytes) -> str:
        """The signature of `text`, hexadecimal."""
        inner = self._inner.copy()
        inner.update(text)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()


class SigningKeys:
    """Derived keys by (secret, date, region); bounded, forgotten all at once when full."""

    def __init__(self, entries_max: int = 1024) -> None:
        self._cache: dict[tuple[str, str, str], SigningKey] = {}
        self._entries_max = entries_max

    def get(self, secret: str, date: str, region: str) -> SigningKey:
        known = self._cache.get((secret, date, region))
        if known is not None:
            return known
        key = b"AWS4" + secret.encode()
        for part in (date, region, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        if len(self._cache) >= self._entries_max:
            self._cache.clear()
        made = self._cache[secret, date, region] = SigningKey(key)
        return made


class _Claim(NamedTuple):
    """What a request says of its own signature."""

    access_key_id: str
    date: str
    region: str
    signed_headers: str
    signature: str
    timestamp: str


def split_target(target: str) -> tuple[str, str]:
    """A raw request target as (path, query)."""
    path, _, query = target.partition("?")
    return path, query


def canonical_path(path: str) -> str:
    """The path decoded and encoded again."""
    if _PLAIN_PATH(path):
        return path
    raw = unquote_to_bytes(path.encode("utf-8", "surrogateescape"))
    return quote_from_bytes(raw, safe="/-_.~")


def canonical_query(query: str, without: str = "") -> str:
    """The parameters decoded, encoded again and sorted; the one named `without` left out."""
    if not query:
        return ""
    pairs = []
    for item in query.split("&"):
        if item:
            name, _, value = item.partition("=")
            if name != without:
                pairs.append((_canonical_part(name), _canonical_part(value)))
    pairs.sort()
    return "&".join([f"{name}={value}" for name, value in pairs])


def _canonical_part(text: str) -> str:
    if _PLAIN_QUERY(text):
        return text
    return quote_from_bytes(decode_query_part(text), safe="-_.~")


def decode_query_part(text: str) -> bytes:
    """A name or value of a query string; `+` is a space, as HTML forms have it."""
    return unquote_to_bytes(text.replace("+", " ").encode("utf-8", "surrogateescape"))


@lru_cache(maxsize=256)
def seconds_of(timestamp: str) -> int | None:
    """Seconds since 1970 of `20260131T235959Z`, None if it is no such text."""
    found = _TIMESTAMP(timestamp)
    if found is None:
        return None
    try:
        return int(datetime(*map(int, found.groups()), tzinfo=UTC).timestamp())  # type: ignore[arg-type,misc]
    except ValueError:
        return None


def iso_time(seconds: int) -> str:
    """`2026-01-31T23:59:59Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def canonical_request(
    method: str, path: str, query: str, headers: Headers, signed_headers: str, payload: str
) -> str:
    """The text whose hash is signed. `path` is raw, `query` already canonical.

    Raises SignatureDoesNotMatch when a signed header did not arrive.
    """
    lines = []
    for name in signed_headers.split(";"):
        value = headers.get(name)
        if value is None:
            value = headers.get(name.lower())
        if value is None:
            raise S3Error("SignatureDoesNotMatch", f"The signed header {name!r} is not there.")
        if "  " in value or "\t" in value:
            value = _BLANKS.sub(" ", value)
        lines.append(f"{name}:{value}\n")
    return (
        f"{method}\n{canonical_path(path)}\n{query}\n{''.join(lines)}\n{signed_headers}\n{payload}"
    )


def sign(signing_key: SigningKey, timestamp: str, scope: str, canonical: str) -> str:
    """The signature of a canonical request, hexadecimal."""
    digest = sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    text = f"{ALGORITHM}\n{timestamp}\n{scope}\n{digest}"
    return signing_key.sign(text.encode("utf-8", "surrogateescape"))


class Verifier:
    """Checks requests for one region. `find_key` gives the key of an access key id, or None."""

    def __init__(self, region: str, find_key: Callable[[str], AccessKey | None]) -> None:
        self.region = region
        self._find_key = find_key
        self._signing_keys = SigningKeys()

    def verify_header(self, method: str, target: str, headers: Headers, now_s: int) -> Verified:
        """A request that carries an Authorization header. Raises S3Error."""
        claim = _claim_of_header(headers, self.region)
        _check_skew(claim.timestamp, now_s)
        payload = headers.get("x-amz-content-sha256")
        if payload is None:
            raise S3Error(
                "InvalidRequest", "Missing required header for this request: x-amz-content-sha256"
            )
        path, query = split_target(target)
        return self._check(claim, method, path, canonical_query(query), headers, payload)

    def verify_query(
        self, method: str, target: str, query: Mapping[str, str], headers: Headers, now_s: int
    ) -> Verified:
        """A presigned request; `query` holds its decoded parameters. Raises S3Error."""
        if "authorization" in headers:
            raise S3Error(
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter or the"
                " Authorization header should be specified.",
            )
        claim = _claim_of_query(query, self.region, now_s)
        payload = query.get("X-Amz-Content-Sha256") or headers.get("x-amz-content-sha256")
        path, raw_query = split_target(target)
        canonical = canonical_query(raw_query, without="X-Amz-Signature")
        return self._check(claim, method, path, canonical, headers, payload or UNSIGNED_PAYLOAD)

    def _check(
        self, claim: _Claim, method: str, path: str, query: str, headers: Headers, payload: str
    ) -> Verified:
        _check_all_signed(headers, claim.signed_headers)
        key = self._find_key(claim.access_key_id)
        secret = key.secret if key is not None and not key.deleted else _NOBODY
        signing_key = self._signing_keys.get(secret, claim.date, claim.region)
        scope = f"{claim.date}/{claim.region}/s3/aws4_request"
        canonical = canonical_request(method, path, query, headers, claim.signed_headers, payload)
        right = hmac.compare_digest(
            sign(signing_key, claim.timestamp, scope, canonical), claim.signature
        )
        if key is None or key.deleted:
            raise S3Error(
                "InvalidAccessKeyId",
                "The AWS Access Key Id you provided does not exist in our records.",
                ("AWSAccessKeyId", claim.access_key_id),
            )
        if not right:
            raise S3Error(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided."
                " Check your key and signing method.",
                ("AWSAccessKeyId", claim.access_key_id),
            )
        return Verified(key, payload, claim.timestamp, scope, signing_key, claim.signature)


def _claim_of_header(headers: Headers, region: str) -> _Claim:
    text = headers.get("authorization") or ""
    found = _AUTHORIZATION(text)
    if found is None:
        raise _unreadable_authorization(text)
    credential, signed_headers, signature = found.groups()
    timestamp = headers.get("x-amz-date") or _timestamp_of_date(headers.get("date"))
    fields = _credential_fields(credential)
    if fields is None:
        raise S3Error(
            "AuthorizationHeaderMalformed",
            "The authorization header is malformed; the Credential is mal-formed; expecting"
            ' "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".',
        )
    problem = _scope_problem(fields, region, timestamp)
    if problem:
        raise S3Error(
            "AuthorizationHeaderMalformed",
            f"The authorization header is malformed; {problem}",
            ("Region", region),
        )
    return _Claim(fields[0], fields[1], fields[2], signed_headers, signature, timestamp)


def _unreadable_authorization(text: str) -> S3Error:
    if not text.strip():
        return S3Error("AccessDenied", "Access Denied.")
    if text.startswith("AWS "):
        return S3Error(
            "InvalidRequest",
            "The authorization mechanism you have provided is not supported."
            " Please use AWS4-HMAC-SHA256.",
        )
    if text.startswith("AWS4-ECDSA"):
        return S3Error("NotImplemented", "AWS Signature Version 4A is not implemented.")
    if not text.startswith(ALGORITHM):
        return S3Error("InvalidArgument", "Unsupported Authorization Type")
    return S3Error(
        "AuthorizationHeaderMalformed",
        "The authorization header is malformed; it needs Credential, SignedHeaders and Signature.",
    )


def _credential_fields(credential: str) -> tuple[str, str, str, str] | None:
    """Access key id (which may hold slashes), date, region, service."""
    fields = credential.rsplit("/", 4)
    if len(fields) != 5 or fields[4] != "aws4_request" or not fields[0]:
        return None
    return fields[0], fields[1], fields[2], fields[3]


def _scope_problem(fields: tuple[str, str, str, str], region: str, timestamp: str) -> str | None:
    _, date, its_region, service = fields
    if its_region != region:
        return f"the region '{its_region}' is wrong; expecting '{region}'"
    if service != "s3":
        return f"incorrect service '{service}'. This endpoint belongs to 's3'."
    if seconds_of(timestamp) is not None and date != timestamp[:8]:
        return (
            f"invalid credential date '{date}'."
            f" This date is not the same as X-Amz-Date: '{timestamp[:8]}'."
        )
    return None


def _timestamp_of_date(date: str | None) -> str:
    """The HTTP Date header as a signature's timestamp; it counts where x-amz-date is missing."""
    try:
        parsed = parsedate_to_datetime(date or "")
    except ValueError:
        return date or ""
    # One that names no zone (`-0000`) is in UTC.
    moment = parsed.astimezone(UTC) if parsed.tzinfo else parsed
    return moment.strftime("%Y%m%dT%H%M%SZ")


def _check_skew(timestamp: str, now_s: int) -> None:
    signed_at = seconds_of(timestamp)
    if signed_at is None:
        raise S3Error(
            "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header"
        )
    if abs(now_s - signed_at) > CLOCK_SKEW_SECONDS_MAX:
        raise S3Error(
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            ("RequestTime", timestamp),
            ("ServerTime", iso_time(now_s)),
            ("MaxAllowedSkewMilliseconds", str(CLOCK_SKEW_SECONDS_MAX * 1000)),
        )


def _claim_of_query(query: Mapping[str, str], region: str, now_s: int) -> _Claim:
    values = [query.get(name, "") for name in _PRESIGNED]
    if not all(values):
        raise _query_error(
            "Query-string authentication version 4 requires the X-Amz-Algorithm,"
            " X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and"
            " X-Amz-Expires parameters."
        )
    algorithm, credential, timestamp, expires, signed_headers, signature = values
    if algorithm != ALGORITHM:
        raise _query_error(f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    fields = _credential_fields(credential)
    if fields is None:
        raise _query_error(
            "Error parsing the X-Amz-Credential parameter; the Credential is mal-formed; expecting"
            ' "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".'
        )
    problem = _scope_problem(fields, region, timestamp)
    if problem:
        raise S3Error(
            "AuthorizationQueryParametersError",
            f"Error parsing the X-Amz-Credential parameter; {problem}",
            ("Region", region),
        )
    _check_lifetime(timestamp, expires, now_s)
    return _Claim(fields[0], fields[1], fields[2], signed_headers, signature, timestamp)


def _query_error(message: str) -> S3Error:
    return S3Error("AuthorizationQueryParametersError", message)


def _check_lifetime(timestamp: str, expires: str, now_s: int) -> None:
    signed_at = seconds_of(timestamp)
    if signed_at is None:
        raise _query_error("X-Amz-Date must be in the ISO8601 form yyyyMMddTHHmmssZ")
    if not re.fullmatch(r"-?[0-9]{1,18}", expires):
        raise _query_error("X-Amz-Expires should be a number")
    lifetime = int(expires)
    if not 0 <= lifetime <= PRESIGN_SECONDS_MAX:
        # Well-formed, but no door that anybody could have opened: refused as an expired one is.
        raise S3Error(
            "AccessDenied",
            "X-Amz-Expires must be non-negative and less than a week (in seconds); that is, at"
            f" most {PRESIGN_SECONDS_MAX}",
            ("X-Amz-Expires", expires),
        )
    if signed_at > now_s + CLOCK_SKEW_SECONDS_MAX:
        raise S3Error("AccessDenied", "Request is not valid yet", ("ServerTime", iso_time(now_s)))
    if now_s >= signed_at + lifetime:
        raise S3Error(
            "AccessDenied",
            "Request has expired",
            ("X-Amz-Expires", expires),
            ("Expires", iso_time(signed_at + lifetime)),
            ("ServerTime", iso_time(now_s)),
        )


def _check_all_signed(headers: Headers, signed_headers: str) -> None:
    """Host and every x-amz-* header must be signed.

    x-amz-content-sha256 need not be named: its value is in the canonical request anyway.
    """
    signed = signed_headers.split(";")
    missing = [] if "host" in signed else ["host"]
    missing += [
        name
        for name in headers
        if name[:6] == "x-amz-" and name not in signed and name != "x-amz-content-sha256"
    ]
    if missing:
        raise S3Error(
            "AccessDenied",
            "There were headers present in the request which were not signed",
            ("HeadersNotSigned", ", ".join(missing)),
        )
