"""Where a node listens and how a peer is named: parsing only, nothing is resolved or opened.

"[::]:3901"  "127.0.0.1:3900"  "node.example:3901"     a TcpAddress
"/run/garage/s3.sock"                                  a UnixAddress
"<64 hex digits>@node.example:3901"                    a Peer: who, and where
"""

from __future__ import annotations

from dataclasses import dataclass

from garage_lite.core.ids import NODE_ID_BYTES, NodeId


@dataclass(frozen=True)
class TcpAddress:
    host: str
    """An IP address without brackets, or a name to resolve."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class UnixAddress:
    path: str

    def __str__(self) -> str:
        return self.path


Address = TcpAddress | UnixAddress


@dataclass(frozen=True)
class Peer:
    """A node that can be called: its public key, and an address it is said to have."""

    node: NodeId
    address: Address

    def __str__(self) -> str:
        return f"{self.node.hex()}@{self.address}"


def parse_tcp_address(text: str) -> TcpAddress:
    """`host:port` or `[ipv6]:port`. ValueError in plain words otherwise."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r} is no address; expected host:port, for example [::]:3901")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, for example [::1]:3901")
    if not host or any(c.isspace() or c in "[]@/" for c in host):
        raise ValueError(f"{text!r} has no valid host; expected host:port")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{text!r} has no valid port; expected a number from 0 to 65535")
    return TcpAddress(host, int(port))


def parse_address(text: str) -> Address:
    """A TCP address, or a Unix socket's absolute path (optionally after `unix:`)."""
    path = text.removeprefix("unix:")
    if path.startswith("/"):
        return UnixAddress(path)
    return parse_tcp_address(text)


def parse_peer(text: str) -> Peer:
    """`<64 hex digits>@<address>`. ValueError in plain words otherwise."""
    name, at, address = text.partition("@")
    if not at:
        raise ValueError(f"{text!r} is no peer; expected <64 hex digits>@<host>:<port>")
    try:
        node = bytes.fromhex(name) if name.isascii() and name.isalnum() else b""
    except ValueError:
        node = b""
    if len(node) != NODE_ID_BYTES:
        raise ValueError(f"{text!r}: a node id is 64 hexadecimal digits")
    return Peer(NodeId(node), parse_address(address))
