"""Which directory is which, in words for the person who starts the node."""

from __future__ import annotations

from itertools import count

import pytest

from garage_lite.core.block.markers import (
    FORGOTTEN_MAX,
    DataDirectory,
    Decision,
    Found,
    Remembered,
    decode_remembered,
    encode_remembered,
    made,
    marker_id,
    marker_text,
    recognise,
    remember,
)
from garage_lite.core.errors import DataDirError

A, B, C = (letter * 16 for letter in (b"a", b"b", b"c"))
NOTHING = Found(exists=True, marker=None)
KNOWN = {A: Remembered("/a", True)}


def with_marker(id: bytes) -> Found:
    return Found(True, marker_text(id, "me"))


def decide(
    found: Found, known: dict[bytes, Remembered] | None = None, read_only: bool = False
) -> Decision:
    """What `/a` is, beside a writable `/b` that is in order."""
    directories = [DataDirectory("/a", 1, read_only), DataDirectory("/b", 1)]
    remembered = {B: Remembered("/b", True), **(known or {})}
    numbers = count()
    here = [found, with_marker(B)]
    return recognise(directories, here, remembered, lambda: b"new%013d" % next(numbers))[0]


def test_a_new_directory_gets_a_marker() -> None:
    decision = decide(NOTHING)
    assert decision.new and decision.id.startswith(b"new")


def test_a_known_directory_is_known_again() -> None:
    assert decide(with_marker(A), KNOWN) == Decision(A, DataDirectory("/a", 1), False)


def test_a_directory_may_be_mounted_elsewhere() -> None:
    assert decide(with_marker(A), {A: Remembered("/old", True)}).id == A


def test_a_start_that_was_cut_short_is_taken_up() -> None:
    half = {A: Remembered("/a", False)}
    assert decide(NOTHING, half) == Decision(A, DataDirectory("/a", 1), True)
    assert decide(with_marker(A), half) == Decision(A, DataDirectory("/a", 1), False)


def test_an_empty_marker_takes_a_directory_over() -> None:
    for text in ("", "\n"):
        assert decide(Found(True, text), KNOWN).new
        assert decide(Found(True, text), KNOWN).id != A


@pytest.mark.parametrize(
    ("found", "known", "words"),
    [
        (NOTHING, KNOWN, "Is its disk mounted"),
        (Found(False, None), KNOWN, "Is its disk mounted"),
        (with_marker(C), KNOWN, "wrong disk is mounted at /a"),
        (with_marker(C), {}, "another Garage Lite node"),
        (with_marker(B), KNOWN, "the same directory"),
        (Found(True, "hello\n"), KNOWN, "not a marker"),
        (Found(True, marker_text(A, "me").replace("format 1", "format 2")), KNOWN, "newer version"),
        (Found(True, marker_text(A, "me").replace("id 61", "id zz")), KNOWN, "damaged"),
        (Found(True, marker_text(A[:4], "me")), KNOWN, "damaged"),
    ],
)
def test_anything_else_is_refused(found: Found, known: dict[bytes, Remembered], words: str) -> None:
    with pytest.raises(DataDirError, match=words) as refused:
        decide(found, known)
    assert "/a" in refused.value.message


def test_a_read_only_directory_must_be_known() -> None:
    assert not decide(with_marker(A), KNOWN, read_only=True).new
    with pytest.raises(DataDirError, match="read_only"):
        decide(NOTHING, read_only=True)
    with pytest.raises(DataDirError, match="read_only"):
        decide(Found(True, ""), KNOWN, read_only=True)


def test_the_set_itself_must_make_sense() -> None:
    def never() -> bytes:
        raise AssertionError

    with pytest.raises(DataDirError, match="no directory that may be written"):
        recognise([DataDirectory("/a", 1, True)], [NOTHING], {}, never)
    with pytest.raises(DataDirError, match="/b needs a capacity"):
        recognise([DataDirectory("/a", 1), DataDirectory("/b")], [NOTHING, NOTHING], {}, never)


def test_markers_are_read_back() -> None:
    assert marker_id("/a", marker_text(A, "-")) == A


def test_what_is_remembered() -> None:
    new = Decision(A, DataDirectory("/a", 1), True)
    before = {B: Remembered("/b", True), C: Remembered("/half", False)}
    now = remember([new], before)
    assert now == {
        A: Remembered("/a", False),
        B: Remembered("", True),
        C: Remembered("", True),
    }
    assert made(now) == {**now, A: Remembered("/a", True)}
    assert decode_remembered(encode_remembered(now)) == now
    assert decode_remembered(None) == {}


def test_directories_out_of_use_are_not_remembered_without_end() -> None:
    before = {bytes([number]) * 16: Remembered("", True) for number in range(FORGOTTEN_MAX + 20)}
    assert len(remember([Decision(A, DataDirectory("/a"), True)], before)) == FORGOTTEN_MAX + 1
