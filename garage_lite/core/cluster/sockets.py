"""Sockets that listen, and sockets that notice a peer which has vanished.

The one place that makes sockets by hand, for whatever protocol; what goes over them is none of its
business. Errors come in plain words.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Final

from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.errors import StartupError
from garage_lite.core.wire.address import Address, UnixAddress

LISTEN_BACKLOG: Final = 256
_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6))


def listening_socket(address: Address) -> socket.socket:
    """A bound, listening socket, for whatever protocol. StartupError says why it can't be had.

    [::] takes IPv4 as well, as Garage's does (asyncio's own would not), and stands for 0.0.0.0
    on a machine without IPv6. A Unix socket that nobody listens on any more is replaced.
    """
    try:
        if isinstance(address, UnixAddress):
            return _bind_unix(address.path)
        try:
            return _bind_tcp(address.host, address.port)
        except OSError as error:
            if address.host != "::" or error.errno not in _NO_IPV6:
                raise
            return _bind_tcp("0.0.0.0", address.port)
    except OSError as error:
        raise StartupError(f"can't listen on {address}: {reason_of(error)}") from error


def _bind_tcp(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, place = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        sock.bind(place)
        return _listen(sock)
    except OSError:
        sock.close()
        raise


def _bind_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or _is_alive(path):
                raise
            LocalFiles().remove(path)
            sock.bind(path)
        return _listen(sock)
    except OSError:
        sock.close()
        raise


def _is_alive(path: str) -> bool:
    """Whether somebody listens on a Unix socket; anything but a refusal counts as yes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) != errno.ECONNREFUSED


def _listen(sock: socket.socket) -> socket.socket:
    sock.listen(LISTEN_BACKLOG)
    sock.setblocking(False)
    return sock


def keep_alive(sock: socket.socket | None) -> None:
    """A peer that vanished without a word is noticed within about a minute and a half."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def reason_of(error: OSError) -> str:
    """An error of a socket in plain words."""
    plain = {
        errno.ECONNREFUSED: "connection refused (is it running?)",
        errno.ENOENT: "there is no such socket (is it running?)",
        errno.EADDRINUSE: "the address is already in use (is another node running?)",
        errno.EADDRNOTAVAIL: "this machine does not have that address",
        errno.EACCES: "permission denied",
    }
    return plain.get(error.errno or 0) or error.strerror or str(error)
