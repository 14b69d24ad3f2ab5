"""Drive one S3 endpoint and say what it costs its server.

    python -m tests.bench.s3                                a node of this tree, made for the run
    python -m tests.bench.s3 --endpoint http://127.0.0.1:3900 --pid PID [--bucket bench]
                                                            any server on this machine; its key is
                                                            taken from AWS_ACCESS_KEY_ID and so on

Phases run in the order given. On a machine that others use too, the least of several runs
(`--repeat 3`) is the figure to keep. Every loop is bounded in count; only loopback is driven.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import os
import random
import re
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import quote, urlsplit

import anycrc

from tests.bench.report import Processes, Report
from tests.bench.wire import Answer, Request, drive, request
from tests.process import REGION, NodeProcess
from tests.sigv4 import UNSIGNED, Client, Signer

MIB = 2**20
SMALL_REQUESTS = {1: 2_000, 16: 8_000, 64: 16_000}
"""Connections: requests."""
PART_BYTES = 8 * MIB
UPLOADS, UPLOAD_BYTES = 100, 12 * MIB

CHECKSUMS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda body: b"",
    "crc32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
    "crc32c": lambda body: anycrc.Model("CRC32C").calc(body).to_bytes(4, "big"),
    "crc64nvme": lambda body: anycrc.Model("CRC64-NVME").calc(body).to_bytes(8, "big"),
    "sha1": lambda body: hashlib.sha1(body, usedforsecurity=False).digest(),
    "sha256": lambda body: hashlib.sha256(body).digest(),
}


class Bench:
    """One endpoint, one bucket, one report."""

    def __init__(self, endpoint: str, signer: Signer, bucket: str, report: Report) -> None:
        parts = urlsplit(endpoint)
        assert parts.hostname in ("127.0.0.1", "localhost", "::1"), "loopback only"
        self.address = (parts.hostname, parts.port or 80)
        self.signer, self.bucket, self.report = signer, bucket, report
        self.client = Client(endpoint, signer)
        self.random = random.Random(1)
        self.round = 0
        """How often the phase was run before: what it stores is new each time."""

    def content(self, size: int) -> bytes:
        """New bytes that don't compress; nothing is stored twice."""
        pieces = (self.random.randbytes(min(MIB, size - at)) for at in range(0, size, MIB))
        return b"".join(pieces)

    def make(
        self,
        method: str,
        key: str,
        body: bytes = b"",
        query: str = "",
        payload: str = UNSIGNED,
        extra: dict[str, str] | None = None,
    ) -> Request:
        """A request signed now (good for 15 minutes)."""
        path = f"/{self.bucket}/{key}"
        headers = self.signer.sign(method, path, query, payload, extra)
        target = f"{path}?{query}" if query else path
        return Request(request(method, target, headers, body), body, key)

    def drive(self, name: str, connections: int, requests: list[Request]) -> list[Answer]:
        """Send them all as one phase; bytes are counted when they are many."""
        with self.report.phase(name) as result:
            answers = drive(self.address, connections, requests)
            result.requests = len(answers)
            result.latencies = [answer.seconds for answer in answers]
            moved = sum(answer.body_bytes for answer in answers)
            moved += sum(len(each.body) for each in requests)
            result.payload_bytes = moved if moved > 100_000 * len(answers) else 0
        return answers

    def ensure_bucket(self) -> None:
        if self.client.call("HEAD", self.bucket).status == 404:
            reply = self.client.call("PUT", self.bucket)
            assert reply.status == 200, reply


def put1k(bench: Bench, options: argparse.Namespace) -> None:
    body = bench.content(1024)
    payload = hashlib.sha256(body).hexdigest()
    for connections, count in SMALL_REQUESTS.items():
        keys = (f"small/{bench.round}/{connections}/{n:06}" for n in range(count))
        requests = [bench.make("PUT", key, body, payload=payload) for key in keys]
        bench.drive(f"put 1 KiB x{connections}", connections, requests)


def get1k(bench: Bench, options: argparse.Namespace) -> None:
    """Of what put1k has stored at one connection."""
    stored = SMALL_REQUESTS[1]
    for connections, count in SMALL_REQUESTS.items():
        keys = (f"small/0/1/{number % stored:06}" for number in range(count))
        requests = [bench.make("GET", key) for key in keys]
        bench.drive(f"get 1 KiB x{connections}", connections, requests)


def put_big(bench: Bench, options: argparse.Namespace) -> None:
    for label, signed in (("signed", True), ("unsigned", False)):
        for _ in range(options.turns):
            body = bench.content(options.big_mib * MIB)
            payload = hashlib.sha256(body).hexdigest() if signed else UNSIGNED
            sent = bench.make("PUT", f"big/{label}", body, payload=payload)
            bench.drive(f"put {options.big_mib} MiB {label}", 1, [sent])


def get_big(bench: Bench, options: argparse.Namespace) -> None:
    """Of what put_big has stored."""
    for _ in range(options.turns):
        bench.drive(f"get {options.big_mib} MiB", 1, [bench.make("GET", "big/signed")])


def multipart(bench: Bench, options: argparse.Namespace) -> None:
    begun = bench.client.call("POST", bench.bucket, "multipart", "uploads=")
    found = re.search(rb"<UploadId>([^<]+)<", begun.body)
    assert found is not None, begun
    upload = quote(found[1].decode(), safe="")
    requests = []
    for number in range(1, options.big_mib * MIB // PART_BYTES + 1):
        body = bench.content(PART_BYTES)
        payload = hashlib.sha256(body).hexdigest()
        query = f"partNumber={number}&uploadId={upload}"
        made = bench.make("PUT", "multipart", body, query, payload)
        requests.append(made._replace(label=str(number)))
    answers = bench.drive("multipart, 8 MiB x4", 4, requests)
    parts = sorted((int(answer.label), answer.etag) for answer in answers)
    document = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        for number, etag in parts
    )
    body = f"<CompleteMultipartUpload>{document}</CompleteMultipartUpload>".encode()
    done = bench.client.call("POST", bench.bucket, "multipart", f"uploadId={upload}", body)
    assert done.status == 200, done


def listing(bench: Bench, options: argparse.Namespace) -> None:
    keys = (f"list/{number % 997:03}/photo-{number:09}.jpeg" for number in range(options.keys))
    empty = hashlib.sha256(b"").hexdigest()
    while batch := [bench.make("PUT", key, payload=empty) for key in islice(keys, 20_000)]:
        bench.drive(f"fill {len(batch)} keys x64", 64, batch)
    for _ in range(options.turns):
        list_pages(bench, "list 1,000 a page", options.keys)
    with bench.report.phase("list by delimiter") as result:
        query = "delimiter=%2F&list-type=2&prefix=list%2F"
        reply = bench.client.call("GET", bench.bucket, query=query)
        result.requests = reply.body.count(b"<Prefix>") - 1
    assert result.requests == min(997, options.keys), reply.body[:300]


def list_pages(bench: Bench, name: str, expected: int) -> None:
    with bench.report.phase(name) as result:
        after = ""
        while True:
            began = time.perf_counter()
            query = "list-type=2&max-keys=1000&prefix=list%2F" + (after and f"&start-after={after}")
            reply = bench.client.call("GET", bench.bucket, query=query)
            result.latencies.append(time.perf_counter() - began)
            keys = re.findall(rb"<Key>([^<]+)</Key>", reply.body)
            result.requests += len(keys)
            if b"<IsTruncated>true<" not in reply.body:
                break
            after = quote(keys[-1].decode(), safe="")
    assert result.requests == expected, f"{result.requests} of {expected} keys listed"


def uploads(bench: Bench, options: argparse.Namespace) -> None:
    """100 at once: what counts is the memory."""
    requests = []
    for number in range(UPLOADS):
        body = bench.content(UPLOAD_BYTES)
        payload = hashlib.sha256(body).hexdigest()
        requests.append(bench.make("PUT", f"upload/{number}", body, payload=payload))
    bench.drive("put 12 MiB x100", UPLOADS, requests)


def checksums(bench: Bench, options: argparse.Namespace) -> None:
    """The cost of each is its line less that of "none"."""
    for name, compute in CHECKSUMS.items():
        requests = []
        for number in range(options.big_mib * MIB // PART_BYTES):
            body = bench.content(PART_BYTES)
            value = base64.b64encode(compute(body)).decode()
            extra = {f"x-amz-checksum-{name}": value} if value else None
            requests.append(bench.make("PUT", f"sum/{name}/{number}", body, extra=extra))
        bench.drive(f"put 8 MiB, {name}", 2, requests)


PHASES: dict[str, Callable[[Bench, argparse.Namespace], None]] = {
    "put1k": put1k,
    "get1k": get1k,
    "put_big": put_big,
    "get_big": get_big,
    "multipart": multipart,
    "checksums": checksums,
    "uploads": uploads,
    "listing": listing,
}


@contextlib.contextmanager
def own_node(directory: Path) -> Iterator[tuple[str, int, Signer]]:
    """A node of this tree: its endpoint, its process, a key that may create buckets."""
    node = NodeProcess(directory)
    node.start()
    try:
        assert node.process is not None
        node.lay_out()
        key = node.create_key("bench")
        signer = Signer(urlsplit(node.endpoint).netloc, key.access_key, key.secret_key, REGION)
        yield node.endpoint, node.process.pid, signer
        node.stop()
    finally:
        node.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--endpoint", help="of a running server; its own node without it")
    parser.add_argument("--pid", type=int, action="append", help="of that server; repeatable")
    parser.add_argument("--bucket", default="bench")
    parser.add_argument("--region", default=os.environ.get("AWS_REGION", REGION))
    parser.add_argument("--phases", default=",".join(PHASES), help="default: %(default)s")
    parser.add_argument("--big-mib", type=int, default=256)
    parser.add_argument("--keys", type=int, default=100_000, help="for listing")
    parser.add_argument("--turns", type=int, default=3, help="of big objects and listings")
    parser.add_argument("--repeat", type=int, default=1, help="each phase, the least told at last")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if options.endpoint is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            endpoint, pid, signer = stack.enter_context(own_node(Path(directory)))
            pids = [pid]
        else:
            endpoint, pids = options.endpoint.rstrip("/"), options.pid or []
            access, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
            signer = Signer(urlsplit(endpoint).netloc, access, secret, options.region)
        report = Report(Processes(pids))
        bench = Bench(endpoint, signer, options.bucket, report)
        bench.ensure_bucket()
        for name in options.phases.split(","):
            for bench.round in range(options.repeat):
                if bench.round:
                    report.calibrate()
                PHASES[name](bench, options)
        report.tell_least()
        if options.json:
            report.save(options.json)


if __name__ == "__main__":
    main()
