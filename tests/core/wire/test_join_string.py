"""Join strings: what was said is read again, and no typing error gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.errors import InvalidArgument
from garage_lite.core.ids import NodeId
from garage_lite.core.wire.address import TcpAddress
from garage_lite.core.wire.join_string import Invitation, decode, encode, network_key

SAMPLE = Invitation(
    NodeId(bytes(range(32))),
    b"s" * 16,
    (TcpAddress("192.168.1.50", 3901), TcpAddress("2001:db8::7", 3901)),
    1_764_000_000,
)
TEXT = encode(SAMPLE)

invitations = st.builds(
    Invitation,
    st.binary(min_size=32, max_size=32).map(NodeId),
    st.binary(min_size=16, max_size=16),
    st.lists(
        st.builds(TcpAddress, st.sampled_from(["10.0.0.1", "::1", "home.example"]),
                  st.integers(1, 65535)),
        min_size=1, max_size=8,
    ).map(tuple),
    st.integers(0, 1 << 40),
)  # fmt: skip


@given(invitations)
def test_round_trip(invitation: Invitation) -> None:
    assert decode(encode(invitation)) == invitation


@given(st.data())
def test_every_change_of_a_letter_is_caught(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(TEXT) - 1))
    letter = data.draw(st.sampled_from("0123456789ABCDEFGHJKMNPQRSTVWXYZ!é "))
    changed = TEXT[:at] + letter + TEXT[at + 1 :]
    if changed != TEXT:
        with pytest.raises(InvalidArgument):
            decode(changed)


@given(st.integers(0, len(TEXT) - 1))
def test_a_part_is_not_enough(length: int) -> None:
    with pytest.raises(InvalidArgument):
        decode(TEXT[:length])


@given(st.text(max_size=200))
def test_anything_else_is_refused(text: str) -> None:
    for candidate in (text, "GL1" + text):
        with pytest.raises(InvalidArgument):
            decode(candidate)


def test_how_people_type() -> None:
    lowered = TEXT.lower().replace("0", "o").replace("1", "i")
    grouped = "-".join(lowered[at : at + 5] for at in range(0, len(lowered), 5))
    assert decode(f"  {grouped}\n") == SAMPLE


def test_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidArgument, match="too long"):
        decode("GL1" + "0" * 10_000_000)


def test_the_secret_is_shown_nowhere() -> None:
    assert "ssss" not in repr(SAMPLE)
    assert network_key(b"s" * 16) != network_key(b"t" * 16)
    assert len(network_key(b"s" * 16)) == 32
