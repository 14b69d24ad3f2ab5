"""Books of several nodes on a simulated network: whoever can be found is found."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from garage_lite.core.ids import NodeId
from garage_lite.core.wire.address import TcpAddress
from garage_lite.core.wire.peering import PEERS_MAX, PeerBook, Source

STEP_MS = 100
SECONDS_MAX = 300


def place(number: int) -> TcpAddress:
    return TcpAddress(f"10.0.{number // 250}.{number % 250 + 1}", 3901)


class Network:
    """Nodes that dial by their books. `at` says where each listens now, None: nowhere."""

    def __init__(self, count: int) -> None:
        self.ids = [NodeId(bytes([number + 1]) * 32) for number in range(count)]
        self.books = {node: PeerBook(node) for node in self.ids}
        self.at: dict[NodeId, TcpAddress | None] = {}
        self.links: set[frozenset[NodeId]] = set()
        self.now_ms = 10**6
        self._places = 0
        for node in self.ids:
            self.move(node)

    def move(self, node: NodeId, listens: bool = True) -> None:
        self._places += 1
        self.at[node] = place(self._places) if listens else None

    def cut_all(self) -> None:
        for link in self.links:
            one, two = sorted(link)
            self.books[one].lost(two, self.now_ms, 0.5)
            self.books[two].lost(one, self.now_ms, 0.5)
        self.links.clear()

    def step(self) -> None:
        self.now_ms += STEP_MS
        for node in self.ids:
            book = self.books[node]
            for other in book.due(self.now_ms):
                tried = book.addresses(other)
                book.dialing(other)
                if self.at[other] in tried:
                    self._link(node, other)
                else:
                    book.failed(other, tried, self.now_ms, 0.5)
        for link in list(self.links):
            one, two = sorted(link)
            told = self.books[one].gossip(self.now_ms), self.books[two].gossip(self.now_ms)
            self.books[two].merge(told[0], self.now_ms, lambda _: True)
            self.books[one].merge(told[1], self.now_ms, lambda _: True)

    def _link(self, node: NodeId, other: NodeId) -> None:
        self.links.add(frozenset((node, other)))
        for one, two in ((node, other), (other, node)):
            where = self.at[two]
            found = [where] if where is not None else []
            self.books[one].linked(two, found, self.now_ms)
            for address in found:
                self.books[one].learn(two, address, Source.TOLD, self.now_ms)
        self.books[node].reached(other, self.at[other] or place(0))

    def run(self) -> float:
        """Until everybody is linked to everybody who can be dialled or dials; the seconds."""
        begin = self.now_ms
        listening = [node for node in self.ids if self.at[node] is not None]
        wanted = {
            frozenset((one, two)) for one in listening for two in self.ids if one != two
        }  # two that accept nothing need a relay
        while not wanted <= self.links:
            self.step()
            seconds = (self.now_ms - begin) / 1000
            assert seconds < SECONDS_MAX, wanted - self.links
        return (self.now_ms - begin) / 1000


def introduced(network: Network, hub: int) -> None:
    """One node is told of all others, as by `node connect`."""
    book = network.books[network.ids[hub]]
    for node in network.ids:
        address = network.at[node]
        if address is not None:
            book.learn(node, address, Source.TOLD, network.now_ms)


@settings(max_examples=30)
@given(count=st.integers(2, 8), hub=st.integers(0, 7))
def test_one_that_knows_all_is_enough(count: int, hub: int) -> None:
    network = Network(count)
    introduced(network, hub % count)
    assert network.run() < 5


@settings(max_examples=30)
@given(count=st.integers(3, 7), data=st.data())
def test_all_move_at_once_but_one(count: int, data: st.DataObject) -> None:
    network = Network(count)
    introduced(network, 0)
    network.run()
    stays = data.draw(st.integers(0, count - 1))
    silent = data.draw(st.sets(st.integers(0, count - 1), max_size=count - 1)) - {stays}
    network.cut_all()
    for number, node in enumerate(network.ids):
        if number != stays:
            network.move(node, listens=number not in silent)
    network.run()
    for book in network.books.values():
        assert len(book.nodes) == count - 1 < PEERS_MAX


@settings(max_examples=20)
@given(count=st.integers(3, 6), rounds=st.integers(1, 12), data=st.data())
def test_they_stay_together_through_many_moves(
    count: int, rounds: int, data: st.DataObject
) -> None:
    network = Network(count)
    introduced(network, 0)
    network.run()
    for _ in range(rounds):
        network.cut_all()
        stays = data.draw(st.integers(0, count - 1))
        for number, node in enumerate(network.ids):
            if number != stays:
                network.move(node)
        network.run()
