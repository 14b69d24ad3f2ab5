"""The handshake: who may, who may not, and that nobody learns why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.cluster.identity import NodeKey, key_from_seed
from garage_lite.core.wire.frames import FrameReceiver, FrameSender
from garage_lite.core.wire.handshake import (
    EXPECTED_BYTES,
    Handshake,
    HandshakeFailed,
    SessionKeys,
    Step,
)

NETWORK = b"n" * 32
ALICE = key_from_seed(b"a" * 32)
BOB = key_from_seed(b"b" * 32)


def client(key: NodeKey = ALICE, network: bytes = NETWORK, server: NodeKey = BOB) -> Handshake:
    return Handshake(network, key.secret, b"1" * 32, server.node)


def server(key: NodeKey = BOB, network: bytes = NETWORK, seed: bytes = b"2" * 32) -> Handshake:
    return Handshake(network, key.secret, seed, None)


def transcript(a: Handshake, b: Handshake) -> list[bytes]:
    """The four messages, exchanged."""
    one = a.opening
    two = b.receive(one)
    three = a.receive(two)
    four = b.receive(three)
    assert a.receive(four) == b""
    return [one, two, three, four]


def test_both_know_each_other_and_share_keys() -> None:
    a, b = client(), server()
    messages = transcript(a, b)
    assert [len(m) for m in messages] == [64, 64, 112, 80]
    assert a.step is b.step is Step.DONE
    left, right = a.keys, b.keys
    assert isinstance(left, SessionKeys) and isinstance(right, SessionKeys)
    assert (left.peer, right.peer) == (BOB.node, ALICE.node)
    assert (left.send_key, left.send_nonce) == (right.receive_key, right.receive_nonce)
    assert (right.send_key, right.send_nonce) == (left.receive_key, left.receive_nonce)
    assert left.send_key != left.receive_key
    there = FrameReceiver(right.receive_key, right.receive_nonce)
    assert there.feed(FrameSender(left.send_key, left.send_nonce).seal(b"hello")) == [b"hello"]
    assert "key" not in repr(left)


def test_wrong_secret_is_refused_at_the_first_message() -> None:
    b = server()
    with pytest.raises(HandshakeFailed):
        b.receive(client(network=b"x" * 32).opening)
    assert b.step is Step.FAILED
    with pytest.raises(HandshakeFailed):
        b.receive(client().opening)


def test_a_client_of_another_server_is_refused() -> None:
    a, b = client(server=key_from_seed(b"c" * 32)), server()
    three = a.receive(b.receive(a.opening))
    with pytest.raises(HandshakeFailed):
        b.receive(three)


def test_a_server_without_its_key_is_refused() -> None:
    """It knows the secret and the name of Bob, but has another key."""
    a = client()
    mallory = server(key=NodeKey(BOB.node, key_from_seed(b"m" * 32).secret))
    three = a.receive(mallory.receive(a.opening))
    with pytest.raises(HandshakeFailed):
        mallory.receive(three)


def test_a_replayed_client_is_refused() -> None:
    one, _, three, _ = transcript(client(), server())
    later = server(seed=b"3" * 32)
    later.receive(one)
    with pytest.raises(HandshakeFailed):
        later.receive(three)


def test_a_point_of_small_order_is_refused() -> None:
    b = server()
    zero = bytes(32)
    b.receive(b._hmac(zero) + zero)
    with pytest.raises(HandshakeFailed):
        b.receive(bytes(112))


def test_every_error_says_the_same() -> None:
    said = set()
    for step, message in ((0, b"x" * 64), (0, b""), (1, b"x" * 112)):
        b = server()
        if step:
            b.receive(client().opening)
        with pytest.raises(HandshakeFailed) as caught:
            b.receive(message)
        said.add(caught.value.message)
    assert len(said) == 1


@given(st.integers(0, 3), st.integers(0, 111), st.integers(1, 255))
def test_any_changed_byte_fails(number: int, at: int, flip: int) -> None:
    a, b = client(), server()
    message = a.opening
    receiver, other = b, a
    for _ in range(number):
        message = receiver.receive(message)
        receiver, other = other, receiver
    at %= len(message)
    damaged = message[:at] + bytes([message[at] ^ flip]) + message[at + 1 :]
    # The point's top bit carries no information in X25519; the tag still covers it.
    with pytest.raises(HandshakeFailed):
        receiver.receive(damaged)
    assert receiver.keys is None


@given(st.binary(max_size=200))
def test_garbage_fails(garbage: bytes) -> None:
    for side in (client(), server()):
        with pytest.raises(HandshakeFailed):
            side.receive(garbage)
        assert EXPECTED_BYTES[side.step] == 0
