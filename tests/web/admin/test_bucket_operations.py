"""Operations on buckets, in Garage's shapes."""

from __future__ import annotations

from typing import Any

import pytest

from garage_lite.core.ids import BucketId
from garage_lite.core.store.uploads import CreateRequest
from tests.web.admin.conftest import Lone

ALL = {"read": True, "write": True, "owner": True}


async def key_of(lone: Lone, name: str = "k") -> str:
    return str((await lone.do("CreateKey", {"name": name}))["accessKeyId"])


async def test_a_bucket_is_created_and_shown(lone: Lone) -> None:
    made = await lone.do("CreateBucket", {"globalAlias": "photos"})
    assert len(made["id"]) == 64
    assert made == {
        "id": made["id"],
        "created": "2023-11-14T22:13:20Z",
        "globalAliases": ["photos"],
        "websiteAccess": False,
        "keys": [],
        "objects": 0,
        "bytes": 0,
        "unfinishedUploads": 0,
        "unfinishedMultipartUploads": 0,
        "unfinishedMultipartUploadParts": 0,
        "unfinishedMultipartUploadBytes": 0,
        "quotas": {"maxSize": None, "maxObjects": None},
    }
    for wanted in (
        {"id": made["id"]},
        {"globalAlias": "photos"},
        {"search": "photos"},
        {"search": made["id"][:10]},
    ):
        assert await lone.do("GetBucketInfo", wanted) == made
    assert await lone.do("ListBuckets") == [
        {
            "id": made["id"],
            "created": made["created"],
            "globalAliases": ["photos"],
            "localAliases": [],
        }
    ]
    assert await lone.do("ListBucketsInfo") == [made]


async def test_a_bucket_with_a_local_name(lone: Lone) -> None:
    key = await key_of(lone)
    body = {"localAlias": {"accessKeyId": key, "alias": "mine", "allow": {"read": True}}}
    made = await lone.do("CreateBucket", body)
    read = {"read": True, "write": False, "owner": False}
    assert made["globalAliases"] == []
    assert made["keys"] == [
        {"accessKeyId": key, "name": "k", "permissions": read, "bucketLocalAliases": ["mine"]}
    ]
    (listed,) = await lone.do("ListBuckets")
    assert listed["localAliases"] == [{"accessKeyId": key, "alias": "mine"}]
    shown = await lone.do("GetKeyInfo", {"id": key})
    assert shown["buckets"] == [
        {"id": made["id"], "globalAliases": [], "localAliases": ["mine"], "permissions": read}
    ]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"globalAlias": "photos"}, "BucketAlreadyExists"),
        ({"globalAlias": "NO"}, "InvalidRequest"),
        ({"globalAlias": 5}, "InvalidRequest"),
        ({"localAlias": {"accessKeyId": "GKnobody", "alias": "mine"}}, "NoSuchAccessKey"),
        ({"localAlias": {"alias": "mine"}}, "InvalidRequest"),
    ],
)
async def test_bad_creations_make_nothing(lone: Lone, body: Any, code: str) -> None:
    await lone.bucket("photos")
    assert (await lone.refused("CreateBucket", body)).code == code
    assert len(await lone.do("ListBuckets")) == 1


async def test_what_is_not_there(lone: Lone) -> None:
    for name, parameters in (
        ("GetBucketInfo", {"globalAlias": "nope"}),
        ("GetBucketInfo", {"search": "nope"}),
        ("GetBucketInfo", {"id": "00" * 32}),
        ("DeleteBucket", {"id": "00" * 32}),
        ("UpdateBucket", {"id": "00" * 32, "body": {}}),
        ("AddBucketAlias", {"bucketId": "00" * 32, "globalAlias": "abc"}),
    ):
        error = await lone.refused(name, parameters)
        assert (error.code, error.status) == ("NoSuchBucket", 404)
    for wanted in ({"id": "xyz"}, {}, {"search": "a", "id": "b"}):
        assert (await lone.refused("GetBucketInfo", wanted)).status == 400


async def test_names_come_and_go(lone: Lone) -> None:
    bucket, key = await lone.bucket("photos"), await key_of(lone)
    both = await lone.do("AddBucketAlias", {"bucketId": bucket, "globalAlias": "pictures"})
    assert both["globalAliases"] == ["photos", "pictures"]
    local = {"bucketId": bucket, "localAlias": "mine", "accessKeyId": key}
    assert (await lone.do("AddBucketAlias", local))["keys"][0]["bucketLocalAliases"] == ["mine"]
    await lone.do("RemoveBucketAlias", local)
    left = await lone.do("RemoveBucketAlias", {"bucketId": bucket, "globalAlias": "photos"})
    assert left["globalAliases"] == ["pictures"] and left["keys"] == []
    last = await lone.refused("RemoveBucketAlias", {"bucketId": bucket, "globalAlias": "pictures"})
    assert last.status == 400
    other = await lone.bucket("other")
    taken = await lone.refused("AddBucketAlias", {"bucketId": other, "globalAlias": "pictures"})
    assert (taken.code, taken.status) == ("InvalidRequest", 400)
    both_kinds = {**local, "globalAlias": "x-y-z"}
    assert (await lone.refused("AddBucketAlias", both_kinds)).status == 400


async def test_rights_are_given_and_taken(lone: Lone) -> None:
    bucket, key = await lone.bucket(), await key_of(lone)
    right = {"bucketId": bucket, "accessKeyId": key}
    given = await lone.do("AllowBucketKey", {**right, "permissions": ALL})
    assert given["keys"][0]["permissions"] == ALL
    taken = await lone.do("DenyBucketKey", {**right, "permissions": {"write": True}})
    assert taken["keys"][0]["permissions"] == {**ALL, "write": False}
    assert (await lone.do("DenyBucketKey", {**right, "permissions": ALL}))["keys"] == []
    assert (await lone.refused("AllowBucketKey", right)).status == 400
    nobody = {**right, "accessKeyId": "GKnobody", "permissions": ALL}
    assert (await lone.refused("AllowBucketKey", nobody)).code == "NoSuchAccessKey"


async def test_quotas_and_website(lone: Lone) -> None:
    bucket = await lone.bucket()
    quotas = {"maxSize": 1000, "maxObjects": None}
    website = {"enabled": True, "indexDocument": "index.html", "errorDocument": "oops.html"}
    changed = await lone.do(
        "UpdateBucket", {"id": bucket, "body": {"quotas": quotas, "websiteAccess": website}}
    )
    assert changed["quotas"] == quotas and changed["websiteAccess"]
    assert changed["websiteConfig"] == {
        "indexDocument": "index.html",
        "errorDocument": "oops.html",
        "routingRules": [],
    }
    off = {"websiteAccess": {"enabled": False}}
    changed = await lone.do("UpdateBucket", {"id": bucket, "body": off})
    assert not changed["websiteAccess"] and "websiteConfig" not in changed
    assert changed["quotas"] == quotas, "what is not named stays"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"websiteAccess": {"enabled": True}}, 400),
        ({"websiteAccess": {"enabled": False, "indexDocument": "i"}}, 400),
        ({"websiteAccess": {"enabled": True, "indexDocument": "a/b"}}, 400),
        ({"websiteAccess": True}, 400),
        ({"quotas": {"maxSize": -1}}, 400),
        ({"quotas": {"maxSize": True}}, 400),
        ({"corsRules": [{"AllowedOrigin": ["*"]}]}, 501),
        ({"lifecycleRules": [{"Status": "Enabled"}]}, 501),
        ({"corsRules": {}}, 400),
    ],
)
async def test_bad_settings_change_nothing(lone: Lone, body: Any, status: int) -> None:
    bucket = await lone.bucket()
    before = await lone.do("GetBucketInfo", {"id": bucket})
    mixed = {"quotas": {"maxSize": 5, "maxObjects": 5}, **body}
    assert (await lone.refused("UpdateBucket", {"id": bucket, "body": mixed})).status == status
    assert await lone.do("GetBucketInfo", {"id": bucket}) == before


async def test_a_deleted_bucket_is_gone(lone: Lone) -> None:
    bucket = await lone.bucket()
    assert await lone.do("DeleteBucket", {"id": bucket}) is None
    assert await lone.do("ListBuckets") == []
    await lone.bucket()


async def test_old_uploads_are_cleaned_up(lone: Lone) -> None:
    bucket = await lone.bucket()
    row = lone.context.directory.bucket_by_id(BucketId(bytes.fromhex(bucket)))
    await lone.context.uploads.create(CreateRequest(row, b"big", "GKx"))
    shown = await lone.do("GetBucketInfo", {"id": bucket})
    assert shown["unfinishedUploads"] == shown["unfinishedMultipartUploads"] == 1
    assert (await lone.refused("DeleteBucket", {"id": bucket})).code == "BucketNotEmpty"
    wanted = {"bucketId": bucket, "olderThanSecs": 60}
    assert await lone.do("CleanupIncompleteUploads", wanted) == {"uploadsDeleted": 0}
    lone.disk.clock.us += 61_000_000
    assert await lone.do("CleanupIncompleteUploads", wanted) == {"uploadsDeleted": 1}
    assert (await lone.do("GetBucketInfo", {"id": bucket}))["unfinishedUploads"] == 0


async def test_pages_begin_at_an_id(lone: Lone) -> None:
    ids = sorted([await lone.bucket(f"bucket-{n}") for n in range(3)])
    page = await lone.do("ListBuckets", {"offset": ids[1], "limit": 1})
    assert [bucket["id"] for bucket in page] == [ids[1]]
    assert (await lone.refused("ListBuckets", {"offset": "abc"})).status == 400
