"""Which addresses a node tells its peers."""

from __future__ import annotations

from garage_lite.core.wire.address import TcpAddress, UnixAddress
from garage_lite.core.wire.interfaces import machine_hosts, told_addresses

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
     |-- 192.168.1.0
        /24 link UNICAST
     |-- 192.168.1.50
        /32 host LOCAL
     |-- 192.168.1.255
        /32 link BROADCAST
     |-- 10.8.0.3
        /32 host LOCAL
Local:
     |-- 192.168.1.50
        /32 host LOCAL
"""
IF_INET6 = """\
00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000007 02 40 00 00     eth0
fe80000000000000021122fffe334455 02 40 20 80     eth0
not a line
"""


def test_machine_hosts() -> None:
    assert machine_hosts(FIB_TRIE, IF_INET6) == ["192.168.1.50", "10.8.0.3", "2001:db8::7"]
    assert machine_hosts("", "") == []
    assert machine_hosts(IF_INET6, FIB_TRIE) == []


def test_told_addresses() -> None:
    machine = machine_hosts(FIB_TRIE, IF_INET6)
    every, one = TcpAddress("::", 3901), TcpAddress("10.8.0.3", 3901)
    named = TcpAddress("s3.example.org", 443)
    assert told_addresses(named, every, None, machine, "10.8.0.3") == (named,)
    assert told_addresses(None, one, None, machine, "192.168.1.50") == (one,)
    assert told_addresses(None, every, "10.0.0.0/8", machine, "192.168.1.50") == (one,)
    assert told_addresses(None, every, "2001:db8::/32", machine, None) == (
        TcpAddress("2001:db8::7", 3901),
    )
    assert told_addresses(None, every, None, machine, "10.8.0.3") == (one,)
    assert told_addresses(None, every, None, machine, "fe80::1%eth0") == ()
    assert told_addresses(None, None, None, machine, "10.8.0.3") == ()
    assert told_addresses(None, UnixAddress("/run/rpc.sock"), None, machine, None) == ()
