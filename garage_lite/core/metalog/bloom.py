"""A bloom filter by 64-bit words: one look into memory answers "surely not here".

A key's crc32, spread by an odd multiplier, chooses one word and one of 4096 masks of five bits;
at 16 bits a key about 1 % of foreign keys pass. (Putze, Sanders, Singler, "Cache-, Hash- and
Space-Efficient Bloom Filters", 2007: blocks of one word.) What is hashed is the key without its
table's suffix, so that one filter answers for all versions of an object.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from zlib import crc32

BITS_PER_KEY: Final = 16
_MASKS: Final = 4096
_BITS_PER_MASK: Final = 5
_STEP: Final = 512
"""Keys entered between two pauses."""
_SPREAD: Final = 0x9E3779B97F4A7C15
_WORD: Final = (1 << 64) - 1


def _mask(seed: int) -> int:
    """Five different bits, the same on every machine."""
    mask = 0
    state = seed
    while mask.bit_count() < _BITS_PER_MASK:
        state = (state * 6364136223846793005 + 1442695040888963407) & _WORD
        mask |= 1 << (state >> 58)
    return mask


MASKS: Final = tuple(_mask(seed) for seed in range(_MASKS))


def key_hash(key: bytes, suffix_bytes: Mapping[int, int]) -> int:
    """What is kept of a key while a filter is built: the crc32 of its part before the suffix."""
    suffix = suffix_bytes.get(key[0], 0) if key else 0
    return crc32(key[:-suffix]) if suffix else crc32(key)


def probe(hashed: int) -> tuple[int, int]:
    """(position, mask) of a hash: word `position * words >> 32` holds all bits of `mask` when
    the key may be there."""
    spread = hashed * _SPREAD & _WORD
    return spread >> 32, MASKS[spread >> 20 & _MASKS - 1]


def word_count(keys: int) -> int:
    return max(1, keys * BITS_PER_KEY // 64)


def fill(words: array[int], hashes: Sequence[int]) -> Iterator[None]:
    """Enter the hashes into zeroed words; yields now and then so that the caller may pause."""
    count = len(words)
    masks = MASKS
    for start in range(0, len(hashes), _STEP):
        for hashed in hashes[start : start + _STEP]:
            spread = hashed * _SPREAD & _WORD
            words[(spread >> 32) * count >> 32] |= masks[spread >> 20 & 4095]
        yield
