"""The queue of blocks to look at, checked against a model of what must happen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from garage_lite.core.block.refcount import live_count, references
from garage_lite.core.block.resync import (
    DELETE_DELAY_US,
    LEASE_CHECK_US,
    RETRY_FIRST_US,
    Action,
    Facts,
    ResyncEntry,
    Row,
    Standing,
    Verdict,
    after_asking,
    after_failure,
    backoff_us,
    block_of,
    counts,
    decide,
    deletion_rows,
    due_of,
    entry_key,
    requeued_rows,
    resync_rows,
    settled_rows,
    stale_rows,
)
from garage_lite.core.errors import StorageFailed
from garage_lite.core.ids import BlockHash, BucketId, DataId
from garage_lite.core.model.rowkeys import Table, block_ref_row
from garage_lite.core.model.versions import BlockRef

NOW = 1_700_000_000_000_000
BLOCK = BlockHash(b"\xab" * 32)
DEAD = ResyncEntry(NOW, 0, NOW - DELETE_DELAY_US)
LATER = ResyncEntry(NOW + DELETE_DELAY_US)
H, N, S, U, X = Standing


def test_entries_and_keys_are_read_back() -> None:
    (due, mark), (own, value) = resync_rows(BLOCK, NOW, 3, 5)
    assert due_of(due) == (NOW, BLOCK) and mark
    assert block_of(own) == BLOCK
    assert ResyncEntry.decode(value) == ResyncEntry(NOW, 3, 5)
    assert due[0] == Table.RESYNC_DUE and own[0] == Table.RESYNC


def test_the_queue_is_in_order_of_time() -> None:
    keys = [resync_rows(BLOCK, due)[0][0] for due in (0, 1, 255, 256, NOW, NOW + 1, 2**63)]
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("entry", "facts", "verdict"),
    [
        (ResyncEntry(NOW), Facts(2, True), Verdict(Action.DROP)),
        (DEAD, Facts(1, True), Verdict(Action.DROP)),
        (ResyncEntry(NOW), Facts(1, False), Verdict(Action.FETCH)),
        (ResyncEntry(NOW), Facts(0, False), Verdict(Action.DROP)),
        (DEAD, Facts(0, True), Verdict(Action.DELETE)),
        # Found dead only now: the whole delay from here.
        (
            ResyncEntry(NOW, 4),
            Facts(0, True),
            Verdict(Action.WAIT, ResyncEntry(NOW + DELETE_DELAY_US, 0, NOW)),
        ),
        # Its references may be lost.
        (DEAD, Facts(0, True, complete=False), Verdict(Action.WAIT, LATER)),
        # It belongs to others.
        (DEAD, Facts(0, True, owner=False), Verdict(Action.OFFLOAD)),
        (DEAD, Facts(3, True, owner=False), Verdict(Action.OFFLOAD)),
        (DEAD, Facts(3, False, owner=False), Verdict(Action.DROP)),
        # Asked for before its time.
        (
            ResyncEntry(NOW, 0, NOW - 1),
            Facts(0, True),
            Verdict(Action.WAIT, ResyncEntry(NOW - 1 + DELETE_DELAY_US, 0, NOW - 1)),
        ),
        # Noted by a clock that has gone back since.
        (
            ResyncEntry(NOW, 0, NOW + 1),
            Facts(0, True),
            Verdict(Action.WAIT, ResyncEntry(NOW + DELETE_DELAY_US, 0, NOW)),
        ),
        # Somebody still reads it.
        (
            DEAD,
            Facts(0, True, leased=True),
            Verdict(Action.WAIT, DEAD._replace(due_us=NOW + LEASE_CHECK_US)),
        ),
    ],
)
def test_verdicts(entry: ResyncEntry, facts: Facts, verdict: Verdict) -> None:
    assert decide(entry, facts, NOW) == verdict


@pytest.mark.parametrize(
    ("said", "leased", "action"),
    [
        ([H, H, X], False, Action.DELETE),
        ([H, H, N], False, Action.DELETE),
        ([H, H, H], True, Action.WAIT),
        ([H, N, X], False, None),
        ([H, U, U], False, None),
        ([N, U, U], False, None),
        ([U, X, X], False, None),
        ([X, X, X], False, None),
        ([], False, None),
        ([U, S, X], False, Action.DELETE),
        ([S, S, X], True, Action.WAIT),
    ],
)
def test_what_owners_say_decides(said: list[Standing], leased: bool, action: Action | None) -> None:
    verdict = after_asking(DEAD, said, 2, 2, leased=leased, now_us=NOW)
    assert (verdict.action if verdict else None) == action


def test_a_file_that_no_owner_wants_has_its_delay() -> None:
    verdict = after_asking(ResyncEntry(NOW, 3), [U, U, U], 2, 2, leased=False, now_us=NOW)
    assert verdict == Verdict(Action.WAIT, ResyncEntry(NOW + DELETE_DELAY_US, 0, NOW))


def test_failures_wait_longer_each_time_up_to_about_an_hour() -> None:
    minutes = [backoff_us(errors) // RETRY_FIRST_US for errors in range(10)]
    assert minutes == [1, 1, 2, 4, 8, 16, 32, 64, 64, 64]
    failed = after_failure(after_failure(ResyncEntry(NOW, 0, 7), NOW), NOW)
    assert failed == ResyncEntry(NOW + 2 * RETRY_FIRST_US, 2, 7)
    assert failed.last_error_us == NOW
    assert ResyncEntry(NOW).last_error_us is None


@given(st.lists(st.booleans(), max_size=6))
def test_references_are_counted_from_their_rows(deleted: list[bool]) -> None:
    bucket = BucketId(bytes(32))
    rows = [
        (block_ref_row(BLOCK, DataId(bytes([number]) * 16)), BlockRef(bucket, gone).encode())
        for number, gone in enumerate(deleted)
    ]
    assert live_count(rows) == deleted.count(False)
    assert [(ref.data[0], ref.deleted) for ref in references(rows)] == list(enumerate(deleted))


def test_a_row_that_cannot_be_read_is_never_zero() -> None:
    rows = [(block_ref_row(BLOCK, DataId(bytes(16))), b"\xff")]
    with pytest.raises(StorageFailed):
        live_count(rows)
    with pytest.raises(StorageFailed):
        references(rows)


class QueueMachine(RuleBasedStateMachine):
    """One block under blind requests, looks, failures and the passing of time.

    The model knows what really happened: since when the block has been without a reference, and
    which looks were asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[bytes, bytes] = {}
        self.now = NOW
        self.live = False
        self.present = False
        self.dead_since = NOW
        self.wanted: list[int] = []
        """Looks asked for that must still come, at these times or before."""

    def want(self, due: int) -> None:
        """An earlier look takes the place of the later ones."""
        self.wanted = [other for other in self.wanted if other <= due] + [due]

    def write(self, rows: list[Row]) -> None:
        for key, value in rows:
            self.rows.pop(key, None)
            if value:
                self.rows[key] = value

    @property
    def entry(self) -> ResyncEntry | None:
        stored = self.rows.get(entry_key(BLOCK))
        return ResyncEntry.decode(stored) if stored else None

    def due(self) -> list[int]:
        return sorted(due_of(key)[0] for key in self.rows if key[0] == Table.RESYNC_DUE)

    @rule(seconds=st.sampled_from([0, 1, 60, 599, 600, 3900]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * 1_000_000

    @rule()
    def put(self) -> None:
        self.live = self.present = True

    @rule()
    def last_reference_goes(self) -> None:
        if self.live:
            self.live = False
            self.dead_since = self.now
            self.write(deletion_rows(BLOCK, self.now))
            self.want(self.now + DELETE_DELAY_US)

    @rule()
    def file_rots(self) -> None:
        if self.present:
            self.present = False
            self.write(resync_rows(BLOCK, self.now))
            self.want(self.now)

    @rule()
    def somebody_asks(self) -> None:
        self.write(resync_rows(BLOCK, self.now))
        self.want(self.now)

    @rule(peer_has_it=st.booleans(), leased=st.booleans())
    def worker_looks(self, peer_has_it: bool, leased: bool) -> None:
        due = self.due()
        if not due or due[0] > self.now:
            return
        entry = self.entry
        if entry is None or not counts(due[0], entry):
            self.write(stale_rows(BLOCK, due[0]))
            return
        self.wanted = [other for other in self.wanted if other > self.now]
        verdict = decide(entry, Facts(int(self.live), self.present, leased), self.now)
        if verdict.action is Action.DELETE:
            assert not self.live and not leased
            assert self.now - self.dead_since >= DELETE_DELAY_US
            self.present = False
        if verdict.action is Action.FETCH:
            assert self.live
            if not peer_has_it:
                self.write(requeued_rows(BLOCK, due[0], after_failure(entry, self.now)))
                return
            self.present = True
        if verdict.entry is not None:
            assert verdict.entry.due_us > self.now
            self.write(requeued_rows(BLOCK, due[0], verdict.entry))
        elif entry.due_us > due[0]:
            self.write(stale_rows(BLOCK, due[0]))
        else:
            self.write(settled_rows(BLOCK, due[0]))

    @invariant()
    def what_needs_a_look_gets_one(self) -> None:
        """A block that is not as it should be has an entry, and an index row that leads to it."""
        if self.live == self.present:
            return
        entry = self.entry
        assert entry is not None
        assert any(counts(due, entry) for due in self.due())

    @invariant()
    def no_look_is_lost(self) -> None:
        if self.wanted:
            entry = self.entry
            assert any(counts(due, entry) and due <= min(self.wanted) for due in self.due())

    def teardown(self) -> None:
        """Left alone with willing peers, the queue runs empty and all is as it should be."""
        for _ in range(50):
            due = self.due()
            if not due:
                break
            self.now = max(self.now, due[0])
            self.worker_looks(peer_has_it=True, leased=False)
        assert not self.rows
        assert self.live == self.present


TestQueue = QueueMachine.TestCase
