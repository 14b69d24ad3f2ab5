"""Digests of a partition: what two replicas compare to find the rows in which they differ.

Each partition of a realm has BUCKETS numbers of 64 bits. A row belongs to the bucket that its key
says; a bucket's number is the exclusive or of the hashes of its rows, so a row that changes takes
its old hash out and puts its new one in, in any order, and no tree is rewritten. Two replicas with
the same rows have the same numbers; where a number differs, its keys and hashes are compared.

Only rows that replicas must agree on count: not those of one node alone, nor counters, nor inline
bytes, which travel with their version and have no life of their own.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Final, NamedTuple
from zlib import crc32

from blake3 import blake3

from garage_lite.core.errors import InvalidArgument
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.table.schema import is_everywhere, is_local

BUCKETS: Final = 64
"""A partition of 100,000 rows that differs in one sends the keys of about 1,600."""
DIGEST_BYTES: Final = 8 * BUCKETS
HASH_BYTES: Final = 8


class Realm(IntEnum):
    """Rows that have the same owners, partition by partition."""

    EVERYWHERE = 0
    """Buckets, aliases, keys, tokens: one partition, on every node."""
    METADATA = 1
    DATA = 2
    """References to blocks, which follow the blocks."""


TABLES: Final = {
    Realm.EVERYWHERE: (Table.BUCKET, Table.ALIAS, Table.KEY, Table.TOKEN),
    Realm.METADATA: (
        Table.OBJECT,
        Table.UPLOAD,
        Table.PART,
        Table.PAGE,
        Table.PART_LIST,
        Table.PENDING,
    ),
    Realm.DATA: (Table.BLOCK_REF,),
}
"""Whose rows are compared, in the order of their keys."""
_METADATA: Final = frozenset(TABLES[Realm.METADATA])


class Place(NamedTuple):
    """One partition of one realm; of EVERYWHERE there is only partition 0."""

    realm: Realm
    partition: int

    def ranges(self) -> list[tuple[bytes, bytes]]:
        """The ranges of row keys that make it up, ascending."""
        at = self.partition
        return [
            (bytes((table, at)), ((table << 8) + at + 1).to_bytes(2, "big"))
            for table in TABLES[self.realm]
        ]


def place_of(key: bytes) -> Place | None:
    """Where a row is compared; None if it is not."""
    table = key[0]
    if table in _METADATA:
        return Place(Realm.METADATA, key[1])
    if table == Table.BLOCK_REF:
        return Place(Realm.DATA, key[1])
    if is_everywhere(key) and not is_local(key):
        return Place(Realm.EVERYWHERE, 0)
    return None


def bucket_of(key: bytes) -> int:
    return crc32(key) % BUCKETS


def row_hash(key: bytes, value: bytes) -> bytes:
    """HASH_BYTES that stand for the row."""
    return blake3(len(key).to_bytes(2, "big") + key + value).digest(HASH_BYTES)


class Digest:
    """The numbers of one partition."""

    __slots__ = ("numbers",)

    def __init__(self, encoded: bytes = bytes(DIGEST_BYTES)) -> None:
        """Raises InvalidArgument."""
        if len(encoded) != DIGEST_BYTES:
            raise InvalidArgument("a digest has a wrong length")
        self.numbers = array("Q", encoded)

    def change(self, key: bytes, old: bytes | None, new: bytes | None) -> None:
        """The row `key` was `old` and is `new`; None: it is not there."""
        number = 0
        for value in (old, new):
            if value is not None:
                number ^= int.from_bytes(row_hash(key, value), "big")
        self.numbers[bucket_of(key)] ^= number

    def add(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        for key, value in rows:
            self.change(key, None, value)

    def differing(self, other: Digest) -> list[int]:
        """The buckets whose rows are not the same."""
        pairs = enumerate(zip(self.numbers, other.numbers, strict=True))
        return [bucket for bucket, (mine, theirs) in pairs if mine != theirs]

    def encode(self) -> bytes:
        """DIGEST_BYTES, for a peer or the disk: the same on every machine."""
        numbers = array("Q", self.numbers)
        if _BIG_ENDIAN:
            numbers.byteswap()
        return numbers.tobytes()


_BIG_ENDIAN: Final = array("H", [1]).tobytes() == b"\x00\x01"


class Difference(NamedTuple):
    """What two replicas must tell each other about some buckets."""

    pull: list[bytes]
    """Keys of rows that only the other has, or that differ."""
    push: list[bytes]
    """Keys of rows that only this one has. Those that differ are joined here first: the result
    goes back only if it is not what the other has."""


def compare(mine: dict[bytes, bytes], theirs: dict[bytes, bytes]) -> Difference:
    """From key -> row hash of the same buckets on both sides."""
    pull = [key for key, hashed in theirs.items() if mine.get(key) != hashed]
    push = [key for key in mine if key not in theirs]
    return Difference(sorted(pull), sorted(push))


class Digests:
    """The digests of a node, each computed when it is first asked for and kept from then on.

    `begin`, then `met` for the rows of the place in ascending order, then `finish`; changes that
    happen meanwhile count exactly once, whether the rows were met before or after them.
    """

    def __init__(self) -> None:
        self._known: dict[Place, Digest] = {}
        self._begun: dict[Place, tuple[Digest, bytes]] = {}
        """The digest so far, and the last key it covers."""

    def get(self, place: Place) -> Digest | None:
        """None: it must be computed first."""
        return self._known.get(place)

    def begin(self, place: Place) -> None:
        self._begun[place] = (Digest(), b"")

    def begun(self, place: Place) -> bool:
        """Whether it is being computed; not any more once it was forgotten."""
        return place in self._begun

    def met(self, place: Place, rows: Iterable[tuple[bytes, bytes]], up_to: bytes) -> None:
        """`rows` are all that are there now, after the last ones met and up to `up_to`."""
        digest, _ = self._begun[place]
        digest.add(rows)
        self._begun[place] = (digest, up_to)

    def finish(self, place: Place) -> Digest:
        digest, _ = self._begun.pop(place)
        self._known[place] = digest
        return digest

    def changed(self, key: bytes, old: bytes | None, new: bytes | None) -> None:
        """A row has changed, and whoever reads rows now sees it so."""
        place = place_of(key)
        if place is None or old == new:
            return
        digest = self._known.get(place)
        if digest is not None:
            digest.change(key, old, new)
        elif place in self._begun:
            digest, up_to = self._begun[place]
            if key <= up_to:
                digest.change(key, old, new)

    def watches(self, key: bytes) -> bool:
        """Whether `changed` would do anything: what the old row was need not be known else."""
        place = place_of(key)
        return place is not None and (place in self._known or place in self._begun)

    def forget(self, matches: Callable[[Place], bool]) -> None:
        """Of places that this node no longer holds, or whose rows went in one sweep."""
        for places in (self._known, self._begun):
            for place in [place for place in places if matches(place)]:
                del places[place]
