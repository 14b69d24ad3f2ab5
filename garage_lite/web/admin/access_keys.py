"""Operations on access keys."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final, NamedTuple

from garage_lite.core.errors import NoSuchAccessKey
from garage_lite.core.model.buckets import Bucket, Permission
from garage_lite.core.model.keys import AccessKey
from garage_lite.web.admin.context import AdminContext
from garage_lite.web.admin.dates import date_ms, date_text, optional_date_text
from garage_lite.web.admin.errors import AdminError, bad_request
from garage_lite.web.admin.fields import Fields

LIST_MAX: Final = 10_000
"""Rows of a list where no limit is given."""
INFO_LIST_MAX: Final = 1000


class _Changes(NamedTuple):
    """What CreateKey and UpdateKey may set."""

    name: str | None
    expires: bool
    """Whether the expiration changes."""
    expiration_ms: int | None
    create_bucket: bool | None


async def list_keys(context: AdminContext, fields: Fields) -> Any:
    now_ms = context.now_ms()
    return [
        {
            "id": key.id,
            "name": key.name.value,
            "created": date_text(key.created_ms),
            "expiration": optional_date_text(key.expiration_ms.value),
            "expired": key.expired(now_ms),
        }
        for key in _page(context, fields, LIST_MAX)
    ]


async def list_keys_info(context: AdminContext, fields: Fields) -> Any:
    return [key_json(context, key) for key in _page(context, fields, INFO_LIST_MAX)]


def _page(context: AdminContext, fields: Fields, limit_default: int) -> list[AccessKey]:
    offset = fields.optional_text("offset") or ""
    limit = fields.query_number("limit")
    fields.end()
    found = (key for key in context.directory.access_keys() if key.id >= offset)
    return list(islice(found, limit_default if limit is None else limit))


async def get_key(context: AdminContext, fields: Fields) -> Any:
    key_id, search = fields.optional_text("id"), fields.optional_text("search")
    show_secret = fields.query_flag("showSecretKey")
    fields.end()
    if (key_id is None) == (search is None):
        raise bad_request("Either id or search must be provided (but not both)")
    key = existing_key(context, key_id) if key_id is not None else _find(context, search or "")
    return key_json(context, key, show_secret=show_secret)


async def create_key(context: AdminContext, fields: Fields) -> Any:
    changes = _changes(fields)
    fields.end()
    name = "Unnamed key" if changes.name is None else changes.name
    key = await context.keys.create(name, expiration_ms=changes.expiration_ms)
    if changes.create_bucket:
        await context.keys.allow_create_bucket(key.id, True)
    return key_json(context, existing_key(context, key.id), show_secret=True)


async def import_key(context: AdminContext, fields: Fields) -> Any:
    key_id, secret = fields.text("accessKeyId"), fields.text("secretAccessKey")
    name = fields.optional_text("name")
    fields.end()
    await context.keys.import_key(key_id, secret, "Imported key" if name is None else name)
    return key_json(context, existing_key(context, key_id))


async def update_key(context: AdminContext, fields: Fields) -> Any:
    key = existing_key(context, fields.text("id"))
    changes = fields.inner("body", _changes) or _Changes(None, False, None, None)
    fields.end()
    if changes.name is not None:
        await context.keys.rename(key.id, changes.name)
    if changes.expires:
        await context.keys.set_expiration(key.id, changes.expiration_ms)
    if changes.create_bucket is not None:
        await context.keys.allow_create_bucket(key.id, changes.create_bucket)
    return key_json(context, existing_key(context, key.id))


async def delete_key(context: AdminContext, fields: Fields) -> Any:
    key = existing_key(context, fields.text("id"))
    fields.end()
    await context.keys.delete(key.id)


def existing_key(context: AdminContext, key_id: str) -> AccessKey:
    """Raises AdminError (NoSuchAccessKey)."""
    key = context.directory.key(key_id)
    if key is None:
        raise _no_such_key(key_id)
    return key


def key_json(context: AdminContext, key: AccessKey, *, show_secret: bool = False) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "accessKeyId": key.id,
        "created": date_text(key.created_ms),
        "name": key.name.value,
        "expiration": optional_date_text(key.expiration_ms.value),
        "expired": key.expired(context.now_ms()),
    }
    if show_secret:
        shown["secretAccessKey"] = key.secret
    return shown | {
        "permissions": {"createBucket": key.create_bucket.value},
        "buckets": [_bucket_json(bucket, key) for bucket in context.directory.buckets_of(key.id)],
    }


def _bucket_json(bucket: Bucket, key: AccessKey) -> dict[str, Any]:
    return {
        "id": bucket.id.hex(),
        "globalAliases": [name for name, _ in bucket.aliases.items()],
        "localAliases": [
            name for name, target in key.local_aliases.items() if target == bucket.id.hex()
        ],
        "permissions": permissions_json(bucket.permissions_of(key.id)),
    }


def permissions_json(permissions: Permission) -> dict[str, bool]:
    return {
        "read": Permission.READ in permissions,
        "write": Permission.WRITE in permissions,
        "owner": Permission.OWNER in permissions,
    }


def read_permissions(fields: Fields) -> Permission:
    found = Permission.NONE
    for name, right in (
        ("read", Permission.READ),
        ("write", Permission.WRITE),
        ("owner", Permission.OWNER),
    ):
        if fields.flag(name):
            found |= right
    return found


def _find(context: AdminContext, search: str) -> AccessKey:
    try:
        return context.keys.find(search)
    except NoSuchAccessKey as error:
        raise _no_such_key(search) from error


def _no_such_key(wanted: str) -> AdminError:
    return AdminError("NoSuchAccessKey", f"Access key not found: {wanted[:200]}")


def _changes(fields: Fields) -> _Changes:
    expiration = fields.optional_text("expiration")
    never = fields.flag("neverExpires")
    if never and expiration is not None:
        raise bad_request("cannot specify `expiration` and `never_expires`")
    allowed = fields.inner("allow", lambda inner: inner.flag("createBucket"))
    denied = fields.inner("deny", lambda inner: inner.flag("createBucket"))
    create_bucket = False if denied else (True if allowed else None)
    return _Changes(
        fields.optional_text("name"),
        never or expiration is not None,
        None if expiration is None else date_ms(expiration),
        create_bucket,
    )
