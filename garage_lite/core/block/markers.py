"""The marker file of a data directory, and what its absence or presence means.

Each data directory holds a small text file with a random id that the node remembers. So a disk
that isn't mounted, another disk mounted in its place, another node's data and a newer format are
told apart from an empty directory before a single block is written or declared lost.

    garage-lite data directory
    format 1
    id 6f1c...            16 random bytes, hex
    node 9a02...          whose it is, for people

An empty marker file is the operator's word: take this directory as it is. A directory is
remembered as *being made* before its marker is written, so that a crash in between is no puzzle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from garage_lite.core.block.placement import ID_BYTES
from garage_lite.core.codec import decode, encode
from garage_lite.core.errors import DataDirError

TAG = 1
MARKER_NAME: Final = "garage-lite-marker"
FORMAT: Final = 1
_TITLE: Final = "garage-lite data directory"


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """One data directory as configured."""

    path: str
    capacity: int | None = None
    """Bytes; only the proportions matter. None only where it is the single one."""
    read_only: bool = False


class Remembered(NamedTuple):
    """What the node knows of one of its directories from before."""

    path: str
    made: bool
    """False between the decision to make a directory and its marker being durable."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is at a configured path."""

    exists: bool
    marker: str | None
    """Content of the marker file; None where there is none."""


class Decision(NamedTuple):
    """Which directory a configured path is; `new` ones get their marker (again)."""

    id: bytes
    directory: DataDirectory
    new: bool


FORGOTTEN_MAX: Final = 64
"""How many directories no longer configured are still known by their id."""


def remember(
    decisions: Sequence[Decision], before: Mapping[bytes, Remembered]
) -> dict[bytes, Remembered]:
    """What to remember before the new markers are written; `made` says when they are.

    A directory taken out of the configuration stays known by its id, not by its path: it may
    come back, and its path may get another disk.
    """
    now = {d.id: Remembered(d.directory.path, not d.new) for d in decisions}
    gone = [id for id in before if id not in now]
    return {id: Remembered("", True) for id in sorted(gone)[-FORGOTTEN_MAX:]} | now


def made(remembered: Mapping[bytes, Remembered]) -> dict[bytes, Remembered]:
    """The same once every marker is durable."""
    return {id: entry._replace(made=True) for id, entry in remembered.items()}


def encode_remembered(remembered: Mapping[bytes, Remembered]) -> bytes:
    rows = [[id, entry.path, entry.made] for id, entry in sorted(remembered.items())]
    return encode(TAG, [rows])


def decode_remembered(data: bytes | None) -> dict[bytes, Remembered]:
    if data is None:
        return {}
    (rows,) = decode(data, TAG)
    return {id: Remembered(path, made) for id, path, made in rows}


def marker_text(id: bytes, node: str) -> str:
    return f"{_TITLE}\nformat {FORMAT}\nid {id.hex()}\nnode {node}\n"


def marker_id(path: str, text: str) -> bytes:
    """The id in a marker. Raises DataDirError on a newer format or a file that is no marker."""
    marker = f"{path}/{MARKER_NAME}"
    lines = text.split("\n")
    fields = dict(line.split(" ", 1) for line in lines[1:] if " " in line)
    format = fields.get("format", "")
    if lines[0] != _TITLE or not format.isdecimal():
        raise DataDirError(
            f"{marker} is not a marker of Garage Lite; if {path} is the right directory, "
            f"restore that file or replace it by an empty one"
        )
    if int(format) > FORMAT:
        raise DataDirError(
            f"{path} was written by a newer version of Garage Lite (format {format}, this version "
            f"knows {FORMAT}); install the newer version"
        )
    try:
        id = bytes.fromhex(fields.get("id", ""))
    except ValueError:
        id = b""
    if len(id) != ID_BYTES:
        raise DataDirError(f"{marker} is damaged: its id can't be read; restore that file")
    return id


def recognise(
    wanted: Sequence[DataDirectory],
    found: Sequence[Found],
    remembered: Mapping[bytes, Remembered],
    new_id: Callable[[], bytes],
) -> list[Decision]:
    """Which known or new directory each configured path is.

    Raises DataDirError, in words for the person who starts the node, on anything that is not
    plainly the directory it should be.
    """
    _check_wanted(wanted)
    decisions: list[Decision] = []
    for directory, here in zip(wanted, found, strict=True):
        id, new = _identity(directory, here, remembered, new_id)
        twin = next((other for other in decisions if other.id == id), None)
        if twin is not None:
            raise DataDirError(
                f"{twin.directory.path} and {directory.path} are the same directory (they show "
                f"the same marker); name each only once in data_dir"
            )
        decisions.append(Decision(id, directory, new))
    return decisions


def _check_wanted(wanted: Sequence[DataDirectory]) -> None:
    if not any(not directory.read_only for directory in wanted):
        raise DataDirError("data_dir names no directory that may be written to")
    writable = [directory for directory in wanted if not directory.read_only]
    for directory in writable:
        if len(writable) > 1 and not directory.capacity:
            raise DataDirError(
                f'data_dir: {directory.path} needs a capacity (like capacity = "1T"), '
                f"because there are several directories to share the blocks between"
            )


def _identity(
    directory: DataDirectory,
    here: Found,
    remembered: Mapping[bytes, Remembered],
    new_id: Callable[[], bytes],
) -> tuple[bytes, bool]:
    """The id of the directory at a path, and whether its marker is to be written."""
    path = directory.path
    known = next((id for id, entry in remembered.items() if entry.path == path), None)
    was_made = known is not None and remembered[known].made
    if not (here.marker or "").strip():
        if here.marker is None and known is not None and was_made:
            raise DataDirError(
                f"the data of {path} is not there: its marker {path}/{MARKER_NAME} is missing. "
                f"Is its disk mounted? If the disk was replaced by an empty one, create an empty "
                f"file of that name and start again"
            )
        if directory.read_only:
            raise DataDirError(
                f"{path} is configured read_only but this node never wrote there "
                f"(it has no {MARKER_NAME}); remove it from data_dir"
            )
        return known if known is not None and not was_made else new_id(), True
    id = marker_id(path, here.marker or "")
    if id in remembered:
        return id, False
    if known is not None and was_made:
        raise DataDirError(
            f"the wrong disk is mounted at {path}: its marker says {id.hex()}, this node's data "
            f"there was {known.hex()}. Mount the right one, or empty the file "
            f"{path}/{MARKER_NAME} to use this one instead"
        )
    raise DataDirError(
        f"{path} holds the data of another Garage Lite node, or of this one before its metadata "
        f"was lost. Check data_dir and metadata_dir; to take the directory over, empty the file "
        f"{path}/{MARKER_NAME}"
    )
