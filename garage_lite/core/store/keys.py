"""The verbs on access keys: create, import, find, change, delete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.crdt import Lww, LwwMap
from garage_lite.core.errors import InvalidArgument, KeyAlreadyExists, NoSuchAccessKey
from garage_lite.core.model.buckets import Bucket
from garage_lite.core.model.keys import AccessKey
from garage_lite.core.model.rowkeys import Table, everywhere_row
from garage_lite.core.store.bucket_rows import (
    bucket_update,
    key_update,
    local_aliases_of,
    stored_key,
)
from garage_lite.core.store.directory import Directory
from garage_lite.core.store.edits import write_edit
from garage_lite.core.store.names import check_access_key, new_key_id, new_secret
from garage_lite.core.table.schema import Update, View

_MATCHES_SHOWN: Final = 10
_BUCKETS_AT_ONCE: Final = 500
"""Rows changed in one record when a key goes: far below the largest record."""


class Keys:
    """Every change of access keys; durable on return. Reads are `directory.py`'s.

    All raise NoSuchAccessKey for a key that is not there.
    """

    def __init__(self, tables: Tables, directory: Directory) -> None:
        self._tables = tables
        self._directory = directory

    async def create(self, name: str, *, expiration_ms: int | None = None) -> AccessKey:
        """A new key with a generated id and secret, without any right."""
        entropy = self._tables.entropy
        return await self._add(new_key_id(entropy), new_secret(entropy), name, expiration_ms)

    async def import_key(self, key_id: str, secret: str, name: str) -> AccessKey:
        """A key made elsewhere. Raises InvalidArgument, KeyAlreadyExists (also for the id of a
        deleted key: its row stays, and would take this one along)."""
        check_access_key(key_id, secret)
        return await self._add(key_id, secret, name, None)

    async def _add(
        self, key_id: str, secret: str, name: str, expiration_ms: int | None
    ) -> AccessKey:
        created_ms = self._tables.now_ms()
        made: list[AccessKey] = []

        def edit(view: View, stamp: int) -> list[Update]:
            if view.get(everywhere_row(Table.KEY, key_id.encode())) is not None:
                raise KeyAlreadyExists
            key = AccessKey(key_id, secret, created_ms, name=Lww(stamp, name))
            if expiration_ms is not None:
                key = replace(key, expiration_ms=Lww(stamp, expiration_ms))
            made[:] = [key]
            return [key_update(key)]

        await write_edit(self._tables, edit, new=True)
        return made[0]

    async def rename(self, key_id: str, name: str) -> None:
        await self._change(key_id, lambda key, us: replace(key, name=key.name.set(name, us)))

    async def set_expiration(self, key_id: str, expiration_ms: int | None) -> None:
        """From then on the key opens nothing; None: never."""
        await self._change(
            key_id,
            lambda key, us: replace(key, expiration_ms=key.expiration_ms.set(expiration_ms, us)),
        )

    async def allow_create_bucket(self, key_id: str, allowed: bool) -> None:
        await self._change(
            key_id,
            lambda key, us: replace(key, create_bucket=key.create_bucket.set(allowed, us)),
        )

    async def _change(self, key_id: str, change: Callable[[AccessKey, int], AccessKey]) -> None:
        def edit(view: View, stamp: int) -> list[Update]:
            return [key_update(change(stored_key(view, key_id), stamp))]

        await write_edit(self._tables, edit)

    async def delete(self, key_id: str) -> None:
        """The key opens nothing any more; then its rights and names go too."""

        def edit(view: View, stamp: int) -> list[Update]:
            return [key_update(replace(stored_key(view, key_id), secret="", deleted=True))]

        await write_edit(self._tables, edit)
        held = [bucket for bucket in self._directory.buckets() if _mentions(bucket, key_id)]
        for start in range(0, len(held), _BUCKETS_AT_ONCE):
            await self._forget(key_id, held[start : start + _BUCKETS_AT_ONCE])

    async def _forget(self, key_id: str, held: Sequence[Bucket]) -> None:
        def edit(view: View, stamp: int) -> list[Update]:
            return [bucket_update(_mentions_removed(bucket, key_id, stamp)) for bucket in held]

        await write_edit(self._tables, edit)

    async def delete_expired(self) -> list[str]:
        """Delete the keys that have expired; their ids."""
        now_ms = self._tables.now_ms()
        expired = [key.id for key in self._directory.access_keys() if key.expired(now_ms)]
        for key_id in expired:
            await self.delete(key_id)
        return expired

    def find(self, pattern: str) -> AccessKey:
        """The key an operator means: its id, else the only one whose id starts with `pattern` or
        whose name is `pattern`, in any case of letters (Garage's rule).

        Raises InvalidArgument where several match.
        """
        exact = self._directory.key(pattern)
        if exact is not None:
            return exact
        text = pattern.lower()
        matches = [
            key
            for key in self._directory.access_keys()
            if text and (key.id.lower().startswith(text) or key.name.value.lower() == text)
        ]
        if not matches:
            raise NoSuchAccessKey(f"No access key matches {pattern!r}.")
        if len(matches) > 1:
            ids = ", ".join(key.id for key in matches[:_MATCHES_SHOWN])
            raise InvalidArgument(f"{len(matches)} access keys match {pattern!r}: {ids}.")
        return matches[0]


def _mentions(bucket: Bucket, key_id: str) -> bool:
    named = any(owner == key_id for owner, _ in local_aliases_of(bucket))
    return named or bucket.keys.get(key_id) is not None


def _mentions_removed(bucket: Bucket, key_id: str, stamp: int) -> Bucket:
    """A row that, merged into the bucket's, takes all mentions of the key away; it says no more
    than that, so that a thousand of them fit one record."""
    names: LwwMap[bool] = LwwMap()
    for owner, name in local_aliases_of(bucket):
        if owner == key_id:
            names = names.set(f"{owner}:{name}", None, stamp)
    rights: LwwMap[int] = LwwMap().set(key_id, None, stamp)
    return Bucket(bucket.id, bucket.created_ms, local_aliases=names, keys=rights)
