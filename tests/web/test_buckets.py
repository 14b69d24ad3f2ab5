"""Buckets, listings, and who may do what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest_asyncio

from garage_lite.core.model.buckets import Permission
from garage_lite.core.model.keys import AccessKey
from garage_lite.web.s3.context import S3Context
from garage_lite.web.s3.operations import ROUTES, Operation, Right, Scope
from tests.web.world import Answer, S3World


@pytest_asyncio.fixture
async def w(tmp_path: Path) -> AsyncIterator[S3World]:
    async with S3World(tmp_path, root_domain=".s3.example") as world:
        assert (await world.call("PUT", "/bucket")).status == 200
        yield world


async def test_the_life_of_a_bucket(w: S3World) -> None:
    created = await w.call("PUT", "/other-bucket")
    assert (created.status, created.headers["location"]) == (200, "/other-bucket")
    again = await w.call("PUT", "/other-bucket")
    assert (again.status, again.code) == (409, "BucketAlreadyOwnedByYou")
    stranger = await w.new_key("stranger")
    taken = await w.call("PUT", "/other-bucket", key=stranger)
    assert (taken.status, taken.code) == (409, "BucketAlreadyExists")
    assert (await w.call("PUT", "/Bad_Name")).code == "InvalidBucketName"
    head = await w.call("HEAD", "/other-bucket")
    assert (head.status, head.headers["x-amz-bucket-region"]) == (200, "garage")
    location = await w.call("GET", "/other-bucket", "location=")
    assert location.xml("LocationConstraint").text == "garage"
    versioning = await w.call("GET", "/other-bucket", "versioning=")
    assert versioning.xml("VersioningConfiguration").children == []
    acl = (await w.call("GET", "/other-bucket", "acl=")).xml("AccessControlPolicy")
    assert acl.child("AccessControlList") is not None
    await w.call("PUT", "/other-bucket/k", body=b"x")
    full = await w.call("DELETE", "/other-bucket")
    assert (full.status, full.code) == (409, "BucketNotEmpty")
    await w.call("DELETE", "/other-bucket/k")
    assert (await w.call("DELETE", "/other-bucket")).status == 204
    assert (await w.call("HEAD", "/other-bucket")).status == 404
    gone = await w.call("GET", "/other-bucket")
    assert gone.code == "NoSuchBucket"
    assert gone.xml("Error").value("BucketName") == "other-bucket"
    assert gone.xml("Error").value("RequestId") == gone.headers["x-amz-request-id"]


async def test_acls_say_what_is_and_promise_nothing_else(w: S3World) -> None:
    await w.call("PUT", "/bucket/k", body=b"x")
    for path in ("/bucket", "/bucket/k"):
        acl = (await w.call("GET", path, "acl=")).xml("AccessControlPolicy")
        owner = acl.child("Owner")
        assert owner is not None and owner.value("ID") == w.key.id
        private = {"x-amz-acl": "private"}
        assert (await w.call("PUT", path, "acl=", body=b"", headers=private)).status == 200
        public = {"x-amz-acl": "public-read"}
        refused = await w.call("PUT", path, "acl=", body=b"", headers=public)
        assert (refused.status, refused.code) == (501, "NotImplemented")
    assert (await w.call("GET", "/bucket/none", "acl=")).code == "NoSuchKey"


async def test_versions_are_kept_once_asked_for(w: S3World) -> None:
    def body(status: str) -> bytes:
        return (
            f"<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>".encode()
        )

    assert (await w.call("PUT", "/bucket", "versioning=", body=body("Off"))).code == "MalformedXML"
    assert (await w.call("PUT", "/bucket", "versioning=", body=body("Enabled"))).status == 200
    state = await w.call("GET", "/bucket", "versioning=")
    assert state.xml("VersioningConfiguration").value("Status") == "Enabled"
    ids = [
        (await w.call("PUT", "/bucket/k", body=content)).headers["x-amz-version-id"]
        for content in (b"1", b"2")
    ]
    deleted = await w.call("DELETE", "/bucket/k")
    assert deleted.headers["x-amz-delete-marker"] == "true"
    marker = deleted.headers["x-amz-version-id"]
    for method in ("GET", "HEAD"):
        hidden = await w.call(method, "/bucket/k")
        assert hidden.status == 404 and "allow" not in hidden.headers
        assert hidden.headers["x-amz-delete-marker"] == "true"
        assert hidden.headers["x-amz-version-id"] == marker
        named = await w.call(method, "/bucket/k", f"versionId={marker}")
        assert (named.status, named.headers["allow"]) == (405, "DELETE")
        assert named.headers["x-amz-delete-marker"] == "true" and named.headers["last-modified"]
        assert method == "HEAD" or (hidden.code, named.code) == ("NoSuchKey", "MethodNotAllowed")
        assert "x-amz-delete-marker" not in (await w.call(method, "/bucket/never")).headers
    for version_id, content in zip(ids, (b"1", b"2"), strict=True):
        got = await w.call("GET", "/bucket/k", f"versionId={version_id}")
        assert (got.body, got.headers["x-amz-version-id"]) == (content, version_id)
    tree = (await w.call("GET", "/bucket", "versions=")).xml("ListVersionsResult")
    assert [item.value("VersionId") for item in tree.all("Version")] == ids[::-1]
    assert len(list(tree.all("DeleteMarker"))) == 1
    assert (await w.call("DELETE", "/bucket/k", f"versionId={marker}")).status == 204
    assert (await w.call("GET", "/bucket/k")).body == b"2"
    assert (await w.call("GET", "/bucket/k", "versionId=none")).code == "NoSuchVersion"


async def test_create_bucket_reads_its_region(w: S3World) -> None:
    def body(region: str) -> bytes:
        return (
            "<CreateBucketConfiguration><LocationConstraint>"
            f"{region}</LocationConstraint></CreateBucketConfiguration>"
        ).encode()

    assert (await w.call("PUT", "/here", body=body("garage"))).status == 200
    wrong = await w.call("PUT", "/there", body=body("mars"))
    assert (wrong.status, wrong.code) == (400, "IllegalLocationConstraintException")
    assert (await w.call("PUT", "/there", body=b"<x")).code == "MalformedXML"


async def test_list_buckets_in_pages(w: S3World) -> None:
    for name in ("aaa", "bbb", "bcc"):
        await w.call("PUT", f"/{name}")

    async def names(query: str) -> tuple[list[str | None], str | None]:
        root = (await w.call("GET", "/", query)).xml("ListAllMyBucketsResult")
        buckets = root.child("Buckets")
        assert buckets is not None
        owner = root.child("Owner")
        assert owner is not None and owner.value("ID") == w.key.id
        return [item.value("Name") for item in buckets.all("Bucket")], root.value(
            "ContinuationToken"
        )

    assert await names("") == (["aaa", "bbb", "bcc", "bucket"], None)
    assert await names("prefix=b") == (["bbb", "bcc", "bucket"], None)
    assert await names("bucket-region=mars") == ([], None)
    first, token = await names("max-buckets=3")
    assert first == ["aaa", "bbb", "bcc"] and token
    assert await names(f"continuation-token={quote(token)}&max-buckets=3") == (["bucket"], None)
    bad = await w.call("GET", "/", "continuation-token=%25%25")
    assert bad.code == "InvalidArgument"
    stranger = await w.new_key("stranger")
    other = (await w.call("GET", "/", key=stranger)).xml("ListAllMyBucketsResult")
    assert other.child("Buckets") is not None and not other.children[1].children


async def test_listings(w: S3World) -> None:
    for name in ("a/1", "a/2", "b", "c d", "c/1"):
        await w.call("PUT", f"/bucket/{quote(name)}", body=b"x")

    def items(answer: Answer, root: str) -> list[str | None]:
        tree = answer.xml(root)
        keys = [item.value("Key") for item in tree.children if item.name in ("Contents", "Version")]
        return keys + [item.value("Prefix") for item in tree.all("CommonPrefixes")]

    v1 = await w.call("GET", "/bucket", "delimiter=%2F")
    assert items(v1, "ListBucketResult") == ["b", "c d", "a/", "c/"]
    seen: list[str | None] = []
    marker = ""
    for _ in range(9):
        query = f"delimiter=%2F&marker={quote(marker, safe='')}&max-keys=1"
        page = await w.call("GET", "/bucket", query)
        seen += items(page, "ListBucketResult")
        marker = page.xml("ListBucketResult").value("NextMarker") or ""
        if not marker:
            break
    assert seen == ["a/", "b", "c d", "c/"]
    encoded = await w.call("GET", "/bucket", "encoding-type=url&prefix=c%20")
    assert items(encoded, "ListBucketResult") == ["c%20d"]
    v2 = await w.call("GET", "/bucket", "fetch-owner=true&list-type=2&start-after=b")
    assert items(v2, "ListBucketResult") == ["c d", "c/1"]
    contents = v2.xml("ListBucketResult").child("Contents")
    assert contents is not None and contents.child("Owner") is not None
    none = await w.call("GET", "/bucket", "list-type=2&max-keys=0")
    assert none.xml("ListBucketResult").value("IsTruncated") == "false"
    versions = await w.call("GET", "/bucket", "max-keys=2&versions=")
    assert items(versions, "ListVersionsResult") == ["a/1", "a/2"]
    tree = versions.xml("ListVersionsResult")
    assert tree.value("NextKeyMarker") == "a/2"
    version = tree.child("Version")
    assert version is not None and version.value("VersionId") == "null"
    lonely = await w.call("GET", "/bucket", "version-id-marker=null&versions=")
    assert lonely.code == "InvalidArgument"


async def test_virtual_host_style(w: S3World) -> None:
    host = "bucket.s3.example"
    put = await w.call("PUT", "/k/a", body=b"x", host=host)
    assert put.status == 200
    assert (await w.call("GET", "/bucket/k/a")).body == b"x"
    assert (await w.call("GET", "/k/a", host="BUCKET.s3.EXAMPLE:3900")).body == b"x"
    listed = await w.call("GET", "/", host=host)
    assert listed.xml("ListBucketResult").value("Name") == "bucket"
    everything = await w.call("GET", "/", host="s3.example")
    assert everything.xml("ListAllMyBucketsResult").child("Buckets") is not None
    assert (await w.call("GET", "/bucket/k/a", host="other.example")).body == b"x"


async def test_expected_owners(w: S3World) -> None:
    right = {"x-amz-expected-bucket-owner": w.key.id}
    wrong = {"x-amz-expected-bucket-owner": "GK000000"}
    assert (await w.call("HEAD", "/bucket", headers=right)).status == 200
    assert (await w.call("HEAD", "/bucket", headers=wrong)).status == 403
    await w.call("PUT", "/bucket/k", body=b"x", headers=right)
    copy = {"x-amz-copy-source": "/bucket/k", "x-amz-source-expected-bucket-owner": "GK000000"}
    assert (await w.call("PUT", "/bucket/l", headers=copy)).status == 403


def request_for(scope: Scope, route: tuple[str, str, str, Operation]) -> tuple[str, str, str]:
    first, second, _, _ = route
    path = {Scope.SERVICE: "/", Scope.BUCKET: "/bucket", Scope.OBJECT: "/bucket/none"}[scope]
    values = {"list-type": "2", "uploadId": "0" * 32}
    query = "&".join(sorted(f"{name}={values.get(name, '')}" for name in (first, second) if name))
    if route[3].name.startswith("UploadPart"):
        query = f"partNumber=1&{query}"
    return path, query, route[2]


async def test_the_authorization_matrix(w: S3World) -> None:
    """Every operation by keys with no, each and every right: allowed exactly where the table
    says so. What is not built is told so only to who may know."""
    granted = {
        "nobody": Permission.NONE,
        "reader": Permission.READ,
        "writer": Permission.WRITE,
        "owner": Permission.OWNER,
    }
    bits = {
        Right.READ: Permission.READ,
        Right.WRITE: Permission.WRITE,
        Right.OWNER: Permission.OWNER,
    }
    bucket = w.names.resolve("bucket")
    keys: dict[str, AccessKey] = {}
    for name, permission in granted.items():
        keys[name] = await w.new_key(name, create_bucket=False)
        if permission:
            await w.buckets.allow(bucket.id, keys[name].id, permission)
    for (scope, method), place in ROUTES.items():
        for route in place:
            operation = route[3]
            if scope is Scope.SERVICE or operation.name == "DeleteBucket":
                continue
            path, query, header = request_for(scope, route)
            for name, permission in granted.items():
                # A PUT with a body that never fits, so that nothing changes.
                answer = await w.call(
                    method,
                    path,
                    query,
                    body=b"" if method in ("PUT", "POST") else None,
                    headers={header: "/bucket/none"} if header else {"if-match": "none"},
                    key=keys[name],
                )
                allowed = operation.right in bits and bool(permission & bits[operation.right])
                if operation.right is Right.CREATE_BUCKET:
                    allowed = False
                if header and allowed:
                    # The source of a copy must be readable too.
                    assert answer.code == "AccessDenied"
                    continue
                assert (answer.status != 403) is allowed, (operation.name, name, answer)
                if allowed and not operation.built:
                    assert answer.status == 501
    for name, key in keys.items():
        answer = await w.call("DELETE", "/bucket", key=key)
        # Uploads were begun above.
        assert answer.code == ("BucketNotEmpty" if name == "owner" else "AccessDenied")


async def test_keys_that_expired_or_are_gone(w: S3World) -> None:
    await w.keys.set_expiration(w.key.id, 1)
    expired = await w.call("GET", "/bucket")
    assert (expired.status, expired.code) == (403, "AccessDenied")
    await w.keys.delete(w.key.id)
    gone = await w.call("GET", "/bucket")
    assert (gone.status, gone.code) == (403, "InvalidAccessKeyId")


async def test_copying_needs_the_right_to_read_the_source(w: S3World) -> None:
    await w.call("PUT", "/bucket/secret", body=b"x")
    thief = await w.new_key("thief")
    assert (await w.call("PUT", "/mine", key=thief)).status == 200
    source = {"x-amz-copy-source": "/bucket/secret"}
    assert (await w.call("PUT", "/mine/k", headers=source, key=thief)).status == 403
    started = await w.call("POST", "/mine/k", "uploads=", key=thief)
    upload_id = started.xml("InitiateMultipartUploadResult").value("UploadId")
    query = f"partNumber=1&uploadId={upload_id}"
    assert (await w.call("PUT", "/mine/k", query, headers=source, key=thief)).status == 403


async def test_before_a_layout_nothing_is_stored(tmp_path: Path) -> None:
    applied: list[bool] = []

    def without_layout(context: S3Context) -> S3Context:
        return replace(context, has_layout=lambda: bool(applied))

    async with S3World(tmp_path, wrap=without_layout) as world:
        refused = await world.call("PUT", "/bucket")
        assert (refused.status, refused.code) == (503, "ServiceUnavailable")
        made_elsewhere = AccessKey("GK" + "5" * 24, "6" * 64, 0)
        refused = await world.call("GET", "/bucket/key", key=made_elsewhere)
        assert refused.status == 503, "who has met nobody can't say that there is no such key"
        applied.append(True)
        assert (await world.call("PUT", "/bucket")).status == 200
        assert (await world.call("GET", "/bucket/key", key=made_elsewhere)).status == 403


async def test_in_us_east_1_ones_own_bucket_may_be_created_again(tmp_path: Path) -> None:
    def in_virginia(context: S3Context) -> S3Context:
        return replace(context, settings=replace(context.settings, region="us-east-1"))

    async with S3World(tmp_path, wrap=in_virginia) as world:
        client = world.boto(region="us-east-1")
        for _ in range(2):
            await asyncio.to_thread(client.create_bucket, Bucket="bucket")
