#!/usr/bin/env python3
"""Prove that a frozen binary is whole: start it and use it as a stranger would.

    python3 packaging/selftest.py dist/garage-lite-0.1.0-amd64

Standard library only and one file, so that it can be copied to any machine beside the binary. It
signs its own requests and shares no code with the program under test.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import hmac
import http.client
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 10
MEMORY_MIB_MAX = 128
"""Anonymous memory of all its processes at any time of this test."""

REGION = "garage"
BUCKET = "selftest"
ACCESS_KEY = "GK" + "51" * 12
SECRET_KEY = secrets.token_hex(32)

CONFIG = """\
metadata_dir = "{directory}/meta"
data_dir = "{directory}/data"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:{rpc}"
rpc_public_addr = "127.0.0.1:{rpc}"
rpc_secret = "{secret}"
[s3_api]
api_bind_addr = "127.0.0.1:{s3}"
s3_region = "{region}"
[admin]
api_bind_addr = "127.0.0.1:{admin}"
"""


class Failure(Exception):
    """Something the binary should do, and did not."""


class Ports(NamedTuple):
    s3: int
    rpc: int
    admin: int


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Failure(what)


# --- a client


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def signed_headers(
    method: str, host: str, path: str, query: str, body: bytes, secret_key: str
) -> dict[str, str]:
    """The headers of AWS Signature Version 4 for a request whose path and query are as sent."""
    now = datetime.datetime.now(datetime.UTC)
    day, moment = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
    content = hashlib.sha256(body).hexdigest()
    headers = {"host": host, "x-amz-content-sha256": content, "x-amz-date": moment}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = "\n".join([method, path, query, lines, names, content])
    scope = f"{day}/{REGION}/s3/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    key = f"AWS4{secret_key}".encode()
    for word in scope.split("/"):
        key = _hmac(key, word)
    signature = _hmac(key, "\n".join(["AWS4-HMAC-SHA256", moment, scope, digest])).hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return headers


def call(
    port: int,
    method: str,
    key: str = "",
    query: str = "",
    body: bytes = b"",
    secret_key: str = SECRET_KEY,
) -> Reply:
    path = urllib.parse.quote(f"/{BUCKET}/{key}" if key else f"/{BUCKET}")
    headers = signed_headers(method, f"127.0.0.1:{port}", path, query, body, secret_key)
    return exchange(port, method, f"{path}?{query}" if query else path, headers, body)


def exchange(
    port: int, method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b""
) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, target, body=body or None, headers=headers or {})
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, names, response.read())
    finally:
        connection.close()


def found(pattern: bytes, body: bytes) -> str:
    match = re.search(pattern, body)
    require(match is not None, f"no {pattern!r} in {body[:500]!r}")
    assert match is not None
    return match[1].decode()


# --- the binary


class Node:
    """The binary under test, serving a directory that outlives it."""

    def __init__(self, binary: Path, directory: Path, ports: Ports) -> None:
        self.binary, self.ports = binary, ports
        self.config = directory / "garage.toml"
        self.config.write_text(
            CONFIG.format(
                directory=directory,
                region=REGION,
                secret=hashlib.sha256(SECRET_KEY.encode()).hexdigest(),
                **ports._asdict(),
            )
        )
        self.config.chmod(0o600)
        self.settings = {
            **os.environ,
            "GARAGE_DEFAULT_ACCESS_KEY": ACCESS_KEY,
            "GARAGE_DEFAULT_SECRET_KEY": SECRET_KEY,
            "GARAGE_DEFAULT_BUCKET": BUCKET,
        }

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Ready on entry; stopped by SIGTERM, cleanly and in time, on exit."""
        command = [str(self.binary), "-c", str(self.config), "server", "--single-node"]
        process = subprocess.Popen(
            [*command, "--default-access-key", "--default-bucket"], env=self.settings
        )
        try:
            self._await_ready(process)
            yield process
            process.send_signal(signal.SIGTERM)
            asked = time.monotonic()
            status = process.wait(STOP_SECONDS_MAX)
            require(status == 0, f"SIGTERM ended it with status {status}")
            print(f"stopped in {time.monotonic() - asked:.2f} s")
        except subprocess.TimeoutExpired as error:
            raise Failure(f"did not stop within {STOP_SECONDS_MAX} s of SIGTERM") from error
        finally:
            for pid in family(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        started = time.monotonic()
        while True:
            require(process.poll() is None, f"ended at start with status {process.returncode}")
            require(time.monotonic() - started < READY_SECONDS_MAX, "never became ready")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if exchange(self.ports.s3, "GET", "/").status < 500:
                    break
            time.sleep(0.05)
        print(f"ready in {time.monotonic() - started:.2f} s")

    def cli(self, *words: str) -> str:
        command = [str(self.binary), "-c", str(self.config), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        require(done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout


def family(root: int) -> list[int]:
    """The process and its descendants: a one-file binary unpacks itself and starts a child."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    members = [root]
    for pid in members:
        members += children.get(pid, [])
    return members


def anonymous_mib(root: int) -> float:
    """Memory that can't be evicted, in MiB, of a process and its descendants, now."""
    total = 0
    for pid in family(root):
        with contextlib.suppress(OSError):
            total += int(found(rb"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_bytes()))
    return total / 1024


def free_ports() -> Ports:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in Ports._fields]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return Ports(*(each.getsockname()[1] for each in sockets))


# --- what it must do

SMALL = b"a small object, kept in the metadata log"
BIG = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(6 * 1024 * 32))  # 6 MiB


def check_doors(node: Node) -> None:
    page = exchange(node.ports.admin, "GET", "/")
    require(page.status == 200, f"the status page answered {page.status}")
    require(b"Garage Lite" in page.body, "the status page does not say whose it is")
    require(exchange(node.ports.admin, "GET", "/health").status == 200, "/health is not well")
    require("HEALTHY NODES" in node.cli("status"), "`status` shows no healthy node")
    wrong = call(node.ports.s3, "GET", "small", secret_key="0" * 64)
    require(wrong.status == 403, f"a wrong signature was answered {wrong.status}")
    require(b"SignatureDoesNotMatch" in wrong.body, "a wrong signature got another code")


def check_writes(port: int) -> None:
    for key, body in (("small", SMALL), ("folder/big ünïcode", BIG)):
        reply = call(port, "PUT", key, body=body)
        require(reply.status == 200, f"PUT {key}: {reply.status} {reply.body!r}")
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        require(reply.headers["etag"] == f'"{etag}"', f"PUT {key}: ETag {reply.headers['etag']}")
    upload = found(rb"<UploadId>([^<]+)<", call(port, "POST", "parts", "uploads=").body)
    entries = []
    for number, part in enumerate((BIG, SMALL), 1):
        query = f"partNumber={number}&uploadId={urllib.parse.quote(upload, safe='')}"
        reply = call(port, "PUT", "parts", query, part)
        require(reply.status == 200, f"part {number}: {reply.status} {reply.body!r}")
        entries.append(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{reply.headers['etag']}</ETag></Part>"
        )
    document = f"<CompleteMultipartUpload>{''.join(entries)}</CompleteMultipartUpload>"
    query = f"uploadId={urllib.parse.quote(upload, safe='')}"
    reply = call(port, "POST", "parts", query, document.encode())
    require(reply.status == 200, f"complete: {reply.status} {reply.body!r}")


def check_reads(port: int) -> None:
    for key, body in (("small", SMALL), ("folder/big ünïcode", BIG), ("parts", BIG + SMALL)):
        reply = call(port, "GET", key)
        require(reply.status == 200, f"GET {key}: {reply.status} {reply.body[:300]!r}")
        require(reply.body == body, f"GET {key}: other bytes than were put")
    listing = call(port, "GET", query="delimiter=%2F&list-type=2").body
    keys = re.findall(rb"<Key>([^<]+)</Key>", listing)
    require(keys == [b"parts", b"small"], f"listed {keys}")
    require(b"<Prefix>folder/</Prefix>" in listing, "the listing lacks folder/")


def check_delete(port: int) -> None:
    require(call(port, "DELETE", "small").status == 204, "DELETE was not answered 204")
    require(call(port, "GET", "small").status == 404, "a deleted object is still there")
    require(b"<Key>small<" not in call(port, "GET", query="list-type=2").body, "listed still")


def selftest(binary: Path) -> None:
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=60)
    require(version.returncode == 0 and version.stdout.strip() != "", "--version says nothing")
    print(version.stdout.splitlines()[0])
    with tempfile.TemporaryDirectory(prefix="garage-lite-selftest-") as name:
        node = Node(binary, Path(name), free_ports())
        with node.running() as process:
            check_doors(node)
            check_writes(node.ports.s3)
            check_reads(node.ports.s3)
            memory = anonymous_mib(process.pid)
            print(f"anonymous memory {memory:.0f} MiB")
            require(memory <= MEMORY_MIB_MAX, f"uses {memory:.0f} of {MEMORY_MIB_MAX} MiB")
        with node.running():
            check_reads(node.ports.s3)
            check_delete(node.ports.s3)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("binary", type=Path)
    binary = parser.parse_args().binary.resolve()
    try:
        selftest(binary)
    except Failure as failure:
        sys.exit(f"selftest of {binary.name} failed: {failure}")
    print(f"selftest of {binary.name} passed")


if __name__ == "__main__":
    main()
