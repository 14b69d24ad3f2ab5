"""What the commands print, letter by letter: scripts written for Garage parse it."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import pytest

from .conftest import Cli, FakeNode

BUCKET_ID = "3396db51a7484ee6c96f5d8c1da67646ccb7d1e7c4d9864631dedf72b95d644c"
KEY_ID = "GK1ec093e651e2bd46eee1391c"
CREATED = "2026-11-30T23:46:50.354Z"


def text(block: str) -> str:
    """A golden text as written here: dedented, `|` marks the end of lines that end in blanks."""
    return textwrap.dedent(block).lstrip("\n").replace("|\n", "\n")


def key(**more: Any) -> dict[str, Any]:
    return {
        "accessKeyId": KEY_ID,
        "name": "app",
        "created": CREATED,
        "expiration": None,
        "expired": False,
        "permissions": {"createBucket": False},
        "buckets": [],
        **more,
    }


def bucket(**more: Any) -> dict[str, Any]:
    return {
        "id": BUCKET_ID,
        "created": CREATED,
        "globalAliases": ["photos"],
        "websiteAccess": False,
        "websiteConfig": None,
        "keys": [],
        "objects": 0,
        "bytes": 0,
        "unfinishedUploads": 0,
        "unfinishedMultipartUploads": 0,
        "unfinishedMultipartUploadBytes": 0,
        "quotas": {"maxSize": None, "maxObjects": None},
        **more,
    }


# --- keys


def test_key_create(node: FakeNode, cli: Cli) -> None:
    node.answers["CreateKey"] = key(secretAccessKey="96" * 32)
    assert cli("key", "create", "app") == (
        0,
        text(f"""
            ==== ACCESS KEY INFORMATION ====
            Key ID:              {KEY_ID}
            Key name:            app
            Secret key:          {"96" * 32}
            Created:             2026-12-01 00:46:50.354 +01:00
            Validity:            valid
            Expiration:          never

            Can create buckets:  false

            ==== BUCKETS FOR THIS KEY ====
            Permissions  ID  Global aliases  Local aliases
            """),
        "",
    )
    assert node.last("CreateKey") == {"name": "app"}


def test_key_info(node: FakeNode, cli: Cli) -> None:
    rights = {"read": True, "write": False, "owner": True}
    held = {"id": BUCKET_ID, "permissions": rights, "localAliases": ["mine", "my"]}
    node.answers["GetKeyInfo"] = key(
        expired=True,
        expiration="2026-12-01T00:00:00Z",
        permissions={"createBucket": True},
        buckets=[{**held, "globalAliases": ["photos", "pics"]}],
    )
    _, out, _ = cli("key", "info", "app")
    assert out == text(f"""
        ==== ACCESS KEY INFORMATION ====
        Key ID:              {KEY_ID}
        Key name:            app
        Secret key:          (redacted)
        Created:             2026-12-01 00:46:50.354 +01:00
        Validity:            EXPIRED
        Expiration:          2026-12-01 01:00:00 +01:00

        Can create buckets:  true

        ==== BUCKETS FOR THIS KEY ====
        Permissions  ID                Global aliases   Local aliases
        R O          3396db51a7484ee6  photos, ... (2)  mine,my
        """)
    assert node.last("GetKeyInfo") == {"search": "app", "showSecretKey": False}


def test_key_info_for_scripts(node: FakeNode, cli: Cli) -> None:
    node.answers["GetKeyInfo"] = lambda asked: key(
        **({"secretAccessKey": "s3cret"} if asked["showSecretKey"] else {})
    )
    assert cli("key", "info", "app", "--key-id") == (0, f"{KEY_ID}\n", "")
    assert cli("key", "info", "app", "--secret-key") == (0, "s3cret\n", "")
    assert cli("key", "info", "app", "--secret-key", "--key-id")[1] == f"{KEY_ID}\n"
    assert "Secret key:          s3cret\n" in cli("key", "info", "app", "--show-secret")[1]
    assert cli("key", "export-env", "app", "--prefix", "X_")[1] == text(f"""
        X_ACCESS_KEY_ID={KEY_ID}
        X_SECRET_ACCESS_KEY=s3cret
        X_DEFAULT_REGION='garage'
        """)


def test_key_list(node: FakeNode, cli: Cli) -> None:
    first = {"id": "GKaa", "name": "old", "created": "2026-01-01T12:00:00Z", "expired": False}
    node.answers["ListKeys"] = [
        {"id": KEY_ID, "name": "app", "created": CREATED, "expiration": None, "expired": True},
        {**first, "expiration": "2027-01-01T00:00:00Z"},
    ]
    assert cli("key", "list")[1] == text(f"""
        ID                          Created     Name  Expiration
        GKaa                        2026-01-01  old   2027-01-01 01:00:00 +01:00
        {KEY_ID}  2026-12-01  app   expired
        """)


def test_key_changes(node: FakeNode, cli: Cli) -> None:
    node.answers |= {"GetKeyInfo": key(), "UpdateKey": key(), "DeleteKey": None}
    for words, body in (
        (("rename", "app", "new"), {"name": "new"}),
        (("allow", "app", "--create-bucket"), {"allow": {"createBucket": True}}),
        (("deny", "--create-bucket", "app"), {"deny": {"createBucket": True}}),
        (("set", "app", "--never-expires"), {"neverExpires": True}),
    ):
        assert cli("key", *words)[0] == 0
        assert node.last("UpdateKey") == {"id": KEY_ID, "body": body}
    assert cli("key", "set", "app", "--expires-in", "1d")[0] == 0
    assert node.last("UpdateKey")["body"]["expiration"].endswith("+00:00")
    assert cli("key", "set", "app")[0] == 1
    code, out, err = cli("key", "delete", "app")
    assert (code, out) == (1, f"About to delete key {KEY_ID}...\n")
    assert err == "Error: Add --yes flag to really perform this operation\n"
    assert cli("key", "delete", "app", "--yes") == (
        0,
        f"Access key {KEY_ID} has been deleted.\n",
        "",
    )


@pytest.mark.parametrize("duration", ["soon", "999999999 years"])
def test_no_expiry(cli: Cli, duration: str) -> None:
    code, _, err = cli("key", "create", "x", "--expires-in", duration)
    assert code == 1
    assert err.startswith("Error: Invalid duration passed for --expires-in parameter")


def test_key_import_needs_a_yes(node: FakeNode, cli: Cli) -> None:
    code, _, err = cli("key", "import", "GKx", "secret")
    assert code == 1 and "use `garage key create` instead" in err
    node.answers["ImportKey"] = key()
    assert cli("key", "import", "--yes", "-n", "n", "GKx", "secret")[0] == 0
    assert node.last("ImportKey") == {
        "accessKeyId": "GKx",
        "secretAccessKey": "secret",
        "name": "n",
    }


# --- buckets


def test_bucket_info(node: FakeNode, cli: Cli) -> None:
    rights = {"read": True, "write": True, "owner": True}
    owner = {"accessKeyId": KEY_ID, "name": "app", "permissions": rights}
    node.answers["GetBucketInfo"] = bucket(keys=[{**owner, "bucketLocalAliases": []}])
    assert cli("bucket", "info", "photos")[1] == text(f"""
        ==== BUCKET INFORMATION ====
        Bucket:          {BUCKET_ID}
        Created:         2026-12-01 00:46:50.354 +01:00

        Size:            0 B (0 B)
        Objects:         0

        Website access:  false

        Global alias:    photos

        ==== KEYS FOR THIS BUCKET ====
        Permissions  Access key                       Local aliases
        RWO          {KEY_ID}  app  |
        """)


def test_bucket_info_with_everything(node: FakeNode, cli: Cli) -> None:
    node.answers["GetBucketInfo"] = bucket(
        bytes=1_200_000,
        objects=12,
        globalAliases=["photos", "pics"],
        unfinishedUploads=3,
        unfinishedMultipartUploads=2,
        unfinishedMultipartUploadBytes=5 << 20,
        websiteAccess=True,
        websiteConfig={"indexDocument": "index.html", "errorDocument": None},
        quotas={"maxSize": 30 << 30, "maxObjects": 1000},
    )
    assert cli("bucket", "info", "photos")[1] == text(f"""
        ==== BUCKET INFORMATION ====
        Bucket:                                {BUCKET_ID}
        Created:                               2026-12-01 00:46:50.354 +01:00

        Size:                                  1.2 MB (1.1 MiB)
        Objects:                               12
        Unfinished uploads:                    2 multipart uploads
                                               3 including regular uploads
        Size of unfinished multipart uploads:  5.2 MB (5.0 MiB)

        Website access:                        true
          index document:                      index.html
          error document:                      (not defined)

        Quotas:                                enabled
          maximum size:                        32.2 GB (30.0 GiB)
          maximum number of objects:           1000

        Global aliases:                        photos
                                               pics

        ==== KEYS FOR THIS BUCKET ====
        Permissions  Access key    Local aliases
        """)


def test_bucket_list(node: FakeNode, cli: Cli) -> None:
    row = {"id": BUCKET_ID, "created": CREATED, "globalAliases": ["photos"], "localAliases": []}
    local = [{"accessKeyId": "GKaa", "alias": "mine"}]
    node.answers["ListBuckets"] = [row, {**row, "globalAliases": [], "localAliases": local}]
    assert cli("bucket", "list")[1] == text("""
        ID                Created     Global aliases  Local aliases
        3396db51a7484ee6  2026-12-01  photos          |
        3396db51a7484ee6  2026-12-01                  GKaa:mine
        """)


def test_bucket_requests(node: FakeNode, cli: Cli) -> None:
    same = ("CreateBucket", "UpdateBucket", "AllowBucketKey", "DenyBucketKey", "GetBucketInfo")
    alias = ("AddBucketAlias", "RemoveBucketAlias")
    node.answers |= {name: bucket() for name in (*same, *alias)}
    node.answers["GetKeyInfo"] = key(buckets=[{"id": BUCKET_ID, "localAliases": ["mine"]}])
    to = {"bucketId": BUCKET_ID}
    rights = {"read": True, "write": False, "owner": False}
    quotas = {"maxSize": 10**7, "maxObjects": None}
    site = {"enabled": True, "indexDocument": "index.html", "errorDocument": "e.html"}
    for line, operation, asked in (
        ("create b", "CreateBucket", {"globalAlias": "b"}),
        ("allow b --key k --read", "AllowBucketKey", {**to, "accessKeyId": KEY_ID}),
        ("deny b --key k --read", "DenyBucketKey", {**to, "permissions": rights}),
        ("alias b new", "AddBucketAlias", {**to, "globalAlias": "new"}),
        ("alias b n --local k", "AddBucketAlias", {"localAlias": "n", "accessKeyId": KEY_ID}),
        ("unalias b", "RemoveBucketAlias", {**to, "globalAlias": "b"}),
        ("unalias mine --local k", "RemoveBucketAlias", {**to, "localAlias": "mine"}),
        ("set-quotas b --max-size 10M", "UpdateBucket", {"body": {"quotas": quotas}}),
        ("website b --allow -e e.html", "UpdateBucket", {"body": {"websiteAccess": site}}),
        ("website b --deny", "UpdateBucket", {"body": {"websiteAccess": {"enabled": False}}}),
    ):
        code, _, err = cli("bucket", *line.split())
        assert (code, err) == (0, ""), line
        assert asked.items() <= node.last(operation).items()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("delete photos", "Add --yes flag to really perform this operation"),
        ("delete pics --yes", "Bucket pics still has other global aliases."),
        ("website photos", "You must specify exactly one flag, either --allow or --deny"),
        ("website photos --allow --deny", "You must specify exactly one flag"),
        ("set-quotas photos", "You must specify either --max-size or --max-objects"),
        ("set-quotas photos --max-size 1Q", "Invalid size specified"),
        ("set-quotas photos --max-objects 1.5", "Invalid number specified"),
        ("cleanup-incomplete-uploads photos --older-than x", "Invalid duration passed for --older"),
        ("unalias other --local k", f"No bucket called other in namespace of key {KEY_ID}"),
    ],
)
def test_bucket_errors(node: FakeNode, cli: Cli, line: str, message: str) -> None:
    node.answers |= {"GetBucketInfo": bucket(), "GetKeyInfo": key()}
    code, _, err = cli("bucket", *line.split())
    assert code == 1
    assert err.startswith(f"Error: {message}")
    assert not {"DeleteBucket", "UpdateBucket"} & {name for name, _ in node.asked}


def test_cleanup_and_delete(node: FakeNode, cli: Cli) -> None:
    node.answers |= {"GetBucketInfo": bucket(), "DeleteBucket": None}
    counts = iter([0, 3])
    node.answers["CleanupIncompleteUploads"] = lambda _: {"uploadsDeleted": next(counts)}
    assert cli("bucket", "cleanup-incomplete-uploads", "a", "b")[1] == text("""
        3396db51a7484ee6: no uploads deleted
        3396db51a7484ee6: 3 uploads deleted
        """)
    assert node.last("CleanupIncompleteUploads")["olderThanSecs"] == 86_400
    assert cli("bucket", "delete", "photos", "--yes")[1] == (
        f"Bucket {BUCKET_ID} has been deleted.\n"
    )


def test_inspect_object(node: FakeNode, cli: Cli) -> None:
    version = {"uuid": "ab" * 16, "timestamp": CREATED, "encrypted": False, "uploading": False}
    state = {"aborted": False, "deleteMarker": False, "inline": False, "etag": "d41d8"}
    blocks = [{"partNumber": 1, "offset": 0, "hash": "cd" * 32, "size": 1_048_576}]
    shown = {**version, **state, "size": 1_048_576, "blocks": blocks}
    headers = [["content-type", "text/plain"]]
    node.answers["GetBucketInfo"] = bucket()
    node.answers["InspectObject"] = {
        "bucketId": BUCKET_ID,
        "key": "a b",
        "versions": [{**shown, "headers": headers}],
    }
    assert cli("bucket", "inspect-object", "photos", "a b")[1] == text(f"""
        ==== OBJECT VERSION ====
        Bucket ID:         {BUCKET_ID}
        Key:               a b
        Version ID:        {"ab" * 16}
        Timestamp:         2026-12-01 00:46:50.354 +01:00
        Size:              1.0 MB (1.0 MiB)
        Size (exact):      1048576
        Number of blocks:  1
        Etag:              d41d8
        Encrypted:         false
        Uploading:         false
        Aborted:           false
        Delete marker:     false
        Inline data:       false

        content-type       text/plain

        Part#  Offset     Block hash{" " * 54}  Size
           1           0  {"cd" * 32}    1048576

        """)


# --- errors


def test_an_error_of_the_node(node: FakeNode, cli: Cli) -> None:
    assert cli("bucket", "info", "nope") == (
        1,
        "",
        "Error: GetBucketInfo returned NoSuchEndpoint (404):"
        " there is no operation 'GetBucketInfo'\n",
    )


def test_json_api(node: FakeNode, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    node.answers["Echo"] = lambda asked: {"asked": asked, "é": 1}
    code, out, _ = cli("json-api", "Echo", '{"a": [1, null]}')
    assert (code, json.loads(out)) == (0, {"asked": {"a": [1, None]}, "é": 1})
    assert "é" in out
    assert json.loads(cli("json-api", "Echo")[1])["asked"] == {}
    code, _, err = cli("json-api", "Echo", "{")
    assert code == 1 and err.startswith("Error: the parameters are no JSON")
