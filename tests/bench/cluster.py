"""What three nodes cost, and how long their clients wait.

    python -m tests.bench.cluster latency     round trips of each operation over slow links
    python -m tests.bench.cluster frozen      p99 while one of three nodes is stopped, then killed
    python -m tests.bench.cluster cost        CPU-s/GB and memory of big PUTs, rf 3, no slow links

Links are simulated by a proxy before each node's RPC port: --delay-ms one way, --mbps each way.
What the line itself allows is measured through the same proxy in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.link_proxy import LinkProxy
from tests.bench.report import Processes, Report
from tests.cluster.load import client_of
from tests.cluster.machines import Machine
from tests.cluster.processes import ClusterNode, ProcessCluster
from tests.process import free_ports
from tests.sigv4 import Client, Reply

MIB = 2**20
BUCKET = "bench"
ROUNDS = 7
BIG_BYTES = 64 * MIB
FROZEN_SECONDS = 8.0
LINE_BYTES = 16 * MIB


@contextlib.contextmanager
def slow_cluster(directory: Path, delay_ms: float, mbps: float) -> Iterator[ProcessCluster]:
    """Three nodes on loopback, each behind a slow link (none for a delay of 0)."""
    secret = hashlib.sha256(str(directory).encode()).hexdigest()
    proxies: list[subprocess.Popen[bytes]] = []
    nodes: list[ClusterNode] = []
    for number in range(3):
        home = directory / f"node{number}"
        home.mkdir()
        public = f"127.0.0.1:{free_ports(1)[0]}" if delay_ms else None
        node = ClusterNode(home, Machine("127.0.0.1"), 3, secret=secret, public=public)
        nodes.append(node)
        if public is not None:
            proxies.append(_proxy(public, f"127.0.0.1:{node.rpc_port}", delay_ms, mbps))
    cluster = ProcessCluster(nodes)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        for proxy in proxies:
            proxy.kill()
            proxy.wait()


def _proxy(listen: str, target: str, delay_ms: float, mbps: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.bench.link_proxy", listen, target]
    return subprocess.Popen([*command, f"--delay-ms={delay_ms}", f"--mbps={mbps}"])


def make_bucket(cluster: ProcessCluster) -> None:
    reply = client_of(cluster.nodes[0], cluster.key).call("PUT", BUCKET)
    assert reply.status == 200, reply
    for node in cluster.nodes:
        cluster.until(lambda node=node: _has_bucket(cluster, node))  # type: ignore[misc]


def _has_bucket(cluster: ProcessCluster, node: ClusterNode) -> bool:
    return client_of(node, cluster.key).call("HEAD", BUCKET).status == 200


# --- round trips


def latency(asked: argparse.Namespace, directory: Path) -> None:
    with slow_cluster(directory, asked.delay_ms, asked.mbps) as cluster:
        make_bucket(cluster)
        client = client_of(cluster.nodes[0], cluster.key)
        round_trip = 2 * asked.delay_ms / 1000
        time.sleep(5)  # until the nodes have measured their links
        for name, act in operations(client).items():
            times = []
            for number in range(ROUNDS):
                prepared = act(number)
                began = time.perf_counter()
                replies = prepared()
                times.append(time.perf_counter() - began)
                assert all(reply.status in (200, 204, 206) for reply in replies), replies
            median = statistics.median(times)
            print(f"{name:<22} {median / round_trip:5.2f} round trips  {median * 1000:7.0f} ms")
        bulk(cluster, client, asked)


def operations(client: Client) -> dict[str, Callable[[int], Callable[[], list[Reply]]]]:
    """Each makes what it needs, and gives what is to be timed."""
    small, medium = b"x" * 1000, random.Random(1).randbytes(100_000)

    def call(method: str, key: str, query: str = "", body: bytes = b"", **extra: str) -> Reply:
        headers = {name.replace("_", "-"): value for name, value in extra.items()}
        return client.call(method, BUCKET, key, query, body, headers)

    def on_object(act: Callable[[str], Reply]) -> Callable[[int], Callable[[], list[Reply]]]:
        def prepare(number: int) -> Callable[[], list[Reply]]:
            key = f"there/{number}"
            call("PUT", key, body=small)
            time.sleep(0.5)
            return lambda: [act(key)]

        return prepare

    def fresh(act: Callable[[str], Reply]) -> Callable[[int], Callable[[], list[Reply]]]:
        return lambda number: lambda: [act(f"new/{time.monotonic_ns()}")]

    def completing(number: int) -> Callable[[], list[Reply]]:
        key = f"upload/{number}"
        begun = call("POST", key, "uploads=")
        upload = re.findall(rb"<UploadId>([^<]+)<", begun.body)[0].decode()
        part = call("PUT", key, f"partNumber=1&uploadId={upload}", medium)
        document = (
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
            f"<ETag>{part.headers['etag']}</ETag></Part></CompleteMultipartUpload>"
        )
        return lambda: [call("POST", key, f"uploadId={upload}", document.encode())]

    def deleting(number: int) -> Callable[[], list[Reply]]:
        keys = "".join(f"<Object><Key>many/{number}/{n}</Key></Object>" for n in range(1000))
        document = f"<Delete><Quiet>true</Quiet>{keys}</Delete>".encode()
        digest = hashlib.sha256(document).digest()
        checksum = base64.b64encode(digest).decode()
        return lambda: [call("POST", "", "delete=", document, x_amz_checksum_sha256=checksum)]

    copy = {"x-amz-copy-source": f"/{BUCKET}/there/0"}
    return {
        "PUT 1 KB": fresh(lambda key: call("PUT", key, body=small)),
        "PUT 1 KB again": on_object(lambda key: call("PUT", key, body=small)),
        "GET 1 KB": on_object(lambda key: call("GET", key)),
        "HEAD": on_object(lambda key: call("HEAD", key)),
        "LIST a page": on_object(lambda key: call("GET", "", "list-type=2")),
        "COPY 1 KB": fresh(lambda key: client.call("PUT", BUCKET, key, extra=copy)),
        "DELETE": on_object(lambda key: call("DELETE", key)),
        "PUT If-None-Match": fresh(
            lambda key: client.call("PUT", BUCKET, key, "", small, {"if-none-match": "*"})
        ),
        "PUT 100 KB": fresh(lambda key: call("PUT", key, body=medium)),
        "complete multipart": completing,
        "DELETE 1000 keys": deleting,
    }


def bulk(cluster: ProcessCluster, client: Client, asked: argparse.Namespace) -> None:
    """Big objects, beside what the line carries by itself."""
    line = asyncio.run(line_bytes_per_second(asked.delay_ms, asked.mbps))
    body = random.Random(2).randbytes(BIG_BYTES)
    began = time.perf_counter()
    reply = client.call("PUT", BUCKET, "big", body=body)
    put = BIG_BYTES / (time.perf_counter() - began)
    assert reply.status == 200, reply
    print(f"PUT {BIG_BYTES // MIB} MiB: {put / 1e6:.2f} MB/s, {put / line:.0%} of the line")
    for number, node in enumerate(cluster.nodes):
        began = time.perf_counter()
        reply = client_of(node, cluster.key, 120).call("GET", BUCKET, "big")
        get = BIG_BYTES / (time.perf_counter() - began)
        assert reply.body == body
        print(f"GET at node {number}: {get / 1e6:.2f} MB/s, {get / line:.0%} of the line")


async def line_bytes_per_second(delay_ms: float, mbps: float) -> float:
    """What one TCP connection gets through the proxy."""
    done = asyncio.Event()

    async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(MIB):
            pass
        done.set()
        writer.close()

    server = await asyncio.start_server(sink, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()[:2]
    proxy = await LinkProxy(target, delay_ms, mbps).serve("127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*proxy.sockets[0].getsockname()[:2])
    began = time.perf_counter()
    writer.write(bytes(LINE_BYTES))
    writer.write_eof()
    await done.wait()
    taken = time.perf_counter() - began
    writer.close()
    for each in (server, proxy):
        each.close()
    return LINE_BYTES / taken


# --- a node is silent


class Caller(threading.Thread):
    """Puts and gets one small object after another, and keeps how long each took."""

    def __init__(self, cluster: ProcessCluster, number: int) -> None:
        super().__init__(daemon=True)
        self._client = client_of(cluster.nodes[number % 2], cluster.key)
        self._name = f"caller/{number}"
        self.times: list[tuple[float, float]] = []
        """(begin, seconds)."""
        self.failed: list[Reply] = []
        self.done = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.done.is_set():
            number += 1
            for method in ("PUT", "GET"):
                began = time.perf_counter()
                body = b"x" * 1000 if method == "PUT" else b""
                reply = self._client.call(method, BUCKET, f"{self._name}/{number % 50}", body=body)
                self.times.append((began, time.perf_counter() - began))
                if reply.status != 200:
                    self.failed.append(reply)


def frozen(asked: argparse.Namespace, directory: Path) -> None:
    with slow_cluster(directory, asked.delay_ms, asked.mbps) as cluster:
        make_bucket(cluster)
        callers = [Caller(cluster, number) for number in range(4)]
        for caller in callers:
            caller.start()
        time.sleep(3)
        moments = [("normal", time.perf_counter())]
        time.sleep(FROZEN_SECONDS)
        cluster.nodes[2].freeze()
        moments.append(("frozen, first second", time.perf_counter()))
        moments.append(("frozen", moments[-1][1] + 1))
        time.sleep(FROZEN_SECONDS)
        assert cluster.nodes[2].process is not None
        os.kill(cluster.nodes[2].process.pid, signal.SIGKILL)
        moments.append(("killed, first second", time.perf_counter()))
        moments.append(("killed", moments[-1][1] + 1))
        time.sleep(FROZEN_SECONDS)
        moments.append(("", time.perf_counter()))
        for caller in callers:
            caller.done.set()
        for caller in callers:
            caller.join()
        for (name, begin), (_, end) in zip(moments, moments[1:], strict=False):
            times = sorted(t for c in callers for at, t in c.times if begin <= at < end)
            if times:
                p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
                print(
                    f"{name:<22} {len(times):5} requests  p50 {p50:.3f}  p99 {p99:.3f}"
                    f"  max {times[-1]:.3f} s"
                )
        print("refused:", sum(len(caller.failed) for caller in callers))


# --- what it costs


def cost(asked: argparse.Namespace, directory: Path) -> None:
    with slow_cluster(directory, 0, 0) as cluster:
        make_bucket(cluster)
        pids = [node.process.pid for node in cluster.nodes if node.process is not None]
        report = Report(Processes(pids))
        body = random.Random(3).randbytes(BIG_BYTES)
        client = client_of(cluster.nodes[0], cluster.key)
        for name, method in (("big PUT, rf 3", "PUT"), ("big GET, rf 3", "GET")):
            with report.phase(name) as result:
                for number in range(4):
                    sent = body[number:] if method == "PUT" else b""
                    reply = client.call(method, BUCKET, f"big/{number}", body=sent)
                    assert reply.status == 200, reply
                result.payload_bytes = 4 * BIG_BYTES
        for node, pid in zip(cluster.nodes, pids, strict=True):
            each = Processes([pid])
            print(
                f"node {node.host}: peak {each.memory_mib('VmHWM'):.0f} MiB, "
                f"anonymous now {each.memory_mib('RssAnon'):.0f}"
            )


def main() -> None:
    phases = {"latency": latency, "frozen": frozen, "cost": cost}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=phases)
    parser.add_argument("--delay-ms", type=float, default=100)
    parser.add_argument("--mbps", type=float, default=50)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        phases[asked.phase](asked, Path(directory))


if __name__ == "__main__":
    main()
