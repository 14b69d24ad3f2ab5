"""A request as the handlers see it: what its target names, its headers and its query.

Built from the raw request target, never from a normalised path: keys are bytes, and `..`, `//`
or a leading slash are as good as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from garage_lite.core.errors import KeyTooLong
from garage_lite.core.limits import KEY_BYTES_MAX
from garage_lite.web.s3.errors import S3Error
from garage_lite.web.s3.operations import Operation, Scope
from garage_lite.web.s3.signature import Verified, decode_query_part, split_target

if TYPE_CHECKING:
    from garage_lite.core.model.buckets import Bucket
    from garage_lite.core.model.keys import AccessKey
    from garage_lite.web.body import RequestBody


class S3Request:
    """One request. `bucket`, `verified`, `operation` and `body` are filled in on the way to the
    handler: a handler may rely on them (`bucket` where the operation is on an existing bucket).
    """

    __slots__ = (
        "body",
        "bucket",
        "bucket_name",
        "header",
        "headers",
        "key",
        "method",
        "operation",
        "query",
        "scope",
        "target",
        "verified",
    )

    bucket: Bucket
    verified: Verified
    operation: Operation
    body: RequestBody

    def __init__(
        self, method: str, target: str, headers: Mapping[str, str], root_domain: str | None
    ) -> None:
        """`headers` as they came: in any case, a name perhaps several times."""
        self.method = method
        self.target = origin_form(target)
        self.headers = joined(headers.items())
        """By lower-case name, several of one name joined by commas; with `hoist`, also what the
        query says in their place."""
        self.header: Callable[[str], str | None] = self.headers.get
        """A header by its lower-case name."""
        path, query = split_target(self.target)
        self.query = parse_query(query) if query else {}
        self.bucket_name, self.key = _name_of(path, virtual_host(self.header("host"), root_domain))
        if self.key:
            self.scope = Scope.OBJECT
        else:
            self.scope = Scope.BUCKET if self.bucket_name else Scope.SERVICE

    @property
    def access_key(self) -> AccessKey:
        return self.verified.key

    @property
    def key_id(self) -> str:
        """The id of the key that signed it, for the log; "-" as long as nobody is known to."""
        verified: Verified | None = getattr(self, "verified", None)
        return verified.key.id if verified is not None else "-"

    def hoist(self) -> None:
        """Let the x-amz-* parameters of a presigned request count as headers."""
        for name, value in self.query.items():
            lower = name.lower()
            if lower.startswith("x-amz-"):
                self.headers.setdefault(lower, value)

    def number(self, name: str, default: int, least: int, most: int | None = None) -> int:
        """A numeric query parameter, at most `most`. Raises InvalidArgument."""
        text = self.query.get(name)
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) < least:
            raise S3Error(
                "InvalidArgument",
                f"Argument {name} must be an integer of at least {least}",
                ("ArgumentName", name),
                ("ArgumentValue", text),
            )
        return int(text) if most is None else min(int(text), most)

    def name(self, parameter: str) -> bytes:
        """A query parameter that is (part of) an object key."""
        return self.query.get(parameter, "").encode()


def joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by lower-case name, several of one name joined by commas."""
    values: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        values[lower] = f"{values[lower]},{value}" if lower in values else value
    return values


def origin_form(target: str) -> str:
    """The target without scheme and authority, which a client of a proxy may send."""
    if target.startswith("/"):
        return target
    scheme, found, rest = target.partition("://")
    if not found or scheme.lower() not in ("http", "https"):
        raise _bad_uri()
    cut = min([rest.find(mark) for mark in "/?" if mark in rest] or [len(rest)])
    rest = rest[cut:]
    return rest if rest.startswith("/") else f"/{rest}"


def virtual_host(host: str | None, root_domain: str | None) -> str | None:
    """The bucket that the Host header names, None for path style."""
    if not host or not root_domain:
        return None
    name = host.lower()
    if not name.endswith("]"):
        name = name.partition(":")[0] if name.count(":") == 1 else name
    suffix = "." + root_domain.lower().lstrip(".")
    return name.removesuffix(suffix) if name.endswith(suffix) and name != suffix else None


def decode_name(text: str) -> bytes:
    """A percent-encoded part of the path. Raises InvalidURI where it is not UTF-8."""
    if "%" not in text and text.isascii():
        return text.encode()
    raw = unquote_to_bytes(text.encode("utf-8", "surrogateescape"))
    _check_utf8(raw)
    return raw


def check_key(key: bytes) -> None:
    """Raises KeyTooLong beyond 1,024 bytes."""
    if len(key) > KEY_BYTES_MAX:
        raise KeyTooLong


def parse_query(query: str) -> dict[str, str]:
    """The parameters, decoded. Raises InvalidArgument for a repeated one, InvalidURI for bytes
    that are not UTF-8."""
    parameters: dict[str, str] = {}
    for item in query.split("&"):
        if not item:
            continue
        name_text, _, value_text = item.partition("=")
        name, value = decode_query_part(name_text), decode_query_part(value_text)
        _check_utf8(name + value)
        if name.decode() in parameters:
            raise S3Error(
                "InvalidArgument",
                "A query parameter was given more than once.",
                ("ArgumentName", name.decode()),
            )
        parameters[name.decode()] = value.decode()
    return parameters


def _name_of(path: str, host_bucket: str | None) -> tuple[str | None, bytes]:
    """Bucket and key; the key is b"" where none is named."""
    rest = path[1:]
    if host_bucket is None:
        bucket_text, _, rest = rest.partition("/")
        host_bucket = decode_name(bucket_text).decode() or None
        if host_bucket is None and rest:
            raise _bad_uri()
    key = decode_name(rest)
    check_key(key)
    return host_bucket, key


def _check_utf8(raw: bytes) -> None:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise _bad_uri() from error


def _bad_uri() -> S3Error:
    return S3Error("InvalidURI", "Couldn't parse the specified URI.")
