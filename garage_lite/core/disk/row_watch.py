"""Who must know of a change of rows in the very moment in which readers begin to see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol


class Watcher(Protocol):
    """Told of each batch of records right before readers see it; nothing runs in between."""

    def written(
        self,
        rows: Mapping[bytes, bytes | None],
        drops: Iterable[tuple[bytes, bytes]],
        before: Callable[[bytes], bytes | None],
    ) -> None:
        """The batch drops whole ranges and leaves `rows` (None: deleted), each named once.
        `before(key)` is what readers have seen until now; it raises DamagedRow. Must not fail."""
        ...
