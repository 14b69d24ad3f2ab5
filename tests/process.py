"""A real node in a process of its own, made ready by its command line as an administrator does.

For the tests that need the whole program: real clients, kill -9. Knows the program only from
outside: its command, its configuration file, its ports.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

REGION = "garage"
CLIENT_PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
"""Where clients are looked for: those of this environment first."""

READY_SECONDS_MAX = 30
STOP_SECONDS_MAX = 10

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
root_domain = ".s3.localhost"

[admin]
api_bind_addr = "127.0.0.1:{admin}"
admin_token = "admin-token-of-a-test"
"""


@dataclass(frozen=True)
class Key:
    access_key: str
    secret_key: str


class NodeProcess:
    """One node over one directory; it may be started, stopped and killed many times."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.s3_port, self.admin_port, rpc_port = free_ports(3)
        self.config = directory / "garage.toml"
        self.log = directory / "log"
        self.config.write_text(
            CONFIG.format(
                directory=directory,
                region=REGION,
                secret=hashlib.sha256(str(directory).encode()).hexdigest(),
                s3=self.s3_port,
                admin=self.admin_port,
                rpc=rpc_port,
            )
        )
        self.config.chmod(0o600)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.s3_port}"

    def start(self) -> None:
        """Start it and wait until its S3 door answers."""
        assert self.process is None, "already running"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._command(), "server"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not self._answers():
            assert self.process.poll() is None, f"ended at start:\n{self.log_tail()}"
            assert time.monotonic() < deadline, f"never became ready:\n{self.log_tail()}"
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it by SIGTERM, cleanly and in time."""
        process, self.process = self.process, None
        assert process is not None, "not running"
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"did not stop in time:\n{self.log_tail()}") from None
        assert status == 0, f"ended with status {status}:\n{self.log_tail()}"

    def kill(self) -> None:
        """End it by SIGKILL, in the middle of whatever it does."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def cli(self, *words: str) -> str:
        """What a command of the CLI prints; AssertionError when it fails."""
        done = subprocess.run(
            [*self._command(), *words], capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def lay_out(self) -> None:
        """Give a fresh node its role, as Garage's quick start does."""
        node = self.cli("node", "id", "-q").strip().split("@")[0]
        self.cli("layout", "assign", "-z", "dc1", "-c", "100G", node)
        self.cli("layout", "apply", "--version", "1")

    def create_key(self, name: str) -> Key:
        """A new access key that may create buckets, read from the lines that scripts parse."""
        text = self.cli("key", "create", name)
        key = Key(_field("Key ID", text), _field("Secret key", text))
        self.cli("key", "allow", "--create-bucket", name)
        return key

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "garage_lite", "-c", str(self.config)]

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.s3_port, timeout=5)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/")
                return connection.getresponse().status > 0
            except (OSError, http.client.HTTPException):
                return False


def _field(name: str, text: str) -> str:
    match = re.search(rf"^{name}:\s*(\S+)$", text, re.MULTILINE)
    assert match is not None, f"no {name!r} in {text}"
    return match[1]


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def client_environment(home: Path, endpoint: str, key: Key) -> dict[str, str]:
    """What an AWS client reads from its environment, and nothing of ours that could mislead it."""
    return {
        "PATH": CLIENT_PATH,
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "AWS_ACCESS_KEY_ID": key.access_key,
        "AWS_SECRET_ACCESS_KEY": key.secret_key,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PAGER": "",
    }
