"""The decoder of aws-chunked: AWS's published example, every cut, every lie."""

from __future__ import annotations

from hashlib import sha256
from hmac import digest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.errors import IncompleteBody
from garage_lite.web.s3.aws_chunked import CHUNK_BYTES_MIN, FREE_CHUNKS, Decoder, Form, Seed
from garage_lite.web.s3.errors import S3Error
from garage_lite.web.s3.signature import SigningKey

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SCOPE = "20130524/us-east-1/s3/aws4_request"
MOMENT = "20130524T000000Z"
KEY = b"AWS4" + SECRET.encode()
for word in SCOPE.split("/"):
    KEY = digest(KEY, word.encode(), "sha256")
Refusals = (S3Error, IncompleteBody)


def seed(signature: str) -> Seed:
    return Seed(SigningKey(KEY), MOMENT, SCOPE, signature)


def decode(decoder: Decoder, body: bytes, cut: int = 1 << 20) -> bytes:
    content = b"".join(
        piece for at in range(0, len(body), cut) for piece in decoder.feed(body[at : at + cut])
    )
    decoder.finish()
    return content


def encode(
    chunks: list[bytes], form: Form, trailers: dict[str, str], start: str = "0" * 64
) -> bytes:
    """An encoder of our own, from the same document."""
    out = b""
    previous = start
    for chunk in [*chunks, b""]:
        line = f"{len(chunk):x}".encode()
        if form is not Form.UNSIGNED_TRAILER:
            text = "\n".join(
                ["AWS4-HMAC-SHA256-PAYLOAD", MOMENT, SCOPE, previous]
                + [sha256(b"").hexdigest(), sha256(chunk).hexdigest()]
            )
            previous = digest(KEY, text.encode(), "sha256").hex()
            line += b";chunk-signature=" + previous.encode()
        out += line + b"\r\n" + (chunk + b"\r\n" if chunk else b"")
    lines = "".join(f"{name}:{value}\n" for name, value in trailers.items())
    out += lines.replace("\n", "\r\n").encode()
    if form is Form.SIGNED_TRAILER:
        text = "\n".join(
            ["AWS4-HMAC-SHA256-TRAILER", MOMENT, SCOPE, previous]
            + [sha256(lines.encode()).hexdigest()]
        )
        signature = digest(KEY, text.encode(), "sha256").hex()
        out += b"x-amz-trailer-signature:" + signature.encode() + b"\r\n"
    return out + b"\r\n"


def decoder_for(form: Form, length: int) -> Decoder:
    return Decoder(form, length, None if form is Form.UNSIGNED_TRAILER else seed("0" * 64))


PUBLISHED = (
    b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n"
    + b"a" * 65_536
    + b"\r\n400;chunk-signature="
    b"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n"
    + b"a"
    * 1024
    + b"\r\n0;chunk-signature="
    b"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
)
PUBLISHED_SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"


@pytest.mark.parametrize("cut", [1 << 20, 4096, 7, 1])
def test_the_published_example(cut: int) -> None:
    decoder = Decoder(Form.SIGNED, 66_560, seed(PUBLISHED_SEED))
    assert decode(decoder, PUBLISHED, cut) == b"a" * 66_560


@pytest.mark.parametrize("position", [10, 30, 100, 65_700, 65_800, len(PUBLISHED) - 10])
def test_a_changed_byte_of_the_published_example_is_refused(position: int) -> None:
    changed = bytearray(PUBLISHED)
    changed[position] ^= 1
    with pytest.raises(Refusals):
        decode(Decoder(Form.SIGNED, 66_560, seed(PUBLISHED_SEED)), bytes(changed))


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    form=st.sampled_from(Form),
    cut=st.integers(min_value=1, max_value=60),
)
def test_what_was_encoded_comes_out(chunks: list[bytes], form: Form, cut: int) -> None:
    trailers = {} if form is Form.SIGNED else {"x-amz-checksum-crc32c": "sOO8/Q=="}
    body = encode(chunks, form, trailers)
    decoder = decoder_for(form, len(b"".join(chunks)))
    assert decode(decoder, body, cut) == b"".join(chunks)
    assert decoder.trailers == trailers


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4),
    form=st.sampled_from([Form.SIGNED, Form.SIGNED_TRAILER]),
    data=st.data(),
)
def test_no_byte_of_a_signed_body_can_be_changed(
    chunks: list[bytes], form: Form, data: st.DataObject
) -> None:
    trailers = {} if form is Form.SIGNED else {"x-amz-checksum-crc32c": "sOO8/Q=="}
    body = bytearray(encode(chunks, form, trailers))
    position = data.draw(st.integers(min_value=0, max_value=len(body) - 1))
    before = body[position]
    body[position] = data.draw(st.integers(min_value=0, max_value=255).filter(before.__ne__))
    decoder = decoder_for(form, len(b"".join(chunks)))
    try:
        content = decode(decoder, bytes(body))
    except Refusals:
        return
    # Another spelling of the same: a trailer's name in capitals, a size with a leading zero.
    assert content == b"".join(chunks)
    assert decoder.trailers == trailers


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4),
    form=st.sampled_from(Form),
    data=st.data(),
)
def test_a_body_cut_anywhere_is_incomplete(
    chunks: list[bytes], form: Form, data: st.DataObject
) -> None:
    body = encode(chunks, form, {})
    cut = data.draw(st.integers(min_value=0, max_value=len(body) - 1))
    with pytest.raises(IncompleteBody):
        decode(decoder_for(form, len(b"".join(chunks))), body[:cut])


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("length", [0, 4, 6, 1 << 40])
def test_a_decoded_length_that_lies_is_refused(form: Form, length: int) -> None:
    with pytest.raises(IncompleteBody):
        decode(decoder_for(form, length), encode([b"hello"], form, {}))


def test_a_chunk_beyond_the_length_is_refused_at_its_header() -> None:
    decoder = decoder_for(Form.UNSIGNED_TRAILER, 10)
    with pytest.raises(IncompleteBody, match="more than the 10 bytes"):
        decoder.feed(b"fffffffffff\r\n")


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhello\r\n0\r\n\r\nmore",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5;ext=1\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5;chunk-signature=" + b"0" * 64 + b"\r\nhello\r\n0\r\n\r\n",
        b"5" * 600,
        b"x" * 600 + b"\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\na:1\r\na:2\r\n\r\n",
        b"0\r\n" + b"".join(b"a%d:1\r\n" % n for n in range(9)) + b"\r\n",
    ],
)
def test_malformed_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(Refusals):
        decode(decoder_for(Form.UNSIGNED_TRAILER, 5), body)


def test_signed_forms_need_every_signature() -> None:
    for body in (b"5\r\nhello\r\n0\r\n\r\n", encode([b"hello"], Form.UNSIGNED_TRAILER, {})):
        with pytest.raises(Refusals):
            decode(decoder_for(Form.SIGNED, 5), body)
    unsigned_trailer = (
        encode([b"hello"], Form.SIGNED, {})[:-2] + b"x-amz-checksum-crc32:AAAAAA==\r\n\r\n"
    )
    for form in (Form.SIGNED, Form.SIGNED_TRAILER):
        with pytest.raises(S3Error):
            decode(decoder_for(form, 5), unsigned_trailer)


def test_nothing_may_follow_the_trailers_signature() -> None:
    body = encode([b"hello"], Form.SIGNED_TRAILER, {"x-amz-checksum-crc32": "NhCmhg=="})
    with pytest.raises(S3Error, match="out of order"):
        decode(decoder_for(Form.SIGNED_TRAILER, 5), body[:-2] + b"x-amz-checksum-sha1:x\r\n\r\n")


def test_a_trailer_may_end_as_awss_document_shows() -> None:
    body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\n\r\n\r\n"
    decoder = decoder_for(Form.UNSIGNED_TRAILER, 5)
    assert decode(decoder, body) == b"hello"
    assert decoder.trailers == {"x-amz-checksum-crc32": "NhCmhg=="}


def test_endless_tiny_chunks_are_refused() -> None:
    decoder = decoder_for(Form.UNSIGNED_TRAILER, 1 << 30)
    with pytest.raises(S3Error) as refused:
        for _ in range(FREE_CHUNKS + 10):
            decoder.feed(b"1\r\nx\r\n")
    assert refused.value.code == "InvalidChunkSizeError"
    decoder = decoder_for(Form.UNSIGNED_TRAILER, 1 << 30)
    for _ in range(FREE_CHUNKS + 10):
        decoder.feed(b"%x\r\n" % CHUNK_BYTES_MIN + b"x" * CHUNK_BYTES_MIN + b"\r\n")


def test_a_decoder_is_made_whole() -> None:
    with pytest.raises(ValueError, match="seed"):
        Decoder(Form.SIGNED, 1, None)
    with pytest.raises(ValueError, match="seed"):
        Decoder(Form.UNSIGNED_TRAILER, 1, seed("0"))
