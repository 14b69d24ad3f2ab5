"""The box stream: any split of the bytes gives the same bodies; any damage is noticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_secretbox

from garage_lite.core.wire.frames import (
    BODY_BYTES_MAX,
    HEADER_BYTES,
    RECEIVE_BYTES_MAX,
    RECEIVE_BYTES_MIN,
    FrameReceiver,
    FrameSender,
    WireDamaged,
)

KEY, NONCE = b"k" * 32, b"\xff" * 24  # the first step wraps the nonce


def pair() -> tuple[FrameSender, FrameReceiver]:
    return FrameSender(KEY, NONCE), FrameReceiver(KEY, NONCE)


bodies = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5)


@given(bodies, st.lists(st.integers(1, 90), min_size=1, max_size=20))
def test_any_cut_of_the_stream(sent: list[bytes], cuts: list[int]) -> None:
    sender, receiver = pair()
    stream = b"".join(sender.seal(body) for body in sent) + sender.goodbye()
    received: list[bytearray] = []
    turn = 0
    while stream:
        size = cuts[turn % len(cuts)]
        received += receiver.feed(stream[:size])
        stream = stream[size:]
        turn += 1
    assert received == sent
    assert receiver.ended


def test_byte_by_byte_and_whole() -> None:
    sender, receiver = pair()
    stream = sender.seal(b"one") + sender.seal(b"x" * BODY_BYTES_MAX)
    assert FrameReceiver(KEY, NONCE).feed(stream) == [b"one", b"x" * BODY_BYTES_MAX]
    received: list[bytearray] = []
    for byte in stream[: HEADER_BYTES * 2 + 20]:
        received += receiver.feed(bytes([byte]))
    assert received == [b"one"]
    assert not receiver.ended


@given(bodies, st.data())
def test_any_changed_byte_is_noticed(sent: list[bytes], data: st.DataObject) -> None:
    sender, receiver = pair()
    stream = bytearray(b"".join(sender.seal(body) for body in sent) + sender.goodbye())
    stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    received: list[bytearray] = []
    with pytest.raises(WireDamaged):
        received += receiver.feed(stream)
    assert received == []


def test_replayed_dropped_and_reordered_frames_are_noticed() -> None:
    sender, _ = pair()
    first, second = sender.seal(b"first"), sender.seal(b"second")
    for wrong in (first + first, second, second + first):
        with pytest.raises(WireDamaged):
            FrameReceiver(KEY, NONCE).feed(wrong)


def test_data_after_the_goodbye_is_refused() -> None:
    sender, receiver = pair()
    with pytest.raises(WireDamaged):
        receiver.feed(sender.goodbye() + b"x")


def test_a_receiver_holds_one_frame_at_most() -> None:
    sender, receiver = pair()
    frame = sender.seal(b"x" * BODY_BYTES_MAX)
    for at in range(0, len(frame) - 1, 1000):
        receiver.feed(frame[at : min(at + 1000, len(frame) - 1)])
    assert receiver.held == len(frame) - HEADER_BYTES - 1
    assert len(receiver.room()) <= RECEIVE_BYTES_MAX


def test_small_frames_need_a_small_buffer() -> None:
    sender, receiver = pair()
    for _ in range(100):
        assert receiver.feed(sender.seal(b"x" * 1000)) == [b"x" * 1000]
    assert len(receiver.room()) == RECEIVE_BYTES_MIN


def test_the_frames_are_those_of_the_plain_library() -> None:
    """What goes over the wire must not change with how it is computed."""
    nonce = bytes(24)
    box = crypto_secretbox(b"plain", (1).to_bytes(24, "big"), KEY)
    header = crypto_secretbox(b"\x00\x05" + box[:16], nonce, KEY)
    assert FrameSender(KEY, nonce).seal(b"plain") == header + box[16:]


@pytest.mark.parametrize("size", [0, BODY_BYTES_MAX + 1])
def test_a_body_has_its_bounds(size: int) -> None:
    with pytest.raises(ValueError):
        pair()[0].seal(bytes(size))


@given(st.binary(min_size=HEADER_BYTES, max_size=200))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(WireDamaged):
        pair()[1].feed(garbage)
