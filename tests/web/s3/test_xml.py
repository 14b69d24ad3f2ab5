"""XML that is refused before it costs anything, and text that survives."""

from __future__ import annotations

import time
from xml.parsers import expat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.limits import XML_BYTES_MAX, XML_DEPTH_MAX, XML_ELEMENTS_MAX
from garage_lite.web.s3.xml import MalformedXml, document, escape, name_text, parse

BOMB = b"""<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;">]><a>&y;</a>"""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not xml",
        b"<a>",
        b"<a></b>",
        b"<b/>",
        b"<a/><a/>",
        b"<a>&unknown;</a>",
        b"<a>&#0;</a>",
        b"<a>\xff</a>",
        b'<?xml version="1.0" encoding="utf-7"?><a/>',
        b'<?xml version="1.0" encoding="nonsense"?><a/>',
        BOMB,
        b'<!DOCTYPE a SYSTEM "http://127.0.0.1/x.dtd"><a/>',
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        b"<a>" * (XML_DEPTH_MAX + 1) + b"</a>" * (XML_DEPTH_MAX + 1),
        b"<a>" + b"<b/>" * XML_ELEMENTS_MAX + b"</a>",
        b"<a>" + b" " * XML_BYTES_MAX + b"</a>",
    ],
)
def test_what_is_not_plain_small_xml_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedXml):
        parse(body, "a")


def test_20000_nested_elements_are_refused_at_once() -> None:
    body = b"<Delete>" + b"<a>" * 20_000 + b"</a>" * 20_000 + b"</Delete>"
    began = time.process_time()
    with pytest.raises(MalformedXml):
        parse(body, "Delete")
    assert time.process_time() - began < 0.05


def test_names_count_without_namespaces_and_whitespace_in_keys_is_kept() -> None:
    for opening in ("<Delete>", '<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'):
        body = f"""<?xml version="1.0"?>{opening}
            <Object><Key> a &amp; b </Key><VersionId/></Object>
            <Object><Key><![CDATA[<x>]]></Key></Object>
            <Quiet>true</Quiet></Delete>"""
        root = parse(body.encode(), "Delete")
        assert [item.value("Key") for item in root.all("Object")] == [" a & b ", "<x>"]
        assert root.value("Quiet") == "true"
        first = root.child("Object")
        assert first is not None
        assert first.value("VersionId") == ""
        assert first.value("ETag") is None
        assert root.text == ""


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_escaped_text_comes_back(text: str) -> None:
    body = document("a", escape(text))
    if any(character < " " and character not in "\t\n\r" for character in text) or any(
        character in text for character in "\ufffe\uffff"
    ):
        # Not allowed in XML at all; AWS writes the reference nevertheless.
        with pytest.raises((MalformedXml, expat.ExpatError)):
            parse(body, "a")
        return
    assert parse(body, "a").text == text


def test_control_characters_are_written_as_references() -> None:
    assert escape('a\x00\x1f\n<&>"b') == "a&#x0;&#x1f;&#xa;&lt;&amp;&gt;&quot;b"
    assert name_text(b"a/b c+d\x01\xc3\xa9", True) == "a/b%20c%2Bd%01%C3%A9"
    assert name_text(b"a/b c+d\x01", False) == "a/b c+d&#x1;"
