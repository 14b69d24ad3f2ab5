"""Bucket names by AWS's rules, access keys by Garage 2.3's."""

from __future__ import annotations

import re

import pytest

from garage_lite.core.errors import InvalidArgument, InvalidName
from garage_lite.core.store.names import (
    check_access_key,
    check_bucket_name,
    new_key_id,
    new_secret,
)


class CountingEntropy:
    def token(self, length: int) -> bytes:
        return bytes(range(length))


@pytest.mark.parametrize(
    "name", ["abc", "a" * 63, "my-bucket", "my.bucket.com", "1a2", "0-0", "1.2.3", "a--b", "256"]
)
def test_good_bucket_names(name: str) -> None:
    check_bucket_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *["", "ab", "a" * 64, "Abc", "a_b", "a b", "abc\n", "-ab", "ab-", ".ab", "ab.", "été"],
        *["a..b", "a.-b", "a-.b", "192.168.5.4", "xn--abc", "abc-s3alias", "abc--ol-s3"],
        *["abc.mrap", "abc--x-s3", "a/b", "a\x00b", "１２３"],
    ],
)
def test_bad_bucket_names(name: str) -> None:
    with pytest.raises(InvalidName):
        check_bucket_name(name)


def test_punycode_where_it_is_allowed() -> None:
    check_bucket_name("xn--caf-dma", allow_punycode=True)


def test_the_message_says_which_rule() -> None:
    with pytest.raises(InvalidName, match="IP address"):
        check_bucket_name("10.0.0.1")


@pytest.mark.parametrize("key_id", ["GK" + "0" * 24, "minioadmin", "a.b_c-D9", "12345678"])
def test_good_key_ids(key_id: str) -> None:
    check_access_key(key_id, "s" * 16)


@pytest.mark.parametrize("key_id", ["", "1234567", "has space", "has:colon", "é2345678", "a" * 129])
def test_bad_key_ids(key_id: str) -> None:
    with pytest.raises(InvalidArgument):
        check_access_key(key_id, "s" * 16)


@pytest.mark.parametrize("secret", ["", "s" * 15, "s" * 15 + " ", "s" * 16 + "\n", "é" * 16])
def test_bad_secrets_are_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_access_key("GK123456", secret)
    assert not secret or secret not in caught.value.message


def test_generated_keys_have_garages_form() -> None:
    key_id, secret = new_key_id(CountingEntropy()), new_secret(CountingEntropy())
    assert re.fullmatch("GK[0-9a-f]{24}", key_id)
    assert re.fullmatch("[0-9a-f]{64}", secret)
    check_access_key(key_id, secret)
