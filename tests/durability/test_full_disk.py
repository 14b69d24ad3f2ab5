"""A disk that is full, over HTTP: writes are refused with words that help, all else goes on, and
with room there are writes again. Nothing acknowledged is lost, nothing refused is left behind."""

from __future__ import annotations

import base64
import hashlib
import itertools
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.durability.load import listed
from tests.durability.small_disk import fill_up, free_bytes, small_disk
from tests.process import REGION, NodeProcess
from tests.sigv4 import Client, Reply, Signer

BUCKET = "full"
DISK_MIB = 128
"""Four files of the log, some blocks, and bytes of others."""
MIB = 1 << 20
BALLAST_BYTES = 32 * MIB
SMALL_BYTES = 2900
"""Goes into the log."""
SMALL_MAX = 40_000
RETRIES = 5000
"""A page of the log each would be more than a file of it."""
ROOM_SECONDS = 30
CHANCE = random.Random(112)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    with small_disk(tmp_path / "disk", DISK_MIB) as disk:
        node = NodeProcess(disk)
        node.log = tmp_path / "log"
        (disk / "ballast").write_bytes(bytes(BALLAST_BYTES))
        node.start()
        try:
            node.lay_out()
            yield node
        finally:
            node.kill()


@pytest.fixture
def s3(node: NodeProcess) -> Iterator[Client]:
    key = node.create_key("full-disk")
    host = node.endpoint.removeprefix("http://")
    client = Client(node.endpoint, Signer(host, key.access_key, key.secret_key, REGION))
    reply = client.call("PUT", BUCKET)
    assert reply.status == 200, reply.body
    yield client
    client.close()


def put(s3: Client, name: str, content: bytes) -> Reply:
    return s3.call("PUT", BUCKET, name, body=content)


def check_refused(reply: Reply) -> None:
    assert reply.status == 503, reply
    assert b"<Code>ServiceUnavailable</Code>" in reply.body
    assert b"disk full" in reply.body.lower()


def put_until_refused(s3: Client, name: str, size: int) -> dict[str, bytes]:
    """Objects until one is refused; those that were acknowledged."""
    stored: dict[str, bytes] = {}
    for number in range(SMALL_MAX):
        content = CHANCE.randbytes(size)
        reply = put(s3, f"{name}/{number:05}", content)
        if reply.status != 200:
            check_refused(reply)
            return stored
        stored[f"{name}/{number:05}"] = content
    raise AssertionError("the disk never was full")


def eventually(call: Callable[[], Reply]) -> None:
    """That a request is granted before long; until then it is refused for want of room."""
    deadline = time.monotonic() + ROOM_SECONDS
    while (reply := call()).status != 200:
        check_refused(reply)
        assert time.monotonic() < deadline, "there is room, and no write"
        time.sleep(0.2)


def check(s3: Client, stored: dict[str, bytes], objects_max: int = 300) -> None:
    """That what was acknowledged is listed, and nothing else; that some of it can be read."""
    assert listed(s3, BUCKET) == sorted(stored)
    for name in CHANCE.sample(sorted(stored), min(objects_max, len(stored))):
        reply = s3.call("GET", BUCKET, name)
        assert (reply.status, reply.body) == (200, stored[name]), name


def delete(s3: Client, stored: dict[str, bytes], names: list[str]) -> None:
    """Half of them one by one, half by DeleteObjects."""
    half = len(names) // 2
    for name in names[:half]:
        assert s3.call("DELETE", BUCKET, name).status == 204
    keys = "".join(f"<Object><Key>{name}</Key></Object>" for name in names[half:])
    body = f"<Delete><Quiet>true</Quiet>{keys}</Delete>".encode()
    digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    reply = s3.call("POST", BUCKET, query="delete=", body=body, extra={"content-md5": digest})
    assert reply.status == 200 and b"<Error>" not in reply.body, reply
    for name in names:
        del stored[name]


def begin_upload(s3: Client) -> str:
    found = re.search(rb"<UploadId>(\w+)<", s3.call("POST", BUCKET, "mp", "uploads=").body)
    assert found is not None
    return found[1].decode()


@pytest.mark.timeout(180)
def test_a_node_on_a_full_disk(node: NodeProcess, s3: Client) -> None:
    stored = {f"first/{number}": CHANCE.randbytes(1 + number * 300_000) for number in range(5)}
    for name, content in stored.items():
        assert put(s3, name, content).status == 200
    upload = begin_upload(s3)
    part = f"partNumber={{}}&uploadId={upload}"
    assert s3.call("PUT", BUCKET, "mp", part.format(1), CHANCE.randbytes(MIB)).status == 200

    # Blocks until there is no room, then bytes of others, then the log.
    stored |= put_until_refused(s3, "big", MIB)
    assert len(stored) > 10
    ballast = node.directory / "ballast"
    fill_up(ballast)
    stored |= put_until_refused(s3, "small", SMALL_BYTES)
    for _ in range(3):
        check_refused(put(s3, "refused/big", CHANCE.randbytes(3 * MIB)))
        check_refused(s3.call("PUT", BUCKET, "mp", part.format(2), CHANCE.randbytes(MIB)))
        check_refused(put(s3, "first/1", CHANCE.randbytes(MIB)))
    # Clients that try again and again don't eat the room that deletions have.
    for _ in range(RETRIES):
        check_refused(put(s3, "refused/again", b"x" * 4096))
    check(s3, stored)

    names = list(itertools.islice(stored, 3, 200))
    delete(s3, stored, names)
    assert s3.call("DELETE", BUCKET, "mp", f"uploadId={upload}").status == 204
    check(s3, stored)
    assert free_bytes(node.directory) < MIB

    ballast.unlink()
    for name, size in (("again/small", 100), ("again/big", 2 * MIB)):
        stored[name] = CHANCE.randbytes(size)
        eventually(lambda name=name: put(s3, name, stored[name]))  # type: ignore[misc]
    check(s3, stored)


@pytest.mark.timeout(180)
def test_a_node_starts_on_a_full_disk(node: NodeProcess, s3: Client) -> None:
    """A power cut on a full disk: what was acknowledged is there, and can be deleted."""
    stored = put_until_refused(s3, "big", MIB)
    fill_up(node.directory / "ballast")
    stored |= put_until_refused(s3, "small", SMALL_BYTES)
    for end in (node.kill, node.stop):
        end()
        s3.close()
        node.start()
        check(s3, stored)
        delete(s3, stored, list(stored)[:20])
        check_refused(put(s3, "refused", CHANCE.randbytes(MIB)))
    (node.directory / "ballast").unlink()
    stored["again"] = CHANCE.randbytes(MIB)
    eventually(lambda: put(s3, "again", stored["again"]))
    check(s3, stored, len(stored))
