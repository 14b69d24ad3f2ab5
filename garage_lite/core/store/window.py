"""Where a listing runs: the rows it may meet, and how names fold into common prefixes.

Pure arithmetic on names and row keys; what a row means is the listing's own business. A listing
is the sorted sequence of its items, each an object key or a common prefix (a name cut after the
first delimiter past the prefix). A marker is an item, or any other bytes: listing goes on with
the items greater than it. So a marker inside a folded group skips the group, as in S3.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from garage_lite.core.ids import BucketId
from garage_lite.core.model.rowkeys import (
    KEY_END,
    Table,
    after_prefix,
    escape,
    in_bucket,
    unescape,
)

_PAST_KEY: Final = KEY_END[:-1] + bytes([KEY_END[-1] + 1])
"""After the escaped key: past all its rows, before every longer key (which goes on with 00 FF
or with a byte other than 00)."""


class Window:
    """The rows of `table` in a bucket whose name starts with `prefix`.

    `suffix`: how many bytes of a row key follow the name and its end mark.
    """

    __slots__ = ("_base", "_delimiter", "_prefix", "_tail", "end")

    def __init__(
        self, table: Table, bucket: BucketId, prefix: bytes, delimiter: bytes, suffix: int
    ) -> None:
        self._base = in_bucket(table, bucket)
        self._prefix = prefix
        self._delimiter = delimiter
        self._tail = -(suffix + len(KEY_END))
        self.end = after_prefix(self._base + escape(prefix))
        """The row key before which all rows of the window are."""

    def start(self, after: bytes, *, inclusive: bool) -> bytes:
        """The row key from which the items after `after` are (or from it on); b"": all."""
        first = self._base + escape(self._prefix)
        if not after:
            return first
        group = self.fold(after) if after.startswith(self._prefix) else None
        if group is not None and not (inclusive and group == after):
            return self.past_group(group)
        return max(first, self.from_name(after) if inclusive else self.past_name(after))

    def fold(self, name: bytes) -> bytes | None:
        """The common prefix that stands for `name`, or None where it stands for itself."""
        if not self._delimiter:
            return None
        cut = name.find(self._delimiter, len(self._prefix))
        return None if cut < 0 else name[: cut + len(self._delimiter)]

    def stem(self, row_key: bytes) -> bytes:
        """What the rows of one name have in common, and no others."""
        return row_key[: self._tail]

    def name(self, stem: bytes) -> bytes:
        return unescape(stem[len(self._base) :])

    def from_name(self, name: bytes) -> bytes:
        """The row key at or before the rows of `name`, past those of all lesser names."""
        return self._base + escape(name)

    def past_name(self, name: bytes) -> bytes:
        return self._base + escape(name) + _PAST_KEY

    def past_group(self, common_prefix: bytes) -> bytes:
        return after_prefix(self._base + escape(common_prefix))


def past_stem(stem: bytes) -> bytes:
    """The row key past all rows of the name with this stem."""
    return stem + _PAST_KEY


def first_at(keys: Sequence[bytes], resume: bytes, index: int = 0) -> int:
    """The index of the first key at or after `resume`, looking near `index` first."""
    if index < len(keys) and keys[index] >= resume:
        return index
    return bisect_left(keys, resume, index)
