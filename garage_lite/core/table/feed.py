"""Which rows changed last, so that who asks often is told only what is new. Pure."""

from __future__ import annotations


class Feed:
    """Numbers the changes of rows from 1 on, and remembers the last of them."""

    def __init__(self, rows_max: int) -> None:
        """`rows_max`: of how many rows it remembers when they last changed."""
        self.number = 0
        """Of the last change."""
        self._rows_max = rows_max
        self._changes: dict[bytes, int] = {}
        """Row key -> number of its last change, in the order of these numbers."""
        self._forgotten = 0
        """The last change that is not among them."""

    def changed(self, key: bytes) -> None:
        self.number += 1
        self._changes.pop(key, None)
        self._changes[key] = self.number
        if len(self._changes) > self._rows_max:
            oldest = next(iter(self._changes))
            self._forgotten = self._changes.pop(oldest)

    def since(self, number: int) -> list[bytes] | None:
        """The rows that changed after the change of that number, each once; None: it is too long
        ago to tell, or no change has this number."""
        if not self._forgotten <= number <= self.number:
            return None
        found: list[bytes] = []
        for key, changed in reversed(self._changes.items()):
            if changed <= number:
                break
            found.append(key)
        return found
