"""What every Files must do: one suite, run on the real file system and on the simulated one."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.ports import Files, OpenMode
from tests.sim.files import SimFiles

PAGE = 4096


@pytest.fixture(params=["real", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Files, str]]:
    """A file system and an empty directory in it."""
    files: Files = LocalFiles() if request.param == "real" else SimFiles()
    files.make_directory(str(tmp_path))
    yield files, str(tmp_path)


def write(files: Files, path: str, content: bytes) -> None:
    file = files.open(path, OpenMode.CREATE)
    file.write_at(0, [content])
    file.sync()
    file.close()


def read(files: Files, path: str) -> bytes:
    file = files.open(path, OpenMode.READ)
    content = file.read_at(0, file.size())
    file.close()
    return content


def test_a_new_file_is_written_in_pieces_and_read_back(place: tuple[Files, str]) -> None:
    files, at = place
    file = files.open(f"{at}/a", OpenMode.CREATE)
    file.write_at(0, [b"one", bytearray(b"two"), b"", memoryview(b"three")])
    file.write_at(3, [b"TWO"])
    assert file.size() == 11
    assert file.read_at(0, 100) == b"oneTWOthree"
    assert file.read_at(4, 3) == b"WOt"
    assert file.read_at(11, 5) == b""
    assert file.read_at(400, 5) == b""
    file.sync()
    assert bytes(file.map()) == b"oneTWOthree"
    file.close()
    with pytest.raises(OSError):
        file.read_at(0, 1)
    assert files.file_size(f"{at}/a") == 11


def test_thousands_of_pieces_are_one_write(place: tuple[Files, str]) -> None:
    files, at = place
    write(files, f"{at}/a", b"")
    file = files.open(f"{at}/a", OpenMode.UPDATE)
    pieces = [bytes([i % 251]) * (i % 7) for i in range(3000)]
    file.write_at(10, pieces)
    assert file.read_at(10, 100_000) == b"".join(pieces)
    assert file.read_at(0, 10) == bytes(10)
    file.close()


def test_an_empty_file_maps_to_nothing(place: tuple[Files, str]) -> None:
    files, at = place
    write(files, f"{at}/a", b"")
    file = files.open(f"{at}/a", OpenMode.READ)
    assert bytes(file.map()) == b""
    file.close()


def test_a_map_outlives_its_file(place: tuple[Files, str]) -> None:
    files, at = place
    write(files, f"{at}/a", b"x" * 5000)
    file = files.open(f"{at}/a", OpenMode.READ)
    content = file.map()
    file.close()
    files.remove(f"{at}/a")
    assert bytes(content) == b"x" * 5000


def test_create_refuses_a_name_taken_and_the_others_a_name_missing(
    place: tuple[Files, str],
) -> None:
    files, at = place
    write(files, f"{at}/a", b"")
    with pytest.raises(FileExistsError):
        files.open(f"{at}/a", OpenMode.CREATE)
    for mode in (OpenMode.READ, OpenMode.UPDATE, OpenMode.JOURNAL):
        with pytest.raises(FileNotFoundError):
            files.open(f"{at}/b", mode)
    with pytest.raises(FileNotFoundError):
        files.open(f"{at}/no/b", OpenMode.CREATE)


def test_a_file_opened_to_read_is_not_written(place: tuple[Files, str]) -> None:
    files, at = place
    write(files, f"{at}/a", b"1")
    file = files.open(f"{at}/a", OpenMode.READ)
    with pytest.raises(OSError):
        file.write_at(0, [b"2"])
    file.close()
    assert read(files, f"{at}/a") == b"1"


def test_truncate_cuts_and_grows(place: tuple[Files, str]) -> None:
    files, at = place
    write(files, f"{at}/a", b"12345")
    file = files.open(f"{at}/a", OpenMode.UPDATE)
    file.truncate(2)
    assert file.read_at(0, 9) == b"12"
    file.truncate(4)
    assert file.read_at(0, 9) == b"12\0\0"
    file.close()


def test_a_journal_takes_whole_pages(place: tuple[Files, str]) -> None:
    files, at = place
    write(files, f"{at}/j", bytes(600 * PAGE))
    file = files.open(f"{at}/j", OpenMode.JOURNAL)
    file.write_at(PAGE, [b"a" * 100, b"b" * (PAGE - 100)])
    file.write_at(2 * PAGE, [b"c" * (500 * PAGE)])
    with pytest.raises(ValueError):
        file.write_at(0, [b"short"])
    with pytest.raises(ValueError):
        file.write_at(7, [bytes(PAGE)])
    assert file.read_at(PAGE + 98, 4) == b"aabb"
    assert file.size() == 600 * PAGE
    assert file.read_at(600 * PAGE - 5, 10) == bytes(5)
    assert file.read_at(600 * PAGE, 10) == b""
    file.close()
    content = read(files, f"{at}/j")
    expected = bytes(PAGE) + b"a" * 100 + b"b" * (PAGE - 100) + b"c" * (500 * PAGE)
    assert content == expected + bytes(98 * PAGE)


def test_names_are_sorted_and_directories_end_with_a_slash(place: tuple[Files, str]) -> None:
    files, at = place
    write(files, f"{at}/b", b"")
    files.make_directory(f"{at}/a/deep/er")
    files.make_directory(f"{at}/a/deep/er")
    write(files, f"{at}/c", b"")
    assert files.names(at) == ["a/", "b", "c"]
    assert files.names(f"{at}/a") == ["deep/"]
    with pytest.raises(FileNotFoundError):
        files.names(f"{at}/nothing")
    with pytest.raises(OSError):
        files.make_directory(f"{at}/b")


def test_rename_replaces(place: tuple[Files, str]) -> None:
    files, at = place
    write(files, f"{at}/a", b"new")
    write(files, f"{at}/b", b"old")
    files.rename(f"{at}/a", f"{at}/b")
    files.sync_directory(at)
    assert not files.exists(f"{at}/a")
    assert read(files, f"{at}/b") == b"new"
    with pytest.raises(FileNotFoundError):
        files.rename(f"{at}/a", f"{at}/c")


def test_rename_moves_between_directories(place: tuple[Files, str]) -> None:
    files, at = place
    files.make_directory(f"{at}/d")
    write(files, f"{at}/a", b"1")
    files.rename(f"{at}/a", f"{at}/d/a")
    assert read(files, f"{at}/d/a") == b"1"
    assert files.names(at) == ["d/"]


def test_a_link_is_the_same_file(place: tuple[Files, str]) -> None:
    files, at = place
    write(files, f"{at}/a", b"1")
    files.link(f"{at}/a", f"{at}/b")
    with pytest.raises(FileExistsError):
        files.link(f"{at}/a", f"{at}/b")
    file = files.open(f"{at}/a", OpenMode.UPDATE)
    file.write_at(0, [b"2"])
    file.close()
    files.remove(f"{at}/a")
    assert read(files, f"{at}/b") == b"2"


def test_a_removed_file_can_be_read_to_the_end(place: tuple[Files, str]) -> None:
    files, at = place
    write(files, f"{at}/a", b"1")
    file = files.open(f"{at}/a", OpenMode.READ)
    files.remove(f"{at}/a")
    assert not files.exists(f"{at}/a")
    assert file.read_at(0, 1) == b"1"
    file.close()
    with pytest.raises(FileNotFoundError):
        files.remove(f"{at}/a")


def test_only_empty_directories_are_removed(place: tuple[Files, str]) -> None:
    files, at = place
    files.make_directory(f"{at}/d")
    write(files, f"{at}/d/a", b"")
    with pytest.raises(OSError) as caught:
        files.remove_directory(f"{at}/d")
    assert caught.value.errno == errno.ENOTEMPTY
    files.remove(f"{at}/d/a")
    files.remove_directory(f"{at}/d")
    assert not files.exists(f"{at}/d")


def test_space_is_told(place: tuple[Files, str]) -> None:
    files, at = place
    assert 0 < files.free_bytes(at) <= files.total_bytes(at)
