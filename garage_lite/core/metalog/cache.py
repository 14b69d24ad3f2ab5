"""A cache bounded in bytes; what was not asked for longest goes first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")


class ByteCache(Generic[V]):
    """Values by number or name, each with the size its maker says it has."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._entries: OrderedDict[int | bytes, tuple[V, int]] = OrderedDict()
        self.bytes = 0

    def get(self, key: int | bytes) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: int | bytes, value: V, size: int) -> None:
        """Keep a value not there yet; one larger than the whole cache is not kept."""
        if size > self._bytes_max:
            return
        self._entries[key] = (value, size)
        self.bytes += size
        while self.bytes > self._bytes_max:
            self.bytes -= self._entries.popitem(last=False)[1][1]
