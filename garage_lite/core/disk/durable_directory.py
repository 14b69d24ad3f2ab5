"""Directories that a power cut does not take back."""

from __future__ import annotations

from garage_lite.core.ports import Files


def make_durably(files: Files, path: str) -> None:
    """Make a directory so that neither it nor a parent made with it is lost in a power cut.

    Every ancestor is synced, whoever made it: an earlier attempt may have died between making one
    and syncing it. One that we may not even read is none that we made. Raises OSError.
    """
    files.make_directory(path)
    ancestor = path
    while ancestor not in ("", "/"):
        ancestor = ancestor.rpartition("/")[0] or "/"
        try:
            files.sync_directory(ancestor)
        except PermissionError:
            return
