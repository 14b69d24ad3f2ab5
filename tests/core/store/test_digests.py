"""Digests against known answers, and combination against the whole."""

from __future__ import annotations

import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.store.digests import (
    DIGEST_BYTES,
    MD5,
    Digests,
    combine,
    combines,
    composite,
    new_digest,
)

CHECK = b"123456789"
KNOWN = {
    # The check values of the catalogue of parametrised CRC algorithms.
    "CRC32": "cbf43926",
    "CRC32C": "e3069283",
    "CRC64NVME": "ae8b14860a799888",
    "SHA1": "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
    "SHA256": "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
    MD5: "25f9e794323b453885f5181f1b624d0b",
}


def digest(name: str, data: bytes) -> bytes:
    running = new_digest(name)
    running.update(data)
    return running.digest()


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_answers_however_the_stream_is_cut(name: str) -> None:
    for cut in range(len(CHECK) + 1):
        digests = Digests([name])
        digests.update([CHECK[:cut], memoryview(b""), bytearray(CHECK[cut:])])
        assert digests.results()[name].hex() == KNOWN[name]
        assert digests.size == len(CHECK)
    assert len(bytes.fromhex(KNOWN[name])) == DIGEST_BYTES.get(name, 16)


def test_several_at_once() -> None:
    digests = Digests(KNOWN)
    digests.update([CHECK])
    assert {name: value.hex() for name, value in digests.results().items()} == KNOWN


def test_of_nothing() -> None:
    assert Digests(["CRC64NVME"]).results() == {"CRC64NVME": bytes(8)}
    assert Digests([MD5]).results()[MD5] == hashlib.md5(b"").digest()
    assert combine("CRC32C", []) == bytes(4)


@pytest.mark.parametrize("name", ["CRC32", "CRC32C", "CRC64NVME"])
@given(parts=st.lists(st.binary(max_size=300), max_size=12))
def test_combined_parts_are_the_whole(name: str, parts: list[bytes]) -> None:
    values = [(digest(name, part), len(part)) for part in parts]
    assert combine(name, values) == digest(name, b"".join(parts))


def test_combination_of_long_parts() -> None:
    part = bytes(range(256)) * 40_000
    whole = zlib.crc32(part * 3).to_bytes(4, "big")
    assert combine("CRC32", [(digest("CRC32", part), len(part))] * 3) == whole


def test_composite_is_the_digest_of_digests() -> None:
    values = [hashlib.sha256(b"a").digest(), hashlib.sha256(b"b").digest()]
    assert composite("SHA256", values) == hashlib.sha256(b"".join(values)).digest()
    assert not combines("SHA256") and combines("CRC32")


def test_an_unknown_name() -> None:
    with pytest.raises(KeyError):
        new_digest("MD4")
