"""How names and rights of buckets are said in rows. Pure: rows in, rows out.

A global name is an alias row and an entry in the bucket's row; a name that only one key sees is
an entry in the key's row and one ("KEYID:name") in the bucket's.
"""

from __future__ import annotations

from dataclasses import replace

from garage_lite.core.crdt import Lww
from garage_lite.core.errors import NoSuchAccessKey, NoSuchBucket
from garage_lite.core.ids import BucketId
from garage_lite.core.model.buckets import Alias, Bucket, Permission
from garage_lite.core.model.keys import AccessKey
from garage_lite.core.model.rowkeys import Table, everywhere_row
from garage_lite.core.table.schema import Update, View


def stored_bucket(view: View, bucket_id: BucketId) -> Bucket:
    """Raises NoSuchBucket also for a deleted one."""
    row = view.get(everywhere_row(Table.BUCKET, bucket_id))
    bucket = None if row is None else Bucket.decode(bucket_id, row)
    if bucket is None or bucket.deleted:
        raise NoSuchBucket
    return bucket


def stored_key(view: View, access_key_id: str) -> AccessKey:
    """Raises NoSuchAccessKey also for a deleted one."""
    row = view.get(everywhere_row(Table.KEY, access_key_id.encode()))
    key = None if row is None else AccessKey.decode(access_key_id, row)
    if key is None or key.deleted:
        raise NoSuchAccessKey
    return key


def _if_there(view: View, bucket_id: bytes) -> Bucket | None:
    try:
        return stored_bucket(view, BucketId(bucket_id))
    except NoSuchBucket:
        return None


def global_target(view: View, name: str) -> Bucket | None:
    """The bucket a global name leads to; None: the name is free."""
    row = view.get(everywhere_row(Table.ALIAS, name.encode()))
    target = None if row is None else Alias.decode(row).target.value
    return None if target is None else _if_there(view, target)


def local_target(view: View, name: str, key: AccessKey) -> Bucket | None:
    """The bucket a name leads to for this key only; None: the name is free."""
    target = key.local_aliases.get(name)
    return None if target is None else _if_there(view, bytes.fromhex(target))


def target_of(view: View, name: str, key: AccessKey) -> Bucket | None:
    """The bucket `key` means by `name`."""
    return local_target(view, name, key) or global_target(view, name)


def with_alias(bucket: Bucket, name: str, stamp: int) -> Bucket:
    return replace(bucket, aliases=bucket.aliases.set(name, True, stamp))


def without_alias(bucket: Bucket, name: str, stamp: int) -> Bucket:
    return replace(bucket, aliases=bucket.aliases.set(name, None, stamp))


def with_local_alias(bucket: Bucket, key: AccessKey, name: str, stamp: int) -> Bucket:
    names = bucket.local_aliases.set(f"{key.id}:{name}", True, stamp)
    return replace(bucket, local_aliases=names)


def without_local_alias(bucket: Bucket, key: AccessKey, name: str, stamp: int) -> Bucket:
    names = bucket.local_aliases.set(f"{key.id}:{name}", None, stamp)
    return replace(bucket, local_aliases=names)


def global_aliases_of(bucket: Bucket) -> list[str]:
    return [name for name, _ in bucket.aliases.items()]


def local_aliases_of(bucket: Bucket) -> list[tuple[str, str]]:
    """(access key id, name), sorted."""
    joined = [entry.partition(":") for entry, _ in bucket.local_aliases.items()]
    return [(key_id, name) for key_id, _, name in joined]


def with_right(bucket: Bucket, key: AccessKey, rights: Permission, stamp: int) -> Bucket:
    """The key's rights on the bucket are `rights` from now on."""
    return replace(bucket, keys=bucket.keys.set(key.id, int(rights) or None, stamp))


def bucket_update(bucket: Bucket) -> Update:
    return Update(everywhere_row(Table.BUCKET, bucket.id), bucket.encode())


def key_update(key: AccessKey) -> Update:
    return Update(everywhere_row(Table.KEY, key.id.encode()), key.encode())


def alias_update(view: View, name: str, target: BucketId | None, stamp: int) -> Update:
    """A global name leads to `target` from now on; None: nowhere."""
    row_key = everywhere_row(Table.ALIAS, name.encode())
    row = view.get(row_key)
    alias = Alias.decode(row) if row else Alias(Lww(0, None))
    return Update(row_key, Alias(alias.target.set(target, stamp)).encode())


def local_alias_update(key: AccessKey, name: str, target: BucketId | None, stamp: int) -> Update:
    """A name of this key leads to `target` from now on; None: nowhere."""
    value = None if target is None else target.hex()
    return key_update(replace(key, local_aliases=key.local_aliases.set(name, value, stamp)))
