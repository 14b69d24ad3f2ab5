"""The machine's own IP addresses, read where Linux shows them."""

from __future__ import annotations

from typing import Final

from garage_lite.core.limits import MIB
from garage_lite.core.ports import Files, OpenMode
from garage_lite.core.wire import interfaces

_READ_BYTES_MAX: Final = MIB


def machine_hosts(files: Files) -> list[str]:
    """But for loopback and link-local ones; empty where the system does not tell."""
    return interfaces.machine_hosts(
        _text(files, "/proc/net/fib_trie"), _text(files, "/proc/net/if_inet6")
    )


def _text(files: Files, path: str) -> str:
    try:
        file = files.open(path, OpenMode.READ)
        try:
            return file.read_at(0, _READ_BYTES_MAX).decode("ascii", "replace")
        finally:
            file.close()
    except OSError:
        return ""
