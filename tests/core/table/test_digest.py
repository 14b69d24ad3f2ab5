"""Digests say whether two replicas hold the same rows, however they came to hold them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.errors import InvalidArgument
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.table.digest import (
    DIGEST_BYTES,
    TABLES,
    Digest,
    Digests,
    Place,
    Realm,
    bucket_of,
    compare,
    place_of,
    row_hash,
)

PLACE = Place(Realm.METADATA, 7)
keys = st.builds(
    lambda table, own: bytes((table, 7)) + own,
    st.sampled_from(TABLES[Realm.METADATA]),
    st.binary(min_size=1, max_size=3),
)
values = st.binary(max_size=3)
rows = st.dictionaries(keys, values, max_size=30)


def digest_of(held: dict[bytes, bytes]) -> Digest:
    digest = Digest()
    digest.add(held.items())
    return digest


@given(rows, rows)
def test_equal_rows_equal_digests_and_only_those(
    mine: dict[bytes, bytes], theirs: dict[bytes, bytes]
) -> None:
    differing = digest_of(mine).differing(digest_of(theirs))
    expected = {bucket_of(key) for key, _ in mine.items() ^ theirs.items()}
    assert set(differing) == expected


@given(st.lists(st.tuples(keys, st.none() | values), max_size=60))
def test_changes_lead_where_the_rows_lead(changes: list[tuple[bytes, bytes | None]]) -> None:
    held: dict[bytes, bytes] = {}
    digest = Digest()
    for key, value in changes:
        digest.change(key, held.get(key), value)
        held.pop(key, None)
        if value is not None:
            held[key] = value
    assert digest.encode() == digest_of(held).encode()


def test_encoding() -> None:
    digest = digest_of({b"\x10\x07a": b"1", b"\x10\x07b": b"2"})
    assert Digest(digest.encode()).encode() == digest.encode()
    assert len(digest.encode()) == DIGEST_BYTES
    with pytest.raises(InvalidArgument):
        Digest(bytes(DIGEST_BYTES - 1))


def test_key_and_value_are_told_apart() -> None:
    assert row_hash(b"ab", b"c") != row_hash(b"a", b"bc")


@given(rows, rows)
def test_what_is_exchanged_makes_both_whole(
    mine: dict[bytes, bytes], theirs: dict[bytes, bytes]
) -> None:
    hashes = [{key: row_hash(key, value) for key, value in one.items()} for one in (mine, theirs)]
    difference = compare(*hashes)
    joined = dict(mine)
    for key in difference.pull:
        joined[key] = max(theirs[key], mine.get(key, b""))
    there = dict(theirs)
    for key in {*difference.push, *(k for k in difference.pull if joined[k] != theirs[k])}:
        there[key] = joined[key]
    assert (
        joined
        == there
        == {key: max(one.get(key, b"") for one in (mine, theirs)) for key in mine | theirs}
    )


def test_which_rows_are_compared() -> None:
    assert place_of(bytes((Table.BUCKET, 0)) + b"x") == Place(Realm.EVERYWHERE, 0)
    assert place_of(bytes((Table.BLOCK_REF, 9)) + b"x") == Place(Realm.DATA, 9)
    assert place_of(bytes((Table.OBJECT, 255)) + b"x") == Place(Realm.METADATA, 255)
    for table in (Table.INLINE, Table.COUNTER, Table.NODE, Table.CASCADE, Table.RESYNC):
        assert place_of(bytes((table, 7)) + b"x") is None


@given(st.integers(0, 255), st.sampled_from(Realm), st.binary(max_size=3))
def test_ranges_cover_exactly_the_place(partition: int, realm: Realm, own: bytes) -> None:
    place = Place(realm, 0 if realm is Realm.EVERYWHERE else partition)
    for table in Table:
        for at in {partition, place.partition}:
            key = bytes((table, at)) + own
            inside = any(start <= key < end for start, end in place.ranges())
            assert inside == (place_of(key) == place) or realm is Realm.EVERYWHERE


@pytest.mark.parametrize("seed", range(200))
def test_changes_during_the_first_count_are_counted_once(seed: int) -> None:
    chance = random.Random(seed)
    held = {bytes((Table.OBJECT, 7, chance.randrange(40))): b"0" for _ in range(20)}
    digests = Digests()

    def change() -> None:
        key = bytes((Table.OBJECT, 7, chance.randrange(40)))
        old, new = held.get(key), chance.choice([None, b"1", b"2"])
        held.pop(key, None)
        if new is not None:
            held[key] = new
        digests.changed(key, old, new)

    change()
    assert not digests.watches(b"\x10\x07")
    digests.begin(PLACE)
    assert digests.watches(b"\x10\x07")
    met = b""
    while True:
        for _ in range(chance.randrange(4)):
            change()
        batch = sorted((key, value) for key, value in held.items() if key > met)[:3]
        if not batch:
            break
        met = batch[-1][0]
        digests.met(PLACE, batch, met)
    assert digests.get(PLACE) is None
    digests.met(PLACE, [], b"\x10\x07\xff")
    digests.finish(PLACE)
    for _ in range(5):
        change()
    known = digests.get(PLACE)
    assert known is not None and known.encode() == digest_of(held).encode()
    digests.forget(lambda place: place == PLACE)
    assert digests.get(PLACE) is None


@pytest.mark.parametrize("partition", [0, 7, 255])
@pytest.mark.parametrize("realm", [Realm.METADATA, Realm.DATA])
def test_the_ranges_of_a_place_hold_its_rows_and_no_others(realm: Realm, partition: int) -> None:
    ranges = Place(realm, partition).ranges()
    assert ranges == sorted(ranges)
    for table in TABLES[realm]:
        for other in {partition, (partition + 1) % 256, (partition - 1) % 256}:
            for own in (b"\x00", b"\xff" * 60):
                key = bytes((table, other)) + own
                inside = [start <= key < end for start, end in ranges]
                assert sum(inside) == (other == partition)
