"""Buckets, aliases and access keys as every request needs them: in memory.

Loaded once by a scan, then told of each durable change of these rows, wherever it came from.
Rows only grow by merging, so the order in which changes are told does not matter. Knows nothing
of how the rows are written: that is `buckets.py` and `keys.py`. In a cluster they are only as
good as this node's lease: whoever decides on them asks `fresh` before, and `look`s before he says
that something does not exist.
"""

from __future__ import annotations

from garage_lite.core.cluster.settings_lease import SettingsLease
from garage_lite.core.cluster.tables import Tables
from garage_lite.core.errors import InvalidArgument, NoSuchBucket, StorageFailed
from garage_lite.core.ids import BucketId
from garage_lite.core.model.buckets import Alias, Bucket
from garage_lite.core.model.keys import AccessKey
from garage_lite.core.model.rowkeys import Table, everywhere_row

_OWN_KEY: int = len(everywhere_row(Table.BUCKET, b""))


class Directory:
    """Every look-up is synchronous and takes a few dictionary accesses."""

    def __init__(self, settings: SettingsLease | None = None) -> None:
        """`settings` None: the rows it is told of are all there is."""
        self._settings = settings
        self._buckets: dict[BucketId, Bucket] = {}
        self._aliases: dict[str, Alias] = {}
        self._keys: dict[str, AccessKey] = {}

    @classmethod
    async def load(cls, tables: Tables) -> Directory:
        """A directory that holds all rows there are and follows `tables` from now on."""
        directory = cls(tables.settings)
        tables.on_applied(directory.refresh)
        for table in (Table.BUCKET, Table.ALIAS, Table.KEY):
            start, end = everywhere_row(table, b""), bytes((table + 1, 0))
            async for keys, values in tables.scan(start, end):
                for key, value in zip(keys, values, strict=True):
                    directory.refresh(key, value)
        return directory

    @property
    def is_fresh(self) -> bool:
        """Whether it holds every change that was acknowledged; only what is new may be missing."""
        return self._settings is None or self._settings.valid

    async def fresh(self) -> None:
        """Holds every change acknowledged before the call on return. Raises QuorumNotReached."""
        if self._settings is not None:
            await self._settings.fresh()

    async def look(self) -> None:
        """As `fresh`, and holds also what was new. Raises QuorumNotReached."""
        if self._settings is not None:
            await self._settings.look()

    def refresh(self, key: bytes, value: bytes | None) -> None:
        """Take a changed row in (None: it is gone). Rows of other tables are passed over.

        Raises StorageFailed on bytes that are no such row.
        """
        own = key[_OWN_KEY:]
        if key[0] == Table.BUCKET:
            self._refresh_bucket(BucketId(own), value)
        elif key[0] == Table.ALIAS:
            self._refresh_alias(_text(own), value)
        elif key[0] == Table.KEY:
            self._refresh_key(_text(own), value)

    def _refresh_bucket(self, bucket_id: BucketId, value: bytes | None) -> None:
        if value is None:
            self._buckets.pop(bucket_id, None)
            return
        row = Bucket.decode(bucket_id, value)
        known = self._buckets.get(bucket_id)
        self._buckets[bucket_id] = row.merge(known) if known else row

    def _refresh_alias(self, name: str, value: bytes | None) -> None:
        if value is None:
            self._aliases.pop(name, None)
            return
        row = Alias.decode(value)
        known = self._aliases.get(name)
        self._aliases[name] = row.merge(known) if known else row

    def _refresh_key(self, key_id: str, value: bytes | None) -> None:
        if value is None:
            self._keys.pop(key_id, None)
            return
        row = AccessKey.decode(key_id, value)
        known = self._keys.get(key_id)
        self._keys[key_id] = row.merge(known) if known else row

    def bucket_by_id(self, bucket_id: BucketId) -> Bucket:
        """Raises NoSuchBucket also for a deleted one."""
        bucket = self._buckets.get(bucket_id)
        if bucket is None or bucket.deleted:
            raise NoSuchBucket
        return bucket

    def resolve(self, name: str, access_key_id: str | None = None) -> Bucket:
        """The bucket a client means: the key's local alias first, then the global one.

        Raises NoSuchBucket.
        """
        key = self._keys.get(access_key_id) if access_key_id else None
        local = key.local_aliases.get(name) if key and not key.deleted else None
        if local:
            return self.bucket_by_id(BucketId(bytes.fromhex(local)))
        alias = self._aliases.get(name)
        if alias is None or alias.target.value is None:
            raise NoSuchBucket
        return self.bucket_by_id(BucketId(alias.target.value))

    async def find(self, name: str, access_key_id: str | None = None) -> Bucket:
        """As `resolve`, and looks whether the name is new before it says that there is none.
        Raises NoSuchBucket, QuorumNotReached."""
        try:
            return self.resolve(name, access_key_id)
        except NoSuchBucket:
            await self.look()
        return self.resolve(name, access_key_id)

    def resolve_for_admin(self, text: str) -> Bucket:
        """The bucket an operator means: a global alias, or its id or the start of it (hex).

        Never for requests of clients: an id is no secret, an alias may be one. Raises
        NoSuchBucket, and InvalidArgument where several ids start so.
        """
        alias = self._aliases.get(text)
        if alias is not None and alias.target.value is not None:
            return self.resolve(text)
        matches = [bucket for bucket in self.buckets() if text and bucket.id.hex().startswith(text)]
        if len(matches) > 1:
            raise InvalidArgument(f"{len(matches)} bucket ids start with {text}.")
        if not matches:
            raise NoSuchBucket
        return matches[0]

    def key(self, access_key_id: str) -> AccessKey | None:
        """None also for a deleted key; an expired one is returned."""
        key = self._keys.get(access_key_id)
        return None if key is None or key.deleted else key

    def buckets(self) -> list[Bucket]:
        """By id."""
        alive = (bucket for bucket in self._buckets.values() if not bucket.deleted)
        return sorted(alive, key=lambda bucket: bucket.id)

    def buckets_of(self, access_key_id: str) -> list[Bucket]:
        """Where the key has a right or a name of its own, by id."""
        key = self.key(access_key_id)
        named = {target for _, target in key.local_aliases.items()} if key else set()
        return [
            bucket
            for bucket in self.buckets()
            if bucket.keys.get(access_key_id) or bucket.id.hex() in named
        ]

    def access_keys(self) -> list[AccessKey]:
        """By id."""
        alive = (key for key in self._keys.values() if not key.deleted)
        return sorted(alive, key=lambda key: key.id)


def _text(own: bytes) -> str:
    try:
        return own.decode()
    except UnicodeDecodeError as error:
        raise StorageFailed("a row's key is not UTF-8") from error
