"""The versions of one object key, read no further than a decision needs. Pure.

A key may have 100,000 versions, and a PUT, a GET or a page of a listing must not read them all.
What it decides on is decided just as well on some of the rows:

- the newest ones, down to the current version (rows are in that order);
- those that other rows depend on, however far away: null versions (a floor of a suspended bucket
  reaches them), floors, and versions that stand in another's place. They are few: a floor removes
  what is below it at once. One with TOP or more rows above it has a BURIED row, local and written
  in the record that buries it, by which it is found without reading those;
- those that are named: a version's id tells its stamp, and the stamp its row.

All other rows neither change nor are changed, so `survivors` and `below_floor` say the same of
these rows as of all. (tests/core/table/test_history.py holds it against that plain definition.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from garage_lite.core.model.objects import Floor, ObjectVersion, survivors
from garage_lite.core.model.rowkeys import buried_row, object_row_of, stamp_of
from garage_lite.core.table.schema import View

TOP: Final = 4
"""So many of the newest rows are read at first, and need no BURIED row. Decoding one costs about
as much as a bloom filter's answer."""
_MORE: Final = 8


def weighs(version: ObjectVersion) -> bool:
    """Whether rows far from it may depend on this one, or it on them."""
    return version.null or version.floor is not Floor.NONE or version.replaces is not None


class History:
    """Some rows of an object key as they are now: the newest, and what else was asked for."""

    def __init__(self, view: View, prefix: bytes) -> None:
        """`prefix`: see `rowkeys.object_prefix`. Raises StorageFailed, as all methods do."""
        self.prefix = prefix
        self.top = TOP
        self.complete = False
        """Whether all rows of the key are here."""
        self.stale: list[bytes] = []
        """BURIED rows met whose object row is gone."""
        self._view = view
        self._rows: dict[bytes, bytes] = {}
        self._versions: dict[bytes, ObjectVersion] = {}
        self._last = b""
        self._has_buried = False
        self._read(TOP)

    def reaches(self, key: bytes) -> bool:
        """Whether all rows newer than `key`'s, and that itself, are here if they exist."""
        return self.complete or key <= self._last

    def value(self, key: bytes) -> bytes | None:
        """A row's value; from now on it is among the rows."""
        if key not in self._rows and not self.reaches(key):
            found = self._view.get(key)
            if found is not None:
                self._take(key, found)
        return self._rows.get(key)

    @property
    def rows(self) -> list[tuple[bytes, bytes]]:
        """Newest first."""
        return sorted(self._rows.items())

    @property
    def versions(self) -> dict[bytes, ObjectVersion]:
        """The rows by key, in no order."""
        return self._versions

    def read_until(self, enough: Callable[[], bool]) -> None:
        """Read further down until it is enough, or all is here."""
        most = self.top
        while not (self.complete or enough()):
            most *= _MORE
            self._read(most)

    def read_buried(self) -> None:
        """Take the rows that others depend on."""
        if self.complete or self._has_buried:
            return
        self._has_buried = True
        for buried, _ in self._view.with_prefix(buried_row(self.prefix)):
            if self.value(object_row_of(buried)) is None:
                self.stale.append(buried)

    def read_all(self) -> None:
        if not self.complete:
            for key, value in self._view.with_prefix(self.prefix):
                self._take(key, value)
            self.complete = True

    def buried(self, versions: Iterable[tuple[bytes, ObjectVersion]]) -> set[bytes]:
        """Which of these rows of the key (newest first, none missing as far as this reaches) need
        a BURIED row."""
        return {
            key
            for place, (key, version) in enumerate(versions)
            if (place >= self.top or not self.reaches(key)) and weighs(version)
        }

    def _read(self, most: int) -> None:
        rows = self._view.with_prefix(self.prefix, most)
        self.complete = len(rows) < most
        for key, value in rows:
            self._take(key, value)
        if rows:
            self._last = rows[-1][0]

    def _take(self, key: bytes, value: bytes) -> None:
        if key not in self._rows:
            self._rows[key] = value
            self._versions[key] = ObjectVersion.decode(stamp_of(key), value)


def history_for(
    view: View, prefix: bytes, named: Iterable[bytes] | None, down_to: bytes = b""
) -> History:
    """As much of a history as `rows_that_decide` needs, and all down to the row `down_to`."""
    history = History(view, prefix)
    if not history.complete:
        history.read_until(lambda: bool(_alive(history)) and history.reaches(down_to))
        if named is not None:
            history.read_buried()
            for key in named:
                history.value(key)
    return history


def rows_that_decide(
    view: View, prefix: bytes, named: Iterable[bytes] | None = None
) -> list[tuple[bytes, bytes]]:
    """Rows of an object key, newest first, on which its current version is decided: all down to
    it. With `named` (row keys, maybe none) also whether those, and the null version, survive.

    Raises StorageFailed.
    """
    return history_for(view, prefix, named).rows


def _alive(history: History) -> list[ObjectVersion]:
    versions = history.versions
    return survivors([versions[key] for key in sorted(versions)])
