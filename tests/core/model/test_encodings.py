"""Rows as bytes: canonical, whole, and never anything but an error when they are not."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.errors import StorageFailed
from garage_lite.core.model.buckets import Bucket
from garage_lite.core.model.counters import Counters
from garage_lite.core.model.objects import ObjectVersion
from garage_lite.core.model.rowkeys import stamp_from_text
from garage_lite.core.model.versions import BlockEntry, decode_page, encode_page
from tests.core.model.rows import BUCKET, ENCODED, STAMP, buckets, counters, versions

TYPES = sorted(ENCODED)


@pytest.mark.parametrize("kind", TYPES)
@given(data=st.data())
def test_decoding_gives_back_what_was_encoded(kind: str, data: st.DataObject) -> None:
    rows, encode, decode = ENCODED[kind]
    row = data.draw(rows)
    assert decode(encode(row)) == row


@pytest.mark.parametrize("kind", TYPES)
@given(data=st.data())
def test_encoding_is_canonical(kind: str, data: st.DataObject) -> None:
    rows, encode, decode = ENCODED[kind]
    encoded = encode(data.draw(rows))
    assert encode(decode(encoded)) == encoded


@given(buckets)
def test_the_order_in_which_a_document_was_written_does_not_show(bucket: Bucket) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            names = list(value)
            random.Random(len(names)).shuffle(names)
            return {name: shuffled(value[name]) for name in names}
        return [shuffled(each) for each in value] if isinstance(value, list) else value

    for name in ("website", "cors", "lifecycle", "quotas"):
        register = getattr(bucket, name)
        other = type(register)(register.stamp_us, shuffled(register.value))
        assert register.merge(other).pack() == other.merge(register).pack() == register.pack()
        assert msgpack.packb(register.pack()) == msgpack.packb(other.pack())


@pytest.mark.parametrize("kind", TYPES)
@given(data=st.data())
def test_a_row_cut_short_or_lengthened_is_an_error(kind: str, data: st.DataObject) -> None:
    rows, encode, decode = ENCODED[kind]
    encoded = encode(data.draw(rows))
    for length in range(len(encoded)):
        with pytest.raises(StorageFailed):
            decode(encoded[:length])
    with pytest.raises(StorageFailed):
        decode(encoded + b"\x00")


@pytest.mark.parametrize("kind", TYPES)
@given(data=st.data())
def test_a_missing_or_additional_field_is_an_error(kind: str, data: st.DataObject) -> None:
    rows, encode, decode = ENCODED[kind]
    fields = msgpack.unpackb(encode(data.draw(rows)))
    for changed in (
        fields[:-1],
        [*fields, None],
        [fields[0] + 1, *fields[1:]],
        [True, *fields[1:]],
    ):
        with pytest.raises(StorageFailed):
            decode(msgpack.packb(changed))


GARBAGE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 2**60), st.binary(max_size=4), st.text()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", TYPES)
@given(data=st.data())
def test_garbage_in_any_field_raises_nothing_but_an_error_of_storage(
    kind: str, data: st.DataObject
) -> None:
    rows, encode, decode = ENCODED[kind]
    fields = msgpack.unpackb(encode(data.draw(rows)))
    index = data.draw(st.integers(0, len(fields) - 1))
    fields[index] = data.draw(GARBAGE)
    try:
        decode(msgpack.packb(fields))
    except StorageFailed as error:
        assert error.message


@pytest.mark.parametrize("kind", TYPES)
@given(st.binary(max_size=60))
def test_random_bytes_raise_nothing_but_an_error_of_storage(kind: str, garbage: bytes) -> None:
    decode = ENCODED[kind][2]
    try:
        decode(garbage)
    except StorageFailed as error:
        assert error.message


def test_a_page_whose_hashes_do_not_match_its_sizes_is_an_error() -> None:
    sizes, hashes = msgpack.unpackb(encode_page([BlockEntry(5, b"h" * 32)]))[1:]  # type: ignore[arg-type]
    for broken in (hashes[:-1], hashes + b"h", b""):
        with pytest.raises(StorageFailed):
            decode_page(msgpack.packb([1, sizes, broken]))


@given(versions)
def test_etag_and_version_id_as_clients_know_them(version: ObjectVersion) -> None:
    etag, _, parts = version.etag_text.partition("-")
    assert bytes.fromhex(etag) == version.etag
    assert parts == (str(version.parts) if version.parts else "")
    assert version.version_id == ("null" if version.null else STAMP.text)
    assert stamp_from_text(STAMP.text) == STAMP


@given(counters, st.lists(counters, max_size=3))
def test_counters_add_up_and_never_go_below_nothing(
    start: Counters, changes: list[Counters]
) -> None:
    total = start
    for change in changes:
        total = total.plus(change)
    for change in changes:
        total = total.plus(Counters(*[-figure for figure in change]))
    assert total == start
    assert Counters().plus(Counters(-1, -1, -1, -1, -1, -1)) == Counters()


def test_a_bucket_without_grants_allows_nothing() -> None:
    assert not Bucket(BUCKET, 1).permissions_of("GK1")
