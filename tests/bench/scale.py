"""What a node costs when much is in it: memory, latency, listings, big uploads, a restart.

    python -m tests.bench.scale rows          10 M rows at rest: memory, latency beside 10 k rows
    python -m tests.bench.scale listing       1 M objects: pages over HTTP, deletions, kill -9
    python -m tests.bench.scale multipart     20 GB in parts of 8 MiB: metadata a part, completion

Each makes its own node in a directory of its own (`--directory` says on which disk: rows takes
3 GB). Objects are put below HTTP (`filling.py`). Every figure of a server is CPU time of its
process, beside a calibration of this machine taken in the same run; latencies are wall time and
mean little on a busy machine.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import random
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from tests.bench.engine import calibration_us
from tests.bench.filling import (
    BUCKET,
    ScaleNode,
    apart,
    in_a_row,
    open_only,
    read_at_rest,
    scattered,
)
from tests.bench.s3 import Bench
from tests.bench.wire import Request, drive

MIB = 2**20
DELETED = 100_000
BATCH_KEYS = 1000
AFTER_BIG = 1000
"""Objects that stand after the big prefix."""
PART_BYTES, PART_CONTENTS = 8 * MIB, 16


# --- 10 M rows


def rows(directory: Path, options: argparse.Namespace) -> None:
    """The engine alone in a fresh process, then GET and PUT of a node; each beside 10 k rows."""
    counts = {"10 k rows": 5_000, f"{options.rows} rows": options.rows // 2}
    nodes = {what: ScaleNode(directory / str(count)) for what, count in counts.items()}
    for what, node in nodes.items():
        node.fill(counts[what], scattered)
    print(f"calibration {calibration_us():.4f} us a turn")
    for _ in range(options.turns):
        for what, node in nodes.items():
            found = apart(read_at_rest, node.metalog, node.bucket, counts[what], scattered)
            print(
                f"{what}: RssAnon {found.anonymous_mib:.1f} MiB ({found.imported_mib:.1f} before"
                f" opening), opened in {found.opened_ms:.1f} ms; get {spread(found.gets, 'us')},"
                f" miss {spread(found.misses, 'us')}; commit {spread(found.commits_ms, 'ms')}",
                flush=True,
            )
    for node in nodes.values():
        node.process.start()
    benches = {what: node.bench() for what, node in nodes.items()}
    chance = random.Random(1)
    for turn in range(options.turns):
        for what, bench in benches.items():
            numbers = (chance.randrange(counts[what]) for _ in range(4000))
            gets = [bench.make("GET", scattered(number).decode()) for number in numbers]
            bench.drive(f"get x4, {what}", 4, gets)
            puts = [_small_put(bench, f"new/{turn}/{number}") for number in range(4000)]
            bench.drive(f"put x4, {what}", 4, puts)
    for node in nodes.values():
        node.process.stop()


def _small_put(bench: Bench, key: str) -> Request:
    body = key.encode() * 8
    return bench.make("PUT", key, body, payload=hashlib.sha256(body).hexdigest())


def spread(figures: list[float], unit: str) -> str:
    ordered = sorted(figures)
    p50, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    return f"p50 {p50:.2f} p99 {p99:.2f} {unit}"


# --- 1 M objects


def listing(directory: Path, options: argparse.Namespace) -> None:
    """Pages over HTTP, by prefix and delimiter, over deletions; then kill -9 and start again."""
    node = ScaleNode(directory / "node")
    node.fill(options.objects, in_a_row)
    node.process.start()
    bench = node.bench()
    bench.drive("put small/*", 16, [_small_put(bench, f"small/{n}") for n in range(AFTER_BIG)])
    middle = in_a_row(options.objects // 2).decode()
    pages = options.pages
    for _ in range(options.turns):
        walk(bench, "pages from the start", "", pages)
        walk(bench, "pages from the middle", middle, pages)
        scattered_pages(bench, options.objects, pages)
        folded(bench)
    walk(bench, "the whole bucket", "", 10**9)
    delete_first(bench, DELETED)
    for turn in range(options.turns):
        walk(bench, f"a page over {DELETED} deletions {turn}", "", 1)
        walk(bench, f"10 more pages {turn}", "", 10)
    restart(node, bench, options.turns)
    node.process.stop()


def list_page(bench: Bench, query: str) -> tuple[int, str | None]:
    """How many keys and prefixes a page has; where the next begins."""
    reply = bench.client.call("GET", BUCKET, query=query)
    assert reply.status == 200, reply.body[:300]
    count = reply.body.count(b"<Contents>") + reply.body.count(b"<CommonPrefixes>")
    if b"<IsTruncated>true<" not in reply.body:
        return count, None
    return count, re.findall(rb"<Key>([^<]+)</Key>", reply.body)[-1].decode()


def walk(bench: Bench, name: str, after: str, pages: int) -> None:
    following: str | None = after
    with bench.report.phase(name) as result:
        while following is not None and len(result.latencies) < pages:
            start = following and f"&start-after={quote(following, safe='')}"
            began = time.perf_counter()
            count, following = list_page(bench, f"list-type=2&max-keys=1000{start}")
            result.latencies.append(time.perf_counter() - began)
            result.requests += count


def scattered_pages(bench: Bench, objects: int, pages: int) -> None:
    chance = random.Random(2)
    with bench.report.phase("pages after random keys") as result:
        for _ in range(pages):
            after = quote(in_a_row(chance.randrange(objects)).decode(), safe="")
            began = time.perf_counter()
            count, _ = list_page(bench, f"list-type=2&max-keys=1000&start-after={after}")
            result.latencies.append(time.perf_counter() - began)
            result.requests += count


def folded(bench: Bench) -> None:
    """Every page holds two prefixes, one of them with a million keys: it must be skipped."""
    with bench.report.phase("pages that skip big/") as result:
        for _ in range(50):
            began = time.perf_counter()
            count, _ = list_page(bench, "delimiter=%2F&list-type=2")
            result.latencies.append(time.perf_counter() - began)
            assert count == 2
            result.requests += 1


def delete_first(bench: Bench, count: int) -> None:
    with bench.report.phase(f"DeleteObjects of {count}") as result:
        for start in range(0, count, BATCH_KEYS):
            keys = (in_a_row(number).decode() for number in range(start, start + BATCH_KEYS))
            objects = "".join(f"<Object><Key>{key}</Key></Object>" for key in keys)
            body = f"<Delete><Quiet>true</Quiet>{objects}</Delete>".encode()
            began = time.perf_counter()
            reply = bench.client.call(
                "POST", BUCKET, query="delete=", body=body, extra=md5_of(body)
            )
            result.latencies.append(time.perf_counter() - began)
            assert reply.status == 200 and b"<Error>" not in reply.body, reply.body[:300]
            result.requests += BATCH_KEYS


def md5_of(body: bytes) -> dict[str, str]:
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    return {"content-md5": base64.b64encode(digest).decode()}


def restart(node: ScaleNode, bench: Bench, turns: int) -> None:
    """Kill it with a log full of what no segment holds, and wait for its S3 door."""
    for turn in range(turns):
        puts = [_small_put(bench, f"late/{turn}/{number}") for number in range(8000)]
        bench.drive("put before the kill", 64, puts)
        node.process.kill()
        figures = apart(open_only, node.metalog)
        began = time.perf_counter()
        node.process.start()
        took = time.perf_counter() - began
        bench = node.bench()
        cpu = bench.report.server.cpu_seconds()
        print(
            f"after kill -9: the log opens in {figures:.0f} ms (first time), the node answers after"
            f" {took:.2f} s, {cpu:.2f} CPU-s of it its own"
        )


# --- 20 GB in parts


def multipart(directory: Path, options: argparse.Namespace) -> None:
    """Parts of 8 MiB, sixteen contents over and over: blocks are stored once, to spare the disk,
    while the metadata is that of 20 GB. What a part writes beside blocks is counted by the
    kernel (wchar), as the median, for flushes of the memtable come in between."""
    node = ScaleNode(directory / "node")
    bench = node.bench()
    contents = [bench.content(PART_BYTES) for _ in range(PART_CONTENTS)]
    upload = begin_upload(bench)
    etags: list[str] = []
    written: list[int] = []
    pid = bench.report.server.roots[0]
    with bench.report.phase(f"{options.parts} parts of 8 MiB, one by one") as result:
        for number in range(1, options.parts + 1):
            before = bytes_written(pid)
            body = contents[number % PART_CONTENTS]
            query = f"partNumber={number}&uploadId={upload}"
            began = time.perf_counter()
            etag = _one(bench, "PUT", query, body)
            result.latencies.append(time.perf_counter() - began)
            etags.append(etag)
            written.append(bytes_written(pid) - before)
            result.payload_bytes += len(body)
    settled = written[PART_CONTENTS:] or written
    for what, some in (("first", settled[:100]), ("last", settled[-100:])):
        print(
            f"written a part, {what} hundred: median {sorted(some)[len(some) // 2]} bytes,"
            f" least {min(some)}, most {max(some)}"
        )
    bench.client.close()  # It was idle for longer than a server keeps it.
    complete_upload(bench, upload, etags)
    size = options.parts * PART_BYTES
    chance = random.Random(3)
    with bench.report.phase("ranges of 1 MiB in it") as result:
        for _ in range(200):
            start = chance.randrange(size - MIB)
            began = time.perf_counter()
            reply = bench.client.call(
                "GET", BUCKET, "20GB", extra={"range": f"bytes={start}-{start + MIB - 1}"}
            )
            result.latencies.append(time.perf_counter() - began)
            assert reply.status == 206 and len(reply.body) == MIB
            result.requests += 1
    node.process.stop()


def _one(bench: Bench, method: str, query: str, body: bytes) -> str:
    (answer,) = drive(bench.address, 1, [bench.make(method, "20GB", body, query)])
    return answer.etag


def begin_upload(bench: Bench) -> str:
    reply = bench.client.call("POST", BUCKET, "20GB", "uploads=")
    found = re.search(rb"<UploadId>([^<]+)<", reply.body)
    assert found is not None, reply
    return found[1].decode()


def complete_upload(bench: Bench, upload: str, etags: list[str]) -> None:
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        for number, etag in enumerate(etags, 1)
    )
    body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    with bench.report.phase(f"complete {len(etags)} parts") as result:
        began = time.perf_counter()
        reply = bench.client.call("POST", BUCKET, "20GB", f"uploadId={upload}", body)
        result.latencies.append(time.perf_counter() - began)
        result.requests = 1
    assert reply.status == 200, reply


def bytes_written(pid: int) -> int:
    """By write calls of the process so far, to files; sockets are sent to, not written."""
    found = re.search(r"^wchar: (\d+)$", Path(f"/proc/{pid}/io").read_text(), re.M)
    assert found is not None
    return int(found[1])


PHASES: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "rows": rows,
    "listing": listing,
    "multipart": multipart,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("phase", choices=PHASES)
    parser.add_argument("--directory", type=Path, help="where to make the node's own")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--parts", type=int, default=2400)
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--turns", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scale-", dir=options.directory) as directory:
        PHASES[options.phase](Path(directory), options)


if __name__ == "__main__":
    main()
