"""Ranges, conditions, dates, stored headers and digests, as pure functions."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from hashlib import md5, sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.errors import BadDigest
from garage_lite.core.model.objects import Checksum, ChecksumType
from garage_lite.core.store.digests import MD5
from garage_lite.web.s3.aws_chunked import Form
from garage_lite.web.s3.errors import S3Error
from garage_lite.web.s3.headers import (
    check_promises,
    checksum_headers,
    customer_key,
    http_date,
    iso_date,
    parse_copy_range,
    parse_range,
    read_condition,
    stored_headers,
    without_aws_chunked,
    write_condition,
)
from garage_lite.web.s3.integrity import announcement
from garage_lite.web.s3.signature import UNSIGNED_PAYLOAD

NOTHING: dict[str, str] = {}


@given(
    first=st.integers(min_value=0, max_value=30),
    last=st.integers(min_value=0, max_value=30),
    size=st.integers(min_value=0, max_value=20),
)
def test_ranges_are_what_slices_are(first: int, last: int, size: int) -> None:
    content = bytes(range(size))
    for text, expected in (
        (f"bytes={first}-{last}", content[first : last + 1] if first <= last else None),
        (f"bytes={first}-", content[first:]),
        (f"bytes=-{last}", content[-last:] if last else b""),
    ):
        if expected is None:
            assert parse_range(text, size) is None
        elif expected == b"":
            with pytest.raises(S3Error) as refused:
                parse_range(text, size)
            assert refused.value.status == 416
            assert ("ActualObjectSize", str(size)) in refused.value.details
        else:
            bounds = parse_range(text, size)
            assert bounds is not None
            assert content[bounds[0] : bounds[1]] == expected


@pytest.mark.parametrize(
    "text", [None, "", "bytes=-", "bytes=a-b", "bytes=0-1,3-4", "items=0-1", "bytes=٠-١", "0-1"]
)
def test_what_is_not_one_range_asks_for_the_whole(text: str | None) -> None:
    assert parse_range(text, 10) is None


def test_copy_ranges_must_be_exact() -> None:
    assert parse_copy_range(None) is None
    assert parse_copy_range("bytes=2-5") == (2, 6)
    for text in ("", "0-2", "bytes=0", "bytes=0-bar", "bytes=5-2", "bytes=-5", "bytes=0-2,3-5"):
        with pytest.raises(S3Error) as refused:
            parse_copy_range(text)
        assert refused.value.code == "InvalidArgument"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-amz-object-lock-mode": "GOVERNANCE"}, "NotImplemented"),
        ({"X-Amz-Object-Lock-Legal-Hold": "ON"}, "NotImplemented"),
        ({"x-amz-tagging": "a=b"}, "NotImplemented"),
        ({"x-amz-server-side-encryption": "AES256"}, "NotImplemented"),
        ({"x-amz-server-side-encryption": "aws:kms"}, "NotImplemented"),
        ({"x-amz-grant-read": "id=1"}, "NotImplemented"),
        ({"x-amz-storage-class": "GLACIER"}, "InvalidStorageClass"),
        ({"x-amz-acl": "public-ready"}, "InvalidArgument"),
        ({"x-amz-acl": "public-read", "x-amz-storage-class": "STANDARD"}, ""),
        ({"x-amz-tagging": "", "x-amz-meta-tagging": "a=b"}, ""),
    ],
)
def test_promises_that_cannot_be_kept_are_refused(headers: dict[str, str], code: str) -> None:
    lower = {name.lower(): value for name, value in headers.items()}
    if not code:
        check_promises(lower)
        return
    with pytest.raises(S3Error) as refused:
        check_promises(lower)
    assert refused.value.code == code


def test_stored_headers() -> None:
    headers = {
        "content-type": "text/plain; charset=é",
        "content-encoding": "gzip, aws-chunked",
        "cache-control": "",
        "x-amz-meta-Été".lower(): "naïve",
        "x-amz-meta-empty": "",
        "authorization": "secret",
    }
    assert stored_headers(headers) == (
        ("content-type", "text/plain; charset=é"),
        ("content-encoding", "gzip"),
        ("x-amz-meta-été", "naïve"),
        ("x-amz-meta-empty", ""),
    )
    fits = {"x-amz-meta-a": "x" * 2047}
    assert stored_headers(fits)
    for bad, code in (
        ({"x-amz-meta-a": "x" * 2048}, "MetadataTooLarge"),
        ({"x-amz-meta-a": "\udcff"}, "InvalidArgument"),
        ({"x-amz-website-redirect-location": "ftp://x"}, "InvalidArgument"),
    ):
        with pytest.raises(S3Error) as refused:
            stored_headers(bad)
        assert refused.value.code == code


def test_aws_chunked_is_of_the_transfer_only() -> None:
    assert without_aws_chunked("aws-chunked, aws-chunked") == ""
    assert without_aws_chunked("aws-chunked,gzip") == "gzip"
    assert without_aws_chunked("deflate, gzip") == "deflate, gzip"


def test_conditions() -> None:
    headers = {"if-match": '"a"', "if-modified-since": "Wed, 21 Oct 2015 07:28:00 GMT"}
    condition = read_condition(headers.get)
    assert condition is not None
    assert condition.if_modified_since == 1445412480
    assert read_condition({"if-modified-since": "nonsense"}.get) is None
    assert write_condition(NOTHING.get) is None
    guard = write_condition({"if-none-match": "*"}.get)
    assert guard is not None and guard.if_none_match == "*"
    other = write_condition({"if-none-match": '"a"', "if-match": '"b"'}.get)
    assert other is not None and (other.if_none_match, other.if_match) == ('"a"', '"b"')


def test_dates_are_clamped() -> None:
    assert http_date(1445412480) == "Wed, 21 Oct 2015 07:28:00 GMT"
    assert iso_date(1445412480123) == "2015-10-21T07:28:00.123Z"
    assert http_date(-1) == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert " 2220 " in http_date(1 << 60)
    assert iso_date(1 << 60).startswith("2220-")


def test_composite_checksums_say_how_many_parts() -> None:
    assert checksum_headers(Checksum("SHA1", b"\0" * 20, ChecksumType.COMPOSITE), 3) == [
        ("x-amz-checksum-sha1", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=-3"),
        ("x-amz-checksum-type", "COMPOSITE"),
    ]


def test_customer_keys() -> None:
    secret = b"k" * 32
    good = {
        "x-amz-server-side-encryption-customer-algorithm": "AES256",
        "x-amz-server-side-encryption-customer-key": base64.b64encode(secret).decode(),
        "x-amz-server-side-encryption-customer-key-md5": base64.b64encode(
            md5(secret).digest()
        ).decode(),
    }
    found = customer_key(good.get)
    assert found is not None and found.key == secret
    assert customer_key(NOTHING.get) is None
    for name in good:
        with pytest.raises(S3Error):
            customer_key({other: good[other] for other in good if other != name}.get)
    with pytest.raises(S3Error) as refused:
        customer_key((good | {"x-amz-server-side-encryption-customer-algorithm": "AES128"}).get)
    assert refused.value.code == "InvalidEncryptionAlgorithmError"


# --- what a body is announced to be

CONTENT = b"hello"
CRC32 = base64.b64encode(zlib.crc32(CONTENT).to_bytes(4, "big")).decode()
DIGESTS = {
    MD5: md5(CONTENT).digest(),
    "SHA256": sha256(CONTENT).digest(),
    "CRC32": zlib.crc32(CONTENT).to_bytes(4, "big"),
}


def check(
    headers: Mapping[str, str], payload: str, trailers: Mapping[str, str] | None = None
) -> Checksum | None:
    announced = announcement(headers, payload)
    assert announced.digests <= DIGESTS.keys()
    return announced.check(DIGESTS, trailers or {})


def test_right_digests_are_accepted() -> None:
    assert check({}, UNSIGNED_PAYLOAD) is None
    assert check({}, sha256(CONTENT).hexdigest()) is None
    assert check({"content-md5": base64.b64encode(DIGESTS[MD5]).decode()}, UNSIGNED_PAYLOAD) is None
    stored = Checksum("CRC32", DIGESTS["CRC32"])
    assert check({"x-amz-checksum-crc32": CRC32}, UNSIGNED_PAYLOAD) == stored
    trailing = {"x-amz-trailer": "x-amz-checksum-crc32", "x-amz-decoded-content-length": "5"}
    sent = {"x-amz-checksum-crc32": CRC32}
    assert check(trailing, Form.UNSIGNED_TRAILER.value, sent) == stored


@pytest.mark.parametrize(
    ("headers", "payload", "code"),
    [
        ({}, sha256(b"other").hexdigest(), "XAmzContentSHA256Mismatch"),
        ({}, "nonsense", "InvalidArgument"),
        ({"content-md5": "YWJyYWNhZGFicmE="}, UNSIGNED_PAYLOAD, "InvalidDigest"),
        ({"content-md5": ""}, UNSIGNED_PAYLOAD, "InvalidDigest"),
        ({"content-md5": "%%"}, UNSIGNED_PAYLOAD, "InvalidDigest"),
        ({"content-md5": "rL0Y20xC+Fzt72VPzMSk2A=="}, UNSIGNED_PAYLOAD, "BadDigest"),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, UNSIGNED_PAYLOAD, "BadDigest"),
        ({"x-amz-checksum-crc32": "AAAAAAAA"}, UNSIGNED_PAYLOAD, "BadDigest"),
        ({"x-amz-checksum-crc32": "bad"}, UNSIGNED_PAYLOAD, "BadDigest"),
        ({"x-amz-checksum-crc32": f"{CRC32},{CRC32}"}, UNSIGNED_PAYLOAD, "InvalidRequest"),
        (
            {"x-amz-checksum-crc32": CRC32, "x-amz-checksum-sha1": "x"},
            UNSIGNED_PAYLOAD,
            "InvalidRequest",
        ),
        ({"x-amz-checksum-sha512": "x"}, UNSIGNED_PAYLOAD, "NotImplemented"),
        ({"x-amz-sdk-checksum-algorithm": "CRC32"}, UNSIGNED_PAYLOAD, "InvalidRequest"),
        (
            {"x-amz-sdk-checksum-algorithm": "SHA1", "x-amz-checksum-crc32": CRC32},
            UNSIGNED_PAYLOAD,
            "InvalidRequest",
        ),
        ({"x-amz-trailer": "x-amz-checksum-crc32"}, UNSIGNED_PAYLOAD, "InvalidRequest"),
        ({}, Form.SIGNED.value, "MissingContentLength"),
        ({"x-amz-decoded-content-length": "-1"}, Form.SIGNED.value, "MissingContentLength"),
        (
            {"x-amz-decoded-content-length": "5", "x-amz-trailer": "x-amz-other"},
            Form.SIGNED_TRAILER.value,
            "InvalidRequest",
        ),
        (
            {"x-amz-decoded-content-length": "5", "x-amz-trailer": "x-amz-checksum-crc32"},
            Form.SIGNED_TRAILER.value,
            "MalformedTrailerError",
        ),
        ({"content-length": str(5 * 1024**3 + 1)}, UNSIGNED_PAYLOAD, "EntityTooLarge"),
    ],
)
def test_wrong_digests_are_refused(headers: dict[str, str], payload: str, code: str) -> None:
    with pytest.raises((S3Error, BadDigest)) as refused:
        check(headers, payload)
    assert (refused.value.code if isinstance(refused.value, S3Error) else "BadDigest") == code
