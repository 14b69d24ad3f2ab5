"""The programs people already have: AWS CLI, rclone, restic, s3cmd."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import NAMES, Run, Site, content, files_of, need

pytestmark = [pytest.mark.clients, pytest.mark.timeout(240)]

MIB = 2**20


def keys_of(s3: Any, bucket: str, prefix: str = "") -> list[str]:
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=prefix)
    return [entry["Key"] for entry in listed.get("Contents", [])]


# --- AWS CLI


def test_aws_copies_syncs_moves_and_removes(
    run: Run, s3: Any, bucket: str, tree: Path, tmp_path: Path
) -> None:
    need("aws")
    big = tmp_path / "big"
    big.write_bytes(content(20 * MIB, 7))
    run("aws", "s3", "cp", "--quiet", big, f"s3://{bucket}/big")  # in parts of 8 MiB
    run("aws", "s3", "cp", "--quiet", f"s3://{bucket}/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == big.read_bytes()

    run("aws", "s3", "sync", "--quiet", tree, f"s3://{bucket}/tree")
    assert run("aws", "s3", "sync", tree, f"s3://{bucket}/tree") == "", "synced twice"
    run("aws", "s3", "sync", "--quiet", f"s3://{bucket}/tree", tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(tree)

    run("aws", "s3", "mv", "--quiet", f"s3://{bucket}/big", f"s3://{bucket}/moved")
    assert keys_of(s3, bucket, "big") == []
    run("aws", "s3", "rm", "--quiet", "--recursive", f"s3://{bucket}/")
    assert keys_of(s3, bucket) == []


def test_aws_s3api(run: Run, bucket: str, tmp_path: Path) -> None:
    need("aws")
    source = tmp_path / "source"
    source.write_bytes(content(4000))
    where = ("--bucket", bucket, "--key", "a key")
    put = json.loads(
        run(
            *("aws", "s3api", "put-object", *where, "--body", source),
            *("--checksum-algorithm", "SHA256", "--metadata", "one=1"),
        )
    )
    head = json.loads(run("aws", "s3api", "head-object", *where, "--checksum-mode", "ENABLED"))
    assert head["ChecksumSHA256"] == put["ChecksumSHA256"]
    assert head["Metadata"] == {"one": "1"}
    run("aws", "s3api", "get-object", *where, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    listed = json.loads(run("aws", "s3api", "list-object-versions", "--bucket", bucket))
    assert [each["Key"] for each in listed["Versions"]] == ["a key"]
    run("aws", "s3api", "delete-object", *where)


# --- rclone


@pytest.fixture
def rclone(run: Run, site: Site) -> Run:
    need("rclone")
    settings = {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_GL_TYPE": "s3",
        "RCLONE_CONFIG_GL_PROVIDER": "Other",
        "RCLONE_CONFIG_GL_ENV_AUTH": "true",
        "RCLONE_CONFIG_GL_ENDPOINT": site.endpoint,
        "RCLONE_CONFIG_GL_REGION": site.region,
    }
    return lambda *words: run("rclone", "--retries", "1", "-q", *words, **settings)


def test_rclone_syncs_and_checks(
    rclone: Run, s3: Any, bucket: str, tree: Path, tmp_path: Path
) -> None:
    rclone("sync", tree, f"GL:{bucket}/t")
    rclone("check", "--download", tree, f"GL:{bucket}/t")
    listed = rclone("lsf", "-R", "--files-only", f"GL:{bucket}/t").splitlines()
    assert sorted(listed) == sorted(name for name, _ in NAMES)

    stamp = 1_500_000_000
    os.utime(tree / "small.txt", (stamp, stamp))
    rclone("copy", "--metadata", tree, f"GL:{bucket}/t")  # a copy onto itself, new mtime
    moment = rclone("lsf", "--format", "t", f"GL:{bucket}/t/small.txt", "--s3-no-head=false")
    assert moment.startswith("2017-07-14")

    (tree / "small.txt").unlink()
    rclone("sync", tree, f"GL:{bucket}/t")
    assert "t/small.txt" not in keys_of(s3, bucket)
    rclone("copy", f"GL:{bucket}/t", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tree)


def test_rclone_sends_a_big_file_in_parts(rclone: Run, bucket: str, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(content(23 * MIB, 3))
    rclone("copyto", "--s3-upload-cutoff", "5M", "--s3-chunk-size", "5M", big, f"GL:{bucket}/big")
    rclone("moveto", f"GL:{bucket}/big", f"GL:{bucket}/moved")  # copied on the server
    rclone("copyto", f"GL:{bucket}/moved", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == big.read_bytes()
    rclone("purge", f"GL:{bucket}")


# --- restic


def test_restic_backs_up_and_restores(
    run: Run, site: Site, bucket: str, tree: Path, tmp_path: Path
) -> None:
    need("restic")

    def restic(*words: str | Path) -> str:
        return run(
            *("restic", "--no-cache", "-q", *words),
            RESTIC_REPOSITORY=f"s3:{site.endpoint}/{bucket}/backups",
            RESTIC_PASSWORD="correct horse",
        )

    (tree / "random").write_bytes(content(12 * MIB, 5))
    restic("init")
    restic("backup", tree)
    (tree / "small.txt").write_text("changed")
    restic("backup", tree)
    restic("check", "--read-data")
    restic("restore", "latest", "--target", tmp_path / "restored")
    restored = tmp_path / "restored" / str(tree).lstrip("/")
    assert files_of(restored) == files_of(tree)
    restic("forget", "--keep-last", "1", "--prune")
    restic("check", "--read-data")


# --- s3cmd


def test_s3cmd_puts_gets_syncs_and_deletes(
    run: Run, site: Site, s3: Any, bucket: str, tree: Path, tmp_path: Path
) -> None:
    need("s3cmd")
    config = tmp_path / "s3cfg"
    config.write_text(
        "[default]\n"
        f"access_key = {site.key.access_key}\nsecret_key = {site.key.secret_key}\n"
        f"host_base = {site.host}\nhost_bucket = {site.host}\n"
        f"bucket_location = {site.region}\nuse_https = False\n"
    )

    def s3cmd(*words: str | Path) -> str:
        return run("s3cmd", "-c", config, "--no-progress", *words)

    assert f"s3://{bucket}" in s3cmd("ls")
    big = tmp_path / "big"
    big.write_bytes(content(17 * MIB, 2))
    s3cmd("put", "--multipart-chunk-size-mb=5", big, f"s3://{bucket}/big")
    s3cmd("get", f"s3://{bucket}/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == big.read_bytes()
    s3cmd("del", f"s3://{bucket}/big")

    s3cmd("sync", f"{tree}/", f"s3://{bucket}/tree/")
    assert sorted(keys_of(s3, bucket)) == sorted(f"tree/{name}" for name, _ in NAMES)
    s3cmd("sync", f"s3://{bucket}/tree/", f"{tmp_path}/out/")
    assert files_of(tmp_path / "out") == files_of(tree)
    s3cmd("del", "--recursive", "--force", f"s3://{bucket}/")
    assert keys_of(s3, bucket) == []
