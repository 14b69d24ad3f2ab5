"""Addresses and peers: what is taken, what is refused, and that printing is the inverse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.wire.address import (
    TcpAddress,
    UnixAddress,
    parse_address,
    parse_peer,
    parse_tcp_address,
)

NODE = "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[::]:3901", TcpAddress("::", 3901)),
        ("0.0.0.0:0", TcpAddress("0.0.0.0", 0)),
        ("node.example:65535", TcpAddress("node.example", 65535)),
        ("/run/garage/s3.sock", UnixAddress("/run/garage/s3.sock")),
        ("unix:/run/s3.sock", UnixAddress("/run/s3.sock")),
    ],
)
def test_address(text: str, expected: object) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "3901", ":3901", "::1:3901", "host:", "host:-1", "host:65536", "ho st:1", "[]:1", "h:²"],
)
def test_no_address(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)


@given(st.ip_addresses().map(str), st.integers(0, 65535))
def test_tcp_address_round_trip(host: str, port: int) -> None:
    address = TcpAddress(host, port)
    assert parse_tcp_address(str(address)) == address


def test_peer_round_trip() -> None:
    peer = parse_peer(f"{NODE}@[::1]:3901")
    assert peer.node == bytes.fromhex(NODE)
    assert str(peer) == f"{NODE}@[::1]:3901"


@pytest.mark.parametrize(
    "text", ["", NODE, f"{NODE[:-2]}@h:1", f"{NODE[:-1]}g@h:1", f"{NODE}@h", f"{' ' * 64}@h:1"]
)
def test_no_peer(text: str) -> None:
    with pytest.raises(ValueError):
        parse_peer(text)
