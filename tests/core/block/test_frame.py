"""How blocks look on disk."""

from __future__ import annotations

import random

import pytest
import zstandard
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.block import frame
from garage_lite.core.block.frame import BlockName, parse_name
from garage_lite.core.errors import BlockCorrupt
from garage_lite.core.ids import BlockHash
from garage_lite.core.limits import BLOCK_BYTES_MAX
from garage_lite.core.ports import Buffer

COMPRESSOR = zstandard.ZstdCompressor(level=1)
NOISE = random.Random(7).randbytes(1 << 20)
TEXT = b"".join(b"line %d of a text that repeats itself\n" % line for line in range(20_000))


def named(content: bytes, compressed: bool = False) -> BlockName:
    return BlockName(BlockHash(blake3(content).digest()), compressed)


def cut(content: bytes, size: int) -> list[Buffer]:
    return [content[at : at + size] for at in range(0, len(content), size)]


def packed(parts: list[Buffer]) -> bytes | None:
    stored = frame.compressed(parts, sum(map(len, parts)), COMPRESSOR)
    return None if stored is None else b"".join(stored)


@given(st.binary(min_size=32, max_size=32), st.booleans(), st.booleans())
def test_names_are_read_back(block: bytes, compressed: bool, corrupted: bool) -> None:
    name = BlockName(BlockHash(block), compressed, corrupted)
    assert parse_name(name.file_name()) == name
    digits = block.hex()
    assert name.path_in("/d").startswith(f"/d/{digits[:2]}/{digits[2:4]}/{digits}")


@pytest.mark.parametrize(
    "name",
    ["", "tmp", "garage-lite-marker", "a" * 63, "g" * 64, "A" * 64, "a" * 64 + ".zst.zst",
     "a" * 64 + ".corrupted.zst", "a" * 64 + ".corrupted.corrupted", " " + "a" * 63, "a" * 65],
)  # fmt: skip
def test_other_names_are_no_blocks(name: str) -> None:
    assert parse_name(name) is None


def test_leaves_number_the_folders_of_the_second_level() -> None:
    block = BlockHash(bytes.fromhex("ab0c") + bytes(30))
    assert frame.leaf_of(block) == 0xAB0C
    assert frame.leaf_path("/d", 0xAB0C) == "/d/ab/0c"
    assert frame.folder_path("/d", 0xAB0C) == "/d/ab"


@pytest.mark.parametrize("size", [1, 1000, 65_536, 1 << 20])
def test_content_that_shrinks_is_compressed_whatever_its_parts(size: int) -> None:
    stored = packed(cut(TEXT, size))
    assert stored is not None and len(stored) < len(TEXT) * 0.9
    assert frame.content(named(TEXT, compressed=True), stored) == TEXT


def test_content_that_does_not_shrink_by_a_tenth_stays_plain() -> None:
    assert packed(cut(NOISE, 65_536)) is None
    assert packed([NOISE[:1000]]) is None
    nearly = NOISE[: 1 << 17] + bytes(1 << 13)
    assert packed([nearly]) is None


def test_a_compressible_sample_does_not_decide_for_the_rest() -> None:
    """The pieces tried are text, the rest is noise: the whole is judged again."""
    piece = 1 << 18
    mixed = b"".join(
        bytes(frame.SAMPLE_PIECE_BYTES) + NOISE[: piece - frame.SAMPLE_PIECE_BYTES]
        for _ in range(4)
    )
    stored = packed([mixed])
    assert stored is None or len(stored) <= 0.9 * len(mixed)


@given(st.binary(max_size=300), st.integers(1, 50))
def test_small_blocks_survive_any_cut(content: bytes, size: int) -> None:
    stored = packed(cut(content * 3, size)) if content else None
    if stored is not None:
        assert frame.content(named(content * 3, compressed=True), stored) == content * 3


def test_the_parts_match_the_name_only_as_a_whole() -> None:
    block = named(TEXT).block
    assert frame.matches(block, cut(TEXT, 1000))
    assert not frame.matches(block, cut(TEXT[:-1], 1000))
    assert not frame.matches(block, [])


def test_every_changed_byte_of_a_plain_block_is_seen() -> None:
    content = bytes(range(64))
    for at in range(len(content)):
        bad = bytearray(content)
        bad[at] ^= 1
        with pytest.raises(BlockCorrupt):
            frame.content(named(content), bytes(bad))


def test_every_changed_missing_or_added_byte_of_a_compressed_block_is_seen() -> None:
    content = b"abcdefgh" * 60
    stored = packed([content])
    assert stored is not None
    name = named(content, compressed=True)
    damaged = [stored[:at] for at in range(len(stored))] + [stored + b"\x00", stored + stored]
    for at in range(len(stored)):
        bad = bytearray(stored)
        bad[at] ^= 0x10
        damaged.append(bytes(bad))
    survivors = 0
    for bad_bytes in damaged:
        try:
            survivors += frame.content(name, bad_bytes) == content
        except BlockCorrupt:
            continue
    # A flipped bit that the frame does not use may leave the content as it was; never wrong.
    assert survivors <= 2


def test_a_frame_that_claims_too_much_is_not_expanded() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(BLOCK_BYTES_MAX + 1))
    with pytest.raises(BlockCorrupt, match="claims"):
        frame.content(named(b"x", compressed=True), bomb)


def test_a_frame_without_its_size_is_refused() -> None:
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 100)
    with pytest.raises(BlockCorrupt):
        frame.content(named(b"x" * 100, compressed=True), unsized)
