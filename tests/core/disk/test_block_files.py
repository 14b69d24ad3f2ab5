"""The block store on a real file system."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import zstandard

from garage_lite.core.block.frame import StoredBlock
from garage_lite.core.block.markers import MARKER_NAME, DataDirectory
from garage_lite.core.disk.block_files import BlockFiles, BlockOptions, Checked
from garage_lite.core.disk.block_shelf import Copy
from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.errors import BlockCorrupt, BlockMissing, DiskFull, StorageFailed
from garage_lite.core.ids import BlockHash
from tests.core.blocks_on_disk import (
    MemoryState,
    SeededEntropy,
    damage,
    files_of,
    find,
    named,
    noise,
    open_blocks,
)

TEXT = b"a line that says little\n" * 4000
A = noise(1)
B = noise(2)


async def put(blocks: BlockFiles, content: bytes, compress: bool = True) -> BlockHash:
    block = named(content)
    parts = [content[at : at + 1000] for at in range(0, len(content), 1000)]
    await blocks.put(block, parts, compress=compress, verify=True)
    return block


async def copies(blocks: BlockFiles) -> list[Copy]:
    found = []
    for directory in blocks.directories:
        leaf = 0
        while (step := await blocks.next_leaf(directory, leaf)) is not None:
            leaf = step[0] + 1
            found += step[1]
    return found


async def test_a_block_is_read_back_whole_and_in_ranges(tmp_path: Path) -> None:
    blocks = await open_blocks(tmp_path, MemoryState())
    for content in (A, TEXT, b"x"):
        block = await put(blocks, content)
        assert blocks.has(block)
        assert await blocks.get(block) == content
        assert await blocks.get_range(block, 5, 50) == content[5:50]
        assert await blocks.get_range(block, 0, None) == content
    stored = files_of(tmp_path)
    assert stored[named(A).hex()] == A
    assert len(stored[named(TEXT).hex() + ".zst"]) < len(TEXT) / 10
    _, counts = blocks.status()
    assert counts.written == 3 and counts.written_bytes == len(A) + len(TEXT) + 1
    assert counts.stored_bytes == sum(map(len, stored.values()))


async def test_threads_of_its_own(tmp_path: Path) -> None:
    """As a node runs it: real threads, many blocks at once, and a close that waits."""
    blocks = await BlockFiles.open(
        LocalFiles(), [DataDirectory(f"{tmp_path}/d")], MemoryState(), SeededEntropy()
    )
    contents = [noise(seed, 70_000) + TEXT for seed in range(24)]
    names = await asyncio.gather(*(put(blocks, content) for content in contents))
    assert await asyncio.gather(*map(blocks.get, names)) == contents
    await asyncio.gather(*map(blocks.delete, names[:12]))
    assert [blocks.has(name) for name in names] == [False] * 12 + [True] * 12
    await blocks.close()


async def test_compression_can_be_declined(tmp_path: Path) -> None:
    blocks = await open_blocks(tmp_path, MemoryState())
    await put(blocks, TEXT, compress=False)
    assert list(files_of(tmp_path)) == [named(TEXT).hex()]
    plain = await open_blocks(tmp_path / "plain", MemoryState(), level=None)
    await put(plain, TEXT)
    assert list(files_of(tmp_path / "plain")) == [named(TEXT).hex()]


async def test_content_that_is_not_the_blocks_is_not_stored(tmp_path: Path) -> None:
    blocks = await open_blocks(tmp_path, MemoryState())
    with pytest.raises(BlockCorrupt):
        await blocks.put(named(A), [B], compress=True, verify=True)
    assert not blocks.has(named(A)) and not files_of(tmp_path)


async def test_a_second_put_writes_nothing(tmp_path: Path) -> None:
    blocks = await open_blocks(tmp_path, MemoryState())
    block = await put(blocks, A)
    inode = find(tmp_path, block.hex()).stat().st_ino
    await asyncio.gather(put(blocks, A), put(blocks, A))
    assert find(tmp_path, block.hex()).stat().st_ino == inode
    assert list(files_of(tmp_path)) == [block.hex()]


async def test_missing_and_deleted_blocks(tmp_path: Path) -> None:
    blocks = await open_blocks(tmp_path, MemoryState())
    with pytest.raises(BlockMissing):
        await blocks.get(named(A))
    await blocks.delete(named(A))
    block = await put(blocks, A)
    await blocks.delete(block)
    assert not blocks.has(block) and not files_of(tmp_path)
    with pytest.raises(BlockMissing):
        await blocks.get(block)
    assert blocks.status()[1].deleted == 1


@pytest.mark.parametrize("content", [A, TEXT])
async def test_a_rotten_block_is_set_aside_and_told(tmp_path: Path, content: bytes) -> None:
    blocks = await open_blocks(tmp_path, MemoryState())
    told: list[BlockHash] = []

    async def tell(block: BlockHash) -> None:
        told.append(block)

    blocks.on_corrupt = tell
    block = await put(blocks, content)
    (name,) = files_of(tmp_path)
    rotten = damage(find(tmp_path, name))
    with pytest.raises(BlockCorrupt):
        await blocks.get(block)
    assert told == [block]
    assert files_of(tmp_path) == {name + ".corrupted": rotten}
    with pytest.raises(BlockMissing):
        await blocks.get(block)
    await put(blocks, content)
    assert await blocks.get(block) == content


async def test_a_put_over_a_rotten_file_replaces_it(tmp_path: Path) -> None:
    """A put is acknowledged for what can be read, not for a name that is there."""
    blocks = await open_blocks(tmp_path, MemoryState())
    block = await put(blocks, A)
    find(tmp_path, block.hex()).write_bytes(A[:-1])
    await put(blocks, A)
    assert await blocks.get(block) == A
    assert set(files_of(tmp_path)) == {block.hex(), block.hex() + ".corrupted"}


async def test_another_copy_is_read_where_one_is_rotten(tmp_path: Path) -> None:
    state = MemoryState()
    two = {"d": 1, "e": 1}
    blocks = await open_blocks(tmp_path, state, directories=two)
    block = await put(blocks, A)
    path = find(tmp_path, block.hex())
    twin = Path(str(path).replace("/d/", "/x/").replace("/e/", "/d/").replace("/x/", "/e/"))
    damage(twin, A)
    damage(path, b"rot")
    assert await blocks.get(block) == A
    assert block.hex() + ".corrupted" in files_of(tmp_path)
    await blocks.delete(block)
    assert not files_of(tmp_path)


async def test_a_full_disk_refuses_puts_and_nothing_else(tmp_path: Path) -> None:
    state = MemoryState()
    block = await put(await open_blocks(tmp_path, state), A)
    full = await open_blocks(tmp_path, state, reserve_bytes=1 << 62)
    with pytest.raises(DiskFull, match="disk full"):
        await put(full, B)
    await put(full, A)
    assert await full.get(block) == A
    await full.delete(block)


async def test_a_block_goes_elsewhere_while_its_home_is_full(tmp_path: Path) -> None:
    blocks = await open_blocks(tmp_path, MemoryState(), directories={"d": 1, "e": 1})
    home = blocks.home(named(A))
    home.reserve_bytes = 1 << 62
    block = await put(blocks, A)
    assert not find(tmp_path, block.hex()).is_relative_to(home.path)
    assert await blocks.get(block) == A
    (copy,) = await copies(blocks)
    assert not await blocks.move_home(copy)
    home.reserve_bytes = 0
    assert await blocks.move_home(copy)
    assert find(tmp_path, block.hex()).is_relative_to(home.path)
    assert await blocks.move_home(copy) and blocks.counts.moved == 1
    assert await blocks.get(block) == A


async def test_a_disk_that_goes_is_not_taken_for_missing_blocks(tmp_path: Path) -> None:
    blocks = await open_blocks(tmp_path, MemoryState())
    await put(blocks, A)
    (tmp_path / "d").rename(tmp_path / "gone")
    (tmp_path / "d").mkdir()
    for attempt in (blocks.get(named(A)), put(blocks, B), blocks.delete(named(A))):
        with pytest.raises(StorageFailed, match="mounted") as failed:
            await attempt
        assert not isinstance(failed.value, BlockMissing)
    assert not files_of(tmp_path / "d", "*/*/*")


async def test_new_capacities_leave_old_blocks_readable(tmp_path: Path) -> None:
    state = MemoryState()
    blocks = await open_blocks(tmp_path, state)
    names = [await put(blocks, noise(seed, 100)) for seed in range(40)]
    blocks = await open_blocks(tmp_path, state, directories={"d": 1, "e": 3})
    for seed, block in enumerate(names):
        assert await blocks.get(block) == noise(seed, 100)
        await put(blocks, noise(seed, 100))
    assert len(files_of(tmp_path)) == 40
    assert all([await blocks.move_home(copy) for copy in await copies(blocks)])
    assert 20 < blocks.counts.moved < 40
    await blocks.rebalanced()
    assert all(blocks.home(c.name.block) is c.directory for c in await copies(blocks))
    again = await open_blocks(tmp_path, state, directories={"d": 1, "e": 3})
    for seed, block in enumerate(names):
        assert await again.get(block) == noise(seed, 100)


async def test_a_read_only_directory_is_read_and_emptied_by_nobody(tmp_path: Path) -> None:
    state = MemoryState()
    block = await put(await open_blocks(tmp_path, state), A)
    wanted = [DataDirectory(f"{tmp_path}/d", None, True), DataDirectory(f"{tmp_path}/e")]
    blocks = await BlockFiles.open(LocalFiles(), wanted, state, state.entropy)
    assert await blocks.get(block) == A
    await blocks.delete(block)
    assert blocks.has(block)
    await put(blocks, B)
    assert find(tmp_path, named(B).hex()).is_relative_to(tmp_path / "e")
    find(tmp_path, block.hex()).write_bytes(b"rot")
    with pytest.raises(BlockCorrupt):
        await blocks.get(block)
    await put(blocks, A)
    assert await blocks.get(block) == A
    await blocks.close()


async def test_a_walk_meets_every_file_once(tmp_path: Path) -> None:
    blocks = await open_blocks(tmp_path, MemoryState(), directories={"d": 1, "e": 1})
    names = {await put(blocks, noise(seed, 50)) for seed in range(60)}
    (tmp_path / "d" / "ab").mkdir(exist_ok=True)
    (tmp_path / "d" / "ab" / "notes.txt").write_text("not ours")
    (tmp_path / "d" / "lost+found").mkdir()
    walked = [copy.name.block for copy in await copies(blocks)]
    assert len(walked) == 60 and set(walked) == names


async def test_a_check_says_what_it_found(tmp_path: Path) -> None:
    blocks = await open_blocks(tmp_path, MemoryState())
    block = await put(blocks, A)
    (copy,) = await copies(blocks)
    assert await blocks.check(copy) is Checked.GOOD
    path = find(tmp_path, block.hex())
    path.write_bytes(b"rot")
    assert await blocks.check(copy) is Checked.CORRUPT
    assert await blocks.check(copy) is Checked.GONE
    (aside,) = await copies(blocks)
    assert aside.name.corrupted
    assert await blocks.check(aside) is Checked.ASIDE
    # The bytes were good all along (the memory or the cable was not): taken back.
    path.with_name(path.name + ".corrupted").write_bytes(A)
    assert await blocks.check(aside) is Checked.HEALED
    assert await blocks.get(block) == A
    # Healed by a new copy: what was set aside is needless.
    path.with_name(path.name + ".corrupted").write_bytes(b"rot")
    assert await blocks.check(aside) is Checked.HEALED
    assert files_of(tmp_path) == {block.hex(): A}


async def test_a_rotten_file_is_not_moved(tmp_path: Path) -> None:
    state = MemoryState()
    blocks = await open_blocks(tmp_path, state)
    block = await put(blocks, A)
    blocks = await open_blocks(tmp_path, state, directories={"d": 1, "e": 10**6})
    find(tmp_path, block.hex()).write_bytes(b"rot")
    (copy,) = await copies(blocks)
    with pytest.raises(BlockCorrupt):
        await blocks.move_home(copy)
    assert files_of(tmp_path) == {block.hex() + ".corrupted": b"rot"}


async def test_a_cancelled_put_keeps_its_lock_until_it_ended(tmp_path: Path) -> None:
    blocks = await BlockFiles.open(
        LocalFiles(),
        [DataDirectory(f"{tmp_path}/d")],
        MemoryState(),
        SeededEntropy(),
        BlockOptions(threads=1),
    )
    task = asyncio.create_task(put(blocks, A))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await blocks.delete(named(A))
    assert not blocks.has(named(A))
    assert not list((tmp_path / "d" / "tmp").iterdir())
    await blocks.close()


async def test_leftovers_are_removed_at_the_start(tmp_path: Path) -> None:
    state = MemoryState()
    await open_blocks(tmp_path, state)
    (tmp_path / "d" / "tmp" / "half-0").write_bytes(b"half")
    await open_blocks(tmp_path, state)
    assert not list((tmp_path / "d" / "tmp").iterdir())
    assert "format 1" in (tmp_path / "d" / MARKER_NAME).read_text()


@pytest.mark.parametrize("plain", [noise(5, 5000), b"what compresses well\n" * 500])
async def test_a_block_goes_from_node_to_node_as_it_is_stored(tmp_path: Path, plain: bytes) -> None:
    first = await open_blocks(tmp_path / "first", MemoryState())
    second = await open_blocks(tmp_path / "second", MemoryState())
    block = named(plain)
    prepared = await first.prepare([plain[:70], plain[70:]], compress=True)
    await first.put_stored(block, prepared, verify=False)
    assert first.stored_size(block) == prepared.size
    assert second.stored_size(block) is None
    sent = await first.get_stored(block)
    assert b"".join(sent.buffers) == b"".join(prepared.buffers)
    assert sent.compressed == (len(plain) > sent.size)
    assert await second.expand(block, sent) == plain
    await second.put_stored(block, sent, verify=True)
    assert await second.get(block) == plain
    assert second.counts.written == 1 and second.counts.read == 1


@pytest.mark.parametrize(
    "lie",
    [
        StoredBlock(False, [b"something else"]),
        StoredBlock(True, [b"no frame"]),
        StoredBlock(True, [zstandard.compress(b"something else")]),
        StoredBlock(True, [zstandard.compress(b"the block"), b"and more"]),
        StoredBlock(True, []),
    ],
)
async def test_what_comes_from_elsewhere_and_is_another_block_is_not_stored(
    tmp_path: Path, lie: StoredBlock
) -> None:
    blocks = await open_blocks(tmp_path, MemoryState())
    block = named(b"the block")
    with pytest.raises(BlockCorrupt):
        await blocks.put_stored(block, lie, verify=True)
    with pytest.raises(BlockCorrupt):
        await blocks.expand(block, lie)
    assert not blocks.has(block) and not files_of(tmp_path)
