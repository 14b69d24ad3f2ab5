"""Listings whose rows lie at three replicas that fold them, against a naive one of all rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from garage_lite.core.model.objects import Floor, Kind, ObjectVersion
from garage_lite.core.model.rowkeys import stamp_of
from garage_lite.core.store.listing import Listing
from garage_lite.core.store.listing_pages import ListEntry
from garage_lite.core.table.folding import Fold, FoldedRows, Run, runs_of
from garage_lite.core.table.reading import Answer, join
from tests.core.store.test_listing import (
    BUCKET,
    DELIMITERS,
    MODELS,
    NEIGHBOURS,
    PREFIXES,
    Model,
    histories,
    version,
)


@dataclass
class Replicated:
    """Rows at three replicas; each question goes to two of them, which then hold the same."""

    replicas: list[dict[bytes, bytes]]
    random: Random
    batch: int = 32
    most: int = 1000
    among: tuple[int, ...] = (0, 1, 2)
    asked: int = 0
    sent: int = 0
    alone: bool = field(default=False, init=False)

    async def folded(self, start: bytes, end: bytes, fold: Fold, most: int) -> list[Run]:
        self.asked += 1
        names = self.random.sample(self.among, 2)
        answers = {name: self._answer(name, start, end, fold, most) for name in names}
        joined = join(answers, cut=True)
        for name, rows in joined.lacking.items():
            self.replicas[name].update(rows)
        runs = runs_of(joined, start, end)
        assert runs[0].first == start
        for run, following in zip(runs, [*runs[1:], None], strict=True):
            assert run.first < run.past
            assert run.keys == sorted(run.keys)
            assert all(run.first <= key < run.past for key in run.keys)
            assert following is None or run.past <= following.first
        return runs

    def _answer(self, name: int, start: bytes, end: bytes, fold: Fold, most: int) -> Answer:
        rows = sorted(row for row in self.replicas[name].items() if start <= row[0] < end)
        folded = FoldedRows(fold, start, min(most, self.most))
        for at in range(0, len(rows), self.batch):
            if not folded.done:
                some = rows[at : at + self.batch]
                folded.feed([key for key, _ in some], [value for _, value in some])
        answer = folded.answer(())
        self.sent += len(answer.rows)
        return answer

    async def scan(
        self, start: bytes, end: bytes
    ) -> AsyncIterator[tuple[list[bytes], list[bytes]]]:
        rows = {key: value for replica in self.replicas for key, value in replica.items()}
        keys = sorted(key for key in rows if start <= key < end)
        yield keys, [rows[key] for key in keys]

    async def versions(
        self, prefix: bytes, named: Iterable[bytes] | None = None
    ) -> list[tuple[bytes, bytes]]:
        rows = {key: value for replica in self.replicas for key, value in replica.items()}
        return sorted(row for row in rows.items() if row[0].startswith(prefix))


def spread(model: Model, random: Random, batch: int, most: int) -> Replicated:
    """Each row at two replicas at least; the third has it, lacks it, or does not know that it is
    removed. So has one of the two whose other has it as it is."""
    foreign = Model({b"a/foreign": [version(1)], b"\xff\xff": [version(1)]})
    replicas: list[dict[bytes, bytes]] = [{}, {}, {}]
    for bucket in (BUCKET, *NEIGHBOURS):
        for key, value in (model if bucket == BUCKET else foreign).rows(bucket):
            known = ObjectVersion.decode(stamp_of(key), value)
            before = replace(known, removed=False).encode()
            one, two, three = random.sample(replicas, 3)
            one[key] = two[key] = value
            third = random.choice([None, before, value])
            if third is not None:
                three[key] = third
    return Replicated(replicas, random, batch, most)


FEW = [folder + name for folder in (b"a/", b"b/", b"") for name in (b"0", b"1", b"2", b"3")]
FEW_MODELS = st.dictionaries(st.sampled_from(FEW), histories(), min_size=6).map(Model)
"""Where common prefixes hold several keys, of which many are removed."""
ASKED = st.tuples(MODELS, PREFIXES, DELIMITERS.filter(bool)) | st.tuples(
    FEW_MODELS, st.just(b""), st.just(b"/")
)


@settings(max_examples=200)
@given(ASKED, st.integers(1, 16), st.integers(1, 6), st.randoms())
async def test_pages_of_objects_are_those_of_all_rows(
    asked: tuple[Model, bytes, bytes], limit: int, batch: int, random: Random
) -> None:
    model, prefix, delimiter = asked
    rows = spread(model, random, batch, random.choice([1, 2, 5, 1000]))
    expected = model.items(prefix, delimiter)
    met: list[tuple[bytes, ListEntry | None]] = []
    after, inclusive = b"", False
    while True:
        page = await Listing(rows).objects(
            BUCKET,
            prefix=prefix,
            delimiter=delimiter,
            after=after,
            inclusive=inclusive,
            limit=limit,
        )
        items = [(entry.key, entry) for entry in page.entries]
        met += sorted([*items, *((group, None) for group in page.prefixes)])
        assert len(met) <= len(expected)
        if page.next is None:
            break
        after, inclusive = page.next
    assert met == expected


@settings(max_examples=200)
@given(ASKED, st.integers(1, 16), st.integers(1, 6), st.randoms())
async def test_pages_of_versions_are_those_of_all_rows(
    asked: tuple[Model, bytes, bytes], limit: int, batch: int, random: Random
) -> None:
    model, prefix, delimiter = asked
    rows = spread(model, random, batch, random.choice([1, 2, 5, 1000]))
    expected = model.all_versions(prefix, delimiter)
    met: list[tuple[bytes, str | None, bool]] = []
    key_marker, version_marker = b"", None
    while True:
        page = await Listing(rows).versions(
            BUCKET,
            prefix=prefix,
            delimiter=delimiter,
            key_marker=key_marker,
            version_marker=version_marker,
            limit=limit,
        )
        entries = [(e.key, e.version_id, e.is_latest) for e in page.entries]
        groups = [(group, None, False) for group in page.prefixes]
        met += sorted([*entries, *groups], key=lambda item: item[0])
        assert len(met) <= len(expected)
        if page.next is None:
            break
        key_marker, version_marker = page.next
    assert met == expected


def folders(count: int, each: int) -> Model:
    names = [b"%04d/%02d" % (folder, n) for folder in range(count) for n in range(each)]
    return Model({name: [version(1, floor=Floor.ALL)] for name in names})


def alike(model: Model) -> Replicated:
    return Replicated([dict(model.rows()) for _ in range(3)], Random(1))


async def test_a_page_of_folders_is_one_question_and_one_row_of_each() -> None:
    rows = alike(folders(120, 50))
    page = await Listing(rows).objects(BUCKET, delimiter=b"/", limit=100)
    assert page.prefixes == [b"%04d/" % folder for folder in range(100)]
    assert page.next is not None
    assert (rows.asked, rows.sent) == (1, 2 * 120)
    versions = await Listing(rows).versions(BUCKET, delimiter=b"/", limit=100)
    assert versions.prefixes == page.prefixes
    assert rows.asked == 2


async def test_what_is_deleted_at_one_replica_alone_costs_a_question_where_it_stood_first() -> None:
    """Of three folders one lost its first key, one all its keys; one replica knows of none."""
    model = folders(3, 2)
    rows = alike(model)
    for name in (b"0000/00", b"0001/00", b"0001/01"):
        model.versions[name].insert(0, version(2, Kind.DELETE_MARKER, floor=Floor.ALL))
    rows.replicas[0] = dict(model.rows())
    rows.replicas[2] = dict(model.rows())
    rows.among = (0, 1)
    page = await Listing(rows).objects(BUCKET, delimiter=b"/")
    assert page.prefixes == [b"0000/", b"0002/"]
    assert rows.asked == 3
    asked = rows.asked
    rows.replicas[1] = dict(rows.replicas[0])
    assert (await Listing(rows).objects(BUCKET, delimiter=b"/")).prefixes == page.prefixes
    assert rows.asked == asked + 1


async def test_replicas_that_each_take_another_removed_key_for_alive_list_nothing() -> None:
    model = folders(1, 2)
    replicas = []
    for removed in (b"0000/01", b"0000/00"):
        known = Model(dict(model.versions))
        gone = version(2, Kind.DELETE_MARKER, floor=Floor.ALL)
        known.versions[removed] = [gone, *model.versions[removed]]
        replicas.append(dict(known.rows()))
    for versions in (False, True):
        rows = Replicated([dict(replica) for replica in replicas], Random(1), among=(0, 1))
        listing = Listing(rows)
        list_page = listing.versions if versions else listing.objects
        assert (await list_page(BUCKET, delimiter=b"/")).prefixes == []
        assert rows.asked <= 3
