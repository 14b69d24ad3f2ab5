"""Pieces that several operations answer with."""

from __future__ import annotations

from garage_lite.core.model.objects import Checksum
from garage_lite.web.reply import Reply
from garage_lite.web.s3.errors import S3Error
from garage_lite.web.s3.headers import checksum_text
from garage_lite.web.s3.xml import Element, MalformedXml, document, escape, parse


def xml_reply(root: str, content: str, *headers: tuple[str, str], status: int = 200) -> Reply:
    """An answer whose body is XML."""
    return Reply(status, [("Content-Type", "application/xml"), *headers], document(root, content))


def owner_xml(key_id: str, name: str, element: str = "Owner") -> str:
    return (
        f"<{element}><ID>{escape(key_id)}</ID><DisplayName>{escape(name)}</DisplayName></{element}>"
    )


def checksum_xml(checksum: Checksum | None, parts: int, *, with_type: bool = True) -> str:
    """`<ChecksumCRC32>...</ChecksumCRC32><ChecksumType>...</ChecksumType>`, or nothing."""
    if checksum is None:
        return ""
    name = f"Checksum{checksum.algorithm}"
    kind = f"<ChecksumType>{checksum.type.name}</ChecksumType>" if with_type else ""
    return f"<{name}>{checksum_text(checksum, parts)}</{name}>{kind}"


def parse_body(body: bytes, root: str) -> Element:
    """The XML of a request. Raises MalformedXML."""
    try:
        return parse(body, root)
    except MalformedXml as error:
        raise malformed_xml() from error


def malformed_xml() -> S3Error:
    return S3Error(
        "MalformedXML",
        "The XML you provided was not well-formed or did not validate against our published schema",
    )


def word(truth: bool) -> str:
    return "true" if truth else "false"
