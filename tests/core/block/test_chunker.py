"""The chunker against plain concatenation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.block.chunker import SMALL_BYTES, Chunker
from garage_lite.core.ports import Buffer

_PATTERN = bytes(range(251)) * 2000


def joined(parts: list[Buffer]) -> bytes:
    return b"".join(bytes(part) for part in parts)


@given(
    st.integers(1, 5000),
    st.lists(st.integers(0, 9000), max_size=30),
    st.sets(st.integers(0, 30)),
)
def test_blocks_are_the_stream_cut_at_the_block_size(
    block_bytes: int, lengths: list[int], cuts: set[int]
) -> None:
    chunker = Chunker(block_bytes)
    expected = b""
    blocks: list[bytes] = []
    for index, length in enumerate(lengths):
        chunk = _PATTERN[index : index + length]
        expected += chunk
        full = [joined(parts) for parts in chunker.feed(chunk)]
        assert all(len(block) <= block_bytes for block in full)
        assert all(len(block) == block_bytes for block in full)
        blocks += full
        assert chunker.held < block_bytes
        if index in cuts:
            blocks.append(joined(chunker.cut()))
            assert chunker.held == 0
    blocks.append(joined(chunker.cut()))
    assert b"".join(blocks) == expected
    assert chunker.cut() == []


def test_large_chunks_are_not_copied() -> None:
    chunker = Chunker(4 * SMALL_BYTES)
    chunk = bytes(3 * SMALL_BYTES)
    assert chunker.feed(chunk) == []
    (block,) = chunker.feed(chunk)
    assert block[0] is chunk
    assert isinstance(block[1], memoryview) and block[1].obj is chunk


def test_single_bytes_are_gathered_into_long_parts() -> None:
    chunker = Chunker(4 * SMALL_BYTES)
    for _ in range(2 * SMALL_BYTES + 5):
        assert not chunker.feed(b"x")
    assert [len(part) for part in chunker.cut()] == [SMALL_BYTES, SMALL_BYTES, 5]
