"""s3fs: a bucket as a mounted file system."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import NAMES, Site, content, files_of, need

pytestmark = [pytest.mark.clients, pytest.mark.timeout(240)]

MIB = 2**20


def need_fuse() -> None:
    """A mount needs the kernel's device: a sandbox without it can't run this at all."""
    need("s3fs", "fusermount3")
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        pytest.skip(f"no FUSE on this machine: /dev/fuse: {error.strerror}")


@pytest.fixture
def mount(site: Site, bucket: str, tmp_path: Path) -> Iterator[Path]:
    need_fuse()
    point, secret, log = tmp_path / "mount", tmp_path / "secret", tmp_path / "log"
    point.mkdir()
    secret.write_text(f"{site.key.access_key}:{site.key.secret_key}")
    secret.chmod(0o600)
    options = (
        f"url={site.endpoint},endpoint={site.region},use_path_request_style,"
        f"passwd_file={secret},multipart_size=5,singlepart_copy_limit=10,retries=1,"
        "enable_content_md5,max_stat_cache_size=0"
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["s3fs", "-f", bucket, str(point), "-o", options], stdout=output, stderr=output
        )
        try:
            deadline = time.monotonic() + 30
            while not point.is_mount():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield point
        finally:
            subprocess.run(["fusermount3", "-u", str(point)], check=False)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_s3fs_reads_writes_renames_and_lists(mount: Path, tree: Path) -> None:
    for name, _ in NAMES:
        target = mount / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((tree / name).read_bytes())
    assert files_of(mount) == files_of(tree)

    with (mount / "small.txt").open("ab") as file:
        file.write(b" and more")
    assert (mount / "small.txt").read_bytes() == (tree / "small.txt").read_bytes() + b" and more"

    big = content(23 * MIB, 4)  # in parts; renamed by copying parts on the server
    (mount / "big").write_bytes(big)
    (mount / "big").rename(mount / "renamed")
    assert (mount / "renamed").read_bytes() == big
    assert not (mount / "big").exists()

    (mount / "deep" / "big.bin").unlink()
    assert sorted(os.listdir(mount / "deep")) == ["er"]
    (mount / "small.txt").chmod(0o600)
    assert (mount / "small.txt").stat().st_mode & 0o777 == 0o600
