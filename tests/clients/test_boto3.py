"""boto3: every verb of the data plane, in both of its checksum modes."""

from __future__ import annotations

import base64
import hashlib
import io
import urllib.request
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from tests.clients.conftest import Site, boto_client, content

pytestmark = [pytest.mark.clients, pytest.mark.timeout(120)]

MIB = 2**20
PART = 5 * MIB


def status_and_code(caught: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    response: Any = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def body_of(response: Any) -> bytes:
    with response["Body"] as stream:
        data = stream.read()
    assert isinstance(data, bytes)
    return data


@pytest.fixture(params=["when_supported", "when_required"])
def client(request: pytest.FixtureRequest, site: Site) -> Iterator[Any]:
    mode = request.param
    made = boto_client(site, request_checksum_calculation=mode, response_checksum_validation=mode)
    yield made
    made.close()


@pytest.mark.parametrize("size", [0, 1, 3000, 3 * 1024, 3 * 1024 + 1, MIB, MIB + 1, 3 * MIB + 7])
def test_put_then_get_gives_the_same_bytes(client: Any, bucket: str, size: int) -> None:
    data = content(size)
    put = client.put_object(Bucket=bucket, Key="k", Body=data, ContentType="text/x-test")
    assert put["ETag"] == f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
    got = client.get_object(Bucket=bucket, Key="k")
    assert (got["ContentLength"], got["ContentType"]) == (size, "text/x-test")
    assert body_of(got) == data
    head = client.head_object(Bucket=bucket, Key="k")
    assert (head["ContentLength"], head["ETag"]) == (size, put["ETag"])


def test_a_stream_is_sent_in_chunks_with_a_trailer(client: Any, bucket: str) -> None:
    data = content(2 * MIB + 5)
    client.put_object(Bucket=bucket, Key="k", Body=io.BytesIO(data))
    assert body_of(client.get_object(Bucket=bucket, Key="k")) == data


def test_a_missing_key_is_a_404(client: Any, bucket: str) -> None:
    with pytest.raises(ClientError) as caught:
        client.get_object(Bucket=bucket, Key="absent")
    assert status_and_code(caught) == (404, "NoSuchKey")
    with pytest.raises(ClientError) as caught:
        client.head_object(Bucket=bucket, Key="absent")
    assert status_and_code(caught)[0] == 404


def test_ranges(s3: Any, bucket: str) -> None:
    data = content(2 * MIB + 100)
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    for asked, expected in {
        "bytes=0-0": data[:1],
        f"bytes={MIB - 3}-{MIB + 3}": data[MIB - 3 : MIB + 4],
        "bytes=-17": data[-17:],
        f"bytes={2 * MIB}-": data[2 * MIB :],
    }.items():
        got = s3.get_object(Bucket=bucket, Key="k", Range=asked)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert body_of(got) == expected
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={len(data)}-")
    assert status_and_code(caught) == (416, "InvalidRange")


def test_metadata_and_headers_come_back(s3: Any, bucket: str) -> None:
    headers = {
        "ContentType": "image/png",
        "CacheControl": "max-age=60",
        "ContentDisposition": 'attachment; filename="x y.png"',
        "ContentEncoding": "identity",
        "ContentLanguage": "fr",
    }
    meta = {"plain": "value", "mime-word": "=?UTF-8?B?w7xuw69jw7ZkZQ==?="}
    s3.put_object(Bucket=bucket, Key="ünï/ключ 鍵", Body=b"x", Metadata=meta, **headers)
    head = s3.head_object(Bucket=bucket, Key="ünï/ключ 鍵")
    assert {name: head[name] for name in headers} == headers
    assert head["Metadata"] == meta
    override = s3.get_object(Bucket=bucket, Key="ünï/ключ 鍵", ResponseContentType="text/plain")
    assert override["ContentType"] == "text/plain"
    assert body_of(override) == b"x"


def test_read_conditions(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    assert body_of(s3.get_object(Bucket=bucket, Key="k", IfMatch=etag)) == b"x"
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k", IfMatch='"0"')
    assert status_and_code(caught) == (412, "PreconditionFailed")
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k", IfNoneMatch=etag)
    assert status_and_code(caught)[0] == 304


def test_write_conditions(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*")
    assert status_and_code(caught) == (412, "PreconditionFailed")
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"3", IfMatch='"0"')
    assert status_and_code(caught) == (412, "PreconditionFailed")
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="absent", Body=b"4", IfMatch=etag)
    assert status_and_code(caught) == (404, "NoSuchKey")
    s3.put_object(Bucket=bucket, Key="k", Body=b"5", IfMatch=etag)
    assert body_of(s3.get_object(Bucket=bucket, Key="k")) == b"5"


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_a_checksum_given_is_verified_and_returned(s3: Any, bucket: str, algorithm: str) -> None:
    data = content(MIB + 3)
    field = f"Checksum{algorithm}"
    known = {
        "CRC32": zlib.crc32(data).to_bytes(4, "big"),
        "SHA1": hashlib.sha1(data, usedforsecurity=False).digest(),
        "SHA256": hashlib.sha256(data).digest(),
    }
    if algorithm in known:
        value = base64.b64encode(known[algorithm]).decode()
        put = s3.put_object(Bucket=bucket, Key="k", Body=data, **{field: value})
        assert put[field] == value
        head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
        assert head[field] == value
        wrong = base64.b64encode(bytes(len(known[algorithm]))).decode()
        with pytest.raises(ClientError) as caught:
            s3.put_object(Bucket=bucket, Key="wrong", Body=data, **{field: wrong})
        assert status_and_code(caught)[0] == 400
        with pytest.raises(ClientError) as caught:
            s3.head_object(Bucket=bucket, Key="wrong")
        assert status_and_code(caught)[0] == 404
    else:
        length = {"CRC32C": 4, "CRC64NVME": 8}[algorithm]
        with pytest.raises(ClientError) as caught:
            zeros = base64.b64encode(bytes(length)).decode()
            s3.put_object(Bucket=bucket, Key="wrong", Body=data, **{field: zeros})
        assert status_and_code(caught)[0] == 400


def test_checksums_of_known_content(s3: Any, bucket: str) -> None:
    """Against the published check values of both algorithms, for "123456789"."""
    for field, check in {
        "ChecksumCRC32C": 0xE3069283.to_bytes(4, "big"),
        "ChecksumCRC64NVME": 0xAE8B14860A799888.to_bytes(8, "big"),
    }.items():
        value = base64.b64encode(check).decode()
        s3.put_object(Bucket=bucket, Key=field, Body=b"123456789", **{field: value})
        got = s3.get_object(Bucket=bucket, Key=field, ChecksumMode="ENABLED")
        assert (body_of(got), got[field]) == (b"123456789", value)


def test_customer_keys(s3: Any, bucket: str) -> None:
    secret = content(32, 9)
    mine = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": secret}
    data = content(2 * MIB + 1)
    s3.put_object(Bucket=bucket, Key="k", Body=data, **mine)
    assert body_of(s3.get_object(Bucket=bucket, Key="k", **mine)) == data
    got = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={MIB - 5}-{MIB + 4}", **mine)
    assert body_of(got) == data[MIB - 5 : MIB + 5]
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k")
    assert status_and_code(caught)[0] == 400
    other = {**mine, "SSECustomerKey": content(32, 10)}
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k", **other)
    assert status_and_code(caught) == (403, "AccessDenied")


def test_copies(s3: Any, bucket: str) -> None:
    data = content(MIB + 1)
    s3.put_object(Bucket=bucket, Key="a b/ü", Body=data, Metadata={"n": "1"}, ContentType="a/b")
    source = {"Bucket": bucket, "Key": "a b/ü"}
    s3.copy_object(Bucket=bucket, Key="kept", CopySource=source)
    head = s3.head_object(Bucket=bucket, Key="kept")
    assert (head["Metadata"], head["ContentType"]) == ({"n": "1"}, "a/b")
    s3.copy_object(
        Bucket=bucket,
        Key="replaced",
        CopySource=source,
        MetadataDirective="REPLACE",
        Metadata={"n": "2"},
    )
    assert s3.head_object(Bucket=bucket, Key="replaced")["Metadata"] == {"n": "2"}
    s3.delete_object(**source)
    for key in ("kept", "replaced"):
        assert body_of(s3.get_object(Bucket=bucket, Key=key)) == data


def test_deletes(client: Any, bucket: str) -> None:
    keys = [f"d/{n:03}" for n in range(20)] + ["<&>\"' ü"]
    for key in keys:
        client.put_object(Bucket=bucket, Key=key, Body=b"x")
    client.delete_object(Bucket=bucket, Key=keys[0])
    client.delete_object(Bucket=bucket, Key="never was")
    answer = client.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys[1:]]}
    )
    assert sorted(entry["Key"] for entry in answer["Deleted"]) == sorted(keys[1:])
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    client.delete_bucket(Bucket=bucket)
    with pytest.raises(ClientError) as caught:
        client.head_bucket(Bucket=bucket)
    assert status_and_code(caught)[0] == 404


def test_listings(s3: Any, bucket: str) -> None:
    keys = sorted([f"a/{n:02}" for n in range(15)] + ["b", "c/d", "é/1", "z z"], key=str.encode)
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for verb in ("list_objects_v2", "list_objects"):
        pages = s3.get_paginator(verb).paginate(Bucket=bucket, PaginationConfig={"PageSize": 4})
        listed = [entry for page in pages for entry in page.get("Contents", [])]
        assert [entry["Key"] for entry in listed] == keys
        assert [entry["Size"] for entry in listed] == [len(key.encode()) for key in keys]
        top = getattr(s3, verb)(Bucket=bucket, Delimiter="/")
        assert [each["Prefix"] for each in top["CommonPrefixes"]] == ["a/", "c/", "é/"]
        assert [each["Key"] for each in top["Contents"]] == ["b", "z z"]
    after = s3.list_objects_v2(Bucket=bucket, Prefix="a/", StartAfter="a/10")
    assert [entry["Key"] for entry in after["Contents"]] == ["a/11", "a/12", "a/13", "a/14"]
    versions = s3.list_object_versions(Bucket=bucket, Prefix="a/")["Versions"]
    assert [entry["Key"] for entry in versions] == keys[:15]
    assert all(entry["IsLatest"] for entry in versions)


def test_buckets(s3: Any, site: Site, bucket: str) -> None:
    assert bucket in [each["Name"] for each in s3.list_buckets()["Buckets"]]
    assert s3.head_bucket(Bucket=bucket)["BucketRegion"] == site.region
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] == site.region
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    assert s3.get_bucket_acl(Bucket=bucket)["Grants"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    with pytest.raises(ClientError) as caught:
        s3.delete_bucket(Bucket=bucket)
    assert status_and_code(caught) == (409, "BucketNotEmpty")
    with pytest.raises(ClientError) as caught:
        s3.get_bucket_policy(Bucket=bucket)
    assert status_and_code(caught) == (501, "NotImplemented")


def test_virtual_host_style(site: Site, bucket: str) -> None:
    """The bucket in the Host header; no resolver knows the name, so the connection is told."""
    port = site.endpoint.rsplit(":", 1)[1]
    named = Site(f"http://s3.localhost:{port}", site.key)
    client = boto_client(named, s3={"addressing_style": "virtual"})
    url = client.generate_presigned_url(
        "put_object", Params={"Bucket": bucket, "Key": "a/b"}, ExpiresIn=60
    )
    host = f"{bucket}.s3.localhost:{port}"
    assert url.startswith(f"http://{host}/")
    direct = url.replace(f"http://{host}", site.endpoint)
    request = urllib.request.Request(direct, b"hello", {"Host": host}, method="PUT")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    client.close()


def test_presigned_urls(s3: Any, bucket: str) -> None:
    data = content(MIB + 9)
    parameters = {"Bucket": bucket, "Key": "pre signed/ü"}
    url = s3.generate_presigned_url("put_object", Params=parameters, ExpiresIn=60)
    request = urllib.request.Request(url, data, method="PUT")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200
    parameters["ResponseContentDisposition"] = "attachment"
    url = s3.generate_presigned_url("get_object", Params=parameters, ExpiresIn=60)
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.headers["content-disposition"] == "attachment"
        assert answer.read() == data


def test_versions(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    bodies = [b"one", content(MIB + 1), b"three"]
    ids = [s3.put_object(Bucket=bucket, Key="k", Body=body)["VersionId"] for body in bodies]
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert marker["DeleteMarker"]
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k")
    assert status_and_code(caught) == (404, "NoSuchKey")
    for body, version in zip(bodies, ids, strict=True):
        assert body_of(s3.get_object(Bucket=bucket, Key="k", VersionId=version)) == body
    listed = s3.list_object_versions(Bucket=bucket)
    assert [each["VersionId"] for each in listed["Versions"]] == ids[::-1], "newest first"
    assert [each["IsLatest"] for each in listed["DeleteMarkers"]] == [True]
    s3.delete_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    assert body_of(s3.get_object(Bucket=bucket, Key="k")) == bodies[-1]
    for version in ids:
        s3.delete_object(Bucket=bucket, Key="k", VersionId=version)
    s3.delete_bucket(Bucket=bucket)


def upload_parts(s3: Any, bucket: str, key: str, parts: list[bytes]) -> tuple[str, list[Any]]:
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key, Metadata={"m": "1"})["UploadId"]
    done = []
    for number, part in enumerate(parts, 1):
        where = {"Bucket": bucket, "Key": key, "UploadId": upload, "PartNumber": number}
        done.append({"PartNumber": number, "ETag": s3.upload_part(Body=part, **where)["ETag"]})
    return upload, done


def test_multipart_by_hand(s3: Any, bucket: str) -> None:
    parts = [content(PART, 1), content(PART + 1, 2), content(100, 3)]
    upload, done = upload_parts(s3, bucket, "k", parts)
    where = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    listed = s3.list_parts(**where, MaxParts=2)
    assert [each["Size"] for each in listed["Parts"]] == [PART, PART + 1]
    assert listed["IsTruncated"]
    assert s3.list_multipart_uploads(Bucket=bucket)["Uploads"][0]["UploadId"] == upload
    complete = {**where, "MultipartUpload": {"Parts": done}}
    first = s3.complete_multipart_upload(**complete)
    digests = b"".join(hashlib.md5(part, usedforsecurity=False).digest() for part in parts)
    assert first["ETag"] == f'"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-3"'
    assert s3.complete_multipart_upload(**complete)["ETag"] == first["ETag"], "repeated"
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (got["Metadata"], body_of(got)) == ({"m": "1"}, b"".join(parts))
    second = s3.get_object(Bucket=bucket, Key="k", PartNumber=2)
    assert second["PartsCount"] == 3
    assert body_of(second) == parts[1]
    span = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={PART - 2}-{PART + 1}")
    assert body_of(span) == parts[0][-2:] + parts[1][:2]
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_an_aborted_upload_leaves_nothing(s3: Any, bucket: str) -> None:
    upload, done = upload_parts(s3, bucket, "k", [content(PART)])
    where = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    s3.abort_multipart_upload(**where)
    with pytest.raises(ClientError) as caught:
        s3.complete_multipart_upload(**where, MultipartUpload={"Parts": done})
    assert status_and_code(caught) == (404, "NoSuchUpload")
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_parts_copied_from_an_object(s3: Any, bucket: str) -> None:
    data = content(2 * PART + 10)
    s3.put_object(Bucket=bucket, Key="source", Body=data)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    done = []
    for number, (start, end) in enumerate([(3, PART + 3), (PART + 3, 2 * PART + 10)], 1):
        answer = s3.upload_part_copy(
            Bucket=bucket,
            Key="k",
            UploadId=upload,
            PartNumber=number,
            CopySource={"Bucket": bucket, "Key": "source"},
            CopySourceRange=f"bytes={start}-{end - 1}",
        )
        done.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
    s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": done}
    )
    assert body_of(s3.get_object(Bucket=bucket, Key="k")) == data[3:]


def test_transfers_cut_themselves_into_parts(client: Any, bucket: str) -> None:
    data = content(17 * MIB)
    transfer = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART)
    client.upload_fileobj(io.BytesIO(data), bucket, "k", Config=transfer)
    back = io.BytesIO()
    client.download_fileobj(bucket, "k", back, Config=transfer)
    assert back.getvalue() == data
    parts = client.get_object_attributes(
        Bucket=bucket, Key="k", ObjectAttributes=["ETag", "ObjectSize", "ObjectParts"]
    )
    assert parts["ObjectSize"] == len(data)
    assert parts["ObjectParts"]["TotalPartsCount"] == 4
