"""One process at a time in a metadata directory."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from garage_lite.core.errors import DataDirError


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """Hold the directory for this process; the kernel lets go when the process ends.

    Raises DataDirError if another process holds it, or if it can't be written to.
    """
    try:
        Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (Path(directory) / "lock").open("a")
    except OSError as error:
        raise DataDirError(f"can't write to metadata_dir {directory}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataDirError(
                f"another node is running on {directory}: stop it first, or give this one a"
                " metadata_dir of its own"
            ) from None
        yield
