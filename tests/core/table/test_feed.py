"""The feed of changes against a list of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.table.feed import Feed

KEYS = st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), max_size=30)


@given(KEYS, st.integers(1, 6))
def test_tells_what_changed_since_or_that_it_can_not(keys: list[bytes], rows_max: int) -> None:
    feed = Feed(rows_max)
    for key in keys:
        feed.changed(key)
    assert feed.number == len(keys)
    for number in range(len(keys) + 1):
        told = feed.since(number)
        changed = set(keys[number:])
        if told is None:
            assert len(set(keys)) > rows_max, "it has forgotten nothing"
        else:
            assert set(told) == changed
            assert len(told) == len(changed), "a row is told twice"


def test_a_reader_that_keeps_up_is_always_told() -> None:
    feed = Feed(2)
    for key in (b"a", b"b", b"c", b"a", b"d"):
        before = feed.number
        feed.changed(key)
        assert feed.since(before) == [key]


def test_a_number_that_was_never_given_tells_nothing() -> None:
    feed = Feed(2)
    feed.changed(b"a")
    assert feed.since(2) is None
    assert feed.since(-1) is None
