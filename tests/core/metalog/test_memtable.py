"""The memtable against a dict, and what a scan meets while the table grows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.metalog.memtable import SCAN_ROWS, SETTLE_EVERY, Memtable

keys = st.binary(min_size=1, max_size=3)
rows = st.dictionaries(keys, st.none() | st.binary(max_size=3), max_size=30)
drops = st.tuples(keys, keys).map(sorted)


def scanned(table: Memtable, start: bytes, end: bytes | None) -> list[tuple[bytes, bytes | None]]:
    found: list[tuple[bytes, bytes | None]] = []
    for some, values in table.blocks(start, end):
        assert some
        found += zip(some, values, strict=True)
    return found


@given(st.lists(rows | drops, max_size=8), keys, keys)
def test_it_is_a_sorted_dict(
    steps: list[dict[bytes, bytes | None] | list[bytes]], start: bytes, end: bytes
) -> None:
    table = Memtable()
    model: dict[bytes, bytes | None] = {}
    for step in steps:
        if isinstance(step, dict):
            table.update(step, 10)
            model.update(step)
        else:
            table.drop(step[0], step[1])
            model = {k: v for k, v in model.items() if not step[0] <= k < step[1]}
        assert table.keys() == sorted(model)
    assert scanned(table, b"", None) == sorted(model.items())
    within = [(k, v) for k, v in sorted(model.items()) if start <= k < end]
    assert scanned(table, start, end) == within
    assert table.with_prefix(start) == [k for k in sorted(model) if k.startswith(start)]
    assert len(table) == len(model)


def test_many_keys_in_any_order_are_settled() -> None:
    table = Memtable()
    numbers = [n * 7919 % 5000 for n in range(5000)]
    for start in range(0, 5000, 100):
        table.update({b"%05d" % n: b"" for n in numbers[start : start + 100]}, 1)
    assert len(table.keys()) > SETTLE_EVERY
    assert table.keys() == [b"%05d" % n for n in range(5000)]
    assert table.bytes == 50


def test_a_scan_meets_rows_added_ahead_of_it() -> None:
    table = Memtable()
    table.update({b"%04d" % n: b"" for n in range(0, 4 * SCAN_ROWS, 2)}, 1)
    scan = table.blocks(b"", None)
    first, _ = next(scan)
    table.update({first[0] + b"x": b"", first[-1] + b"x": b"", b"9999": b""}, 1)
    rest = [key for some, _ in scan for key in some]
    assert first[-1] + b"x" in rest and b"9999" in rest
    assert first[0] + b"x" not in rest
    assert rest == sorted(rest)
