"""What a node knows of its peers: dialling, freshness, gossip, and which of two links stays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.ids import NodeId
from garage_lite.core.wire.address import TcpAddress
from garage_lite.core.wire.frames import WireDamaged
from garage_lite.core.wire.peering import (
    ADDRESSES_MAX,
    DIAL_MAX_MS,
    FORGET_MS,
    PEERS_MAX,
    YIELD_MS,
    LinkName,
    PeerBook,
    Source,
    preferred,
    read_gossip,
)

ME, LOW, HIGH = (NodeId(bytes([byte]) * 32) for byte in (5, 1, 9))
NOW = 1_000_000


def place(number: int) -> TcpAddress:
    return TcpAddress(f"10.0.0.{number}", 3901)


def everybody(node: NodeId) -> bool:
    return True


@pytest.fixture
def book() -> PeerBook:
    return PeerBook(ME)


def test_news_is_dialled_at_once_or_after_the_other_had_its_chance(book: PeerBook) -> None:
    assert book.learn(HIGH, place(1), Source.GOSSIPED, NOW)
    assert book.learn(LOW, place(2), Source.GOSSIPED, NOW)
    assert book.due(NOW) == [HIGH]
    assert book.due(NOW + YIELD_MS) == [HIGH, LOW]
    assert book.next_due_ms() == NOW


def test_who_is_configured_is_dialled_at_once(book: PeerBook) -> None:
    book.learn(LOW, place(2), Source.CONFIGURED, NOW)
    assert book.due(NOW) == [LOW]


def test_nobody_dials_itself(book: PeerBook) -> None:
    assert not book.learn(ME, place(1), Source.CONFIGURED, NOW)
    assert not book.nodes


@given(fractions=st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_pauses_grow_up_to_a_bound(fractions: list[float]) -> None:
    book, now = PeerBook(ME), NOW
    book.learn(HIGH, place(1), Source.CONFIGURED, now)
    longest = 0
    for fraction in fractions:
        assert book.due(now) == [HIGH]
        book.dialing(HIGH)
        assert book.due(now + FORGET_MS) == []
        book.failed(HIGH, [place(1)], now, fraction)
        due = book.next_due_ms()
        assert due is not None
        assert now < due <= now + DIAL_MAX_MS
        assert due - now >= longest // 4, "a pause is not much shorter than the one before"
        longest, now = max(longest, due - now), due


def test_a_link_ends_the_dialling_and_its_loss_begins_it_again(book: PeerBook) -> None:
    book.learn(HIGH, place(1), Source.CONFIGURED, NOW)
    for _ in range(10):
        book.failed(HIGH, [place(1)], NOW, 1.0)
    book.linked(HIGH, [place(1)], NOW)
    assert book.next_due_ms() is None
    book.lost(HIGH, NOW + 50, 0.5)
    due = book.next_due_ms()
    assert due is not None
    assert due < NOW + 1000, "the failures before are forgotten"


def test_what_works_is_tried_first(book: PeerBook) -> None:
    for number in (1, 2, 3):
        book.learn(HIGH, place(number), Source.GOSSIPED, NOW, age_ms=number)
    assert book.addresses(HIGH) == [place(1), place(2), place(3)]
    book.failed(HIGH, [place(1)], NOW, 0)
    assert book.addresses(HIGH) == [place(2), place(3), place(1)]
    book.linked(HIGH, [place(3)], NOW + 10)
    assert book.addresses(HIGH)[0] == place(3)


def test_the_freshest_addresses_are_kept(book: PeerBook) -> None:
    book.learn(HIGH, place(99), Source.CONFIGURED, NOW, age_ms=10**6)
    for number in range(ADDRESSES_MAX + 5):
        assert book.learn(HIGH, place(number), Source.GOSSIPED, NOW + number)
    assert set(book.addresses(HIGH)) == {place(99)} | {
        place(number) for number in range(5, ADDRESSES_MAX + 5)
    }
    assert not book.learn(HIGH, place(100), Source.GOSSIPED, NOW), "staler than all"


def test_strangers_do_not_crowd_out_who_is_linked_or_configured(book: PeerBook) -> None:
    book.learn(LOW, place(1), Source.CONFIGURED, NOW)
    book.linked(HIGH, [], NOW)
    for number in range(2 * PEERS_MAX):
        node = NodeId(b"\x07" + number.to_bytes(31, "big"))
        book.learn(node, place(2), Source.GOSSIPED, NOW)
    assert len(book.nodes) == PEERS_MAX
    assert LOW in book.nodes
    assert HIGH in book.nodes


def test_gossip_tells_of_who_was_seen_and_how_long_ago(book: PeerBook) -> None:
    book.learn(LOW, place(1), Source.CONFIGURED, NOW)
    book.learn(HIGH, place(2), Source.CONFIGURED, NOW)
    book.linked(HIGH, [place(2)], NOW)
    assert book.gossip(NOW + 500) == [[HIGH, 0, [[str(place(2)), 0]]]]
    book.lost(HIGH, NOW + 700, 0)
    assert book.gossip(NOW + 1000) == [[HIGH, 300, [[str(place(2)), 300]]]]
    assert book.gossip(NOW + FORGET_MS + 701) == []


def test_gossip_travels_and_then_is_no_news(book: PeerBook) -> None:
    book.learn(HIGH, place(2), Source.CONFIGURED, NOW)
    book.linked(HIGH, [place(2)], NOW)
    other = PeerBook(LOW)
    assert other.merge(book.gossip(NOW), 77, everybody)
    assert not other.merge(book.gossip(NOW), 78, everybody)
    assert other.addresses(HIGH) == [place(2)]
    assert other.due(77) == [HIGH]


def test_gossip_about_who_may_not_be_known_is_dropped(book: PeerBook) -> None:
    told = [[HIGH, 0, [[str(place(1)), 0]]], [ME, 0, [[str(place(2)), 0]]]]
    assert not book.merge(told, NOW, lambda node: node != HIGH)
    assert not book.nodes


def test_the_lost_are_forgotten_everywhere(book: PeerBook) -> None:
    book.learn(HIGH, place(1), Source.GOSSIPED, NOW)
    book.linked(HIGH, [place(1)], NOW)
    book.lost(HIGH, NOW, 0)
    assert book.forget_the_lost(NOW + FORGET_MS, ()) == []
    assert book.forget_the_lost(NOW + FORGET_MS + 1, (HIGH,)) == []
    assert book.forget_the_lost(NOW + FORGET_MS + 1, ()) == [HIGH]
    stale = [[HIGH, FORGET_MS + 1, [[str(place(1)), 0]]]]
    assert not book.merge(stale, NOW, everybody)


ages = st.integers(0, FORGET_MS)
gossips = st.lists(
    st.tuples(
        st.sampled_from([NodeId(bytes([n]) * 32) for n in range(1, 5)]),
        ages,
        st.lists(st.tuples(st.integers(1, 30).map(place), ages), max_size=ADDRESSES_MAX),
    ),
    max_size=6,
)


def as_told(gossip: Any) -> list[Any]:
    return [[n, age, [[str(p), page] for p, page in places]] for n, age, places in gossip]


@given(gossips, gossips, gossips)
def test_books_converge_whatever_the_order(one: Any, two: Any, three: Any) -> None:
    """All nodes keep the same addresses in the end: what was evicted never comes back."""
    told = [as_told(each) for each in (one, two, three)]
    there, back = PeerBook(ME), PeerBook(ME)
    for each in told:
        there.merge(each, NOW, everybody)
    for each in reversed(told):
        back.merge(each, NOW, everybody)
    for _ in range(3):
        there.merge(back.gossip(NOW), NOW, everybody)
        back.merge(there.gossip(NOW), NOW, everybody)

    def kept(book: PeerBook) -> dict[NodeId, list[int]]:
        return {n: sorted(p.good_ms for p in k.places.values()) for n, k in book.nodes.items()}

    assert kept(there) == kept(back)
    news = there.merge(back.gossip(NOW), NOW, everybody)
    again = there.merge(back.gossip(NOW), NOW, everybody)
    assert not (news and again), "gossip dies down"


@given(gossips)
def test_a_node_holds_no_more_than_its_bounds(told: Any) -> None:
    book = PeerBook(ME)
    book.merge(as_told(told), NOW, everybody)
    assert all(len(known.places) <= ADDRESSES_MAX for known in book.nodes.values())


@pytest.mark.parametrize(
    "told",
    [
        None,
        {},
        [1],
        [[b"short", 0, []]],
        [[HIGH, -1, []]],
        [[HIGH, 0, [["10.0.0.1:0", 0]]]],
        [[HIGH, 0, [["no port", 0]]]],
        [[HIGH, 0, [["h" * 300 + ":1", 0]]]],
        [[HIGH, 0, [["a\x01b:1", 0]]]],
        [[HIGH, 0, [["10.0.0.1:1", -5]]]],
        [[HIGH, 0, [["10.0.0.1:1", 0]] * (ADDRESSES_MAX + 1)]],
        [[HIGH, 0, []]] * (2 * PEERS_MAX + 1),
    ],
)
def test_wrong_gossip_is_refused_and_changes_nothing(told: Any, book: PeerBook) -> None:
    with pytest.raises(WireDamaged):
        read_gossip(told)
    mixed = [[LOW, 0, [["10.0.0.1:1", 0]]], *(told if isinstance(told, list) else [told])]
    with pytest.raises(WireDamaged):
        book.merge(mixed, NOW, everybody)
    assert not book.nodes


names = st.builds(LinkName, st.booleans(), st.sampled_from([LOW, HIGH]), st.integers(1, 5))


@given(st.lists(names, min_size=1, max_size=6, unique=True), st.randoms())
def test_both_ends_prefer_the_same_link(links: list[LinkName], random: Any) -> None:
    shuffled = list(links)
    random.shuffle(shuffled)
    assert preferred(links) == preferred(shuffled)


def test_which_link_is_preferred() -> None:
    old, new = LinkName(False, LOW, 1), LinkName(False, LOW, 2)
    assert preferred([old, new, LinkName(False, HIGH, 9)]) == new
    assert preferred([LinkName(True, LOW, 9), LinkName(False, HIGH, 1)]).relayed is False
