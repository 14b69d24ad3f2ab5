"""Which log lines are repeats: what a peer can provoke again and again is said once a while."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

EVERY_MS: Final = 3_600_000
KEYS_MAX: Final = 256


class Repeats:
    """Remembers what was said; bounded, the oldest goes first."""

    def __init__(self, every_ms: int = EVERY_MS) -> None:
        self._every_ms = every_ms
        self._said: dict[Hashable, int] = {}

    def is_new(self, key: Hashable, now_ms: int) -> bool:
        """Whether `key` is to be said now: it was not for `every_ms`."""
        said_ms = self._said.get(key)
        if said_ms is not None and now_ms - said_ms < self._every_ms:
            return False
        self._said.pop(key, None)
        self._said[key] = now_ms
        if len(self._said) > KEYS_MAX:
            del self._said[next(iter(self._said))]
        return True
