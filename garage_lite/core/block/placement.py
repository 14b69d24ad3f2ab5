"""Which data directory holds a block: slices by hash, in proportion to the capacities.

The hashes fall into 1,024 slices (Garage's `data_layout`); each slice has one primary directory,
where new blocks go, and remembers the former ones, where older blocks may still be. A change of
directories or capacities moves as few slices as possible: a directory keeps its slices up to its
new share, what is above that goes to those below theirs. Blocks follow lazily (`rebalance`).

Directories are known by the random id in their marker file, never by their path: a disk may be
mounted elsewhere tomorrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

from garage_lite.core.codec import decode, encode
from garage_lite.core.ids import BlockHash

TAG = 1
SLICES: Final = 1024
DIRECTORIES_MAX: Final = 255
ID_BYTES: Final = 16
_NOWHERE: Final = 255


def slice_of(block: BlockHash) -> int:
    """The slice of a block: bytes 2 and 3 of its hash (0 and 1 name the folders)."""
    return int.from_bytes(block[2:4], "big") % SLICES


@dataclass(frozen=True, slots=True)
class Share:
    """A directory as placement sees it."""

    id: bytes
    weight: int
    """Its capacity in any unit common to all; 0 for a directory that takes no new blocks."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The slices' directories, by id."""

    primary: tuple[bytes, ...]
    """One id a slice."""
    former: tuple[tuple[bytes, ...], ...]
    """For each slice the ids where its older blocks may be, the latest first."""

    def home(self, block: BlockHash) -> bytes:
        """The id of the directory where a block belongs."""
        return self.primary[slice_of(block)]

    def search_order(self, block: BlockHash, ids: Iterable[bytes]) -> list[bytes]:
        """All of `ids`, the likeliest place of the block first.

        The last ones are where a block lies that found its home full when it was written.
        """
        number = slice_of(block)
        rank = {self.primary[number]: 0}
        for place, id in enumerate(self.former[number], 1):
            rank.setdefault(id, place)
        return sorted(ids, key=lambda id: rank.get(id, len(rank)))

    def shares(self) -> dict[bytes, int]:
        """How many slices each directory is the primary of."""
        count: dict[bytes, int] = {}
        for id in self.primary:
            count[id] = count.get(id, 0) + 1
        return count

    def settled(self) -> Placement:
        """After a whole rebalance: nothing is left in former places."""
        return replace(self, former=((),) * SLICES)

    def ids(self) -> set[bytes]:
        """Every directory it names."""
        return {*self.primary, *chain.from_iterable(self.former)}

    def encode(self) -> bytes:
        ids = sorted(self.ids())
        number = {id: index for index, id in enumerate(ids)}
        former = [
            [slice, [number[id] for id in places]]
            for slice, places in enumerate(self.former)
            if places
        ]
        return encode(TAG, [ids, bytes(number[id] for id in self.primary), former])

    @classmethod
    def decode(cls, data: bytes) -> Placement:
        ids, primary, former = decode(data, TAG)
        places: list[tuple[bytes, ...]] = [()] * SLICES
        for slice, indexes in former:
            places[slice] = tuple(ids[index] for index in indexes)
        return cls(tuple(ids[index] for index in primary), tuple(places))


def quotas(shares: Sequence[Share]) -> dict[bytes, int]:
    """How many slices each directory gets: by largest remainder, ties to the smaller id.

    Raises ValueError if no directory takes blocks, if an id appears twice, or if there are more
    directories than a placement can name.
    """
    if len({share.id for share in shares}) != len(shares) or len(shares) > DIRECTORIES_MAX:
        raise ValueError("directories must be distinct, and at most 255")
    total = sum(share.weight for share in shares)
    if total <= 0:
        raise ValueError("no directory takes blocks")
    result = {share.id: share.weight * SLICES // total for share in shares}
    left = SLICES - sum(result.values())
    by_remainder = sorted(shares, key=lambda s: (-(s.weight * SLICES % total), s.id))
    for share in by_remainder[:left]:
        result[share.id] += 1
    return result


def place(shares: Sequence[Share], present: Placement | None = None) -> Placement:
    """The placement over these directories that moves the fewest slices from the present one.

    Directories that are not named any more are forgotten; those with weight 0 keep what they
    have but as former places only. Deterministic. Raises ValueError as `quotas` does.
    """
    quota = quotas(shares)
    if (
        present is not None
        and present.ids() <= quota.keys()
        and present.shares() == {id: count for id, count in quota.items() if count}
    ):
        return present
    old_primary = present.primary if present else (b"",) * SLICES
    old_former = present.former if present else ((),) * SLICES
    primary: list[bytes | None] = []
    room = dict(quota)
    for id in old_primary:
        if room.get(id, 0) > 0:
            room[id] -= 1
            primary.append(id)
        else:
            primary.append(None)
    vacancies = _interleaved(room)
    chosen = tuple(next(vacancies) if id is None else id for id in primary)
    former = tuple(
        tuple(
            id
            for id in dict.fromkeys((old_primary[number], *old_former[number]))
            if id in quota and id != chosen[number]
        )
        for number in range(SLICES)
    )
    return Placement(chosen, former)


def _interleaved(room: dict[bytes, int]) -> Iterator[bytes]:
    """Each id as often as it has room, evenly mixed, so that no run of slices shares a disk."""
    turns = [
        ((2 * turn + 1) / (2 * count), id)
        for id, count in room.items()
        if count > 0
        for turn in range(count)
    ]
    return iter([id for _, id in sorted(turns)])
