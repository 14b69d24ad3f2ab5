"""Blocks, separators, bloom filters and the manifest: bytes that must come back or be refused."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.errors import DamagedRow, DataDirError, StorageFailed
from garage_lite.core.metalog.bloom import MASKS, fill, key_hash, probe, word_count
from garage_lite.core.metalog.cache import ByteCache
from garage_lite.core.metalog.manifest import (
    Manifest,
    SegmentEntry,
    decode_manifest,
    encode_manifest,
)
from garage_lite.core.metalog.segment import common_prefix, decode_block, encode_block, separator

COMPRESSOR = zstandard.ZstdCompressor(level=-1)
DECOMPRESSOR = zstandard.ZstdDecompressor()


@given(st.dictionaries(st.binary(max_size=6), st.none() | st.binary(max_size=90), min_size=1))
def test_a_block_comes_back(rows: dict[bytes, bytes | None]) -> None:
    keys = sorted(rows)
    data = encode_block(keys, [rows[key] for key in keys], 77, COMPRESSOR)
    prefix, suffixes, values = decode_block(data, 77, DECOMPRESSOR)
    assert [prefix + suffix for suffix in suffixes] == keys
    assert list(values) == [rows[key] for key in keys]


def test_a_block_with_any_bit_flipped_cut_or_elsewhere_is_refused() -> None:
    data = encode_block([b"a", b"b"], [b"x" * 100, None], 77, COMPRESSOR)
    for byte in range(len(data)):
        bad = bytearray(data)
        bad[byte] ^= 4
        with pytest.raises(DamagedRow):
            decode_block(bytes(bad), 77, DECOMPRESSOR)
        with pytest.raises(DamagedRow):
            decode_block(data[:byte], 77, DECOMPRESSOR)
    with pytest.raises(DamagedRow):
        decode_block(data, 78, DECOMPRESSOR)


@given(st.binary(max_size=8), st.binary(max_size=8))
def test_common_prefix_and_separator(one: bytes, other: bytes) -> None:
    shared = common_prefix(one, other)
    assert one[:shared] == other[:shared]
    assert shared in (len(one), len(other)) or one[shared] != other[shared]
    if one < other:
        between = separator(one, other)
        assert one < between <= other
        assert other.startswith(between)
        assert not one < between[:-1]


def test_masks_hold_five_bits_and_differ() -> None:
    assert {mask.bit_count() for mask in MASKS} == {5}
    assert len(set(MASKS)) > 4000


def test_a_filter_knows_all_its_keys_and_few_others() -> None:
    suffix = {0x10: 4}
    keys = [b"\x10key%06dtail" % n for n in range(5000)]
    hashes = array("I", [key_hash(key, suffix) for key in keys])
    words = array("Q", bytes(8 * word_count(len(keys))))
    for _ in fill(words, hashes):
        pass

    def holds(key: bytes) -> bool:
        position, mask = probe(key_hash(key, suffix))
        return words[position * len(words) >> 32] & mask == mask

    assert all(map(holds, keys))
    assert all(holds(key[:-4] + b"TAIL") for key in keys), "the suffix is left out"
    wrong = sum(holds(b"\x10other%06dtail" % n) for n in range(20_000))
    assert wrong < 600, "more than 3 % of foreign keys pass"


def test_a_cache_keeps_what_was_asked_for_last() -> None:
    cache: ByteCache[str] = ByteCache(100)
    for number in range(10):
        cache.put(number, "x", 10)
    assert cache.get(0) == "x"
    cache.put(10, "y", 10)
    assert cache.get(1) is None and cache.get(0) == "x" and cache.bytes == 100
    cache.put(11, "z", 101)
    assert cache.get(11) is None and cache.bytes == 100


MANIFEST = Manifest(
    b"i" * 16,
    12,
    34,
    ("a log file",),
    (
        SegmentEntry(1, 2, 3, 4, 5, b"a", b"z", b"k", ((b"x", b"y"),)),
        SegmentEntry(9, 8, 0, 4, 5, b"a", b"z"),
    ),
)


def test_a_manifest_comes_back_and_no_damaged_one_does() -> None:
    data = encode_manifest(MANIFEST)
    assert decode_manifest(data) == MANIFEST
    for byte in range(len(data)):
        bad = bytearray(data)
        bad[byte] ^= 1
        with pytest.raises(StorageFailed):
            decode_manifest(bytes(bad))
        with pytest.raises(StorageFailed):
            decode_manifest(data[:byte])
    with pytest.raises(StorageFailed):
        decode_manifest(data + b"x")


def test_a_newer_manifest_is_refused_in_plain_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garage_lite.core.metalog.manifest.FORMAT", 2)
    data = encode_manifest(replace(MANIFEST, sequence=1))
    monkeypatch.undo()
    with pytest.raises(DataDirError, match="newer version of garage-lite"):
        decode_manifest(data)
