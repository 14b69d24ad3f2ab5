"""The simulated disk loses what it should and keeps what it must; the loop repeats itself."""

from __future__ import annotations

import asyncio
import errno
import random

import pytest

from garage_lite.core.ports import OpenMode
from tests.sim.files import SimFiles
from tests.sim.loop import run


def write(files: SimFiles, path: str, content: bytes, *, sync: bool = True) -> None:
    file = files.open(path, OpenMode.CREATE)
    file.write_at(0, [content])
    if sync:
        file.sync()
    file.close()


def left(files: SimFiles, keep: float, seed: int = 0) -> dict[str, bytes]:
    after = files.crash(random.Random(seed), keep)
    return {path: bytes(inode.content) for path, inode in after.disk.paths().items()}


def test_a_name_needs_its_directory_synced_and_content_its_file() -> None:
    files = SimFiles()
    write(files, "/named", b"1", sync=False)
    files.sync_directory("/")
    write(files, "/unnamed", b"2")
    assert left(files, 0.0) == {"/named": b""}
    assert left(files, 1.0) == {"/named": b"1", "/unnamed": b"2"}


def test_unsynced_writes_are_torn_at_sectors_and_reordered() -> None:
    files = SimFiles()
    write(files, "/a", bytes(4096))
    files.sync_directory("/")
    file = files.open("/a", OpenMode.UPDATE)
    file.write_at(100, [b"x" * 3000])
    found = {left(files, 0.5, seed)["/a"] for seed in range(40)}
    assert len(found) > 10
    for content in found:
        for sector in range(0, 4096, 512):
            whole = bytes(file.read_at(sector, 512))
            assert content[sector : sector + 512] in (whole, bytes(512))
    file.sync()
    assert left(files, 0.0)["/a"] == file.read_at(0, 4096)


def test_a_journal_is_durable_at_once() -> None:
    files = SimFiles()
    write(files, "/j", bytes(8192))
    files.sync_directory("/")
    file = files.open("/j", OpenMode.JOURNAL)
    file.write_at(4096, [b"j" * 4096])
    assert left(files, 0.0)["/j"] == bytes(4096) + b"j" * 4096


def test_a_rename_is_whole_or_not_at_all() -> None:
    files = SimFiles()
    for directory in ("/d", "/e"):
        files.make_directory(directory)
    files.sync_directory("/")
    write(files, "/d/old", b"old")
    write(files, "/d/new", b"new")
    files.sync_directory("/d")
    files.rename("/d/new", "/d/old")
    found = {tuple(left(files, 0.5, seed).items()) for seed in range(30)}
    assert found == {(("/d/old", b"old"), ("/d/new", b"new")), (("/d/old", b"new"),)}
    files.sync_directory("/d")
    files.rename("/d/old", "/e/moved")
    names = {tuple(sorted(left(files, 0.5, seed))) for seed in range(60)}
    assert names == {("/d/old",), ("/d/old", "/e/moved"), ("/e/moved",)}, "never neither"
    files.sync_directory("/d")
    assert left(files, 0.0) == {"/e/moved": b"new"}


def test_a_failed_sync_loses_what_it_should_have_kept_for_good() -> None:
    files = SimFiles()
    write(files, "/a", b"old")
    files.sync_directory("/")
    file = files.open("/a", OpenMode.UPDATE)
    file.write_at(0, [b"new"])
    files.fail_nth(0, errno.EIO, only="sync")
    with pytest.raises(OSError):
        file.sync()
    file.sync()
    assert file.read_at(0, 3) == b"new", "the page cache still has it"
    assert left(files, 1.0) == {"/a": b"old"}


def test_a_full_disk_and_a_rotten_bit() -> None:
    files = SimFiles(capacity=10)
    write(files, "/a", b"12345678")
    with pytest.raises(OSError) as caught:
        write(files, "/b", b"123")
    assert caught.value.errno == errno.ENOSPC
    files.rot("/a", 0, 1)
    assert files.open("/a", OpenMode.READ).read_at(0, 2) == b"32"


def test_any_moment_can_be_made_again() -> None:
    files = SimFiles()
    write(files, "/a", b"1")
    files.mark("first")
    write(files, "/b", b"2")
    files.sync_directory("/")
    crashes = list(files.crashes(seed=1, variants=1))
    points = len([1 for name, _ in files.journal if name != "mark"])
    assert len(crashes) == 3 * points
    assert crashes[0].marks == [] and crashes[-1].marks == ["first"]
    assert crashes[-1].files.paths() == ["/a", "/b"]
    again = files.crash(random.Random(0), 1.0, point=2)
    assert again.paths() == ["/a"]


def test_the_loop_repeats_itself_and_other_seeds_differ() -> None:
    async def main() -> list[tuple[int, float]]:
        seen: list[tuple[int, float]] = []
        loop = asyncio.get_running_loop()

        async def one(number: int) -> None:
            await asyncio.sleep(0)
            await loop.run_in_executor(None, lambda: number)
            seen.append((number, loop.time()))

        await asyncio.gather(*[one(number) for number in range(10)])
        return seen

    assert run(main(), 1) == run(main(), 1)
    assert run(main(), 1) != run(main(), 2)
    with pytest.raises(RuntimeError, match="deadlock"):
        run(_forever())


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()
