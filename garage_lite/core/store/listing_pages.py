"""One page of a listing, built from sorted rows. Pure: is fed batches, says where to read on.

A page takes rows of object versions (newest first under each key, see model/rowkeys.py), decides
key by key what a reader sees, folds names into common prefixes and stops at its limit. After
each `feed` the caller looks at `done` and `resume`: rows before `resume` no longer matter, so a
reader that is far from it seeks instead of reading on.

Truncation is exact: a page is full only once an item beyond the limit has been met.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgpack

from garage_lite.core.errors import StorageFailed
from garage_lite.core.model.objects import TAG, Kind, Newer, ObjectVersion
from garage_lite.core.model.rowkeys import KEY_END, object_row, stamp_of
from garage_lite.core.store.window import Window, first_at, past_stem

_REMOVED: Final = 2
"""The flag of a removed version (model/objects.py)."""
_DELETE_MARKER: Final = int(Kind.DELETE_MARKER)


class ListEntry(NamedTuple):
    """The current version of a key, as much as a listing shows of it."""

    key: bytes
    size: int
    etag: bytes
    parts: int
    """As in ObjectVersion: 0 for a simple object."""
    mtime_ms: int


class VersionEntry(NamedTuple):
    """A version or delete marker of a key."""

    key: bytes
    version_id: str
    """"null", or 32 hex digits."""
    is_marker: bool
    is_latest: bool
    size: int
    etag: bytes
    parts: int
    mtime_ms: int


class Mark(NamedTuple):
    """Where the next page of objects begins: `objects(..., after=mark.key, inclusive=...)`."""

    key: bytes
    inclusive: bool


class VersionMark(NamedTuple):
    """Where the next page of versions begins: after this version of the key, or (None) after
    the key or common prefix."""

    key: bytes
    version_id: str | None
    """A stamp's text, also of a null version: it marks a place even when the version is gone."""


@dataclass(slots=True)
class ListPage:
    """Keys and common prefixes, each sorted; together at most the limit."""

    entries: list[ListEntry] = field(default_factory=list)
    prefixes: list[bytes] = field(default_factory=list)
    next: Mark | None = None
    """None: there is nothing more."""


@dataclass(slots=True)
class VersionPage:
    entries: list[VersionEntry] = field(default_factory=list)
    prefixes: list[bytes] = field(default_factory=list)
    next: VersionMark | None = None


class ObjectPageBuilder:
    """Builds a page of current objects."""

    def __init__(self, window: Window, after: bytes, inclusive: bool, limit: int) -> None:
        """`window`: of the OBJECT table. `limit` 0 gives an empty page that is not truncated."""
        self._window = window
        self._left = limit
        self._last = b""
        self._current_of: bytes | None = None
        """The stem of the key whose current version was met last; older ones don't matter."""
        self._undecided: bytes | None = None
        """The stem of the key that `_newer` is about."""
        self._newer = Newer()
        self.page = ListPage()
        self.resume = window.start(after, inclusive=inclusive)
        self.done = limit <= 0 or self.resume >= window.end

    def feed(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Take the next rows, in order. Raises StorageFailed on bytes that are no such rows."""
        window = self._window
        index = first_at(keys, self.resume)
        while index < len(keys) and not self.done:
            key, value = keys[index], values[index]
            stem = window.stem(key)
            if stem == self._current_of:
                self.resume = past_stem(stem)
                index = first_at(keys, self.resume, index + 1)
                continue
            index += 1
            try:
                tag, kind, mtime_ms, size, etag, parts, flags, _, _ = msgpack.unpackb(value)
            except (ValueError, TypeError) as error:
                raise StorageFailed(f"an object's row can't be read: {error}") from error
            if tag != TAG:
                raise StorageFailed(f"an object's row has format {tag}; this version reads {TAG}")
            if (flags & _REMOVED or stem == self._undecided) and not self._admit(stem, key, value):
                continue
            self._current_of = stem
            if kind == _DELETE_MARKER:
                continue
            name = window.name(stem)
            group = window.fold(name)
            if not self._fits(group or name):
                return
            if group is None:
                self.page.entries.append(ListEntry(name, size, etag, parts, mtime_ms))
            else:
                self.page.prefixes.append(group)
                self.resume = window.past_group(group)
                index = first_at(keys, self.resume, index)

    def _admit(self, stem: bytes, key: bytes, value: bytes) -> bool:
        """Whether a version is the current one of a key whose newest version is removed."""
        if stem != self._undecided:
            self._undecided = stem
            self._newer = Newer()
        return self._newer.admit(ObjectVersion.decode(stamp_of(key), value))

    def _fits(self, item: bytes) -> bool:
        if self._left == 0:
            self.page.next = Mark(self._last, inclusive=False)
            self.done = True
            return False
        self._left -= 1
        self._last = item
        return True


class VersionPageBuilder:
    """Builds a page of versions and delete markers, newest first under each key."""

    def __init__(
        self, window: Window, after: bytes, limit: int, begun: Sequence[ObjectVersion] | None = None
    ) -> None:
        """From after all versions of the key `after`, or after the last of `begun`: versions of
        that key, newest first, on which it depends whether the older ones survive, and the current
        one if it is not older than the last."""
        self._window = window
        self._left = limit
        self._last = VersionMark(b"", None)
        self._current_of: bytes | None = None
        """The stem of the key being read."""
        self._name = b""
        self._group: bytes | None = None
        self._newer = Newer()
        self._latest = True
        self.page = VersionPage()
        self.resume = window.start(after, inclusive=bool(begun))
        if begun:
            last = object_row(window.from_name(after) + KEY_END, begun[-1].stamp)
            self._begin(window.stem(last))
            for version in begun:
                self._admit(version)
            self.resume = max(self.resume, last + b"\x00")
        self.done = limit <= 0 or self.resume >= window.end

    def feed(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Take the next rows, in order. Raises StorageFailed on bytes that are no such rows."""
        window = self._window
        index = first_at(keys, self.resume)
        while index < len(keys) and not self.done:
            key = keys[index]
            stem = window.stem(key)
            if stem != self._current_of:
                self._begin(stem)
            self._take(ObjectVersion.decode(stamp_of(key), values[index]))
            index = first_at(keys, self.resume, index + 1)

    def _begin(self, stem: bytes) -> None:
        self._current_of = stem
        self._name = self._window.name(stem)
        self._group = self._window.fold(self._name)
        self._newer = Newer()
        self._latest = True

    def _admit(self, version: ObjectVersion) -> tuple[bool, bool]:
        """Whether the next older version is shown, and as the latest."""
        shown = self._newer.admit(version) and not version.is_tombstone
        is_latest = shown and self._latest
        self._latest = self._latest and not shown
        return shown, is_latest

    def _take(self, version: ObjectVersion) -> None:
        shown, is_latest = self._admit(version)
        if not shown:
            return
        if self._left == 0:
            self.page.next = self._last
            self.done = True
            return
        self._left -= 1
        self._place(version, is_latest)

    def _place(self, version: ObjectVersion, is_latest: bool) -> None:
        if self._group is not None:
            self.page.prefixes.append(self._group)
            self._last = VersionMark(self._group, None)
            self.resume = self._window.past_group(self._group)
            return
        entry = VersionEntry(
            self._name,
            version.version_id,
            not version.has_data,
            is_latest,
            version.size,
            version.etag,
            version.parts,
            version.mtime_ms,
        )
        self.page.entries.append(entry)
        self._last = VersionMark(self._name, version.stamp.text)
