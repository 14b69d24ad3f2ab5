"""SigV4 against AWS's published examples, and against everything a forger could change."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from garage_lite.core.model.keys import AccessKey
from garage_lite.web.s3.errors import S3Error
from garage_lite.web.s3.request import joined, parse_query
from garage_lite.web.s3.signature import (
    SigningKey,
    SigningKeys,
    Verified,
    Verifier,
    canonical_path,
    canonical_query,
    canonical_request,
    seconds_of,
    sign,
)

KEY = AccessKey("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", 0)
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
MOMENT = "20130524T000000Z"
NOW = seconds_of(MOMENT) or 0
HOST = "examplebucket.s3.amazonaws.com"
REGION = "us-east-1"


def find_key(key_id: str) -> AccessKey | None:
    return KEY if key_id == KEY.id else None


def verifier() -> Verifier:
    return Verifier(REGION, find_key)


def authorization(
    signed: str, signature: str, key_id: str = KEY.id, scope: str = "20130524/us-east-1/s3"
) -> str:
    return (
        f"AWS4-HMAC-SHA256 Credential={key_id}/{scope}/aws4_request,"
        f"SignedHeaders={signed},Signature={signature}"
    )


# "Examples: Signature Calculations", Amazon S3 API Reference
PUBLISHED = {
    "get object": (
        "GET",
        "/test.txt",
        {"Range": "bytes=0-9", "x-amz-content-sha256": EMPTY, "x-amz-date": MOMENT},
        "host;range;x-amz-content-sha256;x-amz-date",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    "put object": (
        "PUT",
        "/test$file.text",
        {
            "Date": "Fri, 24 May 2013 00:00:00 GMT",
            "x-amz-date": MOMENT,
            "x-amz-storage-class": "REDUCED_REDUNDANCY",
            "x-amz-content-sha256": (
                "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"
            ),
        },
        "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    "get bucket lifecycle": (
        "GET",
        "/?lifecycle",
        {"x-amz-content-sha256": EMPTY, "x-amz-date": MOMENT},
        "host;x-amz-content-sha256;x-amz-date",
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    "list objects": (
        "GET",
        "/?max-keys=2&prefix=J",
        {"x-amz-content-sha256": EMPTY, "x-amz-date": MOMENT},
        "host;x-amz-content-sha256;x-amz-date",
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_examples_are_accepted(name: str) -> None:
    method, target, headers, signed, signature = PUBLISHED[name]
    arrived = CIMultiDict(headers, Host=HOST, Authorization=authorization(signed, signature))
    verified = verifier().verify_header(method, target, joined(arrived.items()), NOW)
    assert verified.key is KEY
    assert verified.payload == headers["x-amz-content-sha256"]
    assert verified.scope == "20130524/us-east-1/s3/aws4_request"


PRESIGNED = (
    "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
    "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
)


def presigned(
    target: str = PRESIGNED,
    now: int = NOW,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
) -> Verified:
    arrived = CIMultiDict(headers or {}, Host=HOST)
    query = parse_query(target.partition("?")[2])
    return verifier().verify_query(method, target, query, joined(arrived.items()), now)


def test_published_presigned_example_is_accepted_until_it_expires() -> None:
    assert presigned().key is KEY
    assert presigned(now=NOW + 86_399).payload == "UNSIGNED-PAYLOAD"
    with pytest.raises(S3Error, match="expired") as refused:
        presigned(now=NOW + 86_400)
    assert refused.value.code == "AccessDenied"
    assert ("ServerTime", "2013-05-25T00:00:00Z") in refused.value.details


def test_a_presigned_request_of_the_future_is_not_valid_yet() -> None:
    presigned(now=NOW - 900)
    with pytest.raises(S3Error, match="not valid yet"):
        presigned(now=NOW - 901)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("X-Amz-Expires=86400", "X-Amz-Expires=604801", "AccessDenied"),
        ("X-Amz-Expires=86400", "X-Amz-Expires=-1", "AccessDenied"),
        ("X-Amz-Expires=86400", "X-Amz-Expires=x", "AuthorizationQueryParametersError"),
        ("X-Amz-Expires=86400", "X-Amz-Expires=0", "AccessDenied"),
        ("&X-Amz-Expires=86400", "", "AuthorizationQueryParametersError"),
        ("20130524T000000Z", "yesterday", "AuthorizationQueryParametersError"),
        ("us-east-1", "us-west-2", "AuthorizationQueryParametersError"),
        ("%2Fs3%2F", "%2Fsts%2F", "AuthorizationQueryParametersError"),
        ("%2Faws4_request", "", "AuthorizationQueryParametersError"),
        ("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA512", "AuthorizationQueryParametersError"),
        ("X-Amz-Expires=86400", "X-Amz-Expires=86401", "SignatureDoesNotMatch"),
        ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPL", "InvalidAccessKeyId"),
        ("/test.txt", "/test.txu", "SignatureDoesNotMatch"),
        ("aeeed9", "beeed9", "SignatureDoesNotMatch"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=x", "AccessDenied"),
        ("&X-Amz-Date", "&x-id=GetObject&X-Amz-Date", "SignatureDoesNotMatch"),
    ],
)
def test_a_changed_presigned_request_is_refused(old: str, new: str, code: str) -> None:
    with pytest.raises(S3Error) as refused:
        presigned(PRESIGNED.replace(old, new))
    assert refused.value.code == code


def test_a_presigned_request_says_nothing_by_unsigned_headers() -> None:
    with pytest.raises(S3Error) as refused:
        presigned(headers={"x-amz-acl": "public-read"})
    assert ("HeadersNotSigned", "x-amz-acl") in refused.value.details
    with pytest.raises(S3Error, match="Only one auth mechanism"):
        presigned(headers={"Authorization": "AWS4-HMAC-SHA256 x"})
    with pytest.raises(S3Error) as refused:
        presigned(method="DELETE")
    assert refused.value.code == "SignatureDoesNotMatch"


# --- every element of a signed request, changed


def signed_headers(
    method: str = "GET",
    target: str = "/bucket/a%20key?prefix=b&list-type=2",
    region: str = REGION,
    moment: str = MOMENT,
    payload: str = EMPTY,
    names: str = "host;range;x-amz-content-sha256;x-amz-date;x-amz-meta-a",
) -> CIMultiDict[str]:
    headers = CIMultiDict(
        {
            "Host": "localhost:3900",
            "Range": "bytes=0-9",
            "X-Amz-Content-Sha256": payload,
            "X-Amz-Date": moment,
            "x-amz-meta-a": "one  two",
        }
    )
    path, _, query = target.partition("?")
    arrived = joined(headers.items())
    canonical = canonical_request(method, path, canonical_query(query), arrived, names, payload)
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    key = SigningKeys().get(KEY.secret, moment[:8], region)
    headers["Authorization"] = authorization(
        names, sign(key, moment, scope, canonical), scope=scope.removesuffix("/aws4_request")
    )
    return headers


def verify(
    headers: CIMultiDict[str],
    method: str = "GET",
    target: str = "/bucket/a%20key?prefix=b&list-type=2",
    now: int = NOW,
) -> Verified:
    return verifier().verify_header(method, target, joined(headers.items()), now)


def test_what_was_signed_is_accepted() -> None:
    assert verify(signed_headers()).key is KEY


@pytest.mark.parametrize(
    "target",
    [
        "/bucket/a%20key?list-type=2&prefix=b",
        "/bucket/%61%20key?list-type=2&prefix=%62",
        "/bucket/a key?list-type=2&prefix=b",
    ],
)
def test_another_spelling_of_the_same_request_is_accepted(target: str) -> None:
    assert verify(signed_headers(), target=target).key is KEY


def test_runs_of_spaces_count_as_one() -> None:
    headers = signed_headers()
    headers["x-amz-meta-a"] = "one two"
    assert verify(headers).key is KEY


@pytest.mark.parametrize(
    "target",
    [
        "/bucket/a%20kez?prefix=b&list-type=2",
        "/bucket//a%20key?prefix=b&list-type=2",
        "/bucket/./a%20key?prefix=b&list-type=2",
        "/bucket/a%2520key?prefix=b&list-type=2",
        "/bucket/a+key?prefix=b&list-type=2",
        "/other/a%20key?prefix=b&list-type=2",
        "/bucket/a%20key?prefix=c&list-type=2",
        "/bucket/a%20key?prefix=b",
        "/bucket/a%20key?prefix=b&list-type=2&versions",
        "/bucket/a%20key?prefix=b&prefix=b&list-type=2",
        "/bucket/a%20key",
    ],
)
def test_a_changed_target_is_refused(target: str) -> None:
    with pytest.raises(S3Error) as refused:
        verify(signed_headers(), target=target)
    assert refused.value.code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("method", ["PUT", "HEAD", "DELETE", "POST", "get"])
def test_a_changed_method_is_refused(method: str) -> None:
    with pytest.raises(S3Error) as refused:
        verify(signed_headers(), method=method)
    assert refused.value.code == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "localhost:3901"),
        ("Host", "localhost"),
        ("Range", "bytes=0-8"),
        ("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"),
        ("X-Amz-Date", "20130524T000001Z"),
        ("x-amz-meta-a", "one  twO"),
        ("x-amz-meta-a", "onetwo"),
    ],
)
def test_a_changed_header_is_refused(name: str, value: str) -> None:
    headers = signed_headers()
    headers[name] = value
    with pytest.raises(S3Error) as refused:
        verify(headers)
    assert refused.value.code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("name", ["Host", "Range", "x-amz-meta-a"])
def test_a_signed_header_that_is_missing_or_doubled_is_refused(name: str) -> None:
    headers = signed_headers()
    headers.add(name, headers[name])
    with pytest.raises(S3Error) as refused:
        verify(headers)
    assert refused.value.code == "SignatureDoesNotMatch"
    del headers[name]
    with pytest.raises(S3Error):
        verify(headers)


def test_headers_that_must_be_signed() -> None:
    headers = signed_headers()
    headers["X-Amz-Copy-Source"] = "/other/secret"
    with pytest.raises(S3Error) as refused:
        verify(headers)
    assert refused.value.code == "AccessDenied"
    assert ("HeadersNotSigned", "x-amz-copy-source") in refused.value.details
    with pytest.raises(S3Error) as refused:
        verify(signed_headers(names="range;x-amz-content-sha256;x-amz-date;x-amz-meta-a"))
    assert ("HeadersNotSigned", "host") in refused.value.details
    named = "host;range;x-amz-date;x-amz-meta-a"
    assert verify(signed_headers(names=named)).payload == EMPTY


@given(position=st.integers(min_value=0, max_value=63), digit=st.sampled_from("0123456789abcdefgZ"))
def test_no_other_signature_is_accepted(position: int, digit: str) -> None:
    headers = signed_headers()
    text, signature = headers["Authorization"][:-64], headers["Authorization"][-64:]
    changed = signature[:position] + digit + signature[position + 1 :]
    headers["Authorization"] = text + changed
    if changed == signature:
        assert verify(headers)
        return
    with pytest.raises(S3Error) as refused:
        verify(headers)
    assert refused.value.code in ("SignatureDoesNotMatch", "AuthorizationHeaderMalformed")


def test_skewed_clocks_are_told_the_servers_time() -> None:
    assert verify(signed_headers(), now=NOW + 900)
    assert verify(signed_headers(), now=NOW - 900)
    for now in (NOW + 901, NOW - 901):
        with pytest.raises(S3Error) as refused:
            verify(signed_headers(), now=now)
        assert refused.value.code == "RequestTimeTooSkewed"
        assert dict(refused.value.details)["ServerTime"].startswith("2013-05-2")


def test_a_wrong_scope_says_what_is_right() -> None:
    with pytest.raises(S3Error, match="expecting 'us-east-1'") as refused:
        verify(signed_headers(region="garage"))
    assert refused.value.code == "AuthorizationHeaderMalformed"
    assert ("Region", "us-east-1") in refused.value.details
    for old, new in (("/s3/", "/ec2/"), ("20130524/", "20130523/"), ("/aws4_request", "")):
        headers = signed_headers()
        headers["Authorization"] = headers["Authorization"].replace(old, new, 1)
        with pytest.raises(S3Error) as refused:
            verify(headers)
        assert refused.value.code == "AuthorizationHeaderMalformed"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "AccessDenied"),
        ("Basic dXNlcjpwYXNz", "InvalidArgument"),
        ("AWS AKIA:c2lnbmF0dXJl", "InvalidRequest"),
        ("AWS4-HMAC-SHA256", "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256 Credential=a", "AuthorizationHeaderMalformed"),
        ("AWS4-ECDSA-P256-SHA256 Credential=a", "NotImplemented"),
    ],
)
def test_other_authorizations(text: str, code: str) -> None:
    headers = signed_headers()
    headers["Authorization"] = text
    with pytest.raises(S3Error) as refused:
        verify(headers)
    assert refused.value.code == code


def test_the_date_header_counts_where_x_amz_date_is_missing() -> None:
    headers = signed_headers(names="host;range;x-amz-content-sha256;x-amz-meta-a")
    del headers["X-Amz-Date"]
    headers["Date"] = "Fri, 24 May 2013 00:00:00 GMT"
    assert verify(headers).timestamp == MOMENT
    headers["Date"] = "tomorrow"
    with pytest.raises(S3Error, match="valid Date"):
        verify(headers)


def test_a_request_without_payload_hash_is_refused() -> None:
    headers = signed_headers()
    del headers["x-amz-content-sha256"]
    with pytest.raises(S3Error, match="x-amz-content-sha256"):
        verify(headers)


def test_unknown_and_deleted_keys_cost_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []
    derive, sign_text = hmac.digest, SigningKey.sign

    def derived(key: bytes, message: bytes, digest: str) -> bytes:
        calls.append(message)
        return derive(key, message, digest)

    def signed(key: SigningKey, text: bytes) -> str:
        calls.append(text)
        return sign_text(key, text)

    monkeypatch.setattr(hmac, "digest", derived)
    monkeypatch.setattr(SigningKey, "sign", signed)
    verify(signed_headers())
    right = len(calls)
    calls.clear()
    nobody = Verifier(REGION, lambda key_id: None)
    arrived = joined(signed_headers().items())
    calls.clear()
    with pytest.raises(S3Error) as refused:
        nobody.verify_header("GET", "/bucket/a%20key?prefix=b&list-type=2", arrived, NOW)
    assert refused.value.code == "InvalidAccessKeyId"
    assert right - len(calls) == right // 2  # the first count signed as well as verified
    gone = AccessKey(KEY.id, "", 0, deleted=True)
    with pytest.raises(S3Error) as refused:
        Verifier(REGION, lambda key_id: gone).verify_header(
            "GET", "/bucket/a%20key?prefix=b&list-type=2", arrived, NOW
        )
    assert refused.value.code == "InvalidAccessKeyId"


def test_signing_keys_are_bounded() -> None:
    keys = SigningKeys(entries_max=3)
    first = keys.get("secret", "20130524", "garage").sign(b"text")
    for day in range(10):
        keys.get("secret", f"2013060{day}", "garage")
    assert keys.get("secret", "20130524", "garage").sign(b"text") == first
    assert len(keys._cache) <= 3


@given(st.binary(max_size=64), st.binary())
def test_a_signing_key_signs_as_hmac_does(key: bytes, text: bytes) -> None:
    signing = SigningKey(key)
    right = hmac.digest(key, text, "sha256").hex()
    assert signing.sign(text) == right
    assert signing.sign(text) == right  # and is not used up


@given(st.text(alphabet="/abc%+ ~.é?&=#\udc80", max_size=30))
def test_canonical_forms_are_stable(text: str) -> None:
    once = canonical_path(text)
    assert canonical_path(once) == once
    assert canonical_query(canonical_query(text)) == canonical_query(text)


def test_times_are_read_strictly() -> None:
    assert seconds_of("19700101T000001Z") == 1
    for text in ("20130524T000000", "2013-05-24T00:00:00Z", "20131324T000000Z", "20130524T0000é0Z"):
        assert seconds_of(text) is None
