"""The addresses of this machine, and which of them to tell peers. Parsing only.

Linux shows them in two files: /proc/net/fib_trie (IPv4: a leaf line `|-- a.b.c.d`, then its
`/32 host LOCAL`) and /proc/net/if_inet6 (32 hex digits, then interface, length, scope, flags).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from garage_lite.core.wire.address import Address, TcpAddress
from garage_lite.core.wire.peering import ADDRESSES_MAX

WILDCARDS: Final = ("::", "0.0.0.0")
_GLOBAL_SCOPE: Final = "00"


def machine_hosts(fib_trie: str, if_inet6: str) -> list[str]:
    """The machine's IP addresses but for loopback and link-local ones; what can't be read is
    skipped."""
    hosts: list[str] = []
    leaf = ""
    for line in fib_trie.splitlines():
        text = line.strip()
        if text.startswith("|-- "):
            leaf = text.removeprefix("|-- ")
        elif text == "/32 host LOCAL" and leaf not in hosts:
            hosts.append(leaf)
    for line in if_inet6.splitlines():
        fields = line.split()
        if len(fields) >= 6 and fields[3] == _GLOBAL_SCOPE and len(fields[0]) == 32:
            hosts.append(str(ipaddress.IPv6Address(bytes.fromhex(fields[0]))))
    return [host for host in hosts if not ipaddress.ip_address(host).is_loopback]


def told_addresses(
    public: TcpAddress | None,
    bound: Address | None,
    subnet: str | None,
    machine: Sequence[str],
    link_host: str | None,
) -> tuple[TcpAddress, ...]:
    """Where peers should dial this node: `public` as configured, else the address it listens on,
    else (it listens on all of them) the machine's within `subnet`, else the one by which it talks
    to the peer (`link_host`)."""
    if public is not None:
        return (public,)
    if not isinstance(bound, TcpAddress):
        return ()
    if bound.host not in WILDCARDS:
        return (bound,)
    if subnet is not None:
        network = ipaddress.ip_network(subnet, strict=False)
        hosts = [host for host in machine if ipaddress.ip_address(host) in network]
        return tuple(TcpAddress(host, bound.port) for host in hosts[:ADDRESSES_MAX])
    if link_host is None or link_host.startswith("fe80:"):
        return ()
    return (TcpAddress(link_host, bound.port),)
