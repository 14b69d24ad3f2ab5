"""What is wrong between the rows that name buckets: aliases, access keys, and the buckets' own.

Where a name leads is said by alias rows and by the keys' rows; a bucket's row only repeats it.
So a name that leads to no bucket is given up, a bucket learns the names that lead to it, and
forgets those that lead elsewhere, with the rights of keys that are no more. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from garage_lite.core.ids import BucketId
from garage_lite.core.model.buckets import Alias, Bucket
from garage_lite.core.model.keys import AccessKey
from garage_lite.core.model.rowkeys import Table, everywhere_row
from garage_lite.core.store.bucket_rows import (
    alias_update,
    bucket_update,
    global_aliases_of,
    local_alias_update,
    local_aliases_of,
)
from garage_lite.core.table.schema import Update, View

_OWN = len(everywhere_row(Table.BUCKET, b""))


@dataclass(frozen=True, slots=True)
class _Names:
    """The rows, by name; what is deleted is left out."""

    buckets: dict[bytes, Bucket]
    keys: dict[str, AccessKey]
    aliases: dict[str, bytes]
    """Name -> bucket it leads to."""

    def local_target(self, key_id: str, name: str) -> str | None:
        key = self.keys.get(key_id)
        return None if key is None else key.local_aliases.get(name)


def alias_faults(view: View, stamp: int) -> dict[bytes, Update]:
    """Each fault by a name of its own that stays the same while it lasts, with the update that
    mends it under `stamp`. Raises StorageFailed."""
    names = _read(view)
    return {
        **dict(_names_that_lead_nowhere(names, view, stamp)),
        **dict(_names_unknown_to_their_bucket(names, stamp)),
        **dict(_what_buckets_should_forget(names, stamp)),
    }


def _read(view: View) -> _Names:
    buckets: dict[bytes, Bucket] = {}
    keys: dict[str, AccessKey] = {}
    aliases: dict[str, bytes] = {}
    for row, value in _rows(view, Table.BUCKET):
        bucket = Bucket.decode(BucketId(row), value)
        if not bucket.deleted:
            buckets[row] = bucket
    for row, value in _rows(view, Table.KEY):
        key = AccessKey.decode(row.decode(), value)
        if not key.deleted:
            keys[key.id] = key
    for row, value in _rows(view, Table.ALIAS):
        target = Alias.decode(value).target.value
        if target is not None:
            aliases[row.decode()] = target
    return _Names(buckets, keys, aliases)


def _rows(view: View, table: Table) -> Iterator[tuple[bytes, bytes]]:
    """Each row's own key, and its value."""
    for keys, values in view.scan(everywhere_row(table, b""), bytes((table + 1, 0))):
        for key, value in zip(keys, values, strict=True):
            yield key[_OWN:], value


def _names_that_lead_nowhere(
    names: _Names, view: View, stamp: int
) -> Iterator[tuple[bytes, Update]]:
    for name, target in names.aliases.items():
        if target not in names.buckets:
            yield _fault("alias", name), alias_update(view, name, None, stamp)
    for key in names.keys.values():
        for name, text in key.local_aliases.items():
            if bytes.fromhex(text) not in names.buckets:
                update = local_alias_update(key, name, None, stamp)
                yield _fault("local alias", f"{key.id}:{name}"), update


def _names_unknown_to_their_bucket(names: _Names, stamp: int) -> Iterator[tuple[bytes, Update]]:
    for name, target in names.aliases.items():
        bucket = names.buckets.get(target)
        if bucket is not None and not bucket.aliases.get(name):
            told = replace(bucket, aliases=bucket.aliases.set(name, True, stamp))
            yield _fault("unknown", name), bucket_update(told)
    for key in names.keys.values():
        for name, text in key.local_aliases.items():
            bucket = names.buckets.get(bytes.fromhex(text))
            entry = f"{key.id}:{name}"
            if bucket is not None and not bucket.local_aliases.get(entry):
                known = bucket.local_aliases.set(entry, True, stamp)
                told = replace(bucket, local_aliases=known)
                yield _fault("unknown local", entry), bucket_update(told)


def _what_buckets_should_forget(names: _Names, stamp: int) -> Iterator[tuple[bytes, Update]]:
    for own, bucket in names.buckets.items():
        at = own.hex()
        for name in global_aliases_of(bucket):
            if names.aliases.get(name) != own:
                less = replace(bucket, aliases=bucket.aliases.set(name, None, stamp))
                yield _fault(f"{at} alias", name), bucket_update(less)
        for key_id, name in local_aliases_of(bucket):
            entry = f"{key_id}:{name}"
            if names.local_target(key_id, name) != at:
                kept = bucket.local_aliases.set(entry, None, stamp)
                less = replace(bucket, local_aliases=kept)
                yield _fault(f"{at} local alias", entry), bucket_update(less)
        for key_id in [key_id for key_id, _ in bucket.keys.items() if key_id not in names.keys]:
            less = replace(bucket, keys=bucket.keys.set(key_id, None, stamp))
            yield _fault(f"{at} right", key_id), bucket_update(less)


def _fault(kind: str, name: str) -> bytes:
    return f"{kind} {name}".encode()
