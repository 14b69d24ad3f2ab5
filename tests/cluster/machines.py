"""Where the nodes of a cluster run: network namespaces joined by a bridge, or loopback alone.

A namespace is a machine of its own as far as the network goes, so that its cable can be pulled.
Making one takes root; without it everything runs on loopback and nothing can be cut.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

_CLUSTERS = itertools.count()


@dataclass(frozen=True)
class Machine:
    """One place to run a node."""

    host: str
    """Its address, as the test and the other machines reach it."""
    prefix: tuple[str, ...] = ()
    """What runs a command there."""
    cable: str = ""
    """The bridge's end of its cable."""

    @property
    def can_be_cut(self) -> bool:
        return bool(self.cable)

    def cut(self) -> None:
        """Pull the cable: packets vanish, nobody is told."""
        _ip("link", "set", self.cable, "down")

    def heal(self) -> None:
        _ip("link", "set", self.cable, "up")


def can_make_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"glprobe{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return False
    _ip("netns", "del", name)
    return True


@contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """Namespaces where they can be made, else loopback."""
    if not can_make_namespaces():
        yield [Machine("127.0.0.1") for _ in range(count)]
        return
    with ExitStack() as undo:
        # The kernel takes its time to forget a namespace: no name or network is used twice.
        number = next(_CLUSTERS)
        mark = f"{os.getpid() % 100_000}{number:x}"
        subnet = f"10.{200 + os.getpid() % 50}.{(os.getpid() // 50 + number) % 256}"
        bridge = f"glb{mark}"
        _ip("link", "add", bridge, "type", "bridge")
        undo.callback(_ip, "link", "del", bridge)
        _ip("addr", "add", f"{subnet}.254/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        yield [_namespace(undo, bridge, mark, f"{subnet}.{n}") for n in range(1, count + 1)]


def _namespace(undo: ExitStack, bridge: str, mark: str, host: str) -> Machine:
    number = host.rsplit(".", 1)[1]
    name, outside = f"gl{mark}n{number}", f"glv{mark}n{number}"
    _ip("netns", "add", name)
    undo.callback(_ip, "netns", "del", name)
    _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("link", "set", outside, "master", bridge, "up")
    _ip("-n", name, "addr", "add", f"{host}/24", "dev", "eth0")
    _ip("-n", name, "link", "set", "eth0", "up")
    _ip("-n", name, "link", "set", "lo", "up")
    return Machine(host, ("ip", "netns", "exec", name), outside)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
