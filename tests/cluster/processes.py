"""A cluster of `garage-lite server` processes, made by its commands as an administrator does."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.cluster.machines import Machine, machines
from tests.process import REGION, Key, NodeProcess, free_ports

CONNECTED_SECONDS_MAX = 30

CONFIG = """\
metadata_dir = "{directory}/meta"
data_dir = "{directory}/data"
replication_factor = {copies}
rpc_bind_addr = "{bind}:{rpc}"
rpc_public_addr = "{public}"
rpc_secret = "{secret}"

[s3_api]
api_bind_addr = "{host}:{s3}"
s3_region = "{region}"

[admin]
api_bind_addr = "{host}:{admin}"
admin_token = "admin-token-of-a-test"
"""


class ClusterNode(NodeProcess):
    """One node of a cluster on its machine."""

    def __init__(
        self,
        directory: Path,
        machine: Machine,
        copies: int,
        *,
        secret: str,
        public: str | None = None,
        deaf: bool = False,
    ) -> None:
        """`public`: where others reach it, if not where it listens. `deaf`: it takes no
        connection from other machines."""
        super().__init__(directory)
        self.machine = machine
        self.rpc_port = free_ports(1)[0]
        self.settings = {
            "directory": directory,
            "copies": copies,
            "host": machine.host,
            "bind": "127.0.0.1" if deaf else machine.host,
            "public": public or f"{machine.host}:{self.rpc_port}",
            "rpc": self.rpc_port,
            "s3": self.s3_port,
            "admin": self.admin_port,
            "region": REGION,
            "secret": secret,
        }
        self.configure()

    def configure(self, **changes: object) -> None:
        """Write the configuration anew; takes effect at the next start."""
        self.settings |= changes
        self.config.write_text(CONFIG.format(**self.settings))

    @property
    def endpoint(self) -> str:
        return f"http://{self.machine.host}:{self.s3_port}"

    @property
    def host(self) -> str:
        return f"{self.machine.host}:{self.s3_port}"

    def id(self) -> str:
        return self.cli("node", "id", "-q").strip().split("@")[0]

    def freeze(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None, "not running"
        os.kill(self.process.pid, number)

    def wipe(self) -> None:
        """The disk is lost; the node's key was kept."""
        shutil.rmtree(self.directory / "data")
        for path in (self.directory / "meta").iterdir():
            if path.name.startswith("node_key"):
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def connections(self) -> int:
        """Other nodes that it is connected to, as `status` shows them."""
        listed = re.split(r"====.*?====", self.cli("status"))
        return len(re.findall(r"^[0-9a-f]{16}\b", listed[1], re.MULTILINE)) - 1

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(self.host, timeout=5)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/")
                return connection.getresponse().status > 0
            except (OSError, http.client.HTTPException):
                return False

    def _command(self) -> list[str]:
        return [*self.machine.prefix, *super()._command()]


class ProcessCluster:
    """Several nodes that know each other, laid out in one zone each."""

    def __init__(self, nodes: Sequence[ClusterNode]) -> None:
        self.nodes = list(nodes)
        self.key = Key("", "")

    def start(self, *, lay_out: bool = True) -> None:
        for node in self.nodes:
            node.start()
        self.connect()
        if lay_out:
            self.lay_out()

    def connect(self) -> None:
        """From the first node alone, as Garage's quick start does."""
        first, *others = self.nodes
        for node in others:
            first.cli("node", "connect", f"{node.id()}@{node.settings['public']}")
        self.until(lambda: all(n.connections() == len(others) for n in self.nodes))

    def lay_out(self) -> None:
        first = self.nodes[0]
        for number, node in enumerate(self.nodes):
            first.cli("layout", "assign", "-z", f"zone{number}", "-c", "10G", node.id())
        first.cli("layout", "apply", "--version", "1")
        self.until(lambda: all("zone0" in node.cli("layout", "show") for node in self.nodes))
        self.key = first.create_key("load")

    def until(self, holds: Callable[[], bool], seconds: float = CONNECTED_SECONDS_MAX) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "\n".join(n.log_tail() for n in self.nodes)
            time.sleep(0.1)

    def stop(self) -> None:
        for node in self.nodes:
            if node.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    node.thaw()
            node.kill()


@contextlib.contextmanager
def process_cluster(directory: Path, count: int = 3, copies: int = 3) -> Iterator[ProcessCluster]:
    """Made, not yet started."""
    secret = hashlib.sha256(str(directory).encode()).hexdigest()
    with machines(count) as places:
        nodes = []
        for number, machine in enumerate(places):
            home = directory / f"node{number}"
            home.mkdir()
            nodes.append(ClusterNode(home, machine, copies, secret=secret))
        cluster = ProcessCluster(nodes)
        try:
            yield cluster
        finally:
            cluster.stop()
