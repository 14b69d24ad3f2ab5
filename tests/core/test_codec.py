"""The canonical form of rows, and what is refused."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.codec import canonical, decode, encode, row_decoder
from garage_lite.core.errors import StorageFailed
from tests.core.model.rows import documents


@given(st.integers(0, 100), st.lists(documents, max_size=4))
def test_fields_come_back(tag: int, fields: list[object]) -> None:
    assert decode(encode(tag, fields), tag) == fields


def test_older_rows_are_lifted_step_by_step() -> None:
    lifts = {
        1: lambda fields: [*fields, "added by 2"],
        2: lambda fields: [fields[0] * 10, *fields[1:]],
    }
    assert decode(encode(1, [7]), 3, lifts) == [70, "added by 2"]
    assert decode(encode(2, [7, "x"]), 3, lifts) == [70, "x"]
    assert decode(encode(3, [7, "x"]), 3, lifts) == [7, "x"]


@pytest.mark.parametrize("tag", [0, 2])
def test_rows_of_another_format_are_refused_never_guessed(tag: int) -> None:
    with pytest.raises(StorageFailed, match=f"format {tag}"):
        decode(encode(tag, []), 1)


@pytest.mark.parametrize(
    "data", [b"", b"\x90", b"\x80", b"\xa1x", b"\x91\xc3", b"\x91\xa1x", b"\xc1"]
)
def test_bytes_that_are_no_row_are_refused(data: bytes) -> None:
    with pytest.raises(StorageFailed):
        decode(data, 1)


def test_a_value_that_cannot_be_encoded_leaves_nothing_behind() -> None:
    with pytest.raises(TypeError):
        encode(1, ["half written", object()])
    assert encode(1, []) == b"\x91\x01"


@given(documents)
def test_a_document_in_canonical_form_is_equal_and_sorted(document: object) -> None:
    form = canonical(document)
    assert form == document
    assert msgpack.packb(canonical(form)) == msgpack.packb(form)
    if isinstance(form, dict):
        assert list(form) == sorted(form)


def test_a_checked_decoder_keeps_an_error_of_storage_as_it_is() -> None:
    @row_decoder
    def damaged(data: bytes) -> None:
        raise StorageFailed("as it was")

    @row_decoder
    def short(data: bytes) -> int:
        return data[0]

    with pytest.raises(StorageFailed, match="as it was"):
        damaged(b"")
    with pytest.raises(StorageFailed, match="can't be read"):
        short(b"")
    assert short(b"\x07") == 7
