"""Calls on one connection: the outbox's bodies, read by the inbox; and every rule broken."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.wire.frames import BODY_BYTES_MAX, WireDamaged
from garage_lite.core.wire.messages import (
    CALLS_MAX,
    CHUNK_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    WINDOW_BYTES,
    Budget,
    Event,
    Inbox,
    Kind,
    PeerFailed,
    chunk,
    pack_error,
    pack_payload,
    pack_request,
    unpack_error,
    unpack_payload,
    unpack_request,
)
from garage_lite.core.wire.outbox import BACKGROUND, NORMAL, URGENT, Outbox


def acceptor(limit: int = 64 << 20) -> Inbox:
    """The inbox of who accepted the connection: odd ids are the peer's calls."""
    return Inbox(False, Budget(limit))


def carry(outbox: Outbox, inbox: Inbox) -> list[Event]:
    events = []
    while body := outbox.next_body():
        assert len(body) <= BODY_BYTES_MAX
        events += inbox.feed(body)
    return events


@given(
    st.dictionaries(
        st.integers(0, 20).map(lambda n: 2 * n + 1),
        st.tuples(st.sampled_from([URGENT, NORMAL, BACKGROUND]), st.integers(0, 50_000)),
        min_size=1,
        max_size=12,
    )
)
def test_messages_arrive_whole(sent: dict[int, tuple[int, int]]) -> None:
    outbox, inbox = Outbox(), acceptor()
    for call, (priority, size) in sent.items():
        outbox.message(call, priority, bytes([call]) * size)
    events = carry(outbox, inbox)
    assert {e.call: e.payload for e in events} == {
        call: bytes([call]) * size for call, (_, size) in sent.items()
    }
    assert {e.kind for e in events} == {Kind.LAST}
    assert outbox.waiting == outbox.control_waiting == 0
    assert not any(outbox.unsent(call) for call in sent)


def test_small_and_urgent_messages_overtake_big_ones() -> None:
    outbox, inbox = Outbox(), acceptor()
    outbox.message(1, BACKGROUND, bytes(200_000))
    outbox.message(3, NORMAL, bytes(200_000))
    assert inbox.feed(outbox.next_body()) == []
    outbox.message(5, NORMAL, b"small")
    outbox.message(7, URGENT, b"ping")
    events = inbox.feed(outbox.next_body())
    assert [e.call for e in events] == [7, 5]
    assert [e.call for e in carry(outbox, inbox)] == [3, 1]


def test_a_stream_stays_within_its_window() -> None:
    outbox, inbox = Outbox(), acceptor()
    outbox.message(1, NORMAL, b"head", stream=True)
    assert outbox.credit(1) == WINDOW_BYTES
    outbox.data(1, bytes(WINDOW_BYTES))
    with pytest.raises(ValueError):
        outbox.data(1, b"x")
    events = carry(outbox, inbox)
    assert (events[0].kind, events[0].payload) == (Kind.OPEN, b"head")
    assert sum(len(e.payload) for e in events[1:]) == WINDOW_BYTES
    outbox.add_credit(1, 10)
    inbox.grant(1, 10)
    outbox.data(1, bytes(10))
    outbox.end(1)
    assert [e.kind for e in carry(outbox, inbox)] == [Kind.DATA, Kind.END]
    assert not outbox.unsent(1)


def test_a_stream_beyond_its_window_costs_the_connection() -> None:
    inbox = acceptor()
    inbox.feed(chunk(1, Kind.OPEN))
    for _ in range(WINDOW_BYTES // CHUNK_BYTES_MAX):
        inbox.feed(chunk(1, Kind.DATA, bytes(CHUNK_BYTES_MAX)))
    with pytest.raises(WireDamaged):
        inbox.feed(chunk(1, Kind.DATA, b"x"))


def test_cancelling() -> None:
    outbox, inbox = Outbox(), acceptor()
    outbox.message(1, NORMAL, b"never sent")
    outbox.cancel(1)
    assert outbox.next_body() == b""
    outbox.message(3, NORMAL, bytes(300_000))
    inbox.feed(outbox.next_body())
    outbox.cancel(3)
    assert carry(outbox, inbox) == [Event(3, Kind.CANCEL)]
    assert outbox.waiting == 0


def test_an_error_replaces_the_answer() -> None:
    outbox, caller = Outbox(), Inbox(True, Budget(1 << 20))
    caller.expect(1)
    outbox.message(1, NORMAL, bytes(300_000))
    caller.feed(outbox.next_body())
    outbox.error(1, pack_error("Code", "why", 418))
    (event,) = carry(outbox, caller)
    error = unpack_error(event.payload)
    assert (error.code, error.message, error.status) == ("Code", "why", 418)


def test_late_chunks_are_dropped() -> None:
    caller = Inbox(True, Budget(1 << 20))
    caller.expect(1)
    caller.close(1)
    late = (Kind.PART, Kind.LAST, Kind.OPEN, Kind.DATA, Kind.END, Kind.CREDIT, Kind.ERROR)
    assert caller.feed(b"".join(chunk(1, kind, b"late") for kind in late)) == []
    peer_gone = (Kind.DATA, Kind.END, Kind.CANCEL, Kind.ERROR)
    assert caller.feed(b"".join(chunk(2, kind) for kind in peer_gone)) == []


@pytest.mark.parametrize(
    "body",
    [
        b"\x00",
        chunk(1, Kind.PART)[:-1],
        chunk(0, Kind.PART),
        chunk(1, Kind.LAST, b"abc")[:-1],
        bytes.fromhex("00000001000000"),
        bytes.fromhex("00000001090000"),
        chunk(1, Kind.PART) + chunk(1, Kind.DATA),
        chunk(1, Kind.LAST) + chunk(1, Kind.LAST),
        chunk(1, Kind.OPEN) + chunk(1, Kind.PART),
        chunk(1, Kind.OPEN) + chunk(1, Kind.END) + chunk(1, Kind.DATA),
        chunk(1, Kind.PART) + chunk(1, Kind.CREDIT, b"123"),
    ],
)
def test_broken_rules_cost_the_connection(body: bytes) -> None:
    with pytest.raises(WireDamaged):
        acceptor().feed(body)


def test_a_chunk_and_a_message_have_their_bounds() -> None:
    with pytest.raises(WireDamaged):
        acceptor().feed(chunk(1, Kind.PART, bytes(CHUNK_BYTES_MAX + 1)))
    inbox = acceptor()
    part = chunk(1, Kind.PART, bytes(CHUNK_BYTES_MAX))
    for _ in range(MESSAGE_BYTES_MAX // CHUNK_BYTES_MAX):
        inbox.feed(part)
    with pytest.raises(WireDamaged):
        inbox.feed(part)
    with pytest.raises(ValueError):
        Outbox().message(1, NORMAL, bytes(MESSAGE_BYTES_MAX + 1))


def test_too_many_calls_are_refused_one_by_one_then_all() -> None:
    inbox = acceptor()
    calls = [2 * n + 1 for n in range(3 * CALLS_MAX)]
    for call in calls[:CALLS_MAX]:
        assert inbox.feed(chunk(call, Kind.LAST))[0].kind is Kind.LAST
    for call in calls[CALLS_MAX : 2 * CALLS_MAX]:
        assert inbox.feed(chunk(call, Kind.PART)) == [Event(call, Kind.PART)]
    with pytest.raises(WireDamaged):
        inbox.feed(chunk(calls[-1], Kind.LAST))
    inbox.close(1)
    assert inbox.feed(chunk(calls[CALLS_MAX], Kind.LAST)) == []
    assert inbox.feed(chunk(calls[-2], Kind.LAST))[0].kind in (Kind.LAST, Kind.PART)


def test_the_budget_is_shared_and_given_back() -> None:
    budget = Budget(3 * CHUNK_BYTES_MAX)
    one, two = Inbox(False, budget), Inbox(False, budget)
    part = bytes(CHUNK_BYTES_MAX)
    one.feed(chunk(1, Kind.PART, part) + chunk(1, Kind.PART, part))
    two.feed(chunk(1, Kind.PART, part))
    assert two.feed(chunk(1, Kind.PART, part)) == [Event(1, Kind.PART)]
    assert two.feed(chunk(1, Kind.LAST, b"rest")) == []  # of the refused one
    assert one.feed(chunk(1, Kind.LAST)) == [Event(1, Kind.LAST, part + part)]
    assert two.feed(chunk(3, Kind.LAST, part)) == [Event(3, Kind.LAST, part)]
    one.close_all()
    two.close_all()
    assert budget.take(3 * CHUNK_BYTES_MAX) and not budget.take(1)


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_garbage_is_refused_or_means_nothing(garbage: list[bytes]) -> None:
    inbox = acceptor()
    try:
        for body in garbage:
            inbox.feed(body)
    except WireDamaged:
        pass


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from(list(Kind)), st.binary(max_size=5)),
        max_size=30,
    )
)
def test_any_run_of_chunks_keeps_the_books(chunks: list[tuple[int, Kind, bytes]]) -> None:
    budget = Budget(1000)
    inbox = Inbox(False, budget)
    inbox.expect(2)
    try:
        for call, kind, payload in chunks:
            inbox.feed(chunk(call, kind, payload))
    except WireDamaged:
        pass
    inbox.close_all()
    assert budget.take(1000)
    assert inbox._theirs == 0


def test_requests_and_answers_in_bytes() -> None:
    value = {"a": [1, 2.5, None, True, "é", b"\xff"], "n": -(2**63)}
    assert unpack_request(pack_request("table/get", NORMAL, value)) == ("table/get", NORMAL, value)
    assert unpack_payload(pack_payload(value)) == value
    assert len(pack_error("C", "x" * 100_000)) < CHUNK_BYTES_MAX


@given(st.binary(max_size=60))
def test_garbage_is_no_request_and_no_error(garbage: bytes) -> None:
    with contextlib.suppress(WireDamaged):
        endpoint, priority, _ = unpack_request(garbage)
        assert 0 <= priority <= 255 and endpoint == str(endpoint)
    with contextlib.suppress(WireDamaged):
        assert isinstance(unpack_error(garbage), PeerFailed)
    with contextlib.suppress(WireDamaged):
        unpack_payload(garbage)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(WireDamaged):
        unpack_payload(b"\x91" * 100_000)
