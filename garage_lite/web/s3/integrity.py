"""What a request says of its body: its length, its encoding and its digests.

Pure: headers in, an `Announcement` out, whose `check` compares what was promised with what came.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from hmac import compare_digest
from typing import Final, NamedTuple

from garage_lite.core.errors import BadDigest
from garage_lite.core.limits import PUT_BYTES_MAX
from garage_lite.core.model.objects import Checksum
from garage_lite.core.store.digests import DIGEST_BYTES, MD5
from garage_lite.web.s3.aws_chunked import Form
from garage_lite.web.s3.errors import S3Error
from garage_lite.web.s3.headers import Header, decode_checksum
from garage_lite.web.s3.signature import UNSIGNED_PAYLOAD

_HEADER_PREFIX: Final = "x-amz-checksum-"
CHECKSUM_HEADERS: Final = {f"{_HEADER_PREFIX}{name.lower()}": name for name in DIGEST_BYTES}
_ABOUT_CHECKSUMS: Final = frozenset(
    [f"{_HEADER_PREFIX}algorithm", f"{_HEADER_PREFIX}mode", f"{_HEADER_PREFIX}type"]
)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}").fullmatch
_LENGTH = re.compile(r"[0-9]{1,19}", re.ASCII).fullmatch
_FORMS: Final = {form.value: form for form in Form}


class Announcement(NamedTuple):
    """What a body is announced to be."""

    size: int | None
    """Of the content, aws-chunked taken off; None: only its end will tell."""
    form: Form | None = None
    sha256: bytes | None = None
    """x-amz-content-sha256."""
    md5: bytes | None = None
    algorithm: str | None = None
    """Of the additional checksum."""
    value: bytes | None = None
    """The additional checksum, None where a trailer will bring it."""
    trailer: str | None = None
    digests: frozenset[str] = frozenset()
    """Which to compute, MD5 apart."""

    @property
    def checksum_by_header(self) -> bool:
        return self.value is not None

    def check(self, digests: Mapping[str, bytes], trailers: Mapping[str, str]) -> Checksum | None:
        """Raises BadDigest, XAmzContentSHA256Mismatch, MalformedTrailerError; gives the
        additional checksum to store."""
        if self.md5 is not None and not compare_digest(self.md5, digests[MD5]):
            raise BadDigest("The Content-MD5 you specified did not match what we received.")
        if self.sha256 is not None and not compare_digest(self.sha256, digests["SHA256"]):
            raise S3Error(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
                ("ClientComputedContentSHA256", self.sha256.hex()),
                ("S3ComputedContentSHA256", digests["SHA256"].hex()),
            )
        if self.algorithm is None:
            return None
        value = self.value if self.trailer is None else self._from_trailer(trailers)
        if value is None or not compare_digest(value, digests[self.algorithm]):
            raise BadDigest(
                f"The {self.algorithm} you specified did not match the calculated checksum."
            )
        return Checksum(self.algorithm, value)

    def _from_trailer(self, trailers: Mapping[str, str]) -> bytes:
        assert self.algorithm is not None and self.trailer is not None
        text = trailers.get(self.trailer)
        value = None if text is None else decode_checksum(self.algorithm, text)
        if value is None:
            raise S3Error(
                "MalformedTrailerError",
                f"The trailer {self.trailer} did not arrive or is not a checksum.",
            )
        return value


def announcement(headers: Mapping[str, str], payload: str) -> Announcement:
    """What the headers of a request, by lower-case name, say of its body.

    `payload` is x-amz-content-sha256 as it was signed. Raises S3Error: InvalidDigest,
    InvalidArgument, InvalidRequest, MissingContentLength, EntityTooLarge.
    """
    form = _FORMS.get(payload)
    sha256 = _payload_hash(payload) if form is None else None
    algorithm, value, trailer = _additional(headers, form)
    size = _size(headers.get, form)
    if size is not None and size > PUT_BYTES_MAX:
        raise S3Error(
            "EntityTooLarge",
            "Your proposed upload exceeds the maximum allowed size",
            ("ProposedSize", str(size)),
            ("MaxSizeAllowed", str(PUT_BYTES_MAX)),
        )
    wanted = {algorithm} if algorithm else set()
    if sha256 is not None:
        wanted.add("SHA256")
    md5 = _content_md5(headers.get("content-md5"))
    return Announcement(size, form, sha256, md5, algorithm, value, trailer, frozenset(wanted))


def _payload_hash(payload: str) -> bytes | None:
    if payload == UNSIGNED_PAYLOAD:
        return None
    if _SHA256(payload):
        return bytes.fromhex(payload)
    raise S3Error(
        "InvalidArgument",
        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER,"
        " STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, or a"
        " valid sha256 value.",
        ("ArgumentName", "x-amz-content-sha256"),
        ("ArgumentValue", payload),
    )


def _size(header: Header, form: Form | None) -> int | None:
    if form is not None:
        text = header("x-amz-decoded-content-length")
        if text is None or not _LENGTH(text):
            raise S3Error(
                "MissingContentLength",
                "You must provide the x-amz-decoded-content-length HTTP header.",
            )
        return int(text)
    text = header("content-length")
    return int(text) if text is not None and _LENGTH(text) else None


def _content_md5(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if len(value) != 16:
        raise S3Error(
            "InvalidDigest",
            "The Content-MD5 you specified was invalid.",
            ("Content-MD5", text),
        )
    return value


def _additional(
    headers: Mapping[str, str], form: Form | None
) -> tuple[str | None, bytes | None, str | None]:
    """Algorithm, value and trailer of the additional checksum, if there is one."""
    checksums = [name for name in headers if name[:15] == _HEADER_PREFIX]
    sdk_algorithm = headers.get("x-amz-sdk-checksum-algorithm")
    trailer = headers.get("x-amz-trailer")
    if not checksums and sdk_algorithm is None and trailer is None:
        return None, None, None
    given = [name for name in checksums if name in CHECKSUM_HEADERS]
    if len(given) + sum(name in _ABOUT_CHECKSUMS for name in checksums) < len(checksums):
        raise S3Error(
            "NotImplemented", f"Of checksums only {', '.join(DIGEST_BYTES)} are implemented."
        )
    trailers = _announced_trailers(trailer, form)
    if len(given) + len(trailers) > 1 or any("," in headers[name] for name in given):
        raise S3Error(
            "InvalidRequest",
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        )
    if not given and not trailers:
        if sdk_algorithm is not None:
            raise S3Error(
                "InvalidRequest",
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or"
                " x-amz-trailer headers were found.",
            )
        return None, None, None
    name = (given or trailers)[0]
    algorithm = CHECKSUM_HEADERS[name]
    if sdk_algorithm is not None and sdk_algorithm.upper() != algorithm:
        raise S3Error("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
    if trailers:
        return algorithm, None, name
    value = decode_checksum(algorithm, headers[name])
    if value is None:
        raise BadDigest(f"The {algorithm} you specified is no such checksum.")
    return algorithm, value, None


def _announced_trailers(text: str | None, form: Form | None) -> list[str]:
    if text is None:
        return []
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    if form in (None, Form.SIGNED) or any(name not in CHECKSUM_HEADERS for name in names):
        raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer is not supported")
    return names
