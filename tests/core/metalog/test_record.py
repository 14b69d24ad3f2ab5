"""The record codec: whole, byte by byte, with bytes after it, torn, damaged and recycled."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.metalog.record import (
    DROP,
    HEADER_BYTES,
    PAGE_BYTES,
    ROWS,
    LogReader,
    header,
    pack_rows,
    padding,
    read_record,
)

USE = 7
rows_of_a_record = st.lists(
    st.tuples(st.binary(max_size=40), st.none() | st.binary(max_size=90)), max_size=8
)


def record(sequence: int, rows: object, batch: int = 0, use: int = USE, kind: int = ROWS) -> bytes:
    payload = pack_rows(rows)
    return header(payload, use, batch, kind, sequence) + payload


def log_of(batches: list[list[object]], use: int = USE, first: int = 1) -> bytes:
    """A file of batches of records, each batch on a fresh page."""
    data = b""
    sequence = first
    for batch in batches:
        start = len(data) // PAGE_BYTES
        for rows in batch:
            data += record(sequence, rows, start, use)
            sequence += 1
        data += padding(len(data))
    return data


def row(number: int, size: int = 10) -> list[tuple[bytes, bytes]]:
    return [(b"key%d" % number, b"v" * size)]


@given(rows_of_a_record, st.integers(0, 2**63), st.binary(max_size=50))
def test_a_record_is_read_back_whole_and_with_bytes_after_it(
    rows: list[tuple[bytes, bytes | None]], sequence: int, after: bytes
) -> None:
    data = record(sequence, rows)
    for given_data in (data, data + after):
        found = read_record(given_data, 0, USE)
        assert found is not None
        assert [tuple(pair) for pair in found.rows] == rows
        assert (found.sequence, found.kind, found.use) == (sequence, ROWS, USE)
        assert found.end == len(data)


@given(rows_of_a_record)
def test_a_record_cut_short_anywhere_is_none(rows: list[tuple[bytes, bytes | None]]) -> None:
    data = record(3, rows)
    for length in range(len(data)):
        assert read_record(data[:length], 0, USE) is None
        torn = data[:length] + bytes(len(data) - length)
        assert torn == data or read_record(torn, 0, USE) is None


def test_a_record_with_any_bit_flipped_is_none() -> None:
    data = record(3, row(1))
    for byte in range(len(data)):
        for bit in range(8):
            bad = bytearray(data)
            bad[byte] ^= 1 << bit
            assert read_record(bad, 0, USE) is None


def test_a_record_of_another_use_is_none() -> None:
    assert read_record(record(3, row(1), use=USE - 1), 0, USE) is None


def test_a_drop_is_told_from_rows() -> None:
    found = read_record(record(1, [(b"a", b"b")], kind=DROP), 0, USE)
    assert found is not None and found.kind == DROP


@given(st.lists(st.lists(rows_of_a_record, min_size=1, max_size=4), max_size=5))
def test_a_log_is_read_back(batches: list[list[object]]) -> None:
    for after in (b"", bytes(3 * PAGE_BYTES)):
        reader = LogReader(log_of(batches) + after, USE)
        found = [[tuple(pair) for pair in record.rows] for record in reader]
        assert found == [rows for batch in batches for rows in batch]
        assert not reader.damage


def test_records_that_fill_their_page_exactly_are_all_read() -> None:
    room = PAGE_BYTES - HEADER_BYTES - len(pack_rows(row(1, 1000))) + 1000
    data = log_of([[row(1, room)], [row(2, room), row(3, room)], [row(4)]])
    assert len(data) == 4 * PAGE_BYTES
    assert [r.sequence for r in LogReader(data, USE)] == [1, 2, 3, 4]


def test_what_an_earlier_use_left_behind_is_not_read() -> None:
    old = log_of([[row(n)] for n in range(6)], use=USE - 1, first=1)
    new = log_of([[row(90)], [row(91)]], first=7)
    reader = LogReader(new + old[len(new) :], USE)
    assert [r.sequence for r in reader] == [7, 8]
    assert not reader.damage and reader.end <= len(new)


def test_a_torn_last_batch_is_cut_at_its_first_bad_record_whatever_is_left_of_it() -> None:
    whole = log_of([[row(1)], [row(n, 700) for n in range(2, 30)]])
    chance = random.Random(5)
    lengths = set()
    for _ in range(300):
        torn = bytearray(whole)
        for sector in range(PAGE_BYTES, len(whole), 512):
            if chance.random() < 0.2:
                torn[sector : sector + 512] = bytes(512)
        reader = LogReader(torn, USE)
        found = [r.sequence for r in reader]
        assert found == list(range(1, len(found) + 1))
        assert not reader.damage
        lengths.add(len(found))
    assert len(lengths) > 5


def test_a_bad_record_before_a_later_batch_is_damage_and_the_rest_is_still_read() -> None:
    batches: list[list[object]] = [[row(1), row(2)], [row(3), row(4, 6000), row(5)], [row(6)]]
    whole = log_of(batches)
    for victim in range(6):
        data = bytearray(whole)
        place = whole.index(b"key%d" % (victim + 1))
        data[place] ^= 1
        reader = LogReader(data, USE)
        found = [r.sequence for r in reader]
        if victim == 5:  # the last batch: as good as torn
            assert found == [1, 2, 3, 4, 5] and not reader.damage
        else:
            assert reader.damage, f"record {victim + 1}"
            assert victim + 1 not in found and 6 in found
            assert found == sorted(found)


def test_a_record_that_claims_a_batch_beyond_itself_is_none() -> None:
    assert read_record(record(1, row(1), batch=1), 0, USE) is None


@given(st.binary(max_size=300))
def test_noise_is_no_log(noise: bytes) -> None:
    reader = LogReader(noise, USE)
    assert list(reader) == [] and not reader.damage
