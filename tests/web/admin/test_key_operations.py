"""Operations on access keys, in Garage's shapes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.web.admin.conftest import Lone


async def test_a_key_is_created_with_its_secret_shown_once(lone: Lone) -> None:
    made = await lone.do("CreateKey", {"name": "backup", "allow": {"createBucket": True}})
    assert re.fullmatch("GK[0-9a-f]{24}", made["accessKeyId"])
    assert re.fullmatch("[0-9a-f]{64}", made.pop("secretAccessKey"))
    assert made == {
        "accessKeyId": made["accessKeyId"],
        "created": "2023-11-14T22:13:20Z",
        "name": "backup",
        "expiration": None,
        "expired": False,
        "permissions": {"createBucket": True},
        "buckets": [],
    }
    assert await lone.do("GetKeyInfo", {"id": made["accessKeyId"]}) == made
    shown = await lone.do("GetKeyInfo", {"search": "backup", "showSecretKey": True})
    assert len(shown["secretAccessKey"]) == 64


async def test_without_a_name(lone: Lone) -> None:
    assert (await lone.do("CreateKey", {}))["name"] == "Unnamed key"


async def test_an_imported_key(lone: Lone) -> None:
    body = {"accessKeyId": "minio.admin-1", "secretAccessKey": "s" * 16}
    made = await lone.do("ImportKey", body)
    assert made["name"] == "Imported key" and "secretAccessKey" not in made
    again = await lone.refused("ImportKey", body)
    assert (again.status, again.code) == (409, "KeyAlreadyExists")
    bad = await lone.refused("ImportKey", {**body, "accessKeyId": "x"})
    assert bad.status == 400 and "ssss" not in bad.message


async def test_a_key_changes(lone: Lone) -> None:
    key = await lone.do("CreateKey", {"name": "a", "expiration": "2023-11-14T22:13:19Z"})
    assert key["expired"] and key["expiration"] == "2023-11-14T22:13:19Z"
    body: dict[str, Any] = {"name": "b", "neverExpires": True, "allow": {"createBucket": True}}
    changed = await lone.do("UpdateKey", {"id": key["accessKeyId"], "body": body})
    assert changed["name"] == "b" and changed["expiration"] is None
    assert changed["permissions"] == {"createBucket": True}
    denied = {"deny": {"createBucket": True}, "expiration": "2030-01-01T00:00:00.250+01:00"}
    changed = await lone.do("UpdateKey", {"id": key["accessKeyId"], "body": denied})
    assert changed["permissions"] == {"createBucket": False}
    assert changed["expiration"] == "2029-12-31T23:00:00.250Z"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"expiration": "2030-01-01T00:00:00Z", "neverExpires": True}, "cannot specify"),
        ({"expiration": "tomorrow"}, "RFC 3339"),
        ({"expiration": "2030-01-01T00:00:00"}, "RFC 3339"),
        ({"neverExpire": True}, "unknown fields: neverExpire"),
        ({"name": 7}, "`name` must be a string"),
        ({"name": "\ud800"}, "valid Unicode"),
        ({"neverExpires": "yes"}, "true or false"),
        ({"allow": []}, "must be a JSON object"),
        ([], "must be a JSON object"),
    ],
)
async def test_bad_changes_are_refused_and_change_nothing(
    lone: Lone, body: Any, words: str
) -> None:
    key = await lone.do("CreateKey", {"name": "a"})
    error = await lone.refused("UpdateKey", {"id": key["accessKeyId"], "body": body})
    assert (error.code, error.status) == ("InvalidRequest", 400) and words in error.message
    assert (await lone.refused("CreateKey", body)).status == 400
    assert len(await lone.do("ListKeys")) == 1
    assert (await lone.do("GetKeyInfo", {"id": key["accessKeyId"]}))["name"] == "a"


async def test_a_deleted_key_is_gone(lone: Lone) -> None:
    key = await lone.do("CreateKey", {})
    assert await lone.do("DeleteKey", {"id": key["accessKeyId"]}) is None
    for name, parameters in (
        ("GetKeyInfo", {"id": key["accessKeyId"]}),
        ("GetKeyInfo", {"search": key["accessKeyId"]}),
        ("UpdateKey", {"id": key["accessKeyId"], "body": {}}),
        ("DeleteKey", {"id": key["accessKeyId"]}),
    ):
        error = await lone.refused(name, parameters)
        assert (error.status, error.code) == (404, "NoSuchAccessKey")


async def test_lists_have_pages(lone: Lone) -> None:
    ids = sorted([(await lone.do("CreateKey", {"name": f"k{n}"}))["accessKeyId"] for n in range(4)])
    listed = await lone.do("ListKeys")
    assert [key["id"] for key in listed] == ids
    assert set(listed[0]) == {"id", "name", "created", "expiration", "expired"}
    page = await lone.do("ListKeysInfo", {"offset": ids[1], "limit": "2"})
    assert [key["accessKeyId"] for key in page] == ids[1:3], "the offset is inclusive"
    assert all("secretAccessKey" not in key for key in page)
    assert (await lone.refused("ListKeys", {"limit": "many"})).status == 400


async def test_one_of_id_and_search(lone: Lone) -> None:
    for parameters in ({}, {"id": "GKx", "search": "x"}):
        assert (await lone.refused("GetKeyInfo", parameters)).status == 400
    await lone.do("CreateKey", {"name": "twin"})
    await lone.do("CreateKey", {"name": "twin"})
    assert (await lone.refused("GetKeyInfo", {"search": "twin"})).status == 400
