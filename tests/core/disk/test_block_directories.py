"""Data directories opened, made and refused on a real file system."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from garage_lite.core.block.markers import MARKER_NAME
from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.errors import DataDirError
from garage_lite.core.limits import GIB
from tests.core.blocks_on_disk import MemoryState, named, open_blocks


async def test_directories_are_made_with_their_parents(tmp_path: Path) -> None:
    await open_blocks(tmp_path / "deep" / "er", MemoryState())
    assert (tmp_path / "deep" / "er" / "d" / MARKER_NAME).exists()


async def test_a_replaced_directory_is_refused_until_it_is_taken_over(tmp_path: Path) -> None:
    state = MemoryState()
    await open_blocks(tmp_path, state)
    (tmp_path / "d").rename(tmp_path / "old")
    with pytest.raises(DataDirError, match="Is its disk mounted"):
        await open_blocks(tmp_path, state)
    assert not (tmp_path / "d").exists()
    await open_blocks(tmp_path / "other", MemoryState())
    (tmp_path / "other" / "d").rename(tmp_path / "d")
    marker = tmp_path / "d" / MARKER_NAME
    fields = marker.read_text().split("\n")
    fields[2] = "id " + "00" * 16
    marker.write_text("\n".join(fields))
    with pytest.raises(DataDirError, match="wrong disk"):
        await open_blocks(tmp_path, state)
    marker.write_bytes(b"")
    blocks = await open_blocks(tmp_path, state)
    await blocks.put(named(b"x"), [b"x"], compress=False, verify=False)
    assert await (await open_blocks(tmp_path, state)).get(named(b"x")) == b"x"


async def test_directories_may_leave_and_come_back(tmp_path: Path) -> None:
    state = MemoryState()
    await open_blocks(tmp_path, state, directories={"d": 1, "e": 1})
    await open_blocks(tmp_path, state, directories={"d": 1})
    await open_blocks(tmp_path, state, directories={"d": 1, "e": 1})


async def test_swapped_mounts_are_recognised(tmp_path: Path) -> None:
    state = MemoryState()
    blocks = await open_blocks(tmp_path, state, directories={"d": 1, "e": 1})
    block = named(b"x")
    await blocks.put(block, [b"x"], compress=False, verify=False)
    home = blocks.home(block)
    (tmp_path / "d").rename(tmp_path / "x")
    (tmp_path / "e").rename(tmp_path / "d")
    (tmp_path / "x").rename(tmp_path / "e")
    swapped = await open_blocks(tmp_path, state, directories={"d": 1, "e": 1})
    assert swapped.home(block).id == home.id and swapped.home(block).path != home.path
    assert await swapped.get(block) == b"x"


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS])
async def test_a_directory_without_rights_is_refused(tmp_path: Path, error: int) -> None:
    class Refusing(LocalFiles):
        def make_directory(self, path: str) -> None:
            raise OSError(error, "no")

    with pytest.raises(DataDirError, match="can't be written to.*read_only"):
        await open_blocks(tmp_path, MemoryState(), Refusing())


async def test_a_directory_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    class Hidden(LocalFiles):
        def exists(self, path: str) -> bool:
            raise OSError(errno.EIO, "input/output error")

    with pytest.raises(DataDirError, match="can't be read.*check its disk"):
        await open_blocks(tmp_path, MemoryState(), Hidden())


async def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("a file")
    with pytest.raises(DataDirError, match=f"{tmp_path}/d can't be"):
        await open_blocks(tmp_path, MemoryState())


async def test_the_reserve_is_a_hundredth_of_the_disk_and_a_gigabyte_at_most(
    tmp_path: Path,
) -> None:
    class Small(LocalFiles):
        def total_bytes(self, path: str) -> int:
            return 5_000

    small = await open_blocks(tmp_path / "s", MemoryState(), Small(), reserve_bytes=None)
    assert small.directories[0].reserve_bytes == 50

    class Big(LocalFiles):
        def total_bytes(self, path: str) -> int:
            return 10**15

    big = await open_blocks(tmp_path / "b", MemoryState(), Big(), reserve_bytes=None)
    assert big.directories[0].reserve_bytes == GIB
