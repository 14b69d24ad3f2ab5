"""The disk refuses: EIO and ENOSPC at each single call, a disk that stays full, rotten bits."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
from dataclasses import replace

import pytest

from garage_lite.core.disk.group_commit import DAMAGED_SUFFIX, SET_ASIDE_MAX, number_of
from garage_lite.core.errors import (
    DamagedRow,
    DataDirError,
    DiskFull,
    NodeError,
    StorageFailed,
    Unavailable,
)
from tests.core.disk.metadata_world import (
    DIRECTORY,
    SMALL,
    Model,
    Rows,
    apply,
    check_reads,
    everything,
    open_store,
)
from tests.sim.files import SimFiles
from tests.sim.loop import run

SEGMENT = "/segment-"
LOG = "/log-"


def some_rows(chance: random.Random) -> Rows:
    return [
        (
            b"\x20\x00key-%02d" % chance.randrange(60),
            None if chance.random() < 0.2 else chance.randbytes(chance.randrange(90)),
        )
        for _ in range(chance.randrange(1, 6))
    ]


async def write_through(files: SimFiles, chance: random.Random, count: int) -> list[Model]:
    """Write while the disk may refuse; returns the states that may be found afterwards: the first
    is what was acknowledged, each further one has one more record whose fate is unknown."""
    acknowledged: Model = {}
    unknown: list[Rows] = []
    store = await open_store(files)
    for number in range(count):
        group = [some_rows(chance) for _ in range(chance.randrange(1, 4))]
        await asyncio.wait_for(store.room(), 60)
        futures = []
        for rows in group:
            try:
                futures.append((rows, store.commit(rows)))
            except (DiskFull, Unavailable):
                assert store.status().failed or store.status().disk_full
        await asyncio.gather(*[future for _, future in futures], return_exceptions=True)
        for rows, future in futures:
            error = future.exception()
            if error is None:
                assert not unknown, "nothing is acknowledged after a failed write"
                apply(acknowledged, rows)
            elif isinstance(error, StorageFailed):
                unknown.append(rows)
            else:
                assert isinstance(error, DiskFull)
        try:
            assert everything(store) == acknowledged, "reads go on and see what is durable"
            assert everything(store, latest=True) == acknowledged
        except DamagedRow:
            assert store.status().damage
        if number == count // 2:
            with contextlib.suppress(NodeError):
                await store.snapshot("s")
    await store.close()
    states = [dict(acknowledged)]
    for rows in unknown:
        states.append(dict(states[-1]))
        apply(states[-1], rows)
    return states


def calls_of_a_run(count: int) -> int:
    files = SimFiles()
    run(write_through(files, random.Random(3), count), 3)
    return files.calls


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("forever", [False, True])
def test_whichever_call_fails_nothing_acknowledged_is_lost(error: int, forever: bool) -> None:
    count = 20
    calls = calls_of_a_run(count)
    refused = 0
    for nth in range(0, calls, 7 if forever else 2):
        files = SimFiles()
        files.fail_nth(nth, error, forever=forever)
        try:
            states = run(write_through(files, random.Random(3), count), 3)
        except (StorageFailed, DataDirError, DiskFull):
            states = [{}]  # it did not even open
            refused += 1
        files.fail_if(None)
        files = files.crash(random.Random(nth), (nth % 3) / 2)

        async def reopened(files: SimFiles = files) -> Model:
            store = await open_store(files)
            assert not store.status().damage
            found = everything(store)
            await store.commit([(b"\x20\x00more", b"1")])
            await store.close()
            return found

        assert run(reopened(), nth) in states, f"call {nth} of {calls}"
    assert calls > 200 and 0 < refused < calls / 3


def only_for(part: str, call: str, error: int, files: SimFiles) -> None:
    files.fail_if(lambda name, path: error if name == call and part in path else 0)


def test_a_full_disk_refuses_writes_but_takes_deletions_and_reads_go_on() -> None:
    async def scenario() -> None:
        files = SimFiles()
        store = await open_store(files)
        await store.commit([(b"\x20\x00first", b"1")])
        await asyncio.sleep(0.1)
        files.capacity = files.used_bytes()
        written: Model = {b"\x20\x00first": b"1"}
        with pytest.raises(DiskFull):
            for number in range(1000):
                await asyncio.wait_for(store.room(), 60)
                key = b"\x20\x00%05d" % number
                await store.commit([(key, b"v" * 500)])
                written[key] = b"v" * 500
        assert store.status().disk_full and not store.status().failed
        assert everything(store) == written
        for key in list(written)[:3]:
            await store.commit([(key, None)], reserve=True)
            del written[key]
        assert everything(store) == written
        files.capacity = 1 << 40
        await asyncio.sleep(3)
        await store.commit([(b"\x20\x00more", b"1")])
        assert not store.status().disk_full
        await store.close()
        again = await open_store(files)
        check_reads(again, {**written, b"\x20\x00more": b"1"})
        await again.close()

    run(scenario())


def test_a_failed_log_write_fails_all_that_wait_and_every_later_write() -> None:
    async def scenario() -> None:
        files = SimFiles()
        store = await open_store(files)
        await store.commit([(b"\x20\x00a", b"1")])
        only_for(LOG, "write", errno.EIO, files)
        first = store.commit([(b"\x20\x00a", b"2")])
        await asyncio.sleep(0)
        second = store.commit([(b"\x20\x00b", b"2")])
        for future in (first, second):
            with pytest.raises(StorageFailed):
                await future
        files.fail_if(None)
        assert store.get(b"\x20\x00a") == b"1" == store.get(b"\x20\x00a", latest=True)
        assert store.get(b"\x20\x00b", latest=True) is None
        with pytest.raises(Unavailable):
            store.commit([(b"\x20\x00c", b"1")])
        with pytest.raises(Unavailable):
            store.drop_range(b"a", b"b")
        assert "log" in store.status().failed
        await store.room()
        await store.close()
        again = await open_store(files)
        await again.commit([(b"\x20\x00c", b"1")])
        await again.close()

    run(scenario())


def test_a_rotten_bit_in_a_segment_is_never_answered_with_something_else() -> None:
    async def scenario(seed: int) -> str:
        files = SimFiles()
        model: Model = {}
        chance = random.Random(seed)
        store = await open_store(files, replace(SMALL, fan_in=3))
        for _ in range(120):
            rows = some_rows(chance)
            apply(model, rows)
            await store.room()
            await store.commit(rows)
        await store.flush()
        await store.close()
        path = chance.choice([path for path in files.paths() if SEGMENT in path])
        byte = chance.randrange(files.file_size(path))
        files.rot(path, byte, chance.randrange(8))
        store = await open_store(files, replace(SMALL, fan_in=3))
        unknown = 0
        for number in range(60):
            key = b"\x20\x00key-%02d" % number
            try:
                assert store.get(key) == model.get(key)
            except DamagedRow:
                unknown += 1
            try:
                expected = [(key, model[key])] if key in model else []
                assert store.with_prefix(key) == expected
            except DamagedRow:
                unknown += 1
        try:
            assert everything(store) == model
        except DamagedRow:
            unknown += 1
        if unknown:
            assert store.status().damage, "damage is told"
        for _ in range(30):  # writing, flushing and merging around the damage goes on
            rows = some_rows(chance)
            apply(model, rows)
            await store.room()
            await store.commit(rows)
        await store.flush()
        for key in model:
            try:
                assert store.get(key) == model[key]
            except DamagedRow:
                unknown += 1
        await store.close()
        return "unknown" if unknown else "right"

    outcomes = [run(scenario(seed), seed) for seed in range(60)]
    assert outcomes.count("unknown") > 20


def test_a_rotten_log_is_reported_and_the_rest_of_it_kept() -> None:
    async def scenario() -> None:
        files = SimFiles()
        big = replace(SMALL, memtable_bytes=1 << 20, log_files_max=50)
        store = await open_store(files, big)
        for number in range(30):
            await store.commit([(b"\x20\x00%02d" % number, b"v")])
        await store.close()
        path = [path for path in files.paths() if LOG in path][0]
        place = bytes(files.disk.file(path).content).index(b"\x20\x0001")
        files.rot(path, place)
        store = await open_store(files, big)
        assert len(store.status().damage) == 1
        expected = {b"\x20\x00%02d" % n: b"v" for n in range(30) if n != 1}
        assert everything(store) == expected
        await store.commit([(b"\x20\x00new", b"1")])
        await store.flush()
        await store.close()
        again = await open_store(files, big)
        assert again.status().damage, "it is not forgotten when the log file is set aside"
        await again.close()

    run(scenario())


def rotten_log(files: SimFiles, use: int, *, of: bytes) -> bytes:
    """Break the record that holds `of` in the log file that is `use`-th by name; the file."""
    paths = [path for path in sorted(files.paths()) if number_of(path, DIRECTORY + LOG) is not None]
    path = paths[use]
    files.rot(path, bytes(files.disk.file(path).content).index(of))
    return bytes(files.disk.file(path).content)


def test_a_damaged_log_file_is_set_aside_until_its_damage_is_forgotten() -> None:
    async def scenario() -> None:
        files = SimFiles()
        big = replace(SMALL, memtable_bytes=1 << 20, log_files_max=50)
        rotten: list[bytes] = []
        for turn in range(SET_ASIDE_MAX + 2):
            store = await open_store(files, big)
            for number in range(3):
                await store.commit([(b"\x20\x00%02d%02d" % (turn, number), b"v")])
            await store.close()
            rotten.append(rotten_log(files, -1, of=b"\x20\x00%02d01" % turn))
            store = await open_store(files, big)
            assert len(store.status().set_aside) == min(turn, SET_ASIDE_MAX), "not before a flush"
            await store.commit([(b"\x20\x00new", b"1")])
            await store.flush()
            await store.commit([(b"\x20\x00new", b"2")])
            await store.close()
        store = await open_store(files, big)
        status = store.status()
        assert len(status.damage) == SET_ASIDE_MAX + 2
        kept = [bytes(files.disk.file(f"{DIRECTORY}/{name}").content) for name in status.set_aside]
        assert kept == rotten[-SET_ASIDE_MAX:], "the newest, as they were"
        before = everything(store)
        await store.forget_damage()
        assert (store.status().damage, store.status().set_aside) == ((), ())
        assert not [path for path in files.paths() if path.endswith(DAMAGED_SUFFIX)]
        await store.close()
        store = await open_store(files, big)
        assert (store.status().damage, everything(store)) == ((), before)
        await store.close()

    run(scenario())


def test_damage_is_forgotten_also_where_nothing_else_is_in_the_log() -> None:
    async def scenario() -> None:
        files = SimFiles()
        store = await open_store(files, SMALL)
        for number in range(3):
            await store.commit([(b"\x20\x00%02d" % number, b"v")])
        await store.close()
        rotten_log(files, -1, of=b"\x20\x0001")
        store = await open_store(files, SMALL)
        assert store.status().damage
        await store.drop_range(b"\x00", b"\xff")
        await store.forget_damage()
        await store.close()
        store = await open_store(files, SMALL)
        assert (store.status().damage, everything(store)) == ((), {})
        await store.close()

    run(scenario())


def test_a_rotten_or_newer_or_missing_manifest_is_refused_in_plain_words() -> None:
    async def scenario() -> None:
        files = SimFiles()
        store = await open_store(files)
        await store.commit([(b"\x20\x00a", b"1")])
        await store.close()
        files.rot(f"{DIRECTORY}/manifest", 50)
        with pytest.raises(StorageFailed, match="manifest"):
            await open_store(files)
        files.remove(f"{DIRECTORY}/manifest")
        with pytest.raises(DataDirError, match="restore a snapshot"):
            await open_store(files)

    run(scenario())


def test_a_missing_segment_makes_its_rows_unknown() -> None:
    async def scenario() -> None:
        files = SimFiles()
        store = await open_store(files)
        await store.commit([(b"\x20\x00a", b"1"), (b"\x20\x00c", b"1")])
        await store.flush()
        await store.close()
        files.remove([path for path in files.paths() if SEGMENT in path][0])
        store = await open_store(files)
        assert store.status().damage
        with pytest.raises(DamagedRow):
            store.get(b"\x20\x00b")
        assert store.get(b"\x20\x00d") is None
        await store.close()

    run(scenario())
